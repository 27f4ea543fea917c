"""Answering a request on a channel that has no worker: it is read, forgotten, and refused.

The bytes are a client's, for a model. Nothing of them is looked at but the header, by which the
next request is found.
"""

from __future__ import annotations

import asyncio
import socket

from loader_service.broker.waiting import readable, writable
from model_loader_wire.causes import Failure
from model_loader_wire.frames import (
    HEADER,
    BadFrame,
    Kind,
    pack_failure,
    pack_header,
    unpack_header,
)

PIECE_BYTES = 256 << 10
"""Forgotten at a time, before others have their turn."""


async def turn_away(end: socket.socket, failure: Failure) -> None:
    """Read one request whole, and answer it with a failure, however long its client takes.

    The socket may be a blocking one. Raises EOFError or OSError when the client has gone, BadFrame
    for bytes that are no request.
    """
    data = bytearray(HEADER.size)
    await _fill(end, memoryview(data))
    header = unpack_header(data)
    if header.kind not in (Kind.COMPUTE, Kind.RESET):
        raise BadFrame(f"a frame of kind {header.kind.name} is no request")
    left = header.table_length + header.payload_length
    scratch = memoryview(bytearray(min(left, PIECE_BYTES)))
    while left:
        piece = scratch[: min(left, len(scratch))]
        await _fill(end, piece)
        left -= len(piece)
        await asyncio.sleep(0)
    payload = pack_failure(failure)
    answer = pack_header(Kind.FAILURE, header.sequence, payload_length=len(payload)) + payload
    while answer:
        try:
            answer = answer[end.send(answer, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            await writable(end)


async def _fill(end: socket.socket, place: memoryview) -> None:
    while len(place):
        try:
            count = end.recv_into(place, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            await readable(end)
            continue
        if not count:
            raise EOFError
        place = place[count:]
