"""The kernel's limits of a host: the sums of those of its models."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil

from loader_service.sandbox.cgroup import GroupLimits
from loader_service.sandbox.foreign_limits import limit_of, set_soft_limit
from loader_service.sandbox.policy import tasks_for
from loader_service.worker.orders import Go
from model_loader_wire.limits import Limits

if TYPE_CHECKING:
    from loader_service.broker.host import Host

LARGEST = 2**53 - 1
"""Limits are numbers that every wire format carries exactly."""


@dataclass(frozen=True, slots=True)
class _Share:
    """What one model adds."""

    limits: Limits
    tasks: int


class HostLimits:
    """Raises a host's limits with each model, and lowers them when one is gone.

    Memory is lowered only once the process uses no more than the rest may: the kernel would kill it
    for what it has not given back yet. Processor time is never lowered, because what the models
    that are gone have used counts, too.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._shares: dict[int, _Share] = {}
        self._most = host.limits
        self._spent: int | None = 0
        self._ids = (0, 0)
        self._data_before: int | None = None
        self._applied: tuple[Limits, int] | None = None

    def begin(self, go: Go) -> None:
        """Note whose process it is, and what it has before any model; raises OSError."""
        process = psutil.Process(self._host.pid)
        self._ids = process.uids().real, process.gids().real
        if go.data_bytes is not None:
            soft, _ = limit_of(self._host.pid, self._ids, resource.RLIMIT_DATA)
            self._data_before = soft - go.data_bytes

    def add(self, number: int, limits: Limits, threads: int) -> None:
        """Count another model."""
        self._shares[number] = _Share(limits, tasks_for(threads) - 1)

    def remove(self, number: int) -> None:
        """Count a model no more."""
        spent = self._shares.pop(number).limits.cpu_seconds
        self._spent = None if spent is None or self._spent is None else self._spent + spent

    def apply(self) -> None:
        """Set the limits that the models make together; raises OSError."""
        limits, tasks = self._sums()
        held = self._host.limits.memory_bytes or 0
        memory = limits.memory_bytes or 0
        if self._applied and memory < held and memory < self._host.memory_used():
            limits = replace(limits, memory_bytes=held)
        if self._applied == (limits, tasks):
            return
        group = self._host.group
        if group is not None:
            share = limits.cpu_percent
            if share is None and self._applied and self._applied[0].cpu_percent is not None:
                share = 100 * (os.cpu_count() or 1)
            group.limit(GroupLimits(limits.memory_bytes, tasks, share))
        if self._data_before is not None:
            self._set(resource.RLIMIT_DATA, self._data_before + (limits.memory_bytes or 0))
        if limits.cpu_seconds is not None or self._host.limits.cpu_seconds is not None:
            self._set(resource.RLIMIT_CPU, limits.cpu_seconds)
        self._host.limits = limits
        self._applied = limits, tasks

    def _set(self, kind: int, soft: int | None) -> None:
        set_soft_limit(self._host.pid, self._ids, kind, soft)

    def _sums(self) -> tuple[Limits, int]:
        shares = self._shares.values()
        if not shares:
            return self._host.limits, 1
        each = [share.limits for share in shares]
        cpu_seconds = _sum(limits.cpu_seconds for limits in each)
        if cpu_seconds is not None:
            cpu_seconds = None if self._spent is None else cpu_seconds + self._spent
        sums = replace(
            self._most,
            memory_bytes=_sum(limits.memory_bytes for limits in each),
            cpu_percent=_sum(limits.cpu_percent for limits in each),
            cpu_seconds=cpu_seconds,
            compute_seconds=max(limits.compute_seconds or 0 for limits in each),
        )
        return sums, 1 + sum(share.tasks for share in shares)


def _sum(values: Iterable[int | None]) -> int | None:
    """Add up; one that is not limited makes the sum so."""
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return min(total, LARGEST)
