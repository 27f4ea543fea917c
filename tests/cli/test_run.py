"""`model-loader run`: from files to a summary, to JSON or to files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from loader_service.runtime.runtimes import installed_runtimes
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import small
from loader_service.writer.metadata import Description, TensorDescription, pack
from loader_service.writer.model import ModelWriter
from model_loader_cli.options import read_limits
from tests.cli.conftest import Command, document, run_command

WriteModel = Callable[[bytes], Path]

HOSTILE_NAME = "\x1b]0;owned\x07\x1b[31m[bold]x[/bold]\r"


def classifier(name: str = "x", output: str = "scores") -> bytes:
    """x: float32[1, 3] → scores: float32[1, 3] = x + x, with three labels packed in."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input(name, TensorType.FLOAT32, (1, 3))
    y = graph.tensor(output, TensorType.FLOAT32, (1, 3))
    graph.operator(BuiltinOperator.ADD, [x, x], [y])
    graph.output(y)
    description = Description(
        "classifier",
        "",
        "1",
        "",
        "",
        [TensorDescription(name, "")],
        [TensorDescription(output, "", "labels.txt")],
    )
    model.metadata("TFLITE_METADATA", description.encode())
    return pack(model.write(), {"labels.txt": b"cat\ndog\n\x1b[31mred\n"})


def vector(folder: Path, *values: float) -> Path:
    path = folder / "x.npy"
    np.save(path, np.array([values], np.float32))
    return path


def test_the_answer_is_shown(command: Command, model_file: WriteModel, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([41], np.float32))
    done = command("run", model_file(small.add()), "--input", tmp_path / "x.npy")
    assert (done.returncode, done.stderr) == (0, "")
    assert "model.tflite" in done.stdout
    assert "y  float32 [1]\n  42" in done.stdout


def test_json_holds_the_answer_and_how_it_was_made(
    command: Command, model_file: WriteModel, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.array([41], np.float32))
    path = model_file(small.add())
    done = command("run", path, "-i", f"x={tmp_path / 'x.npy'}", "--json", "--threads", 1)
    value = document(done)
    assert value.keys() == {
        "model",
        "sha256",
        "size",
        "runtime",
        "kernels",
        "note",
        "threads",
        "load_seconds",
        "compute_seconds",
        "layers",
        "missing_layers",
        "memory_held_by",
        "devices",
        "outputs",
        "delegation",
    }
    assert value["model"] == str(path)
    assert value["size"] == path.stat().st_size
    assert len(value["sha256"]) == 64
    assert {"seccomp", "no-new-privileges", "rlimits"} <= set(value["layers"])
    assert value["threads"] == 1
    assert value["outputs"] == [
        {
            "name": "y",
            "data_type": "float32",
            "shape": [1],
            "values": [42.0],
            "top": [],
            "file": None,
        }
    ]


def test_outputs_are_written_as_arrays(
    command: Command, model_file: WriteModel, tmp_path: Path
) -> None:
    path = model_file(small.sum_and_difference())
    np.savez(tmp_path / "in.npz", a=np.array([3, 4], "f4"), b=np.array([1, 1], "f4"))
    folder = tmp_path / "out"
    done = command("run", path, "-i", tmp_path / "in.npz", "-o", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(file.name for file in folder.iterdir()) == ["difference.npy", "sum.npy"]
    assert np.load(folder / "sum.npy").tolist() == [4, 5]
    assert np.load(folder / "difference.npy").tolist() == [2, 3]


def test_top_names_the_labels_packed_into_the_model(
    command: Command, model_file: WriteModel, tmp_path: Path
) -> None:
    path = model_file(classifier())
    done = command("run", path, "-i", vector(tmp_path, 0.5, 2, 1), "--top", 2)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()[-2:]]
    assert lines == [["4", "1", "dog"], ["2", "2", "\\x1b[31mred"]]


def test_labels_come_from_a_file_too(
    command: Command, model_file: WriteModel, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\nthree\n")
    path = model_file(classifier())
    done = command("run", path, "-i", vector(tmp_path, 1, 2, 3), "--labels", labels, "--json")
    (output,) = document(done)["outputs"]
    assert [entry["label"] for entry in output["top"]] == ["three", "two", "one"]
    labels.write_text("one\n")
    done = command("run", path, "-i", vector(tmp_path, 1, 2, 3), "--labels", labels)
    assert done.returncode == 0
    assert "no output has one value for each of the 1 labels" in done.stderr


def test_a_signature_is_called_by_name(
    command: Command, model_file: WriteModel, tmp_path: Path
) -> None:
    path = model_file(small.two_signatures())
    np.savez(tmp_path / "in.npz", a=np.array([3, 4], "f4"), b=np.array([1, 1], "f4"))
    done = command("run", path, "-i", tmp_path / "in.npz", "--signature", "subtract", "--json")
    assert [output["values"] for output in document(done)["outputs"]] == [[2.0, 3.0]]
    done = command("run", path, "-i", tmp_path / "in.npz", "--signature", "divide")
    assert done.returncode == 2
    assert "no signature 'divide'; it has: add, subtract" in done.stderr


def test_made_up_inputs_give_the_same_answer_each_time(
    command: Command, model_file: WriteModel
) -> None:
    path = model_file(small.sum_and_difference())
    first, second = (
        document(command("run", path, "--random", 5, "--json"))["outputs"] for _ in range(2)
    )
    assert first == second
    assert len(first) == 2


def test_a_higher_limit_gets_a_private_service_that_has_it(model_file: WriteModel) -> None:
    limit = ("--limit", "compute_seconds=999")
    done = run_command("run", model_file(small.add()), "--random", 1, *limit)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_runtime_gets_a_private_service_that_has_it(
    command: Command, model_file: WriteModel
) -> None:
    name = installed_runtimes()[0].name
    path = model_file(small.add())
    done = run_command("run", path, "--random", 1, "--runtime", name, "--json")
    assert document(done)["runtime"].startswith(f"{name} ")
    done = command("run", path, "--random", 1, "--runtime", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs a private service" in done.stderr


def test_names_of_tensors_cannot_reach_the_terminal(
    command: Command, model_file: WriteModel, tmp_path: Path
) -> None:
    path = model_file(classifier(HOSTILE_NAME, HOSTILE_NAME + "out"))
    listed = command("run", path)
    assert listed.returncode == 2
    assert "\\x1b[31m" in listed.stderr
    done = command("run", path, "-i", vector(tmp_path, 1, 2, 3))
    assert done.returncode == 0
    assert "\\x1b]0;owned\\x07\\x1b[31m[bold]x[/bold]\\rout" in done.stdout
    done = command("run", path, "-i", vector(tmp_path, 1, 2, 3), "--json")
    (output,) = document(done)["outputs"]
    assert "\x1b" not in output["name"]
    assert output["name"].endswith("[bold]x[/bold]\\rout")


def test_limits_are_whole_numbers_or_seconds() -> None:
    option = click.Option(["--limit"])
    given = ("cpu_seconds=5", "compute-seconds=0.5", "threads=1")
    limits = read_limits(click.Context(click.Command("run")), option, given)
    assert (limits.cpu_seconds, limits.compute_seconds, limits.threads) == (5, 0.5, 1)
    assert isinstance(limits.cpu_seconds, int)
