"""What the samples of one call say: what is added, and where it goes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks import cases
from benchmarks.cases import SIZED_ECHO, SPARSE, TAKEN_APART
from benchmarks.figures import Figure
from model_loader_cli.bench.comparison import AGAIN, BACK_TO_BACK, DIRECT, ECHO, IN_PROCESS
from model_loader_cli.bench.interval import Interval, NothingLeft
from model_loader_cli.bench.samples import (
    MILLISECOND_NS,
    Values,
    added,
    alone,
    combined,
    medians,
    quiet,
)

Pairs = Sequence[Mapping[str, Any]]


def entry_of(samples: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Find a case by its name."""
    for kind in ("models", "payloads"):
        for entry in samples[kind]:
            if entry["name"] == name:
                known: Mapping[str, Any] = entry
                return known
    return None


def figures(samples: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that targets are set for; those without a quiet block are left out."""
    result: dict[str, Figure] = {}
    for name, (case, make) in FIGURES.items():
        entry = entry_of(samples, case)
        if entry is None:
            continue
        try:
            result[name] = make(entry["pairs"])
        except NothingLeft:
            continue
    return result


def more(pairs: Pairs, condition: str = BACK_TO_BACK) -> Interval:
    """What the direct channel adds to the call in process, in milliseconds."""
    return added(pairs, DIRECT, IN_PROCESS, condition)


def noise(pairs: Pairs, condition: str = BACK_TO_BACK) -> Interval:
    """What the same code run again seems to add."""
    return added(pairs, IN_PROCESS + AGAIN, IN_PROCESS, condition)


def parts(pairs: Pairs, condition: str = BACK_TO_BACK) -> dict[str, Values]:
    """The medians of each block of the taken-apart arm in milliseconds, by part, by pair."""
    result: dict[str, Values] = {name: [] for name in ("send", "queue", "compute", "reply", "road")}
    for pair in pairs:
        blocks = pair[TAKEN_APART]["blocks"][condition]
        for values in result.values():
            values.append([])
        for number in quiet(pair, condition):
            block = blocks[number]
            road = [
                whole - inner for whole, inner in zip(block["ns"], block["compute"], strict=True)
            ]
            reply = [rest - send for rest, send in zip(road, block["send"], strict=True)]
            for name, times in (("road", road), ("reply", reply)):
                result[name][-1].append(statistics.median(times) / MILLISECOND_NS)
            for name in ("send", "queue", "compute"):
                result[name][-1].append(statistics.median(block[name]) / MILLISECOND_NS)
    return result


def added_figure(pairs: Pairs, condition: str = BACK_TO_BACK) -> Figure:
    """What the direct channel adds, beside the noise."""
    return Figure(more(pairs, condition), noise(pairs, condition))


def own_figure(pairs: Pairs) -> Figure:
    """The whole call in process."""
    return Figure(alone(pairs, IN_PROCESS, BACK_TO_BACK))


def road_over_echo(pairs: Pairs) -> Figure:
    """The call less the worker's own invoke time, less the echo of the same sizes."""
    echo = medians(pairs, ECHO, BACK_TO_BACK)
    value = combined(lambda road, bare: road - bare, parts(pairs)["road"], echo)
    return Figure(value, noise(pairs))


def added_over_echo(pairs: Pairs) -> Figure:
    """What the direct channel adds to the call in process, less the echo of the same sizes."""
    arms = (medians(pairs, arm, BACK_TO_BACK) for arm in (DIRECT, IN_PROCESS, ECHO))
    return Figure(combined(lambda ours, base, bare: ours - base - bare, *arms), noise(pairs))


def share_of_echo(pairs: Pairs) -> Figure:
    """Bytes a second through the service, in percent of the faster bare socket pair."""
    echoes = [medians(pairs, name, BACK_TO_BACK) for name in (ECHO, SIZED_ECHO) if name in pairs[0]]
    direct, base, again = (
        medians(pairs, arm, BACK_TO_BACK) for arm in (DIRECT, IN_PROCESS, IN_PROCESS + AGAIN)
    )
    return Figure(
        combined(lambda ours, *bare: 100 * min(bare) / ours, direct, *echoes),
        combined(lambda one, two: 100 * one / two, base, again),
    )


FIGURES: Mapping[str, tuple[str, Callable[[Pairs], Figure]]] = {
    "image: call less invoke, over echo": (cases.IMAGE, road_over_echo),
    "image: added": (cases.IMAGE, added_figure),
    "image: added, sparse": (cases.IMAGE, partial(added_figure, condition=SPARSE)),
    "4 bytes: added": (cases.FOUR_BYTES, added_figure),
    "4 bytes: added, over echo": (cases.FOUR_BYTES, added_over_echo),
    "MobileNet v2, 1 threads: added": (cases.FLOAT, added_figure),
    "MobileNet v2, 1 threads: in process": (cases.FLOAT, own_figure),
    "MobileNet v2, 2 threads: added": (f"{cases.FLOAT}, 2 threads", added_figure),
    "MobileNet v2, 2 threads: in process": (f"{cases.FLOAT}, 2 threads", own_figure),
    "64 MB: share of a bare socket pair": (cases.LARGEST, share_of_echo),
}
"""By the figure's name: the case that it is of, and how it is made."""
