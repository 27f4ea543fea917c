"""The order in which a worker's protections are entered: the one place that knows it.

An intermediate process calls `enter_namespaces` and then forks the worker, which is thereby process
1 of the new pid namespace. The worker calls `lock_down` before it touches a byte of the model.
Whatever has to be imported, or read from /proc, must have been before the first of the two.

A device that starts threads cannot be loaded before the first of them; `afresh` says what is then
done between the two.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import cache, partial
from typing import Final, NamedTuple

from loader_service.sandbox import (
    capabilities,
    credentials,
    empty_root,
    granted_calls,
    landlock,
    namespaces,
    policy,
    process,
    resource_limits,
    seccomp,
)
from loader_service.sandbox.empty_root import EmptyRoot, RootFile
from loader_service.sandbox.granted_calls import DEVICE_NODES, OWN_FILE
from loader_service.sandbox.layers import MINIMUM, Layer
from loader_service.sandbox.resource_limits import ResourceLimits
from loader_service.sandbox.syscall_tables import host_architecture

NAMESPACE_LAYERS: Final = (
    Layer.UNPRIVILEGED_UID,
    Layer.USER_NAMESPACE,
    Layer.MOUNT_NAMESPACE,
    Layer.EMPTY_ROOT,
    Layer.PID_NAMESPACE,
    Layer.NETWORK_NAMESPACE,
    Layer.IPC_NAMESPACE,
    Layer.UTS_NAMESPACE,
    Layer.CGROUP_NAMESPACE,
)
"""What `enter_namespaces` can enter."""

LOCK_DOWN_LAYERS: Final = (
    Layer.CAPABILITIES,
    Layer.NO_NEW_PRIVILEGES,
    Layer.LANDLOCK,
    Layer.RLIMITS,
    Layer.NOT_DUMPABLE,
    Layer.SECCOMP,
)
"""What `lock_down` enters, in this order."""


class Outcome(NamedTuple):
    """Which of the wanted layers hold now, and why each of the others does not."""

    entered: frozenset[Layer]
    refused: dict[Layer, str]
    file: int | None = None
    """Descriptor of the one file in the root, where there is one."""
    root: EmptyRoot | None = None
    """The root, where it was laid and is still to be entered."""


class LockDownError(RuntimeError):
    """A layer without which no worker may run could not be entered."""

    def __init__(self, layer: Layer, detail: str) -> None:
        super().__init__(f"the host refuses {layer}: {detail}")
        self.layer = layer
        self.detail = detail


def enter_namespaces(
    wanted: AbstractSet[Layer],
    uid: int | None,
    file: RootFile | None = None,
    nodes: Sequence[str] = (),
    empty: Sequence[str] = (),
    *,
    loads_later: bool = False,
) -> Outcome:
    """Change to user `uid`, then enter the wanted namespaces and the empty root.

    `file`, `nodes` and `empty` files are what devices are granted in that root. For a worker that
    `loads_later` what its devices are, root stays root, the root is laid out only, and this process
    keeps its rights in the namespaces: see `afresh`.

    For the intermediate process: it must have one thread. Each layer that the host refuses is left
    out and reported; layers that `lock_down` enters are ignored here. `uid` is `None` for a service
    that is not root. The pid namespace holds for the next child, and everything else for this
    process too. Raises `RuntimeError` when there is a second thread.
    """
    if not process.is_single_threaded():
        raise RuntimeError("namespaces are entered by a process of one thread")
    steps = _Steps(wanted)
    if loads_later and uid is not None:
        steps.take(Layer.USER_NAMESPACE, lambda: namespaces.enter_user_namespace_as_root(uid))
        outside = False
    else:
        outside = _change_user_and_enter_its_namespace(steps, uid)
    steps.take(Layer.MOUNT_NAMESPACE, partial(namespaces.enter_namespace, Layer.MOUNT_NAMESPACE))
    laid: list[EmptyRoot] = []
    steps.take(
        Layer.EMPTY_ROOT,
        lambda: laid.append(_empty_root(steps.entered, loads_later, file, nodes, empty)),
    )
    for layer in NAMESPACE_LAYERS[NAMESPACE_LAYERS.index(Layer.PID_NAMESPACE) :]:
        steps.take(layer, partial(namespaces.enter_namespace, layer))
    if outside and not loads_later and Layer.UNPRIVILEGED_UID in steps.entered:
        capabilities.drop_all()
    outcome = steps.outcome()
    if not laid:
        return outcome
    return outcome._replace(file=laid[0].writing, root=laid[0] if loads_later else None)


def lock_down(
    wanted: AbstractSet[Layer],
    limits: ResourceLimits,
    *,
    granted: Sequence[str] = (),
    file: int | None = None,
    nodes: Sequence[str] = (),
    with_threads: bool = False,
) -> Outcome:
    """Give up everything this process does not need, for good; seccomp comes last.

    What its devices are granted stays: the sets of system calls `granted`, reading the file that
    the descriptor `file` writes, and the device `nodes`. Without those the calls for them are not
    granted either: where the host gave no empty root, they would open the host's files.

    For the worker itself, in its only thread, or `with_threads` that have all gone the way of
    `afresh`. Layers that `enter_namespaces` enters are ignored here. Raises `ValueError` when
    `wanted` leaves out one of `MINIMUM`, `RuntimeError` when there is a second thread, and
    `LockDownError` when the host refuses one of `MINIMUM`; the process is then half locked down and
    must end.
    """
    if missing := MINIMUM - wanted:
        raise ValueError(f"a worker cannot do without {', '.join(sorted(missing))}")
    if not with_threads and not process.is_single_threaded():
        raise RuntimeError("a worker is locked down while it has one thread")
    there = {OWN_FILE: file is not None, DEVICE_NODES: bool(nodes)}
    program = _filter(tuple(name for name in granted if there.get(name, True))).for_process(
        os.getpid()
    )
    steps = _Steps(wanted)
    steps.take(Layer.CAPABILITIES, capabilities.drop_all)
    steps.take(Layer.NO_NEW_PRIVILEGES, process.set_no_new_privileges)
    steps.take(Layer.LANDLOCK, lambda: _refuse_by_landlock(file, nodes))
    # After Landlock, which needs a descriptor for a moment.
    steps.take(Layer.RLIMITS, lambda: resource_limits.apply_limits(limits))
    steps.take(Layer.NOT_DUMPABLE, lambda: process.set_dumpable(False))
    steps.take(Layer.SECCOMP, lambda: seccomp.load_filter(program, all_threads=with_threads))
    return steps.outcome()


def warm_up(granted: Sequence[str] = ()) -> None:
    """Do once, before the forks, what every `lock_down` would otherwise do anew."""
    _filter(tuple(granted))


@cache
def _filter(granted: tuple[str, ...]) -> seccomp.Template:
    """The filter, found by few names: by its rules, each worker would hash all of them anew."""
    return seccomp.template(granted_calls.rules_for(granted), host_architecture().name)


class _Steps:
    """Enters layers one by one and remembers how each went."""

    def __init__(self, wanted: AbstractSet[Layer]) -> None:
        self._wanted = wanted
        self.entered: set[Layer] = set()
        self._refused: dict[Layer, str] = {}

    def take(self, layer: Layer, enter: Callable[[], object]) -> None:
        if layer not in self._wanted:
            return
        try:
            enter()
        except (OSError, ValueError) as error:
            detail = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            if layer in MINIMUM:
                raise LockDownError(layer, detail) from error
            self._refused[layer] = detail
        else:
            self.entered.add(layer)

    def outcome(self) -> Outcome:
        return Outcome(frozenset(self.entered), dict(self._refused))


def _change_user_and_enter_its_namespace(steps: _Steps, uid: int | None) -> bool:
    """Returns whether root's rights are kept because there is no user namespace to have any in."""
    # Root's rights are kept over the change of user until the user namespace is seen to work: a
    # host that refuses only that one can still give all the others.
    keeps = os.geteuid() == 0
    if keeps:
        capabilities.keep_over_user_change(True)
    steps.take(Layer.UNPRIVILEGED_UID, lambda: _change_user(uid))
    process.set_dumpable(True)
    steps.take(Layer.USER_NAMESPACE, namespaces.enter_user_namespace)
    outside = keeps and Layer.USER_NAMESPACE not in steps.entered
    if outside:
        capabilities.raise_permitted()
    return outside


def _change_user(uid: int | None) -> None:
    if uid is None:
        raise OSError("only a service that runs as root has a user for each worker")
    credentials.change_user(uid)


def _refuse_by_landlock(file: int | None, nodes: Sequence[str]) -> None:
    paths = nodes if file is None else ("/", *nodes)
    with landlock.opened(*paths) as opened:
        if file is None:
            landlock.refuse_everything(nodes=opened)
        else:
            root, *rest = opened
            landlock.refuse_everything(readable=file, listed=root, nodes=rest)


def _empty_root(
    entered: AbstractSet[Layer],
    later: bool,
    file: RootFile | None,
    nodes: Sequence[str],
    empty: Sequence[str],
) -> EmptyRoot:
    if Layer.MOUNT_NAMESPACE not in entered:
        raise OSError("it needs a mount namespace")
    where = policy.ABOVE_ROOT if later else empty_root.mount_point()
    root = empty_root.lay_empty_root(where, file, nodes, empty)
    if not later:
        root.enter()
    return root
