"""How process 1 of a pid namespace ends: abort(), the CPU limit, and the faults."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

import pytest

from loader_service.sandbox import libc, signals
from loader_service.sandbox.layers import PROCESS_LAYERS, Layer
from loader_service.sandbox.resource_limits import ResourceLimits
from tests.sandbox.sandboxed import in_child, in_sandbox, no_core_dump, worker_uid
from tests.support.host import user_namespaces_usable

pytestmark = [
    pytest.mark.isolation,
    pytest.mark.skipif(not user_namespaces_usable(), reason="this host refuses user namespaces"),
]


def abort() -> None:
    libc.library.abort()


def segmentation_fault() -> None:
    ctypes.string_at(8)


def illegal_system_call() -> None:
    os.getppid()


def spin() -> None:
    while True:
        pass


def spin_with_the_signal_ignored() -> None:
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    spin()


@pytest.mark.parametrize(
    ("work", "status"),
    [
        (abort, int(signal.SIGABRT)),
        (segmentation_fault, -signal.SIGSEGV),
        (illegal_system_call, -signal.SIGSYS),
        (lambda: os._exit(3), 3),
    ],
    ids=["abort", "segmentation fault", "forbidden call", "exit"],
)
def test_the_wait_status_of_process_1_names_its_end(work: Callable[[], None], status: int) -> None:
    assert in_sandbox(work, uid=worker_uid()).status == status


def test_a_division_by_zero_ends_process_1_with_sigfpe() -> None:
    """Machine code that divides is made before lock-down, where it can still be executable."""
    import mmap
    import platform

    if platform.machine() != "x86_64":
        pytest.skip("the code is for x86-64")
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\x31\xc9\xb8\x01\x00\x00\x00\x99\xf7\xf9\xc3")  # xor ecx; eax=1; cdq; idiv ecx
    divide = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    assert in_sandbox(divide, uid=worker_uid()).status == -signal.SIGFPE


def test_without_the_handler_abort_would_not_be_told_from_a_crash() -> None:
    """Why `exit_on_signals` exists: process 1 ignores the default action of SIGABRT."""

    def work() -> None:
        ctypes.CDLL(None).signal(signal.SIGABRT, 0)
        abort()

    assert in_sandbox(work, uid=worker_uid()).status != signal.SIGABRT


@pytest.mark.parametrize(
    ("work", "status"),
    [(spin, int(signal.SIGXCPU)), (spin_with_the_signal_ignored, -signal.SIGKILL)],
    ids=["soft limit", "hard limit"],
)
def test_the_cpu_limit_ends_process_1(work: Callable[[], None], status: int) -> None:
    ending = in_sandbox(work, uid=worker_uid(), limits=lambda _: ResourceLimits(cpu_seconds=1))
    assert ending.status == status


def test_outside_a_pid_namespace_the_status_is_the_same() -> None:
    wanted = PROCESS_LAYERS - {Layer.PID_NAMESPACE}
    assert in_sandbox(abort, wanted=wanted, uid=worker_uid()).status == signal.SIGABRT


def test_an_abort_in_another_thread_ends_the_process_too() -> None:
    def work() -> None:
        import threading

        threading.Thread(target=abort).start()
        threading.Event().wait()

    assert in_sandbox(work, uid=worker_uid()).status == signal.SIGABRT


def test_signal_actions_and_masks_go_back_to_a_fresh_programs() -> None:
    def work() -> list[object]:
        no_core_dump()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})
        os.kill(os.getpid(), signal.SIGINT)  # which would end it as soon as it is unblocked
        signals.restore_defaults()
        return [
            signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
            signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,
            signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN,
            len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        ]

    assert in_child(work).result() == [True, True, True, 0]
