"""A program that uses the client library and does what a test says, a line of JSON at a time.

    python -m tests.faults.client DIRECTORY STAGE_FILE FACE ROAD

FACE is ``blocking`` or ``aio``. ROAD is ``direct``, ``relayed``, or ``offered``: direct, with
models in sealed memory; on the other two they are streamed. Each line on stdin names what to
``do``; for each there is one line on stdout: what came of it, or the error.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from termios import FIONREAD, TIOCOUTQ
from typing import Any

import numpy as np

import model_loader as ml
from model_loader._attach import AttachConnection
from model_loader._source import Source
from tests.faults.stops import Stops

STATED = {"float32": np.float32, "int32": np.int32, "uint8": np.uint8}


class Stream:
    """A file of which nobody knows the size, so that it can only be streamed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._at = 0

    def read(self, size: int) -> bytes:
        """Read on."""
        with open(self._path, "rb") as file:
            file.seek(self._at)
            piece = file.read(size)
        self._at += len(piece)
        return piece


class Program:
    """One connection, and the last model that was loaded."""

    def __init__(self, directory: str, stops: Stops, face: str, road: str) -> None:
        self._directory = directory
        self._stops = stops
        self._face: Any = ml.aio if face == "aio" else ml
        self._relay = road == "relayed"
        self._offers = road == "offered"
        self._connection: Any = None
        self._model: Any = None

    async def connect(self) -> object:
        """Open the session."""
        self._connection = await done(self._face.connect(self._directory, relay=self._relay))
        return self._connection.origin

    async def load(self, path: str) -> object:
        """Load a model; gives its worker's pid."""
        context = await done(self._face.create_context(connection=self._connection))
        source = path if self._offers else Stream(path)
        self._model = await done(self._face.MLModelLoader(context).load(source))
        return self._model.isolation.worker_pid

    async def compute(
        self, fill: float = 1, elements: int = 1, dtype: str = "float32", timeout: float = 30
    ) -> object:
        """Run the model on an array of one value; gives the first and last number of the answer."""
        x = np.full(elements, fill, STATED[dtype])
        answer = (await done(self._model.compute(x, timeout=timeout))).ravel()
        return [answer.size, float(answer[0]), float(answer[-1])]

    async def watch(self) -> object:
        """From now on stop as soon as bytes wait in the channel, for the worker or for us."""
        threading.Thread(target=self._stop_at_bytes, daemon=True).start()
        return "watching"

    async def reset(self) -> object:
        """Bring the model back to its first state."""
        await done(self._model.reset())
        return "reset"

    async def lost(self) -> object:
        """Why the model is lost."""
        lost = self._model.lost
        return None if lost is None else lost.reason

    async def close(self) -> object:
        """Close the model."""
        await done(self._model.close())
        return "closed"

    async def leave(self) -> object:
        """Close the connection."""
        await done(self._connection.close())
        self._model = None
        return "left"

    async def calls(self, count: int, seed: float = 0) -> object:
        """Run the model so many times on different numbers, which it adds 1 to."""
        x = np.zeros(1, np.float32)
        for number in range(count):
            x[0] = number + seed
            answer = self._model.compute(x)
            if (answer if self._face is ml else await answer)[0] != x[0] + 1:
                raise ValueError(f"wrong answer to call {number}")
        return count

    async def cycles(self, path: str, count: int) -> object:
        """Load, compute and close so many times."""
        for number in range(count):
            await self.load(path)
            await self.calls(1, number)
            await self.close()
        return count

    def _stop_at_bytes(self) -> None:
        channel = self._model._core.channel.socket
        while self._stops.awaited():
            if _waiting(channel, TIOCOUTQ):
                self._stops.reached("bytes wait for the worker")
            if _waiting(channel, FIONREAD):
                self._stops.reached("bytes wait for the client")


def _waiting(channel: socket.socket, which: int) -> int:
    (count,) = struct.unpack("i", ioctl(channel, which, bytes(4)))
    return int(count)


async def done(result: Any) -> Any:
    """Wait for what the asynchronous face gives."""
    return await result if inspect.isawaitable(result) else result


def stop_in_client(stops: Stops) -> None:
    """Name the client's stages."""
    stops.around(AttachConnection, "hello", before="before hello")
    chunks = Source.chunks

    def stopping(source: Source, **how: bool) -> Iterator[bytes | memoryview]:
        yield from chunks(source, **how)
        stops.reached("before the trailer")

    setattr(Source, "chunks", stopping)  # noqa: B010


async def main(arguments: list[str]) -> None:
    """Do what each line says until there is none."""
    directory, file, face, road = arguments
    stops = Stops(Path(file))
    stop_in_client(stops)
    program = Program(directory, stops, face, road)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        try:
            said: dict[str, object] = {"said": await getattr(program, order.pop("do"))(**order)}
        except ml.ModelLoaderError as error:
            said = {"error": type(error).__name__, "cause": error.cause, "text": str(error)}
        except Exception as error:
            said = {"error": f"untyped {type(error).__name__}", "cause": "", "text": str(error)}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
