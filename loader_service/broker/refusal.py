"""The broker's one exception towards callers: a failure of the contract's table."""

from __future__ import annotations

from model_loader_wire.causes import Cause, Failure


class Refusal(Exception):
    """An operation ends with this failure; the edge turns it into a gRPC status."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.told = False
        """Whether an event has told of it."""


def refuse(cause: Cause, message: str) -> Refusal:
    """Make a refusal that concerns no limit."""
    return Refusal(Failure(cause, message))


def over_limit(limit: str, value: float, maximum: float, what: str) -> Refusal:
    """Make a refusal that names the limit, the value that was over it, and the maximum."""
    message = f"{what}: {value:.15g} is over the limit {limit} of {maximum:.15g}"
    return Refusal(Failure(Cause.LIMIT, message, limit, value, maximum))
