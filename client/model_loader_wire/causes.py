"""Why something failed: one table from cause to error name to gRPC code.

Chromium's mapping of load and compute results is the start; it is made more precise where users
expect it. ``docs/api.md`` shows this table, and a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Cause(StrEnum):
    """Why a load, a computation or a model ended badly."""

    BAD_SOURCE = "bad-source"
    INVALID_INPUT = "invalid-input"
    INVALID_MODEL = "invalid-model"
    UNSUPPORTED = "unsupported"
    TIMEOUT = "timeout"
    LIMIT = "limit"
    OUT_OF_MEMORY = "out-of-memory"
    CPU_TIME = "cpu-time"
    CRASH_LOOP = "crash-loop"
    FAILED = "failed"
    CRASHED = "crashed"
    PROTOCOL_VIOLATION = "protocol-violation"
    POLICY_VIOLATION = "policy-violation"
    FORBIDDEN = "forbidden"
    NOT_ALLOWED = "not-allowed"
    NOT_FOUND = "not-found"
    CLOSED = "closed"
    LOST = "lost"
    KILLED = "killed"
    CANCELLED = "cancelled"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cause becomes for the caller."""

    error: str
    grpc_code: str
    meaning: str


TABLE: dict[Cause, Outcome] = {
    Cause.BAD_SOURCE: Outcome(
        "ConstraintError", "INVALID_ARGUMENT", "the model's source is no bytes, path or file"
    ),
    Cause.INVALID_INPUT: Outcome(
        "DataError", "INVALID_ARGUMENT", "names, count, types or shapes of the tensors are wrong"
    ),
    Cause.INVALID_MODEL: Outcome(
        "DataError", "INVALID_ARGUMENT", "the bytes are no valid model, or were damaged on the way"
    ),
    Cause.UNSUPPORTED: Outcome(
        "NotSupportedError", "UNIMPLEMENTED", "an operator, type, format or option is not supported"
    ),
    Cause.TIMEOUT: Outcome(
        "TimeoutError", "DEADLINE_EXCEEDED", "the deadline passed; the work was ended"
    ),
    Cause.LIMIT: Outcome(
        "QuotaExceededError", "RESOURCE_EXHAUSTED", "a limit other than time was reached"
    ),
    Cause.OUT_OF_MEMORY: Outcome(
        "QuotaExceededError", "RESOURCE_EXHAUSTED", "the worker reached its memory limit"
    ),
    Cause.CPU_TIME: Outcome(
        "QuotaExceededError", "RESOURCE_EXHAUSTED", "the worker used up its CPU time"
    ),
    Cause.CRASH_LOOP: Outcome(
        "QuotaExceededError",
        "RESOURCE_EXHAUSTED",
        "workers of this model died too often; it is refused for a while",
    ),
    Cause.FAILED: Outcome(
        "OperationError", "ABORTED", "an operator of the model failed; the model is still usable"
    ),
    Cause.CRASHED: Outcome("OperationError", "ABORTED", "the worker process crashed"),
    Cause.PROTOCOL_VIOLATION: Outcome(
        "OperationError", "ABORTED", "the worker sent bytes that the protocol does not allow"
    ),
    Cause.POLICY_VIOLATION: Outcome(
        "SecurityError", "PERMISSION_DENIED", "the worker tried what its sandbox forbids"
    ),
    Cause.FORBIDDEN: Outcome(
        "SecurityError", "PERMISSION_DENIED", "the session, model or origin belongs to another"
    ),
    Cause.NOT_ALLOWED: Outcome(
        "SecurityError",
        "PERMISSION_DENIED",
        "the operator's policy does not allow this model, or this client",
    ),
    Cause.NOT_FOUND: Outcome(
        "NotFoundError", "NOT_FOUND", "the service serves no model of that name or version"
    ),
    Cause.CLOSED: Outcome(
        "InvalidStateError", "FAILED_PRECONDITION", "the object was closed, or crossed a fork"
    ),
    Cause.LOST: Outcome(
        "InvalidStateError", "FAILED_PRECONDITION", "the model was lost by an earlier failure"
    ),
    Cause.KILLED: Outcome("OperationError", "ABORTED", "the worker process was killed"),
    Cause.CANCELLED: Outcome("AbortError", "CANCELLED", "the caller withdrew the operation"),
    Cause.UNAVAILABLE: Outcome(
        "NetworkError", "UNAVAILABLE", "the service is not there, or ended in the middle"
    ),
    Cause.INTERNAL: Outcome("UnknownError", "INTERNAL", "a fault of the service itself"),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure as it travels: plain values, capped in length by whoever receives it."""

    cause: Cause
    message: str
    limit: str = ""
    value: float = 0
    maximum: float = 0
    last_words: str = field(default="", repr=False)
    """What the runtime last wrote on stderr: the worker's word, so never a reason by itself."""
    model_lost: bool = False


MESSAGE_LENGTH = 4096
"""Most characters kept of a message or of last words that a worker wrote."""


def printable(text: str, length: int = MESSAGE_LENGTH) -> str:
    """Escape control characters (newline and tab excepted) and cap the length.

    Text from a worker reaches terminals and logs; escape sequences must not.
    """
    shortened = text if len(text) <= length else text[: length - 1] + "…"
    return "".join(
        character
        if character in "\n\t" or character.isprintable()
        # Not the codec "unicode_escape", whose module a sandboxed worker could not load any more.
        else repr(character)[1:-1]
        for character in shortened
    )
