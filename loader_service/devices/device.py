"""What a device is: the seam between the choice of devices and each of them.

A device is asked which operators of a model it takes, compiles the partitions that it is given,
and runs them inside the one interpreter of the model. There are two kinds of executable:

- `KernelExecutable`: a kernel of ours, in Python, over the memory of the interpreter's tensors;
- `NativeExecutable`: a delegate of a library, which brings its kernels along.

All calls come from one thread, inside the worker's sandbox, after the lock-down: a device has
imported and opened all that it needs before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np

from loader_service.devices.capabilities import Capabilities
from loader_service.devices.model_view import ModelView
from loader_service.devices.partition import Partition
from loader_service.sandbox.grants import Grants

Array = np.ndarray[Any, Any]


class DeviceType(IntEnum):
    """What kind of hardware it is, by NNAPI's numbers."""

    OTHER = 1
    CPU = 2
    GPU = 3
    ACCELERATOR = 4


class Preference(IntEnum):
    """``execution_preference``, by NNAPI's numbers."""

    UNDEFINED = -1
    LOW_POWER = 0
    FAST_SINGLE_ANSWER = 1
    SUSTAINED_SPEED = 2


class DeviceError(Exception):
    """A device did not do what it said; the message is shown to the caller."""


class CompilationFailed(DeviceError):
    """A partition could not be compiled; another device runs it, if the caller allows that."""


class ExecutionFailed(DeviceError):
    """A compiled partition could not be run."""


class DeadlineMissed(DeviceError):
    """Time ran out: nothing else is tried after this."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a device says to one node; ``reason`` is empty where it is supported."""

    supported: bool
    reason: str = ""


SUPPORTED = Verdict(True)


class Cache(Protocol):
    """Where compiled partitions are kept for the next load; entries are authenticated."""

    @property
    def is_open(self) -> bool:
        """Whether anything is found or kept: as long as the model is loaded."""
        ...

    def get(self, key: bytes) -> bytes | None:
        """Return the blob of a key, or None."""
        ...

    def put(self, key: bytes, blob: bytes) -> None:
        """Offer a blob for keeping; too large a one is let go."""
        ...


@dataclass(frozen=True, slots=True)
class Compilation:
    """How to compile."""

    model: ModelView
    preference: Preference = Preference.UNDEFINED
    allow_fp16: bool = False
    threads: int = 1
    deadline: float | None = None
    """By `time.monotonic`, in seconds: a hint, since the broker ends what is late in any case."""
    cache: Cache | None = None
    """None unless the caller gave a ``cache_token``."""


@runtime_checkable
class KernelExecutable(Protocol):
    """A compiled partition whose kernel is ours; the bridge makes a delegate of it.

    Arrays are C-contiguous, in the element types and shapes of the interpreter's tensors, in the
    order of ``Partition.inputs`` and ``Partition.outputs``; valid during the call only.
    """

    @property
    def cache_hit(self) -> bool | None:
        """Whether it came out of the cache; None where none was used."""
        ...

    def prepare(self, shapes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
        """Make ready for inputs of these shapes; return the outputs' shapes.

        Raises CompilationFailed.
        """
        ...

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Read the inputs and fill the outputs. Raises ExecutionFailed."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


@runtime_checkable
class NativeExecutable(Protocol):
    """A partition for a delegate that has its kernels itself."""

    @property
    def cache_hit(self) -> bool | None:
        """Whether it came out of the cache; None where none was used."""
        ...

    def create_delegate(self) -> int:
        """Return the address of a new TfLiteDelegate, for one interpreter that it must outlive.

        Raises CompilationFailed.
        """
        ...

    def destroy_delegate(self, address: int) -> None:
        """End a delegate after its interpreter is gone."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


Executable = KernelExecutable | NativeExecutable


class Device(Protocol):
    """One device of this process."""

    @property
    def name(self) -> str:
        """As in ``accelerator_name``: ``"reference"``, ``"openvino:CPU"``, ``"external:coral"``."""
        ...

    @property
    def type(self) -> DeviceType:
        """What kind of hardware it is."""
        ...

    @property
    def version(self) -> str:
        """Of the device and its library: a compiled partition is good for this version only."""
        ...

    @property
    def feature_level(self) -> int:
        """NNAPI's number of what it can: 27 to 31, then 1000006 and up."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Relative figures, by class of operators."""
        ...

    @property
    def grants(self) -> Grants:
        """What its workers need beyond the plain sandbox."""
        ...

    def supported_operations(self, model: ModelView) -> Sequence[Verdict]:
        """Return a verdict for each node of the primary subgraph, in the file's order."""
        ...

    def compile(self, partition: Partition, compilation: Compilation) -> Executable:
        """Compile a partition of nodes that were all supported.

        Raises CompilationFailed or DeadlineMissed.
        """
        ...


class AppliedDelegate(Protocol):
    """A delegate of one partition in one interpreter: what the bridge makes of an executable."""

    @property
    def address(self) -> int:
        """Of its TfLiteDelegate, for ``ModifyGraphWithDelegate``; it replaces exactly the nodes of
        its partition, or fails.
        """
        ...

    @property
    def was_prepared(self) -> bool:
        """Whether the interpreter has asked it to take operators."""
        ...

    @property
    def failure(self) -> DeviceError | None:
        """What its preparation or its last run raised; None if it did well, or a native delegate
        failed without a word to us.
        """
        ...

    @property
    def preparing_ns(self) -> int:
        """What it took until the first run to take operators over and to be prepared: some
        libraries compile then.
        """
        ...

    @property
    def runs(self) -> int:
        """How often its kernel ran well; 0 where that cannot be seen."""
        ...

    @property
    def elapsed_ns(self) -> int:
        """What those runs took together, by the clock; 0 where that cannot be seen."""
        ...

    def follow(self, native: Any) -> None:
        """Live as long as this `NativeInterpreter`, which gets the delegate after this call."""
        ...

    def close(self) -> None:
        """End it, or let it end after its interpreter; the executable lives on."""
        ...


class Bridge(Protocol):
    """Turns an executable into a delegate: ``loader_service.devices.bridge.apply``."""

    def __call__(
        self, model: ModelView, partition: Partition, executable: Executable, name: str
    ) -> AppliedDelegate:
        """Make a delegate for one interpreter; `name` is what messages call it.

        Raises CompilationFailed.
        """
        ...
