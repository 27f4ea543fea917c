"""Connecting: finding a service, and trusting it only if it may be trusted."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import model_loader as ml
from model_loader import _address, _embedded, _opening, aio
from model_loader._attach import AttachConnection
from model_loader._origin import ORIGIN_LENGTH, checked_origin, derived_origin
from model_loader_wire.causes import Cause, Failure
from tests.client.fake_service import TOKEN, FakeService


def test_what_a_connection_tells(service: FakeService) -> None:
    with ml.connect(f"unix:{service.directory}", origin="my program") as connection:
        assert connection.address == f"unix:{service.directory}"
        assert connection.origin == "my program"
        assert connection.limits == service.limits
        assert connection.layers == ("seccomp", "no-new-privileges")
        assert connection.service_version == "0.fake"
        assert connection.embedded is False
        assert connection.broker_pid is None
        assert connection.relayed is False
        assert "my program" in repr(connection)
        assert str(service.directory) in repr(connection)
        connection.formats()
    assert service.tokens == {TOKEN.hex()}
    assert "closed" in repr(connection)
    connection.close()


def test_relayed_connection_keeps_its_session_open(service: FakeService) -> None:
    with ml.connect(service.directory, relay=True, origin="far") as connection:
        assert connection.relayed
        assert connection.origin == "far"
        assert connection.formats()[0].name == "tflite"
    assert service.methods()[0] == "OpenSession"
    with pytest.raises(ml.ConstraintError):
        ml.connect(service.directory, relay="yes")  # type: ignore[arg-type]


def test_a_room_that_is_just_being_made_is_waited_for(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program of this user has come a moment before: the room is there, and no socket."""
    made, welcome = service.grpc_path.with_name("made"), service._session

    def open_the_room(origin: str) -> Any:
        if made.exists():
            made.rename(service.grpc_path)
        return welcome(origin)

    service.grpc_path.rename(made)
    monkeypatch.setattr(service, "_session", open_the_room)
    with ml.connect(service.directory, relay=True) as connection:
        assert connection.formats()
    assert len(service.hellos) == 1


def test_a_service_that_opens_no_session_in_time_is_a_network_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    room = tmp_path / f"uid-{os.geteuid()}"
    room.mkdir(mode=0o700)
    monkeypatch.setattr(_opening, "CALL_SECONDS", 0.5)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(room / "grpc.sock"))
        silent.listen()
        with pytest.raises(ml.NetworkError, match="in time"):
            ml.connect(tmp_path, relay=True)
        with pytest.raises(ml.NetworkError, match="in time"):
            asyncio.run(aio.connect(tmp_path, relay=True))


def test_variable_names_the_service(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_LOADER_ADDRESS", f"unix:{service.directory}")
    with ml.create_context() as context:
        assert context.connection.address == f"unix:{service.directory}"
        connection = context.connection
    with pytest.raises(ml.InvalidStateError):
        connection.formats()  # it was made for the context, and ended with it


def test_running_daemon_of_the_user_is_found(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MODEL_LOADER_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "model-loader").symlink_to(service.directory)
    with ml.connect() as connection:
        assert connection.service_version == "0.fake"


def test_order_of_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_LOADER_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/home/run")
    places = [str(place.directory) for place in _address.addresses(None)]
    assert places == ["/home/run/model-loader", "/run/model-loader"]
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert str(_address.addresses(None)[0].directory) == f"/run/user/{os.getuid()}/model-loader"
    monkeypatch.setenv("MODEL_LOADER_ADDRESS", "/there")
    assert [(str(place.directory), place.explicit) for place in _address.addresses(None)] == [
        ("/there", True)
    ]
    assert str(_address.addresses("unix:/here")[0].directory) == "/here"
    assert str(_address.addresses(Path("/here"))[0].directory) == "/here"


@pytest.mark.parametrize("address", ["", "relative/path", "tcp://host:1", 5, b"/bytes"], ids=repr)
def test_addresses_that_are_none(address: Any) -> None:
    with pytest.raises(ml.ConstraintError):
        ml.connect(address)


@pytest.mark.parametrize(
    "address",
    [
        *("tcp://host", "tcp://:1", "tcp://host:0", "tcp://host:65536", "tcp://host:1/path"),
        *("tcp://user@host:1", "tcp://:word@host:1", "tcp://host:1?a=b", "tcp://host:1#a"),
        *(f"tcp://{'a' * 64}:1", "tcp://.host:1", "tcp://a..b:1", "tcp://[::1:1"),
    ],
)
def test_ports_of_the_network_that_are_none(address: str) -> None:
    with pytest.raises(ml.ConstraintError, match="is no address: give tcp://HOST:PORT"):
        ml.connect(address, ca="authority.pem")


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("tcp://host.example:8500/", "host.example:8500"),
        ("grpcs://[::1]:1", "[::1]:1"),
        ("tcp://grün.example:1", "grün.example:1"),
    ],
)
def test_a_port_of_the_network(address: str, target: str) -> None:
    found = _address.network_address(address)
    assert found is not None
    assert found.target == target


def test_named_service_that_is_not_there(tmp_path: Path) -> None:
    for relay in (False, True):
        with pytest.raises(ml.NetworkError, match="start model-loaderd, or leave the address out"):
            ml.connect(tmp_path / "nothing", relay=relay)


def test_stale_socket_of_a_named_service(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "attach.sock"))
    with pytest.raises(ml.NetworkError, match="refused"):
        ml.connect(tmp_path)


def test_stale_daemon_is_passed_over_for_a_private_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, service: FakeService
) -> None:
    monkeypatch.delenv("MODEL_LOADER_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(_address, "SYSTEM_DIRECTORY", tmp_path / "none")
    (tmp_path / "model-loader").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "model-loader" / "attach.sock"))

    class Private:
        directory, pid = service.directory, os.getpid()

    monkeypatch.setattr(_embedded, "shared_broker", Private)
    with ml.connect() as connection:
        assert connection.embedded
        assert connection.broker_pid == os.getpid()
        assert "embedded" in repr(connection)


def test_private_service_must_be_the_process_that_was_started(service: FakeService) -> None:
    with pytest.raises(ml.SecurityError, match=f"process {os.getpid()} listens"):
        AttachConnection(service.directory, broker_pid=1)


def test_service_of_another_user_is_sent_nothing(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "model_loader._attach.CREDENTIALS", _Forged(struct.pack("3i", 1, 4242, 4242))
    )
    with pytest.raises(ml.SecurityError, match="only your own uid, root and the system"):
        ml.connect(service.directory)
    assert service.hellos == []


class _Forged:
    """Credentials as a process of uid 4242 would have them."""

    size = 12

    def __init__(self, data: bytes) -> None:
        self._data = data

    def unpack(self, data: bytes) -> tuple[Any, ...]:
        assert len(data) == 12
        return struct.unpack("3i", self._data)


@pytest.mark.parametrize("relay", [False, True], ids=["direct", "relayed"])
def test_grpc_socket_in_a_folder_that_others_can_write(service: FakeService, relay: bool) -> None:
    service.grpc_path.parent.chmod(0o777)
    with pytest.raises(ml.SecurityError, match="writable by nobody else"):
        ml.connect(service.directory, relay=relay)


def test_refusal_at_the_attach_socket(service: FakeService) -> None:
    service.refuse = Failure(Cause.FORBIDDEN, "this origin is not yours")
    with pytest.raises(ml.SecurityError, match="not yours"):
        ml.connect(service.directory)


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", b"\4\0\0\0\xff\xff\xff\xff", b"\2\0", b"\0\0\0\0", b"\2\0\0\0\x1a\0"],
    ids=["too long", "no protobuf", "cut short", "empty", "an error without a cause"],
)
def test_garbage_from_the_attach_socket(service: FakeService, garbage: bytes) -> None:
    service.garbage_on_attach = garbage
    with pytest.raises((ml.NetworkError, ml.UnknownError)):
        ml.connect(service.directory)


def test_descriptors_that_come_unasked_are_closed(tmp_path: Path) -> None:
    """A reply with too many descriptors must not fill the program's table."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "attach.sock"))
    listener.listen()
    read, write = os.pipe()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            socket.send_fds(connection, [b"\0\0\0\0"], [write] * 3)
            os.close(write)
            connection.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(ml.NetworkError):
        ml.connect(tmp_path)
    thread.join(5)
    listener.close()
    os.set_blocking(read, False)
    assert os.read(read, 1) == b""  # every writing end is closed
    os.close(read)


def test_origins_are_checked() -> None:
    assert checked_origin(derived_origin()) == derived_origin()
    assert checked_origin("x" * ORIGIN_LENGTH)
    for wrong in ("", "x" * (ORIGIN_LENGTH + 1), "a\x1bb", "a\nb", 5):
        with pytest.raises(ml.ConstraintError):
            checked_origin(wrong)  # type: ignore[arg-type]


def test_origin_of_a_program_a_module_and_a_shell(tmp_path: Path) -> None:
    code = "from model_loader._origin import derived_origin; print(derived_origin())"
    script = tmp_path / "pro gram.py"
    script.write_text(code)
    link = tmp_path / "link.py"
    link.symlink_to(script)

    def said(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, check=True
        )
        return done.stdout.decode().strip()

    assert said(str(link)) == f"program:{script.resolve()}"
    assert said("-m", "link") == "module:link"
    assert said("-c", code) == f"interactive:{tmp_path.resolve()}"


def test_long_origin_keeps_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(main, "__file__", "/a" * 1000 + "/end\x1b.py", raising=False)
    origin = derived_origin()
    assert len(origin) == ORIGIN_LENGTH
    assert origin.startswith("program:…")
    assert origin.endswith("/end\\x1b.py")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_platforms_get_one_sentence(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(ml.NotSupportedError, match=f"on {platform}.*Linux container") as caught:
        ml.connect()
    assert str(caught.value).count(". ") == 0


def test_without_the_service_the_error_says_what_to_type(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import importlib.util, sys
        find = importlib.util.find_spec
        missing = set(sys.argv[1].split(","))
        importlib.util.find_spec = lambda name, *_: None if name in missing else find(name)
        import model_loader as ml
        try:
            ml.embed(runtime=sys.argv[2])
        except ml.NotSupportedError as error:
            print(error)
        """
    )

    def said(missing: str, runtime: str = "auto") -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, missing, runtime], stdout=subprocess.PIPE, check=True
        )
        return done.stdout.decode()

    assert "the service is not installed" in said("loader_service")
    assert "pip install 'model-loader[service]'" in said("loader_service")
    assert "a TFLite runtime is not installed" in said("ai_edge_litert,tflite_runtime")
    assert "model-loader[tflite]" in said("tflite_runtime", "tflite-runtime")


def test_embedding_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ml.ConstraintError, match="runtime must be one of"):
        ml.embed(runtime="onnx")
    with pytest.raises(ml.ConstraintError, match="limits must be"):
        ml.embed(limits={"memory_bytes": 5})  # type: ignore[arg-type]
