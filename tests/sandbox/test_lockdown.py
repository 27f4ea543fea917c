"""All layers together, in order, as root and as an ordinary user; and what is left without some."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from loader_service.sandbox import capabilities, libc, lockdown, namespaces, process, seccomp
from loader_service.sandbox.layers import MINIMUM, PROCESS_LAYERS, Layer
from loader_service.sandbox.lockdown import LOCK_DOWN_LAYERS, LockDownError
from loader_service.sandbox.resource_limits import ResourceLimits
from tests.sandbox.sandboxed import (
    become_ordinary,
    in_child,
    in_sandbox,
    start_sandboxed,
    worker_uid,
)
from tests.support.host import user_namespaces_usable

pytestmark = pytest.mark.isolation
in_user_namespace = pytest.mark.skipif(
    not user_namespaces_usable(), reason="this host refuses user namespaces to this user"
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")
AS_ROOT = os.geteuid() == 0
ALL = PROCESS_LAYERS if AS_ROOT else PROCESS_LAYERS - {Layer.UNPRIVILEGED_UID}


NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


@in_user_namespace
def test_a_worker_seen_from_outside_is_locked_down_in_every_way() -> None:
    uid = worker_uid()
    worker = start_sandboxed(wait_for_ever, wanted=ALL, uid=uid)
    try:
        # The filter is the last step: all the others hold once it shows.
        while (status := status_of(worker.pid))["Seccomp"] != "2":
            os.sched_yield()
        assert worker.outcome.entered | set(LOCK_DOWN_LAYERS) == ALL
        assert worker.outcome.refused == {}
        assert status["NoNewPrivs"] == "1"
        assert status["NSpid"].split()[1:] == ["1"]
        sets = ("CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd")
        assert {status[name] for name in sets} == {"0" * 16}
        for ids in ("Uid", "Gid"):
            mine = os.getuid() if ids == "Uid" else os.getgid()
            assert status[ids].split() == [str(mine if uid is None else uid)] * 4
        assert os.stat(f"/proc/{worker.pid}/environ").st_uid == 0  # not dumpable
        if AS_ROOT:
            assert status["Groups"] == ""
            own = {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES}
            theirs = {name: os.readlink(f"/proc/{worker.pid}/ns/{name}") for name in NAMESPACES}
            assert [name for name in NAMESPACES if own[name] == theirs[name]] == []
            assert os.listdir(f"/proc/{worker.pid}/root") == []
            assert sorted(os.listdir(f"/proc/{worker.pid}/fd")) == ["0", "1", "2", "3"]
        else:
            for name in ("ns/user", "fd", "mem", "maps", "environ"):
                with pytest.raises(PermissionError):
                    os.open(f"/proc/{worker.pid}/{name}", os.O_RDONLY)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
    assert worker.wait().status == -signal.SIGKILL


@in_user_namespace
@pytest.mark.skipif(not AS_ROOT, reason="the tests run as an ordinary user already")
def test_an_ordinary_users_worker_has_every_layer_but_the_user_of_its_own() -> None:
    def work() -> list[object]:
        become_ordinary()
        worker = start_sandboxed(lambda: os.getuid(), wanted=PROCESS_LAYERS, uid=None)
        value = worker.wait().result()
        missing = PROCESS_LAYERS - worker.outcome.entered - set(LOCK_DOWN_LAYERS)
        return [value, sorted(missing), sorted(worker.outcome.refused)]

    alone = [Layer.UNPRIVILEGED_UID]
    assert in_child(work).result() == [1000, alone, alone]


@in_user_namespace
def test_the_death_signal_survives_lock_down_and_ends_process_1_with_its_parent() -> None:
    process.set_child_subreaper()
    reading, writing = os.pipe()
    broker = os.fork()
    if broker == 0:
        uid = worker_uid()
        ready, readying = os.pipe()

        def locked() -> None:
            os.write(1, b"x")
            wait_for_ever()

        os.dup2(readying, 1)
        worker = start_sandboxed(locked, wanted=ALL, uid=uid)
        os.read(ready, 1)
        os.write(writing, str(worker.pid).encode())
        signal.pause()
    worker_pid = int(os.read(reading, 20))
    os.kill(broker, signal.SIGKILL)
    os.waitpid(broker, 0)
    _, status = os.waitpid(worker_pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    os.close(reading)
    os.close(writing)


@in_user_namespace
@pytest.mark.parametrize("layer", sorted(PROCESS_LAYERS - MINIMUM))
def test_each_layer_can_be_left_out_and_the_others_hold(layer: Layer) -> None:
    wanted = ALL - {layer}
    worker = start_sandboxed(lambda: 7, wanted=wanted, uid=worker_uid())
    assert worker.wait().result() == 7
    expected = wanted - set(LOCK_DOWN_LAYERS)
    if layer is Layer.MOUNT_NAMESPACE:
        assert worker.outcome.refused == {Layer.EMPTY_ROOT: "it needs a mount namespace"}
        expected -= {Layer.EMPTY_ROOT}
    elif layer is Layer.USER_NAMESPACE and not AS_ROOT:
        # Without it an ordinary user may make no other namespace either.
        assert set(worker.outcome.refused) == expected
        expected = frozenset()
    assert worker.outcome.entered == expected


def test_the_minimum_alone_still_holds() -> None:
    worker = start_sandboxed(os.getppid, wanted=MINIMUM, uid=None)
    assert worker.outcome.entered == frozenset()
    assert worker.wait().status == -signal.SIGSYS


def test_what_belongs_to_the_minimum_cannot_be_left_out() -> None:
    for layer in MINIMUM:
        with pytest.raises(ValueError, match=str(layer)):
            lockdown.lock_down(PROCESS_LAYERS - {layer}, ResourceLimits())


def test_a_refused_minimum_is_an_error_and_another_refusal_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def minimum() -> str:
        monkeypatch.setattr(seccomp, "load_filter", refuse)
        try:
            lockdown.lock_down(PROCESS_LAYERS, ResourceLimits())
        except LockDownError as error:
            return f"{error.layer}: {error.detail}"
        return "nothing"

    def other() -> dict[str, str]:
        monkeypatch.setattr(capabilities, "drop_all", refuse)
        outcome = lockdown.lock_down(PROCESS_LAYERS, ResourceLimits())
        return {str(layer): detail for layer, detail in outcome.refused.items()}

    assert in_child(minimum).result() == "seccomp: Operation not permitted"
    assert in_child(other).result() == {"capabilities": "Operation not permitted"}


def test_a_process_with_a_second_thread_is_not_locked_down() -> None:
    def work() -> list[str]:
        stop = threading.Event()
        threading.Thread(target=stop.wait, daemon=True).start()
        refused = []
        acts: list[Callable[[], object]] = [
            lambda: lockdown.lock_down(PROCESS_LAYERS, ResourceLimits()),
            lambda: lockdown.enter_namespaces(PROCESS_LAYERS, None),
        ]
        for act in acts:
            try:
                act()
            except RuntimeError as error:
                refused.append(str(error))
        return refused

    assert [text.count("one thread") for text in in_child(work).result()] == [1, 1]


@as_root
def test_root_enters_the_other_namespaces_where_only_the_user_namespace_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(namespaces, "enter_user_namespace", refuse)

    def held() -> list[object]:
        return [os.getpid(), any(capabilities.held())]

    uid = worker_uid()
    wanted = PROCESS_LAYERS
    worker = start_sandboxed(held, wanted=wanted, uid=uid, lock=False)
    assert worker.wait().result() == [1, False]
    assert worker.outcome.refused == {Layer.USER_NAMESPACE: "No space left on device"}
    assert worker.outcome.entered == wanted - set(LOCK_DOWN_LAYERS) - {Layer.USER_NAMESPACE}


@as_root
def test_a_host_without_user_namespaces_refuses_them_one_by_one_to_an_ordinary_user() -> None:
    """The kernel's own refusal: a user namespace in which the limit on more of them is none."""

    def work() -> list[object]:
        become_ordinary()
        namespaces.enter_user_namespace()
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        capabilities.drop_all()
        process.set_dumpable(True)
        outcome = lockdown.enter_namespaces(PROCESS_LAYERS, None)
        return [sorted(outcome.entered), sorted(outcome.refused)]

    namespaces_wanted = PROCESS_LAYERS - set(LOCK_DOWN_LAYERS)
    assert in_child(work).result() == [[], sorted(namespaces_wanted)]


HOSTILE: dict[str, Callable[[], object]] = {
    "opens a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "opens a file by ctypes": lambda: libc.syscall("openat", -100, _text("/etc/passwd"), 0),
    "lists the root": lambda: os.listdir("/"),
    "raises its limits": lambda: libc.syscall("prlimit64", 0, 7, _text("x" * 16), 0),
}


@in_user_namespace
@pytest.mark.parametrize("act", HOSTILE.values(), ids=HOSTILE)
def test_a_locked_down_worker_is_told_no(act: Callable[[], object]) -> None:
    def work() -> bool:
        try:
            act()
        except OSError as error:
            return error.errno in (errno.EACCES, errno.EPERM)
        return False

    assert in_sandbox(work, wanted=ALL, uid=worker_uid()).result() is True


KILLED: dict[str, Callable[[], object]] = {
    "opens a socket": lambda: socket.socket(),
    "sends a descriptor": lambda: libc.syscall("sendmsg", 3, _text("x" * 64), 0),
    "receives a descriptor": lambda: libc.syscall("recvmsg", 3, _text("x" * 64), 0),
    "forks": os.fork,
    "runs a program": lambda: os.execv("/bin/sh", ["sh"]),
    "traces": lambda: libc.syscall("ptrace", 0, 0, 0, 0),
    "enters a namespace": lambda: libc.syscall("unshare", 0x1000_0000),
    "makes memory executable": lambda: libc.syscall("mprotect", 0, 4096, 5),
    "adds a filter": lambda: libc.prctl(22, 2, 0),
    "signals its group": lambda: os.kill(0, signal.SIGTERM),
    "copies a descriptor": lambda: os.dup(0),
}


@in_user_namespace
@pytest.mark.parametrize("act", KILLED.values(), ids=KILLED)
def test_a_locked_down_worker_dies_of_what_it_must_not_try(act: Callable[[], object]) -> None:
    assert in_sandbox(act, wanted=ALL, uid=worker_uid()).status == -signal.SIGSYS


def wait_for_ever() -> None:
    threading.Event().wait()


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


_texts: list[ctypes.Array[ctypes.c_char]] = []


def _text(text: str) -> int:
    """The address of a text that stays where it is."""
    _texts.append(libc.c_string(text))
    return ctypes.addressof(_texts[-1])
