"""The CPU's two devices: the library's built-in kernels, and XNNPACK.

Neither compiles a partition: they are what runs where no delegate was applied. Both are asked like
any other device, so that the others are compared with what they would replace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loader_service.devices.capabilities import Capabilities, OperatorClass, Performance
from loader_service.devices.catalogue import REFERENCE, XNNPACK
from loader_service.devices.device import (
    SUPPORTED,
    Compilation,
    CompilationFailed,
    DeviceType,
    Executable,
    Verdict,
)
from loader_service.devices.model_view import ModelView
from loader_service.devices.partition import Partition
from loader_service.runtime.kernels import Delegated, Kernels, delegated
from loader_service.runtime.native import Library
from loader_service.sandbox.grants import Grants

FEATURE_LEVEL = 31
"""Both carry all that NNAPI's last numbered level has."""

FIGURES: Mapping[str, Capabilities] = {
    REFERENCE: Capabilities(Performance(1, 1), {}),
    # Measured on MobileNets with one thread, float and int8, against the built-in kernels; the
    # power is that of the time, since both use the same cores.
    XNNPACK: Capabilities(
        Performance(1, 1),
        {
            OperatorClass.FLOAT: Performance(0.6, 0.6),
            OperatorClass.QUANTIZED: Performance(0.6, 0.6),
        },
    ),
}


@dataclass(frozen=True, slots=True)
class CpuDevice:
    """Kernels of the runtime's own; see `Device`."""

    name: str
    library: Library
    type: DeviceType = DeviceType.CPU
    feature_level: int = FEATURE_LEVEL

    @property
    def grants(self) -> Grants:
        """Nothing beyond the plain sandbox."""
        return Grants()

    @property
    def version(self) -> str:
        """The runtime's, since it carries the kernels."""
        return f"{self.library.name} {self.library.version}"

    @property
    def capabilities(self) -> Capabilities:
        """Relative figures."""
        return FIGURES[self.name]

    @property
    def kernels(self) -> Kernels:
        """Which of the library's kernels the device stands for."""
        return Kernels.BUILTIN if self.name == REFERENCE else Kernels.DEFAULT

    def supported_operations(self, model: ModelView) -> Sequence[Verdict]:
        """Return a verdict for each node: XNNPACK's are found by letting it take what it takes."""
        if self.name == REFERENCE:
            return [SUPPORTED] * len(model.nodes)
        try:
            native = self.library.create(model.data, threads=1, resolver=self.kernels.value)
            native.AllocateTensors()
            taken = set().union(*(nodes_of(model, item) for item in delegated(native)), set())
        except (ValueError, RuntimeError) as error:  # as for placeholders of open sizes
            return [Verdict(False, f"the model could not be prepared: {error}")] * len(model.nodes)
        refused = Verdict(False, "XNNPACK leaves it to the built-in kernels")
        return [SUPPORTED if node.index in taken else refused for node in model.nodes]

    def compile(self, partition: Partition, compilation: Compilation) -> Executable:
        """Refuse: the interpreter runs these kernels itself."""
        raise CompilationFailed(f"{self.name} is not compiled for")


def nodes_of(model: ModelView, taken: Delegated) -> set[int]:
    """Find the nodes that a delegate took over, from the tensors at its border."""
    producers = {tensor: node for node in model.nodes for tensor in node.outputs}
    border = set(taken.inputs)
    waiting = list(taken.outputs)
    found: set[int] = set()
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.index not in found:
            found.add(node.index)
            waiting += [tensor for tensor in node.inputs if tensor not in border]
    return found
