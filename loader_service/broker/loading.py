"""Taking in a model: admission, upload, hash, worker."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
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
from loader_service.worker.control import Message
from loader_service.worker.orders import Task
from model_loader_wire.causes import Cause, Failure, printable
from model_loader_wire.description import BadDescription, ModelDescription, model_from_values
from model_loader_wire.limits import LimitRaised, Limits
from model_loader_wire.v1 import model_loader_pb2 as pb

FORMATS = {"tflite": ("3",)}
"""Model formats and the versions of their schema."""
LABEL_LENGTH = 256
SUMMARY_LENGTH = 1 << 20
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
        header = await _header(parts)
        limits = self._limits(header)
        self._check(header, limits)
        self._sessions.reserve(session)
        try:
            return await self._within_deadline(session, header, limits, parts)
        finally:
            session.loading -= 1

    async def inspect(self, session: Session, parts: Parts) -> Inspection:
        """Read what a file is, in a worker that serves nothing else; raises Refusal."""
        header = await _header(parts)
        limits = self._limits(header)
        self._check(header, limits)
        self._sessions.reserve(session)
        try:
            async with _Deadline(limits.load_seconds or 0, session) as deadline:
                deadline.worker = worker = await self._spawn(session, header, limits, Task.INSPECT)
                worker.drop_channel()
                digest = await self._upload(worker, header, limits, parts)
                fields = await worker.expect(Message.INSPECTED)
                summary = await _summary(worker, str(fields.get("summary")))
            return Inspection(summary, digest, worker)
        finally:
            session.loading -= 1
            if deadline.worker is not None:
                deadline.worker.kill(Failure(Cause.CLOSED, "the inspection ended"))

    async def _within_deadline(
        self, session: Session, header: pb.LoadHeader, limits: Limits, parts: Parts
    ) -> Model:
        async with _Deadline(limits.load_seconds or 0, session) as deadline:
            deadline.worker = worker = await self._spawn(session, header, limits, Task.LOAD)
            digest = await self._upload(worker, header, limits, parts)
            description = await self._description(worker)
            worker.serving = True
            if session.closed:
                raise refuse(Cause.CANCELLED, "the session was closed while the model was loading")
            model = Model(
                worker=worker,
                description=description,
                limits=limits,
                sha256=digest,
                label=printable(header.label, LABEL_LENGTH),
                origin=session.origin,
            )
            if header.relayed:
                model.relay = Relay(model.take_channel(), worker, description, limits)
            self._sessions.add(session, model)
        if model.relay is None:
            loop = asyncio.get_running_loop()
            loop.call_later(self._settings.claim_seconds, _close_unclaimed, worker)
        return model

    async def _spawn(
        self, session: Session, header: pb.LoadHeader, limits: Limits, task: Task
    ) -> Worker:
        owner = Owner(session.principal, session.origin)
        worker = await self._supervisor.spawn(owner, limits, task, header.num_threads, header.size)
        missing = sorted(set(header.required_layers) - set(worker.layers))
        if missing:
            worker.kill(Failure(Cause.UNSUPPORTED, "required layers are missing"))
            reasons = "; ".join(
                f"{layer}: {worker.missing.get(layer, 'there is no layer of that name')}"
                for layer in missing
            )
            raise refuse(
                Cause.UNSUPPORTED,
                f"this host does not give the required layers {', '.join(missing)} ({reasons})",
            )
        return worker

    async def _upload(
        self, worker: Worker, header: pb.LoadHeader, limits: Limits, parts: Parts
    ) -> bytes:
        """Pass the chunks on as they come; returns their SHA-256, which must be the sender's."""
        digest = hashlib.sha256()
        received = 0
        async for part in parts:
            kind = part.WhichOneof("part")
            if kind == "trailer":
                if header.size and received != header.size:
                    raise refuse(
                        Cause.INVALID_MODEL,
                        f"the model was announced with {header.size} bytes, {received} came",
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
            if received > (header.size or received):
                raise refuse(Cause.INVALID_MODEL, "more bytes came than were announced")
            _check_size(received, limits)
            digest.update(part.chunk)
            await worker.send_model(part.chunk)
        raise refuse(Cause.CANCELLED, "the upload ended before its trailer")

    async def _description(self, worker: Worker) -> ModelDescription:
        fields = await worker.expect(Message.LOADED)
        try:
            return model_from_values(fields)
        except BadDescription as error:
            worker.kill(Failure(Cause.PROTOCOL_VIOLATION, f"a description cannot be: {error}"))
            raise Refusal(await worker.ended) from None

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

    def _check(self, header: pb.LoadHeader, limits: Limits) -> None:
        if header.model_format not in FORMATS:
            raise refuse(
                Cause.UNSUPPORTED,
                f"the format {printable(header.model_format, 64)!r} is not supported; "
                f"there is {', '.join(FORMATS)}",
            )
        if header.device_preference not in DEVICES or header.power_preference not in POWERS:
            raise refuse(Cause.INVALID_INPUT, "no such device or power preference")
        _check_size(header.size, limits)


class _Deadline:
    """Ends the worker of a load that takes too long, fails, or is given up."""

    def __init__(self, seconds: float, session: Session) -> None:
        self.worker: Worker | None = None
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)
        self._began = monotonic()

    async def __aenter__(self) -> _Deadline:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: object, trace: object
    ) -> None:
        late = Failure(
            Cause.TIMEOUT,
            f"the load took longer than load_seconds = {self._seconds:g}",
            "load_seconds",
            monotonic() - self._began,
            self._seconds,
            model_lost=True,
        )
        try:
            await self._timeout.__aexit__(kind, error, trace)  # type: ignore[arg-type]
        except TimeoutError:
            if self.worker is not None:
                self.worker.kill(late)
            raise Refusal(late) from None
        if kind is not None and self.worker is not None:
            self.worker.kill(Failure(Cause.CANCELLED, "the load was given up"))


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


def _check_size(size: int, limits: Limits) -> None:
    if size > (limits.model_bytes or 0):
        raise over_limit("model_bytes", size, limits.model_bytes or 0, "the model is too large")


async def _summary(worker: Worker, text: str) -> str:
    """Join the file's facts with what the runtime made of it."""
    try:
        facts = _clean(json.loads(text))
    except (ValueError, RecursionError):
        worker.kill(Failure(Cause.PROTOCOL_VIOLATION, "an inspection cannot be read"))
        raise Refusal(await worker.ended) from None
    result: dict[str, object] = {"file": facts, "loads": False, "failure": None}
    try:
        fields = await worker.expect(Message.LOADED)
        description = model_from_values(fields)
        result |= {
            "loads": True,
            "runtime": description.runtime,
            "kernels": description.kernels,
            "note": description.note,
        }
    except (Refusal, BadDescription) as error:
        failure = error.failure if isinstance(error, Refusal) else None
        result["failure"] = {
            "cause": failure.cause.value if failure else Cause.PROTOCOL_VIOLATION.value,
            "message": failure.message if failure else str(error),
        }
    return json.dumps(result)


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
