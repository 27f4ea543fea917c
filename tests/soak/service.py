"""The service that is soaked, and what is looked at."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.faults.ground import groups_of, trees_of
from tests.support.processes import state_of
from tests.support.raw_client import HANG_SECONDS, RawSession, Service
from tests.support.usage import Usage

QUIET_SECONDS = 30.0
"""How long the service has to end what killed programs left."""
SLACK_BYTES = 96 << 20
"""By which the broker's memory may have grown: its caches and its allocator's holes."""
LIMITS = {"memory_bytes": 512 << 20, "compute_seconds": 10, "load_seconds": 20}


class Looked(Service):
    """A service that is looked at now and then."""

    def look(self) -> dict[str, int]:
        """What the broker and its children hold now."""
        usage = Usage.of(self.pid)
        return {
            "descriptors": usage.descriptors,
            "threads": usage.threads,
            "kibibytes": usage.private_bytes >> 10,
            "workers": len(self.workers()),
            "zygotes": len(self.zygotes()),
            "cgroups": len(groups_of(self.pid)),
        }

    def died(self) -> bool:
        """Whether the broker has ended."""
        return self.poll() is not None


class SoakService(Looked):
    """A broker that other users may use, too."""

    def __init__(self, uids: tuple[int, ...]) -> None:
        super().__init__(dict(LIMITS), allowed_uids=list(uids))
        self.directory.chmod(0o755)
        # A first session, so that what every user's server takes is there before.
        with RawSession(self.directory, "first"):
            pass

    def end(self) -> list[str]:
        """End it; returns what was wrong with that."""
        faults = []
        family = [*self.workers(), *self.zygotes()] if not self.died() else []
        try:
            if (status := self.close()) != 0:
                faults.append(f"the broker ended with status {status}: {self.log()[-2000:]}")
        finally:
            self._process.kill()
            self._process.wait()
        faults += [f"the broker's log holds a traceback: {it}" for it in traceback_in(self.log())]
        if self.directory.exists() or trees_of(self.pid):
            faults.append("files or cgroups are left")
        faults += [f"process {pid} is left" for pid in family if state_of(pid) not in ("", "Z")]
        self.forget()
        return faults


def traceback_in(log: str) -> list[str]:
    """The first traceback of a log, with what stands before it; empty without one."""
    at = log.find("Traceback")
    return [] if at < 0 else [log[max(at - 1000, 0) : at + 4000]]


def kind_of(descriptor: Path) -> str:
    """What a descriptor is, without its number."""
    try:
        return os.readlink(descriptor).partition("[")[0]
    except OSError:
        return ""


def health(service: Service) -> bool:
    """Whether the service says that it can make workers."""
    path = service.directory / f"uid-{os.geteuid()}" / "grpc.sock"
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="")
        for _ in range(5):
            # A birth that was broken off is no more than a moment's doubt.
            if stub.Check(request, timeout=HANG_SECONDS).status == 1:
                return True
            time.sleep(1)
    return False


def check_end(service: Looked, before: dict[str, int]) -> list[str]:
    """Look, when every program is gone, what is left of them."""
    if service.died():
        return ["the broker is dead"]
    ends = time.monotonic() + QUIET_SECONDS
    while True:
        now = service.look()
        faults = [
            f"{now[what]} {what} are left, {before[what]} were there before"
            for what in ("workers", "cgroups")
            if now[what] > before[what]
        ]
        # Each further user has a gRPC server and a zygote, which stay.
        users = now["zygotes"] - before["zygotes"]
        if now["descriptors"] > before["descriptors"] + users * 8:
            kinds = Counter(map(kind_of, Path(f"/proc/{service.pid}/fd").iterdir()))
            faults.append(
                f"{now['descriptors']} descriptors, {before['descriptors']} before: {kinds}"
            )
        if not faults or time.monotonic() > ends:
            break
        time.sleep(0.2)
    if now["kibibytes"] - before["kibibytes"] > SLACK_BYTES >> 10:
        faults.append(f"the broker grew from {before['kibibytes']} to {now['kibibytes']} KiB")
    if not health(service):
        faults.append("the service's health is not SERVING at the end")
    with RawSession(service.directory, "last") as session:
        if session.models():
            faults.append("models of sessions that are gone are listed")
    return faults
