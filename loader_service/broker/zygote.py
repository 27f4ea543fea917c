"""The broker's end of a zygote: waiting until it is warm, and asking it for workers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loader_service.broker.refusal import refuse
from loader_service.broker.zygote_process import ZygoteProcess
from loader_service.worker.orders import Spawn
from model_loader_wire.causes import Cause, printable

REPLY_LENGTH = 65536


class ZygoteGone(Exception):
    """The zygote ended, or does not answer; another one can be started."""


@dataclass(frozen=True, slots=True)
class Warm:
    """What a zygote says when it is ready."""

    runtime: str
    version: str


class Zygote:
    """One zygote process, from when it was started to its end."""

    def __init__(self, started: ZygoteProcess) -> None:
        """Take over the process; `warmed` waits until it is ready."""
        self._process, ours = started
        ours.setblocking(False)
        self._socket = ours
        self._turn = asyncio.Lock()
        self._warm: Warm | None = None
        self._is_making = False
        self.forks = 0

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def notice_death(self) -> None:
        """Reap the process if it has ended by itself."""
        self._process.poll()

    async def warmed(self, seconds: float) -> Warm:
        """Wait until the runtime is warm.

        Raises Refusal if no runtime can be loaded or it takes too long, ZygoteGone if the process
        ended.
        """
        if self._warm is not None:
            return self._warm
        async with self._turn:
            if self._warm is None:
                try:
                    async with asyncio.timeout(seconds):
                        values = json.loads(await self._receive())
                except TimeoutError:
                    self._kill()
                    raise refuse(
                        Cause.UNAVAILABLE, f"the runtime was not ready within {seconds:g} s"
                    ) from None
                if "error" in values:
                    raise refuse(Cause.UNAVAILABLE, printable(values["error"]))
                self._warm = Warm(values["runtime"], values["version"])
        return self._warm

    async def spawn(self, order: Spawn, descriptors: Sequence[int], seconds: float) -> int:
        """Fork a worker with stderr, control socket and channels; returns its pid.

        Raises ZygoteGone, or Refusal if this host does not let a worker be made.
        """
        async with self._turn:
            self.forks += 1
            self._is_making = True
            try:
                answer = await self._ask(order.to_fields(), descriptors, seconds)
            finally:
                self._is_making = False
        if "error" in answer:
            reason = printable(answer["error"])
            raise refuse(Cause.UNAVAILABLE, f"a worker could not be made: {reason}")
        pid: int = answer["pid"]
        return pid

    async def answer(self, seconds: float) -> None:
        """Wait until a warm one says that it is there; raises ZygoteGone for one that does not.

        One that makes a worker just now is: how long that may take is that order's business.
        """
        if self._is_making:
            return
        async with self._turn:
            await self._ask({}, (), seconds)

    async def end(self) -> None:
        """End the process, after the spawn that is under way; its workers live on."""
        async with self._turn:
            self._kill()
            self._socket.close()

    def interrupt(self) -> None:
        """End the process with the spawn that is under way, if there is one; `end` comes next."""
        if self._is_making:
            self._kill()

    async def _ask(
        self, order: Mapping[str, object], descriptors: Sequence[int], seconds: float
    ) -> dict[str, Any]:
        try:
            socket.send_fds(self._socket, [json.dumps(order).encode()], list(descriptors))
            async with asyncio.timeout(seconds):
                answer: dict[str, Any] = json.loads(await self._receive())
        except TimeoutError:
            self._kill()
            raise ZygoteGone(f"no answer came within {seconds:g} s") from None
        except OSError as error:
            raise ZygoteGone(str(error)) from None
        return answer

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    async def _receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            data = await loop.sock_recv(self._socket, REPLY_LENGTH)
        except OSError as error:
            raise ZygoteGone(str(error)) from None
        if not data:
            raise ZygoteGone(f"the zygote ended with status {self._process.poll()}")
        return data
