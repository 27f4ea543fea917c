"""Making a worker that is executed afresh: how that fails, and what becomes of those who wait."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from loader_service.devices.catalogue import Enabled
from loader_service.runtime.runtimes import find_runtime
from loader_service.sandbox import lockdown
from loader_service.sandbox.credentials import UidPool
from loader_service.sandbox.grants import Grants
from loader_service.sandbox.layers import Layer
from loader_service.sandbox.lockdown import Outcome
from loader_service.worker import afresh, executed
from loader_service.worker.orders import Spawn
from loader_service.worker.spawn import spawn
from tests.devices.little_delegate import compile_delegate
from tests.support.host import user_namespaces_usable

pytestmark = [
    pytest.mark.forks,
    pytest.mark.isolation,
    pytest.mark.skipif(
        not user_namespaces_usable(), reason="this host refuses user namespaces to this user"
    ),
]
SECONDS = 60
"""Longest wait for what takes about one."""


class Making:
    """A process in the place of a zygote, which makes one worker with a device."""

    def __init__(
        self, library: Path, change: Callable[[], object], load_seconds: float = SECONDS
    ) -> None:
        """Fork it; it first makes its `change`."""
        runtime = find_runtime()
        pool = UidPool.for_this_host()
        device = Enabled("external:little", str(library), threads=1, afresh=True)
        order = Spawn(
            None if pool is None else pool.take(),
            devices=[device.to_fields()],
            grants=Grants(tasks=8, afresh=True).to_fields(),
            load_seconds=load_seconds,
        )
        self._words, words = os.pipe()
        self._answer, answer = os.pipe()
        self.broker, control = socket.socketpair()
        _, channel = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            change()
            null = os.open(os.devnull, os.O_RDWR)
            self.broker.close()
            given = [words, control.detach(), channel.detach()]
            os.write(answer, json.dumps(spawn(runtime, order, null, given)).encode())
            os._exit(0)
        os.close(words)
        os.close(answer)
        control.close()
        channel.close()

    def answer(self) -> dict[str, object]:
        """What the making came to."""
        assert select.select([self._answer], [], [], SECONDS)[0], "no answer came"
        answer: dict[str, object] = json.loads(os.read(self._answer, 65536))
        return answer

    def words(self) -> bytes:
        """What is said next on standard error; nothing when nobody is left to say anything."""
        assert select.select([self._words], [], [], SECONDS)[0], "somebody is left, and is silent"
        return os.read(self._words, 65536)

    def end(self) -> None:
        """End the process that makes the worker."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def test_a_worker_that_ends_while_it_loads_is_an_answer(tmp_path: Path) -> None:
    making = Making(compile_delegate(tmp_path, threads=1, at_load="abort()"), bool)
    assert making.answer() == {"error": "its process ended before it had loaded the device"}
    making.end()
    while making.words():
        pass


def test_a_python_that_cannot_be_executed_is_an_answer(tmp_path: Path) -> None:
    def no_python() -> None:
        sys.executable = "/nowhere/python"

    making = Making(compile_delegate(tmp_path, threads=1), no_python)
    error = making.answer()["error"]
    assert str(error).startswith("Python could not be executed: ")
    assert "/nowhere/python" in str(error)
    making.end()
    while making.words():
        pass


def test_without_an_empty_root_there_is_no_such_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {Layer.EMPTY_ROOT: "it needs a mount namespace"}
    outcome = Outcome(frozenset(), refused)
    monkeypatch.setattr(lockdown, "enter_namespaces", lambda *_, **__: outcome)
    words = "a device that starts threads needs an empty root: it needs a mount namespace"
    with pytest.raises(executed.NotMade, match=words):
        executed._make(find_runtime(), Spawn(None))


@pytest.mark.parametrize(
    ("ends", "told"),
    [(lambda: os._exit(3), "status 3"), (lambda: os.kill(os.getpid(), 9), "signal 9")],
)
def test_an_intermediate_process_that_says_nothing_is_an_answer(
    ends: Callable[[], None], told: str, tmp_path: Path
) -> None:
    def nothing_is_executed() -> None:
        afresh.execute = lambda *_: ends()  # type: ignore[assignment]

    making = Making(compile_delegate(tmp_path, threads=1), nothing_is_executed)
    error = f"the intermediate process ended without a report ({told})"
    assert making.answer() == {"error": error}
    making.end()
    while making.words():
        pass


def test_one_that_is_not_loaded_in_time_is_given_up(tmp_path: Path) -> None:
    library = compile_delegate(tmp_path, threads=1, at_load="for (;;) pause()")
    making = Making(library, bool, load_seconds=1)
    assert making.answer() == {"error": "a device was not loaded within 1 s"}
    making.end()
    while making.words():
        pass


def test_one_that_hangs_while_it_loads_ends_with_its_zygote(tmp_path: Path) -> None:
    hangs = 'fputs("it hangs\\n", stderr); for (;;) pause()'
    making = Making(compile_delegate(tmp_path, threads=1, at_load=hangs), bool)
    said = b""
    while b"it hangs" not in said:
        said += making.words()
    making.end()
    # The pipe ends when the last process that has it does: intermediate and worker.
    while making.words():
        pass


def test_one_that_is_ready_ends_with_the_brokers_socket(tmp_path: Path) -> None:
    making = Making(compile_delegate(tmp_path, threads=1), bool)
    answer = making.answer()
    assert "pid" in answer, answer
    making.end()
    making.broker.close()
    while making.words():
        pass
