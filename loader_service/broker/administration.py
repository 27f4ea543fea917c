"""The admin socket and the gRPC servers behind it: one for each user who may steer the service."""

from __future__ import annotations

import asyncio

import grpc

from loader_service.broker.admin import AdminServicer
from loader_service.broker.admin_gate import AdminGate
from loader_service.broker.decoding import Decoding
from loader_service.broker.directory import Directory
from loader_service.broker.method_names import make_server
from loader_service.broker.steering import Steering
from model_loader_wire.v1 import admin_pb2_grpc as pb_grpc

MESSAGE_BYTES = 1 << 20
"""Most of one request."""
REPLY_SECONDS = 0.5
"""For the replies of the calls under way, that which asked for the end among them."""


class Administration:
    """Lets root and the service's own user see and steer the service."""

    def __init__(self, directory: Directory, steering: Steering) -> None:
        self._directory = directory
        self._steering = steering
        self._servers: dict[int, grpc.aio.Server] = {}
        self._opening = asyncio.Lock()
        self._gate = AdminGate(directory.admin_path, self._server)

    async def start(self) -> None:
        """Take administrators in from now on."""
        await self._gate.start()

    async def stop(self) -> None:
        """Take no more in, let what was answered reach them, and end the calls that go on."""
        self._gate.close()
        await asyncio.gather(*(server.stop(REPLY_SECONDS) for server in self._servers.values()))
        await self._gate.cut(REPLY_SECONDS)

    async def _server(self, uid: int) -> str:
        """Return a user's gRPC socket, started at its first use."""
        path = self._directory.steering_path(uid)
        async with self._opening:
            if uid not in self._servers:
                server = make_server(
                    interceptors=[Decoding()],
                    options=[
                        ("grpc.max_receive_message_length", MESSAGE_BYTES),
                        ("grpc.so_reuseport", 0),
                    ],
                )
                servicer = AdminServicer(uid, self._steering)
                pb_grpc.add_AdminServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
                server.add_insecure_port(f"unix:{path}")
                await server.start()
                self._servers[uid] = server
        return path
