"""Attributes of a process, each by its effect."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from loader_service.sandbox import libc, process
from tests.sandbox.sandboxed import become_ordinary, in_child

pytestmark = pytest.mark.isolation


def status_line(name: str, pid: int | str = "self") -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split(":", 1)[1].strip()
    raise AssertionError(name)


def test_no_new_privileges_is_seen_by_the_kernel_and_inherited() -> None:
    def work() -> list[str]:
        before = status_line("NoNewPrivs")
        process.set_no_new_privileges()
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.write(writing, status_line("NoNewPrivs").encode())
            os._exit(0)
        os.wait()
        return [before, status_line("NoNewPrivs"), os.read(reading, 9).decode()]

    assert in_child(work).result() == ["0", "1", "1"]


def test_a_process_of_the_same_user_cannot_read_one_that_is_not_dumpable() -> None:
    def work() -> list[str]:
        become_ordinary()
        readable = []
        for dumpable in (True, False):
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                process.set_dumpable(dumpable)
                os.write(writing, b"x")
                signal.pause()
            os.read(reading, 1)
            try:
                with open(f"/proc/{pid}/mem", "rb"):
                    readable.append("open")
            except PermissionError:
                readable.append("refused")
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return readable

    assert in_child(work).result() == ["open", "refused"]


def test_the_parent_death_signal_ends_the_child() -> None:
    def work() -> int:
        process.set_child_subreaper()
        reading, writing = os.pipe()
        parent = os.fork()
        if parent == 0:
            child = os.fork()
            if child == 0:
                process.set_parent_death_signal()
                os.write(writing, str(os.getpid()).encode())
                signal.pause()
            signal.pause()
        child = int(os.read(reading, 20))
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert in_child(work).result() == -signal.SIGKILL


def test_a_subreaper_gets_the_orphans() -> None:
    def work() -> bool:
        process.set_child_subreaper()
        reading, writing = os.pipe()
        if os.fork() == 0:
            if os.fork() == 0:
                os.write(writing, str(os.getpid()).encode())
            os._exit(0)
        os.wait()
        orphan = int(os.read(reading, 20))
        return os.waitpid(orphan, 0)[0] == orphan

    assert in_child(work).result() is True


def test_the_name_is_what_ps_shows_cut_to_fifteen_bytes() -> None:
    def work() -> str:
        process.set_name("model-loader-worker")
        return Path("/proc/self/comm").read_text().strip()

    assert in_child(work).result() == "model-loader-wo"


def test_a_new_session_keyring_does_not_hold_the_old_ones_keys() -> None:
    def work() -> list[object]:
        key = [libc.c_string(text) for text in ("user", "sandbox-test", "secret")]
        import ctypes

        kind, name, payload = (ctypes.addressof(buffer) for buffer in key)
        session = -3
        try:
            libc.syscall("keyctl", 1, 0)  # a keyring of this test's own, to leave no key behind
            libc.syscall("add_key", kind, name, payload, 6, session & 2**32 - 1)
        except OSError:
            return ["no keyrings here"]

        def found() -> bool:
            try:
                libc.syscall("keyctl", 10, session & 2**32 - 1, kind, name)
            except OSError:
                return False
            return True

        before = found()
        return [before, process.join_empty_keyring(), found()]

    seen = in_child(work).result()
    if seen == ["no keyrings here"]:
        pytest.skip("this host refuses keyrings")
    assert seen == [True, True, False]


def test_a_second_thread_is_noticed_without_proc() -> None:
    def work() -> list[bool]:
        alone = process.is_single_threaded()
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        accompanied = process.is_single_threaded()
        stop.set()
        thread.join()
        # The kernel counts a thread until it is quite gone, a moment after it can be joined.
        end = time.monotonic() + 10
        while not process.is_single_threaded() and time.monotonic() < end:
            time.sleep(0.001)
        return [alone, accompanied, process.is_single_threaded()]

    assert in_child(work).result() == [True, False, True]


def test_an_error_names_the_call() -> None:
    with pytest.raises(OSError, match="close_range: Invalid argument"):
        libc.syscall("close_range", 9, 8, 0)
