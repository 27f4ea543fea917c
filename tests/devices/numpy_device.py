"""A device of the tests: elementwise operators in NumPy, as lying and failing as wished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from loader_service.devices.capabilities import Capabilities, Performance
from loader_service.devices.device import (
    SUPPORTED,
    Array,
    Compilation,
    CompilationFailed,
    DeviceType,
    ExecutionFailed,
    Verdict,
)
from loader_service.devices.model_view import ModelView, NodeView
from loader_service.devices.partition import Partition
from loader_service.sandbox.grants import Grants

FUNCTIONS: dict[str, Callable[..., Array]] = {
    "ADD": np.add,
    "MUL": np.multiply,
    "NEG": np.negative,
}


@dataclass
class NumpyDevice:
    """See `Device`."""

    name: str = "numpy"
    type: DeviceType = DeviceType.ACCELERATOR
    operators: frozenset[str] = frozenset({"ADD", "MUL"})
    capabilities: Capabilities = field(
        default_factory=lambda: Capabilities(Performance(0.1, 0.1), {})
    )
    refuses: Callable[[Partition], bool] = lambda _: False
    failures: int = 0
    """Runs that fail from now on; -1: all."""
    verdicts: Callable[[Sequence[Verdict]], Sequence[Verdict]] = lambda true: true
    """What it makes of its true verdicts."""
    adds: float = 0
    """By how much its answers are wrong."""
    version: str = "1"
    feature_level: int = 29
    grants: Grants = field(default_factory=Grants)
    compilations: list[tuple[Partition, Compilation]] = field(default_factory=list)
    runs: int = 0

    def supported_operations(self, model: ModelView) -> Sequence[Verdict]:
        """Take the operators that were named."""
        return self.verdicts(
            [
                SUPPORTED
                if node.operator in self.operators
                else Verdict(False, "not in NumPy's set")
                for node in model.nodes
            ]
        )

    def compile(self, partition: Partition, compilation: Compilation) -> NumpyExecutable:
        """Compile, or refuse as wished."""
        self.compilations.append((partition, compilation))
        if self.refuses(partition):
            raise CompilationFailed("too hard for NumPy")
        return NumpyExecutable(self, partition, compilation.model)


@dataclass
class NumpyExecutable:
    """See `KernelExecutable`."""

    device: NumpyDevice
    partition: Partition
    model: ModelView
    cache_hit: bool | None = None
    closed: bool = False
    shapes: Sequence[tuple[int, ...]] = ()

    def prepare(self, shapes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
        """All tensors of the models of these tests have one shape."""
        assert not self.closed
        self.shapes = shapes
        return [shapes[0]] * len(self.partition.outputs)

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Compute the nodes in turn."""
        self.device.runs += 1
        if self.device.failures:
            self.device.failures -= 1
            raise ExecutionFailed("NumPy is tired")
        values = dict(zip(self.partition.inputs, inputs, strict=True))
        for index in self.partition.nodes:
            node = self.model.nodes[index]
            arguments = [self._value(values, node, tensor) for tensor in node.inputs]
            values[node.outputs[0]] = FUNCTIONS[node.operator](*arguments)
        for tensor, output in zip(self.partition.outputs, outputs, strict=True):
            output[...] = values[tensor] + np.float32(self.device.adds)

    def close(self) -> None:
        """Take no more calls."""
        self.closed = True

    def _value(self, values: dict[int, Array], node: NodeView, tensor: int) -> Array:
        if tensor in values:
            return values[tensor]
        place = self.model.tensors[tensor].data
        assert place is not None, node
        return np.frombuffer(self.model.data, np.float32, place[1] // 4, place[0])
