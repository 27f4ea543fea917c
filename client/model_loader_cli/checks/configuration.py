"""Whether model-loaderd, started by this user, would find its configuration in order."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

SECONDS = 60.0
"""A check that takes longer hangs."""


@dataclass(frozen=True, slots=True)
class CheckedConfiguration:
    """What model-loaderd says of what it would read: the environment, and any file."""

    file: str | None = None
    mistakes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    """What it enables, for everybody or by a policy, as it is written there."""
    runtime: str = "auto"


def check_configuration() -> CheckedConfiguration:
    """Have the daemon's own program check it, in a process of its own."""
    command = [sys.executable, "-P", "-m", "loader_service.broker.daemon", "--check-config"]
    try:
        done = subprocess.run(
            [*command, "--json"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
        said: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return CheckedConfiguration(None, (f"the check took more than {SECONDS:g} s",))
    except ValueError:
        words = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return CheckedConfiguration(None, (f"the check did not work: {words[0]}",))
    mistakes = tuple(_sentence(mistake) for mistake in said.get("mistakes", ()))
    service = said.get("service", {})
    enabled = [item.get("devices", ()) for item in (service, *said.get("policy", ()))]
    devices = tuple(dict.fromkeys(text for texts in enabled for text in texts))
    return CheckedConfiguration(said.get("file"), mistakes, devices, service.get("runtime", "auto"))


def _sentence(mistake: dict[str, Any]) -> str:
    """Write a mistake as the daemon itself does."""
    source, line, setting = (mistake[name] for name in ("source", "line", "setting"))
    if line is not None:
        source = f"{source}:{line}"
    where = setting if source in ("environment", "flag") else f"{source}: {setting}"
    return f"{where.removesuffix(': ')}: {mistake['reason']}"
