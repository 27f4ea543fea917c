"""Finding a service, and opening a session there."""

from __future__ import annotations

import os
import weakref
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from model_loader_wire.v1 import attach_pb2
from model_loader_wire.v1 import model_loader_pb2 as pb

from . import _embedded
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
from ._effects import Dial, HangUp, InThread, OpenStream, Steps
from ._origin import checked_origin
from ._renewal import CALL_SECONDS
from ._session import Session
from ._tls import Credentials, Tls, lasting, tls_of
from .errors import ConstraintError, NetworkError, SecurityError

PROTOCOL_VERSION = 1


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
    # Its socket, and not the room: a service opens that last, once all is in it.
    if not os.path.lexists(path):
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


def _target(path: str) -> str:
    return "unix:" + quote(path)
