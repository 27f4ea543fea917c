"""Running a function in a real child process, plain or with the whole sandbox on."""

from __future__ import annotations

import json
import os
import resource
import signal
import traceback
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from loader_service.sandbox import credentials, descriptors, lockdown, process, signals
from loader_service.sandbox.layers import PROCESS_LAYERS, Layer
from loader_service.sandbox.lockdown import Outcome
from loader_service.sandbox.resource_limits import ResourceLimits

HANG_SECONDS = 100
"""Long enough for some seconds of a busy machine's processor."""
ORDINARY_UID = 61_100
CHILD_REPORT = 240
"""The descriptor on which the result of `in_child` leaves."""
REPORT = 3
"""The descriptor on which a sandboxed function's result leaves."""


@dataclass(frozen=True)
class Ending:
    """How a child ended and what its function returned (through JSON)."""

    status: int
    """As `os.waitstatus_to_exitcode` gives it: negative for a signal."""
    value: Any = None
    error: str | None = None
    """The exception that came out of the function."""

    def result(self) -> Any:
        """The value; fails the test when there is none."""
        assert self.error is None, self.error
        assert self.status == 0, f"the child ended with status {self.status}"
        return self.value


def become_ordinary() -> None:
    """Be an ordinary user from here on; nothing to do for one."""
    if os.geteuid() == 0:
        credentials.change_user(ORDINARY_UID)
        process.set_dumpable(True)


def in_child(work: Callable[[], object]) -> Ending:
    """Run `work` in a fork of this process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(HANG_SECONDS)
        os.dup2(writing, CHILD_REPORT)
        os.close(writing)
        _report(work, CHILD_REPORT)
    os.close(writing)
    return _ending(pid, reading)


@dataclass
class Sandboxed:
    """A worker-like process in the sandbox: process 1 of its pid namespace, if there is one."""

    pid: int
    reading: int
    outcome: Outcome
    """Of `enter_namespaces`."""

    def wait(self) -> Ending:
        """Wait for its end."""
        return _ending(self.pid, self.reading)


def start_sandboxed(
    work: Callable[[], object],
    *,
    wanted: AbstractSet[Layer] = PROCESS_LAYERS,
    uid: int | None = None,
    limits: Callable[[AbstractSet[Layer]], ResourceLimits] | None = None,
    before_lock_down: Callable[[], None] = lambda: None,
    lock: bool = True,
) -> Sandboxed:
    """Fork an intermediate and a worker the way the zygote does; `work` runs locked down.

    `work` may use descriptors 0 to 2 and writes to none itself: its return value is reported.
    """
    process.set_child_subreaper()
    lockdown.warm_up()
    reading, writing = os.pipe()
    answer, answering = os.pipe()
    go, going = os.pipe()
    intermediate = os.fork()
    if intermediate == 0:
        try:
            outcome = lockdown.enter_namespaces(wanted, uid)
            worker = os.fork()
            if worker == 0:
                signals.restore_defaults()
                # Process 1 would ignore the default action.
                signal.signal(signal.SIGALRM, lambda *_: os._exit(signal.SIGALRM))
                signal.alarm(HANG_SECONDS)
                # Until the intermediate is reaped it counts as a task of the worker's user.
                os.close(going)
                os.close(answering)
                os.read(go, 1)
                descriptors.place({0: 0, 1: 1, 2: 2, REPORT: writing})
                _worker(work, wanted, outcome, limits, before_lock_down, lock)
            found = {"pid": worker, "entered": sorted(outcome.entered), "refused": outcome.refused}
            os.write(answering, json.dumps(found).encode())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(writing)
    os.close(answering)
    os.close(go)
    with os.fdopen(answer, "rb") as stream:
        text = stream.read()
    os.waitpid(intermediate, 0)
    os.close(going)
    assert text, "the intermediate process failed; see its standard error"
    found = json.loads(text)
    entered = frozenset(Layer(name) for name in found["entered"])
    refused = {Layer(name): detail for name, detail in found["refused"].items()}
    return Sandboxed(found["pid"], reading, Outcome(entered, refused))


def in_sandbox(work: Callable[[], object], **options: Any) -> Ending:
    """Run `work` in the sandbox to its end; see `start_sandboxed`."""
    return start_sandboxed(work, **options).wait()


def worker_uid() -> int | None:
    """A user for a worker, when these tests run as root."""
    pool = credentials.UidPool.for_this_host()
    return None if pool is None else pool.take()


def no_core_dump() -> None:
    """Keep a child that is going to crash from writing a file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _worker(
    work: Callable[[], object],
    wanted: AbstractSet[Layer],
    outcome: Outcome,
    limits: Callable[[AbstractSet[Layer]], ResourceLimits] | None,
    before_lock_down: Callable[[], None],
    lock: bool,
) -> None:
    def locked() -> object:
        signals.exit_on_signals()
        process.set_parent_death_signal()
        before_lock_down()
        if lock:
            make = limits or (lambda entered: ResourceLimits.for_worker(entered, threads=2))
            lockdown.lock_down(wanted, make(outcome.entered))
        return work()

    _report(locked, REPORT)


def _report(work: Callable[[], object], descriptor: int) -> None:
    """Run `work`, write what came of it and end the process."""
    try:
        answer: dict[str, object] = {"value": work()}
    except BaseException as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    os.write(descriptor, json.dumps(answer).encode())
    os._exit(0)


def _ending(pid: int, reading: int) -> Ending:
    with os.fdopen(reading, "rb") as report:
        text = report.read()
    _, status = os.waitpid(pid, 0)
    answer = json.loads(text) if text else {}
    return Ending(os.waitstatus_to_exitcode(status), answer.get("value"), answer.get("error"))
