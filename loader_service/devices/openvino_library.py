"""The OpenVINO library: importing it in silence, and reading a partition into it.

Everything that opens files or loads libraries happens in `open_library`, before the lock-down.
None of it starts a thread (measured with 2026.4: threads come with the first model that is read);
who imports it checks that, because a process with threads enters no namespaces.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

from loader_service.devices.catalogue import DeviceMissing
from loader_service.devices.device import CompilationFailed
from loader_service.devices.model_view import ModelView
from loader_service.devices.partition import Partition
from loader_service.devices.sub_model import head_of, tensor_name
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.sandbox import own_file

INSTALL: Final = "pip install 'model-loader[openvino]'"
FRAMEWORK: Final = "tflite"
COMPILED: Final = "ir"
"""The format of what a compiled partition holds."""
_TELEMETRY: Final = "openvino_telemetry"
_HARDWARE: Final = ("FULL_DEVICE_NAME", "DEVICE_ARCHITECTURE", "OPTIMIZATION_CAPABILITIES")
"""Properties of a device that tell whether what was compiled for one is good for another."""
ERRORS: Final = (RuntimeError, ValueError, LookupError, ArithmeticError, MemoryError)
"""What OpenVINO raises: each of the standard C++ exceptions becomes one of these."""

ELEMENT_TYPES: Final = {
    TensorType.FLOAT32: "f32",
    TensorType.FLOAT16: "f16",
    TensorType.FLOAT64: "f64",
    TensorType.INT8: "i8",
    TensorType.INT16: "i16",
    TensorType.INT32: "i32",
    TensorType.INT64: "i64",
    TensorType.UINT8: "u8",
    TensorType.UINT16: "u16",
    TensorType.UINT32: "u32",
    TensorType.UINT64: "u64",
    TensorType.BOOL: "boolean",
}
"""Types of tensors that OpenVINO reads, and its names for them."""


class Library:
    """OpenVINO, imported: its core and its reader of TFLite models."""

    def __init__(self) -> None:
        """Import it; raises DeviceMissing where that cannot be done."""
        # Importing OpenVINO would start a process that sends usage statistics to its makers.
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
        try:
            openvino: Any = import_module("openvino")
            frontends: Any = import_module("openvino.frontend")
        except ImportError as error:
            raise DeviceMissing(f"OpenVINO cannot be imported: {error}; {INSTALL}") from None
        self.openvino = openvino
        self.version: str = openvino.get_version()
        try:
            self.core: Any = openvino.Core()
            self.devices: tuple[str, ...] = tuple(self.core.available_devices)
            self.hardware = {name: self._hardware_of(name) for name in self.devices}
            manager = frontends.FrontEndManager()
            self._reader: Any = manager.load_by_framework(FRAMEWORK)
            # Its library is then loaded, when a compiled partition is read behind the lock-down.
            manager.load_by_framework(COMPILED)
        except ERRORS as error:
            raise DeviceMissing(f"OpenVINO does not start: {first_line(error)}") from None
        if self._reader is None:
            raise DeviceMissing("this OpenVINO does not read TFLite models")

    def _hardware_of(self, device: str) -> tuple[str, ...]:
        """Say what a device is, as far as it tells."""
        told = []
        for name in _HARDWARE:
            with suppress(*ERRORS):
                told.append(f"{name}={self.core.get_property(device, name)}")
        return tuple(told)

    def read(
        self, model: ModelView, partition: Partition, shapes: Sequence[tuple[int, ...]]
    ) -> Any:
        """Read a partition into a model of OpenVINO's, for inputs of these shapes.

        Its inputs and outputs are called as `tensor_name` says; an operator that OpenVINO cannot
        translate is left in it, see `left_over`. Raises CompilationFailed.
        """
        file = own_file.given()
        if file is None:
            raise CompilationFailed(
                "OpenVINO reads files only, and this worker has no root to put one in"
            )
        try:
            with file.holding(head_of(model, partition), model.data) as path:
                read = self._reader.convert_partially(self._reader.load(path))
            read.reshape(
                {
                    port_of(read.inputs, index): list(shape)
                    for index, shape in zip(partition.inputs, shapes, strict=True)
                }
            )
        except OSError as error:
            raise CompilationFailed(f"the partition could not be written: {error}") from None
        except ERRORS as error:
            raise CompilationFailed(f"OpenVINO does not read it: {first_line(error)}") from None
        return read


def port_of(ports: Sequence[Any], tensor: int) -> Any:
    """Return the input or output that a tensor is; raises CompilationFailed if it is none."""
    name = tensor_name(tensor)
    for port in ports:
        if name in port.get_names():
            return port
    raise CompilationFailed(f"tensor {tensor} is none of OpenVINO's inputs or outputs")


def left_over(read: Any) -> dict[int, str]:
    """Return the operators that were not translated: the partition's places, and what they are."""
    return {
        int(operator.friendly_name): operator.get_type_name()
        for operator in read.get_ops()
        if "FrameworkNode" in operator.get_type_name()
    }


def first_line(error: BaseException) -> str:
    """Return what is worth showing of one of OpenVINO's many-line messages."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return (told or lines or [type(error).__name__])[0][:300]


_library: list[Library] = []


def open_library() -> Library:
    """Import OpenVINO, once in a process. Raises DeviceMissing."""
    if not _library:
        _library.append(Library())
    return _library[0]
