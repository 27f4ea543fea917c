"""The core of a loaded model: calls, resets, its loss and its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from model_loader_wire.causes import Cause, Failure
from model_loader_wire.data_types import DataType
from model_loader_wire.description import ModelDescription
from model_loader_wire.exchange import Exchange, byte_view
from model_loader_wire.frames import BadFrame, Entry, Kind
from model_loader_wire.v1 import model_loader_pb2 as pb

from . import _fork
from ._answer import Answer
from ._effects import Call, ChannelEnded, DeadlinePassed, Exclusive, Steps, Transfer
from ._messages import failure_of
from ._options import seconds
from ._plan import Plan, Request
from ._session import CALL_SECONDS, Session
from ._values import Isolation, Lost, Report
from .errors import (
    ConstraintError,
    DataError,
    InvalidStateError,
    ModelLoaderError,
    TimeoutError,
    from_failure,
)

VERDICT_SECONDS = 2.0
"""How long the service may take to find out why a worker ended."""
RESET_SECONDS = 30.0
"""Longest reset where no load limit says otherwise: a reset builds the interpreter anew."""

WORKERS_CAUSES = frozenset(
    {
        Cause.INVALID_INPUT,
        Cause.UNSUPPORTED,
        Cause.LIMIT,
        Cause.OUT_OF_MEMORY,
        Cause.FAILED,
        Cause.INVALID_MODEL,
        Cause.INTERNAL,
    }
)
"""What a worker may say of a call. Why it died, only its judge says."""


class ModelCore:
    """A loaded model. All that follows from a call's fate is decided here, for both drivers."""

    def __init__(
        self,
        session: Session,
        model_id: str,
        description: ModelDescription,
        isolation: Isolation,
        report: Report,
        label: str,
    ) -> None:
        self.label = label
        self.session = session
        self.model_id = model_id
        self.description = description
        self.isolation = isolation
        self.report = report
        self.channel: Any = None
        self.turn: Any = None
        """The driver's lock: one exchange at a time. Set by the public object."""
        self.lost: Lost | None = None
        self.closed = False
        self.on_end: Callable[[], None] | None = None
        self._generation = _fork.current
        self._pending: tuple[Exchange, float | None] | None = None
        self._sequence = 0
        self._plans: dict[str | None, Plan] = {}
        session.models_loaded.add(self)

    def plan(self, signature: str | None) -> Plan:
        """Return how a signature is called; raises DataError for a name that the model lacks."""
        plan = self._plans.get(signature)
        if plan is None:
            plan = self._plans[signature] = self._make_plan(signature)
        return plan

    def check_usable(self) -> None:
        """Raise InvalidStateError for a model that is closed, lost, or another process's."""
        if self._generation != _fork.current:
            _fork.check(self._generation, "model")
        if self.closed:
            raise InvalidStateError("the model was closed")
        if self.lost is not None:
            raise InvalidStateError(
                f"the model was lost ({self.lost.reason}): {self.lost.detail}; load it again",
                cause=Cause.LOST,
            )
        if self.session.closed:
            raise InvalidStateError("the model's connection was closed")

    def compute(
        self, inputs: Any, outputs: Any, signature: str | None, timeout: float | None
    ) -> Exclusive:
        """Run the model once; everything that can be checked is checked before a byte is sent."""
        self.check_usable()
        plan = self._plans.get(signature) or self.plan(signature)
        bare = type(inputs) is np.ndarray or not isinstance(inputs, Mapping)
        request = plan.encode(inputs, bare)
        answer = Answer(plan, bare, outputs)
        limit = self.report.limits.compute_seconds
        wait = limit if timeout is None else seconds(timeout, limit)
        deadline = None if wait is None else time.monotonic() + wait
        steps = (
            self._compute_relayed(plan, request, answer, deadline)
            if self.session.relayed
            else self._compute_directly(plan, request, answer, deadline)
        )
        return Exclusive(self.turn, steps, deadline)

    def reset(self, timeout: float | None) -> Exclusive:
        """Put a stateful model back to its first state."""
        self.check_usable()
        wait = seconds(timeout, self.report.limits.load_seconds or RESET_SECONDS)
        deadline = None if wait is None else time.monotonic() + wait
        steps = self._reset_relayed(deadline) if self.session.relayed else self._reset(deadline)
        return Exclusive(self.turn, steps, deadline)

    def close(self) -> Steps[None]:
        """End the worker. A call that is under way ends with InvalidStateError."""
        if self.closed or self._generation != _fork.current:
            return
        self.closed = True
        if self.channel is not None:
            self.channel.stop()
        if not self.session.closed:
            yield from self._tell_closed(deadline_passed=False)
        if self.channel is not None:
            # The descriptor's number may be used again once it is closed: never in another's call.
            try:
                yield Exclusive(self.turn, self._close_channel(), time.monotonic() + CALL_SECONDS)
            except TimeoutError:
                return

    def check_lost(self) -> Steps[Lost | None]:
        """Look whether an idle model's worker has ended, and ask why."""
        usable = self.lost is None and not self.closed and self._generation == _fork.current
        if not usable or self.session.closed:
            return self.lost
        if self.channel is not None:
            if self.channel.has_ended():
                yield from self._find_verdict()
        else:  # relayed: there is nothing to look at here
            try:
                request = pb.GetModelRequest(model_id=self.model_id)
                state: pb.ModelState = yield Call("GetModel", request, CALL_SECONDS)
                if state.lost:
                    yield from self._find_verdict()
            except ModelLoaderError as error:
                self._lose(Lost(error.cause, error.message))
        return self.lost

    def noticed_end(self) -> None:
        """Told by an asyncio driver when the idle channel ended."""
        if self.lost is None and not self.closed and self.on_end is not None:
            self.on_end()

    def find_verdict(self) -> Steps[None]:
        """Learn why the worker ended, unless that is known."""
        if self.lost is None and not self.closed:
            yield from self._find_verdict()

    def _make_plan(self, signature: str | None) -> Plan:
        signatures = self.description.signatures
        if signature is None:
            return Plan(0, signatures[0], self.report.limits)
        if not isinstance(signature, str):
            raise ConstraintError(f"signature must be a name, not {type(signature).__name__}")
        for index, known in enumerate(signatures):
            if index and known.name == signature:
                return Plan(index, known, self.report.limits)
        names = ", ".join(repr(known.name) for known in signatures[1:]) or "none"
        raise DataError(f"the model has no signature {signature!r}; it has {names}")

    def _compute_directly(
        self, plan: Plan, request: Request, answer: Answer, deadline: float | None
    ) -> Steps[Any]:
        self.check_usable()
        if self._pending is not None:
            yield from self._drain(*self._pending, deadline)
        self._sequence += 1
        exchange = Exchange(
            Kind.COMPUTE,
            self._sequence,
            signature=plan.index,
            table=request.table,
            payload=request.payload,
            payload_length=request.length,
            places=answer.places,
            known=plan.known,
            most=plan.most,
        )
        yield from self._exchange(exchange, deadline)
        try:
            return answer.result(exchange.entries, exchange.tensors)
        except BadFrame as error:
            yield from self._lose_by_violation(error)

    def _reset(self, deadline: float | None) -> Steps[None]:
        self.check_usable()
        if self._pending is not None:
            yield from self._drain(*self._pending, deadline)
        self._sequence += 1
        yield from self._exchange(Exchange(Kind.RESET, self._sequence), deadline)

    def _drain(
        self, exchange: Exchange, its_deadline: float | None, deadline: float | None
    ) -> Steps[None]:
        """Carry to its end what an interrupted call left on the channel."""
        exchange.abandon()
        nearest = min(
            (moment for moment in (deadline, its_deadline) if moment is not None), default=None
        )
        try:
            yield Transfer(self.channel, exchange, nearest)
        except DeadlinePassed:
            if nearest == its_deadline:
                yield from self._lose_by_deadline("an interrupted computation")
            raise TimeoutError(
                "an interrupted call's computation did not end in time; the model is still usable"
            ) from None
        except ChannelEnded:
            yield from self._lose_by_ending()
        except BadFrame as error:
            yield from self._lose_by_violation(error)
        self._pending = None

    def _exchange(self, exchange: Exchange, deadline: float | None) -> Steps[None]:
        # Until the reply is in, the exchange is pending: whatever interrupts this call, the next
        # one carries it to its end before it sends anything.
        self._pending = (exchange, deadline)
        try:
            yield Transfer(self.channel, exchange, deadline)
        except DeadlinePassed:
            yield from self._lose_by_deadline("the computation")
        except ChannelEnded:
            yield from self._lose_by_ending()
        except BadFrame as error:
            yield from self._lose_by_violation(error)
        except BaseException:
            exchange.abandon()
            raise
        self._pending = None
        failure = exchange.failure
        if failure is not None:
            if failure.cause not in WORKERS_CAUSES:
                yield from self._lose_by_violation(
                    BadFrame(f"the worker said {failure.cause}, which is not its to say")
                )
            raise from_failure(failure)

    def _compute_relayed(
        self, plan: Plan, request: Request, answer: Answer, deadline: float | None
    ) -> Steps[Any]:
        self.check_usable()
        message = pb.ComputeRequest(model_id=self.model_id, signature=plan.index)
        for entry, part in zip(request.entries, request.payload, strict=True):
            message.inputs.add(
                data_type=int(entry.data_type),
                dimensions=entry.dimensions,
                data=bytes(byte_view(part)),
            )
        reply: pb.ComputeReply = yield from self._relay("Compute", message, deadline)
        try:
            if sum(len(tensor.data) for tensor in reply.outputs) > plan.most:
                raise BadFrame("the outputs are longer than the limit output_bytes")
            entries = tuple(_entry(tensor) for tensor in reply.outputs)
            answer.places(entries)
            return answer.result(entries, [tensor.data for tensor in reply.outputs])
        except BadFrame as error:
            yield from self._lose_by_violation(error)

    def _reset_relayed(self, deadline: float | None) -> Steps[None]:
        self.check_usable()
        yield from self._relay("Reset", pb.ResetRequest(model_id=self.model_id), deadline)

    def _relay(self, method: str, message: Any, deadline: float | None) -> Steps[Any]:
        wait = None if deadline is None else deadline - time.monotonic()
        if wait is not None and wait <= 0:
            raise TimeoutError("the deadline passed before the call began")
        try:
            return (yield Call(method, message, wait))
        except TimeoutError as error:
            if not error.model_lost:
                yield from self._lose_by_deadline("the computation")
            self._lose(Lost(error.cause, error.message))
            raise
        except ModelLoaderError as error:
            if error.cause is Cause.LOST and self.lost is None:
                raise (yield from self._find_verdict()) from None  # the first to notice is told why
            if error.model_lost or error.cause is Cause.UNAVAILABLE:
                self._lose(Lost(error.cause, error.message))
            raise

    def _lose_by_deadline(self, what: str) -> Steps[None]:
        detail = f"the deadline passed before {what} ended, so the worker was ended"
        self._lose(Lost(Cause.TIMEOUT, detail))
        yield from self._tell_closed(deadline_passed=True)
        raise TimeoutError(f"{detail}; the model is lost")

    def _lose_by_ending(self) -> Steps[None]:
        if self.closed:
            raise InvalidStateError("the model was closed during the call")
        error = yield from self._find_verdict()
        raise error

    def _lose_by_violation(self, fault: Exception) -> Steps[None]:
        failure = Failure(Cause.PROTOCOL_VIOLATION, f"the worker broke the protocol: {fault}")
        self._lose(Lost(failure.cause, failure.message))
        yield from self._tell_closed(deadline_passed=False)
        raise from_failure(failure)

    def _find_verdict(self) -> Steps[ModelLoaderError]:
        """Ask the judge why the worker ended, and note it; gives the error for a waiting caller."""
        request = pb.GetModelRequest(model_id=self.model_id, wait_seconds=VERDICT_SECONDS)
        try:
            state: pb.ModelState = yield Call("GetModel", request, VERDICT_SECONDS + CALL_SECONDS)
        except ModelLoaderError as error:
            self._lose(Lost(error.cause, error.message))
            return error
        if state.lost:
            failure = failure_of(state.detail)
        else:
            failure = Failure(
                Cause.PROTOCOL_VIOLATION, "the worker closed its channel without ending"
            )
        self._lose(Lost(failure.cause, failure.message))
        if not state.lost:
            yield from self._tell_closed(deadline_passed=False)
        return from_failure(failure)

    def _lose(self, lost: Lost) -> None:
        if self.lost is None:
            self.lost = lost
        self._pending = None

    def _tell_closed(self, *, deadline_passed: bool) -> Steps[None]:
        request = pb.CloseModelRequest(model_id=self.model_id, deadline_passed=deadline_passed)
        try:
            yield Call("CloseModel", request, CALL_SECONDS)
        except ModelLoaderError:
            pass  # the service is gone, and the worker with it
        finally:
            # Only now: a worker that sees its channel end ends at once, and the judge must know
            # why before that.
            if self.channel is not None:
                self.channel.stop()

    def _close_channel(self) -> Steps[None]:
        self.channel.close()
        return
        yield  # a generator like its kin: see Exclusive


def _entry(tensor: pb.Tensor) -> Entry:
    try:
        data_type = DataType(tensor.data_type)
    except ValueError as error:
        raise BadFrame(str(error)) from None
    dimensions = tuple(tensor.dimensions)
    size = data_type.element_size
    length = len(tensor.data)
    if any(count < 0 for count in dimensions):
        raise BadFrame(f"{dimensions} are no dimensions")
    if size is not None and _product(dimensions) * size != length:
        raise BadFrame(f"{length} bytes do not fit {dimensions} {data_type.api_name}")
    return Entry(data_type, dimensions, length)


def _product(sizes: tuple[int, ...]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
