"""The core of loading and inspecting: one stream of header, chunks and trailer."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from model_loader_wire.causes import Cause
from model_loader_wire.v1 import model_loader_pb2 as pb

from ._effects import Adopt, InThread, Notify, Steps, Upload
from ._messages import description_from, isolation_from, limits_from, limits_to
from ._model_core import ModelCore
from ._options import ContextOptions, lower, seconds
from ._session import Session
from ._source import Progress, Source
from ._values import Report
from .errors import ConstraintError, DataError, UnknownError

GRACE_SECONDS = 5.0
"""How much longer than the service's own limit the client waits: the service's error says more."""


def load(
    session: Session,
    options: ContextOptions,
    source: Any,
    timeout: float | None,
    on_progress: Progress | None,
) -> Steps[ModelCore]:
    """Load a model and take its direct channel."""
    session.check_usable()
    if on_progress is not None and not callable(on_progress):
        raise ConstraintError("on_progress must be callable")
    limits = lower(session.limits, options.limits)
    usual = None if limits.load_seconds is None else limits.load_seconds + GRACE_SECONDS
    wait = seconds(timeout, usual)
    started = time.monotonic()
    opened: Any = yield InThread(partial(Source, source, limits.model_bytes))
    try:
        header = pb.LoadHeader(
            model_format=options.model_format,
            size=opened.size,
            num_threads=options.num_threads,
            device_preference=options.device_preference,
            power_preference=options.power_preference,
            required_layers=options.required_layers,
            relayed=session.relayed,
            label=opened.label,
        )
        if options.limits is not None:
            header.limits.CopyFrom(limits_to(options.limits))
        reply: pb.LoadReply = yield _upload("Load", header, opened, on_progress, wait)
    finally:
        opened.close()
    try:
        _check_digest(reply.sha256, opened)
        description = description_from(reply.description)
        in_force = limits_from(reply.limits)
        report = Report(
            runtime=description.runtime,
            kernels=description.kernels,
            note=description.note,
            threads=description.threads,
            sha256=opened.sha256.hex(),
            size=opened.sent,
            load_seconds=time.monotonic() - started,
            limits=in_force,
        )
        isolation = isolation_from(reply.isolation)
        core = ModelCore(session, reply.model_id, description, isolation, report, opened.label)
        if session.attach is not None:
            taken: socket.socket = yield InThread(
                partial(session.attach.receive_channel, reply.model_id)
            )
            core.channel = yield Adopt(taken, core.noticed_end)
    except GeneratorExit:
        raise  # nobody carries out effects any more
    except BaseException:
        yield Notify("CloseModel", pb.CloseModelRequest(model_id=reply.model_id))
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
        reply: pb.InspectReply = yield _upload("Inspect", header, opened, None, wait)
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


def _upload(
    method: str,
    header: pb.LoadHeader,
    source: Source,
    on_progress: Progress | None,
    timeout: float | None,
) -> Upload:
    def requests() -> Iterator[pb.LoadRequest]:
        yield pb.LoadRequest(header=header)
        for chunk in source.chunks():
            yield pb.LoadRequest(chunk=chunk)
        yield pb.LoadRequest(trailer=pb.LoadTrailer(sha256=source.sha256))

    told = 0

    def progressed() -> None:
        nonlocal told
        if on_progress is not None and source.sent != told:
            told = source.sent
            on_progress(told, source.size)

    def unclaimed(reply: pb.LoadReply) -> Notify:
        return Notify("CloseModel", pb.CloseModelRequest(model_id=reply.model_id))

    return Upload(method, requests(), progressed, timeout, unclaimed if method == "Load" else None)


def _check_digest(digest: bytes, source: Source) -> None:
    if digest != source.sha256:
        raise DataError(
            "the model was damaged on the way: the service's digest is another",
            cause=Cause.INVALID_MODEL,
        )
