"""A model whose operators are shared out to devices, and the CPU that stands in for them.

The second half of the fallback ladder: where a device fails in a run, the CPU answers instead if
the model keeps no state from run to run and no device was named; after `PATIENCE` failures in a row
the device is left out. A deadline is never waited for twice: what is late is ended from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from loader_service.devices.compiled import CompiledPlan, as_told
from loader_service.devices.device import DeadlineMissed
from loader_service.devices.reporting import report
from loader_service.runtime.engine import OutputTensor, Placement, SteadyRun
from loader_service.runtime.failures import InvalidInput, LimitReached, RuntimeFailure
from loader_service.runtime.interpreter import InterpreterModel
from model_loader_wire.delegation import Delegation
from model_loader_wire.description import ModelDescription

PATIENCE = 3
"""Failures in a row after which a device is left out."""

TELLS = 4
"""How often a change is told at once between two pings."""

Opening = Callable[[Placement | None], InterpreterModel]
_Strings = tuple[tuple[int, ...], Sequence[bytes]]
_Result = TypeVar("_Result")


class PlacedModel:
    """A loaded model; see `LoadedModel`."""

    def __init__(
        self, opening: Opening, compiled: CompiledPlan, *, named: bool, coarse: bool = False
    ) -> None:
        """Open the model on its devices, else on the CPU; `named`: on nothing else than those.

        `coarse`: see `Wish.coarse`.
        Raises what `opening` raises where the CPU cannot run the model either.
        """
        self._opening = opening
        self._compiled = compiled
        self._may_stand_in = not named
        self._coarse = coarse
        self._failures = 0
        self._cpu: InterpreterModel | None = None
        self._from_cpu = False
        """Whether the last answer is the CPU's."""
        self._shapes: dict[int, Sequence[tuple[int, ...]]] = {}
        self._strings: dict[tuple[int, int], _Strings] = {}
        self.tell: Callable[[Delegation], None] | None = None
        """Told what has changed in what devices run, once somebody wants to know."""
        self._told_runs = 0
        self._tells = TELLS
        self._untold = False
        self._model = self._on_devices(lambda: opening(compiled))

    @property
    def description(self) -> ModelDescription:
        """As of the interpreter that runs the model, with the report on devices."""
        return self._model.description.with_delegation(self._report())

    def tell_times(self) -> None:
        """Tell what was not told yet, and the times of runs, if there were any; at every ping."""
        self._tells = TELLS
        if self._untold or self._compiled.runs != self._told_runs:
            self._tell_now()

    def _tell_now(self) -> None:
        """Tell the report; with the next ping only, if it was told often since the last one."""
        self._untold = self.tell is None or not self._tells
        if self.tell is not None and self._tells:
            try:
                report = self._report()
            except RuntimeFailure:  # it could not be opened again
                return
            self._tells -= 1
            self._told_runs = self._compiled.runs
            self.tell(report)

    def prepare_inputs(
        self, signature: int, shapes: Sequence[tuple[int, ...]]
    ) -> list[memoryview | None]:
        """Make inputs ready; a device that cannot be prepared for these shapes is left out.

        But not for shapes for which the CPU cannot be prepared either.
        """
        self._from_cpu = False
        self._shapes[signature] = shapes
        try:
            return self._model.prepare_inputs(signature, shapes)
        except RuntimeFailure as failure:
            if not self._is_devices(failure):
                raise
            first = failure
        if self._is_late() or not self._compiled.model.stateless:
            raise as_told(first, coarse=self._coarse)
        names = self._compiled.failed_devices()
        self._fits_on_cpu(lambda cpu: cpu.prepare_inputs(signature, shapes))
        self._leave_out(first, names)
        return self.prepare_inputs(signature, shapes)

    def set_strings(
        self, signature: int, position: int, dimensions: tuple[int, ...], values: Sequence[bytes]
    ) -> None:
        """Set a string input; see `LoadedModel.set_strings`."""
        self._model.set_strings(signature, position, dimensions, values)
        self._strings[signature, position] = (dimensions, values)

    def invoke(self, signature: int) -> None:
        """Run a signature, on the CPU if a device fails that may be stood in for."""
        try:
            self._model.invoke(signature)
        except RuntimeFailure as failure:
            self.stand_in(signature, failure)
        else:
            self.went_well()

    def outputs(self, signature: int) -> list[OutputTensor]:
        """Return the last answer; see `LoadedModel.outputs`."""
        if self._from_cpu and self._cpu is not None:
            return self._cpu.outputs(signature)
        return self._model.outputs(signature)

    def steady(self, signature: int) -> SteadyRun | None:
        """Prepare to repeat the last run; see `LoadedModel.steady`."""
        if self._from_cpu:
            return None
        run = self._model.steady(signature)
        return (
            run if run is None or not self._compiled.partitions else _Steady(self, signature, run)
        )

    def reset(self) -> None:
        """Open the model anew; a device that was left out stays so, one that fails now is, too."""
        self._strings.clear()
        self._from_cpu = False
        self._cpu = None
        self._on_devices(self._model.reset)

    def went_well(self) -> None:
        """Note a run without a failure: the memory of the CPU's interpreter is not needed now."""
        self._failures = 0
        self._cpu = None
        if not self._told_runs and self._compiled.partitions:
            self._tell_now()

    def stand_in(self, signature: int, failure: RuntimeFailure) -> None:
        """Answer from the CPU what a device failed at; raises `failure` where that may not be."""
        if not self._is_devices(failure):
            raise failure
        if self._is_late() or not self._compiled.model.stateless:
            raise as_told(failure, coarse=self._coarse)
        shapes = self._shapes[signature]
        given = [
            None if view is None else bytes(view)
            for view in self._model.prepare_inputs(signature, shapes)
        ]
        names = self._compiled.failed_devices()
        if not self._fits_on_cpu(lambda cpu: self._run(cpu, signature, shapes, given)):
            self._leave_out(failure, self._compiled.devices())
            self._run(self._model, signature, shapes, given)
            return
        self._from_cpu = True
        self._failures += 1
        self._say(f"{_listed(names)} failed in a run, the CPU answered: {failure}")
        if self._failures >= PATIENCE:
            self._leave_out(failure, names)
        else:
            self._tell_now()

    def _on_devices(self, attempt: Callable[[], _Result]) -> _Result:
        """Do what opens the model on its devices; one that fails is left out, unless it was named.

        Raises what `attempt` raises where the CPU cannot run the model either.
        """
        while self._compiled.partitions:
            try:
                result = attempt()
                self._compiled.require_applied()
                return result
            except LimitReached:
                raise
            except RuntimeFailure as failure:
                if not self._may_stand_in:
                    raise
                if self._is_late():
                    raise as_told(failure, coarse=self._coarse) from None
                reason = failure
            names = self._compiled.failed_devices()
            self._compiled.leave_out(names)
            self._say(f"{_listed(names)} was left out, the CPU runs its part: {reason}")
        return attempt()

    def _fits_on_cpu(self, attempt: Callable[[InterpreterModel], object]) -> bool:
        """Do something with the model without devices, which is kept until a run goes well.

        Returns whether there is room for it: two interpreters may not fit where one does. Raises
        what it fails with: that is the model's own doing.
        """
        try:
            if self._cpu is None:
                self._cpu = self._opening(None)
            attempt(self._cpu)
        except LimitReached:
            self._cpu = None
            return False
        except RuntimeFailure as own:
            self._cpu = None
            raise own from None
        return True

    def _run(
        self,
        model: InterpreterModel,
        signature: int,
        shapes: Sequence[tuple[int, ...]],
        given: Sequence[bytes | None],
    ) -> None:
        views = model.prepare_inputs(signature, shapes)
        for position, (view, data) in enumerate(zip(views, given, strict=True)):
            if view is not None and data is not None:
                view[:] = data
            elif (signature, position) in self._strings:
                model.set_strings(signature, position, *self._strings[signature, position])
        model.invoke(signature)

    def _leave_out(self, failure: RuntimeFailure, names: set[str]) -> None:
        """Go on without these devices: with the others, or with what is open on the CPU."""
        self._failures = 0
        self._compiled.leave_out(names)
        self._say(f"{_listed(names)} was left out from now on: {failure}")
        # Its frames would hold the interpreter that gives way.
        failure.__traceback__ = failure.__context__ = None
        if self._compiled.partitions or self._cpu is None:
            try:
                self._on_devices(self._model.reset)
            except LimitReached as short:
                if self._cpu is None:
                    raise
                others = self._compiled.devices()
                self._compiled.leave_out(others)
                self._say(f"{_listed(others)} was left out, too: {short}")
        if not self._compiled.partitions and self._cpu is not None:
            self._model, self._cpu = self._cpu, None
        self._tell_now()

    def _is_devices(self, failure: RuntimeFailure) -> bool:
        """Whether a failure may be a device's that may be stood in for."""
        return (
            self._may_stand_in
            and bool(self._compiled.partitions)
            and not isinstance(failure, InvalidInput | LimitReached)
        )

    def _is_late(self) -> bool:
        """Whether a device has missed a deadline: then nothing else is tried."""
        return any(isinstance(item.failure, DeadlineMissed) for item in self._compiled.partitions)

    def _say(self, step: str) -> None:
        self._compiled.plan.say(step)

    def _report(self) -> Delegation:
        return report(self._compiled, self._model.delegates_now())


class _Steady:
    """A steady run of devices, which the CPU may stand in for; see `SteadyRun`."""

    def __init__(self, model: PlacedModel, signature: int, run: SteadyRun) -> None:
        self._model = model
        self._signature = signature
        self._run = run
        self._stood_in = False
        self.inputs = run.inputs

    def run(self) -> None:
        """Run, on the CPU if a device fails; then the run is good no more."""
        try:
            self._run.run()
        except RuntimeFailure as failure:
            self._model.stand_in(self._signature, failure)
            self._stood_in = True
        else:
            self._model.went_well()

    def outputs(self) -> Sequence[object] | None:
        """Return the outputs' memory; None where the CPU has the answer."""
        return None if self._stood_in else self._run.outputs()


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
