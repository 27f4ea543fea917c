"""Coming back after the service went away: the session is opened anew, its models loaded again.

All of this is for connections that asked for it (``connect(reconnect=True)``). Nothing is computed
twice: what had been sent when the service went is lost, and its caller told so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from model_loader_wire.causes import Cause

from ._effects import Exclusive, Pause, Steps
from ._options import seconds
from ._renewal import SESSION_WENT
from ._session import Session
from ._values import Lost
from .errors import InvalidStateError, ModelLoaderError, NetworkError

if TYPE_CHECKING:
    from model_loader_wire.description import ModelDescription

    from ._model_core import ModelCore
    from ._values import Report

RECONNECT_SECONDS = 30.0
"""How long a call without a timeout waits for the service: longer than a usual restart takes."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
"""Between two attempts; each is twice as long as the one before, up to this."""

Result = TypeVar("Result")


class NeverBegun(NetworkError):
    """The service that answered is another one, and did not know the call's session."""


def until(timeout: float | None) -> float:
    """When the patience of a call with that timeout ends."""
    return time.monotonic() + (seconds(timeout, RECONNECT_SECONDS) or float("inf"))


def left_until(ends: float) -> float:
    """Return a timeout that is above zero: one that has passed ends an attempt at once."""
    return max(0.001, ends - time.monotonic())


def patiently(session: Session, attempt: Callable[[], Steps[Result]], ends: float) -> Steps[Result]:
    """Try until it is not the service's absence by which it fails, or the time has come.

    The first attempt is made in any case. Raises what the last one raised.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        session.check_usable()
        try:
            yield from session.renew()
            return (yield from attempt())
        except ModelLoaderError as error:
            left = ends - time.monotonic()
            if left <= 0 or not (yield from session.explains(error)):
                raise
        yield Pause(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def answered(session: Session, ask: Callable[[], Steps[Result]]) -> Steps[Result]:
    """Ask the service what may be asked twice, when it is there."""
    if session.open_again is None:
        return (yield from once(session, ask()))
    return (yield from patiently(session, ask, until(None)))


def once(session: Session, steps: Steps[Result]) -> Steps[Result]:
    """Do it for a connection that does not come back; raises NetworkError if the service went."""
    try:
        return (yield from steps)
    except ModelLoaderError as error:
        if isinstance(error, NetworkError) or not (yield from session.explains(error)):
            raise
    raise NetworkError(f"{SESSION_WENT.detail}: open a new one")


Make = Callable[[float | None], Exclusive]
"""Makes a call of what is left of its caller's timeout."""


def present(core: ModelCore, make: Make, timeout: float | None) -> Exclusive:
    """Do with a model what `make` gives, when the model is there, or is there again."""
    ends = until(timeout)
    usual = core.report.limits.compute_seconds if timeout is None else 0.0
    turn_ends = None if usual is None or ends == float("inf") else ends + usual
    return Exclusive(core.turn, _present(core, make, timeout, ends), turn_ends)


def _present(core: ModelCore, make: Make, timeout: float | None, ends: float) -> Steps[Any]:
    for _ in range(2):
        if (yield from bring_back(core, ends)) and timeout is not None:
            timeout = left_until(ends)
        try:
            return (yield from make(timeout).steps)
        except NeverBegun as error:
            message = error.message
        except InvalidStateError as error:
            # Another thread may have found out just now: a lost model is told before it is sent.
            if error.cause is not Cause.LOST or not core.is_away:
                raise
            message = error.message
    raise NetworkError(message)  # twice in one call: its caller may decide


def bring_back(core: ModelCore, ends: float) -> Steps[bool]:
    """Load a model again that went with its service; the caller holds its turn.

    Returns whether that was to be done. Raises NetworkError if the service does not come back by
    then: a later call tries again. InvalidStateError for a model that is lost for another reason.
    """
    if core.lost is None:
        if core.channel is None or not (core.channel.has_ended() or core.session.look()):
            return False
        error = yield from core.learn_verdict()
        try:
            if not core.is_away:
                raise error
        finally:
            del error  # else it and this frame would hold each other
    if not core.is_away:
        core.check_usable()
    yield from patiently(core.session, lambda: _load_again(core, ends), ends)
    return True


def _load_again(core: ModelCore, ends: float) -> Steps[None]:
    core.check_open()
    if core.recall is None:  # it was given up
        core.check_usable()
    else:
        yield from core.recall(core, min(left_until(ends), RECONNECT_SECONDS))


def check_same(core: ModelCore, description: ModelDescription, report: Report) -> None:
    """Hold a model that was loaded again against the one that went; raises InvalidStateError."""
    if report.sha256 != core.report.sha256:
        raise give_up(core, f"what it was loaded from is another model now: {report.sha256}")
    if description.signatures != core.description.signatures:
        raise give_up(core, "the one that came in its place has other inputs or outputs")


def give_up(core: ModelCore, why: str) -> InvalidStateError:
    """Lose for good a model that cannot come back; gives the error that says so."""
    core.recall = None
    core.lost = Lost(Cause.UNAVAILABLE, f"the service ended, and {why}")
    return InvalidStateError(
        f"the model was lost ({core.lost.reason}): {core.lost.detail}; load it again",
        cause=Cause.LOST,
    )
