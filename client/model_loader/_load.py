"""The core of loading and inspecting: one stream of header, chunks and trailer."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from model_loader_wire.causes import Cause
from model_loader_wire.v1 import model_loader_pb2 as pb

from ._effects import Adopt, Call, InThread, Notify, Steps, Upload
from ._messages import description_from, isolation_from, limits_from, limits_to
from ._model_core import ModelCore
from ._options import ContextOptions, lower, seconds
from ._renewal import CALL_SECONDS
from ._returning import check_same
from ._sealing import SEALED_FROM, Sealing
from ._session import Session
from ._source import Progress, Source
from ._values import Report
from .errors import ConstraintError, DataError, TimeoutError, UnknownError

GRACE_SECONDS = 5.0
"""How much longer than the service's own limit the client waits: the service's error says more."""


def load(
    session: Session,
    options: ContextOptions,
    source: Any,
    timeout: float | None,
    on_progress: Progress | None,
    again: ModelCore | None = None,
    *,
    label: str = "",
) -> Steps[ModelCore]:
    """Load a model and take its direct channel; a model that went comes back, and is given."""
    session.check_usable()
    if on_progress is not None and not callable(on_progress):
        raise ConstraintError("on_progress must be callable")
    wait = _wait(session, options, timeout)
    started = time.monotonic()
    most = lower(session.limits, options.limits).model_bytes
    opened: Any = yield InThread(partial(Source, source, most))
    try:
        header = _header(session, options, label or opened.label)
        header.size = opened.size
        mark: int = yield InThread(opened.mark)
        progressed = _teller(opened, on_progress)
        deadline = None if wait is None else started + wait
        header.offer = yield from _offer(session, opened, mark, progressed, deadline)
        reply: pb.LoadReply = yield _upload("Load", header, opened, progressed, _left(deadline))
    finally:
        opened.close()
    if not header.offer:
        try:
            _check_digest(reply.sha256, opened)
        except DataError:
            yield _close_unclaimed(reply)
            raise
    session.marks_loaded.add(mark)
    return (yield from _taken(session, reply, header.label, opened.sent, started, again))


def load_by_name(
    session: Session,
    options: ContextOptions,
    name: Any,
    version: Any,
    timeout: float | None,
    again: ModelCore | None = None,
) -> Steps[ModelCore]:
    """Load a model of the service's repository, whose bytes never come here; else as `load`."""
    session.check_usable()
    if not isinstance(name, str):
        raise ConstraintError(f"a model's name is a str, not {type(name).__name__}")
    if isinstance(version, bool) or not isinstance(version, int | None):
        raise ConstraintError(f"a version is an int or None, not {type(version).__name__}")
    if version is not None and not 0 < version < 2**63:
        raise ConstraintError(f"a version is a number from 1 up, not {version}")
    wait = _wait(session, options, timeout)
    started = time.monotonic()
    deadline = None if wait is None else started + wait
    found: pb.FindNamedModelReply = yield Call(
        "FindNamedModel", pb.FindNamedModelRequest(name=name, version=version or 0), wait
    )
    header = _header(session, options, f"{found.model.name}:{found.model.version}")
    header.offer = found.offer
    requests = iter([pb.LoadRequest(header=header)])
    reply: pb.LoadReply = yield Upload(
        "Load", requests, lambda: None, _left(deadline), _close_unclaimed
    )
    return (yield from _taken(session, reply, header.label, found.model.size, started, again))


def _wait(session: Session, options: ContextOptions, timeout: float | None) -> float | None:
    """Return how many seconds a load may take."""
    limit = lower(session.limits, options.limits).load_seconds
    return seconds(timeout, None if limit is None else limit + GRACE_SECONDS)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _header(session: Session, options: ContextOptions, label: str) -> pb.LoadHeader:
    header = pb.LoadHeader(
        model_format=options.model_format,
        num_threads=options.num_threads,
        device_preference=options.device_preference,
        power_preference=options.power_preference,
        required_layers=options.required_layers,
        relayed=session.relayed,
        label=label,
    )
    if options.limits is not None:
        header.limits.CopyFrom(limits_to(options.limits))
    if given := options.devices.given():
        header.device_options.CopyFrom(pb.DeviceOptions(**given))  # type: ignore[arg-type]
    return header


def _taken(
    session: Session,
    reply: pb.LoadReply,
    label: str,
    size: int,
    started: float,
    again: ModelCore | None,
) -> Steps[ModelCore]:
    """Make the model of what the service says of it, and take its direct channel."""
    try:
        description = description_from(reply.description)
        report = Report(
            runtime=description.runtime,
            kernels=description.kernels,
            note=description.note,
            threads=description.threads,
            sha256=reply.sha256.hex(),
            size=size,
            load_seconds=time.monotonic() - started,
            limits=limits_from(reply.limits),
            keeps_state=description.keeps_state,
        )
        isolation = isolation_from(reply.isolation)
        core = again
        if core is None:
            core = ModelCore(session, reply.model_id, description, isolation, report, label)
        else:
            check_same(core, description, report)
        channel: Any = None
        if session.attach is not None:
            taken: socket.socket = yield InThread(
                partial(session.attach.receive_channel, reply.model_id)
            )
            channel = yield Adopt(taken, core.noticed_end)
        if again is None:
            core.channel = channel
        else:
            core.check_open()
            core.come_back(reply.model_id, description, isolation, report, channel)
    except GeneratorExit:
        raise  # nobody carries out effects any more
    except BaseException:
        yield _close_unclaimed(reply)
        raise
    return core


def inspect(session: Session, source: Any, timeout: float | None) -> Steps[dict[str, Any]]:
    """Have a file read inside a sandbox; gives what the worker said, as JSON values."""
    session.check_usable()
    limits = session.limits
    usual = None if limits.load_seconds is None else limits.load_seconds + GRACE_SECONDS
    wait = seconds(timeout, usual)
    opened: Any = yield InThread(partial(Source, source, limits.model_bytes))
    try:
        header = pb.LoadHeader(model_format="tflite", size=opened.size, label=opened.label)
        reply: pb.InspectReply = yield _upload(
            "Inspect", header, opened, _teller(opened, None), wait
        )
    finally:
        opened.close()
    _check_digest(reply.sha256, opened)
    try:
        summary = json.loads(reply.summary)
    except (ValueError, RecursionError):
        summary = None
    if not isinstance(summary, dict):
        raise UnknownError("the service's summary cannot be read", cause=Cause.PROTOCOL_VIOLATION)
    isolation = isolation_from(reply.isolation)
    summary["sha256"] = opened.sha256.hex()
    summary["size"] = opened.sent
    summary["isolation"] = {
        "layers": list(isolation.layers),
        "missing": dict(isolation.missing),
        "memory_held_by": isolation.memory_held_by,
    }
    return summary


def _offer(
    session: Session,
    source: Source,
    mark: int,
    progressed: Callable[[], None],
    deadline: float | None,
) -> Steps[bytes]:
    """Spare the upload: name bytes that the service holds, or offer it sealed memory.

    Gives the name for the load's header; an empty one where the bytes must be streamed.
    """
    # Only what looks like a model that was loaded before can be held: nothing is hashed in vain.
    if source.rereadable and session.marks_loaded & {mark, source.size}:
        digest = yield InThread(source.find_digest)
        found: pb.FindModelReply = yield Call(
            "FindModel", pb.FindModelRequest(sha256=digest), CALL_SECONDS
        )
        if found.offer:
            source.sent = source.size
            progressed()
            return found.offer
    if session.attach is None or source.size < SEALED_FROM:
        return b""
    try:
        sealing: Any = yield InThread(partial(Sealing, source))
    except OSError:  # a kernel without such memory
        return b""
    try:
        while (yield InThread(sealing.fill)):
            progressed()
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError("the load's deadline passed before the model was sent")
        offer: bytes = yield InThread(partial(sealing.offer, session.attach))
    finally:
        sealing.close()
    return offer


def _upload(
    method: str,
    header: pb.LoadHeader,
    source: Source,
    progressed: Callable[[], None],
    timeout: float | None,
) -> Upload:
    def requests() -> Iterator[pb.LoadRequest]:
        yield pb.LoadRequest(header=header)
        if header.offer:
            return
        for chunk in source.chunks():
            yield pb.LoadRequest(chunk=bytes(chunk))
        yield pb.LoadRequest(trailer=pb.LoadTrailer(sha256=source.sha256))

    unclaimed = _close_unclaimed if method == "Load" else None
    return Upload(method, requests(), progressed, timeout, unclaimed)


def _close_unclaimed(reply: pb.LoadReply) -> Notify:
    return Notify("CloseModel", pb.CloseModelRequest(model_id=reply.model_id))


def _teller(source: Source, on_progress: Progress | None) -> Callable[[], None]:
    """Make a function that tells how far the source was read, if that is news."""
    told = 0

    def progressed() -> None:
        nonlocal told
        if on_progress is not None and source.sent != told:
            told = source.sent
            on_progress(told, source.size)

    return progressed


def _check_digest(digest: bytes, source: Source) -> None:
    if digest != source.sha256:
        raise DataError(
            "the model was damaged on the way: the service's digest is another",
            cause=Cause.INVALID_MODEL,
        )
