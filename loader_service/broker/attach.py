"""The attach socket: who is calling (by the kernel's word), and handing out channels."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from google.protobuf.message import DecodeError

from loader_service.broker.descriptors import OF_A_CONNECTION, Descriptors
from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import ConnectionRefused
from loader_service.broker.messages import failure_to_message
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal, over_limit, refuse
from loader_service.broker.servicer import check_version
from loader_service.broker.sessions import Session, Sessions
from loader_service.broker.settings import Settings
from loader_service.broker.waiting import readable
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.v1 import attach_pb2 as attach
from model_loader_wire.v1 import model_loader_pb2 as pb

LENGTH = struct.Struct("<I")
MESSAGE_LENGTH = 65536
CREDENTIALS = struct.Struct("iII")
ACCEPT_PAUSE_SECONDS = 0.1
STRANGERS = -1

log = logging.getLogger("model_loader.attach")

Welcome = Callable[[Session], Awaitable[attach.Welcome]]
Offer = Callable[[Session, int, int], bytes]
"""Takes over a descriptor of so many bytes; gives the offer's name, or raises Refusal."""


class AttachServer:
    """Accepts local clients; a session lives as long as its connection."""

    def __init__(
        self,
        path: str,
        settings: Settings,
        principals: Principals,
        descriptors: Descriptors,
        sessions: Sessions,
        welcome: Welcome,
        offer: Offer,
        events: EventStream,
    ) -> None:
        self._settings = settings
        self._principals = principals
        self._descriptors = descriptors
        self._sessions = sessions
        self._welcome = welcome
        self._offer = offer
        self._events = events
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: Counter[int] = Counter()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.bind(path)
        # Anybody may knock; who may come in is decided by uid.
        os.chmod(path, 0o666)
        # As many as the kernel lets: one user must not fill the queue in which others wait, too.
        self._socket.listen(socket.SOMAXCONN)

    async def serve(self) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            # One who connects without end must not keep the loop from all else.
            await asyncio.sleep(0)
            try:
                connection, _ = await loop.sock_accept(self._socket)
            except OSError as error:
                # Out of descriptors, or a client that left while it was being accepted.
                log.warning("a client could not be accepted: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            _, uid, _ = CREDENTIALS.unpack(
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            )
            # Counted for each user, strangers together, so that none takes another's place.
            counted = uid if self._may_enter(uid) else STRANGERS
            try:
                self._count(counted)
            except Refusal as refusal:
                self._events.tell(ConnectionRefused(user=uid, failure=refusal.failure))
                _turn_away(connection, refusal)
                continue
            task = asyncio.create_task(self._client(connection, uid))
            self._tasks.add(task)
            task.add_done_callback(partial(self._over, counted))

    async def stop(self) -> None:
        """Close the socket and every session on it; after `serve` was cancelled."""
        self._socket.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _count(self, counted: int) -> None:
        """Count a connection; raises Refusal if there are too many, and then counts nothing."""
        settings, what = self._principals.settings, "too many connections to the attach socket"
        for limit, held, most in (
            ("attach_connections", self._connections[counted], settings.attach_connections),
            (
                "total_attach_connections",
                self._connections.total(),
                settings.total_attach_connections,
            ),
        ):
            if held + 1 > most:
                raise over_limit(limit, held + 1, most, what)
        self._descriptors.take(counted, OF_A_CONNECTION)
        self._connections[counted] += 1

    def _may_enter(self, uid: int) -> bool:
        return self._principals.may_attach(uid)

    def _over(self, counted: int, task: asyncio.Task[None]) -> None:
        self._connections[counted] -= 1
        self._descriptors.give_back(counted, OF_A_CONNECTION)
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an attached client's connection failed", exc_info=error)

    async def _client(self, connection: socket.socket, uid: int) -> None:
        """Serve one connection; the session that is opened on it ends with it."""
        session: Session | None = None
        try:
            connection.setblocking(False)
            session = await self._open(connection, uid)
            if session is None:
                return
            welcome = await self._welcome(session)
            await _send(connection, attach.AttachReply(welcome=welcome))
            while True:
                descriptors: list[int] = []
                try:
                    request = await _receive(connection, descriptors)
                    await self._answer(connection, session, request, descriptors)
                finally:
                    for descriptor in descriptors:
                        os.close(descriptor)
        except (EOFError, ValueError, TimeoutError, ConnectionError, BlockingIOError):
            return
        finally:
            connection.close()
            if session is not None:
                await asyncio.shield(self._sessions.close(session))

    async def _open(self, connection: socket.socket, uid: int) -> Session | None:
        """Open the session that the first message asks for, or say why not."""
        try:
            async with asyncio.timeout(self._settings.handshake_seconds):
                request = await _receive(connection)
            self._principals.require(uid)
            if request.WhichOneof("request") != "hello":
                raise refuse(Cause.INVALID_INPUT, "a client says hello first")
            check_version(request.hello.protocol_version)
            return self._sessions.open(uid, request.hello.origin)
        except Refusal as refusal:
            self._events.tell(ConnectionRefused(user=uid, failure=refusal.failure))
            await _send(connection, _error(refusal.failure))
            return None

    async def _answer(
        self,
        connection: socket.socket,
        session: Session,
        request: attach.AttachRequest,
        descriptors: list[int],
    ) -> None:
        try:
            if request.WhichOneof("request") == "offer_model":
                if len(descriptors) != 1:
                    raise refuse(Cause.INVALID_INPUT, "an offer comes with one descriptor")
                name = self._offer(session, descriptors.pop(), request.offer_model.size)
                offered = attach.Offered(offer=name)
                await _send(connection, attach.AttachReply(offered=offered))
                return
            if request.WhichOneof("request") != "receive_channel":
                raise refuse(
                    Cause.INVALID_INPUT,
                    "only channels can be asked for, and models be offered, here",
                )
            model = session.model(request.receive_channel.model_id)
            channel = model.take_channel()
        except Refusal as refusal:
            await _send(connection, _error(refusal.failure))
            return
        reply = attach.AttachReply(channel=attach.Channel(model_id=model.model_id))
        with channel:
            data = reply.SerializeToString()
            sent = socket.send_fds(connection, [LENGTH.pack(len(data)) + data], [channel.fileno()])
            if sent != LENGTH.size + len(data):
                raise ConnectionError("the client does not read its replies")


async def _receive(
    connection: socket.socket, descriptors: list[int] | None = None
) -> attach.AttachRequest:
    """Read one message; raises EOFError at the end, ValueError for what is none.

    A descriptor that comes with it is put into `descriptors`; without that list, and if there are
    more, the kernel drops it.
    """
    (length,) = LENGTH.unpack(await _read(connection, LENGTH.size, descriptors))
    if length > MESSAGE_LENGTH:
        raise ValueError(f"a message of {length} bytes is longer than {MESSAGE_LENGTH}")
    data = await _read(connection, length, descriptors)
    request = attach.AttachRequest()
    try:
        request.ParseFromString(data)
    except DecodeError as error:
        raise ValueError("the bytes are no message") from error
    return request


async def _read(
    connection: socket.socket, count: int, descriptors: list[int] | None = None
) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        if descriptors is None or descriptors:
            piece = await loop.sock_recv(connection, count - len(data))
        else:
            try:
                piece, found, _, _ = socket.recv_fds(
                    connection, count - len(data), 1, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                await readable(connection)
                continue
            descriptors += found
        if not piece:
            raise EOFError
        data += piece
    return data


async def _send(connection: socket.socket, reply: attach.AttachReply) -> None:
    data = reply.SerializeToString()
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, LENGTH.pack(len(data)) + data)


def _turn_away(connection: socket.socket, refusal: Refusal) -> None:
    """Say why, to a client that may not even be listening, and close the connection."""
    data = _error(refusal.failure).SerializeToString()
    with connection, suppress(OSError):
        connection.setblocking(False)
        connection.send(LENGTH.pack(len(data)) + data)


def _error(failure: Failure) -> attach.AttachReply:
    detail: pb.ErrorDetail = failure_to_message(failure)
    return attach.AttachReply(error=detail)
