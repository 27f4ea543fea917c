"""The tables, in Markdown."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.judging import difference, load_difference
from benchmarks.statistics import Interval

ARMS = (
    ("in-process again", "A/A: in process against in process"),
    ("direct", "the service, direct channel"),
    ("relayed", "the service, relayed gRPC"),
)


def markdown(results: dict[str, Any]) -> str:
    """Write all tables of one run."""
    machine = results["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, "
        f"Python {machine['python']}, {packages}; run as uid {machine['uid']}; "
        f"load average {machine['load_average'][0]:.2f} before, "
        f"{machine['load_average_after'][0]:.2f} after.",
        "",
        "Milliseconds added to a call, one thread, back to back; medians of paired differences "
        "with their 95 % intervals.",
        "",
        "| model | arm | added ms | process pairs |",
        "|---|---|---|---|",
    ]
    for model, pairs in results["calls"].items():
        whole = difference(pairs, "in-process", None)
        lines.append(f"| {model} | in process, the whole call | {_cell(whole)} | {whole.pairs} |")
        for arm, text in ARMS:
            added = difference(pairs, arm, "in-process")
            lines.append(f"| {model} | {text} | {_cell(added)} | {added.pairs} |")
        floor = difference(pairs, "echo", None)
        lines.append(f"| {model} | bare echo of the same sizes | {_cell(floor)} | {floor.pairs} |")
    lines += [
        "",
        "Load to ready, model bytes in memory, broker running; and private memory of a worker "
        "beyond what the same loaded model costs in process.",
        "",
        "| model | in process ms | added ms | worker MiB | in process MiB | added MiB |",
        "|---|---|---|---|---|---|",
    ]
    for model, pairs in results["loads"].items():
        local = statistics.median(
            statistics.median(pair["in-process"]["load_ns"][1:]) / 1e6 for pair in pairs
        )
        there = statistics.median(pair["service"]["private_bytes"] or 0 for pair in pairs) / 2**20
        here = statistics.median(pair["in-process"]["private_bytes"] for pair in pairs) / 2**20
        memory = f"{there:.1f} | {here:.1f} | {there - here:.1f}" if there else "root only | |"
        lines.append(f"| {model} | {local:.2f} | {_cell(load_difference(pairs))} | {memory} |")
    starts = [
        pair["service"]["start_ns"] / 1e6 for pairs in results["loads"].values() for pair in pairs
    ]
    lines += ["", f"Starting an embedded broker: {statistics.median(starts):.0f} ms (median)."]
    return "\n".join(lines) + "\n"


def _cell(interval: Interval) -> str:
    return f"{interval.median:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
