"""The number tables, against what is known of them and against this machine's own headers."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from loader_service.sandbox import policy
from loader_service.sandbox.syscall_tables import (
    AARCH64,
    ARCHITECTURES,
    X86_64,
    UnsupportedArchitectureError,
    host_architecture,
)

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


@pytest.mark.parametrize("numbers", [X86_64, AARCH64], ids=["x86_64", "aarch64"])
def test_no_number_has_two_names(numbers: dict[str, int]) -> None:
    assert len(set(numbers.values())) == len(numbers)


def test_known_numbers() -> None:
    names = ("read", "mmap", "clone", "futex", "exit_group", "seccomp", "clone3", "listns")
    assert [X86_64[name] for name in names] == [0, 9, 56, 202, 231, 317, 435, 470]
    assert [AARCH64[name] for name in names] == [63, 222, 220, 98, 94, 277, 435, 470]


def test_newer_numbers_are_the_same_everywhere() -> None:
    assert {n: v for n, v in X86_64.items() if 424 <= v < 500} == {
        n: v for n, v in AARCH64.items() if 424 <= v < 500
    }


@pytest.mark.skipif(not HEADER.exists(), reason="no x86-64 kernel headers are installed")
def test_the_table_agrees_with_the_installed_headers() -> None:
    defined = re.findall(r"^#define __NR_(\w+) (\d+)$", HEADER.read_text(), re.MULTILINE)
    assert len(defined) > 300
    shared = {name: int(number) for name, number in defined if int(number) <= X86_64["listns"]}
    assert {name: X86_64.get(name) for name in shared} == shared


def test_a_number_is_named() -> None:
    x86_64 = ARCHITECTURES["x86_64"]
    assert x86_64.name_of(59) == "execve"
    assert x86_64.name_of(9999) == "system call 9999"


def test_every_rule_is_for_a_call_of_this_machine_or_another() -> None:
    for rule in policy.WORKER_SYSTEM_CALLS:
        assert rule.name in X86_64 or rule.name in AARCH64


def test_an_unknown_machine_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    host_architecture.cache_clear()
    try:
        with pytest.raises(UnsupportedArchitectureError, match="riscv64"):
            host_architecture()
    finally:
        host_architecture.cache_clear()
