"""The policy is values only, and each has a reason."""

from __future__ import annotations

import ast
import threading
from pathlib import Path

from loader_service.sandbox import policy
from loader_service.sandbox.layers import (
    CGROUP_LAYERS,
    DESCRIPTIONS,
    MINIMUM,
    PROCESS_LAYERS,
    Layer,
)
from loader_service.sandbox.lockdown import LOCK_DOWN_LAYERS, NAMESPACE_LAYERS
from loader_service.sandbox.remedies import REMEDIES

ROOM = Path(policy.__file__).parent


def imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_the_policy_imports_no_mechanism() -> None:
    assert not [name for name in imported(ROOM / "policy.py") if name.startswith("loader_service")]


def test_the_room_knows_only_itself_and_the_standard_library() -> None:
    import sys

    for file in ROOM.glob("*.py"):
        for name in imported(file):
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or name.startswith("loader_service.sandbox")


def test_every_system_call_rule_says_why() -> None:
    assert [rule.name for rule in policy.WORKER_SYSTEM_CALLS if not rule.reason] == []


def test_everything_without_a_rule_kills() -> None:
    assert policy.Kill() == policy.UNLISTED


def test_every_layer_is_described_has_a_remedy_and_one_place_that_enters_it() -> None:
    assert set(DESCRIPTIONS) == set(REMEDIES) == set(Layer)
    assert all(text.endswith(".") for text in [*DESCRIPTIONS.values(), *REMEDIES.values()])
    assert {*NAMESPACE_LAYERS, *LOCK_DOWN_LAYERS} == PROCESS_LAYERS
    assert not {*NAMESPACE_LAYERS} & {*LOCK_DOWN_LAYERS}
    assert set(Layer) == PROCESS_LAYERS | CGROUP_LAYERS
    assert {Layer.NO_NEW_PRIVILEGES, Layer.SECCOMP, Layer.RLIMITS} == MINIMUM
    assert LOCK_DOWN_LAYERS[-1] is Layer.SECCOMP


def test_the_main_thread_alone_is_one_task_and_pools_count_by_interpreter() -> None:
    assert policy.tasks_for(1) == 1
    # Measured with tflite-runtime 2.14 on the worst model: 5, 8 and 11 tasks.
    assert [policy.tasks_for(n, interpreters=1) for n in (2, 3, 4)] == [5, 8, 11]
    assert policy.tasks_for(2) == 9


def test_worker_users_do_not_overlap() -> None:
    assert not set(policy.FALLBACK_UID_RANGE) & set(policy.UID_RANGE)
    assert policy.UID_RANGE.stop <= 2**31
    assert threading.main_thread()  # the room starts no thread on import
