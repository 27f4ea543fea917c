"""POSIX resource limits of a worker."""

from __future__ import annotations

import os
import resource
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Self

from loader_service.sandbox import policy
from loader_service.sandbox.layers import Layer

LARGEST_LIMIT: Final = 2**63 - 1
_STATUS_LENGTH: Final = 1 << 16


@dataclass(frozen=True)
class ResourceLimits:
    """What setrlimit(2) is to hold a worker to. `None` leaves that resource as it is."""

    tasks: int | None = None
    """Threads of the worker's user, the main one included (`RLIMIT_NPROC`). Only meaningful where
    no other process has the same user: see `for_worker`. The kernel exempts the host's root."""
    data_bytes: int | None = None
    """Private writable memory in bytes (`RLIMIT_DATA`): heap, tensors, thread stacks, and what the
    zygote had before. For hosts without a memory cgroup; see `data_in_use`."""
    cpu_seconds: int | None = None
    """Processor time over the worker's life in seconds, all threads together."""
    raised: int = 1
    """Up to how many times `data_bytes` and `cpu_seconds` the service may raise these two later:
    the worker's hard limits. The worker itself may not, once it is locked down."""
    descriptors: int = policy.OPEN_DESCRIPTORS
    """Descriptor numbers below this one can be opened (`RLIMIT_NOFILE`)."""
    file_bytes: int = 0
    """How long a file may become (`RLIMIT_FSIZE`): nothing, but for a device's one file."""

    @classmethod
    def for_worker(
        cls,
        entered: AbstractSet[Layer],
        *,
        threads: int,
        interpreters: int = 2,
        data_bytes: int | None = None,
        cpu_seconds: int | None = None,
        raised: int = 1,
        descriptors: int = policy.OPEN_DESCRIPTORS,
        device_tasks: int = 0,
        file_bytes: int = 0,
    ) -> Self:
        """The limits of a worker that holds up to `interpreters` of `threads` threads each.

        One model can hold two for a moment, when a reset or a retry makes a fresh interpreter.
        `device_tasks` and `file_bytes` are what its devices are granted.

        The kernel counts tasks per user and user namespace, so without a user or a user namespace
        of its own (both missing from `entered`) a worker gets no limit on tasks: it would count
        everything its user runs.
        """
        alone = {Layer.UNPRIVILEGED_UID, Layer.USER_NAMESPACE} & entered
        tasks = policy.tasks_for(threads, interpreters) + device_tasks if alone else None
        return cls(tasks, data_bytes, cpu_seconds, raised, descriptors, file_bytes)


def apply_limits(limits: ResourceLimits) -> None:
    """Set the limits of this process, soft and hard, for good. Raises `OSError` or `ValueError`.

    Core dumps and message queues are set to nothing, locked memory too, and files but for a
    device's one. The stack keeps its
    limit: threads take their size from it.
    """
    for kind in (
        resource.RLIMIT_CORE,
        resource.RLIMIT_MEMLOCK,
        resource.RLIMIT_MSGQUEUE,
    ):
        _set(kind, 0)
    _set(resource.RLIMIT_FSIZE, limits.file_bytes)
    _set(resource.RLIMIT_NOFILE, limits.descriptors)
    if limits.tasks is not None:
        _set(resource.RLIMIT_NPROC, limits.tasks)
    if limits.data_bytes is not None:
        most = min(limits.data_bytes * limits.raised, LARGEST_LIMIT)
        _set(resource.RLIMIT_DATA, limits.data_bytes, most)
    if limits.cpu_seconds is not None:
        _set(
            resource.RLIMIT_CPU,
            limits.cpu_seconds,
            limits.cpu_seconds * limits.raised + policy.CPU_GRACE_SECONDS,
        )


def data_in_use() -> int:
    """Bytes that `RLIMIT_DATA` counts in this process now; reads /proc, so before lock-down."""
    # Not by `open`: a text file and its codec would change a hundred pages of memory, and every
    # worker has a copy of each page that is changed.
    status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(status, _STATUS_LENGTH)
    finally:
        os.close(status)
    for line in text.splitlines():
        if line.startswith(b"VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmData")


def _set(kind: int, soft: int, hard: int | None = None) -> None:
    _, ceiling = resource.getrlimit(kind)
    wanted = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, wanted = min(soft, ceiling), min(wanted, ceiling)
    resource.setrlimit(kind, (soft, wanted))
