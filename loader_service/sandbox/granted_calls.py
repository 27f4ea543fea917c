"""The system calls that a device can be granted: named sets of rules beside the plain table.

Values only. A worker without a device has exactly `policy.WORKER_SYSTEM_CALLS`; one whose device is
granted a set has these rules in the place of the plain ones of the same calls.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
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
DEVICE_NODES: Final = "device-nodes"

_PROTECTIONS: Final = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
_READ_ONLY: Final = (
    INT & ~os.O_CLOEXEC & ~os.O_DIRECTORY & ~os.O_NONBLOCK & ~os.O_LARGEFILE & ~0o100_000
)
"""All bits of the flags of open(2) but those that change nothing about a file that is read."""
_READ_AND_WRITE: Final = _READ_ONLY & ~os.O_WRONLY & ~os.O_RDWR

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
            Rule("getdents64", Allow(), "lists that root"),
            Rule(
                "fcntl",
                Kill(),
                "how that root is open, and not for children: asked before it is listed",
                tuple(
                    Case((Condition(1, INT, command),), Allow())
                    for command in (fcntl.F_GETFL, fcntl.F_SETFD)
                ),
            ),
            Rule("stat", Allow(), "whether that file is there"),
            Rule("newfstatat", Allow(), "whether that file is there"),
            Rule("pwrite64", Allow(), "writes that file, through a descriptor from the birth"),
            Rule("ftruncate", Allow(), "gives the memory of that file back"),
        ),
        DEVICE_NODES: (
            Rule(
                "openat",
                Fail(errno.EACCES),
                "opens the device nodes that the root has, for reading and writing",
                (Case((Condition(2, _READ_AND_WRITE, 0),), Allow()),),
            ),
            Rule("ioctl", Allow(), "what its driver offers"),
            Rule(
                "mmap",
                Kill(),
                "memory that is shared with the device, never executable",
                (Case((Condition(2, mmap.PROT_EXEC, 0),), Allow()),),
            ),
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
    changed: dict[str, Rule] = {}
    for rule in (rule for name in granted for rule in GRANTED_SYSTEM_CALLS[name]):
        # What two sets allow of one call holds for a worker that has both.
        before = changed.get(rule.name, rule)
        cases = tuple(dict.fromkeys((*before.cases, *rule.cases)))
        changed[rule.name] = replace(before, cases=cases)
    plain = tuple(changed.pop(rule.name, rule) for rule in WORKER_SYSTEM_CALLS)
    return (*plain, *changed.values())
