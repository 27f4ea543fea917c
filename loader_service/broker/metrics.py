"""The broker's metrics for Prometheus: counted from its events, as their reader.

Labels are bounded: causes, tasks and limits are lists of the contract's; users and origins are in
``living`` alone. This module imports ``prometheus_client``, which costs a tenth of a second: it is
imported only by a broker that was asked for metrics.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from loader_service.broker.event_stream import Told
from loader_service.broker.events import (
    CallRefused,
    Computed,
    ConnectionRefused,
    Event,
    LoadBegan,
    LoadFailed,
    LoadReady,
    ModelClosed,
    ModelLost,
    ModelParked,
    ModelReturned,
    SessionOpened,
    WorkerEnded,
    ZygoteRenewed,
    limit_hit,
)

PREFIX = "model_loader_"
READY = "ready"
"""The outcome of a load or a call that did what it should; every other one is a cause."""

CALL_BUCKETS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
LOAD_BUCKETS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Seconds."""
PHASES = ("send", "queue", "compute", "reply")


class Metrics:
    """Counts events; ``registry`` holds the counts."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.labels: dict[str, tuple[str, ...]] = {}
        """Of each metric, by its name without `_total`."""
        self._loads = self._counter(
            "loads",
            "Loads and inspections that ended, by outcome: ready, or why not.",
            "task",
            "outcome",
        )
        self._loads_begun = self._counter(
            "loads_begun", "Loads and inspections that were let in.", "task"
        )
        self._load_seconds = self._histogram(
            "load_seconds",
            "Loads and inspections that went well, from the header to the end.",
            LOAD_BUCKETS,
            "task",
        )
        self._model_bytes = self._counter("model_bytes", "Bytes of models that were loaded.")
        self._calls = self._counter(
            "relayed_calls",
            "Computations that the service relayed, by outcome: ready, or why not. "
            "Calls on direct channels do not pass the service.",
            "outcome",
        )
        self._call_seconds = self._histogram(
            "relayed_call_seconds",
            "Relayed computations that went well, by phase; how compute and queue share the time "
            "between request and answer is the worker's own word.",
            CALL_BUCKETS,
            "phase",
        )
        self._tensor_bytes = self._counter(
            "relayed_tensor_bytes", "Bytes of tensors in relayed computations.", "direction"
        )
        self._refused = self._counter(
            "calls_refused", "Calls other than loads that ended with a failure.", "cause"
        )
        self._connections_refused = self._counter(
            "connections_refused",
            "Who was turned away at the attach socket, or at the TCP port.",
            "cause",
        )
        self._limits = self._counter("limits_hit", "Limits that were reached, by name.", "limit")
        self._lost = self._counter("models_lost", "Models that were lost, by cause.", "cause")
        self._closed = self._counter("models_closed", "Models that their owners closed.")
        self._parked = self._counter(
            "models_parked", "Models that were parked: their processes ended for a while."
        )
        self._returned = self._counter(
            "models_returned", "Parked models that came back because they were called."
        )
        self._deaths = self._counter(
            "worker_deaths",
            "Worker processes that ended, by cause; closed is the ordinary one.",
            "cause",
        )
        self._sessions = self._counter("sessions_opened", "Sessions that were opened.")
        self._zygotes = self._counter(
            "zygotes_renewed", "Processes that make workers and were replaced.", "reason"
        )
        self._prepare()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        self.labels[f"{PREFIX}{name}"] = labels
        return Counter(f"{PREFIX}{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], label: str) -> Histogram:
        self.labels[f"{PREFIX}{name}"] = (label,)
        return Histogram(f"{PREFIX}{name}", text, [label], registry=self.registry, buckets=buckets)

    def _prepare(self) -> None:
        """Show the series that always matter from the start: a rate needs a zero before its one."""
        for task in ("load", "inspect"):
            self._loads_begun.labels(task)
            self._loads.labels(task, READY)
            self._load_seconds.labels(task)
        self._calls.labels(READY)
        for phase in PHASES:
            self._call_seconds.labels(phase)
        for direction in ("in", "out"):
            self._tensor_bytes.labels(direction)

    def count(self, told: Told) -> None:
        """Count an event."""
        event = told.event
        if limit := limit_hit(event):
            self._limits.labels(limit).inc()
        match event:
            case Computed():
                self._count_call(event)
            case LoadBegan():
                self._loads_begun.labels(event.task).inc()
            case LoadReady():
                self._loads.labels(event.task, READY).inc()
                self._load_seconds.labels(event.task).observe(event.seconds)
                self._model_bytes.inc(event.model_bytes)
            case LoadFailed():
                self._loads.labels(event.task, event.failure.cause.value).inc()
            case CallRefused():
                self._refused.labels(event.failure.cause.value).inc()
                if event.method == "Compute":
                    self._calls.labels(event.failure.cause.value).inc()
            case ConnectionRefused():
                self._connections_refused.labels(event.failure.cause.value).inc()
            case _:
                self._count_end(event)

    def _count_call(self, event: Computed) -> None:
        self._calls.labels(READY).inc()
        for phase in PHASES:
            self._call_seconds.labels(phase).observe(getattr(event, f"{phase}_seconds"))
        self._tensor_bytes.labels("in").inc(event.input_bytes)
        self._tensor_bytes.labels("out").inc(event.output_bytes)

    def _count_end(self, event: Event) -> None:
        match event:
            case ModelLost():
                self._lost.labels(event.failure.cause.value).inc()
            case ModelClosed():
                self._closed.inc()
            case ModelParked():
                self._parked.inc()
            case ModelReturned():
                self._returned.inc()
            case WorkerEnded():
                self._deaths.labels(event.cause).inc()
            case SessionOpened():
                self._sessions.inc()
            case ZygoteRenewed():
                self._zygotes.labels(event.reason).inc()
