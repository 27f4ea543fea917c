"""Why a worker ended, told from what the kernel and the broker itself know.

The worker's own word is never a reason. The first reason in the order below wins.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from model_loader_wire.causes import Cause, Failure

CRASHES = {
    signal.SIGSEGV: "it touched memory that is not its own",
    signal.SIGBUS: "it touched memory that is not there",
    signal.SIGFPE: "an arithmetic fault, such as a division by zero",
    signal.SIGILL: "an illegal instruction",
    signal.SIGABRT: "the runtime aborted",
    signal.SIGTRAP: "a trap",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a dead worker."""

    wait_status: int
    cpu_seconds: float
    """By the kernel's count (wait4)."""
    oom_kills: int
    """By the worker's cgroup."""
    memory_bytes: int
    """The limit that held."""
    cpu_limit_seconds: int | None
    killed_for: Failure | None
    """The broker's own record of why it killed this worker, if it did."""
    last_words: str
    """The tail of stderr: shown, never believed."""


def verdict(evidence: Evidence) -> Failure:
    """Return the failure that the owner of the dead worker's model is told."""
    status = os.waitstatus_to_exitcode(evidence.wait_status)
    number = -status if status < 0 else 0
    # A worker is process 1 of its namespace, whom the kernel spares such signals: its handler of
    # SIGABRT and SIGXCPU is _exit, so that the exit status is the signal's number.
    if status in (signal.SIGABRT, signal.SIGXCPU):
        number = status
    if number == signal.SIGKILL and evidence.killed_for is not None:
        return _with_words(evidence.killed_for, evidence.last_words)
    cause, message, limit, value, maximum = Cause.CRASHED, "", "", 0.0, 0.0
    if number == signal.SIGSYS:
        cause = Cause.POLICY_VIOLATION
        message = "the worker made a system call that its sandbox forbids and was ended"
    elif number == signal.SIGKILL and evidence.oom_kills:
        cause, limit = Cause.OUT_OF_MEMORY, "memory_bytes"
        value = maximum = float(evidence.memory_bytes)
        message = f"the worker needed more memory than memory_bytes = {evidence.memory_bytes} allow"
    elif number in (signal.SIGXCPU, signal.SIGKILL) and _used_up(evidence):
        cause, limit = Cause.CPU_TIME, "cpu_seconds"
        value, maximum = evidence.cpu_seconds, float(evidence.cpu_limit_seconds or 0)
        message = f"the worker used up its CPU time, cpu_seconds = {evidence.cpu_limit_seconds}"
    elif number == signal.SIGKILL:
        cause, message = Cause.KILLED, "the worker was killed by somebody else (SIGKILL)"
    elif number:
        name = signal.Signals(number).name
        message = f"the worker crashed with {name}: {CRASHES.get(signal.Signals(number), name)}"
    elif evidence.killed_for is not None:
        return _with_words(evidence.killed_for, evidence.last_words)
    elif status == 0:
        cause, message = Cause.CLOSED, "the model's channel was closed"
    else:
        message = f"the worker ended by itself with status {status}"
    return Failure(cause, message, limit, value, maximum, evidence.last_words, model_lost=True)


def _used_up(evidence: Evidence) -> bool:
    limit = evidence.cpu_limit_seconds
    return limit is not None and evidence.cpu_seconds >= limit


def _with_words(failure: Failure, last_words: str) -> Failure:
    return Failure(
        failure.cause,
        failure.message,
        failure.limit,
        failure.value,
        failure.maximum,
        last_words,
        model_lost=True,
    )
