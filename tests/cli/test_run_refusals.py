"""`model-loader run`: what goes wrong is one line, and a status that tells its kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from loader_service.writer import costly, hostile, small
from tests.cli.conftest import Command

WriteModel = Callable[[bytes], Path]


def test_missing_inputs_are_wrong_usage(command: Command, model_file: WriteModel) -> None:
    done = command("run", model_file(small.sum_and_difference()))
    assert (done.returncode, done.stdout) == (2, "")
    assert "  a  float32  [2]\n  b  float32  [2]" in done.stderr


def test_an_array_that_does_not_fit_is_wrong_usage(
    command: Command, model_file: WriteModel, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.array([1.0]))
    done = command("run", model_file(small.add()), "-i", tmp_path / "x.npy")
    assert (done.returncode, done.stdout) == (2, "")
    assert "model-loader: DataError: " in done.stderr
    assert "float64" in done.stderr


@pytest.mark.parametrize(
    ("limit", "said"),
    [("memory=1", "memory"), ("memory_bytes=much", "much"), ("memory_bytes=-1", "above zero")],
)
def test_a_wrong_limit_is_wrong_usage(
    command: Command, model_file: WriteModel, limit: str, said: str
) -> None:
    done = command("run", model_file(small.add()), "--random", 1, "--limit", limit)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_file_that_is_no_model_has_failed(command: Command, model_file: WriteModel) -> None:
    done = command("run", model_file(hostile.text_instead()), "--random", 1)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("model-loader: DataError: ")


def test_an_unsupported_operator_is_named(command: Command, model_file: WriteModel) -> None:
    done = command("run", model_file(hostile.custom_operator()), "--random", 1)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("model-loader: NotSupportedError: ")
    assert "NobodyKnowsThis" in done.stderr


def test_a_crash_is_one_line(command: Command, model_file: WriteModel, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([-(2**31)], np.int32))
    done = command("run", model_file(hostile.division_fault()), "-i", tmp_path / "x.npy")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("model-loader: OperationError: ")
    assert "SIGFPE" in done.stderr


def test_a_deadline_ends_with_the_status_of_a_limit(
    command: Command, model_file: WriteModel
) -> None:
    done = command("run", model_file(costly.endless()), "--random", 1, "--timeout", "0.5")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("model-loader: TimeoutError: ")


def test_a_limit_ends_with_its_name(command: Command, model_file: WriteModel) -> None:
    path = model_file(small.add())
    done = command("run", path, "--random", 1, "--limit", "model-bytes=100")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("model-loader: QuotaExceededError: ")
    assert "model_bytes" in done.stderr


def test_a_running_service_lets_no_limit_be_raised(
    command: Command, model_file: WriteModel, daemon: Path
) -> None:
    limit = ("--limit", "compute_seconds=999", "--address", daemon)
    done = command("run", model_file(small.add()), "--random", 1, *limit)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("model-loader: QuotaExceededError: ")
    assert "compute_seconds" in done.stderr


def test_what_is_no_address_is_wrong_usage(command: Command, model_file: WriteModel) -> None:
    done = command("run", model_file(small.add()), "--random", 1, "--address", "somewhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'somewhere' is no address" in done.stderr


def test_a_named_service_that_is_not_there_is_no_service(
    command: Command, model_file: WriteModel, tmp_path: Path
) -> None:
    done = command("run", model_file(small.add()), "--random", 1, "--address", tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert str(tmp_path) in done.stderr


def test_debug_shows_the_traceback(command: Command, model_file: WriteModel) -> None:
    done = command("--debug", "run", model_file(hostile.text_instead()), "--random", 1)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "DataError" in done.stderr
