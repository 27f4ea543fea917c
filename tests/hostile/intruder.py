"""Another user of a daemon, who knows everything that a victim's client knows and tries to use it.

    python -m tests.hostile.intruder DIRECTORY UID KNOWN

becomes UID when it has imported everything; KNOWN is a JSON object with the victim's ``token``,
``grpc_path``, ``origin``, model ids (``direct``, ``relayed``), ``sha256`` and ``worker_pid``. What
came of each attempt is printed as a JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from loader_service.writer import hostile, small
from model_loader_wire.v1 import model_loader_pb2 as pb
from model_loader_wire.v1 import model_loader_pb2_grpc as pb_grpc
from tests.support.raw_client import (
    HANG_SECONDS,
    Metadata,
    RawSession,
    detail_of,
    load_parts,
    message_of,
)

ONE = np.ones(1, np.float32)
NEVER = "0" * 24
"""An id that no model ever had."""
Known = dict[str, Any]


def outcome(call: Callable[[], Any]) -> list[str]:
    """What a call answers, or its code, cause and message."""
    try:
        return ["answered", str(call()).strip()]
    except grpc.RpcError as error:
        code: Any = error
        if code.code() is grpc.StatusCode.UNAVAILABLE:
            return ["UNAVAILABLE"]
        detail = detail_of(error)
        return [code.code().name, detail.cause, detail.message]


def requests(model_id: str) -> dict[str, Any]:
    """A request of every unary method, about a model where it is about one."""
    return {
        "Formats": pb.FormatsRequest(),
        "FindModel": pb.FindModelRequest(sha256=bytes(32)),
        "Compute": pb.ComputeRequest(model_id=model_id, inputs=[message_of(ONE)]),
        "Reset": pb.ResetRequest(model_id=model_id),
        "CloseModel": pb.CloseModelRequest(model_id=model_id, deadline_passed=True),
        "GetModel": pb.GetModelRequest(model_id=model_id, wait_seconds=0.1),
        "ListModels": pb.ListModelsRequest(),
    }


def with_token(stub: pb_grpc.ModelLoaderStub, token: str, model_id: str) -> dict[str, list[str]]:
    """Make every call with a token."""
    metadata: Metadata = (("model-loader-session", token),)

    def unary(name: str, request: Any) -> list[str]:
        call = getattr(stub, name)
        return outcome(lambda: call(request, metadata=metadata, timeout=HANG_SECONDS))

    def upload(name: str) -> list[str]:
        call = getattr(stub, name)
        parts = load_parts(small.add())
        return outcome(lambda: call(parts, metadata=metadata, timeout=HANG_SECONDS))

    made = {name: unary(name, request) for name, request in requests(model_id).items()}
    return made | {name: upload(name) for name in ("Load", "Inspect")}


def tokens(own: RawSession, known: Known) -> dict[str, Any]:
    """Use the victim's token, one that nobody has, and one's own after its end."""
    with RawSession(own.directory) as ended:
        old = ended.welcome.session.token.hex()
    grpc_stream = own.stub.OpenSession(
        pb.OpenSessionRequest(protocol_version=1), timeout=HANG_SECONDS
    )
    streamed = next(grpc_stream).opened.token.hex()
    grpc_stream.cancel()
    list_models = own.stub.ListModels
    metadata: Metadata = (("model-loader-session", streamed),)
    while outcome(lambda: list_models(pb.ListModelsRequest(), metadata=metadata))[0] == "answered":
        continue  # until the service has noticed
    return {
        "theirs": with_token(own.stub, known["token"], known["relayed"]),
        "nobody's": with_token(own.stub, secrets.token_hex(32), known["relayed"]),
        "ended": with_token(own.stub, old, known["relayed"]),
        "stream ended": with_token(own.stub, streamed, known["relayed"]),
    }


def their_socket(known: Known) -> dict[str, Any]:
    """Call on the victim's own gRPC socket."""
    with grpc.insecure_channel(f"unix:{known['grpc_path']}") as channel:
        stub = pb_grpc.ModelLoaderStub(channel)  # type: ignore[no-untyped-call]
        made = with_token(stub, known["token"], known["relayed"])
    try:
        os.listdir(Path(known["grpc_path"]).parent)
    except PermissionError:
        return {"calls": made, "room": "closed"}
    return {"calls": made, "room": "open"}


def models(own: RawSession, names: Iterable[str]) -> dict[str, Any]:
    """Name models in every call that names one, on the attach socket and to the health service."""
    health = health_pb2_grpc.HealthStub(own.grpc)
    result: dict[str, Any] = {}
    for model_id in names:
        made: dict[str, Any] = {
            name: outcome(partial(own.call, name, request))
            for name, request in requests(model_id).items()
            if hasattr(request, "model_id")
        }
        reply, descriptors = own.attach.receive_channel(model_id)
        made["channel"] = [reply.error.cause, reply.error.message, len(descriptors)]
        try:
            made["health"] = health.Check(
                health_pb2.HealthCheckRequest(service=f"model/{model_id}"), timeout=HANG_SECONDS
            ).status
        except grpc.RpcError as error:
            failed: Any = error
            made["health"] = [failed.code().name, failed.details()]
        result[model_id] = made
    return result


def process(pid: int) -> dict[str, str]:
    """Signal and read the victim's worker."""
    attempts: dict[str, Callable[[], object]] = {
        "kill": lambda: os.kill(pid, signal.SIGKILL),
        "memory": lambda: os.open(f"/proc/{pid}/mem", os.O_RDONLY),
        "descriptors": lambda: os.listdir(f"/proc/{pid}/fd"),
        "environment": lambda: Path(f"/proc/{pid}/environ").read_bytes(),
    }
    result = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except PermissionError:
            result[name] = "refused"
        else:
            result[name] = "done"
    return result


def fill(directory: Path, known: Known) -> dict[str, Any]:
    """Take an origin of the victim's name, fill it up, and let a model crash in it."""
    with RawSession(directory, known["origin"]) as session:
        crashes = [outcome(lambda: session.load(hostile.abort_at_load()))[1] for _ in range(3)]
        ids = []
        while (made := outcome(lambda: session.load(small.add(), relayed=True)))[0] == "answered":
            ids.append(made[1])
        return {
            "origin": session.welcome.session.origin,
            "crashes": crashes,
            "models": len(ids),
            "then": made[1],
            "listed": len(session.models()),
            "found": session.call(
                "FindModel", pb.FindModelRequest(sha256=bytes.fromhex(known["sha256"]))
            ).offer.hex(),
            "own found": len(
                session.call(
                    "FindModel",
                    pb.FindModelRequest(sha256=hashlib.sha256(small.add()).digest()),
                ).offer
            ),
        }


def attempts(directory: Path, known: Known) -> dict[str, Any]:
    """Make every attempt to use what is the victim's; returns what came of each."""
    with RawSession(directory, known["origin"]) as own:
        return {
            "tokens": tokens(own, known),
            "their socket": their_socket(known),
            "models": models(own, (known["direct"], known["relayed"], NEVER, "")),
            "listed": own.models(),
            "process": process(known["worker_pid"]),
        }


def main(directory: Path, uid: int, known: Known) -> None:
    """Make every attempt, fill the origin up, and print what came of it."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    result = attempts(directory, known)
    result["filled"] = fill(directory, known)
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
