"""Calls of methods that are not there, and of names that are no text: they end themselves only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from loader_service.broker.method_names import make_server
from model_loader_wire.v1 import model_loader_pb2 as model_pb
from tests.support.daemon import Daemon
from tests.support.http2 import Connection, Flag, Frame, message_head
from tests.support.raw_client import HANG_SECONDS, RawSession

NO_TEXT = ("/model_loader.v1.ModelLoader/\udcfe\udcff", "\udc80", "/\udcc3(")
"""Bytes that are no UTF-8, as surrogates."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A service with an admin socket."""
    with Daemon() as daemon:
        yield daemon


@pytest.fixture(params=["grpc.sock", "admin.sock"])
def path(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[str]:
    """Each socket where gRPC listens."""
    with RawSession(daemon.directory) as session:
        own = session.welcome.grpc_path
        yield own if request.param == "grpc.sock" else str(daemon.directory / request.param)


def answers(path: str) -> bool:
    """Whether gRPC answers there, in a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    opened: Any = grpc.insecure_channel(f"unix:{path}", options)
    service = "Admin/Status" if path.endswith("admin.sock") else "ModelLoader/Formats"
    with opened as channel:
        try:
            assert channel.unary_unary(f"/model_loader.v1.{service}")(b"", timeout=HANG_SECONDS)
        except grpc.RpcError as error:
            failed: Any = error
            return failed.code() is not grpc.StatusCode.UNAVAILABLE
    return True


@pytest.mark.parametrize("name", NO_TEXT, ids=["a method", "no path", "half a letter"])
def test_a_name_that_is_no_text_ends_its_own_call_only(path: str, name: str) -> None:
    with Connection(path) as connection:
        stream = connection.request(name)
        connection.send(Frame.DATA, Flag.END_STREAM, stream, message_head(0))
        assert b"Method not found" in connection.until_stream_ends(stream)
        # The same connection goes on, and others come.
        again = connection.request("/model_loader.v1.Nothing/Nothing")
        connection.send(Frame.DATA, Flag.END_STREAM, again, message_head(0))
        assert b"Method not found" in connection.until_stream_ends(again)
    assert answers(path)


def test_methods_that_are_not_there_are_called_unimplemented(path: str) -> None:
    opened: Any = grpc.insecure_channel(f"unix:{path}")
    with opened as channel:
        for name in ("/model_loader.v1.ModelLoader/Nothing", "/x", "/model_loader.v1.Admin/"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(name)(b"", timeout=HANG_SECONDS)
            failed: Any = caught.value
            assert failed.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_crowd_of_unknown_calls_is_answered_and_keeps_nobody_out(daemon: Daemon) -> None:
    with RawSession(daemon.directory) as session:
        calls = [
            session.grpc.unary_unary("/nothing").future(b"", timeout=HANG_SECONDS)  # type: ignore[call-arg]
            for _ in range(500)
        ]
        assert session.call("ListModels", model_pb.ListModelsRequest()).models == []
        codes = {call.code() for call in calls}
    assert codes == {grpc.StatusCode.UNIMPLEMENTED}
    assert "Traceback" not in daemon.log()


def test_a_server_ends_as_others_do() -> None:
    async def test() -> None:
        server = make_server(options=[])
        server.add_insecure_port("127.0.0.1:0")
        await server.start()
        await server.stop(None)

    asyncio.run(asyncio.wait_for(test(), HANG_SECONDS))
