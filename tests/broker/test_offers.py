"""Bytes that need not be uploaded: what may be offered, to whom it belongs, when it is dropped."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import hashlib
import os
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

from loader_service.broker.descriptors import Descriptors
from loader_service.broker.held_models import HeldModels
from loader_service.broker.outstanding import Outstanding
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal
from loader_service.broker.sessions import Sessions
from loader_service.broker.settings import Settings
from loader_service.writer import small
from model_loader_wire import sealed
from model_loader_wire.causes import Cause
from model_loader_wire.v1 import attach_pb2 as attach
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.conftest import ONE
from tests.support.memories import memories
from tests.support.raw_client import HANG_SECONDS, RawSession, Service, detail_of, exchange_over

MODEL = small.add()
DIGEST = hashlib.sha256(MODEL).digest()


@contextmanager
def memory(content: bytes, seals: int = sealed.SEALS) -> Iterator[int]:
    """A memfd with that content."""
    descriptor = sealed.make()
    try:
        os.write(descriptor, content)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def memory_beyond_end(size: int) -> Iterator[int]:
    """Sealed memory of that size which is one hole, with as much memory behind its end."""
    descriptor = sealed.make()
    try:
        os.truncate(descriptor, size)
        libc = ctypes.CDLL(None, use_errno=True)
        keep_size = 1
        assert libc.fallocate(descriptor, keep_size, ctypes.c_long(size), ctypes.c_long(size)) == 0
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, sealed.SEALS)
        yield descriptor
    finally:
        os.close(descriptor)


def ask(session: RawSession, size: int, *descriptors: int) -> attach.AttachReply:
    """Offer descriptors on the session's attach connection."""
    request = attach.AttachRequest(offer_model=attach.OfferModel(size=size))
    data = request.SerializeToString()
    socket.send_fds(session.attach.socket, [struct.pack("<I", len(data)) + data], descriptors)
    reply, given = session.attach.receive()
    assert not given
    return reply


def offer(session: RawSession, content: bytes = MODEL) -> bytes:
    """Offer good memory; gives the offer's name."""
    with memory(content) as descriptor:
        reply = ask(session, len(content), descriptor)
    assert reply.WhichOneof("reply") == "offered", reply
    return reply.offered.offer


def load(session: RawSession, name: bytes, **header: object) -> pb.LoadReply:
    """Load what was offered: the header comes alone."""
    values = {"model_format": "tflite", "offer": name, **header}
    return session.send_load(iter([pb.LoadRequest(header=pb.LoadHeader(**values))]))  # type: ignore[arg-type]


def find(session: RawSession, digest: bytes = DIGEST) -> bytes:
    """Ask for a model by its digest."""
    reply: pb.FindModelReply = session.call("FindModel", pb.FindModelRequest(sha256=digest))
    return reply.offer


def wait_for_memories(service: Service, count: int) -> None:
    """Wait until the broker holds that many."""
    ends = time.monotonic() + HANG_SECONDS
    while memories(service.pid) != count and time.monotonic() < ends:
        time.sleep(0.01)
    assert memories(service.pid) == count


def refused(call: Callable[[], object]) -> pb.ErrorDetail:
    """Call what must be refused; gives the detail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return detail_of(caught.value)


def test_offered_memory_is_loaded_without_an_upload(session: RawSession) -> None:
    reply = load(session, offer(session))
    assert reply.sha256 == DIGEST
    answer = exchange_over(session.channel(reply.model_id), [ONE])
    assert np.frombuffer(answer.tensors[0], np.float32) == 2


def test_a_large_offer_arrives_whole(session: RawSession) -> None:
    padded = MODEL + os.urandom(5 << 20)  # what follows a FlatBuffer is nobody's business
    reply = load(session, offer(session, padded))
    assert reply.sha256 == hashlib.sha256(padded).digest()


@pytest.mark.parametrize(
    "seals",
    [
        0,
        fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK,
        fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW,
        fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK,
        fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | 0x10,
    ],
    ids=["none", "may grow", "may shrink", "may be written", "mapped ones may be written"],
)
def test_memory_that_can_still_change_is_refused(session: RawSession, seals: int) -> None:
    with memory(MODEL, seals) as descriptor:
        reply = ask(session, len(MODEL), descriptor)
    assert reply.error.cause == "invalid-input"
    assert "not sealed" in reply.error.message
    assert session.models() is not None  # the session goes on


def test_other_descriptors_are_refused_and_closed(session: RawSession, service: Service) -> None:
    with tempfile.TemporaryFile() as file, socket.socket(socket.AF_UNIX) as sock:
        file.write(MODEL)
        file.flush()
        ours = {os.readlink(f"/proc/self/fd/{one.fileno()}") for one in (file, sock)}
        for descriptor in (file.fileno(), sock.fileno()):
            reply = ask(session, len(MODEL), descriptor)
            assert reply.error.cause == "invalid-input"
            assert "no memory" in reply.error.message
        reply = ask(session, len(MODEL), *[file.fileno()] * 2)
        assert reply.error.cause == "invalid-input"  # the kernel dropped the second
        assert "one descriptor" in ask(session, len(MODEL)).error.message
        assert ours.isdisjoint(service.open_files())


def test_holes_and_wrong_sizes_are_refused(session: RawSession) -> None:
    with memory(MODEL) as descriptor:
        assert "were announced" in ask(session, len(MODEL) + 1, descriptor).error.message
    descriptor = sealed.make()
    os.truncate(descriptor, 1 << 20)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, sealed.SEALS)
    assert "has holes" in ask(session, 1 << 20, descriptor).error.message
    os.close(descriptor)


def test_memory_beyond_the_end_does_not_hide_a_hole(session: RawSession) -> None:
    """The file has as many blocks as it has bytes, but not where its bytes are."""
    with memory_beyond_end(1 << 20) as descriptor:
        facts = os.fstat(descriptor)
        assert facts.st_blocks * 512 >= facts.st_size == 1 << 20
        assert "has holes" in ask(session, 1 << 20, descriptor).error.message


def test_memory_that_can_only_be_written_is_refused(session: RawSession) -> None:
    with memory(MODEL, 0) as first:
        second = os.open(f"/proc/self/fd/{first}", os.O_WRONLY)
        fcntl.fcntl(first, fcntl.F_ADD_SEALS, sealed.SEALS)
    try:
        reply = ask(session, len(MODEL), second)
    finally:
        os.close(second)
    assert reply.error.cause == "invalid-input"
    assert "cannot be read" in reply.error.message


def test_an_offer_is_good_once_and_for_its_session(service: Service, session: RawSession) -> None:
    name = offer(session)
    with RawSession(service.directory) as other:
        assert refused(lambda: load(other, name)).cause == "forbidden"
    assert load(session, name).sha256 == DIGEST
    assert refused(lambda: load(session, name)).cause == "forbidden"
    assert refused(lambda: load(session, b"a guess")).cause == "forbidden"


def test_offers_count_as_uploads_and_are_dropped_with_their_session() -> None:
    with Service({"upload_bytes": 3 * len(MODEL), "model_bytes": len(MODEL)}) as service:
        with RawSession(service.directory) as session:
            names = [offer(session) for _ in range(3)]
            with memory(MODEL) as descriptor:
                error = ask(session, len(MODEL), descriptor).error
            assert (error.limit, error.value) == ("upload_bytes", 4 * len(MODEL))
            load(session, names[0])
            offer(session)
            with memory(MODEL + b"x") as descriptor:
                error = ask(session, len(MODEL) + 1, descriptor).error
            assert error.limit == "model_bytes"
            wait_for_memories(service, 4)
        wait_for_memories(service, 0)


def test_the_number_of_offers_has_an_end(session: RawSession) -> None:
    for _ in range(64):
        offer(session)
    with memory(MODEL) as descriptor:
        error = ask(session, len(MODEL), descriptor).error
    assert (error.cause, error.limit, error.maximum) == ("limit", "offers", 64)


def test_an_offer_that_nobody_takes_expires() -> None:
    with Service(claim_seconds=0.2) as service, RawSession(service.directory) as session:
        name = offer(session)
        wait_for_memories(service, 0)
        assert refused(lambda: load(session, name)).cause == "forbidden"


def test_a_model_is_found_by_the_origin_that_loaded_it(service: Service) -> None:
    with RawSession(service.directory, "shop") as session:
        assert find(session) == b""
        session.load(MODEL)
        with RawSession(service.directory, "rival") as rival:
            assert find(rival) == b""
        with RawSession(service.directory, "shop") as again:
            assert load(again, find(again)).sha256 == DIGEST
        assert find(session, hashlib.sha256(b"another").digest()) == b""
        assert find(session, b"no digest") == b""


def test_what_is_kept_goes_with_the_last_session_of_its_principal() -> None:
    with Service() as service:
        with RawSession(service.directory) as session:
            session.load(MODEL)
            wait_for_memories(service, 1)
            assert find(session)
        wait_for_memories(service, 0)
        with RawSession(service.directory) as session:
            assert find(session) == b""


def test_nothing_is_kept_where_the_settings_say_so() -> None:
    with Service(kept_model_bytes=0) as service, RawSession(service.directory) as session:
        session.load(MODEL)
        load(session, offer(session))
        assert find(session) == b""
        wait_for_memories(service, 0)


def test_a_load_that_fails_leaves_nothing(session: RawSession, service: Service) -> None:
    before = memories(service.pid)
    garbage = os.urandom(1000)
    assert refused(lambda: load(session, offer(session, garbage))).cause == "invalid-model"
    assert refused(lambda: session.load(garbage)).cause == "invalid-model"
    assert find(session, hashlib.sha256(garbage).digest()) == b""
    wait_for_memories(service, before)


def test_a_session_that_is_over_gets_no_offers_that_nobody_would_drop() -> None:
    settings = Settings(directory="", allowed_uids=frozenset({1}))
    principals = Principals(settings)
    sessions, descriptors = Sessions(settings, principals), Descriptors(settings, principals)
    uploads = Outstanding("upload_bytes", "too much")
    held = HeldModels(settings, principals, sessions, uploads, descriptors)

    async def offer_and_leave() -> None:
        session = sessions.open(1, "a")
        with memory(MODEL) as descriptor:
            name = held.offer(session, os.dup(descriptor), len(MODEL))
        await sessions.close(session)
        with pytest.raises(Refusal) as caught:
            held.take(session, name)
        assert caught.value.failure.cause is Cause.FORBIDDEN

    asyncio.run(offer_and_leave())
    assert not held._offers
    assert not descriptors._held
