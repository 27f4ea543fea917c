"""Builds the Debian package: ``python packaging/debian/build.py --output dist``.

The package carries an environment with everything that the service needs but the interpreter, which
is the system's. The same sources and the same packages of the index give the same bytes;
``--constraints`` names a file that pins the latter, such as the list in an earlier package.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGING = Path(__file__).resolve().parent.parent
PROJECT = PACKAGING.parent
INTERPRETER = Path("/usr/bin/python3")
OLDEST_PYTHON = (3, 11)
HOME = Path("/usr/lib/model-loader")
"""Where the environment is once the package is installed."""
DOCUMENTS = Path("/usr/share/doc/model-loader")
EPOCH = 1_767_225_600
"""The date of every file where SOURCE_DATE_EPOCH does not give another: 2026-01-01."""
SCRIPTS = {
    "model-loader": ("model_loader_cli.main", "main"),
    "model-loaderd": ("loader_service.broker.daemon", "main"),
}
SCRIPT = """#!{home}/bin/python3 -I
import sys
from {module} import {function}
sys.exit({function}())
"""
PLACES = {
    "systemd/model-loader.service": "usr/lib/systemd/system/model-loader.service",
    "sysusers.d/model-loader.conf": "usr/lib/sysusers.d/model-loader.conf",
    "tmpfiles.d/model-loader.conf": "usr/lib/tmpfiles.d/model-loader.conf",
    "apparmor/model-loader": "usr/share/model-loader/apparmor",
    "config.example.toml": "etc/model-loader/config.toml",
    "systemd/tcp.conf": "usr/share/doc/model-loader/examples/tcp.conf",
    "systemd/worker-users.conf": "usr/share/doc/model-loader/examples/worker-users.conf",
}
"""Where the files of this folder are installed."""
DOCUMENTED = (
    "README.md",
    "docs",
    "examples/digits",
    "packaging/config.example.toml",
    "packaging/container/Containerfile",
    "proto/CHANNEL.md",
)
"""What README.md leads to, installed as it lies here, so that links between them hold."""
CONFIGURATION = ("/etc/model-loader/config.toml",)
"""Files that an upgrade leaves as the administrator made them (deb-conffiles(5))."""


def run(command: Sequence[str | Path], **more: str) -> str:
    """Run a command in the project; returns what it prints. Raises SystemExit if it fails."""
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch()), **more},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout


def epoch() -> int:
    """Return the date of every file, in seconds."""
    return int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH))


def interpreter_version() -> str:
    """Return which Python the package is for, as ``3.11``; raises SystemExit without a fit one."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    if not INTERPRETER.exists():
        raise SystemExit(f"{INTERPRETER} is not there: the package is for the system's Python")
    version = run([INTERPRETER, "-I", "-c", code]).strip()
    if tuple(map(int, version.split("."))) < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        raise SystemExit(f"{INTERPRETER} is Python {version}; {needed} or newer is needed")
    return version


def make_environment(root: Path, python: str, constraints: Path | None) -> list[str]:
    """Put the environment into `root`; returns the packages in it as ``name==version``."""
    home = root / HOME.relative_to("/")
    library = home / "lib" / f"python{python}" / "site-packages"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python3").symlink_to(f"/usr/bin/python{python}")
    (home / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, str(PROJECT)])
        (wheel,) = Path(folder).glob("*.whl")
        pinned = [] if constraints is None else ["--constraint", str(constraints.resolve())]
        run(
            [
                *pip,
                *("--python", str(INTERPRETER), "install", "--no-compile", "--target", library),
                *(*pinned, f"{wheel}[service]"),
            ]
        )
    for name, (module, function) in SCRIPTS.items():
        script = home / "bin" / name
        script.write_text(SCRIPT.format(home=HOME, module=module, function=function))
        script.chmod(0o755)
    # The scripts of others, and what only an installer would read: it tells where this was built.
    shutil.rmtree(library / "bin", ignore_errors=True)
    for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
        for file in library.glob(f"*.dist-info/{name}"):
            file.unlink()
    return sorted(
        "==".join(folder.name.removesuffix(".dist-info").rsplit("-", 1))
        for folder in library.glob("*.dist-info")
    )


def place_files(root: Path, packages: Sequence[str]) -> None:
    """Put everything but the environment into `root`."""
    for source, place in PLACES.items():
        target = root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PACKAGING / source, target)
    (root / "usr/bin").mkdir(parents=True)
    for name in SCRIPTS:
        (root / "usr/bin" / name).symlink_to(f"../lib/model-loader/bin/{name}")
    documents = root / DOCUMENTS.relative_to("/")
    place_documents(documents)
    (documents / "python-packages.txt").write_text("".join(f"{line}\n" for line in packages))
    version = project_version()
    change = f"model-loader ({version}) unstable; urgency=medium\n\n  * See README.md.\n"
    (documents / "changelog.gz").write_bytes(gzip.compress(change.encode(), 9, mtime=0))


def place_documents(documents: Path) -> None:
    """Put what a reader is to read into a folder; the licence is called as Debian calls it, too."""
    for name in DOCUMENTED:
        source, target = PROJECT / name, documents / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    shutil.copyfile(PROJECT / "LICENSE", documents / "copyright")
    (documents / "LICENSE").symlink_to("copyright")


def project_version() -> str:
    """Return the project's version."""
    values = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    return str(values["project"]["version"])


def tree(root: Path) -> Iterator[Path]:
    """Yield everything below `root`, and that last."""
    for folder, _, files in os.walk(root, topdown=False):
        yield from (Path(folder) / name for name in files)
        yield Path(folder)


def make_control(root: Path, python: str) -> None:
    """Write what dpkg reads: the description, the maintainer scripts, the files to be kept."""
    control = root / "DEBIAN"
    size = sum(path.lstat().st_size for path in tree(root) if not path.is_dir())
    control.mkdir()
    template = (PACKAGING / "debian" / "control.in").read_text(encoding="utf-8")
    text = template.format(
        version=project_version(),
        architecture=run(["dpkg", "--print-architecture"]).strip(),
        installed_kilobytes=size // 1024,
        python=f"python{python}",
    )
    (control / "control").write_text(text)
    (control / "conffiles").write_text("".join(f"{path}\n" for path in CONFIGURATION))
    for name in ("postinst", "prerm", "postrm"):
        shutil.copyfile(PACKAGING / "debian" / name, control / name)
        (control / name).chmod(0o755)


def settle(root: Path) -> None:
    """Give every file the mode and the date that it has wherever the package is built."""
    for path in tree(root):
        if not path.is_symlink():
            executable = path.is_dir() or bool(path.stat().st_mode & 0o100)
            path.chmod(0o755 if executable else 0o644)
        os.utime(path, (epoch(), epoch()), follow_symlinks=False)


def build(output: Path, constraints: Path | None = None) -> Path:
    """Build the package into a folder; returns its file."""
    python = interpreter_version()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        packages = make_environment(root, python, constraints)
        place_files(root, packages)
        make_control(root, python)
        settle(root)
        command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(root), str(output)]
        run(command)
    (package,) = output.glob(f"model-loader_{project_version()}_*.deb")
    return package


def main() -> None:
    """Build it as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--output", type=Path, default=PROJECT / "dist", help="the folder for it")
    parser.add_argument("--constraints", type=Path, help="versions of packages, as pip reads them")
    given = parser.parse_args()
    print(build(given.output.resolve(), given.constraints))


if __name__ == "__main__":
    main()
