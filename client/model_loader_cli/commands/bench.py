"""`model-loader bench`: what the service costs a call of a user's own model, or what devices do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

import model_loader as ml

from ..bench import comparison
from ..bench.arms import MODULES
from ..bench.blocks import Condition
from ..bench.comparison import BACK_TO_BACK, DIRECT, ECHO, IN_PROCESS, Row, compare
from ..bench.document import document
from ..bench.interval import NothingLeft
from ..bench.processes import ArmFailed
from ..bench.progress import reporting
from ..bench.samples import dropped
from ..exits import Exit
from ..failing import warn
from ..images import SCALES
from ..inputs import gather
from ..options import RUNTIMES, json_option, model_argument
from ..service import service
from ..tensors import DTYPES, Array, shown_tensor
from ..terminal import DIM, HEAD, add_row, console, in_bytes, print_json, safe, styled, table
from .bench_devices import bench_devices, check_picture, shown

SEED = 1
TEXTS = {
    IN_PROCESS: "in process, without a sandbox",
    f"{IN_PROCESS} again": "the same again: noise",
    DIRECT: "the service",
    f"{DIRECT} again": "the same again: noise",
    ECHO: "bare echo of as many bytes",
}
UNTRUSTED = (
    "The service was compared with itself and with a bare echo only. If you trust the model, "
    "--trusted runs it in an ordinary process too, without a sandbox, and tells the difference."
)

EPILOG = """\b
Examples:
  model-loader bench mobilenet.tflite --trusted
  model-loader bench mobilenet.tflite --threads 2 --pairs 20 --json
  model-loader bench mobilenet.tflite --trusted --device xnnpack --device openvino --allow-fp16

Each arm runs in a fresh process in each pair, in random order. Figures are medians over pairs, with
bootstrap 95 % intervals; a difference that is not clearly larger than that of the same code run
again is noise. Each arm makes pairs x blocks x calls calls, 5,000 unless told otherwise, so that a
model of 20 ms takes some minutes: --calls 10 is shorter. docs/benchmarks.md tells the method.
With --device, how far the answers are from those of the reference kernels is told, too.
"""


@click.command(epilog=EPILOG, short_help="Measure what the service costs a call of a model.")
@model_argument
@click.option(
    "--trusted",
    is_flag=True,
    help="The model may run outside of the sandbox, too: in an ordinary process, as the yardstick.",
)
@click.option(
    "--input",
    "-i",
    "given",
    multiple=True,
    metavar="[NAME=]FILE",
    help="A value for an input, as for run; the others are made up. Repeatable.",
)
@click.option(
    "--pairs",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Process pairs. Intervals mean something from ten.",
)
@click.option(
    "--calls", type=click.IntRange(min=2), default=100, show_default=True, help="Calls in a block."
)
@click.option(
    "--blocks", type=click.IntRange(min=1), default=5, show_default=True, help="Blocks a process."
)
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default=RUNTIMES[0],
    show_default=True,
    help="The interpreter, of the service and in process.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads of one computation, of the service and in process.",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="NAME",
    help="Compare the model on this device, as for run: reference, xnnpack, openvino or "
    "external:NAME=LIBRARY. Repeatable.",
)
@click.option(
    "--allow-fp16",
    is_flag=True,
    help="Measure each of these devices a second time with reduced precision.",
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Draw the devices' times into this file (.svg or .png; needs the extra bench).",
)
@json_option
def bench(
    model: Path,
    trusted: bool,
    given: Sequence[str],
    pairs: int,
    calls: int,
    blocks: int,
    runtime: str,
    threads: int,
    devices: Sequence[str],
    allow_fp16: bool,
    picture: Path | None,
    as_json: bool,
) -> int:
    """Measure what the service costs a call of MODEL, or what devices make of it.

    The service is always a private one. The model runs in its sandbox; with --trusted also in an
    ordinary process, for comparison.
    """
    if not devices and (allow_fp16 or picture is not None):
        raise click.UsageError("--allow-fp16 and --picture are about devices: name one (--device)")
    check_picture(picture)
    values, reply_bytes, report = _try_out(model, given, runtime, threads)
    condition = Condition(name=BACK_TO_BACK, calls=calls, blocks=blocks)
    if devices:
        return bench_devices(
            model,
            values,
            report,
            devices,
            allow_fp16=allow_fp16,
            trusted=trusted,
            threads=threads,
            pairs=pairs,
            condition=condition,
            seed=SEED,
            picture=picture,
            as_json=as_json,
        )
    with reporting((4 if trusted else 3) * pairs) as progress:
        try:
            samples = compare(
                model,
                values,
                reply_bytes,
                runtime=report.runtime.partition(" ")[0],
                threads=threads,
                trusted=trusted,
                pairs=pairs,
                condition=condition,
                seed=SEED,
                step=progress.part(model.name),
            )
        except ArmFailed as error:
            raise click.ClickException(safe(error)) from None
    try:
        rows = comparison.rows(samples)
    except NothingLeft as error:
        raise click.ClickException(f"{error}; run it again on a quieter machine") from None
    if as_json:
        print_json(document(model, report, rows, samples))
        return Exit.OK
    gone, everything = dropped(samples)
    _show(model, report, rows, sum(array.nbytes for array in values), reply_bytes)
    if gone:
        warn(f"{gone} of {everything} blocks were dropped: time was stolen from this machine")
    if not trusted:
        warn(UNTRUSTED)
    return Exit.OK


def _try_out(
    model: Path, given: Sequence[str], runtime: str, threads: int
) -> tuple[list[Array], int, ml.Report]:
    """Run the model once, in the sandbox: its inputs in order, its answer's size, its report.

    Raises UsageError for inputs that cannot be sent as plain bytes.
    """
    with service(None, runtime=runtime, private=True) as connection:
        context = ml.create_context(connection=connection, num_threads=threads)
        with ml.MLModelLoader(context).load(model) as loaded:
            tensors = loaded.inputs()
            for tensor in tensors:
                if tensor.data_type not in DTYPES:
                    raise click.UsageError(
                        f"only models whose inputs are numbers can be measured, not: "
                        f"{shown_tensor(tensor)}"
                    )
            by_name = gather(given, tensors, scale=SCALES[0], seed=SEED)
            answer = loaded.compute(by_name)
            values = [np.ascontiguousarray(by_name[tensor.name]) for tensor in tensors]
            reply_bytes = sum(np.asarray(output).nbytes for output in answer.values())
            if loaded.report.runtime.partition(" ")[0] not in MODULES:
                raise click.UsageError(f"{safe(loaded.report.runtime)} is no known runtime")
            return values, reply_bytes, loaded.report


def _show(model: Path, report: ml.Report, rows: Sequence[Row], sent: int, answered: int) -> None:
    screen = console()
    threads = "1 thread" if report.threads == 1 else f"{report.threads} threads"
    screen.print(
        styled(
            (safe(model.name), HEAD),
            (
                f"  {safe(report.runtime)}, {threads}, {in_bytes(sent)} in, "
                f"{in_bytes(answered)} out; milliseconds, with 95 % intervals",
                DIM,
            ),
        ),
        soft_wrap=True,
    )
    numbers = ("a call", "added", "p99 to the echo's")
    result = table("", *numbers, "pairs", right=(*numbers, "pairs"))
    for row in rows:
        added = "" if row.added is None else shown(row.added)
        p99 = "" if row.p99_to_echo is None else f"{row.p99_to_echo:.2f} x"
        add_row(result, TEXTS[row.arm], shown(row.whole), added, p99, row.whole.pairs)
    screen.print(result)
