"""The private service: one for a program, and never longer than the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import model_loader as ml
from model_loader_wire.limits import Limits
from tests.support.host import installed_runtimes
from tests.support.processes import living, wait_until_empty

pytestmark = pytest.mark.skipif(not installed_runtimes(), reason="no runtime is installed")

END_SECONDS = 10.0


@pytest.fixture(autouse=True)
def no_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no running daemon answer instead."""
    monkeypatch.delenv("MODEL_LOADER_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("model_loader._address.SYSTEM_DIRECTORY", tmp_path / "none")


def gone(pid: int) -> bool:
    """Wait until a process of that number has ended; False if it still runs after a while."""
    return not wait_until_empty(lambda: living([pid]), END_SECONDS)


def test_contexts_share_one_private_service() -> None:
    pids = []

    def use() -> None:
        with ml.create_context() as context:
            assert context.connection.embedded
            pids.append(context.connection.broker_pid)
            assert context.formats()[0].name == "tflite"

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 4
    assert len(set(pids)) == 1
    assert os.getsid(pids[0] or 0) != os.getsid(0)  # Ctrl-C is for the program alone


def test_private_service_that_died_is_started_anew() -> None:
    with ml.create_context() as context:
        first = context.connection.broker_pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert gone(first)
        with pytest.raises(ml.NetworkError, match="open a new context"):
            context.formats()
    with ml.create_context() as context:
        assert context.connection.broker_pid != first
        assert context.formats()


def test_embedded_service_has_its_settings_and_ends_with_its_connection() -> None:
    with ml.embed(limits=Limits(memory_bytes=300 << 20, threads=1), origin="tests") as connection:
        pid = connection.broker_pid
        assert connection.limits.memory_bytes == 300 << 20
        assert connection.limits.threads == 1
        assert connection.origin == "tests"
        with ml.connect() as shared:
            assert shared.broker_pid != pid
    assert pid is not None
    assert gone(pid)
    connection.close()


@pytest.mark.parametrize("name", ["runtime", "operators", "isolation"])
def test_a_choice_that_there_is_not(name: str) -> None:
    choices: dict[str, Any] = {name: "none"}
    with pytest.raises(ml.ConstraintError, match=f"{name} must be one of .*, not 'none'"):
        ml.embed(**choices)


def test_more_models_than_a_shared_process_can_hold() -> None:
    with pytest.raises(ml.ConstraintError, match="at most 240, not 241"):
        ml.embed(isolation="origin", limits=Limits(models_per_origin=241))


def run(body: str, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Run a program that uses a private service."""
    code = "import os, signal, sys, time\nimport model_loader as ml\n" + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, cwd=cwd
    )


@pytest.mark.parametrize(
    "end",
    ["", "sys.exit(3)", "raise SystemExit", "1/0", "os._exit(0)", "os.kill(os.getpid(), 9)"],
)
def test_private_service_ends_with_its_program(end: str) -> None:
    body = f"""
        context = ml.create_context()
        print(context.connection.broker_pid, flush=True)
        sys.stderr.close()
        {end}
    """
    with run(body) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        program.wait(END_SECONDS)
        if end in ("", "sys.exit(3)", "raise SystemExit"):
            assert not Path(f"/proc/{pid}").exists()  # its end was waited for
    assert gone(pid)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_program_without_standard_streams(tmp_path: Path, closed: str) -> None:
    code = """
import sys, model_loader as ml
with ml.create_context() as context:
    names = [known.name for known in context.formats()]
with open(sys.argv[1], "w") as answer:
    print(*names, file=answer)
"""
    answer = tmp_path / "answer"
    line = f'exec "$0" -c "$1" "$2" {closed}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, code, str(answer)], timeout=60, check=False
    )
    assert done.returncode == 0
    assert answer.read_text() == "tflite\n"


def test_service_gives_python_nothing_to_warn_of() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", "import model_loader as ml; ml.create_context()"],
        env=os.environ | {"PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_forked_child_has_a_service_of_its_own() -> None:
    body = """
        context = ml.create_context()
        pid = os.fork()
        if pid == 0:
            mine = ml.create_context()
            assert mine.connection.broker_pid != context.connection.broker_pid
            print(mine.connection.broker_pid, flush=True)
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert context.formats()
        print(context.connection.broker_pid)
    """
    with run(body) as program:
        output, _ = program.communicate(timeout=30)
    assert program.returncode == 0
    assert all(gone(int(pid)) for pid in output.split())


def test_child_does_not_keep_its_parents_service_alive() -> None:
    body = """
        context = ml.create_context()
        child = os.fork()
        if child == 0:
            os.close(1)
            time.sleep(30)
        print(context.connection.broker_pid, child, flush=True)
        os._exit(0)
    """
    with run(body) as program:
        output, _ = program.communicate(timeout=30)
    broker, child = map(int, output.split())
    try:
        assert gone(broker)
    finally:
        os.kill(child, signal.SIGKILL)


def test_modules_in_the_working_directory_are_not_used(tmp_path: Path) -> None:
    for name in ("json", "numpy", "grpc", "loader_service", "asyncio"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('planted')")
    code = "import sys; sys.path.remove('')\nimport model_loader\n"
    code += "assert model_loader.create_context().formats()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=30, check=False)
    assert done.returncode == 0


def test_interpreter_that_cannot_start_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ml.NetworkError, match="ended at its start with status 1"):
        ml.embed()
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(ml.NotSupportedError, match=r"sys\.executable"):
        ml.embed()
