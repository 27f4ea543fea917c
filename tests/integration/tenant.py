"""One user of a shared service: ``python -m tests.integration.tenant DIRECTORY UID``.

It becomes UID when it has imported everything, and says what limits it was given, or why it was
refused. Then it does what each line of its input says and answers with a line of JSON: ``load N``
loads a model that adds N, ``load-by-name NAME`` one of the operator's; ``compute`` asks the first
of them; ``models`` lists what it sees; ``read PATH`` says whether it may read a file.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import grpc  # noqa: F401 - where Python is installed the other user may not be able to read
import numpy as np

import model_loader as ml
from loader_service.writer import small


def said_of(error: ml.ModelLoaderError) -> dict[str, Any]:
    """What a caller can learn of a refusal."""
    limit = getattr(error, "limit", "")
    return {"error": type(error).__name__, "message": error.message, "limit": limit}


def main(directory: str, uid: int) -> None:
    """Serve the lines of the input."""
    small.add(1)
    if uid != os.geteuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    try:
        connection = ml.connect(directory, origin="the same for all")
    except ml.ModelLoaderError as error:
        print(json.dumps(said_of(error)), flush=True)
        return
    with connection, ml.create_context(connection=connection) as context:
        print(json.dumps(context.limits.set_values()), flush=True)
        models: list[ml.MLModel] = []
        for line in sys.stdin:
            try:
                print(json.dumps(_done(line.split(), connection, context, models)), flush=True)
            except ml.ModelLoaderError as error:
                print(json.dumps(said_of(error)), flush=True)


def _done(
    words: list[str], connection: ml.Connection, context: ml.MLContext, models: list[ml.MLModel]
) -> Any:
    match words:
        case ["load", number]:
            models.append(ml.MLModelLoader(context).load(small.add(int(number))))
            return models[-1].isolation.worker_pid
        case ["load-by-name", name]:
            models.append(ml.MLModelLoader(context).load_by_name(name))
            return models[-1].report.sha256
        case ["read", path]:
            return os.access(path, os.R_OK)
        case ["compute"]:
            return models[0].compute(np.ones(1, np.float32)).tolist()
        case _:
            return [row.worker_pid for row in connection.models()]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
