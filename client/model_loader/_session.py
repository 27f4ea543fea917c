"""The core of a connection: a session that a service has opened."""

from __future__ import annotations

import atexit
import time
import weakref
from contextlib import suppress
from typing import Protocol

from model_loader_wire.causes import Failure, printable
from model_loader_wire.limits import Limits
from model_loader_wire.v1 import model_loader_pb2 as pb

from . import _embedded, _fork
from ._attach import AttachConnection
from ._effects import Call, Exclusive, HangUp, InThread, Steps
from ._messages import NAME_LENGTH, failure_of, formats_from, limits_from, row_from
from ._renewal import CALL_SECONDS, MODELS_WENT, RENEWAL_SECONDS, RenewableSession
from ._values import Format, ModelRow, NamedModel
from .errors import InvalidStateError, TimeoutError


class Closable(Protocol):
    """A model, as its session sees it."""

    model_id: str

    def close(self) -> Steps[None]:
        """End it."""

    def end_with_program(self) -> None:
        """Let calls in other threads end because the program does."""

    def told_lost(self, failure: Failure) -> None:
        """Take in the service's word that its worker has ended."""


class Session(RenewableSession):
    """An open session: what the service said, and what must be held to keep it open."""

    def __init__(
        self,
        opened: pb.Session,
        address: str,
        attach: AttachConnection | None,
        broker: _embedded.EmbeddedBroker | None,
    ) -> None:
        super().__init__()
        self.address = address
        self.attach = attach
        self.broker = broker
        self.token = opened.token.hex()
        self.origin = printable(opened.origin, NAME_LENGTH * 4)
        self.service_version = printable(opened.service_version, NAME_LENGTH)
        self.limits: Limits = limits_from(opened.limits)
        self.layers = tuple(printable(layer, NAME_LENGTH) for layer in opened.layers[:NAME_LENGTH])
        self.closed = False
        self.marks_loaded: set[int] = set()
        """The marks of the models that were loaded (see ``Source``)."""
        self.models_loaded: weakref.WeakSet[Closable] = weakref.WeakSet()
        _sessions.add(self)

    @property
    def relayed(self) -> bool:
        """Whether computations go through the broker."""
        return self.attach is None

    def check_usable(self) -> None:
        """Raise InvalidStateError after a close or in a forked child."""
        _fork.check(self._generation, "connection")
        if self.closed:
            raise InvalidStateError("the connection was closed")

    def formats(self) -> Steps[tuple[Format, ...]]:
        """Ask which formats can be loaded."""
        self.check_usable()
        reply = yield Call("Formats", pb.FormatsRequest(), CALL_SECONDS)
        return formats_from(reply)

    def models(self) -> Steps[tuple[ModelRow, ...]]:
        """Ask for all models of the caller's principal."""
        self.check_usable()
        reply = yield Call("ListModels", pb.ListModelsRequest(), CALL_SECONDS)
        return tuple(row_from(row) for row in reply.models)

    def named_models(self) -> Steps[tuple[NamedModel, ...]]:
        """Ask for the models that can be loaded by name."""
        self.check_usable()
        reply = yield Call("ListNamedModels", pb.ListNamedModelsRequest(), CALL_SECONDS)
        return tuple(
            NamedModel(printable(row.name), row.version, row.sha256.hex(), row.size)
            for row in reply.models
        )

    def told(self, event: pb.SessionEvent | None) -> None:
        """Take in an event of this session, or the end of the events (None)."""
        session = self.heir_of_events()
        if session is None or session.closed:
            return
        session.gone = session.gone or event is None
        for model in list(session.models_loaded):
            if event is None:
                model.told_lost(MODELS_WENT)
            elif event.lost.model_id == model.model_id:
                model.told_lost(failure_of(event.lost.detail))

    def end_with_program(self) -> None:
        """Let what other threads still do here end with InvalidStateError."""
        if not self.closed and self._generation == _fork.current:
            for model in list(self.models_loaded):
                model.end_with_program()
            self.closed = True

    def close(self, owned_broker: _embedded.EmbeddedBroker | None) -> Steps[None]:
        """End the session and its models. Does nothing the second time."""
        if self.closed or self._generation != _fork.current:
            return
        for model in list(self.models_loaded):
            yield from model.close()
        self.closed = True
        if self.open_again is not None:
            with suppress(TimeoutError):  # no opening begins any more, but one may be under way
                yield Exclusive(self.turn, _nothing(), time.monotonic() + RENEWAL_SECONDS)
        yield HangUp()
        if self.attach is not None:
            self.attach.close()
        if owned_broker is not None:
            yield InThread(owned_broker.close)


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _end_all() -> None:
    """Close the sessions before `_embedded` ends their services: what is registered last is first.

    A thread that still computes then learns that its program ends, not that a service is gone.
    """
    for session in list(_sessions):
        session.end_with_program()


atexit.register(_end_all)


def _nothing() -> Steps[None]:
    return
    yield  # a generator like its kin: see Exclusive
