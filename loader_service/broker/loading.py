"""Taking in a model: admission, upload, hash, worker."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

from loader_service.broker.messages import limits_from_message
from loader_service.broker.model import Model
from loader_service.broker.refusal import Refusal, over_limit, refuse
from loader_service.broker.relay import Relay
from loader_service.broker.sessions import Session, Sessions
from loader_service.broker.settings import Settings
from loader_service.broker.supervisor import Owner, Supervisor
from loader_service.broker.worker import Worker
from loader_service.worker.control import MODEL_PIECE, Message
from loader_service.worker.orders import Task
from model_loader_wire.causes import Cause, Failure, printable
from model_loader_wire.description import BadDescription, ModelDescription, model_from_values
from model_loader_wire.limits import LimitRaised, Limits
from model_loader_wire.v1 import model_loader_pb2 as pb

FORMATS = {"tflite": ("3",)}
"""Model formats and the versions of their schema."""
LABEL_LENGTH = 256
SUMMARY_BYTES = 4_000_000
"""Most of an inspection's result: gRPC clients take messages of 4 MiB unless told otherwise."""
DEVICES = ("", "auto", "cpu", "gpu")
POWERS = ("", "auto", "high-performance", "low-power")

Parts = AsyncIterator[pb.LoadRequest]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an inspection found."""

    summary: str
    sha256: bytes
    worker: Worker


class Loading:
    """Turns uploads into workers."""

    def __init__(self, settings: Settings, sessions: Sessions, supervisor: Supervisor) -> None:
        self._settings = settings
        self._sessions = sessions
        self._supervisor = supervisor

    async def load(self, session: Session, parts: Parts) -> Model:
        """Load a model for a session; raises Refusal, and then leaves nothing behind."""
        async with self._admitted(session, parts) as load:
            worker = await self._spawn(session, load, Task.LOAD)
            digest = await _upload(worker, load, parts)
            description = await _description(worker)
            model = Model(
                worker=worker,
                description=description,
                limits=load.limits,
                sha256=digest,
                label=printable(load.header.label, LABEL_LENGTH),
                origin=session.origin,
            )
            if load.header.relayed:
                model.relay = Relay(model.take_channel(), worker, description, load.limits)
            worker.serving = True
            self._sessions.add(session, model)
        if model.relay is None:
            loop = asyncio.get_running_loop()
            claim = loop.call_later(self._settings.claim_seconds, _close_unclaimed, worker)
            worker.when_ended(lambda _: claim.cancel())
        return model

    async def inspect(self, session: Session, parts: Parts) -> Inspection:
        """Read what a file is, in a worker that serves nothing else; raises Refusal."""
        async with self._admitted(session, parts) as load:
            worker = await self._spawn(session, load, Task.INSPECT)
            worker.drop_channel()
            digest = await _upload(worker, load, parts)
            summary = await _summary(worker)
            await worker.end(Failure(Cause.CLOSED, "the inspection ended"))
        return Inspection(summary, digest, worker)

    @asynccontextmanager
    async def _admitted(self, session: Session, parts: Parts) -> AsyncIterator[_Load]:
        """Check a load's header and count it; its deadline and its failure end its worker."""
        longest = self._settings.limits.load_seconds or 0
        try:
            async with asyncio.timeout(longest):
                header = await _header(parts)
        except TimeoutError:
            raise Refusal(_late(longest, longest)) from None
        limits = self._limits(header)
        _check(header, limits)
        await self._sessions.admit(session, self._settings.leaving_seconds)
        load = _Load(session, header, limits)
        try:
            async with load.ended_with_failure(), asyncio.timeout(limits.load_seconds):
                yield load
        except TimeoutError:
            raise Refusal(_late(load.age(), limits.load_seconds or 0)) from None
        finally:
            session.loading -= 1

    async def _spawn(self, session: Session, load: _Load, task: Task) -> Worker:
        header = load.header
        worker = await self._supervisor.spawn(
            Owner(session.principal, session.origin),
            load.limits,
            task,
            header.num_threads,
            header.size,
        )
        load.adopt(worker)
        missing = sorted(set(header.required_layers) - set(worker.layers))
        if missing:
            missing = [printable(layer, 64) for layer in missing[:16]]
            reasons = "; ".join(
                f"{layer}: {worker.missing.get(layer, 'there is no layer of that name')}"
                for layer in missing
            )
            raise refuse(
                Cause.UNSUPPORTED,
                f"this host does not give the required layers {', '.join(missing)} ({reasons})",
            )
        return worker

    def _limits(self, header: pb.LoadHeader) -> Limits:
        try:
            limits = self._settings.limits.lowered_by(limits_from_message(header.limits))
        except LimitRaised as error:
            raise over_limit(
                error.limit, error.value, error.maximum, "a limit can only be lowered"
            ) from None
        except (TypeError, ValueError) as error:
            raise refuse(Cause.INVALID_INPUT, str(error)) from None
        self._supervisor.check_enforceable(limits)
        return limits


class _Load:
    """A load that was admitted; whatever ends it badly ends its worker."""

    def __init__(self, session: Session, header: pb.LoadHeader, limits: Limits) -> None:
        self.header = header
        self.limits = limits
        self._session = session
        self._worker: Worker | None = None
        self._began = monotonic()

    def age(self) -> float:
        """Seconds since the header came."""
        return monotonic() - self._began

    def adopt(self, worker: Worker) -> None:
        """Let the worker end with the load, or with its session; raises Refusal if that is over."""
        self._worker = worker
        if self._session.closed:
            raise refuse(Cause.CLOSED, "the session was closed while the model was loading")
        self._session.unfinished.add(worker)

    @asynccontextmanager
    async def ended_with_failure(self) -> AsyncIterator[None]:
        """Kill the worker if the block is left by an exception; a reason before that one stays."""
        try:
            yield
        except TimeoutError:
            self._kill(_late(self.age(), self.limits.load_seconds or 0))
            raise
        except BaseException:
            self._kill(Failure(Cause.CANCELLED, "the load was given up"))
            raise
        finally:
            if self._worker is not None:
                self._session.unfinished.discard(self._worker)

    def _kill(self, reason: Failure) -> None:
        if self._worker is not None:
            self._worker.kill(reason)


def _late(seconds: float, maximum: float) -> Failure:
    message = f"the load took longer than load_seconds = {maximum:g}"
    return Failure(Cause.TIMEOUT, message, "load_seconds", seconds, maximum, model_lost=True)


def _close_unclaimed(worker: Worker) -> None:
    """End a model whose caller left between the load and taking the channel."""
    if worker.channel is not None:
        worker.kill(Failure(Cause.CANCELLED, "nobody asked for the model's channel"))


async def _header(parts: Parts) -> pb.LoadHeader:
    async for part in parts:
        if part.WhichOneof("part") == "header":
            return part.header
        break
    raise refuse(Cause.INVALID_INPUT, "a load begins with its header")


def _check(header: pb.LoadHeader, limits: Limits) -> None:
    """Raise Refusal for a load that cannot be, before anything is done for it."""
    if header.model_format not in FORMATS:
        raise refuse(
            Cause.UNSUPPORTED,
            f"the format {printable(header.model_format, 64)!r} is not supported; "
            f"there is {', '.join(FORMATS)}",
        )
    if header.device_preference not in DEVICES or header.power_preference not in POWERS:
        raise refuse(Cause.INVALID_INPUT, "no such device or power preference")
    _check_size(header.size, limits)


def _check_size(size: int, limits: Limits) -> None:
    if size > (limits.model_bytes or 0):
        raise over_limit("model_bytes", size, limits.model_bytes or 0, "the model is too large")


async def _upload(worker: Worker, load: _Load, parts: Parts) -> bytes:
    """Pass the chunks on as they come; returns their SHA-256, which must be the sender's."""
    announced = load.header.size
    digest = hashlib.sha256()
    received = 0
    async for part in parts:
        kind = part.WhichOneof("part")
        if kind == "trailer":
            if announced and received != announced:
                raise refuse(
                    Cause.INVALID_MODEL,
                    f"the model was announced with {announced} bytes, {received} came",
                )
            if part.trailer.sha256 != digest.digest():
                raise refuse(
                    Cause.INVALID_MODEL, "the model's SHA-256 is not the one that was sent"
                )
            await worker.end_model()
            return digest.digest()
        if kind != "chunk":
            raise refuse(Cause.INVALID_INPUT, "a load is one header, chunks, and one trailer")
        received += len(part.chunk)
        if announced and received > announced:
            raise refuse(
                Cause.INVALID_MODEL,
                f"the model was announced with {announced} bytes, more came",
            )
        _check_size(received, load.limits)
        chunk = memoryview(part.chunk)
        for start in range(0, len(chunk), MODEL_PIECE):
            piece = chunk[start : start + MODEL_PIECE]
            digest.update(piece)
            await worker.send_model(piece)
    raise refuse(Cause.CANCELLED, "the upload ended before its trailer")


async def _description(worker: Worker) -> ModelDescription:
    """Wait until the model is loaded and read its declaration; raises Refusal."""
    fields = await worker.expect(Message.LOADED)
    try:
        description = model_from_values(fields)
        if description.threads > (worker.limits.threads or 0):
            raise BadDescription(f"{description.threads} threads are more than were allowed")
    except BadDescription as error:
        reason = Failure(Cause.PROTOCOL_VIOLATION, f"a description cannot be: {error}")
        raise Refusal(await worker.end(reason)) from None
    return description


async def _summary(worker: Worker) -> str:
    """Join the file's facts with what the runtime made of it; raises Refusal."""
    fields = await worker.expect(Message.INSPECTED)
    try:
        facts = _clean(json.loads(str(fields.get("summary")), parse_constant=_no_number))
    except (ValueError, RecursionError):
        reason = Failure(Cause.PROTOCOL_VIOLATION, "an inspection cannot be read")
        raise Refusal(await worker.end(reason)) from None
    result: dict[str, object] = {"file": facts, "loads": False, "failure": None}
    try:
        description = await _description(worker)
        result |= {
            "loads": True,
            "runtime": description.runtime,
            "kernels": description.kernels,
            "note": description.note,
        }
    except Refusal as refusal:
        failure = refusal.failure
        result["failure"] = {"cause": failure.cause.value, "message": failure.message}
    summary = json.dumps(result, ensure_ascii=False)
    if len(summary.encode()) > SUMMARY_BYTES:
        raise refuse(Cause.UNSUPPORTED, "there is more to say of this file than a message holds")
    return summary


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _clean(value: object, depth: int = 0) -> object:
    """Escape and cap every text of a worker's report."""
    if depth > 32:
        raise ValueError("nested too deep")
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {printable(str(key), 256): _clean(item, depth + 1) for key, item in value.items()}
    return value
