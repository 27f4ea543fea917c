"""Administrators to the broker: hostile calls of every method, and bytes that are no calls.

Who may open the admin socket may do all that its methods do. So no call here ends the healthy model
or the service: what would is changed before it is sent, a drain is called off, and limits are given
back. In between, models are loaded with whatever the limits are by then: that goes well or ends
with a typed error.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from loader_service.writer import small
from model_loader_wire.causes import Cause
from model_loader_wire.v1 import admin_pb2 as pb
from model_loader_wire.v1 import model_loader_pb2 as model_pb
from tests.fuzz.campaign import Table, numbered
from tests.fuzz.wire.calls import CALL_SECONDS, damaged_message, status_of
from tests.fuzz.wire.damage import TEXTS, damaged, number
from tests.fuzz.wire.healthy import Healthy
from tests.fuzz.wire.silent import connect, see_last_sent_away
from tests.support.daemon import Daemon
from tests.support.http2 import PREFACE, Flag, Frame, frame, headers, message_head
from tests.support.raw_client import RawSession, detail_of

SERVICE = "/model_loader.v1.Admin/"
METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "Status": (pb.StatusRequest, pb.StatusReply),
    "List": (pb.ListRequest, pb.ListReply),
    "Events": (pb.EventsRequest, pb.Event),
    "Kill": (pb.KillRequest, pb.KillReply),
    "Drain": (pb.DrainRequest, pb.DrainReply),
    "ShowLimits": (pb.ShowLimitsRequest, pb.LimitList),
    "SetLimits": (pb.SetLimitsRequest, pb.LimitList),
}
LIMITS = (
    *("memory_bytes", "threads", "processes", "model_bytes", "tensor_bytes", "output_bytes"),
    *("models_per_origin", "loads_per_minute", "upload_bytes", "calls_in_flight", "cpu_seconds"),
    *("load_seconds", "compute_seconds", "bytes_in_flight", "total_processes", "grpc_connections"),
    *("principal_loads_per_minute", "total_memory_bytes", "log_bytes_per_minute", "nothing"),
)
VALUES = (1.0, 2.0, 0.5, 1e-9, 3e4, 1e9, 2.0**53 - 1, 2.0**53, 1e300, 0.0, -1.0)
HANG_SECONDS = 20.0
SILENT_AT_A_TIME = 20
SEATS = 64
LOOK_EVERY = 100
DRAIN_SECONDS = 3600.0
GROWTH_BYTES = 64 << 20


class Admin:
    """One who calls all methods, and a program that loads models meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "admin.sock"
        self.session = RawSession(directory, "fuzz")
        self.channel: Any = grpc.insecure_channel(f"unix:{self.path}")
        limits = pb.LimitList.FromString(self.call("ShowLimits", b""))
        self._limits = [row for row in limits.limits if row.settable]

    def call(self, name: str, data: bytes) -> bytes:
        """Call a method, and of a stream read what is there already; returns the last reply."""
        if name != "Events":
            call = self.channel.unary_unary(SERVICE + name)
            reply: bytes = call(data, timeout=CALL_SECONDS)
            return reply
        stream = self.channel.unary_stream(SERVICE + name)
        told = stream(data, timeout=CALL_SECONDS)
        try:
            return next(told, b"")
        finally:
            told.cancel()

    def give_back(self) -> None:
        """Set all limits as they were."""
        values = [
            pb.LimitValue(name=row.name, value=row.at_start if row.HasField("at_start") else None)
            for row in self._limits
        ]
        self.call("SetLimits", pb.SetLimitsRequest(limits=values).SerializeToString())

    def load(self) -> str:
        """Load a model, and close it; returns how that went."""
        try:
            reply = self.session.load(small.add(), relayed=True)
        except grpc.RpcError as error:
            detail = detail_of(error)
            if detail.cause == Cause.INTERNAL:
                raise
            return detail.cause
        self.session.call("CloseModel", model_pb.CloseModelRequest(model_id=reply.model_id))
        return "loaded"

    def close(self) -> None:
        """Go."""
        self.channel.close()
        self.session.close()


def steering(seed: int, count: int, seconds: float | None = None) -> Table:
    """Make so many calls and connections."""
    table = Table("Admin socket, administrator to broker")
    began = monotonic()
    silent: list[socket.socket] = []
    with Healthy(table, service=Daemon(kept_model_bytes=0)) as healthy:
        table.facts["honest administrators served"] = 0
        admin = Admin(healthy.service.directory)
        assert admin.load() == "loaded"
        _be_honest(table, admin, "at the beginning")
        healthy.begin()
        for item in numbered(count, seconds):
            random = Random(f"steering {seed} {item}")
            try:
                if random.random() < 0.3:
                    table.count(_bytes(admin.path, random, silent))
                else:
                    table.count(_call(table, admin, random, item))
            except Exception as error:
                table.count("a fault")
                table.find(f"{item}: {type(error).__name__}: {error}")
            if item % LOOK_EVERY == 0:
                healthy.look(f"call {item}")
                _be_honest(table, admin, f"call {item}")
        for connection in silent:
            connection.close()
        _be_honest(table, admin, "at the end")
        healthy.settle([])
        healthy.weigh(GROWTH_BYTES)
        admin.close()
    table.seconds = monotonic() - began
    return table


def _be_honest(table: Table, admin: Admin, when: str) -> None:
    """Ask how the service is, in a new connection, and again if there is no seat."""
    table.facts["honest administrators served"] += 1
    ends = monotonic() + HANG_SECONDS
    while True:
        opened: Any = grpc.insecure_channel(f"unix:{admin.path}")
        with opened as channel:
            try:
                call = channel.unary_unary(SERVICE + "Status")
                status = pb.StatusReply.FromString(call(b"", timeout=CALL_SECONDS))
                assert status.ready
                assert not status.draining, "it drains"
                assert sum(user.models for user in status.users) == 1, status.users
                return
            except (grpc.RpcError, AssertionError) as error:
                if monotonic() > ends:
                    table.find(f"{when}: an honest administrator gets {error}")
                    return
                time.sleep(0.01)


def _call(table: Table, admin: Admin, random: Random, item: int) -> str:
    """Make one call; returns how it ended. Raises AssertionError for what may not be."""
    name = random.choice(list(METHODS))
    data = _harmless(name, _request(name, random))
    try:
        reply = METHODS[name][1].FromString(admin.call(name, data))
    except grpc.RpcError as error:
        outcome, fault = status_of(error, name)
        if fault:
            table.find(f"{item} {name}: {fault} for {data[:200].hex()}")
        return f"{name}: {outcome}"
    if isinstance(reply, pb.DrainReply):
        admin.call("Drain", pb.DrainRequest(cancel=True).SerializeToString())
    if isinstance(reply, pb.LimitList) and name == "SetLimits":
        try:
            return f"{name}: answered, then {_use(admin, data, reply)}"
        finally:
            admin.give_back()
    return f"{name}: answered"


def _use(admin: Admin, data: bytes, reply: pb.LimitList) -> str:
    """See that what was set is in force, and load with it; returns how that went."""
    asked = {
        item.name: item.value if item.HasField("value") else None
        for item in pb.SetLimitsRequest.FromString(data).limits
    }
    for row in reply.limits:
        value = row.value if row.HasField("value") else None
        assert asked.get(row.name, value) == value, f"{row.name} is {value}"
    return admin.load()


def _request(name: str, random: Random) -> bytes:
    """Write a request, true or not."""
    request: Any = METHODS[name][0]()
    match name:
        case "Kill":
            match random.randrange(4):
                case 0:
                    request.model_id = random.choice(("0" * 24, "", *TEXTS[1:4]))
                case 1:
                    request.client = random.choice(("dns:nobody", "", "x" * 5000))
                case _:
                    request.user = random.choice((os.geteuid(), 0, 54321, 2**32 - 1))
                    request.origin = random.choice(("fuzz", "nobody", "", "x" * 5000))
        case "Drain":
            request.seconds = random.choice((DRAIN_SECONDS, 1e9, -1.0, 7 * 24 * 3600.0, 1e-300))
            request.cancel = random.random() < 0.2
        case "Events":
            request.follow, request.all = random.random() < 0.5, random.random() < 0.5
        case "ShowLimits":
            request.policy = random.choice(("", "service", "nothing", "x" * 5000))
        case "SetLimits":
            for limit in random.choices(LIMITS, k=random.choice((1, 1, 2, 5, 300))):
                value = random.choice((*VALUES, float(number(random)), None))
                request.limits.append(pb.LimitValue(name=limit, value=value))
    data: bytes = request.SerializeToString()
    return damaged_message(request, random) if random.random() < 0.4 else data


def _harmless(name: str, data: bytes) -> bytes:
    """Change a request that would end the healthy model or the service."""
    try:
        request: Any = METHODS[name][0].FromString(data)
    except DecodeError:
        return data
    if (
        isinstance(request, pb.KillRequest)
        and request.user == os.geteuid()
        and request.origin in ("", "healthy")
    ):
        request.origin = "fuzz"
        return request.SerializeToString()
    if isinstance(request, pb.DrainRequest) and 0 <= request.seconds < DRAIN_SECONDS:
        request.seconds = DRAIN_SECONDS
        return request.SerializeToString()
    return data


def _bytes(path: Path, random: Random, silent: list[socket.socket]) -> str:
    """Send what is no call, and see the connection end; returns how."""
    if random.random() < 0.01:
        see_last_sent_away(path, SEATS + 30, HANG_SECONDS)
        return "bytes: a crowd, the last one was sent away"
    connection = connect(path, HANG_SECONDS)
    if random.random() < 0.05:
        with suppress(OSError):
            connection.sendall(random.choice((b"", PREFACE[:10], PREFACE)))
        silent.append(connection)
        if len(silent) > SILENT_AT_A_TIME:
            silent.pop(0).close()
        return "bytes: fell silent"
    with connection:
        with suppress(ConnectionError, TimeoutError):
            for data in _frames(random):
                connection.sendall(data)
            if random.random() < 0.1:
                return "bytes: left at once"
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while connection.recv(1 << 16):
                pass
    return "bytes: the connection ended"


def _frames(random: Random) -> Iterator[bytes]:
    """Write HTTP/2 as a client of gRPC does, or something else."""
    if random.random() < 0.2:
        yield random.choice((random.randbytes(500), b"GET / HTTP/1.1\r\n\r\n", b"\x16\3\1\2\0\1"))
        return
    request = pb.StatusRequest().SerializeToString()
    frames = [
        PREFACE,
        frame(Frame.SETTINGS),
        frame(Frame.HEADERS, Flag.END_HEADERS, 1, headers(SERVICE + "Status")),
        frame(Frame.DATA, Flag.END_STREAM, 1, message_head(len(request)) + request),
    ]
    for _ in range(random.choice((0, 1, 2, 30))):
        kind, flags = random.choice((*Frame, 2, 5, 10, 255)), random.choice((0, 1, 4, 5, 8, 32))
        stream = random.choice((0, 1, 2, 3, 2**31 - 1, 2**32 - 1))
        payload = random.randbytes(random.choice((0, 4, 8, 9, 100, 16384)))
        frames.insert(random.randrange(1, len(frames) + 1), frame(kind, flags, stream, payload))
    if random.random() < 0.7:
        place = random.randrange(len(frames))
        frames[place] = damaged(frames[place], random)
    yield from frames
