"""Which layers of the sandbox this host allows: asks the service's probe, which tries each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SECONDS = 60.0
"""A probe that takes longer hangs."""


@dataclass(frozen=True, slots=True)
class TriedLayer:
    """One layer, and what came of trying it."""

    name: str
    available: bool
    needed: bool
    """Whether no model runs without it."""
    detail: str
    remedy: str
    meaning: str
    """What the layer does, in one sentence."""


class ProbeFailed(Exception):
    """The probe itself did not work; the message says why."""


def try_layers() -> list[TriedLayer]:
    """Run the probe in a process of its own, which it may leave locked down."""
    try:
        from loader_service.sandbox.layers import DESCRIPTIONS, MINIMUM, Layer
    except ImportError as error:
        raise ProbeFailed(
            f"the service is not installed ({error}): pip install 'model-loader[service]'"
        ) from None
    found = _run_probe()
    result = []
    for layer in Layer:
        finding = found.get(layer.value)
        if not isinstance(finding, dict):
            finding = {"available": False, "detail": "the probe said nothing of it", "remedy": ""}
        result.append(
            TriedLayer(
                layer.value,
                finding.get("available") is True,
                layer in MINIMUM,
                str(finding.get("detail") or ""),
                str(finding.get("remedy") or ""),
                DESCRIPTIONS[layer],
            )
        )
    return result


def _run_probe() -> Mapping[str, Any]:
    command = [sys.executable, "-P", "-m", "loader_service.sandbox.probe", "--json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
        )
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise ProbeFailed(f"the probe took more than {SECONDS:g} s") from None
    except ValueError:
        words = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise ProbeFailed(f"the probe of the layers did not work: {words[0]}") from None
    if not isinstance(found, dict):
        raise ProbeFailed("the probe of the layers gave no object")
    return found
