"""The name of the gRPC call that is being answered, for everything that is told of it."""

from __future__ import annotations

import itertools
import secrets
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The empty text outside of any call."""

_START = secrets.token_hex(4)
_numbers = itertools.count(1)


def new_request_id() -> str:
    """Name a call as no other is named, also after a restart."""
    return f"{_START}-{next(_numbers)}"
