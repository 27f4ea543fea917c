"""The pictures of a run, drawn with Matplotlib (the extra `bench`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cases
from benchmarks.sections import cold, devices, memory, one_call_figures, throughput
from model_loader_cli.bench.candidate import REDUCED
from model_loader_cli.bench.comparison import AGAIN, BACK_TO_BACK, DIRECT, ECHO, IN_PROCESS, RELAYED
from model_loader_cli.bench.drawing import (
    EXACT_COLOUR,
    REDUCED_COLOUR,
    YARDSTICK_COLOUR,
    Bar,
    bars,
    drawn,
)
from model_loader_cli.bench.interval import Interval, NothingLeft, interval
from model_loader_cli.bench.numerical import shown_difference
from model_loader_cli.bench.samples import added, alone, pooled

COLOURS = {
    IN_PROCESS: "#555555",
    DIRECT: "#0072b2",
    RELAYED: "#d55e00",
    ECHO: "#009e73",
}
"""Told apart by colour-blind readers, too."""
PHASE_COLOURS = ("#bbbbbb", "#e69f00", "#56b4e9", "#0072b2", "#dddddd", "#009e73")
SPLIT_COLOURS = {"send": "#e69f00", "compute": "#555555", "reply": "#56b4e9"}
QUANTILES = 200
Samples = Mapping[str, Any]
Draw = Callable[[Any, Samples], None]


def latency(figure: Any, samples: Samples) -> None:
    """How long calls take: the share of calls that were answered by then."""
    names = [cases.FOUR_BYTES, cases.IMAGE, cases.FLOAT]
    entries = [entry for name in names if (entry := one_call_figures.entry_of(samples, name))]
    for axes, entry in zip(_row(figure, len(entries)), entries, strict=True):
        for arm, colour in COLOURS.items():
            times = pooled(entry["pairs"], arm, BACK_TO_BACK)
            if not times:
                continue
            shares = [number / QUANTILES for number in range(QUANTILES + 1)]
            ordered = sorted(times)
            points = [ordered[min(int(s * len(ordered)), len(ordered) - 1)] / 1e6 for s in shares]
            axes.plot(points, [100 * share for share in shares], color=colour, label=arm)
        axes.set_xscale("log")
        axes.set_title(entry["name"])
        axes.set_xlabel("ms a call")
        axes.set_ylabel("% of calls")
    if entries:
        figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside right center")


def payload(figure: Any, samples: Samples) -> None:
    """What a call costs, by the bytes that go in (and as many out)."""
    (axes,) = _row(figure, 1)
    entries = samples["payloads"]
    first = one_call_figures.entry_of(samples, cases.FOUR_BYTES)
    for arm in (ECHO, DIRECT, RELAYED):
        sizes, values = [], []
        for entry in ([first] if first else []) + list(entries):
            if arm not in entry["pairs"][0]:
                continue
            try:
                if arm == ECHO:
                    value = alone(entry["pairs"], arm, BACK_TO_BACK)
                else:
                    value = added(entry["pairs"], arm, IN_PROCESS, BACK_TO_BACK)
            except NothingLeft:
                continue
            sizes.append(entry["sizes"]["request"])
            values.append(value)
        label = "bare echo" if arm == ECHO else f"added by the service, {arm}"
        _line(axes, sizes, values, COLOURS[arm], label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("bytes in, and as many out")
    axes.set_ylabel("ms a call")
    axes.legend(frameon=False)


def split(figure: Any, samples: Samples) -> None:
    """Where a call's time goes, beside the echo of the same sizes."""
    entries = [entry for entry in samples["models"] if cases.TAKEN_APART in entry["pairs"][0]]
    for axes, entry in zip(_row(figure, len(entries)), entries, strict=True):
        known = one_call_figures.parts(entry["pairs"])
        left = 0.0
        for name, colour in SPLIT_COLOURS.items():
            try:
                value = interval(known[name]).median
            except NothingLeft:
                continue
            label = "invoke" if name == "compute" else name
            axes.barh(["a call"], [value], left=left, color=colour, label=label)
            left += value
        try:
            echo = alone(entry["pairs"], ECHO, BACK_TO_BACK).median
            axes.barh(["echo"], [echo], color=COLOURS[ECHO])
        except NothingLeft:
            pass
        axes.invert_yaxis()
        axes.set_title(entry["name"])
        axes.set_xlabel("ms")
    if entries:
        figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside right center")


def critical_path(figure: Any, samples: Samples) -> None:
    """To the first answer: from the start of Python, and of a warm Python to a running service."""
    (axes,) = _row(figure, 1)
    paths: dict[str, Mapping[str, float]] = {}
    for entry in samples["models"]:
        name, pairs = entry["name"], entry["pairs"]
        paths[f"{name}, in process"] = cold.phases(pairs, IN_PROCESS)
        paths[f"{name}, service"] = cold.phases(pairs, cold.SERVICE)
        paths[f"{name}, running service"] = cold.warm_phases(pairs)
    lefts = [0.0] * len(paths)
    for (phase, text), colour in zip(cold.PHASES.items(), PHASE_COLOURS, strict=True):
        widths = [path.get(phase, 0.0) for path in paths.values()]
        axes.barh(list(paths), widths, left=lefts, color=colour, label=text.replace("`", ""))
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    figure.legend(frameon=False, loc="outside right center")


def workers(figure: Any, samples: Samples) -> None:
    """What one more worker costs: memory of the whole service, and a call while all are alive."""
    counts = sorted(map(int, samples["workers"][0][memory.SERVICE]["counts"]))
    left, right = _row(figure, 2)
    for axes, field, unit, text in (
        (left, "service_bytes", memory.MEGABYTE, "MB of the whole service"),
        (right, "call_ns", 1e6, "ms a call, one worker after the other"),
    ):
        seen, values = [], []
        for count in counts:
            try:
                values.append(memory.of_workers(samples, count, field, unit))
            except NothingLeft:
                continue
            seen.append(count)
        _line(axes, seen, values, COLOURS[DIRECT], None)
        axes.set_xscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xlabel("workers with a tiny model")
        axes.set_ylabel(text)
        axes.set_ylim(bottom=0)


def crowd(figure: Any, samples: Samples) -> None:
    """Calls a second, by the number of models that are called at a time."""
    (axes,) = _row(figure, 1)
    pairs = samples["crowd"]["pairs"]
    axes.xaxis.get_major_locator().set_params(integer=True)
    conditions = [name for name in pairs[0][throughput.CROWD]["blocks"] if "clients" not in name]
    for arm, colour, label in (
        (throughput.CROWD_HERE, COLOURS[IN_PROCESS], "in process: threads"),
        (throughput.CROWD_HERE + AGAIN, "#aaaaaa", "the same again (A/A)"),
        (throughput.CROWD, COLOURS[DIRECT], "the service: workers"),
    ):
        seen, values = [], []
        for condition in conditions:
            try:
                values.append(throughput.calls_a_second(pairs, arm, condition))
            except NothingLeft:
                continue
            seen.append(int(condition.split()[0]))
        _line(axes, seen, values, colour, label)
    axes.set_xlabel(f"models ({samples['crowd']['model']}) called at a time")
    axes.set_ylabel("calls a second")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def on_devices(figure: Any, samples: Samples) -> None:
    """What a call takes on each device, beside in process."""
    names = [name for name in samples["models"] if devices.rows(samples, name)]
    columns = 2
    grid = figure.subplots(-(-len(names) // columns), columns, squeeze=False).ravel()
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid, names, strict=False):
        trials = devices.trials_of(samples, name)
        values = []
        for row in devices.rows(samples, name):
            if row.arm == IN_PROCESS + AGAIN:
                continue
            trial = trials.get(row.arm)
            colour, note = YARDSTICK_COLOUR, ""
            if trial is not None:
                colour = REDUCED_COLOUR if row.arm.endswith(REDUCED) else EXACT_COLOUR
                note = f"off by {shown_difference(trial.off_by)}"
            values.append(Bar(row.arm.replace(REDUCED, ", reduced"), row.whole, note, colour))
        bars(axes, name, values)


PICTURES: Mapping[str, tuple[str, Draw, tuple[float, float]]] = {
    "latency": ("one-call", latency, (10, 3.2)),
    "payload": ("one-call", payload, (6, 3.6)),
    "split": ("one-call", split, (10, 2)),
    "critical-path": ("cold", critical_path, (9, 3.2)),
    "workers": ("memory", workers, (8, 3)),
    "crowd": ("throughput", crowd, (6, 3.2)),
    "devices": ("devices", on_devices, (10, 6)),
}
"""By file name: the section whose samples are drawn, how, and its size in inches."""


def of(sections: Samples) -> list[str]:
    """The names of the pictures of the sections that were run."""
    return [name for name, (section, _, _) in PICTURES.items() if section in sections]


def draw(sections: Samples, folder: Path) -> Iterator[Path]:
    """Draw every picture whose section was run, as SVG; raises ImportError without Matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in of(sections):
        section, make, size = PICTURES[name]
        path = folder / f"{name}.svg"
        with drawn(path, *size) as figure:
            make(figure, sections[section])
        yield path


def _row(figure: Any, count: int) -> Sequence[Any]:
    """So many axes beside each other."""
    known: Sequence[Any] = figure.subplots(1, count, squeeze=False)[0]
    return known


def _line(
    axes: Any, at: Sequence[float], values: Sequence[Interval], colour: str, label: str | None
) -> None:
    """Medians, with their intervals as bars; nothing where all was disturbed.

    An axis with a line of no points could not be logarithmic.
    """
    if not values:
        return
    below = [value.median - value.low for value in values]
    above = [value.high - value.median for value in values]
    axes.errorbar(
        at,
        [value.median for value in values],
        yerr=[below, above],
        color=colour,
        label=label,
        marker="o",
        markersize=3,
        capsize=2,
    )
