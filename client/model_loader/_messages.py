"""From the service's protobuf messages to plain values; everything is capped and checked."""

from __future__ import annotations

from google.protobuf.message import DecodeError, Message

from model_loader_wire.causes import Cause, Failure, printable
from model_loader_wire.delegation import BadDelegation, Delegation, delegation_from_values
from model_loader_wire.description import BadDescription, ModelDescription, model_from_values
from model_loader_wire.limits import Limits
from model_loader_wire.v1 import model_loader_pb2 as pb

from ._values import Format, Isolation, ModelRow
from .errors import ModelLoaderError, NetworkError, UnknownError, from_failure

NAME_LENGTH = 256
LIST_LENGTH = 256
ERROR_KEY = "model-loader-error-bin"
SESSION_KEY = "model-loader-session"

SERVICE = "/model_loader.v1.ModelLoader/"
REPLIES: dict[str, type[Message]] = {
    "OpenSession": pb.SessionEvent,
    "Formats": pb.FormatsReply,
    "Load": pb.LoadReply,
    "Inspect": pb.InspectReply,
    "FindModel": pb.FindModelReply,
    "FindNamedModel": pb.FindNamedModelReply,
    "ListNamedModels": pb.ListNamedModelsReply,
    "Compute": pb.ComputeReply,
    "Reset": pb.ResetReply,
    "CloseModel": pb.CloseModelReply,
    "GetModel": pb.ModelState,
    "GetDelegation": pb.GetDelegationReply,
    "ListModels": pb.ListModelsReply,
}
"""Messages are read and written outside gRPC: it would turn a Ctrl-C that comes meanwhile into a
failed call, and forget it."""

_CAUSE_OF_CODE = {
    "CANCELLED": Cause.CANCELLED,
    "INVALID_ARGUMENT": Cause.INVALID_INPUT,
    "DEADLINE_EXCEEDED": Cause.TIMEOUT,
    "NOT_FOUND": Cause.CLOSED,
    "PERMISSION_DENIED": Cause.FORBIDDEN,
    "UNAUTHENTICATED": Cause.FORBIDDEN,
    "RESOURCE_EXHAUSTED": Cause.LIMIT,
    "FAILED_PRECONDITION": Cause.CLOSED,
    "ABORTED": Cause.FAILED,
    "UNIMPLEMENTED": Cause.UNSUPPORTED,
    "UNAVAILABLE": Cause.UNAVAILABLE,
}


def read_reply(method: str, data: bytes) -> Message:
    """Read the reply to a method; raises NetworkError for bytes that are none."""
    try:
        return REPLIES[method].FromString(data)
    except DecodeError:
        raise NetworkError(f"the service's answer to {method} cannot be read") from None


def failure_of(detail: pb.ErrorDetail) -> Failure:
    """Read an ErrorDetail; an unknown cause, from a newer service, is "internal"."""
    try:
        cause = Cause(detail.cause)
    except ValueError:
        cause = Cause.INTERNAL
    return Failure(
        cause,
        printable(detail.message) or "the service gave no message",
        printable(detail.limit, NAME_LENGTH),
        _number(detail.value),
        _number(detail.maximum),
        printable(detail.last_words),
        detail.model_lost,
    )


def failure_of_status(code: str, details: str, trailers: object) -> Failure:
    """Read a failed call: the service's own ErrorDetail if it came, else the gRPC status."""
    for key, value in trailers if isinstance(trailers, tuple | list) else ():
        if key == ERROR_KEY and isinstance(value, bytes):
            try:
                return failure_of(pb.ErrorDetail.FromString(value))
            except Exception:  # a service that cannot even serialize: fall back to the status
                break
    cause = _CAUSE_OF_CODE.get(code, Cause.INTERNAL)
    message = printable(details) or code
    if cause is Cause.UNAVAILABLE:
        # What gRPC says of its sockets helps nobody who has no service to look at.
        message = (
            "the Model Loader service does not answer; it may have ended: open a new context, and "
            "load the model again"
        )
    elif cause is Cause.TIMEOUT:
        message = "the deadline passed before the service answered"
    return Failure(cause, message)


def error_of_status(code: str, details: str, trailers: object) -> ModelLoaderError:
    """Make the error for a failed call."""
    failure = failure_of_status(code, details, trailers)
    error = from_failure(failure)
    error.model_lost = failure.model_lost
    return error


def limits_from(message: pb.Limits) -> Limits:
    """Read limits; zero means not set."""
    values = {field.name: value for field, value in message.ListFields() if value}
    try:
        return Limits.from_values(values)
    except (TypeError, ValueError) as error:
        raise NetworkError(f"the service names limits that cannot be: {error}") from None


def limits_to(limits: Limits) -> pb.Limits:
    """Write limits for a request."""
    message = pb.Limits()
    for name, value in limits.set_values().items():
        setattr(message, name, value)
    return message


def isolation_from(message: pb.Isolation) -> Isolation:
    """Read how a worker is locked down."""
    return Isolation(
        tuple(printable(layer, NAME_LENGTH) for layer in message.layers[:LIST_LENGTH]),
        {
            printable(item.layer, NAME_LENGTH): printable(item.reason)
            for item in message.missing[:LIST_LENGTH]
        },
        printable(message.memory_held_by, NAME_LENGTH),
        message.worker_pid,
        message.shared,
        {
            printable(item.device, NAME_LENGTH): tuple(
                printable(grant) for grant in item.grants[:LIST_LENGTH]
            )
            for item in message.devices[:LIST_LENGTH]
        },
    )


def description_from(message: pb.Description) -> ModelDescription:
    """Read a model's declaration with the checks that hold for a worker's own."""
    try:
        return model_from_values(
            {
                "runtime": message.runtime,
                "kernels": message.kernels,
                "note": message.note,
                "threads": message.threads,
                "keeps_state": message.keeps_state,
                "signatures": [
                    {
                        "name": signature.name,
                        "inputs": [_tensor_values(tensor) for tensor in signature.inputs],
                        "outputs": [_tensor_values(tensor) for tensor in signature.outputs],
                    }
                    for signature in message.signatures
                ],
            }
        )
    except BadDescription as error:
        raise UnknownError(
            f"the model's declaration cannot be: {error}", cause=Cause.PROTOCOL_VIOLATION
        ) from None


def delegation_from(message: pb.GetDelegationReply) -> Delegation | None:
    """Read the report on devices with the checks that hold for a worker's own."""
    if not message.HasField("delegation"):
        return None
    try:
        return delegation_from_values(delegation_values(message.delegation))
    except BadDelegation as error:
        raise UnknownError(
            f"the report on devices cannot be: {error}", cause=Cause.PROTOCOL_VIOLATION
        ) from None


def delegation_values(message: pb.Delegation) -> dict[str, object]:
    """Turn a report on devices into the values that its check takes."""
    return {
        "nodes": message.nodes,
        "partitions": [
            {
                "device": item.device,
                "nodes": item.nodes,
                "operators": dict(item.operators),
                "compile_seconds": item.compile_seconds,
                "cache": item.cache,
                "run_seconds": item.run_seconds if item.HasField("run_seconds") else None,
            }
            for item in message.partitions
        ],
        "devices": [
            {
                "name": item.name,
                "type": item.type,
                "version": item.version,
                "feature_level": item.feature_level,
            }
            for item in message.devices
        ],
        "reasons": [
            {
                "device": item.device,
                "operator": item.operator,
                "count": item.count,
                "reason": item.reason,
            }
            for item in message.reasons
        ],
        "steps": list(message.steps),
        "coarse": message.coarse,
    }


def formats_from(message: pb.FormatsReply) -> tuple[Format, ...]:
    """Read the formats that can be loaded."""
    return tuple(
        Format(
            printable(item.name, NAME_LENGTH),
            tuple(printable(version, NAME_LENGTH) for version in item.versions[:LIST_LENGTH]),
        )
        for item in message.formats[:LIST_LENGTH]
    )


def row_from(message: pb.ModelRow) -> ModelRow:
    """Read one row of the list of models."""
    return ModelRow(
        model_id=printable(message.model_id, NAME_LENGTH),
        origin=printable(message.origin, NAME_LENGTH),
        label=printable(message.label, NAME_LENGTH),
        sha256=message.sha256.hex(),
        worker_pid=message.worker_pid,
        isolation=isolation_from(message.isolation),
        memory_bytes=message.memory_bytes,
        cpu_seconds=message.cpu_seconds,
        calls=message.calls,
        age_seconds=message.age_seconds,
        runtime=printable(message.runtime, NAME_LENGTH),
        limits=limits_from(message.limits),
    )


def _tensor_values(tensor: pb.TensorInfo) -> dict[str, object]:
    return {
        "name": tensor.name,
        "type": tensor.data_type,
        "dimensions": list(tensor.dimensions) if tensor.rank_known else None,
        "bytes": tensor.byte_length if tensor.HasField("byte_length") else None,
    }


def _number(value: float) -> int | float:
    return int(value) if value == value and abs(value) < 2**53 and value == int(value) else value
