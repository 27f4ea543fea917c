"""Memory of any kind, seen as bytes."""

from __future__ import annotations

import pytest

from model_loader_wire.buffers import Buffer, byte_view, rest


def test_byte_view_of_any_buffer() -> None:
    assert bytes(byte_view(b"abc")) == b"abc"
    assert byte_view(memoryview(b"abcd").cast("I")).nbytes == 4
    assert len(byte_view(memoryview(bytearray(8)).cast("I")[2:])) == 0


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        (0, [b"abcd", b"efghijkl", b"m"]),
        (2, [b"cd", b"efghijkl", b"m"]),
        (4, [b"efghijkl", b"m"]),
        (7, [b"hijkl", b"m"]),
        (13, []),
    ],
)
def test_the_rest_of_some_buffers(gone: int, left: list[bytes]) -> None:
    buffers: list[Buffer] = [b"abcd", memoryview(b"efghijkl").cast("I"), b"", b"m"]
    assert [bytes(view) for view in rest(buffers, gone)] == left
