"""`model-loader bench --device`: what is compared, what is refused, and the picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from loader_service.writer import small
from model_loader_cli.bench.candidate import candidates, enabled_for
from model_loader_wire.limits import DEFAULT_LIMITS
from tests.cli.conftest import document, run_command
from tests.devices.models import chain
from tests.devices.openvino_worker import need_openvino
from tests.support.drawing import needs_matplotlib

WriteModel = Callable[[bytes], Path]
BLOCKS = 10
SHORT = ("--pairs", 1, "--calls", 3, "--blocks", BLOCKS)
"""Of fewer blocks perhaps none was without time that was stolen from the machine."""
YARDSTICKS = ("in process", "in process again")


def test_a_service_has_each_device_that_is_compared_once() -> None:
    compared = candidates(["openvino:CPU", "external:a=/a.so", "reference", "openvino"], True)
    assert enabled_for(compared) == ("openvino", "external:a=/a.so")


@pytest.mark.slow
def test_each_device_is_measured_against_the_yardstick(model_file: WriteModel) -> None:
    path = model_file(chain(["ADD", "MUL"]))
    devices = ("--device", "reference", "--device", "xnnpack", "--allow-fp16", "--threads", 64)
    values = document(run_command("bench", path, "--trusted", *devices, *SHORT, "--json"))
    assert values["threads"] == DEFAULT_LIMITS.threads  # what the service gives
    assert [row["arm"] for row in values["arms"]] == [*YARDSTICKS, "reference", "xnnpack"]
    yardstick, *others = values["arms"]
    assert yardstick["ratio"] is None
    assert all(row["ratio"]["median"] > 0 < row["whole"]["median"] for row in others)
    by_label = {trial["label"]: trial for trial in values["devices"]}
    for name in ("reference", "xnnpack"):
        trial = by_label[name]
        assert (trial["refused"], trial["share"]) == ("", 1)
        assert trial["off_by"]["relative"] < 1e-6
        assert [part["device"] for part in trial["delegation"]["partitions"]] == [name]
        reduced = by_label[f"{name}, reduced precision"]
        assert "no device at hand honours allow_fp16" in reduced["refused"]
    assert by_label["reference"]["off_by"] == {"relative": 0, "steps": 0}
    pair, *_ = values["samples"]  # more where time was stolen throughout the first
    assert [len(block["ns"]) for block in pair["xnnpack"]["blocks"]["back to back"]] == [3] * BLOCKS


@pytest.mark.slow
def test_without_trust_the_model_stays_in_the_sandbox(model_file: WriteModel) -> None:
    done = run_command("bench", model_file(small.add()), "--device", "reference", *SHORT)
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[0] for line in done.stdout.splitlines()[2:5]] == [
        "the service, no device named",
        "the same again: noise",
        "reference",
    ]
    assert "--trusted compares them" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_reduced_precision_and_its_error_are_shown(model_file: WriteModel) -> None:
    need_openvino()
    path = model_file(chain(["MUL", "MUL"]))
    how = ("--device", "openvino", "--allow-fp16", *SHORT, "--json")
    values = document(run_command("bench", path, *how))
    exact, reduced = values["devices"]
    assert (exact["label"], reduced["label"]) == ("openvino", "openvino, reduced precision")
    assert exact["off_by"]["relative"] < 1e-6
    assert reduced["off_by"]["relative"] < 2e-2  # not every processor has a shorter type
    assert exact["share"] == reduced["share"] == 1
    assert exact["compile_seconds"] > 0


def test_what_cannot_be_measured_is_refused_first(model_file: WriteModel, tmp_path: Path) -> None:
    path = model_file(small.add())
    done = run_command("bench", path, "--allow-fp16", *SHORT)
    assert (done.returncode, "name one (--device)" in done.stderr) == (2, True)
    done = run_command("bench", path, "--device", "xnnpack", "--picture", tmp_path / "x.gif")
    assert (done.returncode, "ends with .svg or .png" in done.stderr) == (2, True)
    done = run_command("bench", path, "--device", "external:x=/no/such.so", *SHORT)
    assert done.returncode == 1
    assert "not measured: external:x" in done.stderr


@needs_matplotlib
def test_the_picture_names_every_arm(tmp_path: Path) -> None:
    from model_loader_cli.bench.drawing import Bar, draw_bars
    from model_loader_cli.bench.interval import interval

    values = [Bar(name, interval([[1.0, 2.0]]), note) for name, note in (("a", ""), ("b", "0.5"))]
    paths = [tmp_path / name for name in ("one.svg", "two.svg", "three.png")]
    for path in paths:
        draw_bars(path, "a model", values)
    root = ElementTree.parse(paths[0]).getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"a", "b", "0.5", "a model", "ms a call"} <= texts
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[2].read_bytes().startswith(b"\x89PNG")
