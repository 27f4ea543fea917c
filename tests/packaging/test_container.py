"""What the container's example says, as far as it can be tried without building an image."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

from model_loader_wire.system_service import ACCOUNT, SYSTEM_UIDS
from tests.shared_models import REPOSITORY

FILE = REPOSITORY / "packaging" / "container" / "Containerfile"
BIN = Path(sys.executable).parent


def instructions(name: str) -> list[str]:
    """Return what follows each instruction of that name, with its continued lines."""
    text = FILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if not line.startswith("#")]
    return [words[1] for words in lines if words and words[0] == name]


def variables() -> dict[str, str]:
    """Return the settings that the image has in its environment."""
    pairs = (word.partition("=") for given in instructions("ENV") for word in shlex.split(given))
    return {name: value for name, _, value in pairs if name.startswith("MODEL_LOADER_")}


def test_the_environment_of_the_container_configures_the_service() -> None:
    (entry_point,) = instructions("ENTRYPOINT")
    (program,) = json.loads(entry_point)
    given = variables()
    assert given
    # What an operator adds with --env, too.
    environment = {**given, "MODEL_LOADER_LIMITS_MEMORY_BYTES": "64 MiB"}
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MODEL_LOADER")}
    done = subprocess.run(
        [str(BIN / program), "--check-config", "--json"],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in environment:
        assert name in done.stdout


def test_the_command_that_tells_health_is_there() -> None:
    (check,) = instructions("HEALTHCHECK")
    program, command, flag, directory = json.loads(check.removeprefix("CMD "))
    assert directory == variables()["MODEL_LOADER_SERVICE_DIRECTORY"]
    done = subprocess.run(
        [str(BIN / program), command, flag, "/nonexistent"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Usage" not in done.stderr


def test_the_account_of_the_container_is_one_that_clients_trust() -> None:
    (argument,) = instructions("ARG")
    assert int(argument.removeprefix("UID=")) in SYSTEM_UIDS
    assert instructions("USER") == [ACCOUNT]


def test_what_is_installed_can_be() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (install,) = [run for run in instructions("RUN") if "pip install" in run]
    assert '"/source[service]"' in install
    assert "service" in project["optional-dependencies"]
