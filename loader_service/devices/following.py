"""What must live as long as an interpreter, whoever holds that and however it ends."""

from __future__ import annotations

import weakref
from typing import Any


class Following:
    """Ends after the interpreter that it follows; without one, when it is closed.

    An exception's frames may hold an interpreter that its owner has given up. A library whose
    delegate went before would be called when the interpreter goes.
    """

    def __init__(self) -> None:
        """Follow nobody yet."""
        self._following: weakref.finalize[Any, Any] | None = None
        self._ended = False

    def follow(self, native: Any) -> None:
        """Live as long as this `NativeInterpreter`; called before it gets the delegate."""
        self._following = weakref.finalize(native, self._end_once)
        self._following.atexit = False

    def close(self) -> None:
        """End now, or, while the interpreter lives, after it."""
        if self._following is None or not self._following.alive:
            self._end_once()

    def end(self) -> None:
        """Let go of everything; called once."""
        raise NotImplementedError

    def _end_once(self) -> None:
        if not self._ended:
            self._ended = True
            self.end()
