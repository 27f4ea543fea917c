"""A worker's devices: opened before it locks itself down, used for the model that comes then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from loader_service.devices.bridge import apply
from loader_service.devices.catalogue import KINDS, DeviceMissing, Enabled
from loader_service.devices.compiled import CompiledPlan
from loader_service.devices.device import Cache, Device
from loader_service.devices.placed import PlacedModel
from loader_service.devices.plan import Wish, make_plan
from loader_service.devices.reading import read_view
from loader_service.runtime.engine import LoadedModel, Placement, Runtime
from loader_service.runtime.failures import UnsupportedModel
from loader_service.runtime.interpreter import InterpreterModel
from model_loader_wire.delegation import Delegation


class Orders(Protocol):
    """What of a worker's orders concerns its devices: ``Go``."""

    @property
    def threads(self) -> int:
        """Threads of the interpreter."""
        ...

    @property
    def data_bytes(self) -> int | None:
        """The limit that makes allocations fail here."""
        ...


class OpenDevices:
    """Devices that are ready, and why others are not."""

    def __init__(self, runtime: Runtime, enabled: Sequence[Enabled]) -> None:
        """Open what was enabled, in the operator's order; what is missing is noted only."""
        self.devices: list[Device] = []
        self.missing: dict[str, str] = {}
        self.cache: Cache | None = None
        for item in enabled:
            try:
                if item.disabled:
                    raise DeviceMissing(item.disabled)
                module = import_module(KINDS[item.kind].module)
                self.devices += module.open_devices(item, runtime.library)
            except (DeviceMissing, ImportError, OSError) as error:
                self.missing[item.name] = str(error) or type(error).__name__

    def load(
        self, runtime: Runtime, model: bytes, wish: Mapping[str, Any], *, go: Orders
    ) -> LoadedModel:
        """Ask, partition, compile and open a model that was verified.

        Raises UnsupportedModel for a named device that is not there, DeviceFailed for one that
        fails, and what a runtime raises.
        """
        wanted = Wish.from_fields(wish)
        name = wanted.options.accelerator_name
        if name is not None:
            for missing, reason in self.missing.items():
                if name in (missing, missing.partition(":")[0]):
                    raise UnsupportedModel(f"the device {name!r} cannot be used: {reason}")
        view = read_view(model)
        plan = make_plan(view, self.devices, wanted)
        for missing, reason in self.missing.items():
            plan.say(f"{missing} cannot be used: {reason}")
        compiled = CompiledPlan(view, plan, apply)
        compiled.compile(wanted, threads=go.threads, seconds=wanted.seconds, cache=self.cache)

        def opening(placement: Placement | None) -> InterpreterModel:
            opened = runtime.load(
                model, threads=go.threads, memory_bytes=go.data_bytes, placement=placement
            )
            assert isinstance(opened, InterpreterModel)
            return opened

        return PlacedModel(opening, compiled, named=wanted.named, coarse=wanted.coarse)

    def tell_of(
        self, model: LoadedModel, tell: Callable[[Delegation], None]
    ) -> Callable[[], None] | None:
        """Tell from now on what changes; returns what tells the times of runs."""
        if not isinstance(model, PlacedModel):
            return None
        model.tell = tell
        return model.tell_times


def open_devices(runtime: Runtime, enabled: Sequence[Mapping[str, Any]]) -> OpenDevices:
    """Open the devices that the broker ordered."""
    return OpenDevices(runtime, [Enabled.from_fields(fields) for fields in enabled])
