"""Caller to broker: hostile bytes, and descriptors that nobody wants, on the attach socket.

Each connection says its part, stops sending, and must be answered and closed by the service; or it
falls silent, and is closed when its time for the greeting has passed.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from time import monotonic

from model_loader_wire.causes import Cause
from model_loader_wire.v1 import attach_pb2 as attach
from tests.fuzz.campaign import Table, numbered
from tests.fuzz.wire.damage import TEXTS, damaged, number
from tests.fuzz.wire.healthy import Healthy
from tests.fuzz.wire.memories import GOOD, KINDS, descriptor_of
from tests.fuzz.wire.offering import offered
from tests.fuzz.wire.silent import Silent
from tests.support.raw_client import AttachConnection, RawSession

HANG_SECONDS = 15.0
SEND_SECONDS = 0.5
HANDSHAKE_SECONDS = 2.0
SILENT_AT_A_TIME = 30
LOOK_EVERY = 100
LENGTH = struct.Struct("<I")
OFFERED = b"no model, but as good as one here"


def attaching(seed: int, count: int, seconds: float | None = None) -> Table:
    """Make so many connections."""
    table = Table("Attach socket, caller to broker")
    began = monotonic()
    silent = Silent(table, HANDSHAKE_SECONDS, SILENT_AT_A_TIME)
    with Healthy(table, handshake_seconds=HANDSHAKE_SECONDS) as healthy:
        directory = healthy.service.directory
        _greet(table, directory, "at the beginning")
        healthy.begin()
        for item in numbered(count, seconds):
            random = Random(f"attaching {seed} {item}")
            try:
                connection, outcome = _one(directory, random)
                if connection is not None:
                    silent.keep(item, connection)
            except Exception as error:
                outcome = "a fault"
                table.find(f"{item}: {type(error).__name__}: {error}")
            table.count(outcome)
            silent.look()
            if item % LOOK_EVERY == 0:
                healthy.look(f"connection {item}")
                _greet(table, directory, f"connection {item}")
        silent.see_all_closed()
        healthy.settle([])
    table.seconds = monotonic() - began
    return table


def _greet(table: Table, directory: Path, when: str) -> None:
    """Be an honest client."""
    try:
        with RawSession(directory, "honest") as session:
            if not session.models():
                table.find(f"{when}: an honest client does not see its principal's model")
    except Exception as error:
        table.find(f"{when}: an honest client gets {type(error).__name__}: {error}")
    key = "honest clients served"
    table.facts[key] = table.facts.get(key, 0) + 1


def _one(directory: Path, random: Random) -> tuple[socket.socket | None, str]:
    """Make one connection; returns it if it fell silent, and how it ended."""
    if random.random() < 0.3:
        return None, _offer(directory, random)
    connection = AttachConnection(directory).socket
    connection.settimeout(HANG_SECONDS)
    keep = False
    try:
        if random.random() < 0.01:
            hello = _message(random, "hello")
            socket.send_fds(connection, [hello[: random.randrange(1, 5)]], [])
            keep = True
            return connection, "fell silent"
        connection.settimeout(SEND_SECONDS)
        # A client that reads no reply is not read either, at some time; one may have hung up.
        with suppress(ConnectionError, TimeoutError):
            for data in _conversation(random):
                with _descriptors(random) as given:
                    socket.send_fds(connection, [data], given)
        connection.settimeout(HANG_SECONDS)
        if random.random() < 0.05:
            return None, "left at once"
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        return None, _ending(connection)
    finally:
        if not keep:
            connection.close()


def _offer(directory: Path, random: Random) -> str:
    """Open a session, and offer one descriptor; returns its kind and what was said of it."""
    connection = AttachConnection(directory)
    try:
        assert connection.hello("fuzz").WhichOneof("reply") == "welcome"
        kind, size, reply = offered(connection, OFFERED, random)
        if kind in GOOD and size == len(OFFERED):
            assert reply.WhichOneof("reply") == "offered", f"{kind}: {reply}"
            assert len(reply.offered.offer) == 16
            return f"offered: {kind}"
        what = "of another size" if kind in GOOD else kind
        assert reply.error.cause == Cause.INVALID_INPUT, f"{what}: {reply}"
        # The session goes on.
        again = connection.ask(attach.AttachRequest(offer_model=attach.OfferModel(size=1)))
        assert "one descriptor" in again.error.message, again
        return f"an offer refused: {what}"
    finally:
        connection.close()


@contextmanager
def _descriptors(random: Random) -> Iterator[list[int]]:
    """Make what an offer needs, or none, one, or too many of all kinds."""
    if random.random() < 0.4:
        with descriptor_of("sealed", OFFERED, random) as descriptor:
            yield [descriptor]
        return
    count = random.choice((0, 0, 0, 1, 1, 1, 2, 3, 40, 253))
    with ExitStack() as stack:
        some = [
            stack.enter_context(descriptor_of(random.choice([*KINDS]), OFFERED, random))
            for _ in range(min(count, 3))
        ]
        yield [random.choice(some) for _ in range(count)]


def _ending(connection: socket.socket) -> str:
    """Read all replies until the service closes the connection; returns the last one's kind."""
    data, last = b"", "no answer"
    while True:
        try:
            piece, found, _, _ = socket.recv_fds(connection, 1 << 16, 8)
        except ConnectionError:
            break
        for descriptor in found:
            os.close(descriptor)
        assert not found, "a descriptor came that nobody asked for"
        if not piece:
            break
        data += piece
    while data:
        (length,) = LENGTH.unpack_from(data)
        assert len(data) >= LENGTH.size + length, "half a reply came"
        reply = attach.AttachReply.FromString(data[LENGTH.size : LENGTH.size + length])
        data = data[LENGTH.size + length :]
        kind = reply.WhichOneof("reply")
        assert kind in ("welcome", "error", "offered"), kind
        if kind == "error":
            cause = Cause(reply.error.cause)
            assert cause is not Cause.INTERNAL, reply.error.message
            assert all(letter.isprintable() or letter in "\n\t" for letter in reply.error.message)
            last = f"refused: {cause}"
        else:
            last = str(kind)
    return last


def _conversation(random: Random) -> Iterator[bytes]:
    """What a client says, each piece with descriptors of its own."""
    messages = [_message(random, "hello")]
    for _ in range(random.choice((0, 0, 1, 2, 5))):
        messages.append(_message(random, random.choice(("receive_channel", "offer_model"))))
    chance = random.random()
    if chance < 0.1:
        random.shuffle(messages)
    elif chance < 0.15:
        messages = messages[:1] + messages[1:] * 100
    elif chance < 0.2:
        messages.append(random.randbytes(random.choice((3, 4, 500, 70_000))))
    elif chance < 0.25:
        messages[-1] = messages[-1][: random.randrange(len(messages[-1]) + 1)]
    for message in messages:
        if len(message) > 1 and random.random() < 0.05:
            place = random.randrange(len(message))
            yield message[:place]
            yield message[place:]
        else:
            yield message


def _message(random: Random, kind: str) -> bytes:
    """One message, true or not."""
    match kind:
        case "hello":
            version = 1 if random.random() < 0.9 else number(random, 2**32)
            texts = ("", "fuzz", *TEXTS, "x" * 1024, "x" * 1025)
            origin = random.choice(texts).encode("utf-8", "ignore").decode()[:20_000]
            hello = attach.Hello(protocol_version=version, origin=origin)
            request = attach.AttachRequest(hello=hello)
        case "receive_channel":
            name = random.choice(("", "0" * 24, "x" * 5000, "né\0"))
            request = attach.AttachRequest(receive_channel=attach.ReceiveChannel(model_id=name))
        case _:
            size = len(OFFERED) if random.random() < 0.6 else number(random)
            request = attach.AttachRequest(offer_model=attach.OfferModel(size=size))
    data = request.SerializeToString()
    chance = random.random()
    if chance < 0.2:
        data = damaged(data, random)
    elif chance < 0.23:
        data = random.choice((b"", b"\x0a\x02\x12", b"\x0a\x04\x12\x02\xff\xfe", b"\x0b" * 300))
    length = len(data)
    if random.random() < 0.08:
        length = random.choice((0, length + 1, 65536, 65537, 2**31, 2**32 - 1, max(0, length - 1)))
    return LENGTH.pack(length) + data
