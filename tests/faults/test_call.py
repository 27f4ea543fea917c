"""A call, a reset and a close, with each kind of process killed at each stage.

As in ``test_load``: something has stopped itself, or cannot go on, exactly at the stage; after
each case `Ground.check` finds nothing left and everything else as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import costly, small, stateful
from tests.faults.ground import Client, Ground, error_in
from tests.support.stopping import resume, stop, wait_until_stopped
from tests.support.waiting import wait_until

ROADS = [(face, road) for road in ("direct", "relayed") for face in ("blocking", "aio")]
KILLED = ("OperationError", "killed")
GONE = ("NetworkError", "unavailable")
LOST = ("InvalidStateError", "lost")
"""What an asynchronous program may meet at once: it is told of the loss without a call."""
LARGE = 64 << 20
"""Bytes that no socket's buffer holds."""
PRODUCTS = 8000
"""Of matrices, which take a processor some seconds."""
LONG = (pytest.mark.slow, pytest.mark.isolation)
"""An unprivileged user's workers are killed where there is time for it, and not twice quickly."""
MODELS = {
    "add": small.add(),
    "work": costly.work(),
    "copy": small.copy(TensorType.FLOAT32, (LARGE // 4,)),
    "broadcast": small.broadcast(LARGE // 4),
    "counter": stateful.counter(),
}


@pytest.fixture(scope="module")
def paths(folder: Path) -> dict[str, str]:
    """The models' files."""
    for name, data in MODELS.items():
        (folder / name).write_bytes(data)
    return {name: str(folder / name) for name in MODELS}


def idle(ground: Ground, client: Client, paths: dict[str, str], road: str) -> object:
    """A model is there, and nothing is under way; the next call begins when the victim is dead."""
    client.ask("load", path=paths["add"])
    return [1, 2, 2]


def computing(ground: Ground, client: Client, paths: dict[str, str], road: str) -> object:
    """The worker computes, for seconds from now."""
    client.ask("load", path=paths["work"])
    process = psutil.Process(ground.worker())
    before = process.cpu_times().user
    client.begin("compute", fill=PRODUCTS, dtype="int32")
    wait_until(lambda: process.cpu_times().user >= before + 0.03, "the worker to compute")
    return [1, PRODUCTS, PRODUCTS]


def half_sent(ground: Ground, client: Client, paths: dict[str, str], road: str) -> object:
    """Part of a request waits for a worker that reads nothing."""
    client.ask("load", path=paths["copy"])
    stop(ground.worker())
    if road == "relayed":
        ground.arm("a call is relayed")
        client.begin("compute", elements=LARGE // 4)
        wait_until_stopped(ground.service.pid)
    else:
        ground.arm("bytes wait for the worker")
        client.ask("watch")
        client.begin("compute", elements=LARGE // 4)
        wait_until_stopped(client.pid)
    return [LARGE // 4, 1, 1]


def half_answered(ground: Ground, client: Client, paths: dict[str, str], road: str) -> object:
    """The head of an answer has come, and not its end."""
    client.ask("load", path=paths["broadcast"])
    if road == "relayed":
        ground.arm("half an answer is in the broker")
        client.begin("compute", fill=7)
        wait_until_stopped(ground.service.pid)
    else:
        ground.arm("bytes wait for the client")
        client.ask("watch")
        client.begin("compute", fill=7)
        wait_until_stopped(client.pid)
    return [LARGE // 4, 7, 7]


def resetting(ground: Ground, client: Client, paths: dict[str, str], road: str) -> object:
    """A reset waits for a worker that does nothing."""
    client.ask("load", path=paths["counter"])
    assert client.ask("compute", fill=5) == [1, 5, 5]
    stop(ground.worker())
    if road == "relayed":
        client.begin("reset")
    else:
        ground.arm("bytes wait for the worker")
        client.ask("watch")
        client.begin("reset")
        wait_until_stopped(client.pid)
    return "reset"


def closing(ground: Ground, client: Client, paths: dict[str, str], road: str) -> object:
    """The broker was asked to close the model, and has not begun."""
    client.ask("load", path=paths["add"])
    ground.arm("a model is closed")
    client.begin("close")
    wait_until_stopped(ground.service.pid)
    return "closed"


STAGES = {
    function.__name__: function
    for function in (idle, computing, half_sent, half_answered, resetting, closing)
}


def cases() -> list[Any]:
    """Every stage with every victim on every road; one face quickly, and not each broker's end."""

    def is_quick(face: str, victim: str, stage: str) -> bool:
        return face == "blocking" and (
            victim == "worker" or (victim == "broker" and stage in ("computing", "half_sent"))
        )

    return [
        pytest.param(
            *(face, road, victim, stage),
            id=f"{face}-{road}-{victim}-{stage}",
            marks=() if is_quick(face, victim, stage) else LONG,
        )
        for face, road in ROADS
        for stage in STAGES
        for victim in ("worker", "zygote", "broker", "client")
    ]


@pytest.mark.parametrize(("face", "road", "victim", "stage"), cases())
def test_killed_in_a_call(
    ground: Ground, paths: dict[str, str], face: str, road: str, victim: str, stage: str
) -> None:
    client = ground.client(face, road)
    client.ask("connect")
    expected = STAGES[stage](ground, client, paths, road)
    worker = ground.worker()
    ground.kill(victim, client)
    if victim == "zygote":
        resume([worker])
    if victim != "client":
        if stage == "idle":
            client.begin("compute")
        said = client.hear()
        if victim == "zygote" or stage == "closing":
            assert said == {"said": expected}
        else:
            reason = KILLED if victim == "worker" else GONE
            told = [LOST] if stage == "idle" and face == "aio" else []
            assert error_in(said) in (reason, *told), said
            assert client.ask("lost") == reason[1]
            # The one who waited was told; from now on the model is what it is: lost.
            assert client.error("compute") == LOST
    ground.check(client)


@pytest.mark.isolation
@pytest.mark.parametrize(("face", "road"), ROADS)
@pytest.mark.parametrize("victim", ["worker", pytest.param("broker", marks=pytest.mark.slow)])
def test_an_idle_models_loss_is_told_without_a_call(
    ground: Ground, paths: dict[str, str], face: str, road: str, victim: str
) -> None:
    client = ground.client(face, road)
    client.ask("connect")
    client.ask("load", path=paths["add"])
    assert client.ask("lost") is None
    ground.kill(victim, client)
    reason = "killed" if victim == "worker" else "unavailable"
    # "lost" is what the asynchronous face says until the service has told why.
    wait_until(lambda: client.ask("lost") not in (None, "lost"), "the loss being noticed")
    assert client.ask("lost") == reason
    ground.check(client)
