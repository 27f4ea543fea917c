"""One user of a shared service: ``python -m tests.integration.tenant DIRECTORY UID [relayed]``.

It becomes UID when it has imported everything, and says what limits it was given, or why it was
refused. Then it does what each line of its input says and answers with a line of JSON:

- ``load N`` loads a model that adds N, ``load-by-name NAME`` one of the operator's;
- ``compute`` asks the first of them, ``compute-often N`` so many times, each with another number;
- ``models`` lists what it sees, ``read PATH`` and ``write PATH`` say whether it may;
- ``cli WORDS`` runs `model-loader` with them; gives its status and output;
- ``known`` opens a session of its own and tells all that another user would have to guess;
- ``intrude JSON`` tries to use what another has so told;
- ``knock N`` connects to the attach socket N times without a word, and stays until it ends; tells
  how many wait, and by which limits others were turned away;
- ``spin N`` loads so many models and has all of them compute without end.
"""

from __future__ import annotations

import io
import json
import os
import select
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import grpc  # noqa: F401 - where Python is installed the other user may not be able to read
import numpy as np

import model_loader as ml
from loader_service.writer import costly, small
from model_loader_cli.command_line import status_of
from model_loader_cli.commands import ps  # noqa: F401 - as above
from tests.hostile import intruder
from tests.support.raw_client import HANG_SECONDS, AttachConnection, RawSession

ORIGIN = "the same for all"


def said_of(error: ml.ModelLoaderError) -> dict[str, Any]:
    """What a caller can learn of a refusal."""
    limit = getattr(error, "limit", "")
    return {"error": type(error).__name__, "message": error.message, "limit": limit}


class Tenant:
    """What this user has, and does."""

    def __init__(self, directory: str, connection: ml.Connection | None) -> None:
        self._directory = directory
        self._connection = connection
        self._context = None if connection is None else ml.create_context(connection=connection)
        self._models: list[ml.MLModel] = []
        self._held: list[RawSession | AttachConnection] = []

    def do(self, line: str) -> Any:
        """Do what a line says; raises ModelLoaderError."""
        command, _, rest = line.strip().partition(" ")
        if command in ("cli", "intrude", "knock", "read", "write"):
            return getattr(self, f"_{command}")(rest)
        assert self._connection is not None
        if command in ("known", "spin"):
            return getattr(self, f"_{command}")(rest)
        assert self._context is not None
        loader = ml.MLModelLoader(self._context)
        match command:
            case "load":
                self._models.append(loader.load(small.add(int(rest))))
                return self._models[-1].isolation.worker_pid
            case "load-by-name":
                self._models.append(loader.load_by_name(rest))
                return self._models[-1].report.sha256
            case "compute":
                return self._models[0].compute(np.ones(1, np.float32)).tolist()
            case "compute-often":
                numbers = np.arange(int(rest), dtype=np.float32).reshape(-1, 1)
                answers = [np.asarray(self._models[0].compute(x)) for x in numbers]
                return [answer.item() for answer in answers]
            case _:
                return [row.worker_pid for row in self._connection.models()]

    def _read(self, path: str) -> bool:
        return os.access(path, os.R_OK)

    def _write(self, path: str) -> bool:
        return os.access(path, os.W_OK)

    def _cli(self, words: str) -> dict[str, Any]:
        output, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(errors):
            status = status_of([*words.split(), "--address", self._directory])
        return {"status": status, "output": output.getvalue(), "errors": errors.getvalue()}

    def _known(self, _: str) -> dict[str, Any]:
        session = RawSession(Path(self._directory), ORIGIN)
        self._held.append(session)
        direct = session.load(small.add(7))
        return {
            "token": session.welcome.session.token.hex(),
            "grpc_path": session.welcome.grpc_path,
            "origin": session.welcome.session.origin,
            "direct": direct.model_id,
            "relayed": session.load(small.add(7), relayed=True).model_id,
            "sha256": direct.sha256.hex(),
            "worker_pid": direct.isolation.worker_pid,
        }

    def _intrude(self, known: str) -> dict[str, Any]:
        return intruder.attempts(Path(self._directory), json.loads(known))

    def _knock(self, count: str) -> dict[str, Any]:
        knocking = [AttachConnection(Path(self._directory)) for _ in range(int(count))]
        self._held += knocking
        answered, _, _ = select.select([item.socket for item in knocking], [], [], HANG_SECONDS)
        limits = [item.receive()[0].error.limit for item in knocking if item.socket in answered]
        return {"waiting": len(knocking) - len(limits), "limits": limits}

    def _spin(self, count: str) -> list[int]:
        assert self._context is not None
        loader = ml.MLModelLoader(self._context)
        models = [loader.load(costly.work()) for _ in range(int(count))]
        for model in models:
            threading.Thread(target=_without_end, args=(model,), daemon=True).start()
        self._models += models
        return [model.isolation.worker_pid for model in models]


def _without_end(model: ml.MLModel) -> None:
    with suppress(ml.ModelLoaderError):
        model.compute(np.array([2**31 - 1], np.int32))


def main(directory: str, uid: int, *, relayed: bool) -> None:
    """Serve the lines of the input."""
    small.add(1)
    if uid != os.geteuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    connection: ml.Connection | None = None
    try:
        connection = ml.connect(directory, origin=ORIGIN, relay=relayed)
    except ml.ModelLoaderError as error:
        print(json.dumps(said_of(error)), flush=True)
    else:
        print(json.dumps(connection.limits.set_values()), flush=True)
    tenant = Tenant(directory, connection)
    for line in sys.stdin:
        try:
            print(json.dumps(tenant.do(line)), flush=True)
        except ml.ModelLoaderError as error:
            print(json.dumps(said_of(error)), flush=True)
    if connection is not None:
        connection.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), relayed="relayed" in sys.argv[3:])
