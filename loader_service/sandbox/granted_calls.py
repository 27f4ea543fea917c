"""The system calls that a device can be granted: named sets of rules beside the plain table.

Values only. A worker without a device has exactly `policy.WORKER_SYSTEM_CALLS`; one whose device is
granted a set has these rules in the place of the plain ones of the same calls.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from loader_service.sandbox.policy import (
    INT,
    WORKER_SYSTEM_CALLS,
    Allow,
    Case,
    Condition,
    Fail,
    Kill,
    Rule,
)

EXECUTABLE_MEMORY: Final = "executable-memory"
OWN_FILE: Final = "own-file"
NUMA_IS_REFUSED: Final = "numa-is-refused"

_PROTECTIONS: Final = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
_READ_ONLY: Final = (
    INT & ~os.O_CLOEXEC & ~os.O_DIRECTORY & ~os.O_NONBLOCK & ~os.O_LARGEFILE & ~0o100_000
)
"""All bits of the flags of open(2) but those that change nothing about a file that is read."""

GRANTED_SYSTEM_CALLS: Final[Mapping[str, tuple[Rule, ...]]] = MappingProxyType(
    {
        EXECUTABLE_MEMORY: (
            Rule(
                "mprotect",
                Kill(),
                "memory that a compiler of kernels (JIT) has written becomes executable",
                (Case((Condition(2, INT & ~_PROTECTIONS, 0),), Allow()),),
            ),
        ),
        OWN_FILE: (
            Rule(
                "openat",
                Fail(errno.EACCES),
                "opens the one file that the root has, for reading only",
                (Case((Condition(2, _READ_ONLY, 0),), Allow()),),
            ),
            Rule("stat", Allow(), "whether that file is there"),
            Rule("newfstatat", Allow(), "whether that file is there"),
            Rule("pwrite64", Allow(), "writes that file, through a descriptor from the birth"),
            Rule("ftruncate", Allow(), "gives the memory of that file back"),
        ),
        NUMA_IS_REFUSED: (
            Rule("mbind", Fail(errno.EPERM), "a library that wants its memory near a processor"),
        ),
    }
)
"""By name: what each opens, and why. A rule that fails opens nothing: it does not kill, either."""


def rules_for(granted: Iterable[str]) -> tuple[Rule, ...]:
    """Return the table of a worker with these grants; the plain one without any.

    Raises KeyError for a name that is no grant.
    """
    changed = {rule.name: rule for name in granted for rule in GRANTED_SYSTEM_CALLS[name]}
    plain = tuple(changed.pop(rule.name, rule) for rule in WORKER_SYSTEM_CALLS)
    return (*plain, *changed.values())
