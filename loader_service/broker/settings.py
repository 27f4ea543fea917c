"""What a broker is told when it starts: frozen values, no mechanism."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from model_loader_wire import shared_limits
from model_loader_wire.limits import DEFAULT_LIMITS, Limits
from model_loader_wire.shared_limits import SharedLimits

PROTOCOL_VERSION = 1

OPERATOR_PROFILES = ("standard", "hardened")
"""``standard``: all that the runtimes carry; ``hardened``: what LiteRT hardens for the web."""

ISOLATIONS = ("model", "origin")
"""``model``: each model has a worker of its own; ``origin``: the models of an origin share one."""
MODELS_PER_HOST = 240
"""Most models that one worker can hold: it is born with a channel for each."""
CHANNELS_PER_MODEL = 4
"""Channels of such a worker for each model that it may hold at a time, as far as they go: a channel
serves one model only, and no other can be given to a worker that is locked down."""

POSITIVE = (
    "crash_loop_deaths",
    "crash_loop_seconds",
    "crash_loop_refusal_seconds",
    "stderr_bytes_per_second",
    "claim_seconds",
    "handshake_seconds",
    "message_seconds",
)
"""Settings that must be above zero."""
STDERR_BYTES_PER_SECOND = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(SharedLimits):
    """The broker's policy; the unit is in each name."""

    directory: str
    """Where the sockets live."""
    limits: Limits = DEFAULT_LIMITS
    """Upper bounds for every load; a caller may lower them."""
    runtime: str = "auto"
    """``"litert"``, ``"tflite-runtime"``, or ``"auto"``: the first of them that is installed."""
    operators: str = "standard"
    """Which operators a model may use: a name in `OPERATOR_PROFILES`. Models that embedders load
    for others get ``hardened`` in any case."""
    isolation: str = "model"
    """What has a process of its own: a name in `ISOLATIONS`."""
    allowed_uids: frozenset[int] = field(default_factory=frozenset)
    """Users who may attach, beside the broker's own."""
    embedder_uids: frozenset[int] = field(default_factory=frozenset)
    """Users who speak for others, whose origins get ``hardened`` operators; they may attach, too.
    See ``principals``."""
    forks_per_zygote: int = 200
    """A zygote is replaced after so many workers, because all of them share its address layout."""
    spawn_seconds: float = 10
    """Longest wait for a worker to be born and locked down."""
    start_seconds: float = 30
    """Longest wait for a zygote to be warm."""
    ping_seconds: float = 1
    """Between two looks at whether a worker still answers."""
    verdict_seconds: float = 2
    """Longest wait for a dying process to be dead."""
    claim_seconds: float = 60
    """A model whose channel nobody asked for by then is closed, an offer that no load took by
    then is dropped."""
    spare_seconds: float = 30
    """How long a process waits, after a load, for the next load of its origin; 0: none does."""
    kept_model_bytes: int = 256 << 20
    """Bytes of loaded models of one principal that are kept while it has a session, so that the
    same origin need not send them again; 0 keeps none."""
    leaving_seconds: float = 0.5
    """How long a load above the number of models waits for one to be gone."""
    message_seconds: float = 30
    """Longest wait for the one message of a call."""
    handshake_seconds: float = 5
    """From connecting to the first message on the attach socket."""
    memory_watch_seconds: float = 0.1
    """Between two looks at a worker's resident memory where no cgroup holds it."""

    crash_loop_deaths: int = 5
    """A model whose workers died so often within ``crash_loop_seconds``, by its own doing, is
    refused to its origin."""
    crash_loop_seconds: float = 60
    """How long a death counts."""
    crash_loop_refusal_seconds: float = 30
    """From the last of those deaths to the first load that is let through again."""

    stderr_bytes_per_second: int = STDERR_BYTES_PER_SECOND
    """How much is read of what one worker writes on stderr; one that writes more waits."""

    def __post_init__(self) -> None:
        """Refuse what names no profile, cannot be, or leaves a limit open; raises ValueError."""
        if self.operators not in OPERATOR_PROFILES:
            raise ValueError(f"there is no profile of operators {self.operators!r}")
        if self.isolation not in ISOLATIONS:
            raise ValueError(f"there is no isolation {self.isolation!r}")
        if self.models_per_process > MODELS_PER_HOST:
            raise ValueError(
                f"with isolation 'origin' models_per_origin is at most {MODELS_PER_HOST}, "
                f"not {self.models_per_process}"
            )
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above zero, not {getattr(self, name)}")
        if self.spare_seconds < 0:
            raise ValueError(f"spare_seconds must not be negative, not {self.spare_seconds}")
        if self.kept_model_bytes < 0:
            raise ValueError(f"kept_model_bytes must not be negative, not {self.kept_model_bytes}")
        shared_limits.check(self)
        for name in DEFAULT_LIMITS.set_values():
            if getattr(self.limits, name) is None:
                raise ValueError(f"limit {name} needs a value")

    @property
    def users(self) -> frozenset[int]:
        """Who may attach: the service's own user, and those whom the operator named."""
        return frozenset({os.geteuid()}) | self.allowed_uids | self.embedder_uids

    @property
    def models_per_process(self) -> int:
        """Models that one process may hold at a time."""
        return (self.limits.models_per_origin or 1) if self.isolation == "origin" else 1

    @property
    def channels_per_host(self) -> int:
        """Channels with which a worker for several models is born."""
        return min(CHANNELS_PER_MODEL * self.models_per_process, MODELS_PER_HOST)


def complete(limits: Limits) -> Limits:
    """Fill what `limits` leaves open with the defaults."""
    return Limits.from_values({**DEFAULT_LIMITS.set_values(), **limits.set_values()})
