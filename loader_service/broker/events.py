"""What happens in a broker, as values: one class for each kind of event.

Events hold names, numbers and causes, and nothing of a model's or a tensor's content: no labels of
files, no bytes, and no words that a worker can have said. ``event_stream`` carries them to their
readers: the log, the metrics, and those who follow the events.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from typing import ClassVar

from loader_service.broker.control import WORKER_MAY_SAY
from loader_service.broker.groups import Owner
from loader_service.broker.known_limits import KNOWN_LIMITS
from loader_service.broker.network_client import NetworkClient, label_of
from model_loader_wire.causes import Failure

Fact = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened."""

    kind: ClassVar[str]
    level: ClassVar[int] = logging.INFO
    """How much it matters, as ``logging`` counts; what is below INFO is not kept for later."""
    by_strangers: ClassVar[bool] = False
    """Whether those who are not let in cause it, as often as they like."""

    def facts(self) -> dict[str, Fact]:
        """Return what is known of it, by name; the unit is in the name."""
        facts: dict[str, Fact] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Owner):
                facts |= {"user": label_of(value.principal), "origin": value.origin}
            elif isinstance(value, Failure):
                facts |= _facts_of(value)
            elif isinstance(value, NetworkClient):
                facts[field.name] = value.name
            elif value is not None:
                facts[field.name] = value
        return facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """Something that ended badly."""

    failure: Failure
    """Without what may be the model's own words."""

    def __post_init__(self) -> None:
        """Keep what the service itself knows."""
        object.__setattr__(self, "failure", _without_foreign_words(self.failure))


def _without_foreign_words(failure: Failure) -> Failure:
    """Leave out last words, and the message and limit where a worker can have said them."""
    limit = failure.limit if failure.limit in KNOWN_LIMITS else ""
    message = "" if failure.cause in WORKER_MAY_SAY else failure.message
    return replace(failure, limit=limit, message=message, last_words="")


def _facts_of(failure: Failure) -> dict[str, Fact]:
    facts: dict[str, Fact] = {"cause": failure.cause.value}
    if failure.limit:
        facts |= {"limit": failure.limit, "value": failure.value, "maximum": failure.maximum}
    if failure.message:
        facts["message"] = failure.message
    return facts


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceReady(Event):
    """Workers can be made, and clients attach."""

    kind = "service-ready"
    version: str
    runtime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEnding(Event):
    """Every session and worker is being ended."""

    kind = "service-ending"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadinessChanged(Event):
    """Workers can be made again, or cannot be any more."""

    kind = "readiness-changed"
    level = logging.WARNING
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainBegan(Event):
    """No more loads are let in; by whom it was asked for, and how long models may still live."""

    kind = "drain-began"
    by: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainEnded(Event):
    """The drain was called off, or is over."""

    kind = "drain-ended"
    by: str
    models_left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChanged(Event):
    """Settings have other values from now on: each with its old and its new one."""

    kind = "settings-changed"
    by: str
    changes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedByAdministrator(Event):
    """Models were ended on request."""

    kind = "ended-by-administrator"
    level = logging.WARNING
    by: str
    target: str
    models: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteRenewed(Event):
    """A user's process that makes workers gave way to a new one."""

    kind = "zygote-renewed"
    user: int
    forks: int
    reason: str
    """``used-up`` or ``broken``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened(Event):
    """A client has a session."""

    kind = "session-opened"
    level = logging.DEBUG
    owner: Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClosed(Event):
    """A session is over, with so many models."""

    kind = "session-closed"
    level = logging.DEBUG
    owner: Owner
    models: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBegan(Event):
    """A load or an inspection was let in."""

    kind = "load-began"
    level = logging.DEBUG
    owner: Owner
    task: str
    """``load`` or ``inspect``."""
    announced_bytes: int
    """0 where the size is not known beforehand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReady(Event):
    """A model can compute, or a file was inspected."""

    kind = "load-ready"
    owner: Owner
    task: str
    model_id: str | None = None
    """None for an inspection."""
    sha256: str
    model_bytes: int
    worker_pid: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFailed(Failed):
    """A load or an inspection was refused, or came to nothing; also by the crash-loop guard."""

    kind = "load-failed"
    owner: Owner
    task: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelClosed(Event):
    """A model was closed by its owner, or with its session."""

    kind = "model-closed"
    owner: Owner
    model_id: str
    worker_pid: int
    reported_calls: int
    """The worker's own word."""
    lived_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLost(Failed):
    """A model was lost."""

    kind = "model-lost"
    level = logging.WARNING
    owner: Owner
    model_id: str
    sha256: str
    worker_pid: int
    reported_calls: int
    """The worker's own word."""
    lived_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParked(Event):
    """A model's process has ended for now; the next call brings the model back."""

    kind = "model-parked"
    owner: Owner
    model_id: str
    worker_pid: int
    reported_calls: int
    """The worker's own word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReturned(Event):
    """A parked model has a process again, because it was called."""

    kind = "model-returned"
    owner: Owner
    model_id: str
    worker_pid: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnFailed(Failed):
    """A parked model did not come back; it stays parked if a limit is the reason, else is lost."""

    kind = "return-failed"
    level = logging.WARNING
    owner: Owner
    model_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnded(Event):
    """A process is dead, whatever it was for."""

    kind = "worker-ended"
    level = logging.DEBUG
    owner: Owner
    cause: str
    worker_pid: int
    cpu_seconds: float
    """By the kernel's count, of its whole life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed(Event):
    """The service relayed a computation. Calls on direct channels do not pass the service."""

    kind = "computed"
    level = logging.DEBUG
    owner: Owner
    model_id: str
    input_bytes: int
    output_bytes: int
    send_seconds: float
    """From the first to the last byte of the request that the channel took."""
    queue_seconds: float
    """Waiting for the calls before it, and for the worker."""
    compute_seconds: float
    """By the worker's own word, but never more than there was."""
    reply_seconds: float
    """From the first to the last byte of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRefused(Failed):
    """A call other than a load was answered with a failure."""

    kind = "call-refused"
    level = logging.DEBUG
    user: int
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRefused(Failed):
    """Somebody was turned away at the attach socket, or at the TCP port."""

    kind = "connection-refused"
    by_strangers = True
    user: int
    peer: str | None = None
    """The address from which somebody came to the TCP port."""


KINDS: tuple[type[Event], ...] = (
    *(ServiceReady, ReadinessChanged, DrainBegan, DrainEnded, ServiceEnding),
    *(SessionOpened, SessionClosed, ConnectionRefused),
    *(LoadBegan, LoadReady, LoadFailed, ModelClosed, ModelLost),
    *(ModelParked, ModelReturned, ReturnFailed),
    *(Computed, CallRefused),
    *(WorkerEnded, ZygoteRenewed),
    *(SettingsChanged, EndedByAdministrator),
)
"""All of them, as the documentation shows them."""


def limit_hit(event: Event) -> str:
    """Return the limit that an event shows to be reached, or "".

    A limit that a call ran into by losing its model is told by the model's own event.
    """
    if not isinstance(event, Failed):
        return ""
    if isinstance(event, CallRefused) and event.failure.model_lost:
        return ""
    return event.failure.limit
