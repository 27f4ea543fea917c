"""The metrics: what each event is counted as, and how they look to Prometheus."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from loader_service.broker.event_stream import EventStream
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
    SessionOpened,
    WorkerEnded,
    ZygoteRenewed,
)
from loader_service.broker.groups import Owner
from loader_service.broker.metrics import Metrics
from model_loader_wire.causes import Cause, Failure
from tests.support.metric_rules import faults

OWNER = Owner(1000, "an origin")
CRASHED = Failure(Cause.CRASHED, "it crashed", model_lost=True)
TOO_MANY = Failure(Cause.LIMIT, "too many", "models_per_origin", 17, 16)
LATE = Failure(Cause.TIMEOUT, "late", "compute_seconds", 2, 1, model_lost=True)
OF_A_MODEL = {"owner": OWNER, "model_id": "m", "worker_pid": 9, "lived_seconds": 3.0}

EVENTS: tuple[tuple[Event, dict[str, float]], ...] = (
    (SessionOpened(owner=OWNER), {"sessions_opened_total": 1}),
    (
        LoadBegan(owner=OWNER, task="load", announced_bytes=7),
        {"loads_begun_total{task=load}": 1},
    ),
    (
        LoadReady(
            owner=OWNER,
            task="load",
            model_id="m",
            sha256="ab",
            model_bytes=700,
            worker_pid=9,
            seconds=0.02,
        ),
        {
            "loads_total{outcome=ready,task=load}": 1,
            "model_bytes_total": 700,
            "load_seconds_sum{task=load}": 0.02,
            "load_seconds_bucket{le=0.01,task=load}": 0,
            "load_seconds_bucket{le=0.03,task=load}": 1,
        },
    ),
    (
        LoadFailed(owner=OWNER, task="inspect", seconds=0.1, failure=CRASHED),
        {"loads_total{outcome=crashed,task=inspect}": 1},
    ),
    (
        LoadFailed(owner=OWNER, task="load", seconds=0.1, failure=TOO_MANY),
        {
            "loads_total{outcome=limit,task=load}": 1,
            "limits_hit_total{limit=models_per_origin}": 1,
        },
    ),
    (
        Computed(
            owner=OWNER,
            model_id="m",
            input_bytes=10,
            output_bytes=20,
            send_seconds=0.1,
            queue_seconds=0.2,
            compute_seconds=0.3,
            reply_seconds=0.4,
        ),
        {
            "relayed_calls_total{outcome=ready}": 1,
            "relayed_call_seconds_sum{phase=send}": 0.1,
            "relayed_call_seconds_sum{phase=queue}": 0.2,
            "relayed_call_seconds_sum{phase=compute}": 0.3,
            "relayed_call_seconds_sum{phase=reply}": 0.4,
            "relayed_tensor_bytes_total{direction=in}": 10,
            "relayed_tensor_bytes_total{direction=out}": 20,
        },
    ),
    (
        CallRefused(user=1000, method="Compute", failure=LATE),
        {
            "calls_refused_total{cause=timeout}": 1,
            "relayed_calls_total{outcome=timeout}": 1,
            "limits_hit_total{limit=compute_seconds}": 0,  # the model's loss tells it
        },
    ),
    (
        ModelLost(failure=LATE, sha256="ab", reported_calls=5, **OF_A_MODEL),  # type: ignore[arg-type]
        {
            "models_lost_total{cause=timeout}": 1,
            "limits_hit_total{limit=compute_seconds}": 1,
        },
    ),
    (
        ModelClosed(reported_calls=5, **OF_A_MODEL),  # type: ignore[arg-type]
        {"models_closed_total": 1},
    ),
    (
        WorkerEnded(owner=OWNER, cause="out-of-memory", worker_pid=9, cpu_seconds=2.5),
        {"worker_deaths_total{cause=out-of-memory}": 1},
    ),
    (
        ConnectionRefused(user=77, failure=Failure(Cause.FORBIDDEN, "no")),
        {"connections_refused_total{cause=forbidden}": 1},
    ),
    (
        ZygoteRenewed(user=1000, forks=200, reason="used-up"),
        {"zygotes_renewed_total{reason=used-up}": 1},
    ),
)


def values(metrics: Metrics) -> dict[str, float]:
    """Return each series by its name and labels."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            name = sample.name.removeprefix("model_loader_")
            found[f"{name}{{{labels}}}" if labels else name] = sample.value
    return found


@pytest.mark.parametrize(
    ("event", "expected"), EVENTS, ids=lambda value: getattr(value, "kind", "")
)
def test_an_event_is_counted_as_what_it_is(event: Event, expected: dict[str, float]) -> None:
    metrics = Metrics()
    stream = EventStream()
    stream.add_reader(metrics.count)
    before = values(metrics)
    stream.tell(event)
    after = values(metrics)
    assert {name: after.get(name, 0) for name in expected} == expected
    changed = {name for name in after if after[name] != before.get(name, 0)}
    others = {
        name
        for name in changed - expected.keys()
        if not name.split("{")[0].endswith(("_bucket", "_count"))
    }
    assert not others


def test_series_that_matter_are_there_before_anything_has_happened() -> None:
    found = values(Metrics())
    assert found["loads_total{outcome=ready,task=load}"] == 0
    assert found["relayed_calls_total{outcome=ready}"] == 0
    assert not [name for name in found if "_created" in name]


def test_prometheus_own_linter_would_find_nothing() -> None:
    metrics = Metrics()
    stream = EventStream()
    stream.add_reader(metrics.count)
    for event, _ in EVENTS:
        stream.tell(event)
    text = generate_latest(metrics.registry).decode()
    assert faults(text) == []
    assert "an origin" not in text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("# TYPE a_x gauge\na_x 1\n", "no help"),
        ("# HELP a_x text\na_x 1\n", "no type"),
        ("# HELP a_total text\n# TYPE a_total gauge\na_total 1\n", "only a counter's"),
        ("# HELP a_ms text\n# TYPE a_ms gauge\na_ms 1\n", "ms is no base unit"),
        ("# HELP a_hours text\n# TYPE a_hours gauge\na_hours 1\n", "hours is no base unit"),
        ("# HELP a_sum text\n# TYPE a_sum gauge\na_sum 1\n", "as a histogram's"),
        ("# HELP a_gauge text\n# TYPE a_gauge gauge\na_gauge 1\n", "type is in the name"),
        ("# HELP aB text\n# TYPE aB gauge\naB 1\n", "not in snake_case"),
        ('# HELP a text\n# TYPE a gauge\na{le="1"} 1\n', "is a histogram's"),
        ("# HELP a text\n# TYPE a gauge\na 1\na 2\n", "the series is there twice"),
        ("# HELP a text\n# HELP a text\n# TYPE a gauge\na 1\n", "has HELP twice"),
    ],
)
def test_the_linter_finds_what_it_should(text: str, fault: str) -> None:
    (found,) = faults(text)
    assert fault in found
