"""Caller to broker: hostile gRPC requests to every method, and streams out of order.

Each call ends with the reply that its request deserves or with a status that carries the service's
own detail; only what never reaches the service, such as a message above gRPC's own limits, is
refused by gRPC. Nothing ends as UNKNOWN, and nothing as a fault of the service.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from random import Random
from time import monotonic
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2

from loader_service.writer import small
from model_loader_wire.causes import Cause
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.fuzz.campaign import Table, numbered
from tests.fuzz.wire.damage import NUMBERS, TEXTS, damaged, number
from tests.fuzz.wire.healthy import Healthy
from tests.fuzz.wire.offering import load_an_offer, load_what_is_kept
from tests.support.raw_client import RawSession, load_parts, message_of

SERVICE = "/model_loader.v1.ModelLoader/"
HEALTH = "/grpc.health.v1.Health/"
CALL_SECONDS = 20.0
LOOK_EVERY = 200
DETAIL = "model-loader-error-bin"
UNARY: dict[str, tuple[type[Message], type[Message]]] = {
    SERVICE + "Formats": (pb.FormatsRequest, pb.FormatsReply),
    SERVICE + "Compute": (pb.ComputeRequest, pb.ComputeReply),
    SERVICE + "Reset": (pb.ResetRequest, pb.ResetReply),
    SERVICE + "CloseModel": (pb.CloseModelRequest, pb.CloseModelReply),
    SERVICE + "GetModel": (pb.GetModelRequest, pb.ModelState),
    SERVICE + "ListModels": (pb.ListModelsRequest, pb.ListModelsReply),
    SERVICE + "FindModel": (pb.FindModelRequest, pb.FindModelReply),
    SERVICE + "FindNamedModel": (pb.FindNamedModelRequest, pb.FindNamedModelReply),
    SERVICE + "ListNamedModels": (pb.ListNamedModelsRequest, pb.ListNamedModelsReply),
    SERVICE + "GetDelegation": (pb.GetDelegationRequest, pb.GetDelegationReply),
    HEALTH + "Check": (health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse),
    HEALTH + "List": (health_pb2.HealthListRequest, health_pb2.HealthListResponse),
}
UPLOADS: dict[str, type[Message]] = {
    SERVICE + "Load": pb.LoadReply,
    SERVICE + "Inspect": pb.InspectReply,
}
BY_GRPC = {
    "RESOURCE_EXHAUSTED": "larger than max|exceeds|metadata",
    "INTERNAL": "metadata|header",
    "UNAVAILABLE": "metadata|header",
}
"""What gRPC itself refuses, with a part of what it says."""
FLOATS = (0.0, -1.0, 1e-300, 1e308, float("inf"), float("-inf"), float("nan"), 0.25)
MODEL = small.add()
DIGEST = hashlib.sha256(MODEL).digest()
OFFER_SECONDS = 3.0
OFFERS_KNOWN = 20


class Caller:
    """One who calls all methods in sessions of its own."""

    def __init__(self, healthy: Healthy) -> None:
        self.session = RawSession(healthy.service.directory, "fuzz")
        self.other = RawSession(healthy.service.directory, "other")
        self.channel: Any = self.session.grpc
        self.token = self.session.welcome.session.token.hex()
        self.model_id = ""
        self.pid = 0
        self.offers: list[bytes] = []
        """Names that FindModel gave, which may have been used or have expired."""

    def ensure_model(self) -> None:
        """Load the relayed model that the requests name, if it has gone."""
        if self.model_id in self.session.models():
            return
        reply = self.session.load(MODEL, relayed=True)
        self.model_id, self.pid = reply.model_id, reply.isolation.worker_pid

    def close(self) -> None:
        """End the sessions."""
        self.session.close()
        self.other.close()


def calls(seed: int, count: int, seconds: float | None = None) -> Table:
    """Make so many calls."""
    table = Table("gRPC, caller to broker")
    began = monotonic()
    limits: dict[str, float] = {"compute_seconds": 3, "load_seconds": 3, "model_bytes": 1 << 20}
    # One model is kept for FindModel, and is there before the broker's descriptors are counted.
    settings = {"kept_model_bytes": len(MODEL), "claim_seconds": OFFER_SECONDS}
    with Healthy(table, limits, None, **settings) as healthy:
        caller = Caller(healthy)
        caller.ensure_model()
        caller.session.compute(caller.model_id, np.ones(1, np.float32))
        healthy.begin()
        for item in numbered(count, seconds):
            random = Random(f"calls {seed} {item}")
            started = monotonic()
            try:
                table.count(_one(table, caller, random, item))
            except Exception as error:
                table.count("a fault")
                table.find(f"{item}: {type(error).__name__}: {error}")
            if monotonic() - started > CALL_SECONDS:
                table.find(f"{item} took {monotonic() - started:.1f} s")
            if item % LOOK_EVERY == 0:
                healthy.look(f"call {item}")
                caller.ensure_model()
        caller.ensure_model()
        healthy.settle([caller.pid])
        caller.close()
    table.seconds = monotonic() - began
    return table


def _one(table: Table, caller: Caller, random: Random, item: int) -> str:
    """Make one call; returns how it ended."""
    if random.random() < 0.05:
        load = load_an_offer if random.random() < 0.7 else load_what_is_kept
        return load(caller.session, caller.other, MODEL, random)
    chance = random.random()
    metadata = _metadata(caller, random)
    if chance < 0.15:
        method = random.choice(list(UPLOADS))
        parts = list(_parts(caller, random))
        shown = b" ".join(part[:60] for part in parts[:5]).hex()
        call: Callable[[], Any] = lambda: caller.channel.stream_unary(method)(  # noqa: E731
            iter(parts), metadata=metadata, timeout=CALL_SECONDS
        )
        reply_type = UPLOADS[method]
    elif chance < 0.2:
        method, reply_type = SERVICE + "OpenSession", pb.SessionEvent
        request = pb.OpenSessionRequest(protocol_version=1, origin="x")
        data = damaged_message(request, random)
        shown = data[:200].hex()
        call = lambda: _first_event(caller, data, metadata)  # noqa: E731
    elif chance < 0.21:
        method, reply_type = SERVICE + random.choice(("Nothing", "load", "Compute/")), pb.LoadReply
        shown = method
        call = lambda: caller.channel.unary_unary(method)(b"", timeout=CALL_SECONDS)  # noqa: E731
    else:
        method = random.choice(list(UNARY))
        reply_type = UNARY[method][1]
        data = _unary_request(method, caller, random)
        shown = data[:200].hex()
        call = lambda: caller.channel.unary_unary(method)(  # noqa: E731
            data, metadata=metadata, timeout=CALL_SECONDS
        )
    name = method.rpartition("/")[2] or "Compute/"
    try:
        reply = call()
    except grpc.RpcError as error:
        outcome, fault = status_of(error, name)
        if fault:
            table.find(f"{item} {name}: {fault} for {shown}")
        return f"{name}: {outcome}"
    read = reply_type.FromString(reply)
    if isinstance(read, pb.FindModelReply):
        if not read.offer:
            return f"{name}: no such model"
        caller.offers = [*caller.offers, read.offer][-OFFERS_KNOWN:]
    if isinstance(read, pb.LoadReply):
        for session in (caller.session, caller.other):
            session.call("CloseModel", pb.CloseModelRequest(model_id=read.model_id))
    return f"{name}: answered"


def status_of(error: Any, name: str) -> tuple[str, str]:
    """Say how a call failed, and what is wrong with that."""
    code, details = error.code().name, str(error.details())
    trailers = dict(error.trailing_metadata() or ())
    for sign in ("Traceback", "Exception", "Error", "Unexpected"):
        if sign in details:
            return code, f"{code} says {details[:300]!r}"
    if DETAIL in trailers:
        detail = pb.ErrorDetail.FromString(trailers[DETAIL])
        cause = Cause(detail.cause)
        shown = detail.message + detail.limit
        if not all(letter.isprintable() or letter in "\n\t" for letter in shown):
            return cause.value, f"the message {shown!r} cannot be shown"
        if cause is Cause.INTERNAL:
            return cause.value, f"a fault of the service: {detail.message}"
        return cause.value, ""
    if name in ("Nothing", "load", "Compute/") and code == "UNIMPLEMENTED":
        return "no such method", ""
    if name == "Check" and code in ("NOT_FOUND", "INVALID_ARGUMENT"):
        return code.lower(), ""
    if code in BY_GRPC and any(part in details for part in BY_GRPC[code].split("|")):
        return "refused by gRPC", ""
    return code, f"{code} without a detail: {details[:300]!r}"


def _first_event(caller: Caller, data: bytes, metadata: Any) -> bytes:
    stream: Any = caller.channel.unary_stream(SERVICE + "OpenSession")(
        data, metadata=metadata, timeout=CALL_SECONDS
    )
    try:
        first: bytes = next(stream)
        return first
    finally:
        stream.cancel()


def _metadata(caller: Caller, random: Random) -> list[tuple[str, str | bytes]]:
    key = "model-loader-session"
    if random.random() < 0.85:
        return [(key, caller.token)]
    other = caller.other.welcome.session.token.hex()
    others: list[list[tuple[str, str | bytes]]] = [
        [],
        [(key, "")],
        [(key, "zz")],
        [(key, caller.token[:-1])],
        [(key, caller.token[:-2] + "00")],
        [(key, "0" * 64)],
        [(key, other)],
        [(key, other), (key, caller.token)],
        [(key, " ".join(caller.token))],
        [(key, "f" * 7000)],
        [(key + "-bin", bytes.fromhex(caller.token))],
        [("x" * 200, "y" * 2000), (key, caller.token)],
        [(f"k{place}", "v" * 100) for place in range(200)],
    ]
    return random.choice(others)


def _unary_request(method: str, caller: Caller, random: Random) -> bytes:
    request: Message
    match method.rpartition("/")[2]:
        case "Compute":
            x = np.array([random.random()], np.float32)
            request = pb.ComputeRequest(model_id=caller.model_id, inputs=[message_of(x)])
        case "Reset":
            request = pb.ResetRequest(model_id=caller.model_id)
        case "CloseModel":
            model_id = caller.model_id if random.random() < 0.02 else "0" * 24
            request = pb.CloseModelRequest(model_id=model_id, deadline_passed=random.random() < 0.5)
        case "GetModel":
            wait = random.choice((0.0, 0.001, -1.0, float("nan")))
            request = pb.GetModelRequest(model_id=caller.model_id, wait_seconds=wait)
        case "FindModel":
            request = pb.FindModelRequest(sha256=DIGEST)
        case "FindNamedModel":
            request = pb.FindNamedModelRequest(name=random.choice(("adder", "a" * 64)), version=1)
        case "GetDelegation":
            request = pb.GetDelegationRequest(model_id=caller.model_id)
        case "Check":
            request = health_pb2.HealthCheckRequest(service=random.choice(("", caller.model_id)))
        case _:
            request = UNARY[method][0]()
    if random.random() < 0.15:
        return request.SerializeToString()
    if method.endswith("Compute") and random.random() < 0.02:
        sizes = [1] * random.choice((33, 10_000, 1_000_000))
        request = pb.ComputeRequest(
            model_id=caller.model_id,
            inputs=[pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, dimensions=sizes, data=bytes(4))],
        )
        return request.SerializeToString()
    data = damaged_message(request, random)
    if method.endswith("GetModel"):
        # A long wait for a living model is no fault, but the campaign's end is to be seen.
        try:
            if pb.GetModelRequest.FromString(data).wait_seconds > 0.1:
                return data[:3]
        except DecodeError:
            return data
    return data


def damaged_message(message: Message, random: Random) -> bytes:
    """Write a message with other values in it, or with damaged bytes."""
    if random.random() < 0.5:
        changed = type(message).FromString(message.SerializeToString())
        for _ in range(random.choice((1, 1, 2, 3))):
            _change(changed, random)
        data = changed.SerializeToString()
        return damaged(data, random) if random.random() < 0.1 else data
    data = message.SerializeToString()
    match random.randrange(5):
        case 0:  # a text that is no UTF-8
            return data + b"\x0a\x03\xff\xfe\xfd"
        case 1:  # a group, a wrong wire type, a field that nobody knows
            return data + random.choice(
                (b"\x0b" * 200, b"\x0d\1\2\3\4", b"\xfa\x01\x02hi", b"\x08")
            )
        case 2:  # a length beyond the end, a number without end
            return data + random.choice((b"\x0a\xff\xff\xff\xff\x07", b"\xff" * 20, b"\x12\x05a"))
        case _:
            return damaged(data, random)


def _change(message: Any, random: Random) -> None:
    """Set one field of a message, or of one within it, to another value."""
    field = random.choice(list(message.DESCRIPTOR.fields) or [None])
    if field is None:
        return
    if field.message_type is not None:
        if field.is_repeated:
            for _ in range(random.choice((1, 1, 3, 300))):
                getattr(message, field.name).add()
            _change(getattr(message, field.name)[0], random)
        else:
            getattr(message, field.name).SetInParent()
            _change(getattr(message, field.name), random)
        return
    if field.is_repeated:
        count = random.choice((0, 1, 2, 33, 2000))
        getattr(message, field.name).extend(_value(field, random) for _ in range(count))
    else:
        setattr(message, field.name, _value(field, random))


def _value(field: Any, random: Random) -> Any:
    """A value that the field can hold."""
    match field.cpp_type:
        case field.CPPTYPE_STRING:
            if field.type == field.TYPE_BYTES:
                return random.randbytes(random.choice((0, 1, 4, 31, 32, 33, 5000)))
            text = random.choice((*TEXTS, "x" * 1024, "x" * 1025, "tflite", "gpu", "fuzz"))
            return text.encode("utf-8", "ignore").decode()
        case field.CPPTYPE_DOUBLE | field.CPPTYPE_FLOAT:
            return random.choice((*FLOATS, *(float(value) for value in NUMBERS)))
        case field.CPPTYPE_BOOL:
            return random.random() < 0.5
        case field.CPPTYPE_ENUM | field.CPPTYPE_INT32:
            return random.choice((*range(15), 99, -1, 2**31 - 1, -(2**31)))
        case field.CPPTYPE_UINT32:
            return number(random, 2**32)
        case field.CPPTYPE_UINT64:
            return number(random)
    return random.choice((-1, -(2**63), number(random, 2**63)))


def _parts(caller: Caller, random: Random) -> Iterator[bytes]:
    """The messages of an upload: true, damaged, out of order, too many or too few."""
    header = pb.LoadHeader(model_format="tflite", size=len(MODEL), relayed=random.random() < 0.5)
    if random.random() < 0.5:
        for _ in range(random.choice((1, 1, 2))):
            _change(header, random)
    if random.random() < 0.3:
        known = caller.offers and random.random() < 0.7
        header.offer = random.choice(caller.offers) if known else random.randbytes(16)
        if random.random() < 0.8:
            yield pb.LoadRequest(header=header).SerializeToString()
            return
    model = MODEL if random.random() < 0.7 else damaged(MODEL, random)
    digest = hashlib.sha256(model).digest()
    parts = [part.SerializeToString() for part in load_parts(model, sha256=digest)][1:]
    parts.insert(0, pb.LoadRequest(header=header).SerializeToString())
    chance = random.random()
    if chance < 0.2:
        random.shuffle(parts)
    elif chance < 0.4:
        del parts[random.randrange(len(parts))]
    elif chance < 0.5:
        parts.insert(random.randrange(len(parts) + 1), random.choice(parts))
    elif chance < 0.6:
        place = random.randrange(len(parts))
        parts[place] = damaged(parts[place], random)
    elif chance < 0.7:
        parts.insert(random.randrange(len(parts) + 1), random.choice((b"", b"\xff\xff", bytes(9))))
    elif chance < 0.72:
        chunk = pb.LoadRequest(chunk=bytes(1 << 19)).SerializeToString()
        parts[1:1] = [chunk] * random.choice((1, 4))
    yield from parts
