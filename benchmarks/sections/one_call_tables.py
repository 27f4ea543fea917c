"""The tables of one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cases import (
    BUSY,
    IN_PLACE,
    SECOND_DIRECT,
    SECOND_IN_PROCESS,
    SIZED_ECHO,
    SPARSE,
    TAKEN_APART,
)
from benchmarks.figures import shown
from benchmarks.markdown import table
from benchmarks.sections.one_call_figures import parts
from model_loader_cli.bench.comparison import (
    AGAIN,
    BACK_TO_BACK,
    DIRECT,
    ECHO,
    IN_PROCESS,
    RELAYED,
)
from model_loader_cli.bench.interval import NothingLeft, interval
from model_loader_cli.bench.samples import added, alone, p99_ratio

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
