"""What a worker finds when it looks at itself.

The policy forbids most of the questions, so a probe asks some of them of a worker that has every
layer except seccomp; see ``probes.Layers``.
"""

from __future__ import annotations

import ctypes
import os
import resource
import threading
from collections.abc import Iterator

from tests.hostile.attacks.calls import call


def limits() -> dict[str, list[int]]:
    """Every resource limit, soft and hard, by its name."""
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {name: list(resource.getrlimit(getattr(resource, name))) for name in names}


def environment() -> dict[str, str]:
    """The environment as Python, and as the C library, has it."""
    return dict(os.environ) | dict(_c_environment())


def _c_environment() -> Iterator[tuple[str, str]]:
    table = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    position = 0
    while table and (entry := table[position]) is not None:
        name, _, value = entry.decode().partition("=")
        yield name, value
        position += 1


def threads() -> int:
    """Threads that Python knows of."""
    return threading.active_count()


def identity() -> dict[str, list[int]]:
    """Users and groups: real, effective, saved; and how many supplementary groups."""
    return {
        "users": list(os.getresuid()),
        "groups": list(os.getresgid()),
        "supplementary": list(os.getgroups()),
        "process": [os.getpid(), os.getppid()],
    }


def descriptors() -> list[int]:
    """Open descriptors, found without /proc."""
    get_flags = 1  # F_GETFD
    return [number for number in range(4096) if call("fcntl", number, get_flags) >= 0]


def capabilities() -> dict[str, int]:
    """Capability sets as bit masks, and the secure bits."""
    header = (0x2008_0522).to_bytes(4, "little") + bytes(4)
    head = ctypes.create_string_buffer(header, 8)
    data = ctypes.create_string_buffer(24)
    assert call("capget", ctypes.addressof(head), ctypes.addressof(data)) == 0
    words = [int.from_bytes(data.raw[at : at + 4], "little") for at in range(0, 24, 4)]
    bounding = sum(1 << bit for bit in range(64) if call("prctl", 23, bit) == 1)
    ambient = sum(1 << bit for bit in range(64) if call("prctl", 47, 1, bit) == 1)
    return {
        "effective": words[0] | words[3] << 32,
        "permitted": words[1] | words[4] << 32,
        "inheritable": words[2] | words[5] << 32,
        "bounding": bounding,
        "ambient": ambient,
        "secure bits": call("prctl", 27),
    }


def attributes() -> dict[str, int]:
    """What prctl says of this process."""
    return {
        "dumpable": call("prctl", 3),
        "no new privileges": call("prctl", 39),
        "seccomp": call("prctl", 21),
        "keep capabilities": call("prctl", 7),
        "subreaper": _subreaper(),
    }


def _subreaper() -> int:
    value = ctypes.c_int(-1)
    assert call("prctl", 37, ctypes.addressof(value)) == 0
    return value.value


def root() -> dict[str, object]:
    """What the file system has: the root, and whether something can be put there."""
    try:
        entries: object = sorted(os.listdir("/"))
    except OSError as error:
        entries = error.errno
    return {
        "entries": entries,
        "parents": [call("access", "/" + "../" * n, 0) for n in range(1, 8)],
        "create": call("open", "/x", os.O_CREAT | os.O_WRONLY, 0o600),
        "proc": call("access", "/proc/self/mem", 0),
        "here": call("getcwd", {"zeros": 4096}, 4096),
    }


def keys() -> list[int]:
    """Serial number, or -errno, of the thread's, process's, session's and user's keyrings."""
    get_keyring_id = 0
    return [call("keyctl", get_keyring_id, -number, 0) for number in range(1, 6)]


def interfaces() -> list[str]:
    """Names of the network interfaces."""
    import_free = ctypes.CDLL(None)
    found = []
    buffer = ctypes.create_string_buffer(16)
    for index in range(1, 64):
        import_free.if_indextoname.restype = ctypes.c_void_p
        if import_free.if_indextoname(index, buffer):
            found.append(buffer.value.decode())
    return found


def host_name() -> str:
    """What uname says the machine is called."""
    return os.uname().nodename


def cgroups() -> list[str]:
    """Where the kernel says that this process is in the trees of cgroups."""
    with open("/proc/self/cgroup", encoding="ascii") as lines:
        return sorted({line.rstrip().split(":", 2)[2] for line in lines})


def most_descriptors() -> int:
    """How many descriptors this process can have at a time."""
    copies = []
    while (copy := call("dup", 0)) >= 0:
        copies.append(copy)
    for copy in copies:
        call("close", copy)
    return 5 + len(copies)
