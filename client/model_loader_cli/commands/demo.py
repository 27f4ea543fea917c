"""`model-loader demo`: a real model in a sandbox, what that costs, and hostile models stopped."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.text import Text

import model_loader as ml

from ..demo.attacks import Attack, Fate, attacks, launch
from ..demo.cost import Cost, measure
from ..demo.digits import INK, Digits, find_digits
from ..demo.pictures import pictures
from ..exits import Exit
from ..options import address_option
from ..service import service
from ..tensors import Array
from ..terminal import (
    BAD,
    DIM,
    HEAD,
    OFF,
    ON,
    console,
    in_bytes,
    in_seconds,
    safe,
    styled,
)

PROMISED = 0.97
"""The part of the held-back digits that must be named rightly."""
SHOWN = 8
SHOWN_WRONG = 2
"""Of the shown digits, how many the model got wrong, where there are any."""
WIDEST = 80

EPILOG = """\b
Examples:
  model-loader demo
  model-loader demo --address /run/model-loader
\b
The exit status is 1 when anything was not as promised.
"""


@click.command(epilog=EPILOG, short_help="Read digits in a sandbox, and stop hostile models.")
@click.option(
    "--digits",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of the model and the digits (default: examples/digits of the source code).",
)
@address_option
def demo(folder: Path | None, address: str | None) -> int:
    """Read handwritten digits in a sandbox, measure the cost, and stop hostile models."""
    digits = find_digits(folder)
    hostile = attacks()
    screen = console()
    with service(address) as connection:
        context = ml.create_context(connection=connection, num_threads=1)
        with ml.MLModelLoader(context).load(digits.model) as model:
            _show_head(screen, connection, model, digits)
            probabilities = model.compute({"image": digits.batch()}, signature="classify")
            answers = np.argmax(probabilities["probabilities"], axis=1)
            accuracy = float(np.mean(answers == digits.labels))
            _show_digits(screen, digits, answers, accuracy)
            _show_layers(screen, model)
            _show_cost(screen, measure(model, digits, model.report.runtime))
            good = accuracy >= PROMISED
            screen.print(styled(("Hostile models", HEAD), ", while the digits go on being read:"))
            for attack in hostile:
                fate = launch(attack, connection, model, digits.batch(), answers)
                _show_fate(screen, attack, fate)
                good = good and fate.as_promised(attack)
    screen.print()
    if good:
        screen.print(styled(("All as promised.", ON)))
        return Exit.OK
    screen.print(styled(("Not as promised: see above.", BAD)))
    return Exit.FAILED


def _show_head(
    screen: Console, connection: ml.Connection, model: ml.MLModel, digits: Digits
) -> None:
    kind = "a private one, for this demo" if connection.embedded else connection.address
    report = model.report
    screen.print(styled(("Handwritten digits, read by a model in a sandbox", HEAD)))
    screen.print()
    for name, text in (
        ("service", kind),
        ("model", f"{digits.model.name}, {in_bytes(report.size)}, sha256 {report.sha256[:16]}"),
        ("runtime", f"{report.runtime}, {report.kernels} kernels, {report.threads} thread"),
        (
            "worker",
            f"process {model.isolation.worker_pid}, ready {in_seconds(report.load_seconds)} "
            "after the upload began",
        ),
    ):
        screen.print(styled((f"  {name:<9}", DIM), safe(text)), soft_wrap=True)
    screen.print()


def _show_digits(screen: Console, digits: Digits, answers: Array, accuracy: float) -> None:
    right = answers == digits.labels
    wrong = np.flatnonzero(~right)[:SHOWN_WRONG]
    chosen = np.concatenate([np.flatnonzero(right)[: SHOWN - len(wrong)], wrong])
    captions = [_caption(int(answers[place]), int(digits.labels[place])) for place in chosen]
    columns = min(screen.width, WIDEST)
    for line in pictures(digits.images[chosen], captions, INK, columns):
        screen.print(line, soft_wrap=True)
    verdict = (f"{accuracy:.1%} right", ON if accuracy >= PROMISED else BAD)
    counts = f"  {int(right.sum())} of {len(right)} digits that it never saw in training: "
    screen.print(styled(counts, verdict, f" (promised: {PROMISED:.0%})"), soft_wrap=True)
    screen.print()


def _caption(answer: int, label: int) -> Text:
    if answer == label:
        return styled((f"it is a {answer}", ON))
    return styled((f"{answer}? it is a {label}", OFF))


def _show_layers(screen: Console, model: ml.MLModel) -> None:
    isolation = model.isolation
    screen.print(
        styled(
            ("The worker's layers", HEAD),
            f" (memory held by {safe(isolation.memory_held_by)}; more: model-loader doctor)",
        ),
        soft_wrap=True,
    )
    width = min(screen.width, WIDEST)
    line = Text("  ")
    for layer in isolation.layers:
        if len(line) + len(layer) + 2 > width:
            screen.print(line, soft_wrap=True)
            line = Text("  ")
        line.append(f"{safe(layer)}  ", ON)
    screen.print(line, soft_wrap=True)
    for layer, reason in isolation.missing.items():
        screen.print(styled(("  without ", OFF), f"{safe(layer)}: {safe(reason)}"), soft_wrap=True)
    screen.print()


def _show_cost(screen: Console, cost: Cost | None) -> None:
    screen.print(styled(("What a call costs", HEAD), ", for one digit:"))
    if cost is None:
        screen.print("  not measured: the service's runtime is not installed here to compare with")
    else:
        for name, seconds in (
            ("in the sandbox", cost.sandboxed),
            ("in an ordinary process", cost.in_process),
            ("the difference", cost.added),
        ):
            screen.print(f"  {name:<24}{in_seconds(seconds):>8}")
        note = f"  (rough: medians of {cost.calls} calls each, taken in turn on a busy machine)"
        screen.print(styled((note, DIM)), soft_wrap=True)
    screen.print()


def _show_fate(screen: Console, attack: Attack, fate: Fate) -> None:
    stopped = fate.as_promised(attack)
    mark = ("stopped", ON) if stopped else ("NOT AS PROMISED", BAD)
    screen.print()
    screen.print(
        styled(
            "  ", (f"one that {attack.title}: ", HEAD), mark, f" after {in_seconds(fate.seconds)}"
        ),
        soft_wrap=True,
    )
    error = fate.error
    if isinstance(error, ml.ModelLoaderError):
        said = f"{type(error).__name__}: {error.message}"
    else:
        said = f"{error}" if error else "it was not stopped"
    screen.print(f"    {safe(said)}", soft_wrap=True)
    if fate.neighbour is not None:
        other = styled((f"    the digits model failed: {safe(fate.neighbour)}", BAD))
    else:
        other = styled(
            f"    meanwhile {fate.answers} digits were read, {fate.wrong or 'none'} wrongly; "
            f"the slowest took {in_seconds(fate.longest)}"
        )
    screen.print(other, soft_wrap=True)
