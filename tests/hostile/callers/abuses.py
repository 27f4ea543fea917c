"""What hostile callers do. Each abuse yields what it has seen, and holds what it has until it may
go on.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from loader_service.writer import small
from model_loader_wire.v1 import attach_pb2 as attach
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.support import http2
from tests.support.http2 import Connection, Ended, Flag, Frame, message_head
from tests.support.raw_client import (
    LENGTH,
    AttachConnection,
    RawSession,
    detail_of,
    load_parts,
    message_of,
)

Report = Iterator[dict[str, Any]]
SERVICE = "/model_loader.v1.ModelLoader/"
MODEL = small.add()


def told(call: Callable[[], Any]) -> str:
    """Which limit or cause a call was refused with; "" for one that was not."""
    try:
        call()
    except grpc.RpcError as error:
        found: Any = error
        if found.code() is grpc.StatusCode.UNAVAILABLE:
            return "unavailable"
        try:
            detail = detail_of(error)
        except AssertionError:
            return str(found.code().name)
        return detail.limit or detail.cause
    return ""


def turned_away(connection: AttachConnection) -> str:
    """Which limit a connection was told, or "" if it was only closed."""
    with suppress(OSError):
        return connection.receive()[0].error.limit
    return ""


def visit(directory: Path) -> Report:
    """No abuse: load a model and leave."""
    with RawSession(directory) as session:
        # The first one waits for this user's zygote, which takes its time on a busy machine.
        while limit := told(partial(session.load, MODEL, relayed=True)):
            assert limit == "load_seconds"
    yield {}


def silence(directory: Path) -> Report:
    """Connect to the attach socket and say nothing, more often than is allowed."""
    with ExitStack() as stack:
        mine = [stack.enter_context(closing(AttachConnection(directory))) for _ in range(60)]
        for connection in mine:
            connection.socket.settimeout(http2.SECONDS)
        yield {"told": Counter(filter(None, map(turned_away, mine[20:])))}
        yield {"ended": sum(connection.is_ended() for connection in mine)}


def dribble(directory: Path) -> Report:
    """Send a greeting byte by byte, and never its last one."""
    connection = AttachConnection(directory)
    request = attach.AttachRequest(hello=attach.Hello(protocol_version=1, origin="x" * 400))
    data = request.SerializeToString()
    sent, began = 0, time.monotonic()
    with suppress(OSError):
        for byte in LENGTH.pack(len(data)) + data[:-1]:
            connection.socket.send(bytes([byte]))
            sent += 1
            time.sleep(0.05)
    yield {"sent": sent, "of": len(data), "seconds": time.monotonic() - began}


def descriptors(directory: Path) -> Report:
    """Send descriptors: before, in and after a greeting, with garbage, and as offers."""
    reading, writing = os.pipe()
    many = [reading] * 200
    hello = attach.AttachRequest(hello=attach.Hello(protocol_version=1)).SerializeToString()
    for data in (b"x", os.urandom(1000), LENGTH.pack(len(hello)), LENGTH.pack(len(hello)) + hello):
        for _ in range(20):
            with closing(AttachConnection(directory)) as connection:
                socket.send_fds(connection.socket, [data], many)
    greeted = AttachConnection(directory)
    greeted.hello()
    offer = attach.AttachRequest(offer_model=attach.OfferModel(size=1)).SerializeToString()
    ask = attach.AttachRequest(
        receive_channel=attach.ReceiveChannel(model_id="x")
    ).SerializeToString()
    causes: Counter[str] = Counter()
    for request in (offer, ask):
        for _ in range(50):
            socket.send_fds(greeted.socket, [LENGTH.pack(len(request)) + request], many)
            causes[greeted.receive()[0].error.cause] += 1
    os.close(reading)
    os.close(writing)
    # The connection is open while the test looks what the service has kept of all this.
    yield {"causes": causes}


def unread_replies(directory: Path) -> Report:
    """Ask and ask on the attach socket, and read no answer."""
    connection = AttachConnection(directory)
    connection.hello()
    ask = attach.AttachRequest(receive_channel=attach.ReceiveChannel(model_id="x" * 50_000))
    data = ask.SerializeToString()
    connection.socket.settimeout(1)
    sent = 0
    with suppress(OSError):
        for _ in range(10_000):
            connection.socket.sendall(LENGTH.pack(len(data)) + data)
            sent += 1
    yield {"sent": sent}


def unreceived_channels(directory: Path) -> Report:
    """Load models and never take their channels."""
    with ExitStack() as stack, ThreadPoolExecutor(12) as pool:
        names = (f"origin {number % 4}" for number in range(12))
        sessions = [stack.enter_context(RawSession(directory, name)) for name in names]
        # All at once: one after the other, the first might be gone before the last is asked for.
        calls = [pool.submit(told, partial(session.load, MODEL)) for session in sessions]
        yield {"told": Counter(call.result() for call in calls)}


def slow_uploads(directory: Path) -> Report:
    """Upload one byte at a time, and stop in the middle."""
    session = RawSession(directory)
    over = threading.Event()

    def trickle() -> Iterator[pb.LoadRequest]:
        yield pb.LoadRequest(header=pb.LoadHeader(size=len(MODEL), model_format="tflite"))
        for byte in MODEL:
            yield pb.LoadRequest(chunk=bytes([byte]))
            if over.wait(0.1):
                return

    def stop() -> Iterator[pb.LoadRequest]:
        yield pb.LoadRequest(header=pb.LoadHeader(size=len(MODEL), model_format="tflite"))
        yield pb.LoadRequest(chunk=MODEL[: len(MODEL) // 2])
        over.wait(http2.SECONDS)

    def nothing() -> Iterator[pb.LoadRequest]:
        over.wait(http2.SECONDS)
        yield from ()

    with ThreadPoolExecutor(16) as pool:
        calls = [
            pool.submit(told, partial(session.send_load, parts()))
            for parts in (trickle, stop, nothing)
            for _ in range(4)
        ]
        yield {"under way": sum(not call.done() for call in calls)}
        found = Counter(call.result() for call in calls)
        over.set()
        yield {"told": found}


def sessions(directory: Path) -> Report:
    """Open sessions on streams, and watch health, more often than is allowed."""
    session = RawSession(directory)
    streams = [
        session.stub.OpenSession(pb.OpenSessionRequest(protocol_version=1, origin=str(number)))
        for number in range(60)
    ]
    yield {"told": Counter(told(partial(next, stream)) for stream in streams)}


def messages(directory: Path) -> Report:
    """Send messages that are too long: for gRPC, for a load, for a model's input."""
    session = RawSession(directory)
    model_id = session.load(MODEL, relayed=True).model_id
    refusals = []
    for size in (3 << 20, 32 << 20):
        tensor = pb.Tensor(dimensions=[size // 4], data=bytes(size))
        request = pb.ComputeRequest(model_id=model_id, inputs=[tensor])
        refusals.append(told(partial(session.call, "Compute", request)))
        refusals.append(told(partial(session.call, "ListModels", request)))
        refusals.append(told(partial(session.load, bytes(size))))
        parts = [*load_parts(MODEL), pb.LoadRequest(chunk=bytes(size))]
        refusals.append(told(partial(session.send_load, iter(parts))))
    answer = session.compute(model_id, np.array([1], np.float32))
    yield {"told": refusals, "still answers": len(answer.outputs)}


def half_messages(directory: Path) -> Report:
    """Begin many large messages, and send all but the end of each."""
    session = RawSession(directory)
    path = session.welcome.grpc_path
    size = 16 << 20
    outcomes: Counter[str] = Counter()

    def send(number: int) -> None:
        method = SERVICE + ("Compute", "ListModels", "Load", "Inspect")[number % 4]
        token = ("model-loader-session", session.welcome.session.token.hex())
        try:
            with Connection(path) as connection:
                stream = connection.request(method, token)
                connection.data(stream, message_head(size) + bytes(size - 1))
                last = connection.until_stream_ends(stream)
                names = ("broker_memory_bytes", "message_seconds", "load_seconds")
                outcomes[next((name for name in names if name.encode() in last), "other")] += 1
        except (Ended, TimeoutError):
            outcomes["ended"] += 1

    with ThreadPoolExecutor(24) as pool:
        calls = [pool.submit(send, number) for number in range(24)]
        yield {}
        for call in calls:
            call.result()
        yield {"outcomes": outcomes}


def metadata(directory: Path) -> Report:
    """Send metadata of megabytes: in one block, in many fields, and without an end."""
    session = RawSession(directory)
    path = session.welcome.grpc_path
    refusals = []
    for fields in ((("x", "y" * (4 << 20)),), tuple((f"x{n}", "y" * 1000) for n in range(100))):
        refusals.append(
            told(
                partial(
                    session.stub.ListModels,
                    pb.ListModelsRequest(),
                    metadata=(*session.metadata, *fields),
                    timeout=http2.SECONDS,
                )
            )
        )
    with Connection(path) as connection, suppress(Ended):
        stream = connection.request(SERVICE + "ListModels", end=False)
        field = http2.headers("/", ("x", "y" * 10_000))[-10_008:]
        for _ in range(10_000):
            connection.send(Frame.CONTINUATION, Flag.NONE, stream, field)
    yield {"told": refusals, "models": len(session.models())}


def listen(connection: Connection, words: list[str]) -> None:
    """Receive until a connection is ended, and note what the server said about that."""
    words.append(connection.until_ended())


def floods(directory: Path) -> Report:
    """Send frames that cost the sender nothing: pings, settings, calls that are taken back."""
    session = RawSession(directory)
    path = session.welcome.grpc_path
    kinds: dict[str, Callable[[Connection], None]] = {
        "pings": lambda c: c.send(Frame.PING, payload=b"12345678"),
        "settings": lambda c: c.send(Frame.SETTINGS),
        "resets": lambda c: c.send(
            Frame.RST_STREAM, stream=c.request(SERVICE + "ListModels"), payload=bytes(4)
        ),
    }
    said: dict[str, Any] = {}
    for name, flood in kinds.items():
        sent, ended, end = 0, False, time.monotonic() + 3
        with Connection(path) as connection:
            # What comes back is read, as a client would: a full buffer must not be what stops it.
            words: list[str] = []
            reader = threading.Thread(target=listen, args=(connection, words))
            reader.start()
            try:
                while time.monotonic() < end:
                    flood(connection)
                    sent += 1
            except (Ended, OSError):
                ended = True
            reader.join(1)
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
            reader.join()
            said[name] = [sent, ended, *words]
    yield said


def idle_connections(directory: Path) -> Report:
    """Hold connections to the gRPC socket: silent ones, and such as have greeted and do nothing."""
    with RawSession(directory) as session:
        path = session.welcome.grpc_path
    with ExitStack() as stack:
        silent = [stack.enter_context(Connection(path, greet=False)) for _ in range(60)]
        yield {}
        yield {"silent ended": sum(bool(connection.until_ended() == "") for connection in silent)}
        greeted = []
        for _ in range(60):
            with suppress(Ended, OSError):
                greeted.append(stack.enter_context(Connection(path)))
        held = 0
        for connection in greeted:
            connection.socket.settimeout(0.5)
            try:
                connection.until_ended()
            except TimeoutError:
                held += 1
        yield {"held": held}


def unread_answers(directory: Path) -> Report:
    """Ask for large answers, and take none of them."""
    session = RawSession(directory)
    megabyte = small.broadcast(250_000)
    model_id = session.load(megabyte, relayed=True).model_id
    state = session.call("GetModel", pb.GetModelRequest(model_id=model_id))
    assert not state.lost
    inputs = [message_of(np.ones(1, np.float32))]
    request = pb.ComputeRequest(model_id=model_id, inputs=inputs).SerializeToString()
    token = ("model-loader-session", session.welcome.session.token.hex())
    outcomes: Counter[str] = Counter()
    with ExitStack() as stack:
        begun = []
        for _ in range(20):
            connection = stack.enter_context(Connection(session.welcome.grpc_path))
            stream = connection.request(SERVICE + "Compute", token)
            connection.send(
                Frame.DATA, Flag.END_STREAM, stream, message_head(len(request)) + request
            )
            begun.append((connection, stream))
        yield {}
        for _ in range(2):  # a refusal may be late on a busy machine
            held = []
            for connection, stream in begun:
                # No WINDOW_UPDATE is ever sent: 64 KiB of the answer come, and no more.
                connection.socket.settimeout(1)
                try:
                    last = connection.until_stream_ends(stream)
                except TimeoutError:
                    held.append((connection, stream))
                else:
                    outcomes["bytes_in_flight" if b"bytes_in_flight" in last else "other"] += 1
            begun = held
        yield {"outcomes": {**outcomes, "held": len(held)}}
