"""What a call in the steady state costs in things that can be counted, on both sides.

Times differ from machine to machine and from minute to minute; these counts do not. Each bound
says how many there are when nothing is wrong.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import small
from tests.shared_models import REPOSITORY
from tests.support.system_calls import count_system_calls

CALLS = 300
NOW_AND_THEN = 30
"""What may come in all calls together beside the calls' own: a garbage collection, a look at the
control socket, a ping."""
IMAGE = 150_528
"""Elements of a float32 image of 224 x 224 pixels: 602,112 bytes."""


def load(loader: ml.MLModelLoader, elements: int) -> tuple[ml.MLModel, Any, Any]:
    """Give a warm model that doubles, its input, and memory for its output."""
    model = loader.load(small.double(TensorType.FLOAT32, (elements,)))
    x, out = np.ones(elements, np.float32), np.zeros(elements, np.float32)
    for _ in range(20):
        model.compute(x, out)
    return model, x, out


def counted(thread: int, until: Any) -> Counter[str]:
    """Count, or skip the test where tracing is not allowed."""
    try:
        return count_system_calls(thread, until)
    except PermissionError:
        pytest.skip("this user may not trace the process whose system calls are to be counted")


def test_worker_makes_two_or_three_system_calls(loader: ml.MLModelLoader) -> None:
    model, x, out = load(loader, 1)
    done = threading.Event()

    def compute() -> None:
        begun.wait(30)
        for _ in range(CALLS):
            model.compute(x, out)
        done.set()

    begun = threading.Event()
    caller = threading.Thread(target=compute, daemon=True)
    caller.start()

    def until(name: str) -> bool:
        begun.set()
        return done.is_set()

    counts = counted(model.isolation.worker_pid, until)
    caller.join(30)
    assert done.is_set()
    # One reads it all where the worker slept; two do where it looked for the head.
    assert counts["readv"] + counts["recvfrom"] <= 2 * CALLS + NOW_AND_THEN, counts
    assert 2 * counts["readv"] + counts["recvfrom"] <= 2 * CALLS + NOW_AND_THEN, counts
    assert CALLS <= counts["writev"] <= CALLS + NOW_AND_THEN, counts
    assert sum(counts.values()) <= 3 * CALLS + NOW_AND_THEN, counts


def client_counts(connection: ml.Connection, elements: int) -> Counter[str]:
    """Count the system calls of a client process in its calls."""
    command = [sys.executable, "-m", "tests.integration.caller", connection.address]
    with subprocess.Popen(
        [*command, str(elements), str(CALLS)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        line = process.stdin
        marks: list[str] = []

        def until(name: str) -> bool:
            if name == "getppid":
                marks.append(name)
            elif not told:
                line.write("go\n")  # only now: the calls begin when they are counted
                line.flush()
                told.append(True)
            return len(marks) == 2

        told: list[bool] = []
        counts = counted(process.pid, until)
        process.communicate("end\n", timeout=60)
    return counts


def test_client_makes_two_system_calls_for_a_small_call(connection: ml.Connection) -> None:
    counts = client_counts(connection, 1)
    assert counts["sendmsg"] == CALLS, counts
    assert counts["recvmsg"] == CALLS, counts
    assert sum(counts.values()) <= 2 * CALLS + NOW_AND_THEN, counts


def test_client_reads_an_image_in_three_system_calls(connection: ml.Connection) -> None:
    """One brings the head and what is there of the rest, the other all the rest."""
    counts = client_counts(connection, IMAGE)
    assert CALLS <= counts["sendmsg"] <= 2 * CALLS, counts
    assert CALLS <= counts["recvmsg"] <= 2 * CALLS + NOW_AND_THEN, counts


@pytest.mark.parametrize("elements", [1, IMAGE])
def test_steady_state_touches_no_new_page(loader: ml.MLModelLoader, elements: int) -> None:
    model, x, out = load(loader, elements)
    thread = f"/proc/self/task/{threading.get_native_id()}/stat"
    worker = f"/proc/{model.isolation.worker_pid}/stat"
    before = faults(thread), faults(worker)
    for _ in range(CALLS):
        model.compute(x, out)
    after = faults(thread), faults(worker)
    assert after[0] - before[0] <= NOW_AND_THEN
    assert after[1] - before[1] <= NOW_AND_THEN


def test_a_small_call_sleeps_at_most_twice_a_side(loader: ml.MLModelLoader) -> None:
    """Once for the other's bytes, and once because the kernel wakes a reader of a Unix socket also
    when the other side has read what this one wrote.
    """
    model, x, out = load(loader, 1)
    thread = f"/proc/self/task/{threading.get_native_id()}/status"
    worker = f"/proc/{model.isolation.worker_pid}/status"
    before = sleeps(thread), sleeps(worker)
    for _ in range(CALLS):
        model.compute(x, out)
    after = sleeps(thread), sleeps(worker)
    assert after[0] - before[0] <= 2 * CALLS + NOW_AND_THEN
    assert after[1] - before[1] <= 2 * CALLS + NOW_AND_THEN


def test_the_client_copies_no_payload(loader: ml.MLModelLoader) -> None:
    """The kernel reads the caller's array and writes the caller's array; nothing is allocated."""
    model, x, out = load(loader, IMAGE)
    tracemalloc.start()
    try:
        for _ in range(10):
            model.compute(x, out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 10
    assert (out == 2).all()


def faults(stat: str) -> int:
    """Page faults without a disk in them, from a process's or thread's stat file."""
    return int(Path(stat).read_text().rpartition(")")[2].split()[7])


def sleeps(status: str) -> int:
    """Times that the processor was given up, from a process's or thread's status file."""
    for line in Path(status).read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    raise AssertionError(status)
