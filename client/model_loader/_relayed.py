"""Calls of a model whose tensors go through the service, in the control plane's messages."""

from __future__ import annotations

import time
from math import prod
from typing import Any

from model_loader_wire.buffers import byte_view
from model_loader_wire.causes import Cause
from model_loader_wire.data_types import DataType
from model_loader_wire.frames import BadFrame, Entry
from model_loader_wire.v1 import model_loader_pb2 as pb

from ._answer import Answer
from ._effects import Call, Steps
from ._loss import LosableModel
from ._plan import Plan, Request
from ._returning import NeverBegun
from ._values import Lost
from .errors import InvalidStateError, ModelLoaderError, TimeoutError


class RelayedModel(LosableModel):
    """A model as far as its calls go through the broker; what follows from their fate."""

    def _compute_relayed(
        self, request: Request, answer: Answer, deadline: float | None
    ) -> Steps[Any]:
        self.check_usable()
        plan = answer.plan
        message = compute_request(self.model_id, plan, request)
        reply: pb.ComputeReply = yield from self._relay("Compute", message, deadline)
        try:
            entries = answer_entries(reply, plan.most)
            answer.places(entries)
            return answer.result(entries, [tensor.data for tensor in reply.outputs])
        except BadFrame as error:
            yield from self._lose_by_violation(error)

    def _reset_relayed(self, deadline: float | None) -> Steps[None]:
        self.check_usable()
        yield from self._relay("Reset", pb.ResetRequest(model_id=self.model_id), deadline)

    def _relay(self, method: str, message: Any, deadline: float | None) -> Steps[Any]:
        wait = None if deadline is None else deadline - time.monotonic()
        if wait is not None and wait <= 0:
            raise TimeoutError("the deadline passed before the call began")
        try:
            return (yield Call(method, message, wait))
        except TimeoutError as error:
            if not error.model_lost:
                yield from self._lose_by_deadline("the computation")
            self._lose(Lost(error.cause, error.message))
            raise
        except ModelLoaderError as error:
            if self.closed:
                raise InvalidStateError("the model was closed during the call") from None
            if error.cause is Cause.LOST and self.lost is None:
                raise (yield from self.learn_verdict()) from None  # the first to notice is told why
            found = yield from self._explained(error)
            try:
                if found is not error:
                    # A session's name is looked at before anything else: nothing was computed.
                    if self.is_away and error.cause is Cause.FORBIDDEN:
                        raise NeverBegun(found.message) from None
                    raise found from None
                if error.model_lost or error.cause is Cause.UNAVAILABLE:
                    self._lose(Lost(error.cause, error.message))
                raise
            finally:
                del found  # else error and frame would hold each other, and the call


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
