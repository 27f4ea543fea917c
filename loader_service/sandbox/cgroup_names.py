"""Names of cgroup directories: of a broker's tree, and of what is in it."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Final

_NAME: Final = "model-loader"
_TREE: Final = re.compile(rf"{_NAME}-(\d+)-(\d+)")
BROKER_LEAF: Final = f"{_NAME}-broker"
"""Where a broker itself lives on version 2."""
_LONGEST_NAME: Final = 200


def own_name() -> str:
    """The name of this process's tree: its id and start time, so that no other ever has it."""
    return f"{_NAME}-{os.getpid()}-{start_time(os.getpid())}"


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks after boot; `None` for one that does not exist."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19])


def safe_name(text: str) -> str:
    """A directory name for any text (an origin): different texts get different names.

    Letters, digits, hyphens and underscores stay, other bytes become `%xx`; a long text is cut and
    ends in its hash. The prefix keeps it apart from the kernel's own files.
    """
    escaped = "".join(
        chr(byte) if (chr(byte).isalnum() and byte < 128) or chr(byte) in "-_" else f"%{byte:02x}"
        for byte in text.encode("utf-8", "surrogatepass")
    )
    if len(escaped) > _LONGEST_NAME:
        digest = hashlib.sha256(escaped.encode()).hexdigest()[:32]
        escaped = f"{escaped[:_LONGEST_NAME]}%{digest}"
    return f"origin-{escaped}"


def is_stale(name: str) -> bool:
    """Whether `name` is that of a tree whose broker is gone, as this pid namespace sees it."""
    match = _TREE.fullmatch(name)
    return match is not None and start_time(int(match[1])) != int(match[2])
