"""The core of a loaded model: calls, resets, its loss and its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from model_loader_wire.causes import Cause
from model_loader_wire.delegation import Delegation
from model_loader_wire.description import ModelDescription
from model_loader_wire.exchange import Exchange
from model_loader_wire.frames import BadFrame, Kind
from model_loader_wire.v1 import model_loader_pb2 as pb

from . import _fork
from ._answer import Answer
from ._effects import Call, ChannelEnded, DeadlinePassed, Exclusive, Steps, Transfer
from ._messages import delegation_from
from ._options import seconds
from ._plan import Plan, Request
from ._relayed import RelayedModel
from ._renewal import CALL_SECONDS
from ._returning import present
from ._session import Session
from ._values import Isolation, Report
from .errors import (
    ConstraintError,
    DataError,
    TimeoutError,
    from_failure,
)

RESET_SECONDS = 30.0
"""Longest reset where no load limit says otherwise: a reset builds the interpreter anew."""

LATE_SECONDS = 1.0
"""How long a reply is read whose deadline passed while nobody looked: it may have come long ago."""

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


class ModelCore(RelayedModel):
    """A loaded model. All that follows from the fate of a call on its channel is decided here."""

    def __init__(
        self,
        session: Session,
        model_id: str,
        description: ModelDescription,
        isolation: Isolation,
        report: Report,
        label: str,
    ) -> None:
        super().__init__(session, model_id)
        self.label = label
        self.description = description
        self.isolation = isolation
        self.report = report
        self.turn: Any = None
        """The driver's lock: one exchange at a time. Set by the public object."""
        self._sequence = 0
        self._plans: dict[str | None, Plan] = {}
        session.models_loaded.add(self)

    def come_back(
        self,
        model_id: str,
        description: ModelDescription,
        isolation: Isolation,
        report: Report,
        channel: Any,
    ) -> None:
        """Be the model that was loaded in the place of one that went; the caller holds the turn."""
        if self.channel is not None:
            self.channel.close()
        self.model_id, self.channel = model_id, channel
        self.description, self.isolation, self.report = description, isolation, report
        self._sequence, self._pending, self._plans = 0, [], {}
        self.lost = None

    def plan(self, signature: str | None) -> Plan:
        """Return how a signature is called; raises DataError for a name that the model lacks."""
        plan = self._plans.get(signature)
        if plan is None:
            plan = self._plans[signature] = self._make_plan(signature)
        return plan

    def compute(
        self, inputs: Any, outputs: Any, signature: str | None, timeout: float | None
    ) -> Exclusive:
        """Run the model once; everything that can be checked is checked before a byte is sent."""
        if self.recall is not None:
            return present(
                self, lambda left: self._compute(inputs, outputs, signature, left), timeout
            )
        return self._compute(inputs, outputs, signature, timeout)

    def _compute(
        self, inputs: Any, outputs: Any, signature: str | None, timeout: float | None
    ) -> Exclusive:
        self.check_usable()
        plan = self._plans.get(signature) or self.plan(signature)
        bare = type(inputs) is np.ndarray or not isinstance(inputs, Mapping)
        request = plan.encode(inputs, bare)
        answer = Answer(plan, bare, outputs)
        limit = self.report.limits.compute_seconds
        wait = limit if timeout is None else seconds(timeout, limit)
        deadline = None if wait is None else time.monotonic() + wait
        return Exclusive(self.turn, self.compute_prepared(request, answer, deadline), deadline)

    def compute_prepared(
        self, request: Request, answer: Answer, deadline: float | None
    ) -> Steps[Any]:
        """Run the model on inputs that are encoded."""
        if self.session.relayed:
            return self._compute_relayed(request, answer, deadline)
        return self._directly(request, answer, deadline)

    def reset(self, timeout: float | None) -> Exclusive:
        """Put a stateful model back to its first state."""
        if self.recall is not None:
            return present(self, self._reset, timeout)
        return self._reset(timeout)

    def _reset(self, timeout: float | None) -> Exclusive:
        self.check_usable()
        wait = seconds(timeout, self.report.limits.load_seconds or RESET_SECONDS)
        deadline = None if wait is None else time.monotonic() + wait
        steps = (
            self._reset_relayed(deadline)
            if self.session.relayed
            else self._directly(None, None, deadline)
        )
        return Exclusive(self.turn, steps, deadline)

    def delegation(self) -> Steps[Delegation | None]:
        """Ask which device runs what."""
        self.check_usable()
        request = pb.GetDelegationRequest(model_id=self.model_id)
        reply: pb.GetDelegationReply = yield Call("GetDelegation", request, CALL_SECONDS)
        return delegation_from(reply)

    def close(self) -> Steps[None]:
        """End the worker. A call that is under way ends with InvalidStateError."""
        if self.closed or self._generation != _fork.current:
            return
        self.closed = True
        # First the service: a worker whose channel ends before its client said so broke its rules.
        if not self.session.closed:
            yield from self._tell_closed(deadline_passed=False)
        elif self.channel is not None:
            self.channel.stop()
        if self.channel is not None:
            # The descriptor's number may be used again once it is closed: never in another's call.
            try:
                yield Exclusive(self.turn, self._close_channel(), time.monotonic() + CALL_SECONDS)
            except TimeoutError:
                return

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

    def _directly(
        self, request: Request | None, answer: Answer | None, deadline: float | None
    ) -> Steps[Any]:
        """Carry out a computation on the channel; a reset, if nothing is requested."""
        self.check_usable()
        if self._pending:
            yield from self.settle(deadline)
        self._sequence += 1
        if request is None or answer is None:
            exchange = Exchange(Kind.RESET, self._sequence)
        else:
            exchange = answer.exchange(request, self._sequence)
        self._pending = [(exchange, deadline)]
        return (yield from self.carry(exchange, answer, deadline))

    def begin_ahead(self, request: Request, answer: Answer) -> Exchange:
        """Make an exchange for `put_ahead`."""
        self._sequence += 1
        return answer.exchange(request, self._sequence, alone=False)

    def put_ahead(self, exchange: Exchange, deadline: float | None) -> None:
        """Let an exchange be pending, whose reply comes after those of all that are.

        By then its caller holds it: an interruption must not leave here what nobody gives up.
        """
        self._pending = [*self._pending, (exchange, deadline)]

    def carry(
        self,
        exchange: Exchange,
        answer: Answer | None,
        deadline: float | None,
        ahead: Exchange | None = None,
    ) -> Steps[Any]:
        """Carry the first pending exchange to its end; gives what the answer has.

        Until the reply is in, an exchange is pending: whatever interrupts this call, the next one
        carries it to its end before it sends anything.
        """
        if not exchange.done:
            try:
                yield Transfer(self.channel, exchange, deadline, ahead)
            except DeadlinePassed:
                yield from self._lose_by_deadline("the computation")
            except ChannelEnded:
                yield from self._lose_by_ending()
            except BadFrame as error:
                yield from self._lose_by_violation(error)
            except BaseException:
                exchange.abandon()
                raise
            self._pending = self._pending[1:]
        failure = exchange.failure
        if failure is not None:
            if failure.cause not in WORKERS_CAUSES:
                yield from self._lose_by_violation(
                    BadFrame(f"the worker said {failure.cause}, which is not its to say")
                )
            raise from_failure(failure)
        if answer is None:
            return None
        try:
            return answer.result(exchange.entries, exchange.tensors)
        except BadFrame as error:
            yield from self._lose_by_violation(error)

    def settle(self, deadline: float | None) -> Steps[None]:
        """Carry to its end what other calls have left on the channel."""
        while self._pending:
            exchange, its_deadline = self._pending[0]
            if exchange.is_ahead and not exchange.is_wanted and not exchange.sent_counts:
                self._pending = self._pending[1:]
                continue
            yield from self._drain(exchange, its_deadline, deadline)

    def _drain(
        self, exchange: Exchange, its_deadline: float | None, deadline: float | None
    ) -> Steps[None]:
        if not exchange.is_wanted:
            exchange.abandon()
        if its_deadline is not None:
            its_deadline = self._renewed(exchange, its_deadline)
        nearest = min(
            (moment for moment in (deadline, its_deadline) if moment is not None), default=None
        )
        try:
            yield Transfer(self.channel, exchange, nearest)
        except DeadlinePassed:
            if nearest == its_deadline:
                yield from self._lose_by_deadline("an earlier computation")
            raise TimeoutError(
                "an earlier call's computation did not end in time; the model is still usable"
            ) from None
        except ChannelEnded:
            yield from self._lose_by_ending()
        except BadFrame as error:
            yield from self._lose_by_violation(error)
        self._pending = self._pending[1:]

    def _renewed(self, exchange: Exchange, its_deadline: float) -> float | None:
        """Give what is left on the channel the time that it did not have while nobody looked.

        What was not sent whole cannot have been computed: its time begins now.
        """
        now = time.monotonic()
        if not exchange.unsent:
            return max(its_deadline, now + LATE_SECONDS)
        limit = self.report.limits.compute_seconds
        renewed = None if limit is None else now + limit
        self._pending = [(exchange, renewed), *self._pending[1:]]
        return renewed

    def _close_channel(self) -> Steps[None]:
        self.channel.close()
        return
        yield  # a generator like its kin: see Exclusive
