"""A hostile program: one kind of misuse after another, until it is killed.

    python -m tests.soak.hostile DIRECTORY ORIGIN KIND SEED UID

What it meets are errors of the library's own kinds, and nothing else: any other exception ends it
with status 1.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np

import model_loader as ml
from loader_service.writer import costly, hostile, small
from model_loader_wire.limits import Limits
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.support.raw_client import AttachConnection, RawSession, load_parts

Loader = ml.MLModelLoader
LONGEST_WAIT = 30.0


def mutants(loader: Loader, chance: random.Random) -> None:
    """Load and run a model with some bytes changed or its end missing."""
    data = bytearray(chance.choice((small.add(), small.dynamic_batch(), small.two_signatures())))
    for _ in range(chance.randint(1, 16)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    if chance.random() < 0.2:
        del data[chance.randrange(1, len(data)) :]
    with loader.load(bytes(data)) as model:
        shapes = [tuple(n or 1 for n in info.dimensions or ()) for info in model.inputs()]
        given = {
            info.name: np.ones(shape, info.data_type)
            for info, shape in zip(model.inputs(), shapes, strict=True)
        }
        model.compute(given)


def crashes(loader: Loader, chance: random.Random) -> None:
    """Let a worker die of an arithmetic fault, or at its load."""
    if chance.random() < 0.5:
        # Each differs, so that the guard against crash loops lets them through.
        data = hostile.division_fault() + chance.randbytes(8)
        with loader.load(data) as model:
            model.compute(np.array([-(2**31)], np.int32))
    else:
        loader.load(hostile.abort_at_load() + chance.randbytes(8)).close()


def hogs(loader: Loader, chance: random.Random) -> None:
    """Ask for more memory than there may be."""
    with loader.load(costly.memory_hog_on_demand()) as model:
        model.compute(np.array([chance.randint(200, 2000)], np.int32))


def spinners(loader: Loader, chance: random.Random) -> None:
    """Compute until the deadline."""
    with loader.load(costly.work()) as model:
        model.compute(np.array([10**9], np.int32), timeout=chance.uniform(0.2, 1.5))


def garbage_on_channel(loader: Loader, chance: random.Random) -> None:
    """Send a worker what is no request, or half of one."""
    with loader.load(small.add()) as model:
        channel = model._core.channel.socket
        channel.sendall(chance.randbytes(chance.choice((10, 48, 5000))))
        channel.settimeout(1)
        channel.recv(100)


def killed(loader: Loader, chance: random.Random) -> None:
    """Die in the middle of a call (a copy of this process does)."""
    model = loader.load(costly.work())
    del model
    os.kill(os.getpid(), 9)


def attach_garbage(directory: str, chance: random.Random) -> None:
    """Say nothing, half a message, or nonsense on the attach socket, on many connections."""
    held = []
    try:
        for _ in range(chance.randint(1, 300)):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(2)
            connection.connect(f"{directory}/attach.sock")
            held.append(connection)
            what = chance.randrange(4)
            if what == 0:
                connection.send(chance.randbytes(chance.randint(1, 100)))
            elif what == 1:
                connection.send(struct.pack("<I", chance.choice((10, 65536, 2**32 - 1))))
            elif what == 2:
                socket.send_fds(connection, [b"\0\0\0\0"], [0, 1, 2])
    finally:
        for connection in held:
            connection.close()


def floods(directory: str, chance: random.Random) -> None:
    """Begin many sessions and loads that never come to an end."""
    sessions = [RawSession(Path(directory), "flood") for _ in range(chance.randint(1, 20))]
    begun: list[Any] = []
    try:
        for session in sessions:
            for _ in range(chance.randint(1, 5)):
                parts = iter(list(load_parts(small.add()))[: chance.randint(1, 2)])
                begun.append(session.stub.Load.future(parts, metadata=session.metadata))
            session.call("ListModels", pb.ListModelsRequest())
        time.sleep(chance.uniform(0, 0.5))
    finally:
        for load in begun:
            load.cancel()
        for session in sessions:
            session.close()


def half_attached(directory: str, chance: random.Random) -> None:
    """Load models and never take their channels."""
    with RawSession(Path(directory), "half") as session:
        for _ in range(chance.randint(1, 10)):
            session.load(small.add())
        # One more attach connection that goes in the middle of a request.
        attach = AttachConnection(Path(directory))
        attach.socket.send(b"\x05")
        attach.close()


WITH_LIBRARY: dict[str, Callable[[Loader, random.Random], None]] = {
    function.__name__: function
    for function in (mutants, crashes, hogs, spinners, garbage_on_channel, killed)
}
RAW: dict[str, Callable[[str, random.Random], None]] = {
    function.__name__: function for function in (attach_garbage, floods, half_attached)
}
KINDS = (*WITH_LIBRARY, *RAW)
LIMITS = Limits(memory_bytes=256 << 20, load_seconds=5, compute_seconds=3)
EXPECTED = (ml.ModelLoaderError, OSError, grpc.RpcError, TypeError)
"""TypeError: what a mutant says of its inputs may be no type that NumPy has."""


def become(uid: int) -> None:
    """Be that user from now on; everything that is needed has been imported."""
    if uid != os.geteuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def main(arguments: list[str]) -> int:
    """Misuse the service until killed."""
    directory, origin, kind, seed, uid = arguments
    chance = random.Random(int(seed))
    become(int(uid))
    if kind in RAW:
        while True:
            try:
                RAW[kind](directory, chance)
            except EXPECTED:
                continue
    while True:
        try:
            with ml.connect(directory, origin=origin) as connection:
                context = ml.create_context(connection=connection, limits=LIMITS)
                for _ in range(20):
                    try:
                        WITH_LIBRARY[kind](ml.MLModelLoader(context), chance)
                    except EXPECTED:
                        continue
        except EXPECTED:
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
