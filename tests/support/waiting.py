"""Waiting for what must come."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.support.raw_client import HANG_SECONDS


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for it; the time is a bound against hangs."""
    end = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < end, f"not within {HANG_SECONDS} s: {what}"
        time.sleep(0.02)
