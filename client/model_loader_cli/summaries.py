"""What `inspect` told of a model: the word of a worker that has read a hostile file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from model_loader import UnknownError
from model_loader_wire.causes import Cause


@contextmanager
def reading_summary() -> Iterator[None]:
    """Turn whatever goes wrong with a summary of another form into one error of the library."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UnknownError(
            "the worker's summary of the model has not the form that it should have "
            f"({type(error).__name__})",
            cause=Cause.PROTOCOL_VIOLATION,
        ) from error
