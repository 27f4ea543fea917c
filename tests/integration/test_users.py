"""Two ordinary users and root share one daemon, and each has what the operator gave."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from loader_service.repository.files import MODEL
from loader_service.writer import small
from tests.cli.conftest import run_command
from tests.integration.tenants import tenant
from tests.repository.folders import put
from tests.support.daemon import Daemon
from tests.support.raw_client import HANG_SECONDS

pytestmark = [
    pytest.mark.isolation,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users"),
]

FIRST, SECOND, STRANGER = 54301, 54302, 54303
CONFIGURATION = f"""
[limits]
models_per_origin = 4
[[policy]]
name = "first"
users = [{FIRST}]
[policy.limits]
processes = 2
memory_bytes = "256 MiB"
[[policy]]
name = "second"
users = [{SECOND}]
isolation = "origin"
allowed_sha256 = ["{hashlib.sha256(small.add(1)).hexdigest()}"]
limits.models_per_origin = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The daemon's configuration."""
    file = tmp_path / "config.toml"
    file.write_text(CONFIGURATION, encoding="utf-8")
    return file


@pytest.fixture
def daemon(file: Path) -> Iterator[Daemon]:
    """Root's daemon."""
    with closing(Daemon(config=file)) as daemon:
        yield daemon


def wait_for_log(daemon: Daemon, said: str) -> None:
    """Wait until the daemon has written that."""
    deadline = time.monotonic() + HANG_SECONDS
    while said not in daemon.log():
        assert time.monotonic() < deadline, daemon.log()
        time.sleep(0.02)


def test_each_user_has_their_own_quotas_and_sees_their_own_models(
    daemon: Daemon, file: Path
) -> None:
    with (
        tenant(daemon, FIRST) as first,
        tenant(daemon, SECOND) as second,
        tenant(daemon, 0) as root,
        tenant(daemon, STRANGER) as stranger,
    ):
        assert stranger.said["error"] == "SecurityError"
        assert f"uid {STRANGER} may not use this service" in stranger.said["message"]
        given = [
            (who.said["processes"], who.said["models_per_origin"], who.said["memory_bytes"])
            for who in (first, second, root)
        ]
        assert given == [(2, 4, 256 << 20), (128, 3, 1 << 30), (128, 4, 1 << 30)]
        # Who has used up a quota takes nothing from another, though their origins have one name.
        firsts = [first.do("load 1"), first.do("load 2")]
        refused = first.do("load 3")
        assert (refused["error"], refused["limit"]) == ("QuotaExceededError", "processes")
        seconds = [second.do("load 1") for _ in range(3)]
        assert len(set(seconds)) == 1
        refused = second.do("load 1")
        assert (refused["error"], refused["limit"]) == ("QuotaExceededError", "models_per_origin")
        roots = [root.do(f"load {number}") for number in range(4)]
        refused = root.do("load 1")
        assert (refused["error"], refused["limit"]) == ("QuotaExceededError", "models_per_origin")
        for who, own in ((first, firsts), (second, seconds), (root, roots)):
            assert sorted(who.do("models")) == sorted(own)
        assert len({*firsts, *seconds, *roots}) == 7
        # Root administers the service, and sees everybody's.
        listed = json.loads(run_command("ps", "--json", "--address", daemon.directory).stdout)
        everybody = Counter((row["user"], row["worker_pid"]) for row in listed["models"])
        assert everybody == Counter(
            (uid, pid)
            for uid, pids in ((FIRST, firsts), (SECOND, seconds), (0, roots))
            for pid in pids
        )
        # A user whose policy is taken away keeps what runs, and gets nothing new.
        second_alone = CONFIGURATION.replace(f"users = [{FIRST}]", f"users = [{STRANGER}]")
        file.write_text(second_alone, encoding="utf-8")
        os.kill(daemon.pid, signal.SIGHUP)
        wait_for_log(daemon, "the configuration was read again")
        assert first.do("compute") == [2]
        assert first.do("load 1")["error"] == "SecurityError"
        assert [second.do("compute"), root.do("compute")] == [[2], [1]]
    with tenant(daemon, FIRST) as first, tenant(daemon, STRANGER) as stranger:
        assert f"uid {FIRST} may not use this service" in first.said["message"]
        assert stranger.said["processes"] == 2


def test_only_models_on_the_list_load(daemon: Daemon) -> None:
    with tenant(daemon, SECOND) as second:
        refused = second.do("load 7")
        digest = hashlib.sha256(small.add(7)).hexdigest()
        assert refused["error"] == "SecurityError"
        assert refused["message"].startswith("the policy 'second' allows only the models on its")
        assert digest in refused["message"]
        second.do("load 1")
        assert second.do("compute") == [2]
        assert len(second.do("models")) == 1


def test_the_operators_models_are_used_and_not_read(tmp_path: Path) -> None:
    """The folder is closed to everybody, and a policy's limits and list hold for its models too."""
    folder = tmp_path / "models"
    model = put(folder, "adder", 1, small.add(1)) / MODEL
    put(folder, "other", 1, small.add(7))
    folder.chmod(0o700)
    file = tmp_path / "config.toml"
    file.write_text(f"service.repository = '{folder}'\n{CONFIGURATION}", encoding="utf-8")
    with closing(Daemon(config=file)) as daemon, tenant(daemon, SECOND) as second:
        assert second.do("load-by-name adder") == hashlib.sha256(small.add(1)).hexdigest()
        assert second.do("compute") == [2]
        assert second.do(f"read {model}") is False
        refused = second.do("load-by-name other")
        assert refused["message"].startswith("the policy 'second' allows only the models on its")
        assert second.do("load-by-name nobody")["error"] == "NotFoundError"
