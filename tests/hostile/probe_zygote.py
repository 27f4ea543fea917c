"""The real zygote with the probe in the place of a runtime, started by a broker of the tests only.

The name of the runtime says how: ``probe`` enters every layer, ``probe:`` and names of layers
those only (``probe:`` alone none at all), ``probe-but:`` all except those.
"""

from __future__ import annotations

import secrets
from collections.abc import Set as AbstractSet
from typing import Any

from loader_service.sandbox import lockdown
from loader_service.sandbox.layers import MINIMUM, PROCESS_LAYERS, Layer
from loader_service.sandbox.lockdown import Outcome
from loader_service.sandbox.resource_limits import ResourceLimits
from loader_service.worker import main as worker
from loader_service.worker import spawn as spawning
from loader_service.worker import zygote
from loader_service.worker.opening import open_model
from loader_service.worker.orders import Go, Spawn
from tests.hostile.attacks import memory
from tests.hostile.probe_runtime import ProbeRuntime

SECRET_BEFORE = "5" * 32
"""A secret that the zygote has before it forks: every worker must be able to find this one."""
SPAWNS_BEFORE_SECRET = 2
"""The rehearsal, and one worker."""
_held: list[bytearray] = []


def chosen(runtime: str) -> frozenset[Layer]:
    """The layers that the name of a runtime stands for."""
    kind, _, names = runtime.partition(":")
    layers = frozenset(Layer(name) for name in names.split(",") if name)
    if kind == "probe-but":
        return PROCESS_LAYERS - layers
    return layers if ":" in runtime else PROCESS_LAYERS


def restrict_to(layers: frozenset[Layer]) -> None:
    """Enter these layers only; the order in which they are entered stays the real one."""
    enter_namespaces, lock_down = lockdown.enter_namespaces, lockdown.lock_down

    def enter_chosen(
        wanted: AbstractSet[Layer], uid: int | None, *file: Any, **later: Any
    ) -> Outcome:
        return enter_namespaces(wanted & layers, uid, *file, **later)

    def lock_down_chosen(
        wanted: AbstractSet[Layer], limits: ResourceLimits, **granted: Any
    ) -> Outcome:
        return lock_down(wanted & layers, limits, **granted)

    setattr(lockdown, "enter_namespaces", enter_chosen)  # noqa: B010
    setattr(lockdown, "lock_down", lock_down_chosen)  # noqa: B010
    setattr(lockdown, "MINIMUM", MINIMUM & layers)  # noqa: B010


def main(arguments: list[str]) -> int:
    """Be a zygote of probes."""
    restrict_to(chosen(arguments[1]))
    _held.append(memory.secret_of(SECRET_BEFORE))
    spawn = spawning.spawn
    spawns = 0

    def spawn_and_hold(runtime: Any, order: Spawn, *rest: Any) -> dict[str, object]:
        nonlocal spawns
        answer = spawn(runtime, order, *rest)
        spawns += 1
        if spawns == SPAWNS_BEFORE_SECRET:
            _held.append(memory.secret_of(secrets.token_hex(16)))
        return answer

    def open_without(runtime: Any, model: bytes, go: Go, devices: object) -> object:
        """Let the worker have devices, and the probe no need of them."""
        del devices
        return open_model(runtime, model, go)

    setattr(worker, "open_model", open_without)  # noqa: B010
    setattr(zygote, "spawn", spawn_and_hold)  # noqa: B010
    setattr(zygote, "find_runtime", lambda _: ProbeRuntime())  # noqa: B010
    return zygote.main(arguments)
