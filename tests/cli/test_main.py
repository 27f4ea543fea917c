"""The command as a whole: help, version, and how it ends when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from loader_service.writer import costly
from model_loader_cli.command_line import cli, status_of
from tests.cli.conftest import BIN, SECONDS, Command, environment, run_command, without_log
from tests.support.processes import wait_until_empty

COMMANDS = sorted(cli.commands)


def test_these_are_the_commands() -> None:
    seeing = {"status", "ps", "top", "events", "doctor"}
    steering = {"kill", "drain", "limits", "models"}
    assert set(COMMANDS) == {"run", "inspect", "bench", "demo", "completion"} | seeing | steering


def _commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command, as its words."""
    for name, command in group.commands.items():
        yield (*words, name)
        if isinstance(command, click.Group):
            yield from _commands(command, (*words, name))


@pytest.mark.parametrize("words", list(_commands(cli)), ids=" ".join)
def test_a_shell_completes_every_command_and_every_option(words: tuple[str, ...]) -> None:
    """Those that are hidden would be missed."""
    shell = ShellComplete(cli, {}, "model-loader", "_MODEL_LOADER_COMPLETE")
    *before, last = words
    assert last in {item.value for item in shell.get_completions(list(before), last[:1])}
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    options = {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
        if name.startswith("--")
    }
    offered = {item.value for item in shell.get_completions(list(words), "--")}
    assert offered >= options


def test_the_version_is_the_distributions() -> None:
    done = run_command("--version")
    assert (done.returncode, done.stdout) == (
        0,
        f"model-loader, version {version('model-loader')}\n",
    )


def test_help_names_the_commands_and_the_exit_statuses() -> None:
    done = run_command("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in done.stdout
    assert "Exit status: 0 done; 1 the model" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_examples(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: model-loader {name} [OPTIONS]" in text
    assert f"Examples:\n    model-loader {name}" in text


@pytest.mark.parametrize(
    "arguments", [["walk"], ["run"], ["run", "--loud"], ["inspect", "nowhere"]]
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    done = run_command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr


def test_ctrl_c_ends_with_130_and_leaves_no_process(
    daemon: Path, model_file: Callable[[bytes], Path]
) -> None:
    """The service is a private one, which must end with the command."""
    process = subprocess.Popen(
        [str(BIN / "model-loader"), "run", str(model_file(costly.endless())), "--random", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )

    def descendants() -> list[int]:
        found, waiting = list[int](), [process.pid]
        while waiting:
            for child in _children(waiting.pop()):
                found.append(child)
                waiting.append(child)
        return found

    # Command, broker, zygote and worker: when all four are there, the model is about to run.
    assert not wait_until_empty(lambda: [] if len(descendants()) >= 3 else [1], SECONDS)
    started = descendants()
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert (out, without_log(error).strip()) == ("", "")
    assert not wait_until_empty(lambda: [pid for pid in started if _alive(pid)], SECONDS)


@pytest.mark.parametrize("moment", ["beginning", "end"])
def test_ctrl_c_is_quiet_while_the_command_begins_and_ends(moment: str) -> None:
    """A program is interrupted while it imports the commands, and after the command."""
    interrupt = "os.kill(os.getpid(), signal.SIGINT)"
    if moment == "beginning":
        prepare = (
            "class Finder:\n"
            "    def find_spec(self, name, *_):\n"
            f"        if name == 'click': {interrupt}\n"
            "sys.meta_path.insert(0, Finder())\n"
        )
    else:
        prepare = f"import atexit\natexit.register(lambda: {interrupt})\n"
    code = (
        f"import os, signal, sys\n{prepare}"
        "from model_loader_cli.main import main\n"
        "sys.argv = ['model-loader', '--version']\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_reader_that_leaves_early_is_no_error(
    daemon: Path, model_file: Callable[[bytes], Path]
) -> None:
    path = model_file(costly.work())
    process = subprocess.Popen(
        [str(BIN / "model-loader"), "inspect", str(path), "--address", str(daemon)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    assert (process.wait(SECONDS), error) == (141, b"")
    process.stderr.close()


def test_no_command_loads_a_runtime_or_reads_a_model_itself(
    command: Command, model_file: Callable[[bytes], Path], daemon: Path
) -> None:
    program = (
        "import sys; from model_loader_cli.command_line import status_of; "
        f"status = status_of(['inspect', {str(model_file(costly.work()))!r}, "
        f"'--address', {str(daemon)!r}]); "
        "names = ('loader_service', 'ai_edge_litert', 'tflite_runtime', 'flatbuffers'); "
        "print([status, *(name for name in names if name in sys.modules)])"
    )
    done = subprocess.run(
        [str(BIN / "python"), "-P", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[0]"


def _children(pid: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(c) for t in threads for c in (t / "children").read_text().split()]
    except OSError:
        return []


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
