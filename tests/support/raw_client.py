"""The service without the client library: gRPC stubs, the attach socket and the channel, raw."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np

from model_loader_wire.data_types import DataType
from model_loader_wire.exchange import Exchange
from model_loader_wire.frames import Entry, Kind, pack_table
from model_loader_wire.v1 import attach_pb2 as attach
from model_loader_wire.v1 import model_loader_pb2 as pb
from model_loader_wire.v1 import model_loader_pb2_grpc as pb_grpc
from tests.shared_models import REPOSITORY
from tests.support.processes import children, describe, wait_until_empty

HANG_SECONDS = 20.0
"""A hang bound, never a measure."""
LENGTH = struct.Struct("<I")
CHUNK = 1 << 20
Metadata = tuple[tuple[str, str], ...]


class Service:
    """A broker process of one's own, started as a program starts it."""

    module = "tests.support.broker_variant"
    """What is run, with that module's arguments."""

    def __init__(
        self, limits: dict[str, float] | None = None, runtime: str = "auto", **settings: object
    ) -> None:
        """Start it and wait until it is ready; `settings` are those of ``broker_variant``."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the service
        self._life, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", self.module, str(theirs.fileno())),
                    json.dumps({"limits": limits or {}, "runtime": runtime}),
                    json.dumps(settings),
                ],
                pass_fds=[theirs.fileno()],
                stderr=self._log,
                cwd=REPOSITORY,
                start_new_session=True,
            )
        self._life.settimeout(HANG_SECONDS)
        line = b""
        while not line.endswith(b"\n"):
            piece = self._life.recv(4096)
            assert piece, f"the broker did not start: {self.log()}"
            line += piece
        self.said: dict[str, Any] = json.loads(line)
        self.pid = self._process.pid
        self.directory = Path(self.said.get("directory", ""))

    def log(self) -> str:
        """What the broker and its children wrote on stderr."""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def zygotes(self) -> list[int]:
        """Living zygotes: they lead sessions of their own, in which their workers stay."""
        return [pid for pid in children(self.pid) if _session_of(pid) == pid]

    def workers(self) -> list[int]:
        """Living workers, and zombies that were not reaped."""
        return [pid for pid in children(self.pid) if _session_of(pid) != pid]

    def wait_for_workers(self, expected: Sequence[int]) -> None:
        """Wait until exactly these workers are left."""

        def others() -> list[int]:
            return sorted(set(self.workers()) ^ set(expected))

        left = wait_until_empty(others, HANG_SECONDS)
        assert not left, f"workers beside {list(expected)}: {describe(left)}"

    def wait_for_zygotes(self, count: int) -> None:
        """Wait until there are so many; one that was killed or has served is there for a moment."""

        def others() -> list[list[int]]:
            found = self.zygotes()
            return [] if len(found) == count else [found]

        left = wait_until_empty(others, HANG_SECONDS)
        assert not left, f"not {count} zygotes: {describe(left[0])}"

    def close(self) -> int:
        """End it as a program's end does; returns the exit status."""
        self._life.close()
        return self._process.wait(HANG_SECONDS)

    def wait(self) -> int:
        """Wait for its own end; returns the exit status."""
        return self._process.wait(HANG_SECONDS)

    def open_files(self) -> list[str]:
        """What the broker has open."""
        found = []
        for descriptor in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                found.append(os.readlink(descriptor))
            except FileNotFoundError:
                continue
        return sorted(found)

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._process.poll()

    def forget(self) -> None:
        """Let go of one that was killed."""
        self._life.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        left = children(self.pid) if self._process.poll() is None else []
        try:
            status = self.close()
            alive = wait_until_empty(lambda: [pid for pid in left if _is_alive(pid)], HANG_SECONDS)
            if kind is None:
                assert status == 0, self.log()
                assert not alive, describe(alive)
                assert not self.directory.exists()
                assert "Traceback" not in self.log(), self.log()
        finally:
            self._process.kill()
            self._process.wait()
            self._log.close()


class AttachConnection:
    """A connection to the attach socket, message by message."""

    def __init__(self, directory: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        # Blocking: a connect that has a timeout does not wait where many others wait already.
        self.socket.connect(str(directory / "attach.sock"))
        self.socket.settimeout(HANG_SECONDS)

    def send(self, request: attach.AttachRequest) -> None:
        """Send one message."""
        data = request.SerializeToString()
        self.socket.sendall(LENGTH.pack(len(data)) + data)

    def receive(self) -> tuple[attach.AttachReply, list[int]]:
        """Receive one message and the descriptors that came with it."""
        data, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 17, 4)
        (length,) = LENGTH.unpack_from(data)
        while len(data) < LENGTH.size + length:
            data += self.socket.recv(1 << 17)
        reply = attach.AttachReply()
        reply.ParseFromString(data[LENGTH.size :])
        return reply, descriptors

    def ask(self, request: attach.AttachRequest) -> attach.AttachReply:
        """Send a message and receive the answer, which brings no descriptor."""
        self.send(request)
        reply, descriptors = self.receive()
        assert not descriptors
        return reply

    def hello(self, origin: str = "test", version: int = 1) -> attach.AttachReply:
        """Open the session."""
        return self.ask(
            attach.AttachRequest(hello=attach.Hello(protocol_version=version, origin=origin))
        )

    def receive_channel(self, model_id: str) -> tuple[attach.AttachReply, list[int]]:
        """Ask for a model's channel."""
        self.send(attach.AttachRequest(receive_channel=attach.ReceiveChannel(model_id=model_id)))
        return self.receive()

    def is_ended(self) -> bool:
        """Wait for the other side to close; False if it sends something instead."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        """Close it: the session ends."""
        self.socket.close()


class RawSession:
    """A session on the attach socket, with its gRPC stub."""

    def __init__(self, directory: Path, origin: str = "test") -> None:
        self.directory = directory
        self.attach = AttachConnection(directory)
        welcome = self.attach.hello(origin).welcome
        self.welcome = welcome
        self.grpc = grpc.insecure_channel(
            f"unix:{welcome.grpc_path}", [("grpc.max_receive_message_length", -1)]
        )
        self.stub = pb_grpc.ModelLoaderStub(self.grpc)  # type: ignore[no-untyped-call]
        self.metadata: Metadata = (("model-loader-session", welcome.session.token.hex()),)

    def load(self, model: bytes, **header: Any) -> pb.LoadReply:
        """Load a model in one piece."""
        return self.send_load(load_parts(model, **header))

    def send_load(self, parts: Iterator[pb.LoadRequest]) -> pb.LoadReply:
        """Send any parts as a load."""
        reply: pb.LoadReply = self.stub.Load(parts, metadata=self.metadata, timeout=HANG_SECONDS)
        return reply

    def begin_load(self, model: bytes, **header: Any) -> Any:
        """Begin to load a model in one piece; gives gRPC's future of the reply."""
        parts = load_parts(model, **header)
        return self.stub.Load.future(parts, metadata=self.metadata, timeout=HANG_SECONDS)

    def channel(self, model_id: str) -> socket.socket:
        """Take a model's channel."""
        reply, descriptors = self.attach.receive_channel(model_id)
        assert reply.WhichOneof("reply") == "channel", reply
        (descriptor,) = descriptors
        channel = socket.socket(fileno=descriptor)
        channel.settimeout(HANG_SECONDS)
        return channel

    def call(self, name: str, request: Any) -> Any:
        """Make a unary call in this session."""
        return getattr(self.stub, name)(request, metadata=self.metadata, timeout=HANG_SECONDS)

    def compute(self, model_id: str, *arrays: np.ndarray[Any, Any], **more: Any) -> pb.ComputeReply:
        """Compute over gRPC."""
        reply: pb.ComputeReply = self.call(
            "Compute",
            pb.ComputeRequest(model_id=model_id, inputs=[message_of(x) for x in arrays], **more),
        )
        return reply

    def models(self) -> list[str]:
        """The ids of the principal's living models."""
        return [row.model_id for row in self.call("ListModels", pb.ListModelsRequest()).models]

    def close(self) -> None:
        """End the session."""
        self.attach.close()
        self.grpc.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def load_parts(
    model: bytes, *, sha256: bytes | None = None, size: int | None = None, **header: Any
) -> Iterator[pb.LoadRequest]:
    """Yield the messages of a load."""
    header.setdefault("model_format", "tflite")
    size = len(model) if size is None else size
    yield pb.LoadRequest(header=pb.LoadHeader(size=size, **header))
    for start in range(0, len(model), CHUNK):
        yield pb.LoadRequest(chunk=model[start : start + CHUNK])
    digest = hashlib.sha256(model).digest() if sha256 is None else sha256
    yield pb.LoadRequest(trailer=pb.LoadTrailer(sha256=digest))


def data_type_of(array: np.ndarray[Any, Any]) -> DataType:
    """The contract's data type of an array."""
    return DataType[array.dtype.name.upper()]


def message_of(array: np.ndarray[Any, Any]) -> pb.Tensor:
    """An array as a message."""
    return pb.Tensor(
        data_type=int(data_type_of(array)),  # type: ignore[arg-type]
        dimensions=array.shape,
        data=array.tobytes(),
    )


def exchange_over(
    channel: socket.socket, arrays: Sequence[np.ndarray[Any, Any]], *, signature: int = 0
) -> Exchange:
    """Compute on a channel; the sequence number is a clock's."""
    return drive(channel, request_of(arrays, signature=signature))


def request_of(arrays: Sequence[np.ndarray[Any, Any]], *, signature: int = 0) -> Exchange:
    """Write a computation's request."""
    entries = [Entry(data_type_of(x), x.shape, x.nbytes) for x in arrays]
    return Exchange(
        Kind.COMPUTE,
        time.monotonic_ns(),
        signature=signature,
        table=pack_table(entries),
        payload=[x.tobytes() for x in arrays],
        most=1 << 30,
    )


def drive(channel: socket.socket, exchange: Exchange) -> Exchange:
    """Send a request and receive its reply."""
    send(channel, exchange)
    return receive(channel, exchange)


def send(channel: socket.socket, exchange: Exchange) -> None:
    """Send a request."""
    while exchange.unsent:
        exchange.sent(channel.sendmsg(exchange.outgoing))


def receive(channel: socket.socket, exchange: Exchange) -> Exchange:
    """Receive the reply to a request."""
    while not exchange.done:
        exchange.received(channel.recv_into(exchange.space()))
    return exchange


def detail_of(error: grpc.RpcError) -> pb.ErrorDetail:
    """The ErrorDetail of a failed call; it must carry one."""
    metadata: Any = error.trailing_metadata()
    values = dict(metadata or ())
    assert "model-loader-error-bin" in values, f"no detail: {error}"
    detail = pb.ErrorDetail()
    detail.ParseFromString(values["model-loader-error-bin"])
    return detail


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
