"""`model-loader inspect`: what a file is, told by a locked-down process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import model_loader as ml
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import hostile, small
from loader_service.writer.metadata import Description, TensorDescription, pack
from loader_service.writer.model import ModelWriter
from model_loader_cli.commands.inspect import quantization, show
from model_loader_cli.summaries import reading_summary
from model_loader_cli.terminal import console
from tests.cli.conftest import Command, document
from tests.shared_models import REPOSITORY

WriteModel = Callable[[bytes], Path]

ESCAPES = "\x1b]0;owned\x07\x1b[2J[bold]x[/bold]\r"
DIGITS = REPOSITORY / "examples" / "digits" / "digits.tflite"


def hostile_texts() -> bytes:
    """A sound model, every text of which would like to speak to the terminal."""
    model = ModelWriter(ESCAPES)
    graph = model.subgraph(ESCAPES)
    x = graph.input(ESCAPES, TensorType.FLOAT32, (1,))
    y = graph.tensor(ESCAPES + "y", TensorType.FLOAT32, (1,))
    graph.operator(ESCAPES, [x], [y], custom_options=b"")
    graph.output(y)
    model.signature(ESCAPES, graph, {ESCAPES: x}, {ESCAPES: y})
    port = TensorDescription(ESCAPES, ESCAPES, f"{ESCAPES}.txt")
    words = Description(ESCAPES, ESCAPES, ESCAPES, ESCAPES, ESCAPES, [port], [port])
    model.metadata("TFLITE_METADATA", words.encode())
    return pack(model.write(), {f"{ESCAPES}.txt": f"{ESCAPES}\n".encode() * 3})


def test_it_tells_what_the_demos_model_is(command: Command) -> None:
    done = command("inspect", DIGITS)
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        hashlib.sha256(DIGITS.read_bytes()).hexdigest(),
        "schema version  3",
        "Signature classify",
        "[?, 8, 8, 1]",
        "CONV_2D",
        "labels.txt",
        "0 | 1 | 2",
        "Handwritten digits",
        "kernels",
    ):
        assert text in done.stdout


def test_json_holds_everything(command: Command) -> None:
    value = document(command("inspect", DIGITS, "--json"))
    assert value.keys() == {
        "model",
        "file",
        "loads",
        "runtime",
        "kernels",
        "note",
        "failure",
        "sha256",
        "size",
        "isolation",
    }
    assert value["loads"] is True
    assert value["failure"] is None
    assert value["kernels"] in {"xnnpack", "builtin"}
    assert value["size"] == DIGITS.stat().st_size
    assert {"seccomp", "no-new-privileges", "rlimits"} <= set(value["isolation"]["layers"])
    file = value["file"]
    assert {"subgraphs", "operators", "signatures", "metadata", "schema_version"} <= file.keys()
    assert file["schema_version"] == 3
    assert [signature["key"] for signature in file["signatures"]] == ["classify"]
    assert {operator["name"] for operator in file["operators"]} >= {"CONV_2D", "SOFTMAX"}
    (labels,) = file["associated_files"]
    assert labels["lines"] == list("0123456789")


def test_a_model_that_the_runtime_refuses_is_told_all_the_same(
    command: Command, model_file: WriteModel
) -> None:
    path = model_file(hostile.custom_operator())
    done = command("inspect", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "NobodyKnowsThis (custom)" in done.stdout
    assert "no: " in done.stdout
    value = document(command("inspect", path, "--json"))
    assert value["loads"] is False
    assert value["failure"]["cause"] == "unsupported"


def test_a_model_that_crashes_the_runtime_is_told_all_the_same(
    command: Command, model_file: WriteModel
) -> None:
    value = document(command("inspect", model_file(hostile.abort_at_load()), "--json"))
    assert value["loads"] is False
    assert value["failure"]["cause"] == "crashed"
    assert [operator["name"] for operator in value["file"]["operators"]] == ["SUB"]


@pytest.mark.parametrize("make", [hostile.text_instead, hostile.root_outside])
def test_a_file_that_is_no_model_has_failed(
    command: Command, model_file: WriteModel, make: Callable[[], bytes]
) -> None:
    done = command("inspect", model_file(make()))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("model-loader: DataError: ")


def test_nothing_in_a_model_reaches_the_terminal(command: Command, model_file: WriteModel) -> None:
    """The fixture looks for control characters in all that a command writes."""
    path = model_file(hostile_texts())
    done = command("inspect", path)
    assert done.returncode == 0
    assert done.stdout.count("\\x1b]0;owned\\x07\\x1b[2J[bold]x[/bold]\\r") >= 12
    value = document(command("inspect", path, "--json"))
    assert "\x1b" not in repr(value)


def test_a_model_without_anything(command: Command, model_file: WriteModel) -> None:
    done = command("inspect", model_file(hostile.no_subgraphs()))
    assert done.returncode == 0
    assert "Operators\n  none" in done.stdout
    assert command("inspect", model_file(small.no_inputs())).returncode == 0


def test_an_infinite_scale_has_a_name() -> None:
    """JSON has no infinity, so the summary holds its name."""
    values = {"scale": ["inf"], "zero_point": [1], "dimension": 0, "count": 1}
    assert quantization(values) == "inf * (q - 1)"
    channels = {"scale": [0.5] * 16, "zero_point": [0] * 16, "dimension": 3, "count": 32}
    assert quantization(channels) == "32 scales along dimension 3"
    assert quantization(None) == ""


@pytest.mark.parametrize(
    "summary",
    [
        {},
        {"file": None},
        {"file": {"schema_version": 3}, "size": "large"},
        {"file": [], "size": 1, "sha256": 5},
    ],
)
def test_a_summary_of_another_form_is_one_error(summary: dict[str, Any]) -> None:
    """A worker that a model has taken over may say anything."""
    with pytest.raises(ml.UnknownError, match="has not the form"), reading_summary():
        show(console(), Path("model.tflite"), summary)
