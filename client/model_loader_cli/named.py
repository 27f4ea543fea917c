"""The repository of approved models, as an operator fills and checks it."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import click
import numpy as np

import model_loader as ml

from .exits import NoService
from .tensors import DTYPES

NAME_OF_A_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(:[1-9][0-9]{0,17})?")
MOST_BYTES = 1 << 40
"""What a file may have here: how much it really may is for the service that tries it."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A version that was tried."""

    name: str
    version: int
    sha256: str
    reason: str = ""
    """Why it would not serve; empty for one that would."""


def add_version(
    connection: ml.Connection,
    repository: Path,
    name: str,
    model: Path,
    warm_up: Path | None,
    version: int | None,
) -> Checked:
    """Try a model and put it into the repository; raises UsageError, and what trying raises."""
    files = _files()
    if not files.is_name(name):
        raise click.UsageError(
            f"{name!r} is no name: it begins with a letter or digit and has "
            "only letters, digits, dots, hyphens and underscores"
        )
    content = model.read_bytes()
    archive = None if warm_up is None else warm_up.read_bytes()
    try:
        _try(connection, content, archive)
    except files.Unfit as error:
        raise click.UsageError(str(error)) from None
    sha256 = hashlib.sha256(content).hexdigest()
    parts = {files.MODEL: content, files.PIN: f"{sha256}  {files.MODEL}\n".encode()}
    if archive is not None:
        parts[files.WARM_UP] = archive
    folder = repository / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = [found.number for found in files.find_versions(repository) if found.name == name]
        number = version or max(taken, default=0) + 1
        if number in taken:
            raise click.UsageError(f"there is a version {number} of {name} already")
        _write(folder, str(number), parts)
    except OSError as error:
        raise click.UsageError(f"{repository} cannot be written to: {error}") from None
    return Checked(name, number, sha256)


def check_versions(
    connection: ml.Connection, repository: Path, names: Sequence[str]
) -> Iterator[Checked]:
    """Yield what came of each version, of those that are named or of all; raises UsageError."""
    files = _files()
    try:
        versions = files.find_versions(repository)
    except OSError as error:
        raise click.UsageError(f"{repository} cannot be read: {error.strerror}") from None
    called = {item: {item.name, f"{item.name}:{item.number}"} for item in versions}
    if unknown := set(names).difference(*called.values()):
        raise click.UsageError(f"there is no {', '.join(sorted(unknown))} in {repository}")
    for item in versions:
        if names and not called[item].intersection(names):
            continue
        content = io.BytesIO()
        digest = b""
        try:
            pin = files.read_pin(item)
            digest = files.read_model(item, MOST_BYTES, content.write)
            if digest != pin:
                raise files.Unfit("its SHA-256 is not the one that its pin names")
            _try(connection, content.getvalue(), files.read_warm_up(item))
        except (files.Unfit, ml.ModelLoaderError) as error:
            yield Checked(item.name, item.number, digest.hex(), str(error))
        else:
            yield Checked(item.name, item.number, digest.hex())


def _try(connection: ml.Connection, content: bytes, archive: bytes | None) -> None:
    """Load a model and run it as the service does before it serves one; raises what goes wrong.

    The service's own reader looks at the inputs first: it takes less than NumPy does.
    """
    from loader_service.repository.arrays import read_arrays
    from loader_service.repository.files import WARM_UP_BYTES

    with (
        ml.create_context(connection=connection) as context,
        ml.MLModelLoader(context).load(content) as model,
    ):
        if archive is not None:
            read_arrays(archive, WARM_UP_BYTES)
            with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
                model.compute({name: arrays[name] for name in arrays.files})
            return
        inputs = model.inputs()
        if all(item.data_type in DTYPES and _is_static(item) for item in inputs):
            model.compute(
                {item.name: np.zeros(item.dimensions, DTYPES[item.data_type]) for item in inputs}
            )


def _is_static(tensor: ml.MLTensorInfo) -> bool:
    return tensor.dimensions is not None and None not in tensor.dimensions


def _write(folder: Path, name: str, parts: dict[str, bytes]) -> None:
    """Write files into a folder that is there as a whole or not at all; raises OSError."""
    # No service looks at what begins with a dot.
    prepared = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
    try:
        for part, content in parts.items():
            with (prepared / part).open("xb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        prepared.chmod(0o755)
        prepared.rename(folder / name)
    except BaseException:
        shutil.rmtree(prepared, ignore_errors=True)
        raise


def _files() -> ModuleType:
    """Return the service's own reader of repositories; raises NoService if it is not here."""
    try:
        from loader_service.repository import files
    except ImportError as error:
        raise NoService(f"the service is not installed: {error}") from None
    return files
