"""What becomes of a model whose worker ends: the loss, its reason, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model_loader_wire.causes import Cause, Failure
from model_loader_wire.exchange import Exchange
from model_loader_wire.v1 import model_loader_pb2 as pb

from . import _fork
from ._effects import Call, Steps
from ._messages import failure_of
from ._renewal import CALL_SECONDS, KNOWN_NO_MORE, MODELS_WENT
from ._session import Session
from ._values import Lost
from .errors import InvalidStateError, ModelLoaderError, TimeoutError, from_failure

Recall = Callable[[Any, float | None], Steps[None]]
"""Loads a model (a ``ModelCore``) again, into the object itself, within so many seconds."""
VERDICT_SECONDS = 2.0
"""How long the service may take to find out why a worker ended."""


def _with_the_model(error: ModelLoaderError) -> ModelLoaderError:
    """Say in an error that the model is lost with it."""
    error.model_lost = True
    return error


class LosableModel:
    """A model as far as it can be lost; the service alone judges why."""

    def __init__(self, session: Session, model_id: str) -> None:
        self.session = session
        self.model_id = model_id
        self.channel: Any = None
        self.lost: Lost | None = None
        self.recall: Recall | None = None
        """Loads the model again if its service went away, where that is wanted."""
        self.closed = False
        self.on_end: Callable[[], None] | None = None
        self._generation = _fork.current
        self._pending: list[tuple[Exchange, float | None]] = []

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

    def check_open(self) -> None:
        """Raise InvalidStateError for a model that is closed, or its connection."""
        if self.closed:
            raise InvalidStateError("the model was closed")
        self.session.check_usable()

    @property
    def is_away(self) -> bool:
        """Whether the model went with its service, and may come back."""
        lost = self.lost
        return lost is not None and lost.reason is Cause.UNAVAILABLE and self.recall is not None

    def check_lost(self) -> Steps[Lost | None]:
        """Look whether an idle model's worker has ended, and ask why."""
        usable = self.lost is None and not self.closed and self._generation == _fork.current
        if not usable or self.session.closed:
            return self.lost
        if self.channel is not None:
            if self.channel.has_ended():
                yield from self.learn_verdict()
        else:  # relayed: there is nothing to look at here
            model_id = self.model_id
            try:
                request = pb.GetModelRequest(model_id=model_id)
                state: pb.ModelState = yield Call("GetModel", request, CALL_SECONDS)
                if state.lost:
                    yield from self.learn_verdict()
            except ModelLoaderError as error:
                yield from self._lose_by_error(error, model_id)
        return self.lost

    def told_lost(self, failure: Failure) -> None:
        """Take in the service's word that the worker has ended."""
        if not self.closed:
            self._lose(Lost(failure.cause, failure.message))

    def end_with_program(self) -> None:
        """Close at the program's exit, without a word to the service, which ends its worker."""
        self.closed = True
        if self.channel is not None:
            self.channel.stop()

    def noticed_end(self) -> None:
        """Told by an asyncio driver when the idle channel ended."""
        if self.lost is None and not self.closed and self.on_end is not None:
            self.on_end()

    def find_verdict(self) -> Steps[None]:
        """Learn why the worker ended, unless that is known."""
        if self.lost is None and not self.closed:
            yield from self.learn_verdict()

    def _lose_by_error(self, error: ModelLoaderError, model_id: str) -> Steps[ModelLoaderError]:
        """Note what a call about the model failed with; gives the error that tells it best."""
        error = yield from self._explained(error)
        if self.model_id == model_id:  # else it has come back meanwhile
            self._lose(Lost(error.cause, error.message))
        return _with_the_model(error)

    def _explained(self, error: ModelLoaderError) -> Steps[ModelLoaderError]:
        """Give the error that says that the service went away, if it is behind this one.

        A service that knows the session no more is another one, or has ended it.
        """
        known_lost = error.cause is Cause.LOST and self.lost is not None
        if not (known_lost or error.cause in KNOWN_NO_MORE) or self.session.closed:
            return error
        if self.lost is None and (yield from self.session.is_gone()):
            self._lose(Lost(MODELS_WENT.cause, MODELS_WENT.message))
        if self.lost is None:
            return error
        return _with_the_model(from_failure(Failure(self.lost.reason, self.lost.detail)))

    def _lose_by_deadline(self, what: str) -> Steps[None]:
        detail = f"the deadline passed before {what} ended, so the worker was ended"
        self._lose(Lost(Cause.TIMEOUT, detail))
        yield from self._tell_closed(deadline_passed=True)
        raise _with_the_model(TimeoutError(f"{detail}; the model is lost"))

    def _lose_by_ending(self) -> Steps[None]:
        if self.closed:
            raise InvalidStateError("the model was closed during the call")
        raise (yield from self.learn_verdict())  # named, it and this frame would hold each other

    def _lose_by_violation(self, fault: Exception) -> Steps[None]:
        failure = Failure(Cause.PROTOCOL_VIOLATION, f"the worker broke the protocol: {fault}")
        self._lose(Lost(failure.cause, failure.message))
        yield from self._tell_closed(deadline_passed=False)
        raise _with_the_model(from_failure(failure))

    def learn_verdict(self) -> Steps[ModelLoaderError]:
        """Ask the judge why the worker ended, and note it; gives the error for a waiting caller."""
        model_id = self.model_id
        request = pb.GetModelRequest(model_id=model_id, wait_seconds=VERDICT_SECONDS)
        try:
            state: pb.ModelState = yield Call("GetModel", request, VERDICT_SECONDS + CALL_SECONDS)
        except ModelLoaderError as error:
            return (yield from self._lose_by_error(error, model_id))
        if state.lost:
            failure = failure_of(state.detail)
        else:
            failure = Failure(
                Cause.PROTOCOL_VIOLATION, "the worker closed its channel without ending"
            )
        if self.model_id != model_id:  # it has come back meanwhile
            return _with_the_model(from_failure(failure))
        self._lose(Lost(failure.cause, failure.message))
        if not state.lost:
            yield from self._tell_closed(deadline_passed=False)
        return _with_the_model(from_failure(failure))

    def _lose(self, lost: Lost) -> None:
        if self.lost is None:
            self.lost = lost
        self._pending = []

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
