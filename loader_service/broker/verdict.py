"""Why a worker ended, told from what the kernel and the broker itself know.

The worker's own word is never a reason. The first reason in the order below wins.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace

from model_loader_wire.causes import Cause, Failure

CRASHES = {
    signal.SIGSEGV: "it touched memory that is not its own",
    signal.SIGBUS: "it touched memory that is not there",
    signal.SIGFPE: "an arithmetic fault, such as a division by zero",
    signal.SIGILL: "an illegal instruction",
    signal.SIGABRT: "the runtime aborted",
    signal.SIGTRAP: "a trap",
}
MEMORY_LIMITS = (
    "total_memory_bytes",
    "principal_memory_bytes",
    "origin_memory_bytes",
    "memory_bytes",
)
"""By how deep in the tree of cgroups they hold."""
CPU_SHARE_SEEN = 0.5
"""The kernel enforces RLIMIT_CPU by samples at clock ticks; on a busy machine they run far ahead
of what wait4 counts exactly. A worker that exits with that signal must have used this share."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a dead worker."""

    wait_status: int
    cpu_seconds: float
    """By the kernel's count (wait4)."""
    oom_kills: int
    """By the worker's cgroup."""
    memory_bytes: int
    """The limit of memory that held."""
    memory_level: int
    """Whose it was: an index of ``MEMORY_LIMITS``."""
    cpu_limit_seconds: int | None
    killed_for: Failure | None
    """The broker's own record of why it killed this worker, if it did."""
    may_end: bool
    """Whether it had nothing left to do: nobody held its channel, or it had said its last."""
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
    return replace(_judge(evidence, status, number), last_words=evidence.last_words)


def _judge(evidence: Evidence, status: int, number: int) -> Failure:
    if number == signal.SIGKILL and evidence.oom_kills:
        memory, limit = evidence.memory_bytes, MEMORY_LIMITS[evidence.memory_level]
        message = f"the worker needed more memory than {limit} = {memory} allow"
        return _lost(Cause.OUT_OF_MEMORY, message, limit, memory, memory)
    # The broker kills with SIGKILL; a worker that had already ended by itself says 0 or more.
    if evidence.killed_for is not None and number in (0, signal.SIGKILL):
        return replace(evidence.killed_for, model_lost=True)
    if number == signal.SIGSYS:
        message = "the worker made a system call that its sandbox forbids and was ended"
        return _lost(Cause.POLICY_VIOLATION, message)
    if _used_up(evidence, number):
        maximum = evidence.cpu_limit_seconds or 0
        message = f"the worker used up its CPU time, cpu_seconds = {maximum}"
        used = max(evidence.cpu_seconds, maximum)
        return _lost(Cause.CPU_TIME, message, "cpu_seconds", used, maximum)
    if number == signal.SIGKILL:
        return _lost(Cause.KILLED, "the worker was killed by somebody else (SIGKILL)")
    if number:
        return _lost(Cause.CRASHED, f"the worker crashed with {_named(number)}")
    if status == 0 and evidence.may_end:
        return _lost(Cause.CLOSED, "the model's channel was closed")
    return _lost(Cause.CRASHED, f"the worker ended by itself with status {status}")


def _lost(
    cause: Cause, message: str, limit: str = "", value: float = 0, maximum: float = 0
) -> Failure:
    return Failure(cause, message, limit, value, maximum, model_lost=True)


def _used_up(evidence: Evidence, number: int) -> bool:
    """Whether it was RLIMIT_CPU that ended the worker.

    The soft limit sends SIGXCPU, the hard one, which is higher, SIGKILL: one that comes before the
    soft limit is somebody else's.
    """
    limit = evidence.cpu_limit_seconds
    if limit is None or number not in (signal.SIGXCPU, signal.SIGKILL):
        return False
    share = CPU_SHARE_SEEN if number == signal.SIGXCPU else 1
    return evidence.cpu_seconds >= limit * share


def _named(number: int) -> str:
    try:
        known = signal.Signals(number)
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"
    return f"{known.name}: {CRASHES[known]}" if known in CRASHES else known.name
