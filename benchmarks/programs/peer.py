"""One arm of a peer: `python -m benchmarks.programs.peer JSON` in the peer's Python environment.

The JSON object has `arm`, a name in `ARMS`; `models`, the fields of `PeerModel` for each; and
`conditions`, one for each model, by the model's name. The server is started, serves all models,
and is ended here. Printed is what `benchmarks.programs.several` prints.

The client is the one that Triton's makers give, which speaks to every server of the Open Inference
Protocol.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
# The project is not installed in a peer's environment; this much of it needs nothing else.
sys.path.append(str(REPOSITORY / "client"))

import tritonclient.grpc as oip  # noqa: E402

from benchmarks.peers import mlserver, triton  # noqa: E402
from benchmarks.peers.model import PeerModel, model_of  # noqa: E402
from benchmarks.peers.peers import (  # noqa: E402
    MLSERVER_ALONE,
    MLSERVER_WORKER,
    TRITON_GRPC,
    TRITON_SHARED_MEMORY,
)
from benchmarks.peers.server import NotStarted  # noqa: E402
from benchmarks.programs.several import measured  # noqa: E402
from model_loader_cli.bench.blocks import Call  # noqa: E402

Road = Callable[[Any, PeerModel], Iterator[Call]]


@contextmanager
def by_grpc(client: Any, model: PeerModel) -> Iterator[Call]:
    """Send the input and take the output as bytes of gRPC messages."""
    x = model.array()

    def call() -> Any:
        given = oip.InferInput("x", x.shape, "FP32")
        given.set_data_from_numpy(x)
        return client.infer(model.served_as, [given]).as_numpy("y")

    yield call


@contextmanager
def by_shared_memory(client: Any, model: PeerModel) -> Iterator[Call]:
    """Put the input into memory that the server shares, and copy the output from there."""
    import numpy as np
    import tritonclient.utils.shared_memory as shared

    x = model.array()
    answer_bytes = int(np.prod(model.answer)) * x.itemsize
    names = {end: f"{model.served_as}-{end}" for end in ("x", "y")}
    regions = {}
    for end, size in (("x", x.nbytes), ("y", answer_bytes)):
        key = f"/{names[end]}-{os.getpid()}"
        regions[end] = shared.create_shared_memory_region(names[end], key, size)
        client.register_system_shared_memory(names[end], key, size)
    given = oip.InferInput("x", x.shape, "FP32")
    given.set_shared_memory(names["x"], x.nbytes)
    wanted = oip.InferRequestedOutput("y")
    wanted.set_shared_memory(names["y"], answer_bytes)

    def call() -> Any:
        shared.set_shared_memory_region(regions["x"], [x])
        client.infer(model.served_as, [given], outputs=[wanted])
        return shared.get_contents_as_numpy(regions["y"], np.float32, model.answer).copy()

    try:
        yield call
    finally:
        for region in regions.values():
            shared.destroy_shared_memory_region(region)


ARMS: dict[str, tuple[Any, Any]] = {
    TRITON_GRPC: (triton.start, by_grpc),
    TRITON_SHARED_MEMORY: (triton.start, by_shared_memory),
    MLSERVER_WORKER: (partial(mlserver.start, workers=1), by_grpc),
    MLSERVER_ALONE: (partial(mlserver.start, workers=0), by_grpc),
}
"""By name: how the server is started, and by what road it is called."""


def is_ready(client: Any, models: list[PeerModel]) -> bool:
    """Whether every model is ready; False as long as nobody listens."""
    try:
        return all(client.is_model_ready(model.served_as) for model in models)
    except oip.InferenceServerException:
        return False


def main(text: str) -> dict[str, Any]:
    """Run one arm."""
    given = json.loads(text)
    start, road = ARMS[given["arm"]]
    models = [model_of(values) for values in given["models"]]
    with tempfile.TemporaryDirectory(prefix="peer-") as name:
        folder = Path(name)
        server, address = start(models, folder)
        try:
            with server, oip.InferenceServerClient(address) as client:
                server.wait(partial(is_ready, client, models))
                return measured(
                    {model.name: partial(road, client, model) for model in models},
                    given["conditions"],
                )
        finally:
            triton.tidy(folder)


if __name__ == "__main__":
    try:
        print(json.dumps(main(sys.argv[1])))
    except NotStarted as error:
        sys.exit(f"the server does not run: {error}")
