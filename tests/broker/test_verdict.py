"""From what is known of a dead worker to one cause: each road, and which comes first."""

from __future__ import annotations

import signal

import pytest

from loader_service.broker.verdict import MEMORY_LIMITS, Evidence, verdict
from model_loader_wire.causes import Cause, Failure

OURS = Failure(Cause.TIMEOUT, "too slow", "compute_seconds", 11, 10)


def evidence(
    status: int = 0,
    number: int = 0,
    *,
    cpu: float = 0.5,
    oom: int = 0,
    cpu_limit: int | None = None,
    ours: Failure | None = None,
    may_end: bool = False,
    level: int = 3,
) -> Evidence:
    """A dead worker that exited with `status` or was ended by signal `number`."""
    return Evidence(
        wait_status=number or status << 8,
        cpu_seconds=cpu,
        oom_kills=oom,
        memory_bytes=1000,
        memory_level=level,
        cpu_limit_seconds=cpu_limit,
        killed_for=ours,
        may_end=may_end,
        last_words="its last words",
    )


@pytest.mark.parametrize(
    ("case", "cause", "text"),
    [
        (evidence(may_end=True), Cause.CLOSED, "channel was closed"),
        (evidence(), Cause.CRASHED, "by itself with status 0"),
        (evidence(1), Cause.CRASHED, "status 1"),
        (evidence(6), Cause.CRASHED, "SIGABRT: the runtime aborted"),
        (evidence(number=signal.SIGABRT), Cause.CRASHED, "SIGABRT"),
        (evidence(number=signal.SIGSEGV), Cause.CRASHED, "SIGSEGV: it touched memory"),
        (evidence(number=signal.SIGFPE), Cause.CRASHED, "SIGFPE"),
        (evidence(number=signal.SIGTERM), Cause.CRASHED, "SIGTERM"),
        (evidence(number=33), Cause.CRASHED, "signal 33"),
        (evidence(number=40), Cause.CRASHED, "signal 40"),
        (evidence(number=signal.SIGSYS), Cause.POLICY_VIOLATION, "system call"),
        (evidence(number=signal.SIGKILL), Cause.KILLED, "somebody else"),
        (evidence(number=signal.SIGKILL, ours=OURS), Cause.TIMEOUT, "too slow"),
        (evidence(number=signal.SIGKILL, oom=1), Cause.OUT_OF_MEMORY, "memory_bytes = 1000"),
        *(
            (evidence(number=9, oom=1, level=level), Cause.OUT_OF_MEMORY, f"{limit} = 1000")
            for level, limit in enumerate(MEMORY_LIMITS)
        ),
        (evidence(24, cpu=2, cpu_limit=2), Cause.CPU_TIME, "cpu_seconds = 2"),
        (evidence(24, cpu=1.2, cpu_limit=2), Cause.CPU_TIME, "cpu_seconds = 2"),
        (evidence(number=signal.SIGXCPU, cpu=2, cpu_limit=2), Cause.CPU_TIME, "cpu_seconds"),
        (evidence(number=signal.SIGKILL, cpu=4, cpu_limit=2), Cause.CPU_TIME, "cpu_seconds"),
        (evidence(number=signal.SIGKILL, cpu=2, cpu_limit=2), Cause.CPU_TIME, "cpu_seconds"),
        (evidence(number=signal.SIGKILL, cpu=1.9, cpu_limit=2), Cause.KILLED, "somebody else"),
        (evidence(24, cpu=0.9, cpu_limit=2), Cause.CRASHED, "SIGXCPU"),
    ],
    ids=str,
)
def test_each_evidence_has_its_cause(case: Evidence, cause: Cause, text: str) -> None:
    found = verdict(case)
    assert found.cause is cause
    assert text in found.message
    assert found.last_words == "its last words"
    assert found.model_lost


def test_a_limit_is_named_with_value_and_maximum() -> None:
    memory = verdict(evidence(number=signal.SIGKILL, oom=1))
    assert (memory.limit, memory.value, memory.maximum) == ("memory_bytes", 1000, 1000)
    time = verdict(evidence(24, cpu=2.5, cpu_limit=2))
    assert (time.limit, time.value, time.maximum) == ("cpu_seconds", 2.5, 2)
    # The kernel acts by samples: what it ended for having used up 2 s has used up 2 s.
    assert verdict(evidence(24, cpu=1.2, cpu_limit=2)).value == 2
    ours = verdict(evidence(number=signal.SIGKILL, ours=OURS))
    assert (ours.limit, ours.value, ours.maximum) == ("compute_seconds", 11, 10)


def test_a_worker_cannot_choose_a_better_cause() -> None:
    # It exits with the status that stands for the CPU limit, but has used nothing.
    assert verdict(evidence(24, cpu=0.1, cpu_limit=2)).cause is Cause.CRASHED
    assert verdict(evidence(24, cpu=9.0)).cause is Cause.CRASHED
    # The status that stands for SIGKILL where a shell reports it means nothing here.
    assert verdict(evidence(137)).cause is Cause.CRASHED


def test_the_first_reason_wins() -> None:
    # The kernel's own kill came before ours: a dead process cannot run out of memory.
    both = evidence(number=signal.SIGKILL, oom=1, ours=OURS, cpu=4, cpu_limit=2)
    assert verdict(both).cause is Cause.OUT_OF_MEMORY
    # Our kill is why it died, however much time it had used.
    assert verdict(evidence(number=signal.SIGKILL, ours=OURS, cpu=4, cpu_limit=2)).cause is (
        Cause.TIMEOUT
    )
    # It crashed before our kill reached it.
    assert verdict(evidence(number=signal.SIGSEGV, ours=OURS)).cause is Cause.CRASHED
    assert verdict(evidence(number=signal.SIGSYS, ours=OURS)).cause is Cause.POLICY_VIOLATION
    assert verdict(evidence(6, ours=OURS)).cause is Cause.CRASHED
    # It was ending when we killed it, for the reason that we had.
    assert verdict(evidence(0, ours=OURS)).cause is Cause.TIMEOUT
    # A memory kill somewhere in its group, but it left by itself.
    assert verdict(evidence(0, oom=1, may_end=True)).cause is Cause.CLOSED
    # Only leaving with status 0 can be all right.
    assert verdict(evidence(1, may_end=True)).cause is Cause.CRASHED
