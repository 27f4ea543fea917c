"""The metrics put together: what is counted, what is looked up, and where both can be read."""

from __future__ import annotations

import os

import psutil
from prometheus_client import CollectorRegistry

from loader_service.broker import descriptors
from loader_service.broker.event_stream import EventStream
from loader_service.broker.exposition import Exposition
from loader_service.broker.living import Living
from loader_service.broker.living_metrics import LivingMetrics, OfService
from loader_service.broker.memory import own_bytes
from loader_service.broker.metrics import Metrics
from loader_service.broker.servicer import VERSION
from loader_service.broker.settings import Settings
from loader_service.broker.supervisor import Supervisor


class Measuring:
    """Made, with the libraries that it needs, only by a broker that was asked for metrics."""

    def __init__(
        self, settings: Settings, supervisor: Supervisor, living: Living, events: EventStream
    ) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._living = living
        self._events = events
        self._process = psutil.Process()
        self._exposition = Exposition()
        self._metrics = Metrics()
        events.add_reader(self._metrics.count)

    async def start(self, path: str) -> None:
        """Serve them on the Unix socket, the port, or both, as the settings say."""
        settings = self._settings
        if settings.metrics:
            gid = os.getegid() if settings.metrics_gid is None else settings.metrics_gid
            await self._exposition.on_socket(path, gid, self._registry(origins=True))
        if settings.metrics_port is not None:
            registry = self._registry(origins=False)
            await self._exposition.on_port(settings.metrics_port, registry)

    async def stop(self) -> None:
        """Serve them no more."""
        await self._exposition.stop()

    def _registry(self, *, origins: bool) -> CollectorRegistry:
        registry = CollectorRegistry()
        registry.register(self._metrics.registry)
        registry.register(LivingMetrics(self._living, self._of_service, origins=origins))
        return registry

    def _of_service(self) -> OfService:
        supervisor = self._supervisor
        times = self._process.cpu_times()
        return OfService(
            version=VERSION,
            runtime=f"{supervisor.runtime.runtime} {supervisor.runtime.version}",
            ready=supervisor.readiness.ready,
            draining=supervisor.readiness.draining,
            start_unix_seconds=self._process.create_time(),
            memory_bytes=own_bytes(),
            cpu_seconds=times.user + times.system,
            open_descriptors=descriptors.in_use(),
            descriptors_limit=descriptors.allowed(),
            memory_limit_bytes=supervisor.total_memory_bytes,
            workers=supervisor.count,
            events_left_out=self._events.left_out,
        )
