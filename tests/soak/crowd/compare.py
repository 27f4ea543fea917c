"""What programs did, what the daemon told, and what its metrics count, held against each other."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Mapping

from tests.soak.crowd.record import Record
from tests.soak.crowd.watch import Events, Series

COUNTED = (
    *("loads_begun_total", "loads_total", "model_bytes_total", "models_closed_total"),
    *("models_lost_total", "worker_deaths_total", "sessions_opened_total"),
    *("relayed_calls_total", "relayed_tensor_bytes_total"),
)
"""Metrics that count events."""
LIVING = ("sessions", "models", "loading", "worker_memory_bytes")
"""Metrics that are nothing where nothing lives."""


def compare(
    record: Record,
    dead: Mapping[int, int],
    killed: Mapping[str, tuple[int, int]],
    events: Events,
    served: Mapping[Series, float],
) -> list[str]:
    """List every disagreement."""
    faults = [*_counted(events, served), *_killed(killed, events)]
    reported = sum(value for key, value in served.items() if key[0] == "reported_calls_total")
    if reported > record.total("calls_begun"):
        faults.append(f"workers report {reported} calls of {record.total('calls_begun')}")
    for number, status in dead.items():
        faults += _of_program(number, status, record, events)
    return faults


def _counted(events: Events, served: Mapping[Series, float]) -> Iterator[str]:
    """The metrics against the events: to the last one."""
    if events.left_out:
        yield f"{events.left_out} events were left out"
    told = Counter({key: value for key, value in events.counted.items() if value})
    counts = Counter({key: int(n) for key, n in served.items() if key[0] in COUNTED and n})
    for key in sorted(told.keys() | counts.keys()):
        if told[key] != counts[key]:
            yield f"{' '.join(key)}: {told[key]} were told, {counts[key]} are counted"
    for key, value in served.items():
        if key[0] in LIVING and value:
            yield f"{' '.join(key)} is {value} though nothing lives"
    if served[("ready",)] != 1 or served[("draining",)] != 0:
        yield "the service is not ready"


def _killed(killed: Mapping[str, tuple[int, int]], events: Events) -> Iterator[str]:
    """Each worker that was killed against what was told of its model; and nobody else was lost."""
    ends = Counter(events.ends.get(model_id, ("nothing", "")) for model_id in killed)
    for (kind, cause), count in ends.items():
        # A model that its program closed just then was closed first.
        if (kind, cause) not in (("model-lost", "killed"), ("model-closed", "")):
            yield f"{count} models whose workers were killed ended as {kind} {cause}"
    lost = {model_id for model_id, (kind, _) in events.ends.items() if kind == "model-lost"}
    if strange := lost - killed.keys():
        told = Counter(events.ends[model_id] for model_id in strange)
        yield f"models were lost whose workers nobody killed: {dict(told)}"
    for model_id, (_, pid) in killed.items():
        causes = events.deaths.get(pid, [])
        expected = "killed" if model_id in lost else "closed"
        if expected not in causes and "killed" not in causes:
            yield f"the worker of a killed model ended as {causes}, not {expected}"


def _of_program(number: int, status: int, record: Record, events: Events) -> Iterator[str]:
    """A program's own count against what was told of its origin."""
    life = {name: int(record.lives[number][name]) for name in record.lives.dtype.names}
    told = events.of_origin.get(f"program-{number}", Counter())
    who = f"program {number}"
    if told["session-opened"] != told["session-closed"]:
        yield f"{who}: {told['session-opened']} sessions, {told['session-closed']} of them closed"
    if told["load-ready"] != told["model-closed"] + told["model-lost"]:
        yield f"{who}: {told['load-ready']} models, {dict(told)}"
    if told["model-lost"] < life["losses"]:
        yield f"{who}: was told of {life['losses']} losses, and there were {told['model-lost']}"
    if life["calls"] + life["losses"] > life["calls_begun"]:
        yield f"{who}: {life}"
    least, most = (life["calls"], life["calls_begun"]) if life["relayed"] else (0, 0)
    if not least <= told["computed"] <= most:
        yield f"{who}: {told['computed']} computations were told, its own count is {life}"
    if status == -signal.SIGKILL:
        # It was killed before it could count what it began last.
        if not life["loads"] <= told["load-ready"] <= life["loads_begun"] <= life["loads"] + 1:
            yield f"{who}, killed: {told['load-ready']} loads, its own count is {life}"
        return
    # A relayed program attaches for a moment, too, if it is its user's first.
    if not life["ended"] or not 1 <= told["session-opened"] <= 1 + life["relayed"]:
        yield f"{who}: did not come to its end: {life}"
    if not told["load-ready"] == life["loads"] == life["loads_begun"]:
        yield f"{who}: {told['load-ready']} loads, its own count is {life}"
    # What was killed while its program closed it was lost, and nobody had to be told.
    unnoticed = told["model-lost"] - life["losses"]
    if told["model-closed"] + unnoticed != life["closes"]:
        yield f"{who}: {dict(told)}, its own count is {life}"
    if life["calls"] + life["losses"] != life["calls_begun"]:
        yield f"{who}: calls without an answer: {life}"
