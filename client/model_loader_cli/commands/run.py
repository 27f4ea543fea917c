"""`model-loader run`: one computation of a model, from files to a summary or to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import click
from rich.console import Console

import model_loader as ml

from ..devices import (
    context_options,
    device_options,
    private_devices,
    show_delegation,
    to_json,
)
from ..exits import Exit
from ..failing import warn
from ..images import SCALES
from ..inputs import gather
from ..labels import Labels, fits, packed_labels, read_labels
from ..options import (
    RUNTIMES,
    json_option,
    limit_option,
    model_argument,
    service_option,
    timeout_option,
)
from ..results import Result, output_scales, results_of, write_arrays
from ..service import service
from ..summaries import reading_summary
from ..tensors import shown_shape
from ..terminal import DIM, HEAD, console, in_bytes, in_seconds, print_json, safe, styled

USUAL_TOP = 5
"""Values that are ranked when labels are given, but no number."""

EPILOG = """\b
Examples:
  model-loader run mobilenet.tflite --input cat.png --top 3
  model-loader run add.tflite --input a=one.npy --input b=two.npy --output results/
  model-loader run recogniser.tflite --random 1 --signature serving_default --json
  model-loader run mobilenet.tflite --random 1 --device openvino --allow-fp16
"""


@click.command(epilog=EPILOG, short_help="Run a model once, in a sandbox.")
@model_argument
@click.option(
    "--input",
    "-i",
    "given",
    multiple=True,
    metavar="[NAME=]FILE",
    help="A value for an input: .npy, .npz (all its arrays, by name), or an image, which is "
    "resized to the input. Without a name: for the next input that has none. Repeatable.",
)
@click.option(
    "--random", "seed", type=int, metavar="SEED", help="Make up the inputs that are not given."
)
@click.option("--signature", metavar="KEY", help="Call this signature of the model.")
@click.option(
    "--output",
    "-o",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write each output as a .npy file into this folder.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help="Rank the N largest values of each vector, with the labels packed into the model.",
)
@click.option(
    "--labels",
    "label_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"A text file with one label a line, instead (ranks {USUAL_TOP} unless --top says else).",
)
@click.option(
    "--scale",
    type=click.Choice(SCALES),
    default=SCALES[0],
    show_default=True,
    help="What an image's 0 to 255 becomes in a floating-point input: -1 to 1, 0 to 1, or itself. "
    "uint8 inputs take it as it is, int8 inputs minus 128.",
)
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default=RUNTIMES[0],
    show_default=True,
    help="The interpreter; another than auto starts a private service.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    help="Threads of one computation (default: the service decides).",
)
@device_options
@timeout_option
@limit_option
@service_option
@json_option
def run(
    model: Path,
    given: Sequence[str],
    seed: int | None,
    signature: str | None,
    folder: Path | None,
    top: int | None,
    label_file: Path | None,
    scale: str,
    runtime: str,
    threads: int,
    timeout: float | None,
    limits: ml.Limits,
    address: str | None,
    as_json: bool,
    **devices: Any,
) -> int:
    """Run MODEL once, in a sandbox.

    The outputs are summed up in the terminal, or written to files with --output.
    """
    labels: Labels = read_labels(label_file) if label_file else ()
    enabled = private_devices(devices)
    with service(address, runtime=runtime, limits=limits, devices=enabled) as connection:
        context = ml.create_context(
            connection=connection,
            num_threads=threads,
            limits=limits,
            **context_options(devices),
        )
        with ml.MLModelLoader(context).load(model, timeout=timeout) as loaded:
            inputs, outputs = _tensors(loaded, signature)
            values = gather(given, inputs, scale=scale, seed=seed)
            began = perf_counter()
            answer = loaded.compute(values, signature=signature, timeout=timeout)
            seconds = perf_counter() - began
            count = top if top is not None else (USUAL_TOP if labels else 0)
            scales = None
            if count:
                summary = connection.inspect(model, timeout=timeout).get("file", {})
                with reading_summary():
                    labels = labels or packed_labels(summary)
                    scales = output_scales(summary, signature, outputs)
            results = results_of(answer, outputs, count=count, labels=labels, scales=scales)
            paths = write_arrays(results, folder) if folder else [None] * len(results)
            delegation = loaded.delegation()
            if as_json:
                document = _document(model, loaded, results, paths, seconds)
                print_json({**document, "delegation": to_json(delegation)})
            else:
                _show(console(), model, loaded, results, paths, seconds)
                if delegation is not None:
                    show_delegation(console(), delegation)
    if label_file and not any(fits(labels, result.array.shape) for result in results):
        warn(f"no output has one value for each of the {len(labels)} labels")
    return Exit.OK


def _tensors(
    model: ml.MLModel, signature: str | None
) -> tuple[Sequence[ml.MLTensorInfo], Sequence[ml.MLTensorInfo]]:
    """The inputs and outputs of the signature that is called; UsageError where there is none."""
    if signature is None:
        return model.inputs(), model.outputs()
    found = model.signatures()
    if signature not in found:
        known = ", ".join(safe(name) for name in found) or "none"
        raise click.UsageError(f"the model has no signature {signature!r}; it has: {known}")
    return model.inputs(signature), model.outputs(signature)


def _document(
    path: Path,
    model: ml.MLModel,
    results: Sequence[Result],
    files: Sequence[Path | None],
    seconds: float,
) -> Mapping[str, Any]:
    report = model.report
    return {
        "model": str(path),
        "sha256": report.sha256,
        "size": report.size,
        "runtime": report.runtime,
        "kernels": report.kernels,
        "note": report.note,
        "threads": report.threads,
        "load_seconds": report.load_seconds,
        "compute_seconds": seconds,
        "layers": list(model.isolation.layers),
        "missing_layers": dict(model.isolation.missing),
        "memory_held_by": model.isolation.memory_held_by,
        "devices": {name: list(grants) for name, grants in model.isolation.devices.items()},
        "outputs": [
            result.to_json() | {"file": None if file is None else str(file)}
            for result, file in zip(results, files, strict=True)
        ],
    }


def _show(
    screen: Console,
    path: Path,
    model: ml.MLModel,
    results: Sequence[Result],
    files: Sequence[Path | None],
    seconds: float,
) -> None:
    report, isolation = model.report, model.isolation
    screen.print(
        styled(
            (safe(path.name), HEAD),
            (
                f"  {in_bytes(report.size)}, {safe(report.runtime)}, {safe(report.kernels)} "
                f"kernels; loaded in {in_seconds(report.load_seconds)}, computed in "
                f"{in_seconds(seconds)}, behind {len(isolation.layers)} layers",
                DIM,
            ),
        ),
        soft_wrap=True,
    )
    if isolation.missing:
        without = f"without {', '.join(isolation.missing)} (see: model-loader doctor)"
        screen.print(styled((safe(without), DIM)), soft_wrap=True)
    if report.note:
        screen.print(styled((safe(report.note), DIM)), soft_wrap=True)
    for result, file in zip(results, files, strict=True):
        screen.print()
        kind = f"  {result.data_type} {shown_shape(result.array.shape)}"
        screen.print(styled((safe(result.name), HEAD), kind), soft_wrap=True)
        if file is not None:
            screen.print(f"  written to {safe(file)}", soft_wrap=True)
        elif not result.top:
            more = " …" if result.array.size > len(result.values()) else ""
            shown = "  ".join(safe(value) for value in result.values()) or "(no elements)"
            screen.print(f"  {shown}{safe(more)}", soft_wrap=True)
        for entry in result.top:
            label = f"  {safe(entry.label)}" if entry.label is not None else ""
            screen.print(f"  {entry.real:>12.6g}  {entry.index:>5}{label}", soft_wrap=True)
