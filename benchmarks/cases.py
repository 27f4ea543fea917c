"""What is measured: policy as data, a line a case. Counts are chosen for blocks of 20 to 100 ms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchmarks.models import PAYLOADS, SHARED, payload_name
from model_loader_cli.bench.blocks import Condition
from model_loader_cli.bench.candidate import Candidate
from model_loader_cli.bench.comparison import (
    AGAIN,
    BACK_TO_BACK,
    DIRECT,
    ECHO,
    IN_PROCESS,
    RELAYED,
)

PAIRS = 10
"""Fresh process pairs of what a target is set for."""
OTHER_PAIRS = 5
"""Of the rest: enough to see, too few to judge."""
QUICK_PAIRS = 2
QUICK_SHARE = 4
"""A quick run makes so many times fewer calls in a block."""
BLOCKS = 4

SPARSE, BUSY = "sparse", "busy"
SPARSE_MS = 20.0
IN_PLACE = "in place"
TAKEN_APART = "direct, taken apart"
SIZED_ECHO = "echo, large buffers"
SECOND_IN_PROCESS = "tflite-runtime, in process"
SECOND_DIRECT = "tflite-runtime, direct"

BASE = (IN_PROCESS, IN_PROCESS + AGAIN, DIRECT, ECHO)
WITH_RELAY = (*BASE, RELAYED)
ALL_CONDITIONS = (*BASE, TAKEN_APART)
"""Arms that are also measured sparsely and on a busy machine; the others only back to back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model, run by some arms under some conditions."""

    model: str
    arms: tuple[str, ...]
    calls: int
    """Calls in a block, back to back."""
    sparse_calls: int = 0
    """Calls in a block, one every `SPARSE_MS`; 0: not measured."""
    busy_calls: int = 0
    """Calls in a block beside a spinning process; 0: not measured."""
    threads: int = 1
    judged: bool = False
    """Whether a target is set for it, so that it takes all pairs."""
    quick: bool = False
    """Whether a quick run measures it, too."""

    @property
    def name(self) -> str:
        """The case in tables."""
        return self.model if self.threads == 1 else f"{self.model}, {self.threads} threads"

    def conditions(self, arm: str, share: int = 1) -> list[Condition]:
        """The conditions of one arm; a quick run makes `share` times fewer calls."""
        counts = ((BACK_TO_BACK, self.calls), (SPARSE, self.sparse_calls), (BUSY, self.busy_calls))
        return [
            Condition(
                name=name,
                calls=max(2, calls // share),
                blocks=max(2, BLOCKS // share),
                every_ms=SPARSE_MS if name == SPARSE else 0,
                busy=name == BUSY,
            )
            for name, calls in counts
            if calls and (name == BACK_TO_BACK or arm in ALL_CONDITIONS)
        ]


FOUR_BYTES = "4 bytes"
IMAGE = "602 kB in, 4 kB out"
FLOAT, INT8 = "MobileNet v2 float32", "MobileNet v2 int8"
LARGEST = payload_name(PAYLOADS[-1])

CALLS = (
    Case(
        model=FOUR_BYTES,
        arms=(*WITH_RELAY, TAKEN_APART),
        calls=250,
        sparse_calls=8,
        busy_calls=100,
        judged=True,
        quick=True,
    ),
    Case(
        model=IMAGE,
        arms=(*WITH_RELAY, TAKEN_APART, IN_PLACE, SIZED_ECHO),
        calls=150,
        sparse_calls=8,
        busy_calls=60,
        judged=True,
        quick=True,
    ),
    Case(
        model=FLOAT,
        arms=(*WITH_RELAY, TAKEN_APART),
        calls=15,
        sparse_calls=6,
        busy_calls=6,
        judged=True,
        quick=True,
    ),
    Case(model=FLOAT, arms=BASE, calls=15, threads=2, judged=True),
    Case(
        model=INT8,
        arms=(*WITH_RELAY, TAKEN_APART, SECOND_IN_PROCESS, SECOND_DIRECT),
        calls=25,
    ),
    Case(model="MobileNet v1 float32", arms=BASE, calls=10),
    Case(model="MobileNet v1 int8", arms=BASE, calls=15),
    *(Case(model=name, arms=BASE, calls=5) for name in SHARED),
)
"""Section 1, models."""

RELAYED_BYTES = 1_000_000
"""Above this, a relayed call takes so long that it is not worth the run's time."""
PAYLOAD_CALLS = {4000: 200, 64_000: 150, 1_000_000: 60, 16_000_000: 5, 64_000_000: 2}
PAYLOAD_CASES = tuple(
    Case(
        model=payload_name(size),
        arms=BASE
        + ((RELAYED,) if size <= RELAYED_BYTES else ())
        + ((SIZED_ECHO,) if size >= 1_000_000 else ()),
        calls=PAYLOAD_CALLS[size],
        judged=size == PAYLOADS[-1],
        quick=size == 1_000_000,
    )
    for size in PAYLOADS
)
"""Section 1, cost against payload size: as many bytes out as in; 4 bytes are in `CALLS`."""


def shortened(case: Case) -> Case:
    """A quick run's case: the arms that every case has."""
    return replace(case, arms=tuple(arm for arm in case.arms if arm in (*WITH_RELAY, TAKEN_APART)))


COLD_MODELS = (FOUR_BYTES, INT8, FLOAT)
"""Sections 2 and 3."""
COLD_LOADS = 5
"""Loads of new bytes in one process, each timed; the very first is told apart."""
COLD_CONNECTS = 10

WORKERS = (1, 10, 100)
"""Section 3: workers of one service, with a tiny model each."""

PIPELINED = FLOAT
PIPELINE_THREADS = 2
PIPELINE_DEPTH = 4
"""Section 4: calls of the pipelining client that are under way at a time."""
CROWD = INT8
"""The model of the rest of section 4."""
CROWDS = (1, 2, 4, 8)
"""Models, each with a client of its own, at a time."""
SHARED_CLIENTS = 4
"""Clients of one model."""
NEIGHBOURS = (0, 1, 4)
"""Fairness: busy models of another origin beside the one that is watched."""
BLOCK_SECONDS = 0.3
THROUGHPUT_BLOCKS = 2
PIPELINE_BLOCKS = 4

PEER_CALLS: Mapping[str, tuple[int, int]] = {IMAGE: (150, 10), FLOAT: (15, 8)}
"""Section 5, by model: calls in a block of the project's own arms, and of a peer's."""
PEER_BLOCKS = 4

DEVICES = (
    Candidate("reference"),
    Candidate("xnnpack"),
    Candidate("openvino"),
    Candidate("openvino", allow_fp16=True),
)
"""Section 6."""
DEVICE_CALLS: Mapping[str, int] = {
    FLOAT: 10,
    INT8: 15,
    "YAMNet": 15,
    "MoveNet": 8,
    "DeepLab v3": 4,
    "Basic Pitch": 2,
}
"""Calls in a block, by model."""
DEVICE_BLOCKS = 3
DEVICE_THREADS = 1
