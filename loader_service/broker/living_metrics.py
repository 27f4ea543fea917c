"""The metrics that are looked up when they are asked for: what lives now, and what it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from loader_service.broker.living import Living, Share
from loader_service.broker.metrics import PREFIX
from loader_service.broker.network_client import label_of

MOST_SHOWN = 100
"""Users, and origins, that have series of their own: those that hold most memory."""
OTHERS = "others"
"""The label of all the rest together."""

GAUGES = {
    "sessions": "Sessions that are open.",
    "models": "Models that are loaded.",
    "parked_models": "Of those, the ones that are parked: they have no process at present.",
    "loading": "Loads and inspections under way.",
    "worker_memory_bytes": "Memory of the workers of loaded models.",
}


@dataclass(frozen=True, slots=True)
class OfService:
    """What the service itself is and uses."""

    version: str
    runtime: str
    ready: bool
    draining: bool
    start_unix_seconds: float
    memory_bytes: int
    cpu_seconds: float
    open_descriptors: int
    descriptors_limit: int
    memory_limit_bytes: int
    """What all workers together may use."""
    workers: int
    events_left_out: int


class LivingMetrics(Collector):
    """Looks at what lives; without origins where others than the service's group may read it."""

    def __init__(
        self, living: Living, of_service: Callable[[], OfService], *, origins: bool
    ) -> None:
        self._living = living
        self._of_service = of_service
        self._origins = origins

    def collect(self) -> Iterable[Metric]:
        """Give every family, once."""
        yield from self._shares()
        yield from self._sums()
        yield from self._service()

    def _shares(self) -> Iterable[Metric]:
        labels = ("user", "origin") if self._origins else ("user",)
        families = {
            name: GaugeMetricFamily(f"{PREFIX}{name}", text, labels=labels)
            for name, text in GAUGES.items()
        }
        for key, share in self._bounded().items():
            families["sessions"].add_metric(key, share.sessions)
            families["models"].add_metric(key, share.models)
            families["parked_models"].add_metric(key, share.parked)
            families["loading"].add_metric(key, share.loading)
            families["worker_memory_bytes"].add_metric(key, share.memory_bytes)
        yield from families.values()

    def _bounded(self) -> dict[tuple[str, ...], Share]:
        """Put those beyond the bound into one."""
        held: dict[tuple[str, ...], Share]
        if self._origins:
            held = {
                (str(label_of(owner.principal)), owner.origin): share
                for owner, share in self._living.look().items()
            }
        else:
            held = {
                (str(label_of(user)),): share for user, share in self._living.of_users().items()
            }
        if len(held) <= MOST_SHOWN:
            return held
        order = sorted(held, key=lambda key: (-held[key].memory_bytes, key))
        rest = Share()
        for key in order[MOST_SHOWN:]:
            rest.add(held[key])
        shown = {key: held[key] for key in order[:MOST_SHOWN]}
        return shown | {(OTHERS,) * len(order[0]): rest}

    def _sums(self) -> Iterable[Metric]:
        cpu = CounterMetricFamily(
            f"{PREFIX}worker_cpu_seconds",
            "Processor time of workers, dead ones included.",
            labels=("user",),
        )
        _add_bounded(cpu, self._living.cpu_seconds())
        yield cpu
        calls = CounterMetricFamily(
            f"{PREFIX}reported_calls",
            "Computations, on direct channels too, as workers report them: their own word.",
            labels=("user",),
        )
        _add_bounded(calls, self._living.reported_calls())
        yield calls

    def _service(self) -> Iterable[Metric]:
        now = self._of_service()
        about = GaugeMetricFamily(
            f"{PREFIX}service_info",
            "Always one; which service it is.",
            labels=("version", "runtime"),
        )
        about.add_metric((now.version, now.runtime), 1)
        yield about
        for name, text, value in (
            ("ready", "Whether workers can be made.", now.ready),
            ("draining", "Whether no more loads are let in.", now.draining),
            (
                "start_time_seconds",
                "When the service started, in Unix time.",
                now.start_unix_seconds,
            ),
            ("workers", "Worker processes, those in waiting included.", now.workers),
            ("workers_memory_limit_bytes", "What all workers may use.", now.memory_limit_bytes),
            ("service_memory_bytes", "Resident memory of the service itself.", now.memory_bytes),
            ("open_descriptors", "Descriptors that the service has open.", now.open_descriptors),
            ("descriptors_limit", "Descriptors that it may open.", now.descriptors_limit),
        ):
            yield GaugeMetricFamily(f"{PREFIX}{name}", text, value=float(value))
        yield CounterMetricFamily(
            f"{PREFIX}service_cpu_seconds", "Processor time of the service itself.", now.cpu_seconds
        )
        yield CounterMetricFamily(
            f"{PREFIX}events_left_out",
            "Events that a follower did not read in time.",
            now.events_left_out,
        )


def _add_bounded(family: CounterMetricFamily, values: dict[int, float] | dict[int, int]) -> None:
    """Add a series for each user; those beyond the bound, by their number, are one together."""
    users = sorted(values)
    for user in users[:MOST_SHOWN]:
        family.add_metric((str(label_of(user)),), values[user])
    if rest := users[MOST_SHOWN:]:
        family.add_metric((OTHERS,), sum(values[user] for user in rest))
