"""`model-loader inspect`: what a model file is, read inside a sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ..exits import Exit
from ..options import address_option, json_option, model_argument, timeout_option
from ..service import service
from ..tensors import shown_shape
from ..terminal import (
    BAD,
    DIM,
    HEAD,
    ON,
    add_row,
    console,
    in_bytes,
    print_json,
    safe,
    styled,
    table,
)

EPILOG = """\b
Examples:
  model-loader inspect mobilenet.tflite
  model-loader inspect mobilenet.tflite --json | jq .file.operators
\b
The exit status is 0 when the file could be read, also if the runtime does not take the model;
`loads` in the JSON document tells that. It is 1 for a file that is no TFLite model.
"""

Values = Mapping[str, Any]

SHOWN_LINES = 3
"""Lines of a packed file that are shown."""


@click.command(epilog=EPILOG)
@model_argument
@timeout_option
@address_option
@json_option
def inspect(model: Path, timeout: float | None, address: str | None, as_json: bool) -> int:
    """Tell what MODEL is: tensors, signatures, operators, metadata, kernels.

    The file is read by a locked-down process, never by this one.
    """
    with service(address) as connection:
        summary = connection.inspect(model, timeout=timeout)
    if as_json:
        print_json({"model": str(model), **summary})
    else:
        _show(console(), model, summary)
    return Exit.OK


def _show(screen: Console, path: Path, summary: Values) -> None:
    file = summary["file"]
    screen.print(styled((safe(path.name), HEAD)), soft_wrap=True)
    facts = table("", "")
    facts.show_header = False
    add_row(facts, "size", in_bytes(summary["size"]))
    add_row(facts, "sha256", summary["sha256"])
    add_row(facts, "schema version", file["schema_version"])
    for name in ("description", "minimum_runtime_version"):
        if file[name]:
            add_row(facts, name.replace("_", " "), file[name])
    _add_verdict(facts, summary)
    add_row(facts, "read behind", f"{len(summary['isolation']['layers'])} layers")
    screen.print(facts)
    for index, graph in enumerate(file["subgraphs"]):
        if index and not (graph["inputs"] or graph["outputs"]):
            continue
        title = "" if len(file["subgraphs"]) == 1 else f"Subgraph {index} {safe(graph['name'])}: "
        _show_tensors(screen, f"{title}Inputs", [(t["name"], t) for t in graph["inputs"]])
        _show_tensors(screen, f"{title}Outputs", [(t["name"], t) for t in graph["outputs"]])
    for signature in file["signatures"]:
        title = f"Signature {safe(signature['key'])} (subgraph {signature['subgraph']})"
        for side in ("inputs", "outputs"):
            ports = [(port["name"], port["tensor"]) for port in signature[side]]
            _show_tensors(screen, f"{title}: {side}", ports)
    _show_operators(screen, file["operators"])
    _show_metadata(screen, file)
    for remark in file["remarks"]:
        screen.print(styled((f"remark: {safe(remark)}", DIM)), soft_wrap=True)


def _add_verdict(facts: Any, summary: Values) -> None:
    """Say whether the runtime takes the model, and with which kernels."""
    if summary["loads"]:
        verdict = f"yes, by {safe(summary['runtime'])} with {safe(summary['kernels'])} kernels"
        add_row(facts, "loads", styled((verdict, ON)))
        if summary["note"]:
            add_row(facts, "note", summary["note"])
    else:
        failure = summary["failure"] or {"cause": "unknown", "message": ""}
        said = f"no: {failure['message']} ({failure['cause']})"
        add_row(facts, "loads", styled((safe(said), BAD)))


def _show_tensors(screen: Console, title: str, tensors: Sequence[tuple[str, Values]]) -> None:
    screen.print()
    screen.print(styled((title, HEAD)), soft_wrap=True)
    if not tensors:
        screen.print("  none")
        return
    rows = table("name", "type", "shape", "quantization")
    for name, tensor in tensors:
        shape = tensor["shape_signature"] or tensor["shape"]
        add_row(
            rows,
            name or "(no name)",
            str(tensor["type"]).lower(),
            shown_shape(shape),
            _quantization(tensor["quantization"]),
        )
    screen.print(rows)


def _quantization(values: Values | None) -> str:
    if values is None:
        return ""
    if values["count"] > 1:
        return f"{values['count']} scales along dimension {values['dimension']}"
    zero = values["zero_point"][0] if values["zero_point"] else 0
    return f"{values['scale'][0]:.6g} * (q - {zero})"


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
        rows = table("", "")
        rows.show_header = False
        for name, value in file["metadata"].items():
            if value:
                add_row(rows, name.replace("_", " "), value)
        screen.print(rows)
    if file["associated_files"]:
        screen.print()
        screen.print(styled(("Packed files", HEAD)))
        rows = table("name", "size", "kind", "begins with", right=("size",))
        for packed in file["associated_files"]:
            first = " | ".join(packed["lines"][:SHOWN_LINES])
            kind = str(packed["kind"]).lower().replace("_", " ")
            add_row(rows, packed["name"], in_bytes(packed["size"]), kind, first)
        screen.print(rows)
