"""What a worker reports of a model: its declaration, and what an inspection found."""

from __future__ import annotations

import json

from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.seat import Place
from loader_service.worker.control import MOST_COMMAS, Message
from model_loader_wire.causes import Cause, Failure, printable
from model_loader_wire.description import BadDescription, ModelDescription, model_from_values

SUMMARY_BYTES = 4_000_000
"""Most of an inspection's result: gRPC clients take messages of 4 MiB unless told otherwise."""


async def read_description(worker: Place) -> ModelDescription:
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


async def read_summary(worker: Place) -> str:
    """Join the file's facts with what the runtime made of it; raises Refusal."""
    fields = await worker.expect(Message.INSPECTED)
    try:
        text = str(fields.get("summary"))
        # An escaped comma was none yet when those of the message were counted.
        if text.count(",") > MOST_COMMAS:
            raise ValueError("too many facts")
        facts = _clean(json.loads(text, parse_constant=_no_number))
    except (ValueError, RecursionError):
        reason = Failure(Cause.PROTOCOL_VIOLATION, "an inspection cannot be read")
        raise Refusal(await worker.end(reason)) from None
    result: dict[str, object] = {"file": facts, "loads": False, "failure": None}
    try:
        description = await read_description(worker)
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
