"""The stream of an upload: its header, checked, and its chunks, hashed on their way."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable

from loader_service.broker.model_bytes import Collecting, ModelBytes
from loader_service.broker.refusal import over_limit, refuse
from loader_service.broker.seat import Place
from loader_service.worker.control import MODEL_PIECE
from model_loader_wire.causes import Cause, printable
from model_loader_wire.limits import Limits
from model_loader_wire.v1 import model_loader_pb2 as pb

FORMATS = {"tflite": ("3",)}
"""Model formats and the versions of their schema."""
DEVICES = ("", "auto", "cpu", "gpu")
POWERS = ("", "auto", "high-performance", "low-power")

Parts = AsyncIterator[pb.LoadRequest]


async def read_header(parts: Parts) -> pb.LoadHeader:
    """Read the first message of an upload; raises Refusal for any other."""
    async for part in parts:
        if part.WhichOneof("part") == "header":
            return part.header
        break
    raise refuse(Cause.INVALID_INPUT, "a load begins with its header")


def check_header(header: pb.LoadHeader, limits: Limits) -> None:
    """Raise Refusal for a load that cannot be, before anything is done for it."""
    if header.model_format not in FORMATS:
        raise refuse(
            Cause.UNSUPPORTED,
            f"the format {printable(header.model_format, 64)!r} is not supported; "
            f"there is {', '.join(FORMATS)}",
        )
    if header.device_preference not in DEVICES or header.power_preference not in POWERS:
        raise refuse(Cause.INVALID_INPUT, "no such device or power preference")
    check_size(header.size, limits)


def check_size(size: int, limits: Limits) -> None:
    """Raise Refusal for a model that is too large."""
    if size > (limits.model_bytes or 0):
        raise over_limit("model_bytes", size, limits.model_bytes or 0, "the model is too large")


async def pass_on(
    worker: Place,
    header: pb.LoadHeader,
    limits: Limits,
    parts: Parts,
    count: Callable[[int], None],
    collecting: Collecting | None = None,
) -> bytes:
    """Pass the chunks on as they come; returns their SHA-256, which must be the sender's.

    `count` is told how many bytes have come, and may raise Refusal. `collecting` gets the bytes,
    too. The worker waits for the end of its model, and parses nothing of it before.
    """
    announced = header.size
    digest = hashlib.sha256()
    received = 0
    async for part in parts:
        kind = part.WhichOneof("part")
        if kind == "trailer":
            if announced and received != announced:
                raise refuse(
                    Cause.INVALID_MODEL,
                    f"the model was announced with {announced} bytes, {received} came",
                )
            if part.trailer.sha256 != digest.digest():
                raise refuse(
                    Cause.INVALID_MODEL, "the model's SHA-256 is not the one that was sent"
                )
            return digest.digest()
        if kind != "chunk":
            raise refuse(Cause.INVALID_INPUT, "a load is one header, chunks, and one trailer")
        received += len(part.chunk)
        if announced and received > announced:
            raise refuse(
                Cause.INVALID_MODEL,
                f"the model was announced with {announced} bytes, more came",
            )
        check_size(received, limits)
        count(received)
        chunk = memoryview(part.chunk)
        for start in range(0, len(chunk), MODEL_PIECE):
            piece = chunk[start : start + MODEL_PIECE]
            digest.update(piece)
            if collecting is not None:
                collecting.add(piece)
            await worker.send_model(piece)
    raise refuse(Cause.CANCELLED, "the upload ended before its trailer")


async def pass_on_held(worker: Place, content: ModelBytes) -> bytes:
    """Pass on bytes that are here already; returns their SHA-256.

    They are hashed while the kernel moves them: being sealed, they are the same to both.
    """
    hashing = asyncio.create_task(content.sha256())
    try:
        for start in range(0, content.size, MODEL_PIECE):
            await worker.send_held(content, start, min(MODEL_PIECE, content.size - start))
        return await hashing
    finally:
        hashing.cancel()
