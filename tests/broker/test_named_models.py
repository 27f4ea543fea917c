"""The repository's models: taken up, kept, withdrawn; trying them is told by the test."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from loader_service.broker.model_bytes import ModelBytes
from loader_service.broker.named_models import NamedModels
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.settings import Settings
from loader_service.repository.files import MODEL, PIN, Unfit
from model_loader_wire.causes import Cause
from tests.repository.folders import put
from tests.support.memories import memories


class Repository:
    """A repository that takes for bad what the test says."""

    def __init__(self, folder: Path, **settings: float) -> None:
        self.folder = folder
        self.tried: list[str] = []
        self.bad: dict[str, Exception] = {}
        self.models = NamedModels(
            Settings(directory="", repository=str(folder), **settings),  # type: ignore[arg-type]
            self._verify,
        )

    async def _verify(self, label: str, content: ModelBytes, warm_up: bytes | None) -> None:
        self.tried.append(label)
        if label in self.bad:
            raise self.bad[label]

    async def look(self) -> list[tuple[str, int, int]]:
        """Look once; returns what is served: name, version and size."""
        await self.models.look(self.folder)
        return [(item.name, item.number, item.content.size) for item in self.models.served()]


def run(test: Callable[[Repository], Awaitable[None]], folder: Path, **settings: float) -> None:
    """Run a test on a repository, which must let go of everything at its end."""

    async def whole() -> None:
        repository = Repository(folder, **settings)
        try:
            await test(repository)
        finally:
            await repository.models.stop()

    gc.collect()  # what tests before have left in cycles is not to go meanwhile
    before = memories(os.getpid())
    asyncio.run(whole())
    assert memories(os.getpid()) == before


def test_versions_are_taken_up_tried_once_and_withdrawn(tmp_path: Path) -> None:
    async def test(repository: Repository) -> None:
        assert await repository.look() == []
        first = put(tmp_path, "a", 1, b"1")
        put(tmp_path, "a", 10, b"10")
        assert await repository.look() == [("a", 1, 1), ("a", 10, 2)]
        put(tmp_path, "a", 9, b"009")
        assert await repository.look() == [("a", 1, 1), ("a", 9, 3), ("a", 10, 2)]
        assert repository.tried == ["a:1", "a:10", "a:9"]
        assert (await repository.models.find("a", 0)).number == 10
        assert (await repository.models.find("a", 9)).number == 9
        first.rename(tmp_path / "a" / ".gone")
        assert await repository.look() == [("a", 9, 3), ("a", 10, 2)]
        for name, number, said in (
            ("a", 1, "serves no version 1 of 'a'; there is 9, 10"),
            ("b", 0, "serves no model that is called 'b'"),
            ("../a\x1b", 0, r"called '../a\\x1b'"),
        ):
            with pytest.raises(Refusal) as caught:
                await repository.models.find(name, number)
            assert caught.value.failure.cause is Cause.NOT_FOUND
            assert said in str(caught.value)

    run(test, tmp_path)


def test_a_bad_version_never_replaces_a_good_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not a higher number, not another content of the same one, and not a wrong pin."""

    async def test(repository: Repository) -> None:
        folder = put(tmp_path, "a", 1, b"good")
        await repository.look()
        repository.bad["a:2"] = Unfit("it does not run")
        put(tmp_path, "a", 2, b"bad")
        put(tmp_path, "a", 3, b"changed", pin="0" * 64)
        assert await repository.look() == [("a", 1, 4)]
        assert "the model a:2 is not served: it does not run" in caplog.text
        assert "a:3 is not served: its SHA-256 is " in caplog.text
        assert repository.tried == ["a:1", "a:2"]
        (folder / MODEL).write_bytes(b"broken")
        assert await repository.look() == [("a", 1, 4)]
        assert "and not the one that its pin names; it serves as it was before" in caplog.text
        # Not tried again as long as nothing changes; a change that is right is taken up.
        caplog.clear()
        await repository.look()
        assert not caplog.text
        (folder / PIN).unlink()
        assert await repository.look() == [("a", 1, 4)]
        repository.bad.clear()
        (tmp_path / "a" / "2" / MODEL).write_bytes(b"bad")
        assert await repository.look() == [("a", 1, 4), ("a", 2, 3)]

    with caplog.at_level(logging.ERROR):
        run(test, tmp_path)


def test_what_may_pass_is_tried_again_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(repository: Repository) -> None:
        repository.bad["a:1"] = refuse(Cause.LIMIT, "the service is full")
        put(tmp_path, "a", 1, b"good")
        for _ in range(3):
            assert await repository.look() == []
        assert caplog.text.count("the service is full") == 1
        repository.bad["a:1"] = refuse(Cause.INVALID_MODEL, "it is none")
        await repository.look()
        await repository.look()
        assert repository.tried == ["a:1"] * 4

    with caplog.at_level(logging.ERROR):
        run(test, tmp_path)


def test_a_fault_of_the_services_own_keeps_no_other_model_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(repository: Repository) -> None:
        repository.bad["a:1"] = ZeroDivisionError("a fault")
        put(tmp_path, "a", 1, b"1")
        put(tmp_path, "b", 1, b"2")
        assert await repository.look() == [("b", 1, 1)]
        assert await repository.look() == [("b", 1, 1)]
        assert repository.tried == ["a:1", "b:1"]
        assert caplog.text.count("trying the model a:1 failed") == 1

    run(test, tmp_path)


def test_all_models_together_have_a_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(repository: Repository) -> None:
        put(tmp_path, "a", 1, bytes(60))
        put(tmp_path, "a", 2, bytes(41))
        put(tmp_path, "b", 1, bytes(40))
        put(tmp_path, "c", 1, b"")
        assert await repository.look() == [("a", 1, 60), ("b", 1, 40)]
        assert "a:2 is not served: model.tflite has 41 bytes, more than 40" in caplog.text
        assert "c:1 is not served: the memory that was offered is empty" in caplog.text

    with caplog.at_level(logging.ERROR):
        run(test, tmp_path, repository_bytes=100)


def test_a_folder_that_is_away_takes_nothing_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "models"
    put(folder, "a", 1, b"good")

    async def test(repository: Repository) -> None:
        repository.models.start()
        assert (await repository.models.find("a", 0)).number == 1
        folder.rename(tmp_path / "away")
        with pytest.raises(OSError, match="No such file"):
            await repository.look()
        assert (await repository.models.find("a", 0)).number == 1
        while not caplog.text:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert caplog.text.count("the folder of models cannot be read") == 1  # and not each time

    run(test, folder, repository_seconds=0.01)


def test_without_a_folder_there_are_none() -> None:
    async def test() -> None:
        async def never(label: str, content: ModelBytes, warm_up: bytes | None) -> None:
            raise AssertionError(label)

        models = NamedModels(Settings(directory=""), never)
        models.start()
        with pytest.raises(Refusal, match="serves no model that is called 'a'"):
            await models.find("a", 0)
        await models.stop()

    asyncio.run(test())
