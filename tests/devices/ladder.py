"""A model that is opened with devices, as the fallback ladder needs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from loader_service.devices.bridge import apply
from loader_service.devices.compiled import CompiledPlan
from loader_service.devices.cpu import CpuDevice
from loader_service.devices.device import Compilation, Device, DeviceError
from loader_service.devices.partition import Partition
from loader_service.devices.placed import PlacedModel
from loader_service.devices.plan import Plan, Wish, make_plan
from loader_service.devices.reading import read_view
from loader_service.runtime.engine import Placement
from loader_service.runtime.failures import LimitReached
from loader_service.runtime.interpreter import InterpreterModel, InterpreterRuntime
from model_loader_wire.device_options import DeviceOptions
from tests.devices.models import LENGTH, chain
from tests.devices.numpy_device import NumpyDevice, NumpyExecutable

SPLIT = ["ADD", "ADD", "MUL", "FLOOR", "ADD", "MUL"]
"""Three operators for the device, one for the CPU, two for the device."""
X = np.array([-2.25, 0, 1.5, 100], np.float32)


class Case:
    """A model opened with devices, and each of its parts."""

    def __init__(
        self,
        runtime: InterpreterRuntime,
        operators: list[str] | bytes,
        *devices: Device,
        coarse: bool = False,
        **asked: Any,
    ) -> None:
        self.data = chain(operators) if isinstance(operators, list) else operators
        self.wish = Wish(DeviceOptions(**asked), coarse=coarse)
        self.view = read_view(self.data)
        self.cpus = [CpuDevice(name, runtime.library) for name in ("reference", "xnnpack")]
        self.plan: Plan = make_plan(self.view, [*devices, *self.cpus], self.wish)
        self.compiled = CompiledPlan(self.view, self.plan, apply)
        self.compiled.compile(self.wish, threads=1, seconds=5, cache=None)
        self.runtime = runtime
        self.fits = -1
        """So many interpreters, beside those that are opened anew; below zero: any number."""

    def open(self) -> PlacedModel:
        def opening(placement: Placement | None) -> InterpreterModel:
            if not self.fits:
                raise LimitReached("no room", "memory_bytes", 2, 1)
            self.fits -= 1
            return self.runtime.load(self.data, threads=1, memory_bytes=None, placement=placement)

        return PlacedModel(opening, self.compiled, named=self.wish.named, coarse=self.wish.coarse)


def run(model: PlacedModel, x: np.ndarray[Any, Any] = X) -> np.ndarray[Any, Any]:
    (view,) = model.prepare_inputs(0, [(LENGTH,)])
    assert view is not None
    view[:] = x.tobytes()
    model.invoke(0)
    (output,) = model.outputs(0)
    return np.frombuffer(bytes(output.data), np.float32)


def shares(model: PlacedModel) -> list[tuple[str, int]]:
    delegation = model.description.delegation
    assert delegation is not None
    return [(item.device, item.nodes) for item in delegation.partitions]


def steps(model: PlacedModel) -> str:
    delegation = model.description.delegation
    assert delegation is not None
    return "\n".join(delegation.steps)


class Forgetful(NumpyDevice):
    """Compiles, and can then prepare only so often."""

    prepares = 2

    def compile(self, partition: Partition, compilation: Compilation) -> NumpyExecutable:
        executable = super().compile(partition, compilation)
        real = executable.prepare

        def prepare(shapes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
            self.prepared()
            return real(shapes)

        executable.prepare = prepare  # type: ignore[method-assign]
        return executable

    def prepared(self) -> None:
        if not self.prepares:
            raise DeviceError("it has forgotten")
        self.prepares -= 1
