"""The service's log is bounded, and says what it leaves out."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from loader_service.broker.log import RECORD_LENGTH, BoundedHandler, JsonFormatter
from loader_service.broker.request_id import request_id

MOST = 1000


class Clock:
    """A clock that the test moves."""

    now = 500.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The handler's clock."""
    return Clock()


@pytest.fixture
def stream() -> io.StringIO:
    """What is written."""
    return io.StringIO()


@pytest.fixture
def logger(stream: io.StringIO, clock: Clock) -> Iterator[logging.Logger]:
    """A logger that writes a thousand bytes a minute."""
    handler = BoundedHandler(stream, MOST, clock)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_a_minute_holds_so_much_and_the_next_one_tells_what_was_left_out(
    logger: logging.Logger, stream: io.StringIO, clock: Clock
) -> None:
    for _ in range(100):
        logger.warning("x" * 99)
    assert stream.getvalue() == ("x" * 99 + "\n") * 10
    clock.now += 60
    logger.warning("after")
    told, after = stream.getvalue().splitlines()[10:]
    assert told == (
        "90 messages of 9000 bytes were left out of this log: log_bytes_per_minute = 1000"
    )
    assert after == "after"
    clock.now += 60
    logger.warning("later")
    assert stream.getvalue().splitlines()[12:] == ["later"]


def test_the_end_tells_too(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.warning("x" * 990)
    logger.warning("more than there is room for")
    logger.handlers[0].close()
    assert stream.getvalue().splitlines()[1].startswith("1 messages of 28 bytes were left out")


def test_a_long_record_keeps_its_end_and_controls_are_escaped(clock: Clock) -> None:
    stream = io.StringIO()
    handler = BoundedHandler(stream, 10**6, clock)
    text = "begin \x1b[2J" + "x" * 50_000 + "\nthe end"
    handler.emit(logging.makeLogRecord({"msg": text}))
    written = stream.getvalue()
    assert len(written) <= RECORD_LENGTH + 10
    assert written.startswith("begin \\x1b[2J")
    assert written.endswith("\nthe end\n")


@pytest.fixture
def request_of_its_own() -> Iterator[str]:
    """Be in a request, as a call of a client is."""
    token = request_id.set("a1-7")
    yield "a1-7"
    request_id.reset(token)


def test_a_record_names_the_request_that_it_belongs_to(
    stream: io.StringIO, logger: logging.Logger, request_of_its_own: str
) -> None:
    logger.warning("it failed")
    assert stream.getvalue() == f"it failed [{request_of_its_own}]\n"


def test_json_has_one_object_a_line(
    stream: io.StringIO, logger: logging.Logger, request_of_its_own: str
) -> None:
    logger.handlers[0].setFormatter(JsonFormatter())
    logger.warning("two\nlines \x1b[2J and %s", "ä")
    logger.warning("", extra={"facts": {"event": "model-lost", "user": 7}})
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "warning",
        "logger": "test",
        "request": request_of_its_own,
        "message": "two\nlines \x1b[2J and ä",
    }
    assert stream.getvalue().isascii()
    assert "\x1b" not in stream.getvalue()
    assert (second["event"], second["user"], "message" in second) == ("model-lost", 7, False)


@pytest.mark.parametrize("character", ["x", "\x1b", "😀"])
def test_a_long_record_is_still_one_object_with_its_traceback(clock: Clock, character: str) -> None:
    stream = io.StringIO()
    handler = BoundedHandler(stream, 10**6, clock)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise ValueError(f"begin {character * 50_000} the end")
    except ValueError:
        logger.exception("begin %s the end", character * 50_000)
    (line,) = stream.getvalue().splitlines()
    assert len(line) <= RECORD_LENGTH
    value = json.loads(line)
    assert value["message"].endswith("the end")
    assert value["traceback"].endswith("the end")
