"""The service's log: on stderr, and bounded, so that who causes a line fills no disk."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import TextIO

from loader_service.broker.request_id import request_id
from model_loader_wire.causes import printable

MINUTE = 60.0
RECORD_LENGTH = 8192
"""Most characters of one record, its traceback included; the end of a longer one is kept."""


class TextFormatter(logging.Formatter):
    """Lines for people: no control character but line feeds, and not too long."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the text; the request that a record belongs to stands at its end."""
        request = request_id.get()
        text = super().format(record) + (f" [{request}]" if request else "")
        return _shortened("\n".join(map(printable, text.split("\n"))), RECORD_LENGTH)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, of ASCII characters; `facts` are what an event knows."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
        values: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if request := request_id.get():
            values["request"] = request
        values |= getattr(record, "facts", None) or {"message": record.getMessage()}
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        line = json.dumps(values, default=str)
        most = RECORD_LENGTH
        while len(line) > RECORD_LENGTH:
            # What is escaped takes up to six characters for one.
            most //= 2
            line = json.dumps({name: _cut(value, most) for name, value in values.items()})
        return line


def _cut(value: object, most: int) -> object:
    """Shorten what is not a number."""
    if isinstance(value, bool | int | float):
        return value
    return _shortened(str(value), most)


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    begin = most // 32
    return f"{text[:begin]} … {text[begin - most :]}"


class BoundedHandler(logging.StreamHandler[TextIO]):
    """Writes so many bytes a minute, and counts what it leaves out."""

    def __init__(
        self, stream: TextIO, bytes_per_minute: int, clock: Callable[[], float] = monotonic
    ) -> None:
        super().__init__(stream)
        self.setFormatter(TextFormatter())
        self._most = bytes_per_minute
        self._clock = clock
        self._ends = 0.0
        self._written = self._left_out = self._bytes_left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it; first tells what the last minute left out."""
        now = self._clock()
        if now >= self._ends:
            self._ends, self._written = now + MINUTE, 0
            self.tell()
        # What is written is what counts: a record is formatted twice, but seldom.
        size = len(self.format(record).encode("utf-8", "replace")) + 1
        if self._written + size > self._most:
            self._left_out += 1
            self._bytes_left_out += size
            return
        self._written += size
        super().emit(record)

    def tell(self) -> None:
        """Say what was left out since this was said last, if anything was."""
        if not self._left_out:
            return
        message = (
            f"{self._left_out} messages of {self._bytes_left_out} bytes were left out of this log: "
            f"log_bytes_per_minute = {self._most}"
        )
        self._left_out = self._bytes_left_out = 0
        record = logging.LogRecord(
            "model_loader.log", logging.WARNING, __file__, 0, message, (), None
        )
        super().emit(record)

    def close(self) -> None:
        """Say what was left out at the end."""
        self.tell()
        super().close()


def _is_no_clients_fault(record: logging.LogRecord) -> bool:
    """Leave out what a client sent, which gRPC logs with a traceback."""
    return not record.getMessage().startswith("Invalid encoding")


def configure(level: str, bytes_per_minute: int, form: str, log_format: str = "text") -> None:
    """Let everything that is logged go to stderr, within the bound; before gRPC is imported.

    `form` is that of a line of text; `log_format` is a name in `settings.LOG_FORMATS`.
    """
    # Its C core writes to stderr by itself, a line for each wrong header that a client sends.
    os.environ["GRPC_VERBOSITY"] = "NONE"
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_clients_fault)
    handler = BoundedHandler(sys.stderr, bytes_per_minute)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(form))
    logging.basicConfig(level=level, handlers=[handler])
