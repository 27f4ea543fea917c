"""Offers of memory on the attach socket, and loads of them and of what the service keeps."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from random import Random

import grpc
import numpy as np

from model_loader_wire.causes import Cause
from model_loader_wire.v1 import attach_pb2 as attach
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.fuzz.wire.damage import damaged, number
from tests.fuzz.wire.memories import GOOD, KINDS, descriptor_of
from tests.support.raw_client import LENGTH, AttachConnection, RawSession, detail_of


def offered(
    connection: AttachConnection, content: bytes, random: Random
) -> tuple[str, int, attach.AttachReply]:
    """Offer a descriptor, with that content where it has any, in an open session.

    Returns its kind, the size that was announced, and the reply.
    """
    kind = random.choice((*GOOD, *KINDS))
    with descriptor_of(kind, content, random) as descriptor:
        true = os.fstat(descriptor).st_size
        size = true if random.random() < 0.8 else number(random)
        request = attach.AttachRequest(offer_model=attach.OfferModel(size=size))
        message = request.SerializeToString()
        socket.send_fds(connection.socket, [LENGTH.pack(len(message)) + message], [descriptor])
    reply, given = connection.receive()
    assert not given, "a descriptor came that nobody asked for"
    return kind, size, reply


def load_an_offer(session: RawSession, thief: RawSession, model: bytes, random: Random) -> str:
    """Offer the model's bytes, or what only seems to be them, and load what was taken.

    The model adds 1. Returns what became of the offer.
    """
    kind, size, reply = offered(session.attach, model, random)
    good = kind in GOOD and size == len(model)
    if reply.WhichOneof("reply") == "error":
        cause = reply.error.cause
        assert cause == (Cause.LIMIT if good else Cause.INVALID_INPUT), f"{kind}: {reply}"
        return f"an offer: {cause}"
    assert good, f"{kind} of {size} bytes was taken"
    return f"an offer: {_use(session, thief, model, reply.offered.offer, random)}"


def load_what_is_kept(session: RawSession, thief: RawSession, model: bytes, random: Random) -> str:
    """Find the model by its digest, and load it by the name that was given; as `load_an_offer`."""
    digest = hashlib.sha256(model).digest()
    found = session.call("FindModel", pb.FindModelRequest(sha256=digest))
    if not found.offer:
        return "a kept model: gave way to another"
    return f"a kept model: {_use(session, thief, model, found.offer, random)}"


def _use(session: RawSession, thief: RawSession, model: bytes, name: bytes, random: Random) -> str:
    """Load by a name, which is good once and for its session only; returns what became of it."""
    for false, owner in ((damaged(name, random), session), (name, thief)):
        if random.random() < 0.3 and (false, owner) != (name, session):
            assert not false or _refused(owner, false) == Cause.FORBIDDEN
    if random.random() < 0.1:
        return "left to expire"
    loaded = session.send_load(_parts(name))
    assert loaded.sha256 == hashlib.sha256(model).digest()
    answer = session.compute(loaded.model_id, np.ones(1, np.float32)).outputs[0]
    assert answer.data == np.float32(2).tobytes()
    session.call("CloseModel", pb.CloseModelRequest(model_id=loaded.model_id))
    assert _refused(session, name) == Cause.FORBIDDEN, "an offer was good twice"
    return "loaded"


def _parts(offer: bytes) -> Iterator[pb.LoadRequest]:
    yield pb.LoadRequest(header=pb.LoadHeader(model_format="tflite", relayed=True, offer=offer))


def _refused(session: RawSession, offer: bytes) -> str:
    """Load what must be refused; returns the cause."""
    try:
        session.send_load(_parts(offer))
    except grpc.RpcError as error:
        return detail_of(error).cause
    raise AssertionError("an offer was taken from one who does not have it")
