"""Section 1: one call, by every way to run a model."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from benchmarks import cases
from benchmarks.cases import (
    BUSY,
    IN_PLACE,
    SECOND_DIRECT,
    SECOND_IN_PROCESS,
    SIZED_ECHO,
    SPARSE,
    TAKEN_APART,
    Case,
)
from benchmarks.figures import Figure, shown
from benchmarks.markdown import table
from benchmarks.models import REPOSITORY, SHARED, shared_models
from benchmarks.plan import Plan, pairs_of
from model_loader_cli.bench.arms import Order
from model_loader_cli.bench.comparison import (
    AGAIN,
    ARM,
    BACK_TO_BACK,
    DIRECT,
    ECHO,
    IN_PROCESS,
    RELAYED,
)
from model_loader_cli.bench.interval import Interval, NothingLeft, interval
from model_loader_cli.bench.processes import Arm
from model_loader_cli.bench.samples import (
    MILLISECOND_NS,
    Values,
    added,
    alone,
    combined,
    medians,
    p99_ratio,
    quiet,
)

TITLE = "One call"
SECOND_PYTHON = REPOSITORY / ".venv-tflite" / "bin" / "python"
"""The second runtime's last release needs an older NumPy, so it has an environment of its own."""
LARGE_BUFFERS = 4 << 20
TEXTS = {
    IN_PROCESS: "in process, the whole call",
    IN_PROCESS + AGAIN: "A/A: in process again",
    IN_PLACE: "in process, tensors in place (`tensor()`)",
    DIRECT: "the service, direct channel",
    RELAYED: "the service, relayed gRPC",
    SECOND_IN_PROCESS: "tflite-runtime in process, the whole call",
    SECOND_DIRECT: "the service on tflite-runtime, the whole call",
    ECHO: "bare echo of the same sizes",
    SIZED_ECHO: "bare echo, socket buffers of 4 MiB asked for",
}
WHOLE = (IN_PROCESS, SECOND_IN_PROCESS, SECOND_DIRECT, ECHO, SIZED_ECHO)
"""Arms whose own time is shown, not what they add: no yardstick is under them."""
Pairs = Sequence[Mapping[str, Any]]


def chosen(quick: bool) -> Iterator[tuple[str, Case]]:
    """The cases of a run, with the table that each is for; absent models are left out."""
    for kind, known in (("models", cases.CALLS), ("payloads", cases.PAYLOAD_CASES)):
        for case in known:
            if case.model in SHARED and case.model not in shared_models():
                continue
            if quick and not case.quick:
                continue
            yield kind, cases.shortened(case) if quick else case


def arms_of(case: Case, plan: Plan) -> dict[str, Arm]:
    """Give each arm of a case its process; the second runtime's only where it is installed."""
    result = {}
    for name in case.arms:
        python, kind, module, runtime, buffers = None, name.removesuffix(AGAIN), ARM, "litert", 0
        if name in (SECOND_IN_PROCESS, SECOND_DIRECT):
            if not SECOND_PYTHON.exists():
                continue
            python, runtime = str(SECOND_PYTHON), "tflite-runtime"
            kind = IN_PROCESS if name == SECOND_IN_PROCESS else DIRECT
        elif name == TAKEN_APART:
            module = "benchmarks.programs.taken_apart"
        elif name == SIZED_ECHO:
            kind, buffers = ECHO, LARGE_BUFFERS
        order = Order(
            model=str(plan.store.path(case.model)),
            inputs=str(plan.store.inputs(case.model)),
            reply_bytes=plan.store.sizes(case.model).reply,
            threads=case.threads,
            runtime=runtime,
            buffer_bytes=buffers,
        )
        conditions = [condition.to_json() for condition in case.conditions(name, plan.share)]
        given = {"arm": kind, "order": asdict(order), "conditions": conditions}
        result[name] = Arm(module, given, python) if python else Arm(module, given)
    return result


def runs(pairs: int, quick: bool) -> int:
    """How many processes a run starts, at most."""
    return sum(len(case.arms) * pairs_of(pairs, case.judged) for _, case in chosen(quick))


def run(plan: Plan) -> dict[str, Any]:
    """Measure every case; returns the raw samples."""
    result: dict[str, Any] = {"models": [], "payloads": []}
    for kind, case in chosen(plan.quick):
        entry = {
            "name": case.name,
            "model": case.model,
            "threads": case.threads,
            "sizes": asdict(plan.store.sizes(case.model)),
            "pairs": plan.run(f"{TITLE}: {case.name}", arms_of(case, plan), case.judged),
        }
        result[kind].append(entry)
    return result


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


def tables(samples: Mapping[str, Any]) -> str:
    """All tables of the section."""
    lines = ["Milliseconds a call, back to back, one thread unless the table says otherwise.\n\n"]
    lines.append(_arms_table(samples["models"], BACK_TO_BACK))
    for condition, text in (
        (SPARSE, "One call every 20 ms: the core has slept, and the caches are cold."),
        (BUSY, "Back to back, while another process spins beside it."),
    ):
        entries = [entry for entry in samples["models"] if _has(entry, condition)]
        if entries:
            lines += [f"\n{text}\n\n", _arms_table(entries, condition)]
    apart = [entry for entry in samples["models"] if TAKEN_APART in entry["pairs"][0]]
    if apart:
        lines += [
            "\nThe service's own split of a call on the direct channel, milliseconds. *Send* ends "
            "when the kernel has taken the last byte of the request; *invoke* is what the worker "
            "measured; *reply* is the rest: waking the worker, its Python, its writing, waking the "
            "client. *Queue* is the worker's reading of the inputs, which lies within send and "
            "reply.\n\n",
            _split_table(apart),
        ]
    if samples["payloads"]:
        lines += [
            "\nAs many bytes out as in, through a model that copies them.\n\n",
            _arms_table(samples["payloads"], BACK_TO_BACK),
        ]
    return "".join(lines)


def _has(entry: Mapping[str, Any], condition: str) -> bool:
    return condition in entry["pairs"][0][DIRECT]["blocks"]


def _arms_table(entries: Sequence[Mapping[str, Any]], condition: str) -> str:
    rows = []
    for entry in entries:
        pairs = entry["pairs"]
        for arm, text in TEXTS.items():
            if arm not in pairs[0] or condition not in pairs[0][arm]["blocks"]:
                continue
            try:
                if arm in WHOLE:
                    value, what = alone(pairs, arm, condition), "whole"
                else:
                    value, what = added(pairs, arm, IN_PROCESS, condition), "added"
            except NothingLeft:
                rows.append([entry["name"], text, "", "no quiet block", "", "0"])
                continue
            ratio = None if arm in (ECHO, SIZED_ECHO) else p99_ratio(pairs, arm, ECHO, condition)
            rows.append(
                [
                    entry["name"],
                    text,
                    shown(value) if what == "whole" else "",
                    shown(value) if what == "added" else "",
                    f"{ratio:.2f} ×" if ratio is not None else "–",
                    str(value.pairs),
                ]
            )
    return table(["model", "arm", "whole ms", "added ms", "p99 to the echo's", "pairs"], rows)


def _split_table(entries: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for entry in entries:
        for condition in (BACK_TO_BACK, SPARSE, BUSY):
            if not _has(entry, condition):
                continue
            known = parts(entry["pairs"], condition)
            try:
                cells = [
                    shown(interval(known[name])) for name in ("send", "queue", "compute", "reply")
                ]
                echo = shown(alone(entry["pairs"], ECHO, condition))
            except NothingLeft:
                continue
            rows.append([entry["name"], condition, *cells, echo])
    return table(["model", "calls", "send", "queue", "invoke", "reply", "the whole echo"], rows)
