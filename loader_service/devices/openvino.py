"""The devices ``openvino:<name>``: those that OpenVINO lists on this host, with its own kernels.

OpenVINO reads a partition as a TFLite model of its own, compiles kernels for it (machine code that
is made in the worker's memory, which its grants allow), and runs them on the memory of the
interpreter's tensors. Float operators are computed in float32 unless the caller allows less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from time import monotonic
from types import MappingProxyType
from typing import Any, Final

from loader_service.devices.capabilities import Capabilities, OperatorClass, Performance
from loader_service.devices.catalogue import (
    OPENVINO,
    OPENVINO_PARTITIONS,
    Enabled,
    grants_of,
)
from loader_service.devices.device import (
    SUPPORTED,
    Compilation,
    CompilationFailed,
    DeadlineMissed,
    Device,
    DeviceType,
    Executable,
    Preference,
    Verdict,
)
from loader_service.devices.model_view import ModelView, NodeView
from loader_service.devices.openvino_kernel import OpenVinoKernel
from loader_service.devices.openvino_library import (
    ELEMENT_TYPES,
    ERRORS,
    Library,
    first_line,
    left_over,
    open_library,
)
from loader_service.devices.partition import Partition, partition_of
from loader_service.devices.partitioner import RUNNING_OTHERS, STATEFUL
from loader_service.runtime.native import Library as Runtime
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.sandbox.grants import Grants

FEATURE_LEVEL: Final = 31
MOST_READS: Final = 64
"""How often a model is read, in parts, to find what OpenVINO does not read."""

TYPES: Final = {"CPU": DeviceType.CPU, "GPU": DeviceType.GPU, "NPU": DeviceType.ACCELERATOR}

# Measured on MobileNets with one thread against XNNPACK: float32 and int8 take a little longer,
# reduced precision a little more than half as long; see `docs/devices.md`.
CPU_FIGURES: Final = Capabilities(
    Performance(1, 1),
    {
        OperatorClass.FLOAT: Performance(0.63, 0.63),
        OperatorClass.QUANTIZED: Performance(0.66, 0.66),
    },
    relaxed_float=Performance(0.35, 0.35),
    partition_overhead=100_000,
    most_partitions=OPENVINO_PARTITIONS,
)
OTHER_FIGURES: Final = Capabilities(
    Performance(0.3, 0.5),
    {},
    partition_overhead=1_000_000,
    most_partitions=OPENVINO_PARTITIONS,
)
"""Nothing was measured: who enables such a device wants it used."""

HINTS: Final[Mapping[Preference, Mapping[str, str]]] = MappingProxyType(
    {
        Preference.UNDEFINED: {"PERFORMANCE_HINT": "LATENCY"},
        Preference.FAST_SINGLE_ANSWER: {"PERFORMANCE_HINT": "LATENCY"},
        Preference.SUSTAINED_SPEED: {"PERFORMANCE_HINT": "THROUGHPUT"},
        Preference.LOW_POWER: {"PERFORMANCE_HINT": "LATENCY"},
    }
)
CPU_HINTS: Final[Mapping[Preference, Mapping[str, str]]] = MappingProxyType(
    {Preference.LOW_POWER: {"SCHEDULING_CORE_TYPE": "ECORE_ONLY"}}
)


def open_devices(enabled: Enabled, library: Runtime) -> Sequence[Device]:
    """Import OpenVINO and return its devices; raises DeviceMissing."""
    del library
    opened = open_library()
    grants = grants_of(enabled)
    return [OpenVinoDevice(f"{OPENVINO}:{name}", name, opened, grants) for name in opened.devices]


@dataclass(frozen=True, slots=True)
class OpenVinoDevice:
    """One of OpenVINO's devices; see `Device`."""

    name: str
    own_name: str
    """What OpenVINO calls it: ``"CPU"``, ``"GPU.0"``."""
    library: Library
    grants: Grants
    feature_level: int = FEATURE_LEVEL

    @property
    def type(self) -> DeviceType:
        """What kind of hardware it is, by OpenVINO's name."""
        return TYPES.get(self.own_name.partition(".")[0], DeviceType.OTHER)

    @property
    def version(self) -> str:
        """OpenVINO's, which carries the kernels."""
        return f"openvino {self.library.version}"

    @property
    def capabilities(self) -> Capabilities:
        """Relative figures."""
        return CPU_FIGURES if self.type is DeviceType.CPU else OTHER_FIGURES

    def supported_operations(self, model: ModelView) -> Sequence[Verdict]:
        """Ask OpenVINO, about the nodes that can be asked about."""
        refused = {
            node.index: reason for node in model.nodes if (reason := unfit(model, node)) is not None
        }
        asked = [node.index for node in model.nodes if node.index not in refused]
        self._ask(model, asked, refused, [MOST_READS])
        refuse_constants_of_others(model, refused)
        return [
            Verdict(False, refused[node.index]) if node.index in refused else SUPPORTED
            for node in model.nodes
        ]

    def compile(self, partition: Partition, compilation: Compilation) -> Executable:
        """Compile a partition. Raises CompilationFailed or DeadlineMissed."""
        configuration = configuration_for(self.type, compilation)
        kernel = OpenVinoKernel(self.library, self.own_name, partition, compilation, configuration)
        if compilation.deadline is not None and monotonic() > compilation.deadline:
            kernel.close()
            raise DeadlineMissed("OpenVINO compiled it, but not in time")
        return kernel

    def _ask(
        self, model: ModelView, nodes: Sequence[int], refused: dict[int, str], left: list[int]
    ) -> None:
        """Add to `refused` what OpenVINO does not take of these nodes, and why.

        A model that it does not read at all is read in halves, until it is found which nodes are
        to blame; `left` counts how often that may be tried.
        """
        if not nodes:
            return
        if not left[0]:
            refused.update(dict.fromkeys(nodes, "OpenVINO does not read the model it is in"))
            return
        left[0] -= 1
        partition = partition_of(model, nodes)
        shapes = [model.tensors[index].shape for index in partition.inputs]
        try:
            read = self.library.read(model, partition, shapes)
            untranslated = left_over(read)
            unknown = set() if untranslated else self._unknown(read)
        except (CompilationFailed, *ERRORS) as error:
            if len(nodes) == 1:
                refused[nodes[0]] = first_line(error)
                return
            half = len(nodes) // 2
            self._ask(model, nodes[:half], refused, left)
            self._ask(model, nodes[half:], refused, left)
            return
        for place in untranslated:
            refused[nodes[place]] = "OpenVINO does not translate this operator"
        for place in unknown:
            refused[nodes[place]] = f"OpenVINO has no kernel for it on {self.own_name}"
        if untranslated:
            rest = [node for node in nodes if node not in refused]
            self._ask(model, rest, refused, left)
            return
        self._compare(model, read, nodes, refused)

    def _unknown(self, read: Any) -> set[int]:
        """Return the partition's places whose operators the device does not take."""
        taken = self.library.core.query_model(read, self.own_name)
        names = {
            operator.friendly_name
            for operator in read.get_ordered_ops()
            if operator.friendly_name not in taken
            and operator.get_type_name() not in ("Parameter", "Result", "Constant")
        }
        return {int(name) for name in names if name.isdigit()}

    def _compare(
        self, model: ModelView, read: Any, nodes: Iterable[int], refused: dict[int, str]
    ) -> None:
        """Refuse nodes of whose results OpenVINO thinks otherwise than the file does."""
        ports = [port for operator in read.get_ops() for port in operator.outputs()]
        named = {name: port for port in ports for name in port.get_names()}
        for node in nodes:
            for index in model.nodes[node].outputs:
                port = named.get(f"t{index}")
                if port is None:
                    continue
                shape = port.get_partial_shape()
                if shape.is_dynamic:
                    refused[node] = "the size of its result is known only when it runs"
                elif prod(shape.to_shape()) != model.tensors[index].elements:
                    # The order of the dimensions may be another in between.
                    refused[node] = "OpenVINO gives its result another size"


def unfit(model: ModelView, node: NodeView) -> str | None:
    """Say why a node cannot be asked about; None if it can."""
    if node.is_custom:
        return "OpenVINO knows no custom operators"
    if node.operator in RUNNING_OTHERS:
        return "it runs other subgraphs"
    if node.operator in STATEFUL:
        return "it holds state"
    for index in (*node.inputs, *node.outputs):
        if index < 0:
            continue
        tensor = model.tensors[index]
        if tensor.is_variable:
            return "it holds state"
        if tensor.type not in ELEMENT_TYPES:
            try:
                return f"no tensors of type {TensorType(tensor.type).name}"
            except ValueError:
                return f"no tensors of type {tensor.type}"
        if not tensor.elements and not tensor.is_constant:
            return "a tensor without elements"
    return None


def refuse_constants_of_others(model: ModelView, refused: dict[int, str]) -> None:
    """Refuse what only computes constants (float16 weights, say) that a refused node reads.

    The CPU's kernels compute such constants once, when they are prepared, and some take nothing
    else in their place.
    """
    fixed = {tensor.index for tensor in model.tensors if tensor.is_constant}
    folded = []
    for node in model.nodes:
        if node.inputs and all(index in fixed for index in node.inputs if index >= 0):
            fixed.update(node.outputs)
            folded.append(node)
    needed = {index for number in refused for index in model.nodes[number].inputs}
    for node in reversed(folded):
        if node.index not in refused and needed.intersection(node.outputs):
            refused[node.index] = "the CPU's kernels need its result as a constant"
            needed.update(node.inputs)


def configuration_for(kind: DeviceType, compilation: Compilation) -> dict[str, Any]:
    """Return OpenVINO's properties for a compilation."""
    properties: dict[str, Any] = dict(HINTS[compilation.preference])
    if not compilation.allow_fp16:
        properties["INFERENCE_PRECISION_HINT"] = "f32"
    if kind is DeviceType.CPU:
        properties |= CPU_HINTS.get(compilation.preference, {})
        # One request runs at a time: it has all the threads.
        properties["NUM_STREAMS"] = 1
        properties["INFERENCE_NUM_THREADS"] = compilation.threads
        properties["ENABLE_CPU_PINNING"] = False
    return properties
