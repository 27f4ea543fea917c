"""The errors of the Model Loader API, named as in the specification.

    ModelLoaderError
    ├── AbortError          the operation was withdrawn
    ├── ConstraintError     an argument is of the wrong kind (also TypeError)
    ├── DataError           model bytes or tensors are not what was expected
    ├── InvalidStateError   the object was closed, lost, or crossed a fork
    ├── NetworkError        the service is not there, or went away (also ConnectionError)
    ├── NotFoundError       the service serves no model of that name (also LookupError)
    ├── NotSupportedError   an operator, type, format, option or platform is not supported
    ├── OperationError      a computation failed, or the worker crashed
    ├── QuotaExceededError  a limit other than time; has limit, value and maximum
    ├── SecurityError       the sandbox was attacked, or something belongs to another
    ├── TimeoutError        the deadline passed (also the builtin TimeoutError)
    └── UnknownError        a fault of the service itself

``model_loader_wire.causes.TABLE`` says which cause becomes which error; ``docs/api.md`` shows it.
"""

from __future__ import annotations

import builtins
from typing import ClassVar

from model_loader_wire.causes import TABLE, Cause, Failure

__all__ = [
    "AbortError",
    "ConstraintError",
    "DataError",
    "InvalidStateError",
    "ModelLoaderError",
    "NetworkError",
    "NotFoundError",
    "NotSupportedError",
    "OperationError",
    "QuotaExceededError",
    "SecurityError",
    "TimeoutError",
    "UnknownError",
]


class ModelLoaderError(Exception):
    """Base of all errors here.

    ``cause`` is a name of the table in ``docs/api.md``; ``last_words`` is what the runtime last
    wrote on its standard error (the untrusted worker's word), or "".
    """

    usual_cause: ClassVar[Cause] = Cause.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        cause: Cause | None = None,
        last_words: str = "",
        limit: str = "",
        value: float = 0,
        maximum: float = 0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause or self.usual_cause
        self.last_words = last_words
        self.limit, self.value, self.maximum = limit, value, maximum
        self.model_lost = False
        """Whether the model is lost with this error."""

    def __str__(self) -> str:
        if not self.last_words:
            return self.message
        return f"{self.message}\nThe worker's last words were:\n{self.last_words}"

    def __reduce__(self) -> tuple[object, ...]:
        state = {**self.__dict__}
        return type(self), (self.message,), state


class AbortError(ModelLoaderError):
    """The operation was withdrawn before it ended.

    A cancelled task gets asyncio's own ``CancelledError``; this is for what the service withdrew.
    """

    usual_cause = Cause.CANCELLED


class ConstraintError(ModelLoaderError, TypeError):
    """An argument is of the wrong kind, or a value that its list does not have."""

    usual_cause = Cause.BAD_SOURCE


class DataError(ModelLoaderError):
    """The model's bytes, or the tensors' names, count, types or shapes, are wrong."""

    usual_cause = Cause.INVALID_INPUT


class InvalidStateError(ModelLoaderError):
    """The object was closed, was lost by an earlier failure, or crossed a fork."""

    usual_cause = Cause.CLOSED


class NetworkError(ModelLoaderError, ConnectionError):
    """The service is not there, or ended in the middle."""

    usual_cause = Cause.UNAVAILABLE


class NotFoundError(ModelLoaderError, LookupError):
    """The service serves no model of that name or version."""

    usual_cause = Cause.NOT_FOUND


class NotSupportedError(ModelLoaderError):
    """An operator, type, format, option, sandbox layer or platform is not supported."""

    usual_cause = Cause.UNSUPPORTED


class OperationError(ModelLoaderError):
    """An operator failed (the model is still usable), or the worker crashed (it is lost)."""

    usual_cause = Cause.FAILED


class QuotaExceededError(ModelLoaderError):
    """A limit other than time was reached.

    ``limit`` is the name of a field of ``Limits`` ("" where the service gave none), ``value`` what
    was asked for or reached, and ``maximum`` the limit, both in the unit of the limit's name.
    """

    usual_cause = Cause.LIMIT


class SecurityError(ModelLoaderError):
    """The worker tried what its sandbox forbids, or something belongs to another."""

    usual_cause = Cause.POLICY_VIOLATION


class TimeoutError(ModelLoaderError, builtins.TimeoutError):
    """The deadline passed and the work was ended."""

    usual_cause = Cause.TIMEOUT


class UnknownError(ModelLoaderError):
    """A fault of the service itself, or an answer of it that cannot be."""


_BY_NAME: dict[str, type[ModelLoaderError]] = {
    kind.__name__: kind for kind in ModelLoaderError.__subclasses__()
}


def from_failure(failure: Failure) -> ModelLoaderError:
    """Make the error that the table gives for a failure's cause."""
    return _BY_NAME[TABLE[failure.cause].error](
        failure.message,
        cause=failure.cause,
        last_words=failure.last_words,
        limit=failure.limit,
        value=_plain(failure.value),
        maximum=_plain(failure.maximum),
    )


def _plain(number: float) -> int | float:
    """Give bytes and counts as the integers that they are; the wire has one kind of number."""
    return int(number) if float(number).is_integer() else number
