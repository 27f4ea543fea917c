"""A sequence of calls on one model, in which the next request waits in the channel already.

While the worker computes, the next request is sent as far as the channel takes it; so the worker
has it as soon as it has answered. More than one ahead would gain nothing, and take memory. A worker
that cannot write does not read, so only what is taken at once is sent ahead: the rest follows when
the answer before it was read.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from model_loader_wire.exchange import Exchange

from ._answer import Answer
from ._blocking import BlockingDriver
from ._effects import Exclusive, Steps
from ._model_core import ModelCore
from ._options import seconds
from ._plan import Plan, Request
from ._returning import present


class Prepared:
    """One call of a sequence; ``exchange`` is there when its turn in the channel has come."""

    def __init__(self, plan: Plan, inputs: Any) -> None:
        bare = type(inputs) is np.ndarray or not isinstance(inputs, Mapping)
        self.request: Request = plan.encode(inputs, bare)
        self.answer = Answer(plan, bare)
        self.exchange: Exchange | None = None


class Sequence:
    """The calls of one ``compute_many``, at most two of which are prepared at a time."""

    def __init__(
        self, core: ModelCore, inputs: Iterable[Any], signature: str | None, timeout: float | None
    ) -> None:
        if core.recall is None:
            core.check_usable()
        self._inputs = iter(inputs)
        limit = core.report.limits.compute_seconds
        self._core = core
        self._timeout = timeout
        self._plan = core.plan(signature)
        self._wait = limit if timeout is None else seconds(timeout, limit)
        self._current: Prepared | None = None
        self._following: Prepared | None = None
        self._fault: Exception | None = None

    def step(self) -> Exclusive | None:
        """What gives the next answer; None at the end. Raises the fault whose turn it is."""
        if self._current is None:
            self._current = self._prepare()
        current = self._current
        if current is None:
            if self._fault is not None:
                raise self._fault
            return None
        following = self._following = self._prepare()
        if self._core.recall is not None and current.exchange is None:
            return present(self._core, lambda _: self._call(current, following), self._timeout)
        return self._call(current, following)

    def _call(self, current: Prepared, following: Prepared | None) -> Exclusive:
        deadline = None if self._wait is None else time.monotonic() + self._wait
        core = self._core
        if core.session.relayed:  # nothing can wait in a channel that is not there
            steps = core.compute_prepared(current.request, current.answer, deadline)
        else:
            steps = self._steps(current, following, deadline)
        return Exclusive(core.turn, steps, deadline)

    def _prepare(self) -> Prepared | None:
        """Take the next inputs; None at their end, or at what goes wrong with them."""
        if self._fault is not None:
            return None
        try:
            for inputs in self._inputs:
                return Prepared(self._plan, inputs)
        except Exception as fault:
            self._fault = fault
        return None

    def answered(self) -> None:
        """Note that the last step gave its answer."""
        self._current, self._following = self._following, None

    def leave(self) -> None:
        """Note that nobody waits for further answers: the model's next call drains them."""
        for call in (self._current, self._following):
            if call is not None and call.exchange is not None:
                call.exchange.is_wanted = False

    def _steps(
        self, current: Prepared, following: Prepared | None, deadline: float | None
    ) -> Steps[Any]:
        core = self._core
        core.check_usable()
        if current.exchange is None:
            yield from core.settle(deadline)
            current.exchange = core.begin_ahead(current.request, current.answer)
            core.put_ahead(current.exchange, deadline)
        ahead = None
        if following is not None and not current.exchange.done:
            later = None if deadline is None or self._wait is None else deadline + self._wait
            following.exchange = ahead = core.begin_ahead(following.request, following.answer)
            core.put_ahead(ahead, later)
        return (yield from core.carry(current.exchange, current.answer, deadline, ahead))


def answers(driver: BlockingDriver, sequence: Sequence) -> Iterator[Any]:
    """Give the answers of a sequence in order."""
    try:
        while (step := sequence.step()) is not None:
            answer = driver.exclusive(step)
            sequence.answered()
            yield answer
    finally:
        sequence.leave()
