"""Peers: their servers, their environments, and the section, where none of them is installed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import cases, report
from benchmarks.document import renewed
from benchmarks.models import Store
from benchmarks.peers.environment import Environment
from benchmarks.peers.peers import PEERS, Peer
from benchmarks.peers.server import NotStarted, Server
from benchmarks.plan import Plan
from benchmarks.programs.several import digest
from benchmarks.sections import peers
from model_loader_cli.bench.comparison import DIRECT, ECHO, IN_PROCESS
from model_loader_cli.bench.machine import describe
from model_loader_cli.bench.processes import Arm, ArmFailed
from model_loader_cli.bench.progress import reporting
from tests.shared_models import REPOSITORY
from tests.support.processes import living

LONG = 60.0
"""A bound against hangs."""
SERVES = """
import os, signal, sys, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("ready-%d" % os.getpid(), "w").close()
time.sleep(600)
"""
"""Two processes that serve nothing; one of them does not end when it is asked to."""


def python(program: str) -> list[str]:
    """Run a program of the standard library only."""
    return [sys.executable, "-S", "-c", program]


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet forgotten does not."""
    return bool(living([pid]))


def processes(folder: Path) -> list[int]:
    """Those of `SERVES`."""
    return [int(path.name.partition("-")[2]) for path in folder.glob("ready-*")]


def test_a_server_ends_with_all_that_it_has_started(tmp_path: Path) -> None:
    server = Server(python(SERVES), tmp_path, {})
    try:
        server.wait(lambda: len(processes(tmp_path)) == 2, LONG)
        assert all(map(is_there, processes(tmp_path)))
    finally:
        # What was killed stays a zombie until these tests' own process has looked after orphans.
        server.close(seconds=2)
    assert server.group in processes(tmp_path)
    assert not any(map(is_there, processes(tmp_path)))
    server.close()  # which is no error


def test_a_server_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from benchmarks.peers.server import Server; "
        "server = Server(['/bin/sleep', '600'], Path(sys.argv[1]), {}); "
        "print(server.group, flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    with starter:
        assert starter.stdout is not None
        started = int(starter.stdout.readline())
        assert is_there(started)
        starter.kill()
    ends = time.monotonic() + LONG
    while is_there(started) and time.monotonic() < ends:
        time.sleep(0.01)
    assert not is_there(started)


def test_a_server_that_ends_is_told_by_its_last_words(tmp_path: Path) -> None:
    program = "import os, sys; print('no port is left', os.environ.get('HOME')); sys.exit(3)"
    with (
        Server(python(program), tmp_path, {}) as server,
        pytest.raises(NotStarted, match=f"it ended:\nno port is left {tmp_path}"),
    ):
        server.wait(lambda: False, LONG)


def test_a_server_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    with Server(["/bin/sleep", "600"], tmp_path, {}) as server:
        with pytest.raises(NotStarted, match=r"it was not ready within 0\.1 s"):
            server.wait(lambda: False, 0.1)
        assert is_there(server.group)
    assert not is_there(server.group)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A package that needs nothing, and no network."""
    path = tmp_path / "tiny-1.5-py3-none-any.whl"
    about = "tiny-1.5.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.5\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr(f"{about}/RECORD", "")
    return path


def test_an_environment_is_made_once_for_its_requirements(tmp_path: Path, wheel: Path) -> None:
    environment = Environment(tmp_path / "home", [str(wheel)])
    environment.install()
    assert environment.versions(["tiny", "other"]) == {"tiny": "1.5"}
    subprocess.run([environment.python, "-c", "import tiny"], check=True)
    wheel.unlink()
    environment.install()
    assert environment.is_installed()
    assert not Environment(tmp_path / "home", [str(wheel), "other"]).is_installed()


def test_an_environment_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "home", ["./nowhere.whl"])
    with pytest.raises(ArmFailed, match=r"nowhere\.whl"):
        environment.install()
    assert not environment.is_installed()


def test_an_answer_is_the_bytes_of_its_only_output() -> None:
    y = np.arange(4, dtype=np.float32)
    same = {digest(y), digest([y]), digest({"y": y}), digest(y.reshape(2, 2))}
    assert len(same) == 1
    assert digest(y + 1) not in same


class Home:
    """An environment that was not made for a peer: the Python that runs the tests."""

    python = Path(sys.executable)

    def __init__(self, reason: str = "") -> None:
        self._reason = reason

    def install(self) -> None:
        """Nothing is missing, or it cannot be had."""
        if self._reason:
            raise ArmFailed(self._reason)

    def versions(self, packages: object) -> dict[str, str]:
        """Of one package."""
        return {"numpy": np.__version__}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A run with peers that cannot be installed, do not run, answer otherwise, and can be measured.

    The last two run the project's own arms in the place of theirs.
    """
    own = {"Otherwise": ECHO, "Alike": DIRECT}
    names = ("Absent", "Broken", *own)
    theirs = peers._theirs

    def arm(name: str, python: str, plan: Plan, calls: int | None = None) -> Arm:
        return peers._own(own[name], plan, calls) if name in own else theirs(name, python, plan)

    with pytest.MonkeyPatch.context() as patch:
        known = tuple(Peer(name, "", (), (), (name,)) for name in names)
        patch.setattr(peers, "PEERS", known)
        patch.setattr(peers, "OWN", (IN_PROCESS, DIRECT))
        patch.setattr(peers, "_theirs", arm)
        reasons = {"Absent": "ERROR: nobody has it"}
        patch.setattr(peers, "environment", lambda peer: Home(reasons.get(peer.name, "")))
        patch.setattr(cases, "PEER_CALLS", {cases.FOUR_BYTES: (8, 4)})
        machine = describe()
        with reporting(0, shown=False) as reporter:
            folder = tmp_path_factory.mktemp("models")
            plan = Plan(1, True, random.Random(1), Store(folder), reporter)
            yield {
                "date": "2026-01-01",
                "pairs": 1,
                "quick": True,
                "machine": machine,
                "machine_after": machine,
                "second_runtime": None,
                "seconds": 60.0,
                "sections": {"peers": peers.run(plan)},
                "failed": plan.failed,
            }


def test_a_peer_that_is_missing_costs_no_other(results: dict[str, Any]) -> None:
    samples = results["sections"]["peers"]
    assert samples["absent"] == {
        "Absent": peers.NOT_INSTALLED,
        "Broken": peers.NOT_RUNNING,
        "Otherwise": peers.OTHER_ANSWERS,
    }
    pair, *_ = samples["pairs"]  # more where time was stolen throughout the first
    assert list(pair) == [IN_PROCESS, DIRECT, "Alike"]
    assert list(pair["Alike"]["blocks"]) == [cases.FOUR_BYTES]
    assert "nobody has it" in results["failed"]["Peers: Absent"]
    assert "tritonclient" in results["failed"]["Peers: Broken"]


def test_the_tables_show_who_is_there_and_name_who_is_not(results: dict[str, Any]) -> None:
    text = report.markdown(results)
    assert "| 4 bytes | Alike | " in text
    for name, reason in results["sections"]["peers"]["absent"].items():
        assert f"Not measured: {name}, which {reason}." in text
        assert f"| {name} |" not in text
    assert f"Alike: numpy {np.__version__}" in text
    assert "nan" not in text


def test_peers_take_their_place_in_the_document_and_no_other(results: dict[str, Any]) -> None:
    before = (REPOSITORY / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    parts = report.parts(results)
    assert list(parts) == ["peers"]
    assert report.is_whole(results)
    after = renewed(before, parts)
    assert parts["peers"] in after
    place = "<!-- bench: peers -->"
    assert after.partition(place)[0] == before.partition(place)[0]


def test_every_arm_of_a_peer_has_a_name_of_its_own() -> None:
    names = [name for peer in PEERS for name in peer.arms]
    assert len(set(names)) == len(names)
    assert not {name for name in names if name in peers.TEXTS}


def test_git_ignores_the_environments() -> None:
    patterns = (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert all(any(fnmatch(f"{peer.folder}/", line) for line in patterns) for peer in PEERS)
