"""Small graphs as plain values, for the logic that needs no model."""

from __future__ import annotations

from collections.abc import Sequence

from loader_service.devices.capabilities import Capabilities, OperatorClass, Performance
from loader_service.devices.device import SUPPORTED, DeviceType, Verdict
from loader_service.devices.model_view import ModelView, NodeView, TensorView
from loader_service.devices.partitioner import Candidate
from loader_service.runtime.schema_tensor_types import TensorType

SHAPE = (1, 10)


def graph(
    *nodes: tuple[Sequence[int], Sequence[int]],
    outputs: Sequence[int] = (),
    operators: Sequence[str] = (),
) -> ModelView:
    """A graph of nodes by the tensors that they read and write; tensor 0 is the input."""
    count = 1 + max(max((*reads, *writes)) for reads, writes in nodes)
    names = operators or ["ADD"] * len(nodes)
    return ModelView(
        tuple(TensorView(index, int(TensorType.FLOAT32), SHAPE) for index in range(count)),
        tuple(
            NodeView(index, name, tuple(reads), tuple(writes))
            for index, (name, (reads, writes)) in enumerate(zip(names, nodes, strict=True))
        ),
        (0,),
        tuple(outputs) or (nodes[-1][1][-1],),
    )


def chain(length: int, operators: Sequence[str] = ()) -> ModelView:
    """Nodes in a row, each reading what the one before it wrote."""
    return graph(*(([index], [index + 1]) for index in range(length)), operators=operators)


def candidate(
    name: str,
    supported: Sequence[bool],
    *,
    time: float = 1,
    power: float = 1,
    kind: DeviceType = DeviceType.ACCELERATOR,
    overhead: float = 0,
    relaxed: Performance | None = None,
) -> Candidate:
    """A device with one figure for everything, and its verdicts."""
    figures = Performance(time, power)
    capabilities = Capabilities(figures, {OperatorClass.FLOAT: figures}, relaxed, overhead)
    verdicts = [SUPPORTED if good else Verdict(False, "not that one") for good in supported]
    return Candidate(name, kind, capabilities, verdicts)
