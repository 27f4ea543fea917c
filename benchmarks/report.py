"""The tables of a run, by the names of the marks between which they stand in the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from benchmarks.figures import Figures, shown
from benchmarks.markdown import table
from benchmarks.plan import pairs_of
from benchmarks.sections import cold, devices, memory, one_call, peers, throughput
from benchmarks.targets import TARGETS, Target
from model_loader_cli.bench.samples import dropped
from model_loader_cli.bench.verdict import Verdict

SECTIONS: Mapping[str, ModuleType] = {
    "one-call": one_call,
    "cold": cold,
    "memory": memory,
    "throughput": throughput,
}
OPTIONAL: Mapping[str, ModuleType] = {"peers": peers, "devices": devices}
"""Sections that are run only if they are named; each stands in the document for itself."""
ALL: Mapping[str, ModuleType] = {**SECTIONS, **OPTIONAL}
VERDICTS = {Verdict.MET: "met", Verdict.MISSED: "**missed**", Verdict.UNDECIDED: "undecided"}


def figures_of(samples: Mapping[str, Any]) -> dict[str, Figures]:
    """The figures of each section that was run."""
    return {
        name: section.figures(samples[name]) for name, section in ALL.items() if name in samples
    }


def judged(samples: Mapping[str, Any]) -> list[tuple[Target, Figures, Verdict]]:
    """Each target of a section that was run, with the section's figures and its verdict."""
    known = figures_of(samples)
    return [
        (target, known[target.section], target.verdict(known[target.section]))
        for target in TARGETS
        if target.section in known
    ]


def target_rows(samples: Mapping[str, Any]) -> list[Sequence[str]]:
    """What was measured, its interval, the bound, noise and the verdict, a row a target."""
    rows: list[Sequence[str]] = []
    for target, figures, verdict in judged(samples):
        figure = figures.get(target.figure)
        unit = f" {target.unit}" if target.unit else ""
        sign = "≥" if target.at_least else "≤"
        bound = (
            f"{target.limit(figures):.{_digits(target)}f}"
            if not target.of or target.of in figures
            else f"{target.bound:g}"
        )
        noise = "–"
        if figure is not None and figure.noise is not None:
            noise = f"± {figure.noise.half_width:.{target.digits}f}"
        rows.append(
            [
                target.text,
                "not measured" if figure is None else shown(figure.value, target.digits) + unit,
                f"{sign} {bound}{unit}",
                noise,
                VERDICTS[verdict],
            ]
        )
    return rows


def _digits(target: Target) -> int:
    return min(target.digits, 3) if target.bound < 1 else 0


HEADS = ["what", "measured", "target", "A/A", "verdict"]


def parts(results: Mapping[str, Any]) -> dict[str, str]:
    """Everything that the document shows, by mark."""
    samples = results["sections"]
    shown_parts = {}
    if not is_apart(results):
        shown_parts = {"machine": machine(results), "targets": table(HEADS, target_rows(samples))}
    for name, section in ALL.items():
        if name in samples:
            about = f"{machine(results)}\n" if name in OPTIONAL else ""
            shown_parts[name] = about + section.tables(samples[name])
    return shown_parts


def is_whole(results: Mapping[str, Any]) -> bool:
    """Whether the run has what a document shows: all sections, or optional ones alone."""
    return set(results["sections"]) >= set(SECTIONS) or is_apart(results)


def is_apart(results: Mapping[str, Any]) -> bool:
    """Whether the run has optional sections alone."""
    names = set(results["sections"])
    return bool(names) and names <= set(OPTIONAL)


def machine(results: Mapping[str, Any]) -> str:
    """The machine, the versions, the load and the steal of a run."""
    before, after = results["machine"], results["machine_after"]
    packages = ", ".join(f"{name} {number}" for name, number in before["packages"].items())
    gone = everything = 0
    for pairs in _all_pairs(results["sections"]):
        less, count = dropped(pairs)
        gone, everything = gone + less, everything + count
    ticks = after["stolen_ticks"] - before["stolen_ticks"]
    others = pairs_of(results["pairs"], judged=False)
    pairs_text, second = f"{others} process pairs", ""
    if not is_apart(results):
        pairs_text = f"{results['pairs']} process pairs ({others} where no target is set)"
        second = f" {_second(results)};"
    if results["quick"]:
        pairs_text += ", a quick run"
    return (
        f"{before['processor']}, {before['cores']} cores, "
        f"{before['memory_bytes'] / 1e9:.0f} GB, Linux {before['kernel']}, Python "
        f"{before['python']}, {packages};{second} "
        f"run as uid {before['uid']} on {results['date']}, "
        f"{pairs_text}, {results['seconds'] / 60:.0f} minutes. Load average "
        f"{before['load_average']:.2f} before, {after['load_average']:.2f} after; "
        f"{ticks} clock ticks stolen, for which {gone} of {everything} blocks were dropped.\n"
    )


def _second(results: Mapping[str, Any]) -> str:
    """What is said of the second runtime's environment."""
    packages = results["second_runtime"]
    if packages is None:
        return "tflite-runtime is not installed, so its rows are missing"
    return f"tflite-runtime {packages.get('tflite-runtime')} with numpy {packages.get('numpy')}"


def _all_pairs(sections: Mapping[str, Any]) -> list[Sequence[Mapping[str, Any]]]:
    """The pairs of every part of every section."""
    found: list[Sequence[Mapping[str, Any]]] = []

    def look(value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                if name == "pairs":
                    found.append(inner)
                else:
                    look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    look(sections)
    return found


def markdown(results: Mapping[str, Any]) -> str:
    """All tables as one text."""
    known = parts(results)
    lines = []
    if "targets" in known:
        lines += [known["machine"], "\n## Targets\n\n", known["targets"]]
    for name, section in ALL.items():
        if name in known:
            lines += [f"\n## {section.TITLE}\n\n", known[name]]
    return "".join(lines)
