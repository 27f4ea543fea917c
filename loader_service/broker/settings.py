"""What a broker is told when it starts: frozen values, no mechanism."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from loader_service.broker.tcp_settings import Credentials, Tcp
from loader_service.devices.catalogue import enabled_devices
from model_loader_wire import shared_limits
from model_loader_wire.limits import DEFAULT_LIMITS, Limits
from model_loader_wire.shared_limits import SharedLimits

PROTOCOL_VERSION = 1

RUNTIMES = ("auto", "litert", "tflite-runtime")
"""``auto``: the first of the others that is installed."""
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
"""``text``: lines for people; ``json``: one object a line."""
OPERATOR_PROFILES = ("standard", "hardened")
"""``standard``: all that the runtimes carry; ``hardened``: what LiteRT hardens for the web."""

ISOLATIONS = ("model", "origin")
"""``model``: each model has a worker of its own; ``origin``: the models of an origin share one."""
MODELS_PER_HOST = 240
"""Most models that one worker can hold: it is born with a channel for each."""
CHANNELS_PER_MODEL = 4
"""Channels of such a worker for each model that it may hold at a time, as far as they go: a channel
serves one model only, and no other can be given to a worker that is locked down."""
MOST_SHARES = 16
"""Users who may attach share equally what has no limit of its own, but as if they were no more than
these: of a group with a thousand members few are there at a time."""

POSITIVE = (
    "forks_per_zygote",
    "spawn_seconds",
    "start_seconds",
    "ping_seconds",
    "verdict_seconds",
    "memory_watch_seconds",
    "crash_loop_deaths",
    "crash_loop_seconds",
    "crash_loop_refusal_seconds",
    "stderr_bytes_per_second",
    "claim_seconds",
    "handshake_seconds",
    "message_seconds",
    "repository_seconds",
    "repository_bytes",
)
"""Settings that must be above zero."""
NOT_NEGATIVE = (
    "spare_seconds",
    "kept_model_bytes",
    "keep_alive_seconds",
    "parked_model_bytes",
    "memory_pressure_bytes",
    "compiled_cache_bytes",
    "leaving_seconds",
    "drain_seconds",
)
"""Settings that may be zero, too."""
MOST_SECONDS = 1_000_000
"""The longest of any time: eleven days. Its milliseconds fit into the C int that gRPC takes."""
MOST_CALLS = 2**30 - 1
"""Of one principal at a time: gRPC is told twice as many, in a C int."""
MOST_OF_ANYTHING = 2**53 - 1
"""The highest whole number below which a JSON number holds every other one."""
STDERR_BYTES_PER_SECOND = 256 << 10


OF_CERTIFICATES = ("dns:", "uri:", "email:", "cn:")
"""What the names of clients begin with that a certificate names: by a subject alternative name, or,
where it has none of any kind, by its subject's common name."""
OF_TOKENS = "token:"
"""What the names of clients begin with that have a token."""

SERVICE_POLICY = "service"
"""The name of the policy that the service's own values make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What some principals may do; every value holds as it is, whatever the service's own are."""

    name: str
    uids: frozenset[int] = frozenset()
    """Users whom it is for."""
    gids: frozenset[int] = frozenset()
    """Groups whose members it is for."""
    members: frozenset[int] = frozenset()
    """The users of those groups when they were last looked up."""
    certificates: frozenset[str] = frozenset()
    """Clients of the TCP port whom it is for, by what their certificates name; see `Settings`."""
    tokens: frozenset[str] = frozenset()
    """Clients of the TCP port whom it is for, by the names of their tokens."""
    limits: Limits = DEFAULT_LIMITS
    """Upper bounds for every load; a caller may lower them."""
    operators: str = "standard"
    """Which operators a model may use: a name in `OPERATOR_PROFILES`."""
    isolation: str = "model"
    """What has a process of its own: a name in `ISOLATIONS`."""
    embedder: bool = False
    """Whether its users speak for others, whose origins get ``hardened`` operators."""
    allowed_sha256: frozenset[bytes] | None = None
    """Only models with these digests load; None: any."""
    devices: tuple[str, ...] = ()
    """Devices that its users may have beside the CPU's, and what each needs of the sandbox: names
    as in ``devices.catalogue``, the first preferred where two are equal."""

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
        for name in DEFAULT_LIMITS.set_values():
            if getattr(self.limits, name) is None:
                raise ValueError(f"limit {name} needs a value")
        enabled_devices(self.devices)

    @property
    def models_per_process(self) -> int:
        """Models that one process may hold at a time."""
        return (self.limits.models_per_origin or 1) if self.isolation == "origin" else 1

    @property
    def channels_per_host(self) -> int:
        """Channels with which a worker for several models is born."""
        return min(CHANNELS_PER_MODEL * self.models_per_process, MODELS_PER_HOST)


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
    devices: tuple[str, ...] = ()
    """Devices for those for whom no policy was written; see `Policy`."""
    repository: str | None = None
    """The folder of the models that the operator approved, which are loaded by name; None: none."""
    repository_seconds: float = 5
    """Between two looks into that folder."""
    repository_bytes: int = 1 << 30
    """Bytes of those models together: each that serves is held in memory."""
    policies: tuple[Policy, ...] = ()
    """What holds for other users, of whom each may attach; see `policy_of`."""
    tcp: Tcp = field(default_factory=Tcp)
    """The port for programs of other machines; by default there is none."""
    credentials: Credentials | None = None
    """What its files held when the configuration was read."""
    log_level: str = "info"
    """The least important that is logged: a name in `LOG_LEVELS`."""
    log_format: str = "text"
    """How it is logged: a name in `LOG_FORMATS`."""
    admin: bool = True
    """Whether root and the service's own user can see and steer it by a socket for them alone."""
    metrics: bool = False
    """Whether metrics are served on a socket in the directory, for `metrics_gid`."""
    metrics_gid: int | None = None
    """The group that may read that socket; None: the service's own."""
    metrics_port: int | None = None
    """A loopback port where metrics are served, too, for every program of this machine; they do not
    tell origins there."""
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
    keep_alive_seconds: float = 0
    """A model that was not called for so long is parked: its process ends, and the next call brings
    it back. 0: none is."""
    memory_pressure_bytes: int = 0
    """With less memory left for workers than that, the models that were called longest ago are
    parked, one at each look (``ping_seconds``); 0: none is."""
    parked_model_bytes: int = 256 << 20
    """Bytes of models of one principal that are held so that they can be parked; a model for which
    there is no room is never parked."""
    compiled_cache_bytes: int = 256 << 20
    """Bytes of compiled partitions that are kept for later loads; a quarter at most of one origin,
    an eighth in one piece. 0 keeps none."""
    compiled_cache_directory: str | None = None
    """Where they are kept, a folder of the service's own; None: in memory, as long as it runs."""
    leaving_seconds: float = 0.5
    """How long a load above the number of models waits for one to be gone."""
    message_seconds: float = 30
    """Longest wait for the one message of a call."""
    handshake_seconds: float = 5
    """From connecting to the first message on the attach socket."""
    drain_seconds: float = 10
    """How long computations may go on after SIGTERM or SIGINT; 0: not at all."""
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
        if self.runtime not in RUNTIMES:
            raise ValueError(f"no runtime is called {self.runtime!r}; there are {list(RUNTIMES)}")
        if self.log_level not in LOG_LEVELS:
            raise ValueError(f"there is no log level {self.log_level!r}")
        if self.log_format not in LOG_FORMATS:
            raise ValueError(f"there is no log format {self.log_format!r}")
        self.own_policy()
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above zero, not {getattr(self, name)}")
        for name in NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        for name in (*POSITIVE, *NOT_NEGATIVE):
            most = MOST_SECONDS if name.endswith("_seconds") else MOST_OF_ANYTHING
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most:,}, not {getattr(self, name)}")
        if self.calls_at_a_time > MOST_CALLS:
            raise ValueError(
                f"calls_at_a_time must be at most {MOST_CALLS:,}, not {self.calls_at_a_time}"
            )
        if self.metrics_port is not None and not 0 < self.metrics_port < 65536:
            raise ValueError(f"metrics_port must be 1 to 65535, not {self.metrics_port}")
        shared_limits.check(self)

    @property
    def parks(self) -> bool:
        """Whether models are ever parked."""
        return bool(self.keep_alive_seconds or self.memory_pressure_bytes)

    @property
    def users(self) -> frozenset[int]:
        """Who may attach: the service's own user, and those whom the operator named."""
        of_policies = (policy.uids | policy.members for policy in self.policies)
        own = frozenset({os.geteuid()}) | self.allowed_uids | self.embedder_uids
        return own.union(*of_policies)

    @property
    def clients(self) -> frozenset[str]:
        """Who may come by TCP: the names of certificates (``dns:…``) and tokens (``token:…``)."""
        return frozenset[str]().union(*map(clients_of, self.policies))

    @property
    def shares(self) -> int:
        """Into how many parts is cut what the users and clients who may attach share equally."""
        return min(len(self.users) + len(self.clients), MOST_SHARES)

    def policy_of(self, uid: int) -> Policy | None:
        """Return the policy that holds for a user, or None for one who may not attach.

        Who is named himself is not taken for a member of a group; of two policies the first holds.
        """
        for policy in self.policies:
            if uid in policy.uids:
                return policy
        if uid in self.allowed_uids or uid in self.embedder_uids:
            return self.own_policy(embedder=uid in self.embedder_uids)
        for policy in self.policies:
            if uid in policy.members:
                return policy
        return self.own_policy() if uid == os.geteuid() else None

    def policy_of_client(self, name: str) -> Policy | None:
        """Return what holds for a client of the TCP port, or None for one who may not come in."""
        return next((policy for policy in self.policies if name in clients_of(policy)), None)

    def own_policy(self, *, embedder: bool = False) -> Policy:
        """Return what holds for those for whom no policy was written."""
        return Policy(
            name=SERVICE_POLICY,
            limits=self.limits,
            operators=self.operators,
            isolation=self.isolation,
            embedder=embedder,
            devices=self.devices,
        )


def clients_of(policy: Policy) -> frozenset[str]:
    """Return the clients of the TCP port whom a policy is for, by their names."""
    return policy.certificates | {f"{OF_TOKENS}{name}" for name in policy.tokens}


def complete(limits: Limits) -> Limits:
    """Fill what `limits` leaves open with the defaults."""
    return Limits.from_values({**DEFAULT_LIMITS.set_values(), **limits.set_values()})
