"""The Debian package: built by one command, installed, run as its unit says, removed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from model_loader_wire.system_service import ACCOUNT
from tests.docs.markdown import links
from tests.packaging import readme
from tests.packaging.scratch_root import ScratchRoot, why_not
from tests.packaging.unit import ANALYZER, SERVICE, WITHOUT_ANALYZER, Unit
from tests.shared_models import REPOSITORY
from tests.support.readable_copy import copy_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PYTHON = Path("/usr/bin/python3")
START_SECONDS = 300.0
MEMBER, STRANGER = 61_001, 61_002
"""Users whom the tests add to the scratch root: one of the group, and one who is in none."""


def why_no_package() -> str | None:
    """Why the package cannot be built here; None where it can."""
    if missing := [tool for tool in ("dpkg", "dpkg-deb") if shutil.which(tool) is None]:
        return f"not a Debian system: {' and '.join(missing)} missing"
    if not PYTHON.exists():
        return f"{PYTHON} is not there, for which the package would be"
    found = subprocess.run(
        [PYTHON, "-I", "-c", "import sys; print(*sys.version_info[:2], sep='.')"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if tuple(map(int, found.split("."))) < (3, 11):
        return f"{PYTHON} is Python {found}, and 3.11 or newer is needed"
    known = ["dpkg-query", "--show", f"python{found}"]
    if subprocess.run(known, capture_output=True, check=False).returncode != 0:
        return f"{PYTHON} does not come from a package python{found}, which this one depends on"
    return None


@pytest.fixture(scope="module")
def package() -> Iterator[Path]:
    """Build it, in a copy of the tree, as the Makefile does."""
    if reason := why_no_package():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory() as folder:
        copy_project(REPOSITORY, Path(folder) / "project")
        done = subprocess.run(
            [sys.executable, "packaging/debian/build.py", "--output", str(Path(folder) / "dist")],
            cwd=Path(folder) / "project",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield Path(done.stdout.splitlines()[-1])


@dataclass
class Running:
    """The service of an installed package, in the root that it was installed into."""

    root: ScratchRoot
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until_logged(self, text: str) -> None:
        """Wait until the service has written this to its log."""
        deadline = time.monotonic() + START_SECONDS
        while text not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def as_user(self, uid: int, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a user who has no other group."""
        change = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        return self.root.run(*change, *words, status=None)

    def end(self) -> int:
        """End the service as systemd does; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_SECONDS)


@pytest.fixture(scope="module")
def installed(package: Path) -> Iterator[ScratchRoot]:
    """Install it into a scratch root, with two users and the examples."""
    if reason := why_not():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory() as folder, ScratchRoot(Path(folder)) as root:
        with package.open("rb") as file:
            copy = root.command("sh", "-c", "cat > /run/package.deb")
            subprocess.run(copy, stdin=file, check=True)
        root.run("dpkg", "--install", "/run/package.deb")
        for name, uid in (("member", MEMBER), ("stranger", STRANGER)):
            line = f"{name}:x:{uid}:{uid}::/:/bin/sh"
            root.run("sh", "-c", f"echo {line} >> /etc/passwd; echo {name}:x:{uid}: >> /etc/group")
        root.run("sed", "-i", f"/^{ACCOUNT}:/s/$/member/", "/etc/group")
        root.run("cp", "-r", readme.EXAMPLES, "/run/examples")
        root.run("chmod", "-R", "a+rX", "/run/examples")
        yield root


@pytest.fixture(scope="module")
def running(installed: ScratchRoot) -> Iterator[Running]:
    """Run the installed unit's ExecStart, as the unit says."""
    if ANALYZER is None:
        pytest.skip(f"{WITHOUT_ANALYZER}, which knows what the unit's filter lets through")
    start = Unit.read(SERVICE).last("ExecStart").split()
    confined = [sys.executable, "-P", "-m", "tests.packaging.confined", str(SERVICE), "--"]
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(
            installed.command(*confined, *start),
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'client'}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        service = Running(installed, process, Path(log.name))
        try:
            service.wait_until_logged("service-ready")
            yield service
        finally:
            process.kill()
            process.wait()


def test_the_package_holds_what_belongs_to_root_and_is_for_all(package: Path) -> None:
    listed = subprocess.run(
        ["dpkg-deb", "--contents", str(package)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    entries = [line.split() for line in listed]
    assert {words[1] for words in entries} == {"root/root"}
    modes = {words[0] for words in entries}
    assert modes <= {"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x", "lrwxrwxrwx"}
    paths = {words[5] for words in entries}
    assert "./usr/lib/systemd/system/model-loader.service" in paths
    assert not [path for path in paths if "__pycache__" in path]


def test_the_installed_documents_lead_to_what_is_installed(package: Path, tmp_path: Path) -> None:
    """The files that they link to, from the README on, and the one that the unit names."""
    subprocess.run(["dpkg-deb", "--extract", str(package), str(tmp_path)], check=True)
    installed = tmp_path / "usr/share/doc/model-loader"
    documents = sorted(installed.rglob("*.md"))
    assert {"README.md", "operations.md", "CHANNEL.md"} <= {path.name for path in documents}
    for document in documents:
        for target in links(document.read_text(encoding="utf-8")):
            path = target.partition("#")[0]
            if path and not target.startswith("https:"):
                other = (document.parent / path).resolve()
                assert other.exists(), f"{document.name} links to {target}, which is not there"
                assert other.is_relative_to(installed), target
    named = Unit.read(SERVICE).last("Documentation")
    assert (tmp_path / named.removeprefix("file:///")).is_file(), named
    assert (installed / "copyright").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()


def test_the_readmes_example_runs_on_the_installed_service(running: Running) -> None:
    """By a member of the group, with the package's own interpreter and under the unit's filters."""
    program = f"import os; os.chdir('/run')\n{readme.PROGRAM}"
    done = running.as_user(MEMBER, "/usr/lib/model-loader/bin/python3", "-I", "-c", program)
    assert readme.ANSWER.fullmatch(done.stdout), done.stdout + done.stderr
    running.wait_until_logged("load-ready")
    assert f"user={MEMBER}" in running.log.read_text()


def test_the_installed_command_tells_of_it(running: Running) -> None:
    model = "/run/examples/digits/digits.tflite"
    done = running.as_user(MEMBER, "model-loader", "run", model, "--random", "1")
    assert done.returncode == 0, done.stderr
    assert "digits.tflite" in done.stdout
    # Root administers the service, and is no user of it.
    assert "ready" in running.root.run("model-loader", "status").stdout
    assert "load-ready" in running.root.run("model-loader", "events").stdout
    assert "no models are loaded" in running.root.run("model-loader", "ps").stdout
    assert "memory_bytes" in running.root.run("model-loader", "limits", "show").stdout


def test_who_is_not_in_the_group_is_refused(running: Running) -> None:
    done = running.as_user(
        STRANGER, "env", "MODEL_LOADER_ADDRESS=/run/model-loader", "model-loader", "ps"
    )
    assert done.returncode != 0
    assert "may not use this service" in done.stderr


def test_it_is_stopped_removed_and_purged(running: Running) -> None:
    """Last: it ends the service that the other tests of this file use."""
    assert running.end() == 0
    root = running.root
    root.run("dpkg", "--remove", "model-loader")
    assert root.run("ls", "/etc/model-loader").stdout == "config.toml\n"
    for gone in ("/usr/lib/model-loader", "/usr/bin/model-loader", "/run/model-loader"):
        root.run("test", "!", "-e", gone)
    root.run("dpkg", "--purge", "model-loader")
    for gone in ("/etc/model-loader", "/var/lib/model-loader", "/usr/share/doc/model-loader"):
        root.run("test", "!", "-e", gone)
    assert root.run("systemctl", "is-enabled", "model-loader", status=None).returncode != 0


def test_a_machine_without_a_fit_python_is_told(tmp_path: Path) -> None:
    program = f"""
import runpy, pathlib
module = runpy.run_path({str(REPOSITORY / "packaging/debian/build.py")!r})
names = module["interpreter_version"].__globals__
names["INTERPRETER"] = pathlib.Path({str(tmp_path / "python3")!r})
print(module["interpreter_version"]())
"""
    missing = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert missing.returncode == 1
    assert "is not there: the package is for the system's Python" in missing.stderr
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho 3.9\n")
    old.chmod(0o755)
    refused = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "is Python 3.9; 3.11 or newer is needed" in refused.stderr
