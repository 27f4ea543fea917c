"""`model-loader inspect`: what a model file is, read inside a sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

import model_loader as ml
from model_loader_wire.causes import MESSAGE_LENGTH

from ..devices import (
    context_options,
    device_options,
    private_devices,
    show_delegation,
    to_json,
)
from ..exits import Exit
from ..options import json_option, model_argument, service_option, timeout_option
from ..service import service
from ..summaries import reading_summary
from ..tensors import shown_shape
from ..terminal import (
    BAD,
    DIM,
    HEAD,
    ON,
    add_row,
    console,
    in_bytes,
    print_facts,
    print_json,
    safe,
    styled,
    table,
)

EPILOG = """\b
Examples:
  model-loader inspect mobilenet.tflite
  model-loader inspect mobilenet.tflite --json | jq .file.operators
  model-loader inspect mobilenet.tflite --devices
\b
The exit status is 0 when the file could be read, also if the runtime does not take the model;
`loads` in the JSON document tells that. It is 1 for a file that is no TFLite model.
"""

Values = Mapping[str, Any]
Ports = Sequence[tuple[str, Values]]
"""Inputs or outputs: the names that callers use, and the tensors behind them."""

SHOWN_LINES = 3
"""Lines of a packed file that are shown."""


@click.command(epilog=EPILOG, short_help="Tell what a model file is.")
@model_argument
@click.option(
    "--devices",
    "with_devices",
    is_flag=True,
    help="Load it, too, and tell which device would run which of its operators, and why.",
)
@device_options
@timeout_option
@service_option
@json_option
def inspect(
    model: Path,
    with_devices: bool,
    timeout: float | None,
    address: str | None,
    as_json: bool,
    **devices: Any,
) -> int:
    """Tell what MODEL is: tensors, signatures, operators, metadata, kernels.

    The file is read by a locked-down process, never by this one.
    """
    if with_devices and all(value is None for value in devices.values()):
        devices["execution_preference"] = "undefined"
    options, delegation = context_options(devices), None
    with service(address, devices=private_devices(devices)) as connection:
        summary = connection.inspect(model, timeout=timeout)
        if options and summary.get("loads"):
            context = ml.create_context(connection=connection, **options)
            with ml.MLModelLoader(context).load(model, timeout=timeout) as loaded:
                delegation = loaded.delegation()
    if as_json:
        shared = {"delegation": to_json(delegation)} if options else {}
        print_json({"model": str(model), **summary, **shared})
    else:
        with reading_summary():
            show(console(), model, summary)
        if delegation is not None:
            show_delegation(console(), delegation)
    return Exit.OK


def show(screen: Console, path: Path, summary: Values) -> None:
    """Print the summary for people."""
    file = summary["file"]
    screen.print(styled((safe(path.name), HEAD)), soft_wrap=True)
    facts: list[tuple[str, object]] = [
        ("size", in_bytes(summary["size"])),
        ("sha256", summary["sha256"]),
        ("schema version", file["schema_version"]),
    ]
    for name in ("description", "minimum_runtime_version"):
        if file[name]:
            facts.append((name.replace("_", " "), file[name]))
    if len(file["subgraphs"]) > 1:
        facts.append(("subgraphs", len(file["subgraphs"])))
    facts += _verdict(summary)
    facts.append(("read behind", f"{len(summary['isolation']['layers'])} layers"))
    print_facts(screen, facts)
    for graph in file["subgraphs"][:1]:
        _show_tensors(
            screen,
            "Tensors",
            [(tensor["name"], tensor) for tensor in graph["inputs"]],
            [(tensor["name"], tensor) for tensor in graph["outputs"]],
        )
    for signature in file["signatures"]:
        _show_tensors(
            screen,
            f"Signature {safe(signature['key'])}",
            [(port["name"], port["tensor"]) for port in signature["inputs"]],
            [(port["name"], port["tensor"]) for port in signature["outputs"]],
        )
    _show_operators(screen, file["operators"])
    _show_metadata(screen, file)
    for remark in file["remarks"]:
        screen.print(styled((f"remark: {safe(remark)}", DIM)), soft_wrap=True)


def _verdict(summary: Values) -> list[tuple[str, object]]:
    """Say whether the runtime takes the model, and with which kernels."""
    if not summary["loads"]:
        failure = summary["failure"] or {"cause": "unknown", "message": ""}
        said = f"no: {failure['message']} ({failure['cause']})"
        return [("loads", styled((safe(said, MESSAGE_LENGTH), BAD)))]
    said = f"yes, by {summary['runtime']} with {summary['kernels']} kernels"
    facts: list[tuple[str, object]] = [("loads", styled((safe(said), ON)))]
    return [*facts, ("note", summary["note"])] if summary["note"] else facts


def _show_tensors(screen: Console, title: str, inputs: Ports, outputs: Ports) -> None:
    screen.print()
    screen.print(styled((title, HEAD)), soft_wrap=True)
    if not inputs and not outputs:
        screen.print("  none")
        return
    quantized = any(tensor["quantization"] for _, tensor in [*inputs, *outputs])
    rows = table("", "name", "type", "shape", *(["quantization"] if quantized else []))
    for side, ports in (("in", inputs), ("out", outputs)):
        for name, tensor in ports:
            shape = tensor["shape_signature"] or tensor["shape"]
            cells = [side, name or "(no name)", str(tensor["type"]).lower(), shown_shape(shape)]
            add_row(rows, *cells, *([quantization(tensor["quantization"])] if quantized else []))
    screen.print(rows)


def quantization(values: Values | None) -> str:
    """How stored numbers become real ones, in a few words; "" for a tensor without that."""
    if values is None:
        return ""
    if values["count"] > 1:
        return f"{values['count']} scales along dimension {values['dimension']}"
    zero = values["zero_point"][0] if values["zero_point"] else 0
    scale = values["scale"][0]
    # JSON has no infinity: such a scale comes as its name.
    shown = f"{scale:.6g}" if isinstance(scale, float) else str(scale)
    return f"{shown} * (q - {zero})"


def _show_operators(screen: Console, operators: Sequence[Values]) -> None:
    screen.print()
    screen.print(styled(("Operators", HEAD)))
    if not operators:
        screen.print("  none")
        return
    rows = table("count", "operator", "version", right=("count", "version"))
    for operator in operators:
        name = f"{operator['name']} (custom)" if operator["custom"] else operator["name"]
        add_row(rows, operator["count"], name, operator["version"])
    screen.print(rows)


def _show_metadata(screen: Console, file: Values) -> None:
    if file["metadata"]:
        screen.print()
        screen.print(styled(("Metadata", HEAD)))
        written = [(name.replace("_", " "), value) for name, value in file["metadata"].items()]
        print_facts(screen, [(name, value) for name, value in written if value])
    if file["associated_files"]:
        screen.print()
        screen.print(styled(("Packed files", HEAD)))
        rows = table("name", "size", "kind", "begins with", right=("size",))
        for packed in file["associated_files"]:
            first = " | ".join(packed["lines"][:SHOWN_LINES])
            kind = str(packed["kind"]).lower().replace("_", " ")
            add_row(rows, packed["name"], in_bytes(packed["size"]), kind, first)
        screen.print(rows)
