"""Reading whatever a worker's address space holds: secrets of its ancestors."""

from __future__ import annotations

import ctypes
import re

from tests.hostile.attacks.calls import call

MARK = re.compile(rb"\x9eprobe-secret:([0-9a-f]{32})")
"""A secret in memory: the search need not know what it looks for, and does not contain it."""
_PIECE = 1 << 20
_PAGE = 4096
_known: list[tuple[int, int]] = []
_held: list[bytearray] = []


def secret_of(text: str) -> bytearray:
    """Make a secret that `find_secrets` would find."""
    return bytearray(b"\x9eprobe-" + b"secret:" + text.encode())


def hold(text: str) -> bool:
    """Keep a secret in this worker's heap."""
    _held.append(secret_of(text))
    return True


def learn_mappings() -> None:
    """Note where memory is, while /proc can be read: all forks share the zygote's layout."""
    with open("/proc/self/maps", encoding="ascii") as maps:
        for line in maps:
            span, flags = line.split()[:2]
            low, high = (int(end, 16) for end in span.split("-"))
            if "r" in flags and not line.rstrip().endswith(("[vvar]", "[vsyscall]")):
                # What lies beside a mapping may be where it grew. Not page 0: a call's null.
                _known.append((max(_PAGE, low - (4 << 20)), high + (64 << 20)))


def find_secrets() -> list[str]:
    """Return every secret in the readable memory of this process."""
    found: set[str] = set()
    for low, high in _merged():
        address = low
        run_start = address
        while address < high:
            if _readable(address):
                address += _PAGE
                continue
            found |= _search(run_start, address)
            address += _PAGE
            run_start = address
        found |= _search(run_start, address)
    return sorted(found)


def _merged() -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(_known):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _readable(address: int) -> bool:
    """Ask the kernel, which answers EFAULT instead of ending the process.

    With an impossible `how` rt_sigprocmask reads the set and then changes nothing (EINVAL).
    """
    return call("rt_sigprocmask", 99, address, 0, 8) != -14


def _search(low: int, high: int) -> set[str]:
    found: set[str] = set()
    for start in range(low, high, _PIECE):
        size = min(_PIECE + 64, high - start)
        view = (ctypes.c_char * size).from_address(start)
        found |= {match.group(1).decode() for match in MARK.finditer(view)}
    return found
