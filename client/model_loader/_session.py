"""The core of a connection: finding a service and opening a session there."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from model_loader_wire.causes import Failure, printable
from model_loader_wire.limits import Limits
from model_loader_wire.v1 import attach_pb2
from model_loader_wire.v1 import model_loader_pb2 as pb

from . import _embedded, _fork
from ._address import (
    ATTACH_SOCKET,
    Address,
    addresses,
    check_directory,
    check_socket,
    network_address,
    require_linux,
)
from ._attach import AttachConnection, check_listener
from ._effects import Call, Dial, Exclusive, HangUp, InThread, OpenStream, Steps
from ._messages import NAME_LENGTH, failure_of, formats_from, limits_from, row_from
from ._origin import checked_origin
from ._renewal import CALL_SECONDS, MODELS_WENT, RENEWAL_SECONDS, RenewableSession
from ._tls import Credentials, Tls, lasting, tls_of
from ._values import Format, ModelRow, NamedModel
from .errors import (
    ConstraintError,
    InvalidStateError,
    NetworkError,
    SecurityError,
    TimeoutError,
)

PROTOCOL_VERSION = 1


class Closable(Protocol):
    """A model, as its session sees it."""

    model_id: str

    def close(self) -> Steps[None]:
        """End it."""

    def end_with_program(self) -> None:
        """Let calls in other threads end because the program does."""

    def told_lost(self, failure: Failure) -> None:
        """Take in the service's word that its worker has ended."""


class Session(RenewableSession):
    """An open session: what the service said, and what must be held to keep it open."""

    def __init__(
        self,
        opened: pb.Session,
        address: str,
        attach: AttachConnection | None,
        broker: _embedded.EmbeddedBroker | None,
    ) -> None:
        super().__init__()
        self.address = address
        self.attach = attach
        self.broker = broker
        self.token = opened.token.hex()
        self.origin = printable(opened.origin, NAME_LENGTH * 4)
        self.service_version = printable(opened.service_version, NAME_LENGTH)
        self.limits: Limits = limits_from(opened.limits)
        self.layers = tuple(printable(layer, NAME_LENGTH) for layer in opened.layers[:NAME_LENGTH])
        self.closed = False
        self.marks_loaded: set[int] = set()
        """The marks of the models that were loaded (see ``Source``)."""
        self.models_loaded: weakref.WeakSet[Closable] = weakref.WeakSet()
        _sessions.add(self)

    @property
    def relayed(self) -> bool:
        """Whether computations go through the broker."""
        return self.attach is None

    def check_usable(self) -> None:
        """Raise InvalidStateError after a close or in a forked child."""
        _fork.check(self._generation, "connection")
        if self.closed:
            raise InvalidStateError("the connection was closed")

    def formats(self) -> Steps[tuple[Format, ...]]:
        """Ask which formats can be loaded."""
        self.check_usable()
        reply = yield Call("Formats", pb.FormatsRequest(), CALL_SECONDS)
        return formats_from(reply)

    def models(self) -> Steps[tuple[ModelRow, ...]]:
        """Ask for all models of the caller's principal."""
        self.check_usable()
        reply = yield Call("ListModels", pb.ListModelsRequest(), CALL_SECONDS)
        return tuple(row_from(row) for row in reply.models)

    def named_models(self) -> Steps[tuple[NamedModel, ...]]:
        """Ask for the models that can be loaded by name."""
        self.check_usable()
        reply = yield Call("ListNamedModels", pb.ListNamedModelsRequest(), CALL_SECONDS)
        return tuple(
            NamedModel(printable(row.name), row.version, row.sha256.hex(), row.size)
            for row in reply.models
        )

    def told(self, event: pb.SessionEvent | None) -> None:
        """Take in an event of this session, or the end of the events (None)."""
        session = self.heir_of_events()
        if session is None or session.closed:
            return
        session.gone = session.gone or event is None
        for model in list(session.models_loaded):
            if event is None:
                model.told_lost(MODELS_WENT)
            elif event.lost.model_id == model.model_id:
                model.told_lost(failure_of(event.lost.detail))

    def end_with_program(self) -> None:
        """Let what other threads still do here end with InvalidStateError."""
        if not self.closed and self._generation == _fork.current:
            for model in list(self.models_loaded):
                model.end_with_program()
            self.closed = True

    def close(self, owned_broker: _embedded.EmbeddedBroker | None) -> Steps[None]:
        """End the session and its models. Does nothing the second time."""
        if self.closed or self._generation != _fork.current:
            return
        for model in list(self.models_loaded):
            yield from model.close()
        self.closed = True
        if self.open_again is not None:
            with suppress(TimeoutError):  # no opening begins any more, but one may be under way
                yield Exclusive(self.turn, _nothing(), time.monotonic() + RENEWAL_SECONDS)
        yield HangUp()
        if self.attach is not None:
            self.attach.close()
        if owned_broker is not None:
            yield InThread(owned_broker.close)


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _end_all() -> None:
    """Close the sessions before `_embedded` ends their services: what is registered last is first.

    A thread that still computes then learns that its program ends, not that a service is gone.
    """
    for session in list(_sessions):
        session.end_with_program()


atexit.register(_end_all)


def open_session(
    address: str | os.PathLike[str] | None,
    origin: str | None,
    relay: bool,
    broker: _embedded.EmbeddedBroker | None = None,
    credentials: Credentials | None = None,
    *,
    reconnect: bool = False,
) -> Steps[Session]:
    """Find a service (or use `broker`), check it, and open a session there.

    With `reconnect` it can be opened anew at the same place, and no other, by the same checks.
    """
    for option, value in (("relay", relay), ("reconnect", reconnect)):
        if not isinstance(value, bool):
            raise ConstraintError(f"{option} must be True or False, not {value!r}")
    session = yield from _find(address, origin, relay, broker, credentials)
    if reconnect:
        known = session.address if session.broker is None else None
        if known is not None and network_address(known) is not None:
            credentials = lasting(credentials or Credentials())
        session.open_again = partial(_find_again, known, origin, relay, credentials)
    return session


def _find_again(
    address: str | None, origin: str | None, relay: bool, credentials: Credentials | None
) -> Steps[Session]:
    """Find the service at that address, or the program's own one."""
    broker: Any = (yield InThread(_embedded.shared_broker)) if address is None else None
    return (yield from _find(address, origin, relay, broker, credentials))


def _find(
    address: str | os.PathLike[str] | None,
    origin: str | None,
    relay: bool,
    broker: _embedded.EmbeddedBroker | None,
    credentials: Credentials | None,
) -> Steps[Session]:
    name = checked_origin(origin)
    network = network_address(address) if broker is None else None
    tls = tls_of(network, **(credentials or {}))
    if network is not None and tls is not None:
        yield InThread(partial(tls.check, network))
        return (yield from _open_stream(str(network), network.target, name, None, tls))
    require_linux()
    if broker is not None:
        return (yield from _open_at(broker.directory, name, relay, broker))
    for candidate in addresses(address):
        if not _is_there(candidate):
            continue
        try:
            return (yield from _open_at(candidate.directory, name, relay, None))
        except (NetworkError, SecurityError):
            # A daemon that nobody named may be dead, or for others.
            if candidate.explicit:
                raise
    shared: Any = yield InThread(_embedded.shared_broker)
    try:
        return (yield from _open_at(shared.directory, name, relay, shared))
    except NetworkError:
        if not (yield InThread(shared.has_died)):
            raise
    shared = yield InThread(_embedded.shared_broker)
    return (yield from _open_at(shared.directory, name, relay, shared))


def _is_there(candidate: Address) -> bool:
    return candidate.explicit or candidate.directory.is_dir()


def _open_at(
    directory: Path, origin: str, relay: bool, broker: _embedded.EmbeddedBroker | None
) -> Steps[Session]:
    if relay:
        return (yield from _open_relayed(directory, origin, broker))
    pid = broker.pid if broker is not None else None
    check_socket(directory / ATTACH_SOCKET)
    attach: AttachConnection = yield InThread(partial(AttachConnection, directory, broker_pid=pid))
    try:
        welcome: attach_pb2.Welcome = yield InThread(
            partial(attach.hello, PROTOCOL_VERSION, origin)
        )
        check_socket(welcome.grpc_path)
        session = Session(welcome.session, f"unix:{directory}", attach, broker)
        yield Dial(_target(welcome.grpc_path), session.token)
    except BaseException:
        attach.close()
        raise
    return session


def _have_room_made(
    directory: Path, origin: str, broker: _embedded.EmbeddedBroker | None
) -> Steps[None]:
    """Attach for a moment: a service makes the room of a user who comes for the first time."""
    pid = broker.pid if broker is not None else None
    check_socket(directory / ATTACH_SOCKET)
    attach: AttachConnection = yield InThread(partial(AttachConnection, directory, broker_pid=pid))
    try:
        yield InThread(partial(attach.hello, PROTOCOL_VERSION, origin))
    finally:
        attach.close()


def _open_relayed(
    directory: Path, origin: str, broker: _embedded.EmbeddedBroker | None
) -> Steps[Session]:
    # Resolved once: who owns a link on the way could turn it elsewhere between check and use.
    path = directory.resolve() / f"uid-{os.geteuid()}" / "grpc.sock"
    check_directory(path.parents[1])
    if not path.parent.exists():
        yield from _have_room_made(directory, origin, broker)
    check_socket(path)
    yield InThread(partial(check_listener, path))
    return (yield from _open_stream(f"unix:{directory}", _target(str(path)), origin, broker))


def _open_stream(
    address: str,
    target: str,
    origin: str,
    broker: _embedded.EmbeddedBroker | None,
    tls: Tls | None = None,
) -> Steps[Session]:
    """Open a session that lasts as long as its stream: all goes through gRPC."""
    yield Dial(target, "", tls=tls)
    request = pb.OpenSessionRequest(protocol_version=PROTOCOL_VERSION, origin=origin)
    opened: list[weakref.ref[Session]] = []  # the driver must not keep a forgotten one alive

    def told(event: pb.SessionEvent | None) -> None:
        if opened and (session := opened[0]()) is not None:
            session.told(event)

    try:
        event: pb.SessionEvent = yield OpenStream(request, CALL_SECONDS, told)
        if event.WhichOneof("event") != "opened":
            raise NetworkError("the service did not open a session")
        session = Session(event.opened, address, None, broker)
        opened.append(weakref.ref(session))
        yield Dial(target, session.token, tls=tls)
    except GeneratorExit:
        raise  # nobody carries out effects any more
    except BaseException:
        yield HangUp()
        raise
    return session


def _nothing() -> Steps[None]:
    return
    yield  # a generator like its kin: see Exclusive


def _target(path: str) -> str:
    return "unix:" + quote(path)
