"""What a worker does before it is locked down that loads a device which starts threads.

Namespaces are entered by a process of one thread, a fork has one, and Landlock and capabilities are
each thread's own: none of it can be done after such a library was loaded. So its worker is forked,
by an intermediate process that was executed afresh, when all namespaces have been entered and the
root is only laid out. It gives up its rights, and may only read the host's files while it loads the
library; what the library starts inherits that. A service's root stays root so long, for who
installed the service is the one who can read it, and has two rights left: to become the worker's
user, with all threads. The intermediate process, which kept its own rights, then enters the root
for all threads at once, and `lock_down` puts seccomp on each.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence

from loader_service.sandbox import capabilities, credentials, landlock, policy, process

_NO_RIGHTS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
"""Sets that must be empty. (An ordinary user's bounding set is not, and gives nothing.)"""
_ENDING_SECONDS = 1.0


def give_up_rights(*, becomes_other: bool) -> None:
    """Drop every capability, but for changing the user of a process that `becomes_other`.

    None can be gained by executing a file then. Raises `OSError`.
    """
    if becomes_other:
        capabilities.reduce_to(capabilities.USER_CHANGE)
    else:
        capabilities.drop_all()
    process.set_no_new_privileges()


def only_read(nodes: Sequence[str] = ()) -> None:
    """Let this thread, and those that it starts, read the host's files and do no more with them.

    The device `nodes` may be written, too. When the root has been entered, nothing is left of the
    host's files; `lock_down` refuses the first thread once more what it need not have. Does nothing
    where there is no Landlock, which `lock_down` then reports. Raises `OSError`.
    """
    try:
        landlock.abi_version()
    except OSError:
        return
    with landlock.opened("/", policy.ABOVE_ROOT, *nodes) as (host, laid, *rest):
        landlock.refuse_everything(below=(host, laid), nodes=rest)


def become(uid: int) -> None:
    """Become user and group `uid`, with all threads and for good, and lose the last rights by it.

    Raises `OSError`, also for a thread that stayed what it was: one that the C library does not
    know. Reads /proc.
    """
    credentials.change_user(uid)
    ends = time.monotonic() + _ENDING_SECONDS
    while unchanged := _threads_that_are_not(uid):
        # One that ends just now is left out by the C library, and gone in a moment.
        if time.monotonic() > ends:
            raise OSError(f"thread {unchanged[0]!r} of a device does not change its user")
        time.sleep(0.001)


def _threads_that_are_not(uid: int) -> list[str]:
    """Return the names of threads that have another user, a group beside its, or a right."""
    user = "\t".join([str(uid)] * 4)
    return [
        status["Name"]
        for status in process.status_of_threads()
        if not status["Uid"] == status["Gid"] == user
        or status["Groups"]
        or any(int(status[name], 16) for name in _NO_RIGHTS)
    ]


def check_what_is_left(*, alone: bool) -> None:
    """Raise `OSError` for what a device has that would lead out of the root, or out of the sandbox.

    That is a directory among its descriptors, a working directory of a thread's own, and another
    process, where the worker must be `alone` in its pid namespace: nothing that is done to threads
    holds for that. Reads /proc.
    """
    for descriptor in process.open_descriptors():
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:  # the listing's own
            continue
        if stat.S_ISDIR(mode):
            raise OSError(f"a device leaves a directory open, as descriptor {descriptor}")
    os.chdir("/")
    if set(process.directories_of_threads()) != {("/", "/")}:
        raise OSError("a thread of a device has a working directory of its own")
    if alone:
        try:
            os.kill(-1, 0)
        except ProcessLookupError:
            return
        raise OSError("a device leaves another process behind")
