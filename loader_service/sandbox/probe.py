"""Which layers this host gives: each is entered for real in a process of its own, never guessed.

`python -m loader_service.sandbox.probe --json` prints the findings. `probe` runs that as a
subprocess, so a program with threads can ask without forking itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from loader_service.sandbox import cgroup, process
from loader_service.sandbox.layers import CGROUP_LAYERS, MINIMUM, Layer
from loader_service.sandbox.probe_attempts import ATTEMPTS
from loader_service.sandbox.remedies import REMEDIES

_CHILD_SECONDS: Final = 10
_ALL_SECONDS: Final = 60


@dataclass(frozen=True)
class Finding:
    """What the host said to one layer."""

    available: bool
    detail: str
    """What was seen: the effect, or the refusal."""
    remedy: str
    """What an administrator can do; empty for a layer that is available."""


def probe() -> dict[Layer, Finding]:
    """Try every layer in a subprocess, which takes about a quarter of a second.

    A broker that has a cgroup tree should have made it before: on cgroup version 2 the subprocess
    shares the broker's cgroup. Raises `RuntimeError` when the subprocess fails.
    """
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--json"],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_ALL_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the sandbox probe failed: {done.stderr.strip()}")
    answers: dict[str, dict[str, object]] = json.loads(done.stdout)
    return {
        Layer(name): Finding(bool(a["available"]), str(a["detail"]), str(a["remedy"]))
        for name, a in answers.items()
    }


def missing_minimum(findings: Mapping[Layer, Finding]) -> frozenset[Layer]:
    """The layers without which the service must refuse to start and which are not available."""
    return frozenset(layer for layer in MINIMUM if not findings[layer].available)


def probe_here() -> dict[Layer, Finding]:
    """Try every layer in forks of this process, which must have one thread."""
    if not process.is_single_threaded():
        raise RuntimeError("layers are probed by a process of one thread")
    findings = {layer: _in_child(layer, attempt) for layer, attempt in ATTEMPTS.items()}
    return findings | _cgroup_findings()


def _in_child(layer: Layer, attempt: Callable[[], str]) -> Finding:
    """Run `attempt` in a fork: its answer is the effect seen, an exception is the refusal."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(_CHILD_SECONDS)
        try:
            answer = [True, attempt()]
        except Exception as error:
            answer = [False, str(error)]
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as report:
        text = report.read()
    _, status = os.waitpid(pid, 0)
    if not text:
        ending = os.waitstatus_to_exitcode(status)
        return Finding(False, f"the attempt ended with status {ending}", REMEDIES[layer])
    available, detail = json.loads(text)
    return Finding(available, detail, "" if available else REMEDIES[layer])


def _cgroup_findings() -> dict[Layer, Finding]:
    """Make a tree with a limited group, and take it away again."""
    refused = {
        layer: Finding(False, "no cgroup here can be written to", REMEDIES[layer])
        for layer in CGROUP_LAYERS
    }
    tree = cgroup.discover()
    if tree is None:
        return refused
    with tree:
        try:
            tree.create("probe", cgroup.GroupLimits(memory_bytes=1 << 26, pids=2, cpu_percent=50))
        except OSError as error:
            return {layer: Finding(False, str(error), REMEDIES[layer]) for layer in CGROUP_LAYERS}
        detail = f"a limit could be set (cgroup version {tree.version})"
        return refused | {layer: Finding(True, detail, "") for layer in tree.layers}


def main(arguments: list[str]) -> int:
    """Print the findings, as JSON with `--json`; the status is 1 when the minimum is missing."""
    findings = probe_here()
    if arguments == ["--json"]:
        print(json.dumps({layer: asdict(finding) for layer, finding in findings.items()}))
        return 0
    for layer, finding in findings.items():
        print(f"{'yes' if finding.available else 'no ':3} {layer}: {finding.detail}")
        if finding.remedy:
            print(f"      {finding.remedy}")
    return 1 if missing_minimum(findings) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
