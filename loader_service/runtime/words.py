"""What an interpreter says when it fails, without what it has said before.

Both runtimes keep every word of an interpreter's, and each error has all of them, the oldest first.
"""

from __future__ import annotations

_REMEMBERED = 1024
"""Characters by which a message is known as the beginning of the next one."""


class Words:
    """The words of one interpreter."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self._length = 0
        self._end = ""

    def new_in(self, message: str) -> str:
        """Return what came since the last message; all of it, if that is not its beginning."""
        length, end = self._length, self._end
        self._length, self._end = len(message), message[-_REMEMBERED:]
        if len(message) > length and message.startswith(end, length - len(end)):
            return message[length:]
        return message
