"""Giving back the unused end of the heap: in a process of its own, which has nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.shared_models import REPOSITORY

PROGRAM = """
import ctypes, json
from loader_service.sandbox import heap

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
SIZE, COUNT = 64 << 10, 64
# The heap keeps what is freed.
assert library.mallopt(-1, 1 << 30)

def fill(value):
    blocks = [library.malloc(SIZE) for _ in range(COUNT)]
    for block in blocks:
        library.memset(block, value, SIZE)
    return blocks

def holds(blocks, value):
    return all(ctypes.string_at(block, SIZE) == bytes([value]) * SIZE for block in blocks)

kept = fill(1)
for block in fill(2):
    library.free(block)
before = resident()
given = heap.give_back_unused_end()
after = resident()
intact = holds(kept, 1)
again = fill(3)
print(json.dumps([given, before - after, intact, holds(kept, 1) and holds(again, 3)]))
"""


def answer(**environment: str) -> list[int]:
    """What the program says: bytes given back, bytes gone, and whether the heap is whole."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    values: list[int] = json.loads(done.stdout)
    return values


@pytest.mark.parametrize("tunables", ["", "glibc.malloc.hugetlb=1"])
def test_what_is_unused_is_given_back_and_can_be_used_again(tunables: str) -> None:
    given, gone, intact, whole = answer(GLIBC_TUNABLES=tunables)
    assert given >= 3 << 20
    assert gone >= given // 2
    assert intact
    assert whole


def test_a_heap_that_ends_elsewhere_is_left_alone() -> None:
    program = (
        "import ctypes; from loader_service.sandbox import heap\n"
        "heap._sbrk.argtypes = [ctypes.c_ssize_t]\n"
        "assert heap._sbrk(1 << 20)\n"  # as a library would that has a heap of its own
        "print(heap.give_back_unused_end())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"
