"""The installed command, run as a user runs it, and a service for it to use."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import model_loader as ml

BIN = Path(sys.executable).parent
SECONDS = 60.0
"""A command that takes longer hangs."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What no output may hold where it goes to no terminal."""

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a command: no service named, no colours asked for."""
    left_out = ("MODEL_LOADER_ADDRESS", "NO_COLOR", "FORCE_COLOR", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return kept | dict(changes or {})


def run_command(*arguments: object, env: Mapping[str, str] | None = None) -> Done:
    """Run `model-loader` to its end; nothing it writes may hold control characters."""
    done = subprocess.run(
        [str(BIN / "model-loader"), *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment(env),
        stdin=subprocess.DEVNULL,
        timeout=SECONDS,
        check=False,
    )
    assert not CONTROL.search(done.stdout + done.stderr)
    done.stderr = without_log(done.stderr)
    if "--debug" not in arguments:
        assert "Traceback" not in done.stderr
    return done


def without_log(text: str) -> str:
    """Leave out which layers an ordinary user's private service says it lacks."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("this host does not give"))


def document(done: Done) -> dict[str, Any]:
    """Read what `--json` wrote; infinities and "not a number" would not be JSON."""

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    value = json.loads(done.stdout, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


@pytest.fixture(scope="module")
def daemon() -> Iterator[Path]:
    """Run `model-loaderd` in a folder of its own; gives its directory."""
    with tempfile.TemporaryDirectory(prefix="mlc-") as folder:
        directory = Path(folder) / "service"
        process = subprocess.Popen(
            [str(BIN / "model-loaderd"), "--directory", str(directory), "--log-level", "error"],
            env=environment(),
        )
        try:
            ends = time.monotonic() + SECONDS
            while process.poll() is None and time.monotonic() < ends:
                try:
                    ml.connect(directory).close()
                    break
                except ml.NetworkError:
                    time.sleep(0.02)
            assert process.poll() is None, "model-loaderd has ended"
            yield directory
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)


@pytest.fixture
def command(daemon: Path) -> Command:
    """Run commands that use the daemon."""

    def run(*arguments: object, env: Mapping[str, str] | None = None) -> Done:
        address = {"MODEL_LOADER_ADDRESS": str(daemon)}
        return run_command(*arguments, env=address | dict(env or {}))

    return run


@pytest.fixture
def model_file(tmp_path: Path) -> Callable[[bytes], Path]:
    """Write a model's bytes into a file of the test's own."""

    def write(data: bytes, name: str = "model.tflite") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write
