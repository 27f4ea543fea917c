"""Hostile and honest programs together on one service.

    python -m tests.soak [--seconds 600] [--seed 1] [--json FILE]

Exits with status 1 if an honest program met a wrong answer, an error or a long wait, if the broker
ended, if the service's health says anything but that all is well, or if anything is left behind.
As root the hostile programs run as other users than the honest ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.shared_models import REPOSITORY
from tests.soak.hostile import KINDS
from tests.soak.service import SoakService, check_end, health

HONEST = (
    ("blocking", "direct"),
    ("aio", "direct"),
    ("blocking", "relayed"),
    ("aio", "relayed"),
)
HOSTILE_UIDS = (54321, 54322)
"""Users of no name; each has half of the hostile programs."""
LOOK_SECONDS = 10.0
START_SECONDS = 30.0


def main(arguments: list[str]) -> int:
    """Run the soak; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long (default: 600)")
    parser.add_argument("--seed", type=int, default=1, help="of every choice (default: 1)")
    parser.add_argument("--json", help="a file for the figures")
    given = parser.parse_args(arguments)
    uids = HOSTILE_UIDS if os.geteuid() == 0 else (os.geteuid(),)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        Path(folder).chmod(0o755)
        result = Soak(Path(folder), uids, given.seed).run(given.seconds)
    table(result)
    if given.json:
        Path(given.json).write_text(json.dumps(result, indent=2) + "\n")
    return 1 if result["faults"] else 0


class Soak:
    """One run."""

    def __init__(self, folder: Path, uids: tuple[int, ...], seed: int) -> None:
        self._folder = folder
        self._uids = uids
        self._seed = seed
        self._hostile: dict[str, subprocess.Popen[bytes]] = {}
        self._starts: dict[str, int] = dict.fromkeys(KINDS, 0)
        self._faults: list[str] = []

    def run(self, seconds: float) -> dict[str, Any]:
        """Start everything, wait, and look what is left."""
        service = SoakService(self._uids)
        try:
            before = service.look()
            honest = [self._start_honest(service, *kind, seconds) for kind in HONEST]
            looks = self._watch(service, honest, seconds)
            said = [self._end_honest(program) for program in honest]
            for program in self._hostile.values():
                program.kill()
                program.wait()
            self._faults += check_end(service, before)
            after = service.look()
        finally:
            for program in (*self._hostile.values(), *honest):
                program.kill()
                program.wait()
            self._faults += service.end()
        return {
            "seconds": seconds,
            "honest": dict(zip((f"{face} {road}" for face, road in HONEST), said, strict=True)),
            "hostile_programs_started": self._starts,
            "broker": {"before": before, "during": looks, "after": after},
            "faults": self._faults,
        }

    def _start_honest(
        self, service: SoakService, face: str, road: str, seconds: float
    ) -> subprocess.Popen[bytes]:
        origin, seed = f"honest-{face}-{road}", str(self._seed)
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.soak.honest", str(service.directory)),
                *(origin, face, road, str(seconds), seed),
            ],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
        )

    def _end_honest(self, program: subprocess.Popen[bytes]) -> dict[str, Any]:
        output, _ = program.communicate(timeout=START_SECONDS * 4)
        try:
            said: dict[str, Any] = json.loads(output)
        except ValueError:
            said = {"faults": [f"an honest program ended with status {program.returncode}"]}
        self._faults += said["faults"]
        return said

    def _watch(
        self, service: SoakService, honest: list[subprocess.Popen[bytes]], seconds: float
    ) -> list[dict[str, int]]:
        """Keep every hostile program going, and look at the service now and then."""
        looks: list[dict[str, int]] = []
        began = looked = time.monotonic()
        while any(program.poll() is None for program in honest):
            for number, kind in enumerate(KINDS):
                program = self._hostile.get(kind)
                if program is None or program.poll() is not None:
                    # Killed by itself is what one kind of it is for.
                    if program is not None and program.returncode not in (0, -9):
                        self._faults.append(f"{kind} ended with status {program.returncode}")
                    if time.monotonic() < began + seconds:
                        self._hostile[kind] = self._start_hostile(service, kind, number)
            time.sleep(0.2)
            if service.died():
                self._faults.append("the broker died")
                break
            if time.monotonic() >= looked + LOOK_SECONDS:
                looked = time.monotonic()
                looks.append(service.look())
                if not health(service):
                    self._faults.append("the service's health is not SERVING")
                print(f"{looked - began:6.0f} s  {looks[-1]}", flush=True)
        return looks

    def _start_hostile(
        self, service: SoakService, kind: str, number: int
    ) -> subprocess.Popen[bytes]:
        uid = self._uids[number % len(self._uids)]
        self._starts[kind] += 1
        seed = str(self._seed * 1000 + self._starts[kind] * len(KINDS) + number)
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.soak.hostile"),
                *(str(service.directory), f"hostile-{kind}", kind, seed, str(uid)),
            ],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
        )


def table(result: dict[str, Any]) -> None:
    """Print the figures."""
    print(
        f"\n{'honest program':22}{'loads':>8}{'calls':>10}{'wrong':>7}{'errors':>8}{'longest':>10}"
    )
    for name, said in result["honest"].items():
        counts = [said.get(key, 0) for key in ("loads", "calls", "wrong", "errors")]
        print(f"{name:22}{counts[0]:8}{counts[1]:10}{counts[2]:7}{counts[3]:8}"
              f"{said.get('longest_seconds', 0):8.2f} s")  # fmt: skip
    print("\nhostile programs started:", result["hostile_programs_started"])
    print("broker before:", result["broker"]["before"])
    print("broker after: ", result["broker"]["after"])
    print("\n".join(f"FAULT: {fault}" for fault in result["faults"]) or "no fault")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
