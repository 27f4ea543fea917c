"""How many descriptors the service may open: in all, and for one principal."""

from __future__ import annotations

import asyncio
import os
import resource
from collections import Counter

from loader_service.broker.principals import Principals
from loader_service.broker.refusal import over_limit, refuse
from loader_service.broker.settings import Settings
from loader_service.broker.worker import Worker
from model_loader_wire.causes import Cause

OF_A_WORKER = 8
"""Control socket, channel, stderr and pidfd of a worker, and the other ends while it is made."""
OF_A_CONNECTION = 1
OF_AN_OFFER = 1
OF_A_PARKABLE = 2
"""The worker's end of its channel, and its model's bytes."""
MOST_KEPT = 64
"""Models of one principal that are kept: each takes a descriptor, however small it is."""
RESERVE = 32
"""Kept free: what has begun must not fail in its middle."""
OPEN = "/proc/self/fd"


class Descriptors:
    """Counts what is held for each principal; looks how many are open in all."""

    def __init__(self, settings: Settings, principals: Principals) -> None:
        """Share what is free now among the users who may attach."""
        self._principals = principals
        self._settings = settings
        self._held: Counter[int] = Counter()
        self._own = in_use()

    def check_enforceable(self) -> None:
        """Raise Refusal for a limit that is more than the kernel lets this process open."""
        asked, most = self._settings.total_descriptors, allowed()
        if asked is not None and asked > most:
            raise refuse(
                Cause.UNSUPPORTED,
                f"the limit total_descriptors = {asked} is more than the kernel lets the service "
                f"open (RLIMIT_NOFILE): {most}",
            )

    @property
    def of_principal(self) -> int:
        """The most that is held for one principal, gRPC connections and kept models included."""
        share = max(self._most() - RESERVE - self._own, 0) // self._principals.shares
        asked = self._settings.principal_descriptors
        return share if asked is None else min(asked, share)

    @property
    def grpc_connections(self) -> int:
        """Of those, the most that are connections to the principal's gRPC socket."""
        return max(min(self._settings.grpc_connections, self.of_principal // 4), 1)

    @property
    def kept_models(self) -> int:
        """Of those, the most that are models which the service keeps for later loads."""
        return min(MOST_KEPT, self.of_principal // 8)

    def take(self, principal: int, count: int) -> None:
        """Count so many more; raises Refusal, and counts nothing, if there is no room for them."""
        most, used = self._most() - RESERVE, in_use() + count
        if used > most:
            what = "the service has too few file descriptors left: close models, or start it with "
            raise over_limit("total_descriptors", used, most, f"{what}a higher limit (ulimit -n)")
        most = self.of_principal - self.grpc_connections - self.kept_models
        held = self._held[principal] + count
        if held > most:
            what = "too many file descriptors of the service are held for one user"
            raise over_limit("principal_descriptors", held, most, what)
        self._held[principal] = held

    def give_back(self, principal: int, count: int) -> None:
        """Count so many less."""
        self._held[principal] -= count
        if not self._held[principal]:
            del self._held[principal]

    def follow(self, principal: int, count: int, birth: asyncio.Task[Worker]) -> None:
        """Count those of a worker that is being made as long as it lives."""
        if birth.cancelled() or birth.exception() is not None:
            self.give_back(principal, count)
        else:
            birth.result().when_ended(lambda _: self.give_back(principal, count))

    def _most(self) -> int:
        asked, most = self._settings.total_descriptors, allowed()
        return most if asked is None else min(asked, most)


def allowed() -> int:
    """Return how many descriptors the kernel lets this process open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 2**31


def in_use() -> int:
    """Return how many are open."""
    # Linux tells it as the folder's size since 6.2, and says zero before.
    return os.stat(OPEN).st_size or len(os.listdir(OPEN))
