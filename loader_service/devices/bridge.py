"""From a compiled partition to a delegate that an interpreter takes."""

from __future__ import annotations

from typing import Any

from loader_service.devices.delegate import delegate_at
from loader_service.devices.device import (
    AppliedDelegate,
    DeviceError,
    Executable,
    KernelExecutable,
    NativeExecutable,
)
from loader_service.devices.following import Following
from loader_service.devices.kernel_delegate import KernelDelegate
from loader_service.devices.model_view import ModelView
from loader_service.devices.partition import Partition


def apply(
    model: ModelView, partition: Partition, executable: Executable, name: str = "a device"
) -> AppliedDelegate:
    """Make a delegate for one interpreter, to be given to its ``ModifyGraphWithDelegate``.

    `name` is what the interpreter's messages call it. The executable can serve another interpreter
    after this one. Raises CompilationFailed.
    """
    del model
    if isinstance(executable, NativeExecutable):
        return _Native(executable, name)
    assert isinstance(executable, KernelExecutable)
    return KernelDelegate(name, partition, executable)


class _Native(Following):
    """A library's delegate; what stands before it, if anything does, knows how it failed."""

    def __init__(self, executable: NativeExecutable, name: str) -> None:
        super().__init__()
        self._executable = executable
        self.address = executable.create_delegate()
        self._watching = delegate_at(self.address)
        if self._watching is not None:
            self._watching.name = name

    def follow(self, native: Any) -> None:
        super().follow(native)
        if self._watching is not None:
            self._watching.follow(native)

    @property
    def was_prepared(self) -> bool:
        return self._watching is None or self._watching.was_prepared

    @property
    def failure(self) -> DeviceError | None:
        return None if self._watching is None else self._watching.failure

    @property
    def preparing_ns(self) -> int:
        return 0 if self._watching is None else self._watching.preparing_ns

    @property
    def runs(self) -> int:
        return 0 if self._watching is None else self._watching.runs

    @property
    def elapsed_ns(self) -> int:
        return 0 if self._watching is None else self._watching.elapsed_ns

    def end(self) -> None:
        self._executable.destroy_delegate(self.address)
