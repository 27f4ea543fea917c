"""The admin service: who gets in, what they see of everybody, and what they can do."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from loader_service.broker import admin_gate
from loader_service.broker.admin_gate import AdminGate
from loader_service.broker.draining import Draining
from loader_service.broker.event_stream import EventStream
from loader_service.broker.readiness import Readiness
from loader_service.broker.refusal import Refusal
from loader_service.writer import small
from model_loader_wire.v1 import admin_pb2 as pb
from model_loader_wire.v1 import admin_pb2_grpc as pb_grpc
from tests.broker.test_attach import as_user
from tests.shared_models import REPOSITORY
from tests.support.daemon import Daemon
from tests.support.raw_client import HANG_SECONDS, RawSession, detail_of

OTHER = 54321


class Admin:
    """The stub of a daemon's admin service."""

    def __init__(self, directory: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{directory / 'admin.sock'}")
        self._stub = pb_grpc.AdminStub(self._channel)  # type: ignore[no-untyped-call]

    def ask(self, method: str, request: Any) -> Any:
        """Make a call."""
        return getattr(self._stub, method)(request, timeout=HANG_SECONDS)

    def close(self) -> None:
        """End it."""
        self._channel.close()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A daemon that another user may use, where this is root."""
    flags = {"allow_user": OTHER} if os.geteuid() == 0 else {}
    with Daemon(**flags) as daemon:
        yield daemon


@pytest.fixture
def admin(daemon: Daemon) -> Iterator[Admin]:
    """Its admin service."""
    admin = Admin(daemon.directory)
    yield admin
    admin.close()


def test_the_socket_is_closed_to_others(daemon: Daemon, admin: Admin) -> None:
    admin.ask("Status", pb.StatusRequest())
    status = (daemon.directory / "admin.sock").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, os.geteuid())
    folder = (daemon.directory / "steering").stat()
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid) == (0o700, os.geteuid())


def test_a_limit_below_what_models_use_is_for_the_next_ones(daemon: Daemon, admin: Admin) -> None:
    limits = admin.ask("ShowLimits", pb.ShowLimitsRequest()).limits
    (before,) = [row.value for row in limits if row.name == "memory_bytes"]

    def set_to(value: float) -> None:
        limits = [pb.LimitValue(name="memory_bytes", value=value)]
        admin.ask("SetLimits", pb.SetLimitsRequest(limits=limits))

    def load(session: RawSession) -> str:
        try:
            session.load(small.add(), relayed=True)
        except grpc.RpcError as error:
            return detail_of(error).cause
        return "loaded"

    with RawSession(daemon.directory) as session, RawSession(daemon.directory, "empty") as empty:
        first = session.load(small.add(), relayed=True)
        try:
            found = set()
            for value in (4096, 1):
                set_to(value)
                # Nobody lives in the other origin, which gets no more than that.
                found |= {load(session), load(empty)}
        finally:
            set_to(before)
        if "cgroup-memory" in first.isolation.layers:
            assert found == {"out-of-memory"}
        assert found <= {"out-of-memory", "loaded"}
        # The first one has noticed nothing, and there is room again.
        assert load(session) == load(empty) == "loaded"
        (answer,) = session.compute(first.model_id, np.ones(1, np.float32)).outputs
        assert answer.data == np.float32(2).tobytes()


@pytest.mark.parametrize(
    "method", [method.name for method in pb.DESCRIPTOR.services_by_name["Admin"].methods]
)
def test_bytes_that_are_no_message_are_refused(daemon: Daemon, method: str) -> None:
    with grpc.insecure_channel(f"unix:{daemon.directory / 'admin.sock'}") as channel:
        call: Any = getattr(channel, "unary_stream" if method == "Events" else "unary_unary")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(f"/model_loader.v1.Admin/{method}")(b"\xff" * 20, timeout=HANG_SECONDS))
    assert detail_of(caught.value).cause == "invalid-input"
    assert "Traceback" not in daemon.log()


KNOCK = """
import socket, sys
from pathlib import Path
with socket.socket(socket.AF_UNIX) as knock:
    knock.settimeout(20)
    try:
        knock.connect(str(Path(sys.argv[1]) / "admin.sock"))
        print(repr(knock.recv(1)))
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_another_user_is_turned_away_by_the_kernels_word_too(daemon: Daemon) -> None:
    assert as_user(KNOCK, OTHER, daemon.directory) == ["PermissionError"]
    path = daemon.directory / "admin.sock"
    path.chmod(0o666)
    try:
        assert as_user(KNOCK, OTHER, daemon.directory) == ["b''"]
    finally:
        path.chmod(0o600)
    assert f"uid {OTHER} was turned away at the admin socket" in daemon.log()


USER = """
import sys
from pathlib import Path
from loader_service.writer import small
from tests.support.raw_client import RawSession
from model_loader_wire.v1 import model_loader_pb2 as pb
with RawSession(Path(sys.argv[1]), "theirs") as session:
    reply = session.load(small.add(), relayed=True)
    print(reply.model_id, flush=True)
    sys.stdin.readline()
    print(session.call("GetModel", pb.GetModelRequest(model_id=reply.model_id)).detail.cause)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_root_sees_and_ends_what_each_user_has(daemon: Daemon, admin: Admin) -> None:
    become = (
        f"import os; os.setgroups([]); os.setresgid(*3*({OTHER},)); os.setresuid(*3*({OTHER},))"
    )
    imports = "import tests.support.raw_client, loader_service.writer.small"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{imports}\n{become}\n{USER}", str(daemon.directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    theirs = process.stdout.readline().strip()
    with RawSession(daemon.directory, "mine") as session:
        mine = session.load(small.add(), relayed=True).model_id
        rows = {
            row.model.model_id: (row.user, row.model.origin)
            for row in admin.ask("List", pb.ListRequest()).rows
        }
        assert rows == {theirs: (OTHER, "theirs"), mine: (0, "mine")}
        users = {user.user: user for user in admin.ask("Status", pb.StatusRequest()).users}
        assert users.keys() == {0, OTHER}
        assert users[OTHER].models == 1
        assert admin.ask("Kill", pb.KillRequest(user=OTHER)).models == 1
        said, _ = process.communicate("\n", timeout=HANG_SECONDS)
        assert said == "killed\n"
        assert session.models() == [mine]


@pytest.mark.parametrize(
    ("method", "request_", "text"),
    [
        ("Kill", pb.KillRequest(), "name a model or a user"),
        ("Kill", pb.KillRequest(origin="a"), "an origin is a user's"),
        ("Kill", pb.KillRequest(model_id="a", user=1), "not both"),
        ("Kill", pb.KillRequest(model_id="a"), "no model that lives has the id 'a'"),
        ("Drain", pb.DrainRequest(seconds=-1), "not -1"),
        ("Drain", pb.DrainRequest(seconds=float("nan")), "not nan"),
    ],
)
def test_what_cannot_be_is_refused(admin: Admin, method: str, request_: Any, text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        admin.ask(method, request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in str(caught.value.details())


def test_a_load_that_is_under_way_is_ended_too(admin: Admin, daemon: Daemon) -> None:
    with RawSession(daemon.directory, "loading") as session:
        model = small.add()

        def half() -> Iterator[Any]:
            from tests.support.raw_client import load_parts

            parts = load_parts(model)
            yield next(parts)
            killed.wait(HANG_SECONDS)

        import threading

        killed = threading.Event()
        future = session.stub.Load.future(half(), metadata=session.metadata, timeout=HANG_SECONDS)
        try:
            count = 0
            while not count:
                request = pb.KillRequest(user=os.geteuid(), origin="loading")
                count = admin.ask("Kill", request).models
            assert count == 1
        finally:
            killed.set()
        assert isinstance(future.exception(), grpc.RpcError)


def test_the_gate_takes_so_many_connections_and_ends_them(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_gate, "AT_A_TIME", 2)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(100):
            writer.write(piece)
        writer.close()

    async def knock(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"hello")
        return reader, writer

    async def test() -> None:
        faults: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        inner = str(short_folder / "inner")
        server = await asyncio.start_unix_server(echo, inner)

        async def inner_of(uid: int) -> str:
            assert uid == os.geteuid()
            return inner

        path = str(short_folder / "gate")
        gate = AdminGate(path, inner_of)
        await gate.start()
        first = await knock(path)
        assert await first[0].readexactly(5) == b"hello"
        second = await knock(path)
        assert await second[0].readexactly(5) == b"hello"
        third = await knock(path)
        assert await _ended(third[0])
        first[1].close()
        gate.close()
        await gate.cut(0)
        assert await _ended(second[0])
        server.close()
        for _, writer in (first, second, third):
            writer.close()
        await asyncio.sleep(0)
        assert faults == []

    asyncio.run(asyncio.wait_for(test(), HANG_SECONDS))


async def _ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read(5) == b""
    except ConnectionError:
        return True


def test_a_drain_refuses_loads_and_is_over_with_the_last_model() -> None:
    async def test() -> None:
        left = 1
        events, readiness = EventStream(), Readiness()
        readiness.set(True)
        draining = Draining(readiness, events, lambda: left)
        draining.check()
        draining.begin("a test", 600)
        with pytest.raises(Refusal, match="draining"):
            draining.check()
        assert not readiness.ready
        readiness.set(True)  # a worker was born meanwhile
        assert not readiness.ready
        draining.cancel("a test")
        draining.check()
        assert readiness.ready
        draining.begin("a test", 600)
        draining.begin("another", 0)  # the time is over at once
        await draining.over.wait()
        draining.cancel("too late")
        assert draining.active
        told = [item.event.kind for item in events.kept()]
        assert told == ["drain-began", "drain-ended", "drain-began", "drain-began", "drain-ended"]
        left = 0
        other = Draining(Readiness(), events, lambda: left)
        other.begin("a test", 600)
        await other.over.wait()

    asyncio.run(asyncio.wait_for(test(), HANG_SECONDS))


def test_without_it_there_is_no_socket(short_folder: Path) -> None:
    with Daemon(no_admin=True) as daemon:
        names = {entry.name for entry in daemon.directory.iterdir()}
        assert names == {"lock", "attach.sock", f"uid-{os.geteuid()}"}
