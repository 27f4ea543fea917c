"""The commands that see and steer a running daemon, as its own user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import model_loader as ml
from loader_service.writer import small
from model_loader_cli.commands.top import add_rates
from model_loader_cli.steering.rows import user_name
from tests.cli.conftest import BIN, SECONDS, Command, document, environment, run_command

ONE = np.ones(1, np.float32)


@pytest.fixture
def model(daemon: Path) -> Iterator[ml.MLModel]:
    """A model in the daemon, of an origin of its own, that has computed once."""
    with (
        ml.connect(daemon, origin="of a test") as connection,
        ml.MLModelLoader(ml.create_context(connection=connection)).load(small.add()) as model,
    ):
        model.compute(ONE)
        yield model


def lost(model: ml.MLModel) -> ml.Lost:
    """Wait until the model is lost; returns why."""
    ends = time.monotonic() + SECONDS
    while (why := model.lost) is None:
        assert time.monotonic() < ends
        time.sleep(0.02)
    return why


def row_of(command: Command) -> dict[str, object]:
    """The one model of the origin of the fixture."""
    rows = document(command("ps", "--json"))["models"]
    (row,) = [row for row in rows if row["origin"] == "of a test"]
    assert isinstance(row, dict)
    return row


def test_status_tells_how_the_service_is(command: Command, daemon: Path, model: ml.MLModel) -> None:
    facts = document(command("status", "--json"))
    assert facts["service"] == str(daemon)
    assert (facts["ready"], facts["draining"], facts["uid"]) == (True, False, os.geteuid())
    assert facts["layers"] == list(model.isolation.layers)
    (user,) = facts["users"]
    assert (user["user"], user["models"], user["loading"]) == (os.geteuid(), 1, 0)
    assert user["memory_bytes"] > 0
    assert facts["workers"] >= 1
    text = command("status").stdout
    assert "ready" in text
    assert user_name(os.geteuid()) in text


def test_without_a_service_the_status_is_3(tmp_path: Path) -> None:
    done = run_command("status", "--json", "--address", tmp_path)
    assert done.returncode == 3
    assert document(done) == {"service": None}


def test_ps_of_an_administrator_names_the_user(command: Command, model: ml.MLModel) -> None:
    assert row_of(command)["user"] == os.geteuid()
    head, line = command("ps").stdout.splitlines()[:2]
    assert head.split()[:2] == ["user", "id"]
    assert line.split()[0] == user_name(os.geteuid())


@pytest.mark.parametrize("whole", [True, False])
def test_kill_ends_the_model_of_an_id(command: Command, model: ml.MLModel, whole: bool) -> None:
    model_id = str(row_of(command)["model_id"])
    done = command("kill", model_id if whole else model_id[:8])
    assert (done.returncode, done.stdout) == (0, "1 model was ended\n")
    why = lost(model)
    assert (why.reason, why.detail) == ("killed", "an administrator ended it")


def test_kill_ends_what_an_origin_has_and_nothing_else(
    command: Command, daemon: Path, model: ml.MLModel
) -> None:
    user = str(os.geteuid())
    with (
        ml.connect(daemon, origin="another") as connection,
        ml.MLModelLoader(ml.create_context(connection=connection)).load(small.add()) as other,
    ):
        done = command("kill", "--user", user, "--origin", "of a test", "--json")
        assert document(done) == {"models": 1}
        assert lost(model).reason == "killed"
        assert other.compute(ONE) == 2
        assert document(command("kill", "--user", user_name(os.geteuid()), "--json"))["models"] == 1
        assert lost(other).reason == "killed"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["kill"], "give the ID of a model, or --user"),
        (["kill", "x", "--user", "0"], "give the ID of a model, or --user"),
        (["kill", "x", "--origin", "y"], "an origin is a user's"),
        (["kill", "zz"], "no model has an id that begins with 'zz'"),
        (["kill", "--user", "nobody-of-that-name"], "there is no user"),
        (["events", "--all"], "give --follow, too"),
        (["drain", "--cancel", "--wait"], "nothing to wait for"),
        (["limits", "set", "threads"], "is not NAME=NUMBER or NAME=none"),
        (["limits", "set", "threads=0"], "limit threads must be above zero"),
        (["limits", "show", "--policy", "vision"], "there is no policy 'vision'"),
        (["drain", "--seconds", "1e9"], "0 to 604800 seconds"),
    ],
)
def test_wrong_usage_is_status_2(command: Command, words: list[str], text: str) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert text in done.stderr


def test_events_tell_what_has_happened(command: Command, model: ml.MLModel) -> None:
    model_id = row_of(command)["model_id"]
    command("kill", model_id)
    lost(model)
    lines = [json.loads(line) for line in command("events", "--json").stdout.splitlines()]
    numbers = [line["number"] for line in lines]
    assert numbers == sorted(set(numbers))
    own = {line["kind"]: line for line in lines if line["facts"].get("model_id") == model_id}
    assert own.keys() == {"load-ready", "model-lost"}
    assert own["load-ready"]["request"]
    assert own["load-ready"]["facts"]["origin"] == "of a test"
    assert own["model-lost"]["facts"]["cause"] == "killed"
    assert own["model-lost"]["level"] == "warning"
    text = command("events").stdout
    assert "model-lost" in text
    assert "(an administrator ended it)" in text


def test_events_follow_what_happens(daemon: Path) -> None:
    process = subprocess.Popen(
        [str(BIN / "model-loader"), "events", "--follow", "--all", "--json"],
        env=environment({"MODEL_LOADER_ADDRESS": str(daemon), "PYTHONUNBUFFERED": "1"}),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        # The first line shows that it follows: what comes now, it sees.
        first = json.loads(process.stdout.readline())
        with (
            ml.connect(daemon, origin="followed", relay=True) as connection,
            ml.MLModelLoader(ml.create_context(connection=connection)).load(small.add()) as model,
        ):
            model.compute(ONE)
        seen = []
        while "session-closed" not in seen:
            event = json.loads(process.stdout.readline())
            assert event["number"] > first["number"]
            if event["facts"].get("origin") == "followed":
                seen.append(event["kind"])
        # A worker's death comes before or after its model's.
        wanted = ["session-opened", "load-began", "load-ready", "computed", "model-closed"]
        assert [kind for kind in seen if kind in wanted] == wanted
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(SECONDS)
        if process.stdout is not None:
            process.stdout.close()


def test_top_shows_what_models_use(command: Command, model: ml.MLModel) -> None:
    done = command("top", "--count", "2", "--interval", "0.1")
    assert done.returncode == 0
    assert done.stdout.count("1 models in 1 processes") == 2
    assert done.stdout.count("of a test") == 2


def test_top_writes_a_json_object_each_look(command: Command, model: ml.MLModel) -> None:
    done = command("top", "--count", "2", "--interval", "0.1", "--json")
    looks = [json.loads(line) for line in done.stdout.splitlines()]
    assert [[row["origin"] for row in look["models"]] for look in looks] == [["of a test"]] * 2
    assert looks[0]["unix_seconds"] < looks[1]["unix_seconds"]
    assert all(look["models"][0]["cpu_percent"] >= 0 for look in looks)


def test_rates_are_of_the_time_between_two_looks() -> None:
    row = {"model_id": "a", "cpu_seconds": 2.0, "calls": 10}
    later = {"model_id": "a", "cpu_seconds": 3.0, "calls": 30}
    new = {"model_id": "b", "cpu_seconds": 9.0, "calls": 90}
    add_rates([later, new], {"a": row}, 2.0)
    assert (later["cpu_percent"], later["calls_per_second"]) == (50, 10)
    assert (new["cpu_percent"], new["calls_per_second"]) == (0, 0)


def test_limits_are_shown_and_set(command: Command) -> None:
    done = command("limits", "set", "models-per-origin=5", "cpu_seconds=none")
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if "models_per_origin" in line]
    assert line.split() == ["models_per_origin", "5", "started", "with", "16"]
    rows = {row["name"]: row for row in document(command("limits", "show", "--json"))["limits"]}
    assert rows["models_per_origin"] == {
        "name": "models_per_origin",
        "value": 5,
        "at_start": 16,
        "settable": True,
    }
    assert rows["cpu_seconds"]["value"] is None
    command("limits", "set", "models_per_origin=16")
    assert "grpc_connections" in command("limits", "show").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete(shell: str) -> None:
    done = run_command("completion", shell)
    assert done.returncode == 0
    assert "_MODEL_LOADER_COMPLETE" in done.stdout
    asked = {
        "bash": {"COMP_WORDS": "model-loader st", "COMP_CWORD": "1"},
        "zsh": {"COMP_WORDS": "model-loader st", "COMP_CWORD": "1"},
        "fish": {"COMP_WORDS": "model-loader st", "COMP_CWORD": "st"},
    }[shell]
    done = run_command(env={"_MODEL_LOADER_COMPLETE": f"{shell}_complete", **asked})
    assert (done.returncode, done.stderr) == (0, "")
    assert "status" in done.stdout
    assert "doctor" not in done.stdout


@pytest.mark.slow
def test_drain_ends_the_service_with_its_last_model() -> None:
    with tempfile.TemporaryDirectory(prefix="mlc-") as folder:
        directory = Path(folder) / "service"
        process = subprocess.Popen(
            [str(BIN / "model-loaderd"), "--directory", str(directory), "--log-level", "error"],
            env=environment(),
        )
        try:
            ends = time.monotonic() + SECONDS
            while not (directory / "admin.sock").exists() and time.monotonic() < ends:
                time.sleep(0.02)
            with (
                ml.connect(directory) as connection,
                ml.MLModelLoader(ml.create_context(connection=connection)).load(small.add()) as it,
            ):
                done = run_command("drain", "--seconds", "600", "--address", directory)
                assert "it ends when 1 have gone" in done.stdout
                loader = ml.MLModelLoader(ml.create_context(connection=connection))
                with pytest.raises(ml.NetworkError, match="draining"):
                    loader.load(small.add())
                assert it.compute(ONE) == 2
                done = run_command("drain", "--cancel", "--address", directory)
                assert "takes models again, and has 1" in done.stdout
                loader.load(small.add()).close()
                run_command("drain", "--seconds", "600", "--address", directory)
                assert process.poll() is None
            assert process.wait(SECONDS) == 0
            assert not directory.exists()
        finally:
            process.kill()
            process.wait()
