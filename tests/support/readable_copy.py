"""A copy of interpreter, packages and project that another user can read.

The interpreter may live in somebody's 0700 home and the clone too. Files that everybody may read
are hard links where the filesystem allows it: the copy is made in about a second and costs no
space.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

LEFT_OUT_OF_PROJECT = {".git", "build", "dist", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
LEFT_OUT_OF_LIBRARY = {"site-packages", "test", "idlelib", "tkinter", "ensurepip"}

Leave = Callable[[str], bool]


def copy_project(source: Path, target: Path) -> None:
    """Copy the project's files (no version control, environments or caches) as real copies."""

    def ignored(_: str, names: list[str]) -> set[str]:
        return {
            name
            for name in names
            if name in LEFT_OUT_OF_PROJECT
            or name == "__pycache__"
            or name.startswith(".venv")
            or name.endswith(".egg-info")
        }

    shutil.copytree(source, target, ignore=ignored, symlinks=True)


def link_tree(source: Path, target: Path, leave: Leave = lambda name: False) -> None:
    """Mirror a folder without the entries of its top level that `leave` names."""
    make_folder(target)
    with os.scandir(source) as entries:
        for entry in entries:
            if leave(entry.name):
                continue
            place = target / entry.name
            if entry.is_dir(follow_symlinks=False):
                link_tree(Path(entry.path), place)
            else:
                link_file(Path(entry.path), place)


def make_folder(folder: Path) -> None:
    """Make a folder that everybody may enter (its parents so by the umask)."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)


def link_file(source: Path, target: Path) -> None:
    """Hard-link a file that everybody may read; copy it and open its mode otherwise."""
    if source.is_symlink() and not os.path.isabs(os.readlink(source)):
        target.symlink_to(os.readlink(source))
        return
    source = source.resolve()
    mode = source.stat().st_mode
    if not stat.S_ISREG(mode):
        return
    if mode & stat.S_IROTH:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another filesystem, or one without hard links
    shutil.copy2(source, target)
    target.chmod(stat.S_IMODE(mode) | 0o444 | (0o111 if mode & stat.S_IXUSR else 0))


def copy_interpreter(target: Path) -> Path:
    """Mirror the base interpreter with its library below `target`; returns the executable."""
    base = Path(sys.base_prefix)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    make_folder(target / "bin")
    executable = target / "bin" / name
    built_in = os.fsencode(base / "lib") + b"\0"
    beside = b"$ORIGIN/../lib"
    program = Path(os.path.realpath(sys.executable)).read_bytes()
    if built_in in program and len(beside) < len(built_in):
        # The search path for libpython is written into the program; an environment variable
        # instead would be lost where the service clears the environment.
        program = program.replace(built_in, beside.ljust(len(built_in), b"\0"))
    executable.write_bytes(program)
    executable.chmod(0o755)
    make_folder(target / "lib")
    for library in (base / "lib").glob("*.so*"):
        link_file(library, target / "lib" / library.name)
    link_tree(
        base / "lib" / name,
        target / "lib" / name,
        lambda entry: entry in LEFT_OUT_OF_LIBRARY or entry.startswith("config-"),
    )
    return executable


def copy_environment(target: Path, interpreter: Path, project: Path) -> Path:
    """Mirror the running virtual environment for `interpreter`; returns its ``python``.

    The editable install of this project becomes one of the copy in `project`.
    """
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = target / "lib" / name / "site-packages"
    link_tree(
        Path(sys.prefix) / "lib" / name / "site-packages",
        packages,
        lambda entry: entry.startswith("__editable__"),
    )
    (packages / "project_copy.pth").write_text(f"{project / 'client'}\n{project}\n")
    (target / "pyvenv.cfg").write_text(
        f"home = {interpreter.parent}\ninclude-system-site-packages = false\n"
    )
    make_folder(target / "bin")
    python = target / "bin" / "python"
    python.symlink_to(interpreter)
    for script in (Path(sys.prefix) / "bin").iterdir():
        first, _, rest = script.read_bytes().partition(b"\n")
        if first.startswith(b"#!" + os.fsencode(sys.prefix)):
            copied = target / "bin" / script.name
            copied.write_bytes(b"#!" + os.fsencode(python) + b"\n" + rest)
            copied.chmod(0o755)
    return python
