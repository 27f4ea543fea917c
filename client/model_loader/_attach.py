"""The attach connection: it opens a session and takes in the descriptors of channels."""

from __future__ import annotations

import os
import socket
import struct
import threading
import weakref
from contextlib import suppress
from pathlib import Path

from google.protobuf.message import DecodeError

from model_loader_wire.system_service import ACCOUNT
from model_loader_wire.v1 import attach_pb2 as pb

from . import _fork
from ._address import ATTACH_SOCKET, INSTEAD, is_trusted
from ._ends import has_gone, shut_down
from ._messages import failure_of
from .errors import NetworkError, SecurityError, from_failure

MESSAGE_LENGTH = 1 << 20
"""Longest message that is read from the service, in bytes."""
ANSWER_SECONDS = 10.0
"""A live service answers within this time."""
CONNECT_TIME = struct.pack("@ll", int(ANSWER_SECONDS), 0)
"""The same as the kernel's timeval."""
LENGTH = struct.Struct("<I")
CREDENTIALS = struct.Struct("3i")


class AttachConnection:
    """One connection to the attach socket. Blocking, one conversation at a time."""

    def __init__(self, directory: Path, *, broker_pid: int | None = None) -> None:
        """Connect, and check who listens there before a byte is sent.

        `broker_pid` is the process that must be listening, where it is known.
        """
        self.directory = directory
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._generation = _fork.current
        self._finalizer = weakref.finalize(self, self._socket.close)
        _fork.close_in_child(self)
        try:
            # With a timeout of Python's a connect would fail at once where others wait, too.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, CONNECT_TIME)
            self._socket.connect(str(directory / ATTACH_SOCKET))
            self._socket.settimeout(ANSWER_SECONDS)
            self._check_server(broker_pid)
        except OSError as error:
            self.close()
            raise NetworkError(
                f"no Model Loader service answers at {directory}: {error.strerror or error}; start "
                "model-loaderd, or leave the address out to get a private one"
            ) from None
        except BaseException:
            self.close()
            raise

    def hello(self, protocol_version: int, origin: str) -> pb.Welcome:
        """Open the session."""
        hello = pb.Hello(protocol_version=protocol_version, origin=origin)
        reply, descriptors = self._ask(pb.AttachRequest(hello=hello))
        _close_all(descriptors)
        if reply.WhichOneof("reply") != "welcome":
            raise NetworkError("the service answered a greeting with something else")
        return reply.welcome

    def receive_channel(self, model_id: str) -> socket.socket:
        """Take the direct channel of a model; works once for each model."""
        request = pb.AttachRequest(receive_channel=pb.ReceiveChannel(model_id=model_id))
        reply, descriptors = self._ask(request)
        if reply.WhichOneof("reply") != "channel" or len(descriptors) != 1:
            _close_all(descriptors)
            raise NetworkError("the service did not hand over the model's channel")
        return socket.socket(fileno=descriptors[0])

    def offer(self, descriptor: int, size: int) -> bytes:
        """Offer sealed memory that holds a model; gives its name for the load."""
        request = pb.AttachRequest(offer_model=pb.OfferModel(size=size))
        reply, descriptors = self._ask(request, descriptor)
        _close_all(descriptors)
        if reply.WhichOneof("reply") != "offered":
            raise NetworkError("the service answered an offer with something else")
        return reply.offered.offer

    def has_ended(self) -> bool:
        """Look, without waiting, whether the service has ended the session, or itself."""
        return has_gone(self._socket)

    def close(self) -> None:
        """Close the socket, which ends the session; safe at any time and more than once."""
        shut_down(self._socket)  # a thread in a conversation goes on
        with self._lock:
            self._finalizer()

    def close_descriptor(self) -> None:
        """Close this process's copy only (used in a forked child)."""
        self._socket.close()

    def _check_server(self, broker_pid: int | None) -> None:
        pid, uid = _listener(self._socket)
        _check_uid(uid, self.directory)
        if broker_pid is not None and pid != broker_pid:
            raise SecurityError(
                f"process {pid} listens at {self.directory}, not the private service {broker_pid}"
            )

    def _ask(self, request: pb.AttachRequest, *given: int) -> tuple[pb.AttachReply, list[int]]:
        with self._lock:
            try:
                message = request.SerializeToString()
                data = LENGTH.pack(len(message)) + message
                # A service that turns a client away says why before it is asked, and leaves.
                with suppress(ConnectionError):
                    sent = socket.send_fds(self._socket, [data], given) if given else 0
                    self._socket.sendall(data[sent:])
                reply, descriptors = self._read()
            except BaseException as error:
                # Half a conversation cannot be carried on: the session ends with its connection.
                self._finalizer()
                if isinstance(error, OSError):
                    raise NetworkError(
                        "the Model Loader service ended, or did not answer within "
                        f"{ANSWER_SECONDS:g} s: {error.strerror or error}"
                    ) from None
                raise
        if reply.WhichOneof("reply") == "error":
            _close_all(descriptors)
            raise from_failure(failure_of(reply.error))
        return reply, descriptors

    def _read(self) -> tuple[pb.AttachReply, list[int]]:
        descriptors: list[int] = []
        try:
            (length,) = LENGTH.unpack(self._read_exactly(LENGTH.size, descriptors))
            if length > MESSAGE_LENGTH:
                raise NetworkError(f"a message of {length} bytes from the service is too long")
            return pb.AttachReply.FromString(self._read_exactly(length, descriptors)), descriptors
        except BaseException as error:
            _close_all(descriptors)
            if isinstance(error, DecodeError):
                raise NetworkError("the service's message cannot be read") from None
            raise

    def _read_exactly(self, length: int, descriptors: list[int]) -> bytes:
        data = b""
        while len(data) < length:
            piece, found, _, _ = socket.recv_fds(self._socket, length - len(data), 4)
            descriptors += found
            if not piece:
                raise ConnectionResetError("the connection ended")
            data += piece
        return data


def check_listener(path: Path) -> None:
    """Check who listens on a socket whose credentials its user cannot see, as gRPC cannot.

    Connects, sends nothing, and leaves. Raises SecurityError, NetworkError where nobody answers.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(ANSWER_SECONDS)
        try:
            probe.connect(str(path))
            _, uid = _listener(probe)
        except OSError as error:
            raise NetworkError(
                f"no Model Loader service answers at {path.parent}: {error.strerror or error}"
            ) from None
    _check_uid(uid, path.parent)


def _listener(connected: socket.socket) -> tuple[int, int]:
    """The process and the uid that began to listen, by the kernel's word."""
    data = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, _ = CREDENTIALS.unpack(data)
    return pid, uid


def _check_uid(uid: int, directory: Path) -> None:
    if not is_trusted(uid):
        raise SecurityError(
            f"the service at {directory} runs as uid {uid}; only your own uid, root and the "
            f"system's account {ACCOUNT!r} are trusted: {INSTEAD}"
        )


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
