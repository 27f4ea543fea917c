"""Models that run in the TFLite Python interpreter, which both libraries carry.

The policy is here: when built-in kernels get a try, and what a reset brings back. How an
interpreter is driven is in ``session``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from loader_service.runtime.allocations import AllocationWatch
from loader_service.runtime.engine import OutputTensor, Placement
from loader_service.runtime.failures import (
    DelegateFailed,
    InvalidModel,
    ModelFailed,
    RuntimeFailure,
    readable,
)
from loader_service.runtime.kernels import Delegated, Kernels, fallback_note, worth_a_retry
from loader_service.runtime.native import Library
from loader_service.runtime.session import Session
from loader_service.runtime.steady import SteadySignature
from loader_service.writer.warm_up import warm_up_model
from model_loader_wire.description import ModelDescription

IDENTIFIER = b"TFL3"
"""At offset 4 of every model of schema 3."""
_SHORTEST = 12
_Result = TypeVar("_Result")
_Strings = tuple[tuple[int, ...], Sequence[bytes]]


class InterpreterRuntime:
    """A library with the TFLite Python interpreter, as the worker's `Runtime`."""

    def __init__(self, library: Library) -> None:
        """Wrap a library that is imported already."""
        self._library = library

    @property
    def name(self) -> str:
        """The runtime's name, as in `find_runtime`."""
        return self._library.name

    @property
    def version(self) -> str:
        """The library's version."""
        return self._library.version

    @property
    def library(self) -> Library:
        """The library itself."""
        return self._library

    def warm(self) -> None:
        """Run the warm-up model, and meet one refusal, without a word on stderr."""
        with _quiet_stderr():
            model = self.load(warm_up_model(), threads=1, memory_bytes=None)
            (view,) = model.prepare_inputs(0, [(1, 4, 4, 1)])
            assert view is not None
            view[:] = bytes(len(view))
            model.invoke(0)
            model.outputs(0)
            try:
                self.load(b"", threads=1, memory_bytes=None)
            except InvalidModel:
                return

    def load(
        self,
        model: bytes,
        *,
        threads: int,
        memory_bytes: int | None,
        placement: Placement | None = None,
    ) -> InterpreterModel:
        """Parse and prepare a model; see `Runtime.load`."""
        if len(model) < _SHORTEST or model[4:8] != IDENTIFIER:
            raise InvalidModel("the bytes are no TensorFlow Lite model: no TFL3 at offset 4")
        root = int.from_bytes(model[:4], "little")
        # tflite-runtime does not verify, and this is the first place it would read beyond the end.
        if not 8 <= root <= len(model) - 4:
            raise InvalidModel(f"the model's root table is at {root}, outside its file")
        return InterpreterModel(self._library, model, threads, memory_bytes, placement)


class InterpreterModel:
    """A loaded model; see `LoadedModel`."""

    def __init__(
        self,
        library: Library,
        model: bytes,
        threads: int,
        memory_bytes: int | None,
        placement: Placement | None = None,
    ) -> None:
        """Open the model with the library's default kernels, else with the built-in ones."""
        self._library = library
        self._model = model
        self._placement = placement
        self._threads = threads
        self._watch = AllocationWatch(memory_bytes)
        self._session: Session | None = None
        self._strings: dict[tuple[int, int], _Strings] = {}
        self._note = ""
        self._kernels = Kernels.DEFAULT if placement is None else placement.kernels
        try:
            self._open(self._kernels)
        except DelegateFailed as failure:
            reason = str(failure)
        else:
            return
        self._fall_back(reason)
        # What was found out while loading holds after a reset too.
        self._kernels = Kernels.BUILTIN

    @property
    def description(self) -> ModelDescription:
        """Signatures, runtime, the kernels in use now and why."""
        session = self._live()
        return ModelDescription(
            session.descriptions,
            runtime=f"{self._library.name} {self._library.version}",
            kernels=session.kernels,
            note=self._note,
            threads=self._threads,
        )

    def delegates_now(self) -> list[Delegated]:
        """Return what delegates have taken over in the primary subgraph, XNNPACK's included."""
        return self._live().delegates_now()

    def prepare_inputs(
        self, signature: int, shapes: Sequence[tuple[int, ...]]
    ) -> list[memoryview | None]:
        """Make inputs ready and return their memory; see `LoadedModel.prepare_inputs`."""
        session = self._live()
        try:
            return session.prepare(signature, shapes)
        except DelegateFailed as failure:
            if session.has_run or self._kernels is Kernels.BUILTIN or not worth_a_retry(shapes):
                raise
            reason = str(failure)
        del session
        return self._second_chance(reason, lambda: self._live().prepare(signature, shapes))

    def set_strings(
        self, signature: int, position: int, dimensions: tuple[int, ...], values: Sequence[bytes]
    ) -> None:
        """Set a string input; see `LoadedModel.set_strings`."""
        session = self._live()
        session.set_strings(signature, position, dimensions, values)
        if not session.has_run:
            self._strings[signature, position] = (dimensions, values)

    def invoke(self, signature: int) -> None:
        """Run a signature; see `LoadedModel.invoke`."""
        session = self._live()
        try:
            session.run(signature)
        except DelegateFailed as failure:
            if session.has_run or self._kernels is Kernels.BUILTIN:
                raise
            shapes = session.shapes(signature)
            if not worth_a_retry(shapes):
                raise
            reason = str(failure)
            given = [
                view if view is None else bytes(view) for view in session.prepare(signature, shapes)
            ]
        else:
            if self._strings:
                self._strings.clear()
            return
        del session
        self._second_chance(reason, lambda: self._run_again(signature, shapes, given))

    def outputs(self, signature: int) -> list[OutputTensor]:
        """Return the last answer; see `LoadedModel.outputs`."""
        return self._live().outputs(signature)

    def steady(self, signature: int) -> SteadySignature | None:
        """Prepare to repeat the last run; see `LoadedModel.steady`."""
        return self._live().steady(signature)

    def reset(self) -> None:
        """Open the model anew: the libraries' own reset leaves resource variables as they are."""
        self._strings.clear()
        if self._kernels is Kernels.DEFAULT:
            self._note = ""
        self._open(self._kernels)

    def _open(self, kernels: Kernels) -> Session:
        # The old interpreter goes first: two of them may not fit the memory.
        self._session = None
        self._session = Session(
            self._library,
            self._model,
            threads=self._threads,
            kernels=kernels,
            delegates=None if self._placement is None else self._placement.renew,
            watch=self._watch,
        )
        return self._session

    def _fall_back(self, reason: str) -> None:
        """Open the model on built-in kernels; raises DelegateFailed if it cannot run there."""
        try:
            self._open(Kernels.BUILTIN)
        except RuntimeFailure:
            self._session = None
            raise DelegateFailed(reason) from None
        self._note = fallback_note(readable(reason))

    def _second_chance(self, reason: str, attempt: Callable[[], _Result]) -> _Result:
        """Do something on built-in kernels; raises DelegateFailed, the first failure, if it fails.

        Then other inputs shall find the usual kernels again.
        """
        try:
            self._fall_back(reason)
            return attempt()
        except RuntimeFailure:
            pass
        self.reset()
        raise DelegateFailed(reason)

    def _run_again(
        self, signature: int, shapes: Sequence[tuple[int, ...]], given: Sequence[bytes | None]
    ) -> None:
        session = self._live()
        for position, (view, data) in enumerate(
            zip(session.prepare(signature, shapes), given, strict=True)
        ):
            if view is not None and data is not None:
                view[:] = data
            elif (signature, position) in self._strings:
                session.set_strings(signature, position, *self._strings[signature, position])
        session.run(signature)

    def _live(self) -> Session:
        session = self._session
        if session is None:
            raise ModelFailed("the model could not be opened again; reset it")
        if not session.broken:
            return session
        if session.has_run:
            # Another interpreter would have forgotten the state: that is for the caller to want.
            raise ModelFailed("the runtime broke when its memory ran out; reset the model")
        choice = session.choice
        del session
        return self._open(choice)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep out what the libraries write: there is no switch, and they say it once per process."""
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
