"""Reading the configuration again: who asked for it is told how it went, whatever happens."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from loader_service.broker.event_stream import EventStream
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import refuse
from loader_service.broker.reloading import Reloading
from loader_service.broker.settings import Settings
from loader_service.configuration.mistakes import ConfigurationError, Mistake, Place
from model_loader_wire.causes import Cause

BEFORE, AFTER = Settings(directory=""), Settings(directory="", operators="hardened")


class Checking:
    """The one who knows what this host can enforce."""

    def __init__(self, answer: Exception | None) -> None:
        self._answer = answer

    def check_policies(self, settings: Settings) -> None:
        """Refuse what the test says."""
        if self._answer is not None:
            raise self._answer


def reloaded(read: Any, refusal: Exception | None = None) -> tuple[list[bool], Settings]:
    """Reload as a signal does; gives what was told of it, and the settings then in force."""
    told: list[bool] = []

    async def test() -> Settings:
        principals = Principals(BEFORE)
        checking: Any = Checking(refusal)
        reloading = Reloading(principals, checking, EventStream())
        reloading.begin(read, told.append)
        while not told:
            await asyncio.sleep(0.01)
        return principals.settings

    return told, asyncio.run(asyncio.wait_for(test(), 60))


def fails(error: Exception) -> Any:
    """Give what reads a configuration and cannot."""

    def read() -> Settings:
        raise error

    return read


def test_what_is_right_holds_and_is_told() -> None:
    assert reloaded(lambda: AFTER) == ([True], AFTER)


@pytest.mark.parametrize(
    ("read", "refusal", "said"),
    [
        (
            fails(ConfigurationError([Mistake(Place("a file", 3), "it is wrong")])),
            None,
            "a file:3: it is wrong",
        ),
        (lambda: AFTER, refuse(Cause.UNSUPPORTED, "no such layer here"), "no such layer here"),
        (fails(ZeroDivisionError("a fault of ours")), None, "ZeroDivisionError: a fault of ours"),
    ],
)
def test_what_is_wrong_changes_nothing_and_is_told(
    read: Any, refusal: Exception | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert reloaded(read, refusal) == ([False], BEFORE)
    assert said in caplog.text
