"""Devices ``external:<name>``: any shared library with TFLite's external-delegate interface.

Such a library exports ``tflite_plugin_create_delegate`` and ``tflite_plugin_destroy_delegate``. It
is loaded before the worker locks itself down, and runs behind the same system-call table as
everything else there.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loader_service.devices.capabilities import Capabilities, Performance
from loader_service.devices.catalogue import DeviceMissing, Enabled
from loader_service.devices.device import (
    SUPPORTED,
    Compilation,
    CompilationFailed,
    Device,
    DeviceError,
    DeviceType,
    Executable,
    Verdict,
)
from loader_service.devices.library_delegate import LibraryDelegate
from loader_service.devices.model_view import ModelView
from loader_service.devices.partition import Partition
from loader_service.runtime.kernels import Kernels
from loader_service.runtime.native import Library
from loader_service.sandbox.grants import Grants

FEATURE_LEVEL = 31
CAPABILITIES = Capabilities(Performance(0.5, 0.5), {}, partition_overhead=0)
"""Nothing is known of the hardware: who enables a device and lets it choose wants it used."""
SILENT = "it takes fixed sizes only, it seems, and the model has some that only a run tells"
"""Where the runtime refuses a delegate without a word."""
WORDS = 4
"""How many of a library's messages are kept."""

_ReportError = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
_said: list[str] = []


def _hear(message: bytes | None) -> None:
    _said.append((message or b"").decode(errors="replace"))
    del _said[:-WORDS]


_report_error = _ReportError(_hear)


def open_devices(enabled: Enabled, library: Library) -> Sequence[Device]:
    """Load the library; raises DeviceMissing if that cannot be done, or it is no such library."""
    try:
        loaded = ctypes.CDLL(enabled.library)
        create = loaded.tflite_plugin_create_delegate
        destroy = loaded.tflite_plugin_destroy_delegate
        with open(enabled.library, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, AttributeError) as error:
        raise DeviceMissing(f"the library of {enabled.name} is of no use: {error}") from None
    create.restype = ctypes.c_void_p
    create.argtypes = [
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.c_size_t,
        _ReportError,
    ]
    destroy.restype = None
    destroy.argtypes = [ctypes.c_void_p]
    plugin = Plugin(enabled.name, enabled.options, create, destroy)
    return [ExternalDevice(enabled.name, digest[:16], plugin, library)]


@dataclass(frozen=True, slots=True)
class Plugin:
    """A library's two functions, and what it is told."""

    name: str
    options: tuple[tuple[str, str], ...]
    create_function: Any
    destroy_function: Any

    def create(self) -> int:
        """Make a delegate and return its address; raises CompilationFailed with its words."""
        count = len(self.options)
        keys = (ctypes.c_char_p * count)(*(key.encode() for key, _ in self.options))
        values = (ctypes.c_char_p * count)(*(value.encode() for _, value in self.options))
        _said.clear()
        address: int | None = self.create_function(keys, values, count, _report_error)
        if not address:
            raise CompilationFailed(f"the library makes no delegate{self.words()}")
        return address

    def destroy(self, address: int) -> None:
        """End a delegate. Never of a null pointer, on which many libraries crash."""
        if address:
            self.destroy_function(address)

    @staticmethod
    def words() -> str:
        """What the library said, to be put behind a message."""
        return f": {'; '.join(_said)}" if _said else ""


@dataclass(frozen=True, slots=True)
class ExternalDevice:
    """A device behind a library; see `Device`."""

    name: str
    version: str
    """The beginning of the SHA-256 of the library's file: nothing else tells two builds apart."""
    plugin: Plugin
    library: Library
    """The runtime, for interpreters in which the library is asked."""
    type: DeviceType = DeviceType.OTHER
    feature_level: int = FEATURE_LEVEL

    @property
    def grants(self) -> Grants:
        """Nothing: its library is in the process before the lock-down."""
        return Grants()

    @property
    def capabilities(self) -> Capabilities:
        """Better than any CPU, whatever it is."""
        return CAPABILITIES

    def supported_operations(self, model: ModelView) -> Sequence[Verdict]:
        """Let the library take what it wants of an interpreter that gives nothing away.

        Raises DeviceError if it fails.
        """
        asking = ExternalExecutable(self.name, self.plugin, model, None)
        asked = asking.delegate(asking.create_delegate())
        try:
            self._ask(model, asked)
        finally:
            asking.close()
        refused = Verdict(False, f"the library of {self.name} does not take it")
        return [SUPPORTED if node.index in asked.taken else refused for node in model.nodes]

    def compile(self, partition: Partition, compilation: Compilation) -> Executable:
        """Return what makes delegates for these nodes; they compile when they are applied."""
        return ExternalExecutable(self.name, self.plugin, compilation.model, partition)

    def _ask(self, model: ModelView, asked: LibraryDelegate) -> None:
        kernels = Kernels.BUILTIN.value
        native = self.library.create(model.data, threads=1, resolver=kernels)
        asked.follow(native)
        try:
            native.ModifyGraphWithDelegate(asked.address)
        except (RuntimeError, ValueError) as error:
            if asked.failure is None:
                raise DeviceError(
                    f"it could not be asked: {str(error).strip() or SILENT}"
                ) from None
        finally:
            del native  # or an exception's frame would hold it, and it the delegate
        if asked.failure is not None:
            raise DeviceError(f"{asked.failure}{self.plugin.words()}")


class ExternalExecutable:
    """What makes a library's delegates for one partition; see `NativeExecutable`."""

    cache_hit = None

    def __init__(
        self, name: str, plugin: Plugin, model: ModelView, partition: Partition | None
    ) -> None:
        """Without a partition the delegates are asked only, and get nothing."""
        self._name = name
        self._plugin = plugin
        self._model = model
        self._partition = partition
        self._delegates: dict[int, LibraryDelegate] = {}

    def create_delegate(self) -> int:
        """Have the library make a delegate, which gets this partition only."""
        address = self._plugin.create()
        try:
            delegate = LibraryDelegate(self._name, self._model, address)
        except CompilationFailed:
            self._plugin.destroy(address)
            raise
        if self._partition is not None:
            delegate.choose(frozenset(self._partition.nodes))
        delegate.after = lambda: self._plugin.destroy(address)
        self._delegates[address] = delegate
        return address

    def delegate(self, address: int) -> LibraryDelegate:
        """Return what stands before a delegate."""
        return self._delegates[address]

    def destroy_delegate(self, address: int) -> None:
        """End a delegate, after its interpreter if that lives."""
        delegate = self._delegates.pop(address, None)
        if delegate is not None:
            delegate.close()

    def close(self) -> None:
        """End all delegates, each after its interpreter."""
        for address in list(self._delegates):
            self.destroy_delegate(address)
