"""A session that can go, and be opened anew: whether it has gone, and one opening at a time."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from model_loader_wire.causes import Cause, Failure
from model_loader_wire.limits import Limits
from model_loader_wire.v1 import model_loader_pb2 as pb

from . import _fork
from ._attach import AttachConnection
from ._effects import Call, Exclusive, Forget, Steps
from ._values import Lost
from .errors import ModelLoaderError, NetworkError

if TYPE_CHECKING:
    from ._embedded import EmbeddedBroker
    from ._session import Closable, Session

CALL_SECONDS = 10.0
"""A short call that takes longer than this means that the service hangs."""
RENEWAL_SECONDS = 60.0
"""No opening of a session takes as long."""
MODELS_WENT = Failure(
    Cause.UNAVAILABLE, "the Model Loader service ended, and the model with it", model_lost=True
)
SESSION_WENT = Lost(
    Cause.UNAVAILABLE, "the Model Loader service ended, and the context's models with it"
)
KNOWN_NO_MORE = frozenset({Cause.CLOSED, Cause.FORBIDDEN, Cause.CANCELLED})
"""What a service says of a session that it ends, has ended, or never had."""


class RenewableSession:
    """A session as far as it can go and come back; how it is opened is given by who opened it."""

    address: str
    attach: AttachConnection | None
    broker: EmbeddedBroker | None
    token: str
    origin: str
    service_version: str
    limits: Limits
    layers: tuple[str, ...]
    closed: bool
    marks_loaded: set[int]
    models_loaded: weakref.WeakSet[Closable]

    def __init__(self) -> None:
        self.gone = False
        """Whether the service is known to have ended the session, or itself."""
        self.open_again: Callable[[], Steps[Session]] | None = None
        """Opens another session at the same place, with the same checks, where that is wanted."""
        self.turn: Any = None
        """The driver's lock: one opening at a time. Set by the public object."""
        self._latest: RenewableSession | None = None
        self._first: weakref.ref[RenewableSession] | None = None
        self._generation = _fork.current

    @property
    def latest(self) -> RenewableSession:
        """What was opened last: itself, or another one in its place."""
        return self._latest or self

    def heir_of_events(self) -> RenewableSession | None:
        """Whom an event of this session is for; None for one whose place another has taken."""
        first = self if self._first is None else self._first()
        return first if first is not None and first.latest is self else None

    def check_usable(self) -> None:
        """Raise InvalidStateError after a close or in a forked child."""
        raise NotImplementedError

    def look(self) -> bool:
        """Whether it is known, without asking, that the session has gone."""
        if self.attach is not None and not self.closed and self._generation == _fork.current:
            self.gone = self.gone or self.attach.has_ended()
        return self.gone

    def is_gone(self) -> Steps[bool]:
        """Whether the service has ended the session, or itself."""
        if self.closed or self._generation != _fork.current:
            return self.gone
        if not self.look() and self.attach is None:
            latest = self.latest
            try:
                yield Call("Formats", pb.FormatsRequest(), CALL_SECONDS)
            except ModelLoaderError as error:
                if self.latest is latest:
                    self.gone = isinstance(error, NetworkError) or error.cause in KNOWN_NO_MORE
        return self.gone

    @property
    def loss(self) -> Lost | None:
        """What a session that is known to have gone is to who asks."""
        return SESSION_WENT if self.gone and not self.closed else None

    def find_loss(self) -> Steps[Lost | None]:
        """Look whether the session has gone."""
        yield from self.is_gone()
        return self.loss

    def explains(self, error: ModelLoaderError) -> Steps[bool]:
        """Whether a call failed because the service is not there, or knows the session no more."""
        if isinstance(error, NetworkError):
            return True
        return error.cause in KNOWN_NO_MORE and not self.closed and (yield from self.is_gone())

    def renew(self) -> Steps[None]:
        """Open the session anew if it has gone and that is wanted; raises as `open_session`."""
        if self.open_again is not None and (yield from self.is_gone()):
            deadline = time.monotonic() + RENEWAL_SECONDS
            yield Exclusive(self.turn, self._renew(self.latest), deadline)

    def _renew(self, gone: RenewableSession) -> Steps[None]:
        self.check_usable()
        if self.open_again is None or self.latest is not gone:  # another call was quicker
            return
        yield Forget()
        self._become((yield from self.open_again()))

    def _become(self, opened: Session) -> None:
        """Go on as another session, which has none of the models."""
        left = self.attach
        opened._first = weakref.ref(self)
        self._latest = opened
        self.address, self.attach, self.broker = opened.address, opened.attach, opened.broker
        self.token, self.origin = opened.token, opened.origin
        self.service_version, self.limits = opened.service_version, opened.limits
        self.layers = opened.layers
        self.marks_loaded = set()
        self.gone = False
        for model in list(self.models_loaded):
            model.told_lost(MODELS_WENT)
        if left is not None:
            left.close()
