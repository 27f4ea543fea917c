"""Whether somebody still holds a Unix socket that this process gave away."""

from __future__ import annotations

from pathlib import Path

TABLE = Path("/proc/self/net/unix")
INODE_COLUMN = 6
"""proc_pid_net(5): Num, RefCount, Protocol, Flags, Type, St, Inode, Path."""


def is_open(inode: int) -> bool | None:
    """Whether any process has the socket open; None where the kernel does not show its sockets.

    `inode` is what fstat(2) says of it, and the socket is one of this network namespace. A socket
    leaves the kernel's table when its last descriptor is closed, before its peer is told.
    """
    wanted = str(inode)
    try:
        with TABLE.open(encoding="utf-8", errors="replace") as table:
            next(table, None)
            return any(
                len(columns) > INODE_COLUMN and columns[INODE_COLUMN] == wanted
                for columns in map(str.split, table)
            )
    except OSError:
        return None
