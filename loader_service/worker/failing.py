"""Turning what goes wrong inside a worker into a failure for the caller."""

from __future__ import annotations

from loader_service.runtime.failures import LimitReached, RuntimeFailure
from loader_service.runtime.flatbuffer import MalformedModel
from model_loader_wire.causes import Cause, Failure


class Refused(Exception):
    """The worker says no to a request, with the failure that the caller will see."""

    def __init__(
        self, cause: Cause, message: str, *, limit: str = "", value: float = 0, maximum: float = 0
    ) -> None:
        super().__init__(message)
        self.failure = Failure(cause, message, limit, value, maximum)


def failure_of(error: Exception, memory_bytes: int) -> Failure:
    """Say in the contract's words what `error` is; `memory_bytes` is the limit in force."""
    match error:
        case Refused():
            return error.failure
        case LimitReached():
            cause = Cause.OUT_OF_MEMORY if error.limit == "memory_bytes" else Cause.LIMIT
            return Failure(cause, str(error), error.limit, error.value, error.maximum)
        case RuntimeFailure():
            return Failure(error.cause, str(error))
        case MalformedModel():
            return Failure(Cause.INVALID_MODEL, str(error))
        case MemoryError():
            return Failure(
                Cause.OUT_OF_MEMORY,
                f"the worker needed more memory than memory_bytes = {memory_bytes} allow",
                "memory_bytes",
                memory_bytes,
                memory_bytes,
            )
        case _:
            return Failure(Cause.INTERNAL, f"{type(error).__name__}: {error}")
