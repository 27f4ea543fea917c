"""Whether somebody still holds a socket: asked of the kernel, or read in its table."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest

from loader_service.broker import open_sockets

WAYS = (open_sockets._asked, open_sockets._listed, open_sockets.is_open)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_socket_is_open_until_its_last_copy_is_closed(way: Callable[[int], bool | None]) -> None:
    one, other = socket.socketpair()
    inode = os.fstat(one.fileno()).st_ino
    if way(inode) is None:
        pytest.skip("the kernel does not answer here")
    copy = os.dup(one.fileno())
    one.close()
    assert way(inode) is True
    os.close(copy)
    assert way(inode) is False
    other.close()


def test_a_kernel_that_knows_no_socket_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    # One without unix_diag answers as if there were none of that number.
    monkeypatch.setattr(open_sockets, "_asked", lambda _: False)
    open_sockets._can_ask.cache_clear()
    try:
        one, other = socket.socketpair()
        with one, other:
            found = open_sockets.is_open(os.fstat(one.fileno()).st_ino)
        assert found is not False
    finally:
        open_sockets._can_ask.cache_clear()
