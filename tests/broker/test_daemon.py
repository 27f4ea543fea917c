"""``model-loaderd``: its flags, its exit statuses, and its end."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import grpc
import numpy as np
import pytest

from loader_service.broker import daemon_command, daemon_flags
from loader_service.broker.settings import Settings
from loader_service.writer import small
from model_loader_wire.limits import DEFAULT_LIMITS, Limits
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.conftest import ONE
from tests.shared_models import REPOSITORY
from tests.support.processes import children, describe, living, wait_until_empty
from tests.support.raw_client import (
    HANG_SECONDS,
    AttachConnection,
    RawSession,
    detail_of,
    exchange_over,
)

COMMAND = [sys.executable, "-m", "loader_service.broker.daemon"]


@contextmanager
def running(directory: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """Run the daemon until it listens; at the end it must be gone."""
    daemon = subprocess.Popen(
        [*COMMAND, "--directory", str(directory), *flags],
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )
    try:
        assert daemon.stderr is not None
        for line in daemon.stderr:
            if "ready in" in line:
                break
        else:
            raise AssertionError(f"it ended with status {daemon.wait(HANG_SECONDS)}")
        yield daemon
    finally:
        daemon.kill()
        daemon.communicate()


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    """Run the daemon to its end."""
    return subprocess.run(
        [*COMMAND, *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
    )


def test_help_names_each_limit_with_its_default() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    for field in fields(Limits):
        default = getattr(DEFAULT_LIMITS, field.name)
        said = "no limit" if default is None else str(default)
        assert f"--{field.name.replace('_', '-')} N (default: {said})" in text
    assert "Exit status: 0" in text


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--memory-bytes", "0"], "--memory-bytes: must be above zero, not 0"),
        (["--compute-seconds", "nan"], "--compute-seconds: must be above zero, not nan"),
        (["--memory-bytes", "1GB"], "--memory-bytes: has no unit 'GB'"),
        (["--allow-user", "nobody-of-that-name"], "there is no user 'nobody-of-that-name'"),
        (["--embedder", "nobody-of-that-name"], "there is no user 'nobody-of-that-name'"),
        (["--runtime", "onnx"], "invalid choice: 'onnx'"),
        (["--isolation", "none"], "invalid choice: 'none'"),
        (
            ["--isolation", "origin", "--models-per-origin", "241"],
            "with isolation 'origin' models_per_origin is at most 240, not 241",
        ),
        (["--crash-loop-deaths", "0"], "--crash-loop-deaths: must be above zero, not 0"),
        (
            ["--stderr-bytes-per-second", "0"],
            "--stderr-bytes-per-second: must be above zero, not 0",
        ),
        (["--no-such-flag"], "unrecognized arguments"),
    ],
)
def test_wrong_usage_is_status_2(flags: list[str], text: str) -> None:
    done = run(*flags)
    assert done.returncode == daemon_command.EXIT_USAGE == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2  # and not a list of all flags


def test_check_config_tells_what_holds_or_every_mistake(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[limits]\nthreads = 3\n[service]\nlog_format = 'json'\n", encoding="utf-8")
    flags = ("--check-config", "--config", str(file), "--threads", "4")
    done = run(*flags, "--json", "--directory", str(tmp_path / "not made"))
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert (said["limits"]["threads"], said["service"]["log_format"]) == (4, "json")
    assert said["places"]["limits.threads"] == "--threads"
    done = run(*flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search("^threads = 4 +# --threads$", done.stdout, re.MULTILINE)
    assert not (tmp_path / "not made").exists()
    file.write_text("[limits]\nthread = 3\nthreads = 0\n", encoding="utf-8")
    done = run(*flags)
    assert (done.returncode, done.stdout) == (daemon_command.EXIT_USAGE, "")
    assert done.stderr.splitlines() == [
        f"model-loaderd: {file}:2: limits.thread: there is no such setting; did you mean "
        "'threads'?",
        f"model-loaderd: {file}:3: limits.threads: must be above zero, not 0",
    ]
    done = run(*flags, "--json")
    assert done.returncode == daemon_command.EXIT_USAGE
    assert json.loads(done.stdout)["mistakes"][1] == {
        "source": str(file),
        "line": 3,
        "setting": "limits.threads",
        "reason": "must be above zero, not 0",
    }


def reload(process: subprocess.Popen[str], said: str) -> str:
    """Have the daemon read its configuration again; returns its log up to the line that says so."""
    process.send_signal(signal.SIGHUP)
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if said in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def test_sighup_changes_what_comes_and_nothing_that_runs(
    short_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[limits]\nmodels_per_origin = 1\n", encoding="utf-8")
    path = short_folder / "service"
    with running(path, "--config", str(file)) as process, RawSession(path) as session:
        reply = session.load(small.add())
        with session.channel(reply.model_id) as channel:
            for text, mistake in (
                ("[limits]\nmodels_per_origin = 0\n", "2: limits.models_per_origin: must be above"),
                ("[limit]\n", "1: limit: there is no such setting"),
            ):
                file.write_text(text, encoding="utf-8")
                assert "the configuration was not changed: " in reload(process, f"{file}:{mistake}")
                with pytest.raises(grpc.RpcError) as caught:
                    session.load(small.add())
                assert detail_of(caught.value).limit == "models_per_origin"
            digest = hashlib.sha256(small.add(2)).hexdigest()
            file.write_text(
                f"""
                [service]
                operators = "hardened"
                claim_seconds = 7
                [shared_limits]
                total_descriptors = 999
                [[policy]]
                name = "mine"
                users = [{os.geteuid()}]
                allowed_sha256 = ["{digest}"]
                [policy.limits]
                models_per_origin = 2
                """,
                encoding="utf-8",
            )
            waiting = reload(process, "only at the service's next start: claim_seconds, total")
            assert "holds for the next loads" in waiting
            # What was loaded before is on no list, and answers.
            (output,) = exchange_over(channel, [ONE]).tensors
            assert np.frombuffer(output, np.float32) == 2
            session.load(small.add(2))
            session.call("CloseModel", pb.CloseModelRequest(model_id=reply.model_id))
            with pytest.raises(grpc.RpcError) as caught:
                session.load(small.add())
            detail = detail_of(caught.value)
            assert detail.cause == "not-allowed"
            assert "'mine'" in detail.message
            assert hashlib.sha256(small.add()).hexdigest() in detail.message
            with RawSession(path) as other:
                assert other.welcome.session.limits.models_per_origin == 2


def test_a_limit_that_cannot_be_held_is_status_4(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program = (
        "import sys; from loader_service.sandbox import cgroup; cgroup.discover = lambda: None; "
        "from loader_service.broker.daemon import main; sys.exit(main(sys.argv[1:]))"
    )
    path = short_folder / "service"
    done = subprocess.run(
        [sys.executable, "-c", program, "--directory", str(path), "--cpu-percent", "50"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == daemon_command.EXIT_REFUSED == 4
    assert "cpu_percent needs a writable cpu cgroup" in done.stderr
    assert done.stderr.count("see `model-loader doctor`") == 1
    assert "Traceback" not in done.stderr
    assert not path.exists()


def test_each_flag_is_in_force_and_a_second_daemon_is_status_3(short_folder: Path) -> None:
    path = short_folder / "service"
    limits = {
        "memory_bytes": 1 << 29,
        "cpu_seconds": 60,
        "threads": 1,
        "processes": 2,
        "model_bytes": 100_000,
        "tensor_bytes": 1000,
        "output_bytes": 2000,
        "models_per_origin": 1,
        "loads_per_minute": 50,
        "upload_bytes": 200_000,
        "calls_in_flight": 3,
        "bytes_in_flight": 4000,
        "load_seconds": 20.5,
        "compute_seconds": 1.5,
    }
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in limits.items()]
    with running(path, *flags, "--allow-user", "54321") as process:
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        with RawSession(path) as session:
            said = session.welcome.session.limits
            assert {name: getattr(said, name) for name in limits} == limits
            assert said.cpu_percent == 0
            reply = session.load(small.add())
            with session.channel(reply.model_id) as channel:
                (output,) = exchange_over(channel, [ONE]).tensors
                assert np.frombuffer(output, np.float32) == 2
                done = run("--directory", str(path))
                assert done.returncode == daemon_command.EXIT_TAKEN == 3
                assert f"another service runs in {path}" in done.stderr
                assert "Traceback" not in done.stderr
                (output,) = exchange_over(channel, [ONE]).tensors
                assert np.frombuffer(output, np.float32) == 2
                end(process, signal.SIGTERM)
                assert channel.recv(1) == b""
    assert not path.exists()


def test_isolation_by_origin_is_in_force_and_in_the_log(short_folder: Path) -> None:
    path = short_folder / "service"
    with running(path, "--isolation", "origin") as process:
        with RawSession(path) as session:
            replies = [session.load(small.add()) for _ in range(2)]
            assert all(reply.isolation.shared for reply in replies)
            assert len({reply.isolation.worker_pid for reply in replies}) == 1
        process.terminate()
        assert process.stderr is not None
        assert "the models of an origin share a process" in process.stderr.read()


@pytest.mark.parametrize(
    ("uid", "allowed", "told"),
    [(0, {1000}, False), (1000, set(), False), (1000, {1000}, False), (1000, {1001}, True)],
)
def test_users_whom_only_root_could_serve_are_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    uid: int,
    allowed: set[int],
    told: bool,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    for named in ("allowed_uids", "embedder_uids"):
        caplog.clear()
        settings = Settings(directory="", **{named: frozenset(allowed)})  # type: ignore[arg-type]
        daemon_command.warn_of_distrust(settings)
        assert ("clients trust the machine's service or their own only" in caplog.text) is told


def end(process: subprocess.Popen[str], number: int) -> None:
    """End the daemon by a signal; all its children end."""
    family = children(process.pid)
    assert family
    process.send_signal(number)
    _, said = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0
    assert "Traceback" not in said

    left = wait_until_empty(lambda: living(family), HANG_SECONDS)
    assert not left, describe(left)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_everything(short_folder: Path, number: int) -> None:
    path = short_folder / "service"
    with running(path) as process:
        connection = AttachConnection(path)
        assert connection.hello().WhichOneof("reply") == "welcome"
        end(process, number)
        assert connection.is_ended()
        connection.close()
    assert not path.exists()


def test_a_stale_directory_is_taken_over(short_folder: Path) -> None:
    path = short_folder / "service"
    with running(path) as process:
        process.kill()
        process.wait()
        assert (path / "attach.sock").exists()
    with running(path):
        connection = AttachConnection(path)
        assert connection.hello().WhichOneof("reply") == "welcome"
        connection.close()


def test_a_path_too_long_is_status_3_with_a_sentence(short_folder: Path) -> None:
    done = run("--directory", str(short_folder / ("x" * 100)))
    assert done.returncode == daemon_command.EXIT_TAKEN
    assert "no room for a socket's name: '/" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_default_directory_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1234")
    assert daemon_flags.default_directory() == "/run/user/1234/model-loader"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert daemon_flags.default_directory() == "/run/model-loader"
