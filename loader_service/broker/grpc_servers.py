"""The gRPC servers of a broker: a socket for each principal, and one TCP port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from loader_service.broker.calls import Calls, Passing
from loader_service.broker.decoding import Decoding
from loader_service.broker.descriptors import Descriptors
from loader_service.broker.directory import Directory
from loader_service.broker.event_stream import EventStream
from loader_service.broker.groups import Owner
from loader_service.broker.method_names import make_server
from loader_service.broker.principals import Principals
from loader_service.broker.servicer import Servicer
from loader_service.broker.settings import Settings, clients_of
from model_loader_wire.limits import Limits

if TYPE_CHECKING:
    from loader_service.broker.network_port import Collected, NetworkPort

MESSAGE_SLACK = 1 << 20
"""Bytes that a message may have beyond its tensors."""
METADATA_BYTES = 16 << 10
"""Most of the metadata of one call."""
PING_INTERVAL_MILLISECONDS = 10_000
PING_STRIKES = 2
"""Pings that come sooner than that and are borne with."""
SOCKET = "grpc.sock"
GRACE_SECONDS = 0.5

AddMethods = Callable[[int, "grpc.aio.Server | Collected"], Servicer]
"""Adds a principal's methods to a server."""


class GrpcServers:
    """Opens the sockets, each with what gRPC has to bound there and what comes before a method."""

    def __init__(
        self,
        settings: Settings,
        directory: Directory,
        principals: Principals,
        descriptors: Descriptors,
        events: EventStream,
        add_methods: AddMethods,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._principals = principals
        self._descriptors = descriptors
        self._events = events
        self._add_methods = add_methods
        self._passing = Passing(settings, principals)
        self._servers: dict[int, tuple[grpc.aio.Server, Servicer]] = {}
        self._opening = asyncio.Lock()
        self._port: NetworkPort | None = None

    async def of(self, principal: int) -> tuple[str, Servicer]:
        """Return a principal's socket, started at its first use, and what answers there."""
        path = str(self._directory.room_path(principal) / SOCKET)
        async with self._opening:
            if principal not in self._servers:
                self._directory.make_room(principal)
                limits = self._principals.policy_for(Owner(principal, "")).limits
                connections = self._descriptors.grpc_connections
                server = make_server(
                    options=grpc_options(self._settings, limits, connections),
                    interceptors=self._interceptors(principal),
                    # More than Calls lets through, so that a call over its limit is told so.
                    maximum_concurrent_rpcs=2 * self._settings.calls_at_a_time,
                )
                servicer = self._add_methods(principal, server)
                server.add_insecure_port(f"unix:{path}")
                await server.start()
                self._directory.give_room(principal, SOCKET)
                self._servers[principal] = (server, servicer)
        return path, self._servers[principal][1]

    async def open_port(self) -> None:
        """Open the TCP port, if the settings say so; raises OSError."""
        settings = self._settings
        if settings.tcp.listen is None:
            return
        from loader_service.broker.network_port import Collected, NetworkPort

        def methods_of(
            principal: int,
        ) -> tuple[Collected, list[grpc.aio.ServerInterceptor]]:  # type: ignore[type-arg]
            collected = Collected()
            self._add_methods(principal, collected)
            return collected, self._interceptors(principal)

        # gRPC knows a message's length before anybody knows whose it is; the method looks again.
        largest = max(
            (policy.limits for policy in settings.policies if clients_of(policy)),
            key=lambda limits: limits.tensor_bytes or 0,
            default=settings.limits,
        )
        options = grpc_options(settings, largest, settings.tcp.connections)
        self._port = NetworkPort(settings.tcp, self._principals, self._events, methods_of, options)
        await self._port.start()

    async def stop(self) -> None:
        """End every server; calls under way have a moment to end."""
        servers: list[grpc.aio.Server | NetworkPort]
        servers = [server for server, _ in self._servers.values()]
        if self._port is not None:
            servers.append(self._port)
        await asyncio.gather(*(server.stop(GRACE_SECONDS) for server in servers))
        self._passing.stop()

    def _interceptors(self, principal: int) -> list[grpc.aio.ServerInterceptor]:  # type: ignore[type-arg]
        """Make what stands before a principal's methods."""
        calls = Calls(principal, self._settings, self._principals, self._passing, self._events)
        return [calls, Decoding()]


def grpc_options(settings: Settings, limits: Limits, connections: int) -> list[tuple[str, int]]:
    """Return what gRPC itself must bound on one socket, before any code of the broker's runs.

    The names are those of grpc/impl/channel_arg_names.h.
    """
    return [
        ("grpc.max_receive_message_length", _capped(limits.tensor_bytes)),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.max_concurrent_streams", 2 * settings.calls_at_a_time),
        ("grpc.server_handshake_timeout_ms", int(settings.handshake_seconds * 1000)),
        # A client may ping; one that pings and does nothing else is cut off.
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MILLISECONDS),
        ("grpc.http2.max_ping_strikes", PING_STRIKES),
        ("grpc.so_reuseport", 0),
    ]


def _capped(tensor_bytes: int | None) -> int:
    """A message's length in gRPC's terms, which has 32 bits for it."""
    return min((tensor_bytes or 0) + MESSAGE_SLACK, 2**31 - 1)
