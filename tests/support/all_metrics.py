"""Every metric of a broker, as it would be served."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric

from loader_service.broker.groups import Owner
from loader_service.broker.living import Living, Share
from loader_service.broker.living_metrics import LivingMetrics, OfService
from loader_service.broker.metrics import Metrics
from loader_service.broker.principals import Principals
from loader_service.broker.sessions import Sessions
from loader_service.broker.settings import Settings

OWNER = Owner(1000, "an origin")
SETTINGS = Settings(directory="")


class LivingOf(Living):
    """Finds what a test says that lives."""

    def __init__(self, shares: dict[Owner, Share]) -> None:
        super().__init__(Sessions(SETTINGS, Principals(SETTINGS)))
        self.found = shares

    def look(self) -> dict[Owner, Share]:
        """Return it."""
        return self.found


def of_service() -> OfService:
    """Facts of some service."""
    return OfService(
        version="1",
        runtime="litert 2",
        ready=True,
        draining=False,
        start_unix_seconds=1e9,
        memory_bytes=5,
        cpu_seconds=2.5,
        open_descriptors=7,
        descriptors_limit=1024,
        memory_limit_bytes=1 << 30,
        workers=3,
        events_left_out=0,
    )


def registry(shares: dict[Owner, Share], *, origins: bool) -> CollectorRegistry:
    """Put all metrics together, as `Measuring` does."""
    result = CollectorRegistry()
    result.register(Metrics().registry)
    result.register(LivingMetrics(LivingOf(shares), of_service, origins=origins))
    return result


def described() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Yield the name, type, labels and text of each metric."""
    counts = Metrics()
    living = LivingMetrics(LivingOf({OWNER: Share(sessions=1)}), of_service, origins=True)
    for family in [*counts.registry.collect(), *living.collect()]:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = counts.labels.get(family.name) or _labels_of(family)
        yield name, family.type, labels, family.documentation


def _labels_of(family: Metric) -> tuple[str, ...]:
    return tuple(next((sample.labels for sample in family.samples), {}))
