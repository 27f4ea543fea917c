"""What every test may use, and an honest report of what this host could not show."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.shared_models import manifest, shared_folder
from tests.support.as_user import UID_VARIABLE
from tests.support.host import cgroup_kind, installed_runtimes, user_namespaces_usable

# By default an example may take 200 ms: no test of this project measures a machine. And each run
# would try other examples: looking for new ones is what `make fuzz` is for.
settings.register_profile(
    "no-luck",
    settings.default,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    database=None,
)
settings.load_profile("no-luck")

collect_ignore = [] if UID_VARIABLE in os.environ else ["support/test_as_user.py"]

SOCKET_PATH_LENGTH = 107
"""Longest path of a Unix socket in bytes (sun_path without its final zero)."""


def pytest_report_header() -> list[str]:
    """Say who runs the tests and what this host offers."""
    folder = shared_folder()
    namespaces = "usable" if user_namespaces_usable() else "refused"
    return [
        f"host: uid {os.getuid()}, Linux {platform.release()}, {os.cpu_count()} cores, "
        f"cgroup {cgroup_kind()}, user namespaces {namespaces}",
        f"runtimes: {', '.join(installed_runtimes()) or 'none installed'}; shared models: "
        + (f"{len(manifest())}" if folder else "not there"),
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of what a fork of this process does before any that use gRPC in it.

    gRPC starts its threads anew in each forked child. Only a process with one thread can enter a
    user namespace or be locked down; and where a child closes its descriptors, these threads abort.
    """
    sandbox = Path(__file__).parent / "sandbox"

    def turn(item: pytest.Item) -> int:
        if sandbox in item.path.parents:
            return 0
        return 1 if item.get_closest_marker("forks") else 2

    items.sort(key=turn)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was skipped, by reason: nothing is left out silently."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[text.removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("not shown on this host")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:5d}  {reason}")


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Give a new folder whose path leaves 60 bytes for a Unix socket's name in it."""
    base = Path(os.environ.get("TMPDIR", "/tmp"))
    folder = Path(tempfile.mkdtemp(prefix="s", dir=base))
    if len(os.fsencode(folder)) > SOCKET_PATH_LENGTH - 60:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="mlt-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
