"""An interpreter that delegates were put into, run by its own methods."""

from __future__ import annotations

import numpy as np

from loader_service.devices.device import Array
from loader_service.runtime.native import NativeInterpreter


class Running:
    """Runs a model of one input and one output."""

    native: NativeInterpreter

    def run(self, x: Array) -> Array:
        (given,), (wanted,) = self.native.InputIndices(), self.native.OutputIndices()
        self.native.ResizeInputTensor(int(given), np.array(x.shape, np.int32), False)
        self.native.AllocateTensors()
        self.native.SetTensor(int(given), x)
        self.native.Invoke()
        result: Array = self.native.GetTensor(int(wanted))
        return result

    def names(self) -> list[str]:
        return [self.native.NodeName(node) for node in range(self.native.NumNodes())]
