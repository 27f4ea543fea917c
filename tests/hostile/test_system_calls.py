"""Every system call number in a real worker: the kernel's outcome is the policy table's.

Calls that the table kills for cost a worker each; the whole sweep is slow, a sample is not. What
the table allows is made with arguments that do nothing, and the kernel's own answer to them shows
that the call came through.
"""

from __future__ import annotations

import errno
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import model_loader as ml
from loader_service.sandbox import policy
from loader_service.sandbox.policy import Action, Allow, Fail, Kill, OwnProcess, Rule
from loader_service.sandbox.syscall_tables import host_architecture
from tests.hostile.probes import Probe, ProbeService

pytestmark = [
    pytest.mark.isolation,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64"),
]

NUMBERS = range(600)
"""Linux 6.18 has numbers up to 470, and x32's own from 512 to 547."""
BEYOND = (0x3FFF_FFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)
"""Numbers that no table has; the last is -1, which the kernel treats as its own."""
X32_BIT = 0x4000_0000
PID = 1
"""A worker is process 1 of its pid namespace."""
RULES = {rule.name: rule for rule in policy.WORKER_SYSTEM_CALLS}
NAMES = {number: name for name, number in host_architecture().numbers.items()}
AT_A_TIME = 4
SAMPLE = 32
"""The fast run tries each so-many-th number that kills."""

OWN, BAD = (1 << 64) - 1, 1 << 62
"""An impossible descriptor; an impossible address."""
HARMLESS: dict[str, tuple[tuple[int, ...], int]] = {
    "futex": ((0, 0, 0, 0), -errno.EFAULT),
    "recvfrom": ((OWN, 0, 0, 0, 0, 0), -errno.EBADF),
    "sendto": ((OWN, 0, 0, 0, 0, 0), -errno.EBADF),
    "writev": ((OWN, 0, 0), -errno.EBADF),
    "read": ((OWN, 0, 0), -errno.EBADF),
    "write": ((OWN, 0, 0), -errno.EBADF),
    "readv": ((OWN, 0, 0), -errno.EBADF),
    "poll": ((0, 0, 0), 0),
    "ppoll": ((0, 0, BAD, 0, 0), -errno.EFAULT),
    "close": ((OWN,), -errno.EBADF),
    "sched_yield": ((), 0),
    "clock_gettime": ((99, 0), -errno.EINVAL),
    "gettimeofday": ((BAD, 0), -errno.EFAULT),
    "clock_nanosleep": ((99, 0, 0, 0), -errno.EINVAL),
    "nanosleep": ((BAD, 0), -errno.EFAULT),
    "restart_syscall": ((), -errno.EINTR),
    "mmap": ((0, 0, 3, 0x22, OWN, 0), -errno.EINVAL),
    "munmap": ((1, 0), -errno.EINVAL),
    "mremap": ((1, 0, 0, 0, 0), -errno.EINVAL),
    "madvise": ((0, 4096, 4), -errno.ENOMEM),
    "mprotect": ((1, 4096, 1), -errno.EINVAL),
    "rseq": ((1, 0, 99, 0), -errno.EINVAL),
    "set_robust_list": ((0, 1), -errno.EINVAL),
    "rt_sigprocmask": ((99, 0, 0, 1), -errno.EINVAL),
    "rt_sigaction": ((99, 0, 0, 8), -errno.EINVAL),
    "sched_getaffinity": ((0, 0, 0), -errno.EINVAL),
    "prctl": ((15, BAD), -errno.EFAULT),
    "getpid": ((), PID),
    "gettid": ((), PID),
    "getuid": ((), policy.INSIDE_UID),
    "getrandom": ((BAD, 8, 0), -errno.EFAULT),
    "prlimit64": ((0, 99, 0, 0), -errno.EINVAL),
}
"""What the policy allows, with arguments that do nothing, and what Linux answers to them."""
FATAL = {
    "exit": ((0,), "crashed"),
    "exit_group": ((0,), "crashed"),
    "tgkill": ((PID, PID, 6), "crashed"),
    "rt_sigreturn": ((), "crashed"),
}
"""What the policy allows and no worker survives."""
THREAD = "clone"
"""Allowed for a thread only: ``test_exhaustion`` starts threads."""
BREAK = "brk"
"""Its answer is an address."""


PASSED_OVER = {335: "crashed", 336: f"returned {-errno.ENXIO}"}
"""uretprobe and uprobe, the traps that the kernel itself plants with perf's probes: newer kernels
run no seccomp filter on them (seccomp_uprobe_exception in kernel/seccomp.c). They do nothing for
anybody who comes from elsewhere: SIGILL for the first, ENXIO for the second."""


def expected(name: str | None, arguments: tuple[int, ...]) -> Action:
    """What the table says of a call, by the words in ``policy``."""
    rule: Rule | None = RULES.get(name) if name else None
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


def killed_with_zeros() -> list[int]:
    """The numbers for which the table kills when every argument is zero."""
    return [n for n in NUMBERS if isinstance(expected(NAMES.get(n), ()), Kill)]


def wrong(service: ProbeService, attack: str, numbers: list[int]) -> dict[int, str]:
    """Make each call in a worker of its own; returns those that did not end it with SIGSYS."""

    def outcome(number: int) -> str:
        with service.probe() as probe:
            try:
                if attack == "gate":
                    return f"returned {probe.ask('calls.through_gate', number=number)}"
                return f"returned {probe.call(number)}"
            except ml.ModelLoaderError as error:
                lost = probe.model.lost
                return lost.reason if lost else repr(error)

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        outcomes = zip(numbers, pool.map(outcome, numbers), strict=True)
        return {
            number: what
            for number, what in outcomes
            if what != "policy-violation" and (attack == "gate" or what != PASSED_OVER.get(number))
        }


def test_every_rule_of_the_policy_is_tried() -> None:
    allowed = {
        rule.name
        for rule in policy.WORKER_SYSTEM_CALLS
        if isinstance(rule.otherwise, Allow)
        or any(isinstance(case.action, Allow) for case in rule.cases)
    }
    assert allowed == {*HARMLESS, *FATAL, THREAD, BREAK}
    for name, (arguments, _) in HARMLESS.items():
        assert expected(name, arguments) == Allow(), name
    for name, (fatal, _) in FATAL.items():
        assert expected(name, fatal) == Allow(), name


def test_what_the_policy_allows_reaches_the_kernel(probe: Probe) -> None:
    outcomes = {name: probe.call(name, *arguments) for name, (arguments, _) in HARMLESS.items()}
    assert outcomes == {name: result for name, (_, result) in HARMLESS.items()}
    assert probe.call(BREAK, 0) > 1 << 20


@pytest.mark.parametrize("name", FATAL)
def test_an_end_that_the_policy_allows_is_no_violation(service: ProbeService, name: str) -> None:
    arguments, reason = FATAL[name]
    with service.probe() as probe:
        _, lost = probe.loss("calls.make", calls=[[name, *arguments]])
    assert lost == reason


def test_what_the_policy_fails_returns_its_error_and_the_worker_goes_on(probe: Probe) -> None:
    failing: dict[str, int] = {}
    for name in RULES:
        action = expected(name, (0,) * 6)
        if isinstance(action, Fail):
            failing[name] = -action.error
    assert len(failing) > 15
    assert {name: probe.call(name) for name in failing} == failing


def test_conditions_hold_for_the_whole_argument(probe: Probe) -> None:
    """Upper halves, and values beside the allowed ones."""
    calls = {
        ("futex", 0, 9 | 128 | 256, 0, 0): -errno.EINVAL,
        ("futex", 0, 6, 0, 0): -errno.ENOSYS,
        ("madvise", 0, 4096, 21): -errno.EINVAL,
        ("madvise", 0, 4096, (1 << 32) | 4): -errno.ENOMEM,
        ("sched_getaffinity", 2, 8, 0): -errno.EPERM,
        ("prctl", 0x53564D41, 0, 0, 0, 0): -errno.EINVAL,
        ("prlimit64", 0, 7, 4096, 0): -errno.EPERM,
        ("prlimit64", 2, 7, 0, 0): -errno.EPERM,
        ("prlimit64", 0, 7, 1 << 32, 0): -errno.EPERM,
        ("clone3", 0, 0): -errno.ENOSYS,
    }
    assert {call: probe.call(*call) for call in calls} == calls


BESIDE = (
    ("recvfrom", 4, 0, 0, 0x40, 8, 0),
    ("recvfrom", 4, 0, 0, 0x40, 1 << 32, 0),
    ("sendto", 4, 0, 0, 0x40, 8, 0),
    ("mmap", 0, 4096, 7, 0x22, -1, 0),
    ("mmap", 0, 4096, 4, 0x22, -1, 0),
    ("mmap", 0, 4096, 3, 0x02, 3, 0),
    ("mprotect", 0, 4096, 4),
    ("clone", policy.THREAD_FLAGS & ~0x0001_0000, 0, 0, 0, 0),
    ("clone", policy.THREAD_FLAGS | 0x1000_0000, 0, 0, 0, 0),
    ("clone", policy.THREAD_FLAGS | 1 << 32, 0, 0, 0, 0),
    ("clone", 17, 0, 0, 0, 0),
    ("tgkill", 1, 1, 9),
    ("tgkill", 2, 2, 6),
    ("tgkill", 1 << 32, 1, 6),
    ("prctl", 4, 1),
    ("prctl", (1 << 32) | 4, 1),
)
"""Arguments that the conditions must not let through."""


@pytest.mark.parametrize("call", BESIDE, ids=lambda call: f"{call[0]}-{BESIDE.index(call)}")
def test_arguments_beside_the_allowed_ones_kill(
    service: ProbeService, call: tuple[str | int, ...]
) -> None:
    assert isinstance(expected(str(call[0]), tuple(int(part) for part in call[1:])), Kill)
    with service.probe() as probe:
        assert probe.is_killed_for(*call)


def test_a_sample_of_the_numbers_that_kill(service: ProbeService) -> None:
    numbers = killed_with_zeros()[::SAMPLE]
    assert len(numbers) > 12
    assert wrong(service, "call", [*numbers, *BEYOND]) == {}


def test_a_sample_of_the_x32_numbers(service: ProbeService) -> None:
    numbers = [0, 1, 2, 39, 59, 512, 520, 545]
    assert wrong(service, "call", [X32_BIT | number for number in numbers]) == {}


def gate_is_there() -> bool:
    """Whether this kernel takes system calls of 32-bit programs, in a process without a sandbox."""
    code = (
        "from tests.hostile.attacks import calls; import os; calls.map_gate()\n"
        "raise SystemExit(calls.through_gate(20) != os.getpid())"
    )
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_sample_of_the_i386_gate(service: ProbeService) -> None:
    if not gate_is_there():
        pytest.skip("this kernel has no gate for 32-bit programs")
    assert wrong(service, "gate", [1, 3, 4, 5, 11, 20, 120, 0x7FFF]) == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_number_that_kills(service: ProbeService) -> None:
    numbers = killed_with_zeros()
    assert len(numbers) > 500
    assert wrong(service, "call", numbers) == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_x32_number(service: ProbeService) -> None:
    assert wrong(service, "call", [X32_BIT | number for number in NUMBERS]) == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_number_through_the_i386_gate(service: ProbeService) -> None:
    if not gate_is_there():
        pytest.skip("this kernel has no gate for 32-bit programs")
    assert wrong(service, "gate", list(NUMBERS)) == {}
