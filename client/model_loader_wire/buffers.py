"""Memory of any kind, seen as bytes."""

from __future__ import annotations

from collections.abc import Sequence

Buffer = bytes | bytearray | memoryview


def byte_view(buffer: Buffer) -> memoryview:
    """See a C-contiguous buffer of any element type as bytes."""
    view = memoryview(buffer)
    if view.format == "B" and view.ndim == 1:
        return view
    return view.cast("B") if view.nbytes else memoryview(b"")


def rest(buffers: Sequence[Buffer], gone: int) -> list[Buffer]:
    """Return what follows the first `gone` bytes of some buffers."""
    left: list[Buffer] = []
    for buffer in buffers:
        view = byte_view(buffer)
        if gone >= len(view):
            gone -= len(view)
            continue
        left.append(view[gone:])
        gone = 0
    return left
