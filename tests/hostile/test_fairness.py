"""One that spins on all its models takes no more of the processor than its share.

All workers of a test are put on one processor, so that they contend for it whatever else the
machine does, and what is compared is the processor time that the kernel counts for each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

import model_loader as ml
from loader_service.sandbox.layers import Layer
from tests.hostile.probes import Probe, ProbeService, model_with
from tests.shared_models import REPOSITORY
from tests.support.raw_client import HANG_SECONDS

pytestmark = pytest.mark.isolation

ATTACKERS = 4
CPU_SECONDS = 1.0
"""How much all workers together use up while they are watched."""
TOLERANCE = 0.12
OTHER = 54321
LIMITS: dict[str, float] = {"compute_seconds": 10 * HANG_SECONDS}


def hierarchy_of(service: ProbeService) -> None:
    """Skip where no cgroup divides the processor."""
    if Layer.CGROUP_CPU not in service.connection.layers:
        pytest.skip("no writable cpu cgroup: the kernel shares by threads (docs/security.md)")


@contextmanager
def spinning(probes: Sequence[Probe]) -> Iterator[list[int]]:
    """Keep workers busy without end on one processor; gives their process ids."""
    processor = min(os.sched_getaffinity(0))
    with ThreadPoolExecutor(len(probes)) as pool:
        for probe in probes:
            os.sched_setaffinity(probe.pid, {processor})
            pool.submit(probe.error, "deaths.use_processor")
        try:
            yield [probe.pid for probe in probes]
        finally:
            for probe in probes:
                probe.close()


def share(mine: Sequence[int], theirs: Sequence[int]) -> float:
    """Watch busy workers; returns how much of what all of them get is mine."""

    def used(processes: Sequence[psutil.Process]) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    ours, others = ([psutil.Process(pid) for pid in pids] for pids in (mine, theirs))
    ends = time.monotonic() + 10 * HANG_SECONDS
    while min(sum(process.cpu_times()[:2]) for process in (*ours, *others)) < 0.1:
        assert time.monotonic() < ends, "the workers do not spin"
        time.sleep(0.01)
    before = used(ours), used(others)
    while (now := (used(ours), used(others))) and sum(now) - sum(before) < CPU_SECONDS:
        assert time.monotonic() < ends, "the workers do not spin"
        time.sleep(0.05)
    return (now[0] - before[0]) / (sum(now) - sum(before))


def probe_of(connection: ml.Connection, limits: ml.Limits | None = None) -> Probe:
    """A worker of this connection's origin."""
    loader = ml.MLModelLoader(ml.create_context(connection=connection, limits=limits))
    return Probe(loader.load(model_with()))


def test_an_origin_that_spins_on_all_its_models_leaves_another_its_half() -> None:
    with (
        ProbeService(limits=LIMITS) as service,
        ml.connect(service.directory, origin="greedy") as greedy,
        ml.connect(service.directory, origin="modest") as modest,
    ):
        hierarchy_of(service)
        attackers = [probe_of(greedy) for _ in range(ATTACKERS)]
        with spinning([*attackers, probe_of(modest)]) as (*theirs, mine):
            assert share([mine], theirs) == pytest.approx(1 / 2, abs=TOLERANCE)


def test_within_an_origin_each_model_has_an_equal_share() -> None:
    with ProbeService(limits=LIMITS) as service:
        hierarchy_of(service)
        with spinning([service.probe() for _ in range(ATTACKERS)]) as (mine, *theirs):
            assert share([mine], theirs) == pytest.approx(1 / ATTACKERS, abs=TOLERANCE)


SPINNER = f"""
import json, os, sys, threading
import numpy, model_loader as ml, loader_service.writer.small
from tests.hostile.probes import Probe
from tests.hostile.test_fairness import ATTACKERS, probe_of
os.setgroups([])
os.setresgid({OTHER}, {OTHER}, {OTHER})
os.setresuid({OTHER}, {OTHER}, {OTHER})
probes = [probe_of(ml.connect(sys.argv[1], origin=str(n))) for n in range(ATTACKERS)]
print(json.dumps([probe.pid for probe in probes]), flush=True)
sys.stdin.readline()
for probe in probes:
    threading.Thread(target=probe.error, args=["deaths.use_processor"], daemon=True).start()
sys.stdin.readline()
os._exit(0)
"""
"""Another user, with several origins, each of which spins."""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_a_user_whose_every_origin_spins_leaves_another_user_their_half() -> None:
    with ProbeService(limits=LIMITS, allowed_uids=[OTHER]) as service:
        hierarchy_of(service)
        service.directory.chmod(0o755)
        with subprocess.Popen(
            [sys.executable, "-c", SPINNER, str(service.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        ) as attacker:
            assert attacker.stdin
            assert attacker.stdout
            theirs: list[int] = json.loads(attacker.stdout.readline())
            with spinning([service.probe()]) as mine:
                (processor,) = os.sched_getaffinity(mine[0])
                for pid in theirs:
                    os.sched_setaffinity(pid, {processor})
                print("spin", file=attacker.stdin, flush=True)
                assert share(mine, theirs) == pytest.approx(1 / 2, abs=TOLERANCE)
            print("end", file=attacker.stdin, flush=True)
        service.wait_for_workers([])


def test_a_quota_of_a_model_holds_while_it_spins() -> None:
    """By the kernel's count of what it got, over at least so long as a test sleeps."""
    with ProbeService(limits=LIMITS) as service:
        hierarchy_of(service)
        with spinning([probe_of(service.connection, ml.Limits(cpu_percent=20))]) as (pid,):
            process = psutil.Process(pid)
            began, before = time.monotonic(), sum(process.cpu_times()[:2])
            while time.monotonic() < began + 1:
                time.sleep(0.05)
            used = sum(process.cpu_times()[:2]) - before
            # The most that fits: full periods, one more at each end, and the clock's steps.
            assert used <= 0.2 * (time.monotonic() - began + 0.2) + 0.02
