"""Tensors in the control plane's messages, for computations that the service relays."""

from __future__ import annotations

from math import prod

from model_loader_wire.data_types import DataType
from model_loader_wire.exchange import byte_view
from model_loader_wire.frames import BadFrame, Entry
from model_loader_wire.v1 import model_loader_pb2 as pb

from ._plan import Plan, Request


def compute_request(model_id: str, plan: Plan, request: Request) -> pb.ComputeRequest:
    """Write the request for one computation."""
    message = pb.ComputeRequest(model_id=model_id, signature=plan.index)
    for entry, part in zip(request.entries, request.payload, strict=True):
        message.inputs.add(
            data_type=int(entry.data_type),
            dimensions=entry.dimensions,
            data=bytes(byte_view(part)),
        )
    return message


def answer_entries(reply: pb.ComputeReply, most: int) -> tuple[Entry, ...]:
    """Read what an answer says of its tensors; raises BadFrame for what cannot be."""
    if sum(len(tensor.data) for tensor in reply.outputs) > most:
        raise BadFrame("the outputs are longer than the limit output_bytes")
    return tuple(_entry(tensor) for tensor in reply.outputs)


def _entry(tensor: pb.Tensor) -> Entry:
    try:
        data_type = DataType(tensor.data_type)
    except ValueError as error:
        raise BadFrame(str(error)) from None
    dimensions = tuple(tensor.dimensions)
    size = data_type.element_size
    length = len(tensor.data)
    if any(count < 0 for count in dimensions):
        raise BadFrame(f"{dimensions} are no dimensions")
    if size is not None and prod(dimensions) * size != length:
        raise BadFrame(f"{length} bytes do not fit {dimensions} {data_type.api_name}")
    return Entry(data_type, dimensions, length)
