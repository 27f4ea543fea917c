"""A worker's process: ended by the broker, measured, and judged when it has died."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace

from loader_service.broker.last_words import LastWords
from loader_service.broker.meter import Meter, Usage
from loader_service.broker.mortal import Mortal
from loader_service.broker.verdict import MEMORY_LIMITS, Evidence, verdict
from loader_service.sandbox.cgroup import Group
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.limits import Limits

log = logging.getLogger("model_loader.worker")


class Child(Mortal):
    """A child process of the broker, living or dead. Why it ended is never its own word."""

    def __init__(
        self,
        pid: int,
        last_words: LastWords,
        group: Group | None,
        limits: Limits,
        verdict_seconds: float,
    ) -> None:
        """Take over a process, which may have died already."""
        super().__init__()
        self.when_ended(Child._close)
        self.pid = pid
        self.group = group
        self.limits = limits
        self.cpu_seconds = 0.0
        """Processor time of its whole life by the kernel's count, once it is dead."""
        self._loop = asyncio.get_running_loop()
        self._last_words = last_words
        self._verdict_seconds = verdict_seconds
        self._killed_for: Failure | None = None
        self._meter = Meter(pid)
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._exited)

    async def verdict(self) -> Failure:
        """Wait until a dying process is dead, and say why; one that does not die is given up."""
        lost = await self.wait(self._verdict_seconds)
        if lost is None:
            log.error("worker %d does not end", self.pid)
            lost = self._killed_for or Failure(Cause.INTERNAL, "the worker does not end")
        return replace(lost, model_lost=True)

    def kill(self, reason: Failure) -> None:
        """End the process; the first reason stays on record."""
        if self.lost is not None:
            return
        if self._killed_for is None:
            self._killed_for = reason
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def hide_last_words(self) -> None:
        """Let the log only have what it says in the end: that may name its devices."""
        self._last_words.hide()

    def hold_memory(self) -> None:
        """End the process if it has more memory of its own than it may; for hosts without cgroups.

        Like RLIMIT_DATA, which stops most before, it counts from what the zygote already had.
        """
        used, maximum = self._meter.own_bytes(), self.limits.memory_bytes or 0
        if used > maximum:
            message = f"the worker needed more memory than memory_bytes = {maximum} allow"
            self.kill(Failure(Cause.OUT_OF_MEMORY, message, "memory_bytes", used, maximum))

    def usage(self) -> Usage:
        """Return what the process uses now; zeros once it is dead."""
        return self._meter.usage(self.group)

    @abstractmethod
    def _hear_out(self, judge: Callable[[], None]) -> None:
        """Call back once all is read that the process said before it ended, or soon anyway."""

    @abstractmethod
    def _may_end(self) -> bool:
        """Whether it had nothing left to do, so that it could end by itself."""

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._hear_out(self._judge)

    def _judge(self) -> None:
        """Reap the process, and say why it ended; at the first call."""
        if self.lost is not None:
            return
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            self.over(Failure(Cause.INTERNAL, "nobody saw how the worker ended", model_lost=True))
            return
        if pid != 0:
            self.cpu_seconds = usage.ru_utime + usage.ru_stime
            self.over(verdict(self._evidence(status)))

    def _evidence(self, status: int) -> Evidence:
        level, memory = len(MEMORY_LIMITS) - 1, self.limits.memory_bytes
        try:
            oom_kills = self.group.oom_kills() if self.group else 0
            if self.group and oom_kills:
                level, memory = self.group.memory_hit()
        except (OSError, ValueError):
            oom_kills = 0
        return Evidence(
            wait_status=status,
            cpu_seconds=self.cpu_seconds,
            oom_kills=oom_kills,
            memory_bytes=memory or 0,
            memory_level=level,
            cpu_limit_seconds=self.limits.cpu_seconds,
            killed_for=self._killed_for,
            may_end=status == 0 and self._may_end(),
            last_words=self._last_words.text(),
        )

    def _close(self) -> None:
        """Close what belonged to the process, before anybody is told of its death."""
        os.close(self._pidfd)
        self._last_words.close()
