"""A service made of threads: real gRPC, real attach socket, real channels, models on order."""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc

from model_loader._blocking_channel import BlockingChannel
from model_loader_wire.causes import TABLE, Cause, Failure
from model_loader_wire.data_types import DataType
from model_loader_wire.description import SignatureDescription, TensorDescription
from model_loader_wire.exchange import Exchange
from model_loader_wire.frames import Entry, Kind, pack_table
from model_loader_wire.limits import DEFAULT_LIMITS, Limits
from model_loader_wire.v1 import attach_pb2
from model_loader_wire.v1 import model_loader_pb2 as pb
from model_loader_wire.v1.model_loader_pb2_grpc import (
    ModelLoaderServicer,
    add_ModelLoaderServicer_to_server,
)
from tests.client import workers
from tests.client.workers import Behaviour

TOKEN = b"token-of-a-session"
ERROR_KEY = "model-loader-error-bin"
SESSION_KEY = "model-loader-session"


def tensor(
    name: str, data_type: DataType, dimensions: tuple[int | None, ...] | None
) -> TensorDescription:
    """Describe a tensor; its byte length is worked out where it has one."""
    length = None
    if data_type.element_size is not None and dimensions is not None and None not in dimensions:
        length = data_type.element_size
        for size in dimensions:
            length *= size or 0
    return TensorDescription(name, data_type, dimensions, length)


def signature(
    inputs: list[TensorDescription], outputs: list[TensorDescription], name: str = ""
) -> SignatureDescription:
    """Describe a signature; the default one has no name."""
    return SignatureDescription(name, tuple(inputs), tuple(outputs))


def echoing(*tensors: TensorDescription) -> list[SignatureDescription]:
    """Describe a model whose outputs are its inputs."""
    outputs = [
        TensorDescription("out:" + item.name, item.data_type, item.dimensions, item.byte_length)
        for item in tensors
    ]
    return [signature(list(tensors), outputs)]


@dataclass
class FakeModel:
    """What a file of some content is when it is loaded."""

    signatures: list[SignatureDescription]
    behave: Behaviour = workers.echo
    verdict: Failure = field(default_factory=lambda: Failure(Cause.CRASHED, "it crashed"))


@dataclass
class Loaded:
    """A model in the service."""

    model: FakeModel
    worker: threading.Thread
    theirs: socket.socket | None
    relay: BlockingChannel | None
    verdict: Failure | None = None
    sequence: int = 0


class FakeService(ModelLoaderServicer):
    """Listens in a directory of its own while the ``with`` block lasts."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self.files: dict[bytes, FakeModel] = {}
        self.loaded: dict[str, Loaded] = {}
        self.calls: list[tuple[str, Any]] = []
        self.hellos: list[attach_pb2.Hello] = []
        self.tokens: set[str] = set()
        self.refuse: Failure | None = None
        self.damage_digest = False
        self.offers: dict[bytes, bytes] = {}
        self.held: dict[bytes, bytes] = {}
        self.grpc_mode = 0o700
        self.garbage_on_attach = b""
        self.token = TOKEN
        self.keeps_state = False
        self._workers_end: dict[str, socket.socket] = {}
        self._attached: list[socket.socket] = []
        self._numbers = itertools.count()  # loads may come at the same time
        self._folder = tempfile.TemporaryDirectory(prefix="fake-", ignore_cleanup_errors=True)
        self.directory = Path(self._folder.name)

    def __enter__(self) -> Self:
        principal = self.directory / f"uid-{os.getuid()}"
        principal.mkdir(mode=0o700)
        self.grpc_path = principal / "grpc.sock"
        self._server = grpc.server(
            ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", -1)]
        )
        add_ModelLoaderServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._server.add_insecure_port(f"unix:{self.grpc_path}")
        self._server.start()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.directory / "attach.sock"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for loaded in self.loaded.values():
            if loaded.relay is not None:
                loaded.relay.stop()
            elif loaded.theirs is not None:
                loaded.theirs.close()
        self.stop_grpc()
        self._folder.cleanup()

    def stop_grpc(self) -> None:
        """Let the control plane go away."""
        self._server.stop(0).wait()

    def restart(self) -> None:
        """Know nothing of sessions and models any more, as one that was started anew."""
        self.token += b"'"
        for connection in self._attached:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for end in self._workers_end.values():
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def methods(self) -> list[str]:
        """Return the names of the methods that were called."""
        return [method for method, _ in self.calls]

    def kill(self, model_id: str, verdict: Failure) -> None:
        """End a worker that may be idle."""
        loaded = self.loaded[model_id]
        loaded.verdict = verdict
        # The client has its copy a moment before the copy here is closed, by another thread.
        while loaded.theirs is not None:
            time.sleep(0.001)
        self._workers_end[model_id].shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._attached.append(connection)
            threading.Thread(target=self._attach, args=(connection,), daemon=True).start()

    def _attach(self, connection: socket.socket) -> None:
        with connection:
            while True:
                given: list[int] = []
                try:
                    head, given, _, _ = socket.recv_fds(connection, 4, 1)
                    head += bytes(workers.read_exactly(connection, 4 - len(head)))
                    (length,) = struct.unpack("<I", head)
                    data = bytes(workers.read_exactly(connection, length))
                except (workers.Ended, OSError):
                    return
                request = attach_pb2.AttachRequest.FromString(data)
                descriptors: list[int] = []
                if self.garbage_on_attach:
                    connection.sendall(self.garbage_on_attach)
                    return
                if self.refuse is not None:
                    reply = attach_pb2.AttachReply(error=_detail(self.refuse))
                elif request.WhichOneof("request") == "hello":
                    self.hellos.append(request.hello)
                    reply = attach_pb2.AttachReply(
                        welcome=attach_pb2.Welcome(
                            session=self._session(request.hello.origin),
                            grpc_path=str(self.grpc_path),
                        )
                    )
                elif request.WhichOneof("request") == "offer_model":
                    (memory,) = given
                    name = self._offer(os.pread(memory, request.offer_model.size, 0))
                    os.close(memory)
                    reply = attach_pb2.AttachReply(offered=attach_pb2.Offered(offer=name))
                else:
                    model_id = request.receive_channel.model_id
                    loaded = self.loaded[model_id]
                    assert loaded.theirs is not None
                    descriptors = [loaded.theirs.fileno()]
                    reply = attach_pb2.AttachReply(channel=attach_pb2.Channel(model_id=model_id))
                text = reply.SerializeToString()
                socket.send_fds(connection, [struct.pack("<I", len(text)) + text], descriptors)
                if descriptors:
                    assert loaded.theirs is not None
                    loaded.theirs.close()
                    loaded.theirs = None

    def _offer(self, content: bytes) -> bytes:
        name = b"offer %d" % len(self.offers)
        self.offers[name] = content
        return name

    def _session(self, origin: str) -> pb.Session:
        return pb.Session(
            token=self.token,
            origin=origin,
            service_version="0.fake",
            limits=_limits(self.limits),
            layers=["seccomp", "no-new-privileges"],
        )

    def _note(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        metadata = dict(context.invocation_metadata())
        self.tokens.add(str(metadata.get(SESSION_KEY)))
        self.calls.append((method, request))
        if metadata.get(SESSION_KEY) != self.token.hex():
            _abort(context, Failure(Cause.FORBIDDEN, "no such session"))

    # The service's methods.

    def OpenSession(  # noqa: N802
        self, request: pb.OpenSessionRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.SessionEvent]:
        self.calls.append(("OpenSession", request))
        if self.refuse is not None:
            _abort(context, self.refuse)
        yield pb.SessionEvent(opened=self._session(request.origin))
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait()

    def Formats(  # noqa: N802
        self, request: pb.FormatsRequest, context: grpc.ServicerContext
    ) -> pb.FormatsReply:
        self._note("Formats", request, context)
        return pb.FormatsReply(formats=[pb.Format(name="tflite", versions=["3"])])

    def Load(  # noqa: N802
        self, request_iterator: Iterator[pb.LoadRequest], context: grpc.ServicerContext
    ) -> pb.LoadReply:
        header, content, trailer = pb.LoadHeader(), b"", b""
        for part in request_iterator:
            match part.WhichOneof("part"):
                case "header":
                    header = part.header
                    self._note("Load", header, context)
                case "chunk":
                    content += part.chunk
                case "trailer":
                    trailer = part.trailer.sha256
        if header.offer:
            content = self.offers[header.offer]
        digest = hashlib.sha256(content).digest()
        assert digest == trailer or header.offer
        self.held[digest] = content
        model = self.files.get(content)
        if model is None:
            raise _abort(context, Failure(Cause.INVALID_MODEL, "not a TFLite file"))
        model_id = f"model-{next(self._numbers)}"
        theirs, ours = socket.socketpair()
        self._workers_end[model_id] = ours
        worker = threading.Thread(target=self._work, args=(model_id, ours, model), daemon=True)
        relay = BlockingChannel(theirs) if header.relayed else None
        self.loaded[model_id] = Loaded(model, worker, None if relay else theirs, relay)
        worker.start()
        return pb.LoadReply(
            model_id=model_id,
            sha256=bytes(32) if self.damage_digest else digest,
            description=_description(model, self.keeps_state),
            isolation=pb.Isolation(
                layers=["seccomp"],
                missing=[pb.MissingLayer(layer="landlock", reason="an old kernel")],
                memory_held_by="cgroup-v2",
                worker_pid=4242,
            ),
            limits=_limits(self._limits_of(header)),
        )

    def FindModel(  # noqa: N802
        self, request: pb.FindModelRequest, context: grpc.ServicerContext
    ) -> pb.FindModelReply:
        self._note("FindModel", request, context)
        content = self.held.get(request.sha256)
        return pb.FindModelReply(offer=b"" if content is None else self._offer(content))

    def Inspect(  # noqa: N802
        self, request_iterator: Iterator[pb.LoadRequest], context: grpc.ServicerContext
    ) -> pb.InspectReply:
        content = b"".join(part.chunk for part in request_iterator)
        return pb.InspectReply(
            summary='{"operators": ["ADD"]}', sha256=hashlib.sha256(content).digest()
        )

    def Compute(  # noqa: N802
        self, request: pb.ComputeRequest, context: grpc.ServicerContext
    ) -> pb.ComputeReply:
        self._note("Compute", request, context)
        loaded = self.loaded[request.model_id]
        assert loaded.relay is not None
        entries = [
            Entry(DataType(item.data_type), tuple(item.dimensions), len(item.data))
            for item in request.inputs
        ]
        loaded.sequence += 1
        exchange = Exchange(
            Kind.COMPUTE,
            loaded.sequence,
            signature=request.signature,
            table=pack_table(entries),
            payload=[item.data for item in request.inputs],
            most=1 << 30,
        )
        try:
            loaded.relay.run(exchange, None)
        except Exception:
            known = dict(context.invocation_metadata())[SESSION_KEY] == self.token.hex()
            closed = Failure(Cause.CLOSED, "the session was closed")
            loaded.verdict = loaded.model.verdict if known else closed
            _abort(context, loaded.verdict, lost=True)
        if exchange.failure is not None:
            _abort(context, exchange.failure)
        return pb.ComputeReply(
            outputs=[
                pb.Tensor(
                    data_type=int(entry.data_type),  # type: ignore[arg-type]
                    dimensions=entry.dimensions,
                    data=bytes(data),
                )
                for entry, data in zip(exchange.entries, exchange.tensors, strict=True)
            ]
        )

    def Reset(  # noqa: N802
        self, request: pb.ResetRequest, context: grpc.ServicerContext
    ) -> pb.ResetReply:
        self._note("Reset", request, context)
        return pb.ResetReply()

    def CloseModel(  # noqa: N802
        self, request: pb.CloseModelRequest, context: grpc.ServicerContext
    ) -> pb.CloseModelReply:
        self._note("CloseModel", request, context)
        relay = self.loaded[request.model_id].relay
        if relay is not None:
            relay.stop()
        return pb.CloseModelReply()

    def GetModel(  # noqa: N802
        self, request: pb.GetModelRequest, context: grpc.ServicerContext
    ) -> pb.ModelState:
        self._note("GetModel", request, context)
        loaded = self.loaded[request.model_id]
        loaded.worker.join(request.wait_seconds)
        verdict = loaded.verdict
        state = pb.ModelState(model_id=request.model_id, lost=verdict is not None)
        if verdict is not None:
            state.detail.CopyFrom(_detail(verdict, lost=True))
        return state

    def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsReply:
        self._note("ListModels", request, context)
        return pb.ListModelsReply(
            models=[
                pb.ModelRow(model_id=model_id, origin="here", label="\x1b[31mred", calls=3)
                for model_id in self.loaded
            ]
        )

    def _work(self, model_id: str, channel: socket.socket, model: FakeModel) -> None:
        workers.serve(channel, model.behave)
        loaded = self.loaded[model_id]
        loaded.verdict = loaded.verdict or loaded.model.verdict

    def _limits_of(self, header: pb.LoadHeader) -> Limits:
        wish = {item.name: value for item, value in header.limits.ListFields()}
        return self.limits.lowered_by(Limits.from_values(wish))


def _detail(failure: Failure, lost: bool = False) -> pb.ErrorDetail:
    return pb.ErrorDetail(
        cause=failure.cause,
        message=failure.message,
        limit=failure.limit,
        value=failure.value,
        maximum=failure.maximum,
        last_words=failure.last_words,
        model_lost=lost,
    )


def _limits(limits: Limits) -> pb.Limits:
    message = pb.Limits()
    for name, value in limits.set_values().items():
        setattr(message, name, value)
    return message


def _abort(context: grpc.ServicerContext, failure: Failure, lost: bool = False) -> Exception:
    """End the call (``context.abort`` raises, so this never returns)."""
    detail = _detail(failure, lost).SerializeToString()
    context.set_trailing_metadata(((ERROR_KEY, detail),))
    context.abort(grpc.StatusCode[TABLE[failure.cause].grpc_code], failure.message)
    raise AssertionError("abort() raises")


def _description(model: FakeModel, keeps_state: bool) -> pb.Description:
    def infos(tensors: tuple[TensorDescription, ...]) -> list[pb.TensorInfo]:
        return [
            pb.TensorInfo(
                name=item.name,
                data_type=int(item.data_type),  # type: ignore[arg-type]
                rank_known=item.dimensions is not None,
                dimensions=[-1 if size is None else size for size in item.dimensions or ()],
                byte_length=item.byte_length,
            )
            for item in tensors
        ]

    return pb.Description(
        runtime="fake 1",
        kernels="builtin",
        threads=1,
        keeps_state=keeps_state,
        signatures=[
            pb.Signature(name=item.name, inputs=infos(item.inputs), outputs=infos(item.outputs))
            for item in model.signatures
        ],
    )
