"""Two ordinary users and root on one daemon: none reaches, sees or starves another."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from model_loader_cli.exits import Exit
from tests.cli.conftest import document, run_command
from tests.hostile.intruder import NEVER
from tests.integration.tenants import tenant
from tests.support.daemon import Daemon

pytestmark = [
    pytest.mark.isolation,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users"),
]

FIRST, SECOND, STRANGER = 54311, 54312, 54313
CONNECTIONS = 30
CONFIGURATION = f"""
[limits]
models_per_origin = 6
compute_seconds = 3600
[service]
handshake_seconds = 600
[shared_limits]
attach_connections = {CONNECTIONS}
[[policy]]
name = "first"
users = [{FIRST}]
limits.processes = 5
[[policy]]
name = "second"
users = [{SECOND}]
limits.processes = 5
"""
STEERING = ("events", "kill --user 0", "drain", "limits set processes=1")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Root's daemon."""
    file = tmp_path_factory.mktemp("configuration") / "config.toml"
    file.write_text(CONFIGURATION, encoding="utf-8")
    with closing(Daemon(config=file)) as daemon:
        yield daemon


def rows(said: dict[str, Any]) -> Counter[tuple[int, int]]:
    """The user and the process of each row of a `ps`."""
    assert said["status"] == Exit.OK, said["errors"]
    return Counter((row["user"], row["worker_pid"]) for row in json.loads(said["output"])["models"])


def test_a_users_first_connection_may_be_a_relayed_one(daemon: Daemon) -> None:
    """Whose room is made at the attach socket; a stranger learns why there is none."""
    assert not (daemon.directory / f"uid-{FIRST}").exists()
    with tenant(daemon, FIRST, "relayed") as first, tenant(daemon, STRANGER, "relayed") as stranger:
        first.do("load 1")
        assert first.do("compute") == [2]
        assert stranger.said["error"] == "SecurityError"


def test_ps_shows_a_user_their_own_rows_and_root_all(daemon: Daemon) -> None:
    with (
        tenant(daemon, FIRST) as first,
        tenant(daemon, SECOND) as second,
        tenant(daemon, 0) as root,
        tenant(daemon, STRANGER) as stranger,
    ):
        has = {uid: Counter[tuple[int, int]]() for uid in (FIRST, SECOND, 0)}
        for uid, who, count in ((FIRST, first, 2), (SECOND, second, 1), (0, root, 3)):
            has[uid].update((uid, who.do("load 1")) for _ in range(count))
        assert rows(first.do("cli ps --json")) == has[FIRST]
        assert rows(second.do("cli ps --json")) == has[SECOND]
        assert rows(root.do("cli ps --json")) == sum(has.values(), Counter())
        for who in (first, second):
            assert json.loads(who.do("cli status --json")["output"])["models"] == len(who.do(""))
            shown = json.loads(who.do("cli limits show --json")["output"])
            assert {row["name"]: row["value"] for row in shown["limits"]}["processes"] == 5
            assert not any(row["settable"] for row in shown["limits"])
            for words in STEERING:
                refused = who.do(f"cli {words}")
                assert refused["status"] == Exit.REFUSED, words
                assert "is steered by root and by the user who runs it" in refused["errors"]
        for words in ("ps --json", "status", "limits show", *STEERING):
            assert stranger.do(f"cli {words}")["status"] == Exit.REFUSED, words
        facts = document(run_command("status", "--json", "--address", daemon.directory))
        assert {user["user"]: user["models"] for user in facts["users"]} == {
            FIRST: 2,
            SECOND: 1,
            0: 3,
        }
        assert first.do("compute") == second.do("compute") == root.do("compute") == [2]


def test_what_one_has_is_of_no_use_to_another(daemon: Daemon) -> None:
    """Each knows all that the victim's client knows; the stranger has not even a session."""
    with (
        tenant(daemon, FIRST) as first,
        tenant(daemon, SECOND) as second,
        tenant(daemon, 0) as root,
    ):
        known = {uid: who.do("known") for uid, who in ((FIRST, first), (SECOND, second), (0, root))}
        for whose, who in ((SECOND, first), (0, first), (FIRST, second), (0, second)):
            before = set(who.do("models"))
            reached = who.do(f"intrude {json.dumps(known[whose])}")
            answers = Counter(
                tuple(answer) for calls in reached["tokens"].values() for answer in calls.values()
            )
            (answer,) = answers
            assert answer[:2] == ("PERMISSION_DENIED", "forbidden")
            assert reached["their socket"]["room"] == "closed"
            assert {*map(tuple, reached["their socket"]["calls"].values())} == {("UNAVAILABLE",)}
            for model_id in (known[whose]["direct"], known[whose]["relayed"], ""):
                assert reached["models"][model_id] == reached["models"][NEVER]
            assert len(reached["listed"]) == len(before)
            assert set(reached["process"].values()) == {"refused"}
        for who in (first, second, root):
            assert len(who.do("models")) == 2  # those of `known`, which all live
            who.do("load 1")
            assert who.do("compute") == [2]


def test_none_starves_another(daemon: Daemon) -> None:
    """One takes all that it may have of everything; the others get all that is theirs."""
    for greedy, modest in itertools.permutations((FIRST, SECOND)):
        daemon.wait_for_workers([])
        with tenant(daemon, greedy) as hog, tenant(daemon, STRANGER) as stranger:
            assert len(hog.do("spin 5")) == 5
            refused = hog.do("load 1")
            assert (refused["error"], refused["limit"]) == ("QuotaExceededError", "processes")
            for who in (hog, stranger):
                knocked = who.do(f"knock {2 * CONNECTIONS}")
                assert knocked["waiting"] > 0
                assert set(knocked["limits"]) == {"attach_connections"}
            for uid in (modest, 0):
                with tenant(daemon, uid) as other:
                    assert len({other.do("load 3") for _ in range(5)}) == 5
                    expected = [number + 3.0 for number in range(50)]
                    assert other.do("compute-often 50") == expected
                    listed = {user for user, _ in rows(other.do("cli ps --json"))}
                    assert listed >= {greedy, 0} if uid == 0 else listed == {modest}
            # And it is not punished: what it has is still its own.
            assert len(hog.do("models")) == 5


def test_a_stranger_is_refused_at_the_socket(daemon: Daemon, tmp_path: Path) -> None:
    """With a sentence at the one that all may open, and by the kernel at all others."""
    with tenant(daemon, FIRST) as first, tenant(daemon, STRANGER) as stranger:
        assert stranger.said["error"] == "SecurityError"
        assert stranger.said["message"].startswith(f"uid {STRANGER} may not use this service")
        first.do("load 1")
        for path in (
            daemon.directory / "admin.sock",
            daemon.directory / "steering",
            daemon.directory / f"uid-{FIRST}",
            daemon.directory / "uid-0",
            daemon.directory / "lock",
        ):
            assert stranger.do(f"read {path}") is False, path
        room = daemon.directory / f"uid-{FIRST}"
        assert stranger.do(f"write {room / 'grpc.sock'}") is False
        assert first.do(f"write {room / 'grpc.sock'}") is True
        # Nor may its user write to the room: it is where the machine's other services have theirs.
        assert first.do(f"write {room}") is first.do(f"read {room}") is False
        assert not (daemon.directory / f"uid-{STRANGER}").exists()
    assert f"connection-refused: cause=forbidden user={STRANGER}" in daemon.log()
