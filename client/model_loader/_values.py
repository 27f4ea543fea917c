"""The plain values that the public objects show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from model_loader_wire.causes import Cause
from model_loader_wire.limits import Limits


@dataclass(frozen=True, slots=True)
class MLTensorInfo:
    """One input or output of a model (``MLTensorInfo`` of the specification).

    ``data_type`` is one of ``MLDataType`` ("float32", …, "unknown") or "string" (an extension).
    ``dimensions``: a None within it is known only at run time; None as a whole means that even the
    rank is known only after the run. () is a scalar.
    """

    name: str
    data_type: str
    dimensions: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True)
class Lost:
    """Why a model is lost.

    ``reason`` is a name of the table in ``docs/api.md``, such as "timeout" (a string: it can be
    compared with one); ``detail`` is a sentence.
    """

    reason: Cause
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Isolation:
    """How a model's worker is locked down: what the worker entered, and what the service put
    around it.
    """

    layers: tuple[str, ...]
    """The names of the layers that are on, in alphabetical order; `docs/security.md` tells them."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Layers that this host refused, each with its reason."""
    memory_held_by: str = ""
    """"cgroup-v2", "cgroup-v1" or "rlimit-data"."""
    worker_pid: int = 0
    """The worker's process id, outside of its own pid namespace. If the service parks models, a
    model that was parked comes back with another one: ``Connection.models`` tells it."""
    shared: bool = False
    """Whether the worker also holds other models of the origin (``isolation="origin"``)."""
    devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Devices that the worker has, and what each was granted beyond the sandbox of every worker."""


@dataclass(frozen=True, slots=True)
class Format:
    """A model format that can be loaded; nothing here tells about the hardware."""

    name: str
    """As in ``MLModelFormat``: "tflite"."""
    versions: tuple[str, ...]
    """Versions of the format's schema."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is known about a loaded model beside its tensors."""

    runtime: str
    """Runtime and version, for example "litert 2.3.0"."""
    kernels: str
    """"xnnpack" or "builtin"; "" where no more than types of devices is told."""
    note: str
    """Why the kernels are not the usual ones, or ""."""
    threads: int
    """Threads that one computation uses."""
    sha256: str
    """Digest of the model's bytes, in hexadecimal; client and service agree on it."""
    size: int
    """Length of the model in bytes."""
    load_seconds: float
    """From the start of the upload to the model being ready, by the client's clock."""
    limits: Limits
    """The limits in force for this model."""
    keeps_state: bool = False
    """Whether answers may depend on the calls before: such a model cannot be replaced unnoticed."""


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model that the service's operator approved, and that ``load_by_name`` loads."""

    name: str
    version: int
    sha256: str
    size: int
    """Bytes of its file."""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One of the caller's models, in any of its sessions, as the service sees it."""

    model_id: str
    origin: str
    label: str
    """The name of the file it was loaded from, or ""."""
    sha256: str
    worker_pid: int
    """0 while the model is parked."""
    isolation: Isolation
    memory_bytes: int
    """Memory of the worker now, by its cgroup, else the resident one."""
    cpu_seconds: float
    """Processor time of the worker's whole life."""
    calls: int
    """Computations that the worker reports; its own word."""
    age_seconds: float
    runtime: str
    limits: Limits
