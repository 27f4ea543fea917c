"""Only the descriptors that were asked for are left, at their numbers."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from loader_service.sandbox import descriptors, libc
from tests.sandbox.sandboxed import CHILD_REPORT, in_child


def open_descriptors() -> list[int]:
    """Without /proc, so that looking opens none."""
    found = []
    for number in range(256):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    return found


def test_everything_but_the_kept_is_closed() -> None:
    def work() -> list[int]:
        for number in (*range(20, 30), 200):
            os.dup2(0, number)
        descriptors.close_all_except({0, 2, 200, CHILD_REPORT})
        return open_descriptors()

    assert in_child(work).result() == [0, 2, 200, CHILD_REPORT]


def test_without_close_range_the_same_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *arguments: int) -> int:
        raise OSError(errno.ENOSYS, f"{name}: {arguments}")

    def work() -> list[int]:
        for number in (20, 200, 201):
            os.dup2(0, number)
        descriptors.close_all_except({0, 200, CHILD_REPORT})
        return open_descriptors()

    monkeypatch.setattr(libc, "syscall", refuse)
    assert in_child(work).result() == [0, 200, CHILD_REPORT]


def test_standard_streams_are_there_afterwards() -> None:
    def work() -> tuple[list[int], bool, str]:
        descriptors.close_all_except({0, CHILD_REPORT})
        descriptors.open_standard()
        return open_descriptors(), os.get_inheritable(2), os.readlink("/proc/self/fd/2")

    assert in_child(work).result() == [[0, 1, 2, CHILD_REPORT], True, os.devnull]


def test_a_service_may_open_as_many_as_it_can() -> None:
    def work() -> tuple[int, int]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 300))
        descriptors.allow_many()
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    assert in_child(work).result() == [300, 300]


def test_descriptors_are_placed_even_when_they_swap() -> None:
    def work() -> list[object]:
        low, high, other = 20, 21, 22
        for number in (low, high, other):
            os.dup2(os.pipe()[0], number)
        identities = {number: os.fstat(number).st_ino for number in (low, high, other)}
        descriptors.place({low: high, high: low, 150: other, CHILD_REPORT: CHILD_REPORT})
        return [
            [os.fstat(number).st_ino for number in (low, high, 150)]
            == [identities[high], identities[low], identities[other]],
            open_descriptors(),
            [os.get_inheritable(number) for number in (low, high, 150)],
        ]

    assert in_child(work).result() == [True, [20, 21, 150, CHILD_REPORT], [True] * 3]
