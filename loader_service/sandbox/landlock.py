"""Landlock: a rule set without a rule, so that everything it can handle is refused.

A worker whose device is granted a file or device nodes has rules for those: the file may be read,
and the nodes used. One that loads its device in the host's root may read that until it has done so.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from loader_service.sandbox import libc, policy

_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIRECTORY: Final = 1 << 3
_DEVICE_CONTROL: Final = 1 << 15
# struct landlock_path_beneath_attr is packed.
_PATH_BENEATH: Final = struct.Struct("=Qi")
# struct landlock_ruleset_attr grew by one field with ABI 4 and one with ABI 6.
_ATTRIBUTES: Final = {1: struct.Struct("=Q"), 4: struct.Struct("=QQ"), 6: struct.Struct("=QQQ")}


def abi_version() -> int:
    """The Landlock ABI of this kernel (1 and up). Raises `OSError` where there is none."""
    return libc.syscall("landlock_create_ruleset", 0, 0, _CREATE_RULESET_VERSION)


def refuse_everything(
    abi: int | None = None,
    *,
    readable: int | None = None,
    listed: int | None = None,
    nodes: Sequence[int] = (),
    below: Sequence[int] = (),
) -> int:
    """Refuse this thread, for good, everything that Landlock can refuse; needs no_new_privs.

    `abi` asks for the rights of an older ABI than the kernel's. `readable` is a descriptor of the
    one file that may still be opened for reading, `listed` is one of a directory that may still be
    listed, with all below it, `nodes` are those of device nodes that may still be used, and `below`
    are directories of which all may still be read and listed. Returns the ABI whose rights are
    refused. Raises `OSError`.
    """
    known = min(abi or abi_version(), max(policy.LANDLOCK_RIGHTS))
    rights = policy.LANDLOCK_RIGHTS[known]
    form = _ATTRIBUTES[max(version for version in _ATTRIBUTES if version <= known)]
    fields = (rights.file_system, rights.network, rights.scopes)
    attributes = ctypes.create_string_buffer(form.pack(*fields[: form.size // 8]), form.size)
    rule_set = libc.syscall("landlock_create_ruleset", ctypes.addressof(attributes), form.size, 0)
    given = ((_READ_FILE, readable), (_READ_DIRECTORY, listed))
    opened = [(right, descriptor) for right, descriptor in given if descriptor is not None]
    opened += [(_READ_FILE | _READ_DIRECTORY, directory) for directory in below]
    use = (_READ_FILE | _WRITE_FILE | _DEVICE_CONTROL) & rights.file_system
    try:
        for what, descriptor in (*opened, *((use, node) for node in nodes)):
            rule = ctypes.create_string_buffer(_PATH_BENEATH.pack(what, descriptor))
            libc.syscall(
                "landlock_add_rule", rule_set, _RULE_PATH_BENEATH, ctypes.addressof(rule), 0
            )
        libc.syscall("landlock_restrict_self", rule_set, 0)
    finally:
        os.close(rule_set)
    return known


@contextmanager
def opened(*paths: str) -> Iterator[list[int]]:
    """Have descriptors that only stand for these files, as rules need them. Raises `OSError`."""
    descriptors: list[int] = []
    try:
        for path in paths:
            descriptors.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
