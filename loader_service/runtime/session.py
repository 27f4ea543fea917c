"""One interpreter and the signatures that run on it; replaced whole on a retry or a reset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from loader_service.runtime.allocations import AllocationWatch
from loader_service.runtime.engine import OutputTensor
from loader_service.runtime.failures import (
    InvalidInput,
    LimitReached,
    ModelFailed,
    RuntimeFailure,
    Stage,
    failure_from,
)
from loader_service.runtime.kernels import Delegated, Kernels, delegated, kernels_in_use
from loader_service.runtime.native import Library, NativeInterpreter
from loader_service.runtime.signatures import Signature, describe, read_signatures
from loader_service.runtime.steady import SteadySignature, steady_signature
from loader_service.runtime.tensor_memory import input_view, read_output, set_strings
from loader_service.runtime.words import Words
from model_loader_wire.description import SignatureDescription

_Result = TypeVar("_Result")

# What the libraries raise: ValueError and RuntimeError, MemoryError for std::bad_alloc, SystemError
# where they returned without a result (a signature's name that is no UTF-8).
_NATIVE_ERRORS = (ValueError, RuntimeError, MemoryError, SystemError)


class Session:
    """A model in an interpreter. All errors that leave are `RuntimeFailure`."""

    def __init__(
        self,
        library: Library,
        model: bytes,
        *,
        threads: int,
        kernels: Kernels,
        watch: AllocationWatch,
        delegates: Callable[[NativeInterpreter], Sequence[int]] | None = None,
    ) -> None:
        """Parse and prepare; `model` must outlive the session (the interpreter reads it there)."""
        self.has_run = False
        """Whether a run has succeeded: from then on the interpreter may hold state."""
        self.broken = False
        """Whether std::bad_alloc went through the interpreter, which is not made for it: it asks
        for the same memory ever after."""
        self.choice = kernels
        self._watch = watch
        self._words = Words()
        self._signatures: list[Signature] = []
        self._native = self._guarded(
            Stage.PARSE,
            lambda: library.create(model, threads=threads, resolver=kernels.value),
        )
        addresses = () if delegates is None else delegates(self._native)
        for address in addresses:
            self._guarded(Stage.PREPARE, partial(self._native.ModifyGraphWithDelegate, address))
        self._signatures = self._guarded(Stage.PARSE, lambda: read_signatures(self._native))
        for signature in self._signatures:
            self._prepare_first_shapes(signature)
        self.descriptions = self._guarded(Stage.PREPARE, self._describe)
        self.kernels = kernels_in_use(self._native, len(addresses))

    def delegates_now(self) -> list[Delegated]:
        """Return what delegates have taken over in the primary subgraph."""
        return delegated(self._native)

    def prepare(self, signature: int, shapes: Sequence[tuple[int, ...]]) -> list[memoryview | None]:
        """Make the inputs ready for these shapes and return their memory."""
        called = self._signatures[signature]
        if not called.graph.has(called.inputs, shapes):
            self._check(signature, shapes)
            self._guarded(Stage.PREPARE, lambda: called.graph.reshape(called.inputs, shapes))
        native = self._native
        return [
            input_view(native, place, shape)
            for place, shape in zip(called.inputs, shapes, strict=True)
        ]

    def shapes(self, signature: int) -> list[tuple[int, ...]]:
        """Return the present shapes of a signature's inputs."""
        called = self._signatures[signature]
        return [called.graph.dimensions[place.tensor] for place in called.inputs]

    def set_strings(
        self, signature: int, position: int, dimensions: tuple[int, ...], values: Sequence[bytes]
    ) -> None:
        """Set a string input of a prepared signature."""
        place = self._signatures[signature].inputs[position]
        self._guarded(Stage.PREPARE, lambda: set_strings(self._native, place, dimensions, values))

    def run(self, signature: int) -> None:
        """Run a prepared signature."""
        called = self._signatures[signature]
        if not called.graph.allocated:
            raise ModelFailed("the model was not prepared for a run")
        self._watch.begin()
        try:
            for place, value in called.scalars:
                self._native.SetTensor(place.tensor, value, place.subgraph)
            called.graph.run(signature)
        except _NATIVE_ERRORS as error:
            raise self._failure(error, Stage.RUN) from None
        self.has_run = True

    def outputs(self, signature: int) -> list[OutputTensor]:
        """Return the outputs of the last run."""
        called = self._signatures[signature]
        if called.graph.answered != signature:
            raise ModelFailed("there is no answer to read: the signature was not run")
        native = self._native
        outputs = [read_output(native, place) for place in called.outputs]
        for tensor, output in zip(self.descriptions[signature].outputs, outputs, strict=True):
            if tensor.dimensions != output.dimensions and not tensor.accepts(output.dimensions):
                # The receivers would take it for a worker that lies; it is the model's file.
                raise ModelFailed(
                    f"output {tensor.name!r} has dimensions {output.dimensions}, "
                    f"and the model declares {tensor.dimensions}"
                )
        return outputs

    def steady(self, signature: int) -> SteadySignature | None:
        """Prepare to repeat the last run, or None if that cannot be done in place."""
        called = self._signatures[signature]
        # Parts of other requests may be read into the inputs: those must write them anew.
        if not all(other.writes_inputs_of(called) for other in self._signatures):
            return None
        return steady_signature(self._native, called, partial(self.run, signature))

    def _prepare_first_shapes(self, signature: Signature) -> None:
        """Allocate; a failure that the caller may never meet stands over until the first call.

        The plain libraries allocate the primary subgraph only, so a named signature that needs
        what is not there (Flex operators that save a trained model) hinders nobody. And where the
        inputs' sizes are open, those in the file are placeholders that need not fit the operators.
        """
        graph = signature.graph
        if graph.allocated:
            return
        try:
            self._guarded(Stage.PREPARE, graph.allocate)
        except LimitReached:
            raise
        except RuntimeFailure as failure:
            placeholders = type(failure) is ModelFailed and signature.resizable
            if graph.is_primary and not placeholders:
                raise

    def _check(self, signature: int, shapes: Sequence[tuple[int, ...]]) -> None:
        inputs = self.descriptions[signature].inputs
        if len(inputs) != len(shapes):
            raise InvalidInput(f"{len(shapes)} inputs came, {len(inputs)} are needed")
        for tensor, shape in zip(inputs, shapes, strict=True):
            if not tensor.accepts(shape) or any(size < 0 for size in shape):
                raise InvalidInput(
                    f"input {tensor.name!r} has dimensions {tensor.dimensions}, not {shape}"
                )

    def _describe(self) -> tuple[SignatureDescription, ...]:
        return tuple(describe(self._native, signature) for signature in self._signatures)

    def _guarded(self, stage: Stage, call: Callable[[], _Result]) -> _Result:
        self._watch.begin()
        try:
            return call()
        except _NATIVE_ERRORS as error:
            raise self._failure(error, stage) from None

    def _failure(self, error: Exception, stage: Stage) -> RuntimeFailure:
        failure = failure_from(error, stage, self._words.new_in(str(error)))
        self.broken = self.broken or isinstance(error, MemoryError)
        if self._watch.refused(error):
            wanted = max(
                (signature.largest_tensor(self._native) for signature in self._signatures),
                default=0,
            )
            ran_out = ModelFailed(f"memory ran out: {failure}")
            return self._watch.limit_reached(wanted) or ran_out
        return failure
