"""`model-loader bench --device`: devices beside each other on a user's own model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

import model_loader as ml

from ..bench.blocks import Condition
from ..bench.candidate import REDUCED, Candidate, Trial, candidates, enabled_for, try_out
from ..bench.comparison import AGAIN, BACK_TO_BACK, DIRECT, IN_PROCESS
from ..bench.devices import Timed, compare_devices, timed
from ..bench.document import document
from ..bench.drawing import (
    EXACT_COLOUR,
    INSTALL,
    REDUCED_COLOUR,
    SUFFIXES,
    YARDSTICK_COLOUR,
    Bar,
    can_draw,
    draw_bars,
)
from ..bench.interval import Interval, NothingLeft
from ..bench.numerical import shown_difference
from ..bench.processes import ArmFailed
from ..bench.progress import reporting
from ..bench.samples import dropped
from ..exits import Exit
from ..failing import warn
from ..service import service
from ..tensors import Array
from ..terminal import DIM, HEAD, add_row, console, in_seconds, print_json, safe, styled, table

TEXTS = {
    IN_PROCESS: "in process, without a sandbox",
    DIRECT: "the service, no device named",
    IN_PROCESS + AGAIN: "the same again: noise",
    DIRECT + AGAIN: "the same again: noise",
}

UNTRUSTED = (
    "The devices were compared with the service's usual kernels. If you trust the model, --trusted "
    "compares them with an ordinary process without a sandbox."
)


def check_picture(picture: Path | None) -> None:
    """Raise UsageError for a picture that cannot be drawn, before anything is measured."""
    if picture is None:
        return
    if picture.suffix not in SUFFIXES:
        raise click.UsageError(f"{picture}: a picture ends with {' or '.join(SUFFIXES)}")
    if not can_draw():
        raise click.UsageError(f"pictures need Matplotlib: {INSTALL}")


def bench_devices(
    model: Path,
    inputs: Sequence[Array],
    report: ml.Report,
    devices: Sequence[str],
    *,
    allow_fp16: bool,
    trusted: bool,
    threads: int,
    pairs: int,
    condition: Condition,
    seed: int,
    picture: Path | None,
    as_json: bool,
) -> int:
    """Try each device, measure those that run the model, and show the figures."""
    runtime = report.runtime.partition(" ")[0]
    asked = candidates(devices, allow_fp16)
    with service(None, runtime=runtime, private=True, devices=enabled_for(asked)) as connection:
        trials = list(try_out(connection, model, inputs, asked, threads))
    refused = [trial for trial in trials if trial.refused]
    chosen = [item for item, trial in zip(asked, trials, strict=True) if not trial.refused]
    if not chosen:
        raise click.ClickException(_reasons(refused))
    samples = _measure(
        model,
        inputs,
        chosen,
        runtime=runtime,
        threads=threads,
        trusted=trusted,
        pairs=pairs,
        condition=condition,
        seed=seed,
    )
    try:
        rows = timed(samples, BACK_TO_BACK)
    except NothingLeft as error:
        raise click.ClickException(f"{error}; run it again on a quieter machine") from None
    by_label = {trial.label: trial for trial in trials}
    if picture is not None:
        draw_bars(picture, safe(model.name), [_bar(row, by_label.get(row.arm)) for row in rows])
    if as_json:
        print_json(
            {
                **document(model, report, rows, samples),
                "devices": [trial.to_json() for trial in trials],
            }
        )
        return Exit.OK
    _show(model, report, rows, by_label, trusted)
    if refused:
        warn(_reasons(refused))
    if not trusted:
        warn(UNTRUSTED)
    gone, everything = dropped(samples)
    if gone:
        warn(f"{gone} of {everything} blocks were dropped: time was stolen from this machine")
    return Exit.OK


def _measure(
    model: Path, inputs: Sequence[Array], chosen: Sequence[Candidate], *, pairs: int, **how: Any
) -> list[dict[str, Any]]:
    with reporting((len(chosen) + 2) * pairs) as progress:
        try:
            return compare_devices(
                model, inputs, chosen, pairs=pairs, step=progress.part(model.name), **how
            )
        except ArmFailed as error:
            raise click.ClickException(safe(error)) from None


def _reasons(refused: Sequence[Trial]) -> str:
    return "\n".join(f"not measured: {trial.label}: {safe(trial.refused)}" for trial in refused)


def _bar(row: Timed, trial: Trial | None) -> Bar:
    if trial is None:
        return Bar(TEXTS[row.arm], row.whole, colour=YARDSTICK_COLOUR)
    colour = REDUCED_COLOUR if trial.label.endswith(REDUCED) else EXACT_COLOUR
    return Bar(row.arm, row.whole, f"off by {shown_difference(trial.off_by)}", colour)


def _show(
    model: Path,
    report: ml.Report,
    rows: Sequence[Timed],
    trials: Mapping[str, Trial],
    trusted: bool,
) -> None:
    screen = console()
    threads = "1 thread" if report.threads == 1 else f"{report.threads} threads"
    about = f"  {safe(report.runtime)}, {threads}; milliseconds, with 95 % intervals"
    screen.print(styled((safe(model.name), HEAD), (about, DIM)), soft_wrap=True)
    ratio = "of in process" if trusted else "of no device"
    numbers = ("a call", ratio, "off by", "operators", "compiled in", "pairs")
    result = table("", *numbers, right=numbers)
    for row in rows:
        trial = trials.get(row.arm)
        cells = ["", "", ""]
        if trial is not None:
            took = trial.compile_seconds
            cells = [
                shown_difference(trial.off_by),
                f"{trial.share:.0%}",
                in_seconds(took) if took else "",
            ]
        times = "" if row.ratio is None else f"{shown(row.ratio)} x"
        add_row(
            result, TEXTS.get(row.arm, row.arm), shown(row.whole), times, *cells, row.whole.pairs
        )
    screen.print(result)


def shown(value: Interval) -> str:
    """A median and its interval."""
    return f"{value.median:.3f} [{value.low:.3f}, {value.high:.3f}]"
