"""What hostile code in a worker tries: plain functions that a probe runs after the lock-down.

Each takes values that JSON can carry and returns such a value, or does not return. They import
nothing when they run: in a locked-down worker there is nothing to import from.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from tests.hostile.attacks import calls, deaths, inside, machine_code, memory, replies, resources

_MODULES: tuple[ModuleType, ...] = (
    calls,
    deaths,
    inside,
    machine_code,
    memory,
    replies,
    resources,
)


def find(name: str) -> Callable[..., Any]:
    """Return the attack called ``module.function``."""
    wanted, _, function = name.partition(".")
    for module in _MODULES:
        if module.__name__.rpartition(".")[2] == wanted:
            attack: Callable[..., Any] = getattr(module, function)
            return attack
    raise LookupError(f"there is no attack {name!r}")
