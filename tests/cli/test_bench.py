"""`model-loader bench`: the arms, what is said of them, what never leaves the sandbox."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import hostile, small
from tests.cli.conftest import document, run_command

WriteModel = Callable[[bytes], Path]
BLOCKS = 10
SHORT = ("--pairs", 1, "--calls", 10, "--blocks", BLOCKS)
"""Of fewer blocks perhaps none was without time that was stolen from the machine."""


def test_a_trusted_model_is_compared_with_itself_in_process(
    model_file: WriteModel, tmp_path: Path
) -> None:
    """On inputs that come from a file."""
    np.save(tmp_path / "batch.npy", np.ones((3, 4), np.float32))
    given = ("--input", tmp_path / "batch.npy")
    done = run_command("bench", model_file(small.dynamic_batch()), "--trusted", *SHORT, *given)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "48 B in, 48 B out" in lines[0]
    assert [line.split("  ")[0] for line in lines[2:6]] == [
        "in process, without a sandbox",
        "the same again: noise",
        "the service",
        "bare echo of as many bytes",
    ]
    assert "without a sandbox" not in done.stderr


def test_json_holds_every_call_of_every_block(model_file: WriteModel) -> None:
    path = model_file(small.sum_and_difference())
    values = document(run_command("bench", path, "--trusted", *SHORT, "--pairs", 2, "--json"))
    assert [row["arm"] for row in values["arms"]] == [
        "in process",
        "in process again",
        "direct",
        "echo",
    ]
    assert values["unit"] == "milliseconds"
    assert values["machine"]["cores"] > 0
    assert len(values["samples"]) >= 2  # more where time was stolen throughout one
    for pair in values["samples"]:
        for arm in pair.values():
            assert [len(block["ns"]) for block in arm["blocks"]["back to back"]] == [10] * BLOCKS
    for row in values["arms"]:
        assert row["whole"]["low"] <= row["whole"]["median"] <= row["whole"]["high"]
        assert row["p99_to_echo"] is None  # too few calls to say


def test_an_untrusted_model_never_runs_in_process(model_file: WriteModel) -> None:
    # In an ordinary process this model would end it.
    done = run_command("bench", model_file(hostile.abort_at_load()), *SHORT)
    assert done.returncode == 1
    assert "SIGABRT" in done.stderr
    done = run_command("bench", model_file(small.add()), *SHORT)
    assert [line.split("  ")[0] for line in done.stdout.splitlines()[2:5]] == [
        "the service",
        "the same again: noise",
        "bare echo of as many bytes",
    ]
    assert "--trusted runs it in an ordinary process" in " ".join(done.stderr.split())


def test_inputs_that_are_no_numbers_are_refused(model_file: WriteModel) -> None:
    done = run_command("bench", model_file(small.copy(TensorType.STRING)), *SHORT)
    assert done.returncode == 2
    assert "only models whose inputs are numbers can be measured" in done.stderr
