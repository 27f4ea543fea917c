"""A plan made real: partitions compiled, and delegates of them for each interpreter of the model.

Here is the first half of the fallback ladder: a device that refuses to compile a partition loses it
to the CPU, unless the caller named that device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from loader_service.devices.device import (
    AppliedDelegate,
    Bridge,
    Cache,
    Compilation,
    DeadlineMissed,
    Device,
    DeviceError,
    Executable,
)
from loader_service.devices.model_view import ModelView
from loader_service.devices.partition import Partition
from loader_service.devices.plan import Plan, Wish
from loader_service.runtime.failures import ModelFailed, RuntimeFailure
from loader_service.runtime.kernels import Kernels
from loader_service.runtime.native import NativeInterpreter


class DeviceFailed(ModelFailed):
    """A device failed, and nothing may stand in for it."""


def as_told(failure: RuntimeFailure, *, coarse: bool) -> RuntimeFailure:
    """What the caller is told of a device's failure: `coarse`, not whose it was."""
    return DeviceFailed("a device failed") if coarse else failure


@dataclass(slots=True)
class Compiled:
    """A partition that its device has compiled."""

    device: Device
    partition: Partition
    executable: Executable
    compiled_in: float
    """Seconds that its device took."""
    applied: AppliedDelegate | None = None

    @property
    def failure(self) -> DeviceError | None:
        """What its delegate raised last."""
        return None if self.applied is None else self.applied.failure

    @property
    def compile_seconds(self) -> float:
        """What compiling took, here or when the interpreter was prepared."""
        preparing_ns = 0 if self.applied is None else self.applied.preparing_ns
        return self.compiled_in + preparing_ns / 1e9

    @property
    def run_seconds(self) -> float | None:
        """Mean of its runs in this interpreter; None before the first, or where none is seen."""
        if self.applied is None or not self.applied.runs:
            return None
        return self.applied.elapsed_ns / self.applied.runs / 1e9

    def let_go(self) -> None:
        """End the delegate, at the latest with its interpreter."""
        if self.applied is not None:
            self.applied.close()
            self.applied = None


class CompiledPlan:
    """The compiled partitions of a model: its `Placement`."""

    def __init__(self, model: ModelView, plan: Plan, bridge: Bridge) -> None:
        """Begin with nothing compiled."""
        self.model = model
        self.plan = plan
        self.partitions: list[Compiled] = []
        self._bridge = bridge

    @property
    def kernels(self) -> Kernels:
        """The library's kernels for what no device runs."""
        return self.plan.kernels

    def compile(
        self, wish: Wish, *, threads: int, seconds: float | None, cache: Cache | None
    ) -> None:
        """Compile what was planned. Raises DeviceFailed for a named device, or a late one."""
        deadline = None if seconds is None else monotonic() + seconds
        token = wish.options.cache_token
        compilation = Compilation(
            self.model,
            wish.preference,
            wish.allow_fp16,
            threads,
            deadline,
            None if token is None else cache,
        )
        for item in self.plan.planned:
            began = monotonic()
            try:
                executable = item.device.compile(item.partition, compilation)
            except DeadlineMissed as error:
                late = DeviceFailed(f"{item.device.name} was too late: {error}")
                raise as_told(late, coarse=wish.coarse) from None
            except DeviceError as error:
                what = f"{item.device.name} did not compile {len(item.partition.nodes)} operators"
                if wish.named:
                    raise DeviceFailed(f"{what}: {error}") from None
                self.plan.say(f"{what}, the CPU runs them: {error}")
                continue
            took = monotonic() - began
            self.partitions.append(Compiled(item.device, item.partition, executable, took))

    def renew(self, native: NativeInterpreter) -> Sequence[int]:
        """Make delegates for a new interpreter; see `Placement`."""
        addresses = []
        for item in self.partitions:
            item.let_go()
            try:
                item.applied = self._bridge(
                    self.model, item.partition, item.executable, item.device.name
                )
            except DeviceError as error:
                raise DeviceFailed(f"{item.device.name}: {error}") from None
            item.applied.follow(native)
            addresses.append(item.applied.address)
        return addresses

    def require_applied(self) -> None:
        """Raise DeviceFailed if the interpreter has passed a delegate over without a word."""
        for item in self.partitions:
            if item.applied is not None and not item.applied.was_prepared:
                raise DeviceFailed(f"{item.device.name}: the interpreter gives it no operators")

    @property
    def runs(self) -> int:
        """How often partitions have run in this interpreter."""
        return sum(item.applied.runs for item in self.partitions if item.applied is not None)

    def devices(self) -> set[str]:
        """Return the names of the devices that have partitions."""
        return {item.device.name for item in self.partitions}

    def failed_devices(self) -> set[str]:
        """Return those whose own word it is that they failed, else all."""
        failed = {item.device.name for item in self.partitions if item.failure is not None}
        return failed or self.devices()

    def leave_out(self, names: set[str]) -> None:
        """Give up the partitions of these devices; an interpreter that has them runs no more."""
        for item in self.partitions:
            if item.device.name in names:
                item.let_go()
                item.executable.close()
        self.partitions = [item for item in self.partitions if item.device.name not in names]
