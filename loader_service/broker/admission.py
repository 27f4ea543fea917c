"""Whether there is memory for one more model: in its origin, for its principal, and in all.

What counts is what workers use, and what a load that is under way will certainly need, not what
their limits would let them use: sixteen models with a limit of 1 GiB fit into a small machine as
long as they are small themselves. A model that grows later meets the limits of the kernel.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from time import monotonic

import psutil

from loader_service.broker.groups import Owner, path_of, share_of_principal, total_memory
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal, over_limit
from loader_service.sandbox.cgroup import Tree
from model_loader_wire.limits import Limits

COPIES = 2
"""A model's bytes in its worker: the file, and its weights as the kernels want them."""
WORKER_BYTES = 16 << 20
"""What a worker needs beside its model, tensors of a usual size included."""
LOOK_SECONDS = 0.02
"""Between two looks whether a model that was let go of has given its memory back."""
WAY_OUT = "close models, load a smaller one, or try again later"


class Admission:
    """Lets a load begin only if there is memory for what it will need."""

    def __init__(
        self,
        principals: Principals,
        total: int,
        used: Callable[[str], int | None],
        free: Callable[[], int],
    ) -> None:
        """Admit up to `total` bytes; `used` tells what a level of the cgroups uses, if it is known,
        and `free` what the machine has left.
        """
        self._principals = principals
        self._total = total
        self._used = used
        self._free = free
        self._coming: Counter[Hashable] = Counter()

    @asynccontextmanager
    async def held(
        self, owner: Owner, limits: Limits, size: int, seconds: float
    ) -> AsyncIterator[None]:
        """Count what a model of so many bytes needs while it is loaded; raises Refusal.

        Waits for so long for memory that is just being given back.
        """
        need = min(limits.memory_bytes or 0, COPIES * size + WORKER_BYTES)
        ends = monotonic() + seconds
        while (refusal := self._refusal(owner, need)) is not None:
            if monotonic() >= ends:
                raise refusal
            await asyncio.sleep(LOOK_SECONDS)
        levels: tuple[Hashable, ...] = (owner, owner.principal, None)
        for level in levels:
            self._coming[level] += need
        try:
            yield
        finally:
            for level in levels:
                self._coming[level] -= need
                if not self._coming[level]:
                    del self._coming[level]

    def left(self) -> int:
        """Return how much memory is left for workers: of the machine's, and of what they may use.

        What a full machine has available it says at once and everywhere; how much its programs wait
        for memory (PSI) many kernels do not tell, and none tells it of another's cgroup.
        """
        used = self._used("")
        free = self._free()
        return free if used is None else min(free, self._total - used)

    def _refusal(self, owner: Owner, need: int) -> Refusal | None:
        # Of others, what they announced does not count here, or they could keep everybody out.
        coming, free = self._coming[owner.principal] + need, self._free()
        if coming > free:
            what = f"this machine has no memory free for one more model ({WAY_OUT})"
            return over_limit("total_memory_bytes", coming, free, what)
        for limit, path, level, maximum in (
            (
                "origin_memory_bytes",
                path_of(owner),
                owner,
                self._principals.settings.origin_memory_bytes,
            ),
            (
                "principal_memory_bytes",
                path_of(owner, "principal"),
                owner.principal,
                share_of_principal(self._principals, self._total),
            ),
            ("total_memory_bytes", "", None, self._total),
        ):
            used = self._used(path)
            if maximum is None or used is None:
                continue
            value = used + self._coming[level] + need
            if value > maximum:
                what = f"there is no memory for one more model ({WAY_OUT})"
                return over_limit(limit, value, maximum, what)
        return None


def admission(principals: Principals, tree: Tree | None) -> Admission:
    """Make the admission of a broker with this tree of cgroups."""
    return Admission(
        principals,
        total_memory(principals.settings, tree),
        (lambda _: None) if tree is None else tree.memory_usage,
        lambda: int(psutil.virtual_memory().available),
    )
