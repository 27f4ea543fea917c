"""Models that the operator approved: picked up from a folder, tried, and served by name.

A version serves when its bytes are the ones that its pin names, and a sandboxed worker has loaded
it and run its warm-up inputs. Its bytes are then kept in memory, so that nothing that happens to
the folder later can take them away: a version that was changed for a bad one serves on as it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from loader_service.broker.model_bytes import Collecting, ModelBytes
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.settings import Settings
from loader_service.repository.files import (
    Found,
    Unfit,
    find_versions,
    read_model,
    read_pin,
    read_warm_up,
)
from model_loader_wire.causes import Cause, printable

log = logging.getLogger("model_loader.models")

Verify = Callable[[str, ModelBytes, bytes | None], Awaitable[None]]
"""Tries a model of that label, with its archive of inputs if it has one; raises Refusal, Unfit."""
REASON_LENGTH = 500
FIRST_LOOK_SECONDS = 20.0
"""Longest wait for the models that are there when the service starts."""
PASSING = frozenset(
    {Cause.LIMIT, Cause.TIMEOUT, Cause.UNAVAILABLE, Cause.CLOSED, Cause.KILLED, Cause.CANCELLED}
)
"""Causes that may be gone at the next look."""


@dataclass(frozen=True, slots=True)
class Served:
    """A version that may be loaded."""

    name: str
    number: int
    sha256: bytes
    content: ModelBytes


@dataclass(frozen=True, slots=True)
class _Seen:
    """How a version looked when it was tried last."""

    stamp: tuple[tuple[int, ...], ...]
    again: bool = False
    """Whether it is to be tried again as it is: what kept it from serving was not its own fault."""


Version = tuple[str, int]


class NamedModels:
    """The operator's models; none where there is no folder of them."""

    def __init__(self, settings: Settings, verify: Verify) -> None:
        self._folder = Path(settings.repository) if settings.repository else None
        self._pause = settings.repository_seconds
        self._most_bytes = settings.repository_bytes
        self._verify = verify
        self._served: dict[Version, Served] = {}
        self._seen: dict[Version, _Seen] = {}
        self._looked = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look into the folder, now and again."""
        if self._folder is not None:
            self._looking = asyncio.create_task(self._look_again_and_again(self._folder))

    async def stop(self) -> None:
        """Look no more, and let go of the models."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        for served in self._served.values():
            served.content.close()
        self._served.clear()

    async def find(self, name: str, number: int) -> Served:
        """Return a version, for the number 0 the highest one; raises Refusal if there is none.

        Waits until the folder was looked into once.
        """
        if self._looking is not None:
            try:
                async with asyncio.timeout(FIRST_LOOK_SECONDS):
                    await self._looked.wait()
            except TimeoutError:
                message = "the service is still trying its models; try again later"
                raise refuse(Cause.UNAVAILABLE, message) from None
        numbers = sorted(version for known, version in self._served if known == name)
        if numbers and not number:
            return self._served[name, numbers[-1]]
        if number in numbers:
            return self._served[name, number]
        called = printable(name, 128)
        if not numbers:
            raise refuse(Cause.NOT_FOUND, f"the service serves no model that is called {called!r}")
        versions = ", ".join(map(str, numbers))
        raise refuse(
            Cause.NOT_FOUND,
            f"the service serves no version {number} of {called!r}; there is {versions}",
        )

    def served(self) -> list[Served]:
        """List what may be loaded, by name and number."""
        return [self._served[version] for version in sorted(self._served)]

    async def _look_again_and_again(self, folder: Path) -> None:
        said = ""
        while True:
            try:
                await self.look(folder)
                said = ""
            except OSError as error:
                if said != str(error):
                    said = str(error)
                    log.error("the folder of models cannot be read: %s", said)
            except Exception:
                log.exception("looking into the folder of models failed")
            self._looked.set()
            await asyncio.sleep(self._pause)

    async def look(self, folder: Path) -> None:
        """Take up what is new and withdraw what is gone; raises OSError, having changed nothing."""
        found = await asyncio.to_thread(find_versions, folder)
        there = {(version.name, version.number) for version in found}
        for gone in sorted(self._seen.keys() - there):
            del self._seen[gone]
            if (served := self._served.pop(gone, None)) is not None:
                served.content.close()
                log.info("the model %s:%d was withdrawn", *gone)
        for version in found:
            seen = self._seen.get((version.name, version.number))
            if seen is None or seen.again or seen.stamp != version.stamp:
                await self._try(version)

    async def _try(self, version: Found) -> None:
        key = (version.name, version.number)
        try:
            served = await self._verified(version)
        except (Unfit, Refusal, OSError) as error:
            seen = self._seen.get(key)
            again = isinstance(error, Refusal) and error.failure.cause in PASSING
            self._seen[key] = _Seen(version.stamp, again)
            if seen is None or not seen.again or seen.stamp != version.stamp:
                reason = printable(str(error), REASON_LENGTH)
                kept = "; it serves as it was before" if key in self._served else ""
                log.error("the model %s:%d is not served: %s%s", *key, reason, kept)
            return
        except Exception:
            # A fault of ours: it must not keep the versions after this one from being looked at.
            self._seen[key] = _Seen(version.stamp)
            log.exception("trying the model %s:%d failed; it is not served as it is now", *key)
            return
        self._seen[key] = _Seen(version.stamp)
        old = self._served.get(key)
        self._served[key] = served
        if old is not None:
            old.content.close()
        log.info("the model %s:%d serves, SHA-256 %s", *key, served.sha256.hex())

    async def _verified(self, version: Found) -> Served:
        """Read a version and try it; raises Unfit, Refusal or OSError."""
        key = (version.name, version.number)
        room = self._most_bytes - sum(
            item.content.size for other, item in self._served.items() if other != key
        )
        content, sha256, warm_up = await asyncio.to_thread(_read, version, room)
        try:
            await self._verify(f"{version.name}:{version.number}", content, warm_up)
        except BaseException:
            content.close()
            raise
        return Served(version.name, version.number, sha256, content)


def _read(version: Found, room: int) -> tuple[ModelBytes, bytes, bytes | None]:
    """Read a version's files into memory that nobody can change; raises Unfit or OSError."""
    pin = read_pin(version)
    collecting = Collecting()
    try:
        sha256 = read_model(version, room, collecting.add)
        if sha256 != pin:
            raise Unfit(f"its SHA-256 is {sha256.hex()}, and not the one that its pin names")
        try:
            content = collecting.seal()
        except Refusal as refusal:
            raise Unfit(str(refusal)) from None
    finally:
        collecting.close()
    try:
        return content, sha256, read_warm_up(version)
    except BaseException:
        content.close()
        raise
