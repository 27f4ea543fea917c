"""What the worker asks of a runtime: the seam between the worker's loop and an interpreter.

The worker knows this interface and ``failures``; everything else in this room is behind it. All
calls come from one thread. Memory that is handed out belongs to the interpreter: a view is valid
until the next call of `prepare_inputs`, `invoke` or `reset`, whichever comes first, except that
input views are also valid up to and during the `invoke` that follows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from loader_service.runtime.kernels import Kernels
from loader_service.runtime.native import Library, NativeInterpreter
from model_loader_wire.data_types import DataType
from model_loader_wire.description import ModelDescription


class OutputTensor(NamedTuple):
    """One output of the last run.

    ``data``: its bytes in row-major order (memory of the interpreter where possible, so that
    ``len(data)`` is known before anything is copied); a string tensor's are in the wire's layout.
    """

    data_type: DataType
    dimensions: tuple[int, ...]
    data: memoryview | bytes


class SteadyRun(Protocol):
    """A signature prepared to run many times with the shapes that it has now.

    Good until the model is called in any other way. Memory is given as C-contiguous buffers of any
    element type, in the description's order.
    """

    def inputs(self) -> Sequence[Any]:
        """Return the inputs' memory, writable; valid until `run` returns."""
        ...

    def run(self) -> None:
        """Run the signature; raises as `LoadedModel.invoke` does, and is then good no more."""
        ...

    def outputs(self) -> Sequence[Any] | None:
        """Return the outputs' memory after `run`; None if their shapes are not what they were."""
        ...


class LoadedModel(Protocol):
    """A model that was parsed, prepared and can be run."""

    @property
    def description(self) -> ModelDescription:
        """Signatures (the default one first), runtime, kernels in use and why, threads."""
        ...

    def prepare_inputs(
        self, signature: int, shapes: Sequence[tuple[int, ...]]
    ) -> list[memoryview | None]:
        """Make the inputs of a signature ready for these shapes, one each, and return their memory.

        A writable view of bytes for each input, in the description's order; None for a string
        tensor, which `set_strings` sets. Raises InvalidInput for a shape that the model does not
        take, ModelFailed, UnsupportedModel or LimitReached where an operator cannot be prepared;
        the model stays usable with other shapes.
        """
        ...

    def set_strings(
        self, signature: int, position: int, dimensions: tuple[int, ...], values: Sequence[bytes]
    ) -> None:
        """Set a string input, after `prepare_inputs`; elements in row-major order.

        Raises InvalidInput if the input holds no strings, or not so many.
        """
        ...

    def invoke(self, signature: int) -> None:
        """Run a signature once, after `prepare_inputs` for it.

        Raises ModelFailed, UnsupportedModel or LimitReached; the model stays usable.
        """
        ...

    def outputs(self, signature: int) -> list[OutputTensor]:
        """Return the outputs of the last `invoke` of this signature, in the description's order.

        Raises ModelFailed if there was none, or it failed.
        """
        ...

    def steady(self, signature: int) -> SteadyRun | None:
        """Prepare to repeat the last run of this signature, after its outputs were read.

        None where a tensor is not plain memory (strings, scalars, tensors without elements).
        """
        ...

    def reset(self) -> None:
        """Bring the model back to the state in which it was loaded (variables, shapes, kernels)."""
        ...


class Placement(Protocol):
    """Where the operators of a model run: given at load, where it is not the library's choice."""

    @property
    def kernels(self) -> Kernels:
        """Which of the library's kernels run what no delegate takes."""
        ...

    def renew(self, native: NativeInterpreter) -> Sequence[int]:
        """Return the addresses of delegates for a new interpreter, in the order to apply them.

        They live as long as it does. Raises ModelFailed.
        """
        ...


class Runtime(Protocol):
    """A library that runs models."""

    @property
    def library(self) -> Library:
        """The library itself, for devices, which look into interpreters."""
        ...

    @property
    def name(self) -> str:
        """``"litert"`` or ``"tflite-runtime"``."""
        ...

    @property
    def version(self) -> str:
        """The library's version, for example ``"2.3.0"``."""
        ...

    def warm(self) -> None:
        """Run a tiny model once with one thread, so that nothing is left to open or import.

        For the zygote, before it forks: CPU detection reads files that the sandbox forbids.
        """
        ...

    def load(
        self,
        model: bytes,
        *,
        threads: int,
        memory_bytes: int | None,
        placement: Placement | None = None,
    ) -> LoadedModel:
        """Parse `model` and prepare all its signatures for `threads` threads.

        ``memory_bytes``: the limit that makes allocations fail in this process (RLIMIT_DATA), or
        None; an allocation that fails is then reported as this limit. The bytes are not copied.
        `placement` decides what runs where; without one that is the library's choice.
        Raises InvalidModel, UnsupportedModel, ModelFailed or LimitReached.
        """
        ...
