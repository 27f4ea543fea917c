"""A load, with each kind of process killed at each stage: one typed error, or no difference.

At each stage the process that the stage belongs to has stopped itself, so that what is killed is
killed exactly there. After each case `Ground.check` finds nothing left, the bystander answering,
and the service loading models.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer.model import ModelWriter
from tests.faults.ground import Client, Ground, error_in
from tests.support.stopping import stop, wait_until_stopped

BROKER = (
    "the header is read",
    "a worker is asked for",
    "the broker knows of the worker",
    "the worker waits for GO",
    "the worker is locked down",
    "piece 1 is passed on",
    "piece 3 is passed on",
    "the upload is complete",
    "the worker opens it",
    "the worker has loaded it",
)
ATTACHED = ("before hello", "the channel is asked for")
OFFERED = ("the model is offered",)
ZYGOTE = ("the zygote was asked", "the worker is forked")
CLIENT = ("before the trailer",)
STAGES = {
    "direct": (*BROKER, *ATTACHED, *ZYGOTE, *CLIENT),
    "offered": (*BROKER, *ATTACHED, *OFFERED, *ZYGOTE),
    "relayed": (*BROKER, *ZYGOTE, *CLIENT),
}
NO_WORKER_YET = (
    "before hello",
    "the model is offered",
    "the header is read",
    "a worker is asked for",
    "the zygote was asked",
)
LOADED = ("the worker opens it", "the worker has loaded it", "the channel is asked for")
"""Stages at which the model may be loaded by the time of the kill."""
QUICK = (
    "before hello",
    "the header is read",
    "the zygote was asked",
    "the worker waits for GO",
    "piece 1 is passed on",
    "the worker has loaded it",
)
"""Stages at which not only a worker's death is tried in the quick tests."""
ROADS = [(face, road) for road in ("direct", "offered", "relayed") for face in ("blocking", "aio")]
LOST = ("InvalidStateError", "lost")
KILLED = ("OperationError", "killed")
GONE = ("NetworkError", "unavailable")


@pytest.fixture(scope="module")
def model(folder: Path) -> str:
    """A model of more than three pieces that adds 1."""
    writer = ModelWriter()
    graph = writer.subgraph()
    x = graph.input("x", TensorType.FLOAT32, (1,))
    y = graph.tensor("y", TensorType.FLOAT32, (1,))
    graph.operator(BuiltinOperator.EXP, [x], [y])
    graph.output(y)
    writer.metadata("ballast", bytes(range(256)) * (13 << 10))
    path = folder / "model.tflite"
    path.write_bytes(writer.write())
    assert 3 << 20 < path.stat().st_size < 4 << 20
    return str(path)


def cases() -> list[object]:
    """Every stage with every victim there is by then; the most telling ones quickly."""
    found: list[object] = []
    for face, road in ROADS:
        for stage in STAGES[road]:
            for victim in ("worker", "zygote", "broker", "client"):
                if victim == "worker" and stage in NO_WORKER_YET:
                    continue
                quick = (face, road) == ROADS[0] and (victim == "worker" or stage in QUICK)
                # An unprivileged user's are killed where there is time, and not twice quickly.
                marks = () if quick else (pytest.mark.slow, pytest.mark.isolation)
                name = f"{face}-{road}-{victim}-{stage.replace(' ', '-')}"
                found.append(pytest.param(face, road, victim, stage, id=name, marks=marks))
    return found


def bring_to(stage: str, ground: Ground, client: Client, model: str) -> None:
    """Begin a load, and wait until it stands at the stage."""
    ground.arm(stage)
    client.begin("connect")
    if stage != "before hello":
        assert "said" in client.hear()
        client.begin("load", path=model)
    owner = ground.service.pid
    if stage in (*CLIENT, "before hello"):
        owner = client.pid
    elif stage in ZYGOTE:
        owner = ground.zygote()
    wait_until_stopped(owner)
    if stage in ("the upload is complete", "the worker opens it"):
        # So that it can hardly have opened the model when it is killed.
        stop(ground.worker())


@pytest.mark.parametrize(("face", "road", "victim", "stage"), cases())
def test_killed_in_a_load(
    ground: Ground, model: str, face: str, road: str, victim: str, stage: str
) -> None:
    client = ground.client(face, road)
    bring_to(stage, ground, client, model)
    ground.kill(victim, client)
    if victim != "client":
        said = client.hear()
        if victim == "zygote":
            assert "said" in said, said
            if stage == "before hello":
                client.ask("load", path=model)
            assert client.ask("compute", fill=0) == [1, 1, 1]
        elif victim == "worker":
            if stage in LOADED and "said" in said:
                # It was a model when the news came: the first call gives the reason.
                client.begin("compute")
                said = client.hear()
                if (face, road) == ("aio", "relayed") and error_in(said) == LOST:
                    # It is told of the loss as an event, which may come before the call.
                    assert "SIGKILL" in str(said)
                    said = {"error": KILLED[0], "cause": KILLED[1]}
            assert error_in(said) == KILLED, said
        else:
            assert error_in(said) == GONE, said
    ground.check(client)
