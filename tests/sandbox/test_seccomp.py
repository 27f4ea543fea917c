"""The system call filter: every number's outcome by evaluation, and the kernel's word on a few."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import signal
import threading
from collections.abc import Callable

import pytest

from loader_service.sandbox import libc, policy, process, seccomp
from loader_service.sandbox.policy import (
    INT,
    LONG,
    THREAD_FLAGS,
    Action,
    Allow,
    Case,
    Condition,
    Fail,
    Kill,
    OwnProcess,
    Rule,
)
from loader_service.sandbox.syscall_tables import ARCHITECTURES, Architecture, host_architecture
from tests.sandbox.bpf import evaluate
from tests.sandbox.sandboxed import Ending, in_child, no_core_dump

AUDIT_ARCH_I386 = 0x4000_0003
AUDIT_ARCH_ARM = 0x4000_0028
PID = 4711
RULES = {rule.name: rule for rule in policy.WORKER_SYSTEM_CALLS}

architectures = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)


def compiled(architecture: Architecture) -> bytes:
    return seccomp.compile_filter(architecture=architecture, pid=PID)


def by_table(name: str, arguments: tuple[int, ...]) -> Action:
    """What the policy says, evaluated straight from the table."""
    rule = RULES.get(name)
    if rule is None:
        return policy.UNLISTED
    padded = (*arguments, 0, 0, 0, 0, 0, 0)
    for case in rule.cases:
        if all(
            padded[c.argument] & c.mask == (PID if c.value is OwnProcess.ID else c.value)
            for c in case.conditions
        ):
            return case.action
    return rule.otherwise


ARGUMENTS = [
    (),
    (1, 1, 1, 1, 1, 1),
    (0, 4096, 3, 0x22, 0, 0),
    (2**64 - 1,) * 6,
    (0, 9, 14, 0x22, 0, 0),
    (0, 0x80, 5, 0x22, 0, 0),
    (PID, PID, signal.SIGABRT),
    (PID, PID, signal.SIGKILL),
    (PID + 1, PID, signal.SIGABRT),
    (THREAD_FLAGS, 0, 0, 0, 0),
    (THREAD_FLAGS | 1 << 32, 0, 0, 0, 0),
    (THREAD_FLAGS & ~0x10000, 0, 0, 0, 0),
    (15, 0, 0, 0, 0),
    (0x53564D41, 0, 0, 0, 0),
    (22, 2, 0, 0, 0),
    (0, 0, 0, 0, 1 << 32),
]


@architectures
def test_every_number_ends_as_the_table_says(architecture: Architecture) -> None:
    program = compiled(architecture)
    allowed = set()
    for number in range(601):
        name = architecture.name_of(number)
        for arguments in ARGUMENTS:
            outcome = evaluate(program, number, architecture.audit_number, arguments)
            assert outcome == by_table(name, arguments), (name, arguments)
            if outcome == Allow():
                allowed.add(name)
    assert allowed == {
        name
        for name, rule in RULES.items()
        if name in architecture.numbers and (rule.otherwise == Allow() or rule.cases)
    }


@architectures
@pytest.mark.parametrize("audit_number", [AUDIT_ARCH_I386, AUDIT_ARCH_ARM, 0, 0xFFFF_FFFF])
def test_every_number_of_a_foreign_architecture_kills(
    architecture: Architecture, audit_number: int
) -> None:
    program = compiled(architecture)
    assert {evaluate(program, number, audit_number) for number in range(601)} == {Kill()}


def test_every_x32_number_kills() -> None:
    x86_64 = ARCHITECTURES["x86_64"]
    program = compiled(x86_64)
    numbers = [0x4000_0000 + number for number in range(601)] + [0xFFFF_FFFF, 0x8000_0000]
    assert {evaluate(program, number, x86_64.audit_number) for number in numbers} == {Kill()}


@pytest.mark.parametrize(
    "name",
    [
        *("socket", "connect", "accept", "accept4", "bind", "listen", "socketpair"),
        *("sendmsg", "recvmsg", "sendmmsg", "recvmmsg"),
        *("execve", "execveat", "fork", "vfork", "kill", "tkill", "ptrace", "process_vm_readv"),
        *("dup", "dup2", "dup3", "fcntl", "pidfd_open", "pidfd_getfd", "pidfd_send_signal"),
        *("memfd_create", "userfaultfd", "bpf", "io_uring_setup", "perf_event_open", "keyctl"),
        *("mount", "unshare", "setns", "pivot_root", "chroot", "setuid", "capset", "seccomp"),
        *("personality", "pkey_mprotect", "remap_file_pages", "shmat", "mlock", "modify_ldt"),
        *("setrlimit", "arch_prctl", "open_by_handle_at", "creat", "unlink", "rename"),
    ],
)
def test_dangerous_calls_kill_whatever_their_arguments(name: str) -> None:
    x86_64 = ARCHITECTURES["x86_64"]
    number = x86_64.numbers[name]
    program = compiled(x86_64)
    outcomes = {evaluate(program, number, x86_64.audit_number, some) for some in ARGUMENTS}
    assert outcomes == {Kill()}


@pytest.mark.parametrize(
    ("name", "arguments", "outcome"),
    [
        ("mmap", (0, 4096, mmap.PROT_READ | mmap.PROT_WRITE, 0x22), Allow()),
        ("mmap", (0, 4096, mmap.PROT_READ | mmap.PROT_EXEC, 0x22), Kill()),
        ("mmap", (0, 4096, mmap.PROT_READ, mmap.MAP_PRIVATE, 3), Kill()),
        ("mprotect", (0, 4096, mmap.PROT_READ | mmap.PROT_WRITE), Allow()),
        ("mprotect", (0, 4096, mmap.PROT_EXEC), Kill()),
        ("mprotect", (0, 4096, 7 | 0x0100_0000), Kill()),
        ("clone", (THREAD_FLAGS,), Allow()),
        ("clone", (signal.SIGCHLD,), Kill()),
        ("clone", (THREAD_FLAGS | 0x1000_0000,), Kill()),
        ("clone", (THREAD_FLAGS | 1 << 33,), Kill()),
        ("clone3", (0, 88), Fail(errno.ENOSYS)),
        ("tgkill", (PID, 1, signal.SIGABRT), Allow()),
        ("tgkill", (PID, 1, signal.SIGTERM), Kill()),
        ("tgkill", (1, 1, signal.SIGABRT), Kill()),
        ("recvfrom", (3, 4096, 10, 0, 0, 0), Allow()),
        ("recvfrom", (3, 4096, 10, 0, 1 << 40, 0), Kill()),
        ("sendto", (3, 4096, 10, 0, 8192, 110), Kill()),
        ("futex", (4096, 128), Allow()),
        ("futex", (4096, 9 | 128 | 256), Allow()),
        ("futex", (4096, 6 | 128), Fail(errno.ENOSYS)),
        ("futex", (4096, 13), Fail(errno.ENOSYS)),
        ("madvise", (4096, 4096, 4), Allow()),
        ("madvise", (4096, 4096, 100), Fail(errno.EINVAL)),
        ("prctl", (15, 4096), Allow()),
        ("prctl", (0x53564D41, 0), Fail(errno.EINVAL)),
        ("prctl", (4, 1), Kill()),
        ("prlimit64", (0, 3, 0, 4096), Allow()),
        ("prlimit64", (0, 3, 4096, 0), Fail(errno.EPERM)),
        ("prlimit64", (9, 3, 0, 4096), Fail(errno.EPERM)),
    ],
)
def test_arguments_decide(name: str, arguments: tuple[int, ...], outcome: Action) -> None:
    for architecture in ARCHITECTURES.values():
        number = architecture.numbers[name]
        program = compiled(architecture)
        assert evaluate(program, number, architecture.audit_number, arguments) == outcome


def test_comparisons_look_at_both_halves_of_a_long_and_one_of_an_int() -> None:
    x86_64 = ARCHITECTURES["x86_64"]
    value = 0x1234_5678_9ABC_DEF0

    def outcome(mask: int, wanted: int, given: int) -> Action:
        rule = Rule("read", Kill(), "", (Case((Condition(5, mask, wanted),), Allow()),))
        program = seccomp.compile_filter((rule,), architecture=x86_64, pid=PID)
        return evaluate(program, 0, x86_64.audit_number, (0, 0, 0, 0, 0, given))

    assert outcome(LONG, value, value) == Allow()
    assert outcome(LONG, value, value ^ 1) == Kill()
    assert outcome(LONG, value, value ^ 1 << 63) == Kill()
    assert outcome(INT, value & INT, value ^ 1 << 63) == Allow()
    assert outcome(INT, value & INT, value ^ 1 << 31) == Kill()
    assert outcome(0xFF << 32, 0x78 << 32, value) == Allow()
    assert outcome(0xFF << 32, 0x79 << 32, value) == Kill()


def test_the_process_id_is_written_into_the_compiled_filter() -> None:
    for architecture in ARCHITECTURES.values():
        abort = architecture.numbers["tgkill"]
        for pid in (1, 2**22):
            program = seccomp.compile_filter(architecture=architecture, pid=pid)
            for called in (1, 2**22):
                outcome = evaluate(
                    program, abort, architecture.audit_number, (called, called, signal.SIGABRT)
                )
                assert outcome == (Allow() if called == pid else Kill())


def test_a_misspelt_or_repeated_call_is_refused() -> None:
    x86_64 = ARCHITECTURES["x86_64"]
    with pytest.raises(ValueError, match="raed"):
        seccomp.compile_filter((Rule("raed", Allow(), ""),), architecture=x86_64, pid=1)
    twice = (Rule("read", Allow(), ""), Rule("read", Kill(), ""))
    with pytest.raises(ValueError, match="two rules"):
        seccomp.compile_filter(twice, architecture=x86_64, pid=1)


def test_a_rule_longer_than_a_jump_is_refused() -> None:
    cases = tuple(Case((Condition(0, LONG, value),), Allow()) for value in range(60))
    with pytest.raises(ValueError, match="jump"):
        seccomp.compile_filter(
            (Rule("read", Kill(), "", cases),), architecture=host_architecture(), pid=1
        )


# --- The kernel's word --------------------------------------------------------------------------


def filtered(work: Callable[[], object]) -> Ending:
    """Run `work` in a child whose only protection is the filter."""

    def child() -> object:
        no_core_dump()
        program = seccomp.compile_filter(architecture=host_architecture(), pid=os.getpid())
        process.set_no_new_privileges()
        seccomp.load_filter(program)
        return work()

    return in_child(child)


def refusal(work: Callable[[], object]) -> int | None:
    try:
        work()
    except OSError as error:
        return error.errno
    return None


@pytest.mark.isolation
def test_python_goes_on_after_the_calls_that_answer_an_error() -> None:
    def work() -> dict[str, int | None]:
        return {
            "open": refusal(lambda: os.open("/etc/passwd", os.O_RDONLY)),
            "stat": refusal(lambda: os.stat("/etc/passwd")),
            "lstat": refusal(lambda: os.lstat("/etc/passwd")),
            "fstat": refusal(lambda: os.fstat(1)),
            "readlink": refusal(lambda: os.readlink("/proc/self/exe")),
            "getcwd": refusal(os.getcwd),
            "terminal": refusal(lambda: os.get_terminal_size(1)),
            "seek": refusal(lambda: os.lseek(1, 0, os.SEEK_CUR)),
        }

    assert filtered(work).result() == {
        **dict.fromkeys(("open", "stat", "lstat", "fstat", "readlink", "getcwd"), errno.EACCES),
        "terminal": errno.ENOTTY,
        "seek": errno.ESPIPE,
    }


@pytest.mark.isolation
def test_a_traceback_and_a_late_import_survive() -> None:
    def work() -> list[str]:
        import traceback

        try:
            import this_module_does_not_exist  # type: ignore[import-not-found]  # noqa: F401
        except ImportError as error:
            first = type(error).__name__
        try:
            raise ValueError("told")
        except ValueError:
            second = traceback.format_exc().splitlines()[-1]
        return [first, second]

    assert filtered(work).result() == ["ModuleNotFoundError", "ValueError: told"]


@pytest.mark.isolation
def test_threads_start_and_end() -> None:
    def work() -> list[int]:
        done: list[int] = []
        threads = [threading.Thread(target=done.append, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(done)

    assert filtered(work).result() == [0, 1, 2, 3]


def call(name: str, *arguments: int) -> Callable[[], object]:
    return lambda: libc.syscall(name, *arguments)


KILLING = {
    "an unlisted call": call("getppid"),
    "a socket": call("socket", 1, 1, 0),
    "a program": lambda: os.execv("/bin/true", ["true"]),
    "a process": os.fork,
    "executable memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "memory of a file": lambda: mmap.mmap(0, 0),
    "a signal to another": lambda: os.kill(os.getpid(), 0),
    "turning dumps on": call("prctl", 4, 1),
    "a descriptor's copy": lambda: os.dup(1),
    "x32": lambda: libc._syscall(0x4000_0000 + 39, 0, 0, 0, 0, 0, 0),
}


@pytest.mark.isolation
@pytest.mark.parametrize("work", KILLING.values(), ids=KILLING)
def test_forbidden_calls_end_the_process_with_sigsys(work: Callable[[], object]) -> None:
    assert filtered(work).status == -signal.SIGSYS


@pytest.mark.isolation
@pytest.mark.skipif(platform.machine() != "x86_64", reason="i386 calls exist on x86-64 only")
def test_an_i386_call_ends_the_process_with_sigsys() -> None:
    # mov eax, 20 (getpid); int 0x80; ret: the page is made executable before the filter.
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    assert filtered(ctypes.CFUNCTYPE(ctypes.c_int)(address)).status == -signal.SIGSYS


@pytest.mark.isolation
def test_the_filter_cannot_be_loaded_without_no_new_privileges_by_an_ordinary_user() -> None:
    from tests.sandbox.sandboxed import become_ordinary

    def work() -> int | None:
        become_ordinary()
        program = seccomp.compile_filter(architecture=host_architecture(), pid=1)
        return refusal(lambda: seccomp.load_filter(program))

    assert in_child(work).result() == errno.EACCES
