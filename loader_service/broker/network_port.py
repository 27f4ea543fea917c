"""The TCP port: TLS, who calls, and for each of them the same methods as on a user's own socket.

One server serves all clients, because TLS knows them only once they have connected. So each call
is identified before its message is read, and goes on to what that client alone has: its counts, and
a servicer that knows no other principal.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import grpc

from loader_service.broker.edge import Context, abort
from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import ConnectionRefused
from loader_service.broker.identification import client_of
from loader_service.broker.method_names import make_server
from loader_service.broker.network_client import STRANGER
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal
from loader_service.broker.tcp_settings import Credentials, Tcp

log = logging.getLogger("model_loader.network")

KEEPALIVE_ANSWER_SECONDS = 20
"""How long a silent client has to give a sign of life."""
AGE_GRACE_SECONDS = 10
"""How long calls may go on after their connection's age was reached."""

Handler = Any
"""A grpc.RpcMethodHandler, which gRPC does not type."""
Methods = dict[str, Handler]
"""By their whole names: ``/model_loader.v1.ModelLoader/Load``."""


class Collected:
    """Stands for a server when generated code adds a service: keeps the methods."""

    def __init__(self) -> None:
        self.methods: Methods = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Take no notice: the same methods come by name."""

    def add_registered_method_handlers(self, service: str, methods: Methods) -> None:
        """Keep the methods of a service; generated ones that nobody wrote are no coroutines."""
        self.methods |= {
            f"/{service}/{name}": method
            for name, method in methods.items()
            if any(map(inspect.iscoroutinefunction, _behaviours(method)))
        }


def _behaviours(method: Handler) -> tuple[object, ...]:
    return (method.unary_unary, method.unary_stream, method.stream_unary, method.stream_stream)


class NetworkPort:
    """The server of all clients of the network."""

    def __init__(
        self,
        tcp: Tcp,
        principals: Principals,
        events: EventStream,
        methods_of: Callable[[int], tuple[Collected, Sequence[grpc.aio.ServerInterceptor]]],  # type: ignore[type-arg]
        options: Sequence[tuple[str, int]],
    ) -> None:
        """`methods_of` makes a principal's methods, and what stands before them."""
        self._tcp = tcp
        self._principals = principals
        self._events = events
        self._methods_of = methods_of
        self._options = [*options, *options_of(tcp)]
        self._rooms: dict[int, Methods] = {}
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen; raises OSError."""
        credentials = self._principals.settings.credentials
        assert self._tcp.listen is not None
        assert credentials is not None, "the configuration lets no port be without credentials"
        template = await self._room(STRANGER)
        self._server = server = make_server(options=self._options)
        door = Door(template, self._identified)
        # Versions of gRPC that know no registered methods here take the door itself.
        server.add_generic_rpc_handlers((door,))
        for name in template:
            service, _, method = name[1:].partition("/")
            handlers = {method: door.handler(name)}
            server.add_registered_method_handlers(service, handlers)  # type: ignore[attr-defined]
        try:
            port = server.add_secure_port(self._tcp.listen, self._tls(credentials))
        except RuntimeError as error:
            raise OSError(f"the port {self._tcp.listen} cannot be opened: {error}") from None
        await server.start()
        host = self._tcp.listen.rpartition(":")[0]
        how = "certificates" if credentials.client_ca is not None else "tokens"
        log.info("clients of the network, by %s, at %s:%d", how, host, port)
        if not self._tcp.is_loopback:
            log.warning("%s can be reached by other machines, as it was asked for", host)

    async def stop(self, grace: float) -> None:
        """End every connection."""
        if self._server is not None:
            await self._server.stop(grace)

    def _tls(self, first: Credentials) -> grpc.ServerCredentials:
        """Make what TLS needs; files that were read again hold for the next connections."""
        used = first

        def changed() -> grpc.ServerCertificateConfiguration | None:
            # Asked at each connection, in a thread of gRPC's own.
            nonlocal used
            now = self._principals.settings.credentials
            if now is None or now == used or (now.client_ca is None) != (first.client_ca is None):
                return None
            used = now
            return _certificates(now)

        return grpc.dynamic_ssl_server_credentials(
            _certificates(first),
            changed,  # type: ignore[arg-type]  # None is for no change, by its documentation
            require_client_authentication=first.client_ca is not None,
        )

    async def _identified(self, name: str, context: Context) -> Handler:
        """Return the calling client's own method; ends the call of anybody else."""
        try:
            client = client_of(context, self._principals.settings)
        except Refusal as refusal:
            refused = ConnectionRefused(user=STRANGER, peer=context.peer(), failure=refusal.failure)
            self._events.tell(refused)
            await abort(context, refusal.failure)
        return (await self._room(client))[name]

    async def _room(self, principal: int) -> Methods:
        """Return a principal's methods, which are made once: there are as many as policies name."""
        methods = self._rooms.get(principal)
        if methods is None:
            collected, interceptors = self._methods_of(principal)
            methods = {
                name: await _behind(interceptors, name, method)
                for name, method in collected.methods.items()
            }
            self._rooms[principal] = methods
        return methods


class Door(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Lets each call in to the methods of who makes it."""

    def __init__(self, template: Methods, identified: Callable[[str, Context], Any]) -> None:
        """`template` tells which methods there are, and how their messages are read."""
        self._template = template
        self._identified = identified

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Return the method of that name, or None."""
        name = str(handler_call_details.method)
        return self.handler(name) if name in self._template else None

    def handler(self, name: str) -> Handler:
        """Return what answers calls of a method that there is."""
        known = self._template[name]

        async def answer(requests: AsyncIterator[Any], context: Context) -> None:
            method = await self._identified(name, context)
            await method.stream_stream(requests, context)

        return grpc.stream_stream_rpc_method_handler(
            answer, known.request_deserializer, known.response_serializer
        )


def options_of(tcp: Tcp) -> list[tuple[str, int]]:
    """Return what gRPC must bound on this port beyond every socket's bounds; the last one holds.

    The names are those of grpc/impl/channel_arg_names.h.
    """
    options = [
        ("grpc.max_allowed_incoming_connections", tcp.connections),
        ("grpc.max_concurrent_streams", tcp.calls_on_a_connection),
        ("grpc.max_connection_idle_ms", tcp.idle_seconds * 1000),
        # A client whose machine or network is gone says nothing: its sessions are to end.
        ("grpc.keepalive_time_ms", tcp.keepalive_seconds * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_ANSWER_SECONDS * 1000),
    ]
    if tcp.age_seconds is not None:
        options += [
            ("grpc.max_connection_age_ms", tcp.age_seconds * 1000),
            ("grpc.max_connection_age_grace_ms", AGE_GRACE_SECONDS * 1000),
        ]
    return options


def _certificates(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(credentials.key, credentials.certificate)], credentials.client_ca
    )


async def _behind(
    interceptors: Sequence[grpc.aio.ServerInterceptor],  # type: ignore[type-arg]
    name: str,
    method: Handler,
) -> Handler:
    """Put interceptors before a method, the first of them outermost, as a server does."""

    async def found(_: object) -> Handler:
        return method

    continuation: Callable[[Any], Any] = found
    for interceptor in reversed(interceptors):
        continuation = partial(interceptor.intercept_service, continuation)
    return await continuation(_Details(name))


class _Details(grpc.HandlerCallDetails):
    """What interceptors are told of a call: only its method is asked for."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()
