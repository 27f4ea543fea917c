"""Whether somebody still holds a Unix socket that this process gave away."""

from __future__ import annotations

import errno
import os
import socket
import struct
from functools import cache
from pathlib import Path

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
NLMSG_ERROR = 2
UDIAG_SHOW_NAME = 1
ALL = 0xFFFFFFFF
"""Of states, and of a cookie: any."""
HEAD = struct.Struct("=IHHII")
"""struct nlmsghdr of <linux/netlink.h>: length, type, flags, sequence, port."""
QUESTION = struct.Struct("=BBHIIIII")
"""struct unix_diag_req of <linux/unix_diag.h>: family, protocol, pad, states, inode, what to show,
and a cookie of two words."""
ERROR = struct.Struct("=i")
ANSWER_BYTES = 4096

TABLE = Path("/proc/self/net/unix")
INODE_COLUMN = 6
"""proc_pid_net(5): Num, RefCount, Protocol, Flags, Type, St, Inode, Path."""


def is_open(inode: int) -> bool | None:
    """Whether any process has the socket open; None where the kernel does not show its sockets.

    `inode` is what fstat(2) says of it, and the socket is one of this network namespace. A socket
    leaves the kernel's tables when its last descriptor is closed, before its peer is told.
    """
    return _asked(inode) if _can_ask() else _listed(inode)


@cache
def _can_ask() -> bool:
    """Whether the kernel knows a socket that is there: one without unix_diag knows none."""
    one, other = socket.socketpair()
    with one, other:
        return _asked(os.fstat(one.fileno()).st_ino) is True


def _asked(inode: int) -> bool | None:
    """Ask for this one socket (sock_diag(7)): users may have too many to read a table of all."""
    question = QUESTION.pack(socket.AF_UNIX, 0, 0, ALL, inode, UDIAG_SHOW_NAME, ALL, ALL)
    head = HEAD.pack(HEAD.size + len(question), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
            kernel.send(head + question)
            answer = kernel.recv(ANSWER_BYTES, socket.MSG_DONTWAIT)
        _, kind, *_ = HEAD.unpack_from(answer)
        if kind == SOCK_DIAG_BY_FAMILY:
            return True
        (error,) = ERROR.unpack_from(answer, HEAD.size)
    except (OSError, struct.error):
        return None
    return False if kind == NLMSG_ERROR and error == -errno.ENOENT else None


def _listed(inode: int) -> bool | None:
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
