"""From a model's bytes to a model that can be run: the verifier, then the runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from loader_service.runtime.engine import LoadedModel, Runtime
from loader_service.runtime.verifier.verify import verify
from loader_service.worker.orders import Go
from model_loader_wire.description import model_to_values

if TYPE_CHECKING:
    # Not loaded by a worker that was asked for no device.
    from model_loader_wire.delegation import Delegation

DEVICES = "loader_service.devices.opening"
"""Imported by workers that are ordered to have devices, and by no others."""


class Devices(Protocol):
    """The devices of this process, open and ready: what ``DEVICES`` gives."""

    cache: Any
    """Where compiled partitions are kept (``devices.device.Cache``), or None."""

    def load(
        self, runtime: Runtime, model: bytes, wish: Mapping[str, Any], *, go: Go
    ) -> LoadedModel:
        """Load a model that was verified, shared out to devices as the caller wishes."""
        ...

    def tell_of(
        self, model: LoadedModel, tell: Callable[[Delegation], None]
    ) -> Callable[[], None] | None:
        """Tell from now on what changes in what devices run of a model.

        Returns what is to be called now and then, for the times that runs take.
        """
        ...


class Opened(NamedTuple):
    """A model that can be run."""

    model: LoadedModel
    keeps_state: bool
    """Whether its answers may depend on the calls before."""

    def declaration(self) -> dict[str, object]:
        """Return what the worker says of it, as JSON-able values."""
        return model_to_values(self.model.description.with_state(self.keeps_state))


def open_devices(runtime: Runtime, enabled: Sequence[Mapping[str, Any]] | None) -> Devices | None:
    """Import and open devices, as long as files can be; None for a plain worker."""
    if enabled is None:
        return None
    devices: Devices = import_module(DEVICES).open_devices(runtime, enabled)
    return devices


def open_model(runtime: Runtime, model: bytes, go: Go, devices: Devices | None = None) -> Opened:
    """Verify and load; raises MalformedModel, what a runtime raises, or MemoryError."""
    keeps_state = verify(model, operators=go.operators, memory_bytes=go.memory_bytes or None)
    if devices is not None and go.wish is not None:
        return Opened(devices.load(runtime, model, go.wish, go=go), keeps_state)
    loaded = runtime.load(model, threads=go.threads, memory_bytes=go.data_bytes)
    return Opened(loaded, keeps_state)
