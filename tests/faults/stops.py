"""Stages of a load or a call at which a process stops itself, so that a test may kill another.

A test writes the name of a stage into a file. The process that reaches the stage first removes the
file and stops (SIGSTOP): from then on nothing moves until the test lets it.
"""

from __future__ import annotations

import inspect
import signal
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any


class Stops:
    """The stages of one process."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def awaited(self) -> bool:
        """Whether the test waits for any stage."""
        return self._file.exists()

    def reached(self, stage: str) -> None:
        """Stop here if the test waits for this stage."""
        try:
            if self._file.read_text() != stage:
                return
            self._file.unlink()
        except FileNotFoundError:
            return
        # To this thread: another one would take its time to notice, and this one go on meanwhile.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    def around(self, owner: Any, name: str, *, before: str = "", after: str = "") -> None:
        """Make a function, plain or a coroutine, stop before or after it runs."""
        function: Callable[..., Any] = getattr(owner, name)

        @wraps(function)
        async def stopping_coroutine(*args: Any, **kwargs: Any) -> Any:
            self.reached(before)
            result = await function(*args, **kwargs)
            self.reached(after)
            return result

        @wraps(function)
        def stopping(*args: Any, **kwargs: Any) -> Any:
            self.reached(before)
            result = function(*args, **kwargs)
            self.reached(after)
            return result

        is_coroutine = inspect.iscoroutinefunction(function)
        setattr(owner, name, stopping_coroutine if is_coroutine else stopping)

    def in_answers(self, stage: str) -> None:
        """Stop when the head of an answer is in, and its end is not."""
        from model_loader_wire.exchange import Exchange

        advance = Exchange.advance

        def stopping(exchange: Exchange) -> None:
            advance(exchange)
            if exchange.header is not None and not exchange.done:
                self.reached(stage)

        setattr(Exchange, "advance", stopping)  # noqa: B010
