"""Between the contract's values and the protobuf messages that carry them."""

from __future__ import annotations

from dataclasses import fields

from model_loader_wire.causes import Failure
from model_loader_wire.delegation import Delegation
from model_loader_wire.description import ModelDescription, SignatureDescription, TensorDescription
from model_loader_wire.limits import Limits
from model_loader_wire.v1 import model_loader_pb2 as pb


def limits_to_message(limits: Limits) -> pb.Limits:
    """Zero stands for a limit that is not set."""
    return pb.Limits(**limits.set_values())  # type: ignore[arg-type]  # names and types match


def limits_from_message(message: pb.Limits) -> Limits:
    """Read limits; raises ValueError or TypeError for an impossible one."""
    values = {field.name: getattr(message, field.name) for field in fields(Limits)}
    return Limits.from_values({name: value for name, value in values.items() if value})


def failure_to_message(failure: Failure) -> pb.ErrorDetail:
    """Write a failure for the trailing metadata."""
    return pb.ErrorDetail(
        cause=failure.cause.value,
        message=failure.message,
        limit=failure.limit,
        value=failure.value,
        maximum=failure.maximum,
        last_words=failure.last_words,
        model_lost=failure.model_lost,
    )


def tensor_to_message(tensor: TensorDescription) -> pb.TensorInfo:
    """Write a tensor's declaration; -1 stands for an unknown size."""
    message = pb.TensorInfo(
        name=tensor.name,
        data_type=pb.DataType.Name(int(tensor.data_type)),
        rank_known=tensor.dimensions is not None,
        dimensions=[-1 if size is None else size for size in tensor.dimensions or ()],
    )
    if tensor.byte_length is not None:
        message.byte_length = tensor.byte_length
    return message


def signature_to_message(signature: SignatureDescription) -> pb.Signature:
    """Write a signature's declaration."""
    return pb.Signature(
        name=signature.name,
        inputs=[tensor_to_message(tensor) for tensor in signature.inputs],
        outputs=[tensor_to_message(tensor) for tensor in signature.outputs],
    )


def delegation_to_message(delegation: Delegation) -> pb.Delegation:
    """Write a report on devices."""
    return pb.Delegation(
        nodes=delegation.nodes,
        partitions=[
            pb.Delegation.Partition(
                device=item.device,
                nodes=item.nodes,
                operators=item.operators,
                compile_seconds=item.compile_seconds,
                cache=item.cache,
                run_seconds=item.run_seconds,
            )
            for item in delegation.partitions
        ],
        devices=[
            pb.Delegation.Device(
                name=item.name,
                type=item.type,
                version=item.version,
                feature_level=item.feature_level,
            )
            for item in delegation.devices
        ],
        reasons=[
            pb.Delegation.Reason(
                device=item.device, operator=item.operator, count=item.count, reason=item.reason
            )
            for item in delegation.reasons
        ],
        steps=delegation.steps,
        coarse=delegation.coarse,
    )


def description_to_message(model: ModelDescription) -> pb.Description:
    """Write a model's declaration."""
    return pb.Description(
        signatures=[signature_to_message(signature) for signature in model.signatures],
        runtime=model.runtime,
        kernels=model.kernels,
        note=model.note,
        threads=model.threads,
        keeps_state=model.keeps_state,
    )
