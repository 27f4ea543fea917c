"""Nothing outlives what it was for: programs, brokers, zygotes, workers, files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import model_loader as ml
from loader_service.writer import small
from tests.support.waiting import wait_until

from .conftest import broker_pid

ONE = np.array([1], np.float32)
HANG_SECONDS = 20.0

PROGRAM = """
import json, sys, time
import numpy as np
import model_loader as ml
from loader_service.writer import small
model = ml.MLModelLoader(ml.create_context()).load(small.add())
assert model.compute(np.array([1], np.float32)) == 2
connection = ml.connect()
print(json.dumps({
    "broker": connection.broker_pid,
    "worker": model.isolation.worker_pid,
    "directory": connection.address.removeprefix("unix:"),
}), flush=True)
{ending}
"""


def gone(*pids: int) -> bool:
    """Whether all these processes have ended (a zombie has)."""
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            continue
    return True


@pytest.fixture
def program() -> Iterator[Callable[[str], tuple[subprocess.Popen[str], dict[str, object]]]]:
    """Start a program that uses the default connection, and then does what it is told."""
    started: list[subprocess.Popen[str]] = []

    def start(ending: str) -> tuple[subprocess.Popen[str], dict[str, object]]:
        environment = {k: v for k, v in os.environ.items() if k != "MODEL_LOADER_ADDRESS"}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.replace("{ending}", ending)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(process)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


Start = Callable[[str], tuple[subprocess.Popen[str], dict[str, object]]]


@pytest.mark.parametrize(
    "ending", ["", "sys.exit(3)", "raise RuntimeError", "import os; os._exit(0)"]
)
def test_a_program_that_ends_leaves_nothing(program: Start, ending: str) -> None:
    process, facts = program(ending)
    process.wait(HANG_SECONDS)
    wait_until(lambda: gone(int(str(facts["broker"])), int(str(facts["worker"]))), "the end")
    wait_until(lambda: not Path(str(facts["directory"])).exists(), "the directory's removal")


@pytest.mark.isolation
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_program_that_is_killed_leaves_nothing(program: Start, number: signal.Signals) -> None:
    process, facts = program("time.sleep(60)")
    process.send_signal(number)
    process.wait(HANG_SECONDS)
    wait_until(lambda: gone(int(str(facts["broker"])), int(str(facts["worker"]))), "the end")
    wait_until(lambda: not Path(str(facts["directory"])).exists(), "the directory's removal")


def test_a_forked_child_does_not_keep_the_broker_alive(program: Start) -> None:
    process, facts = program(
        "import os\nchild = os.fork()\nif child == 0: time.sleep(600)\n"
        "print(child, flush=True)\nos._exit(0)"
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        process.wait(HANG_SECONDS)
        wait_until(lambda: gone(int(str(facts["broker"])), int(str(facts["worker"]))), "the end")
        assert not gone(child)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.isolation
def test_a_killed_broker_takes_its_workers_and_is_replaced(program: Start) -> None:
    ending = (
        "import os, signal\n"
        "os.kill(connection.broker_pid, signal.SIGKILL)\n"
        "try:\n"
        "    while True: model.compute(np.array([1], np.float32))\n"
        "except ml.ModelLoaderError as error: first = type(error).__name__\n"
        "assert model.lost is not None\n"
        "again = ml.MLModelLoader(ml.create_context()).load(small.add())\n"
        "assert again.compute(np.array([1], np.float32)) == 2\n"
        "print(first)"
    )
    process, facts = program(ending)
    assert process.stdout is not None
    assert process.stdout.readline().strip() in ("NetworkError", "OperationError")
    assert process.wait(HANG_SECONDS) == 0
    wait_until(lambda: gone(int(str(facts["worker"]))), "the worker's end")


def test_closing_ends_the_worker_and_is_done_twice(loader: ml.MLModelLoader) -> None:
    model = loader.load(small.add())
    pid = model.isolation.worker_pid
    assert psutil.pid_exists(pid)
    model.close()
    wait_until(lambda: gone(pid), "the worker's end")
    model.close()
    with pytest.raises(ml.InvalidStateError):
        model.compute(ONE)


def test_a_forgotten_model_is_ended(loader: ml.MLModelLoader) -> None:
    pid = loader.load(small.add()).isolation.worker_pid
    wait_until(lambda: gone(pid), "the worker's end")


@pytest.mark.isolation
def test_a_killed_worker_is_told_at_once_and_nobody_else_notices(road: ml.Connection) -> None:
    loader = ml.MLModelLoader(ml.create_context(connection=road))
    with loader.load(small.add()) as other, loader.load(small.add()) as model:
        os.kill(model.isolation.worker_pid, signal.SIGKILL)
        with pytest.raises(ml.OperationError, match="SIGKILL") as caught:
            model.compute(ONE)
        assert caught.value.model_lost
        assert model.lost is not None
        assert model.lost.reason == "killed"
        with pytest.raises(ml.InvalidStateError):
            model.compute(ONE)
        assert other.compute(ONE) == 2


@pytest.mark.isolation
def test_an_idle_model_notices_its_death(loader: ml.MLModelLoader) -> None:
    with loader.load(small.add()) as model:
        assert model.lost is None
        os.kill(model.isolation.worker_pid, signal.SIGKILL)
        wait_until(lambda: model.lost is not None, "the loss being noticed")


@pytest.mark.isolation
def test_a_killed_zygote_is_healed(loader: ml.MLModelLoader, connection: ml.Connection) -> None:
    with loader.load(small.add()) as before:
        zygote = next(
            child
            for child in psutil.Process(broker_pid(connection)).children()
            if child.name() == "ml-zygote" and child.pid != before.isolation.worker_pid
        )
        zygote.kill()
        with loader.load(small.add()) as after:
            assert before.compute(ONE) == after.compute(ONE) == 2


@pytest.fixture
def daemon(short_folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon in a directory of its own."""
    process = start_daemon(short_folder / "run")
    yield process
    if process.poll() is None:
        process.terminate()
    process.wait(HANG_SECONDS)


def start_daemon(directory: Path) -> subprocess.Popen[bytes]:
    """Start `model-loaderd` and wait until it can be used: its socket is there a moment before."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loader_service.broker.daemon", "--directory", str(directory)],
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        try:
            ml.connect(directory).close()
        except ml.NetworkError:
            return False
        return True

    try:
        wait_until(answers, "the daemon's answer")
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


@pytest.mark.isolation
def test_a_daemon_serves_until_it_is_told_to_end(
    daemon: subprocess.Popen[bytes], short_folder: Path
) -> None:
    with ml.connect(f"unix:{short_folder / 'run'}") as connection:
        assert not connection.embedded
        model = ml.MLModelLoader(ml.create_context(connection=connection)).load(small.add())
        assert model.compute(ONE) == 2
        pid = model.isolation.worker_pid
        daemon.terminate()
        assert daemon.wait(HANG_SECONDS) == 0
        assert gone(pid)
        assert not (short_folder / "run").exists()
        with pytest.raises(ml.ModelLoaderError):
            model.compute(ONE)
        assert model.lost is not None


def test_a_second_daemon_refuses_and_a_stale_directory_is_taken_over(
    daemon: subprocess.Popen[bytes], short_folder: Path
) -> None:
    directory = short_folder / "run"
    second = subprocess.run(
        [sys.executable, "-m", "loader_service.broker.daemon", "--directory", str(directory)],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_SECONDS,
    )
    assert second.returncode == 3
    assert "another service" in second.stderr
    daemon.kill()
    daemon.wait()
    assert (directory / "attach.sock").exists(), "a killed daemon leaves its socket"
    replacement = start_daemon(directory)
    replacement.terminate()
    replacement.wait(HANG_SECONDS)


def test_the_address_comes_from_the_environment(
    daemon: subprocess.Popen[bytes], short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert daemon.poll() is None
    monkeypatch.setenv("MODEL_LOADER_ADDRESS", f"unix:{short_folder / 'run'}")
    with ml.connect() as connection:
        assert not connection.embedded
    monkeypatch.setenv("MODEL_LOADER_ADDRESS", f"unix:{short_folder / 'nothing'}")
    with pytest.raises(ml.NetworkError):
        ml.connect()
