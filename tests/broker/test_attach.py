"""The attach socket: who says what when, and what ends when."""

from __future__ import annotations

import os
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import model_loader as ml
from loader_service.writer import small
from model_loader_wire.v1 import attach_pb2 as attach
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.conftest import ONE
from tests.shared_models import REPOSITORY
from tests.support.processes import children
from tests.support.raw_client import (
    AttachConnection,
    RawSession,
    Service,
    detail_of,
    exchange_over,
)
from tests.support.waiting import wait_until


def connect(service: Service) -> AttachConnection:
    """A connection that has said nothing."""
    return AttachConnection(service.directory)


def test_the_sockets_are_for_whom_they_are(service: Service) -> None:
    attach_socket = service.directory / "attach.sock"
    room = service.directory / f"uid-{os.geteuid()}"
    assert stat.S_IMODE(attach_socket.stat().st_mode) == 0o666
    assert stat.S_IMODE(service.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(room.stat().st_mode) == 0o700
    assert (room / "grpc.sock").stat().st_uid == os.geteuid()


def test_the_welcome_says_what_there_is(session: RawSession) -> None:
    welcome = session.welcome
    assert len(welcome.session.token) == 32
    assert welcome.session.origin == "test"
    assert {"seccomp", "no-new-privileges", "rlimits"} <= set(welcome.session.layers)
    assert welcome.session.limits.compute_seconds == 1
    assert Path(welcome.grpc_path).is_socket()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x05\x00",
        struct.pack("<I", 100) + b"half",
        struct.pack("<I", 65537),
        struct.pack("<I", 0xFFFFFFFF) + b"x" * 1000,
        struct.pack("<I", 5) + b"\xff\xff\xff\xff\xff",
        struct.pack("<I", 6) + b"\x0a\x04\x12\x02\xff\xfe",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        os.urandom(5000),
    ],
    ids=["nothing", "half a length", "half", "long", "huge", "garbage", "utf-8", "http", "random"],
)
def test_what_is_no_message_ends_the_connection(service: Service, data: bytes) -> None:
    connection = connect(service)
    connection.socket.sendall(data)
    connection.socket.shutdown(socket.SHUT_WR)
    assert connection.is_ended()
    connection.close()


def test_no_hello_first_is_refused(service: Service) -> None:
    for request in (
        attach.AttachRequest(),
        attach.AttachRequest(receive_channel=attach.ReceiveChannel(model_id="x")),
    ):
        connection = connect(service)
        reply = connection.ask(request)
        assert (reply.error.cause, reply.error.message) == (
            "invalid-input",
            "a client says hello first",
        )
        assert connection.is_ended()
        connection.close()


def test_another_protocol_version_is_refused_with_both_named(service: Service) -> None:
    connection = connect(service)
    reply = connection.hello(version=7)
    assert reply.error.cause == "unsupported"
    assert reply.error.message == "the client speaks protocol 7, the service 1"
    assert connection.is_ended()
    connection.close()


def test_a_second_hello_is_refused_and_the_session_goes_on(session: RawSession) -> None:
    assert session.attach.hello().error.cause == "invalid-input"
    assert session.models()[1:] == []


def test_a_channel_is_given_once(session: RawSession) -> None:
    model_id = session.load(small.add()).model_id
    with session.channel(model_id) as channel:
        reply, descriptors = session.attach.receive_channel(model_id)
        assert (reply.error.cause, descriptors) == ("forbidden", [])
        answer = exchange_over(channel, [ONE])
        assert np.frombuffer(answer.tensors[0], np.float32) == 2


def test_a_relayed_model_has_no_channel(session: RawSession) -> None:
    model_id = session.load(small.add(), relayed=True).model_id
    reply, descriptors = session.attach.receive_channel(model_id)
    assert (reply.error.cause, descriptors) == ("closed", [])


def test_another_sessions_channel_is_not_given(service: Service, session: RawSession) -> None:
    model_id = session.load(small.add()).model_id
    with RawSession(service.directory) as other:
        for name in (model_id, "", "none"):
            reply, descriptors = other.attach.receive_channel(name)
            assert (reply.error.cause, descriptors) == ("forbidden", [])
    session.channel(model_id).close()


def test_a_dead_models_channel_is_refused_with_the_reason(session: RawSession) -> None:
    reply = session.load(small.add())
    os.kill(reply.isolation.worker_pid, 9)
    session.call("GetModel", pb.GetModelRequest(model_id=reply.model_id, wait_seconds=20))
    answer, descriptors = session.attach.receive_channel(reply.model_id)
    assert (answer.error.cause, descriptors) == ("killed", [])


def test_the_session_ends_with_its_connection(service: Service) -> None:
    session = RawSession(service.directory)
    with session.channel(session.load(small.add()).model_id) as channel:
        session.load(small.add(), relayed=True)
        session.attach.close()
        assert channel.recv(1) == b""
    with pytest.raises(grpc.RpcError) as caught:
        session.models()
    assert detail_of(caught.value).cause == "forbidden"
    session.close()


def test_a_session_that_left_in_its_hello_is_not_kept(service: Service) -> None:
    before = len(os.listdir(f"/proc/{service.pid}/fd"))
    for _ in range(50):
        connection = connect(service)
        connection.send(attach.AttachRequest(hello=attach.Hello(protocol_version=1, origin="gone")))
        connection.close()
    with RawSession(service.directory, "gone") as session:
        assert session.models()
    with RawSession(service.directory, "gone"):
        wait_until(
            lambda: len(os.listdir(f"/proc/{service.pid}/fd")) <= before + 4,
            "the end of those that were kept for nobody",
        )


@pytest.mark.parametrize("limit", ["attach_connections", "total_attach_connections"])
def test_too_many_connections_are_told_so_and_room_is_made_again(limit: str) -> None:
    settings: dict[str, Any] = {limit: 3}
    with Service(**settings) as service:
        sessions = [RawSession(service.directory) for _ in range(3)]
        connection = connect(service)
        reply, _ = connection.receive()
        error = reply.error
        assert (error.cause, error.limit, error.value, error.maximum) == ("limit", limit, 4, 3)
        assert connection.is_ended()
        connection.close()
        with pytest.raises(ml.QuotaExceededError) as caught:
            ml.connect(service.directory)
        assert caught.value.limit == limit
        sessions.pop().close()
        while not is_welcome(service):
            continue  # the place is free when the broker has noticed
        for session in sessions:
            session.close()


def is_welcome(service: Service) -> bool:
    """Whether a new client is let in; the connection is closed again."""
    connection = connect(service)
    try:
        return bool(connection.hello().WhichOneof("reply") == "welcome")
    except (ConnectionError, struct.error):
        return False
    finally:
        connection.close()


def test_who_says_nothing_is_let_go() -> None:
    with Service(handshake_seconds=0.05) as service:
        connection = connect(service)
        assert connection.is_ended()
        connection.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter."""
    folder = Path(tempfile.mkdtemp(prefix="mlt-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    folder.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_other_users_come_in_where_they_are_allowed_and_only_into_their_own_room(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(open_folder))
    program = """
import os, sys
from pathlib import Path
from tests.support.raw_client import AttachConnection, RawSession
directory, uid = Path(sys.argv[1]), int(sys.argv[2])
if uid == 54322:
    connection = AttachConnection(directory)
    print(connection.hello().error.cause)
    sys.exit()
from loader_service.writer import small
with RawSession(directory) as session:
    room = Path(session.welcome.grpc_path).parent
    print(room.name, room.stat().st_uid, oct(room.stat().st_mode)[-3:], session.models())
    reply = session.load(small.add())
    session.channel(reply.model_id).close()
    try:
        os.listdir(directory / "uid-0")
    except PermissionError:
        print("closed")
"""
    with Service(allowed_uids=[54321]) as service:
        # Its directory is private, as an embedded service's is; a daemon's may be entered.
        service.directory.chmod(0o755)
        with RawSession(service.directory) as own:
            own.load(small.add(), relayed=True)
            for uid, expected in (
                (54321, ["uid-54321 0 711 []", "closed"]),
                (54322, ["forbidden"]),
            ):
                assert as_user(program, uid, service.directory) == expected
            assert len(own.models()) == 1
        service.wait_for_workers([])
        # One for each principal.
        service.wait_for_zygotes(2)
        assert len(children(service.pid)) == 2


def as_user(
    program: str, uid: int, directory: Path, imports: str = "tests.support.raw_client"
) -> list[str]:
    """Run a program that becomes another user when it has imported everything."""
    prepare = f"""
import os, {imports}, tests.support.raw_client, loader_service.writer.small
os.setgroups([])
os.setresgid({uid}, {uid}, {uid})
os.setresuid({uid}, {uid}, {uid})
"""
    done = subprocess.run(
        [sys.executable, "-c", prepare + program, str(directory), str(uid)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_worker_whose_channel_ends_ends_well(session: RawSession) -> None:
    """It does nothing on its way out that its sandbox forbids: the verdict is no violation."""
    for _ in range(3):
        reply = session.load(small.add())
        session.channel(reply.model_id).close()
        request = pb.GetModelRequest(model_id=reply.model_id, wait_seconds=20)
        assert session.call("GetModel", request).detail.cause == "closed"
