"""From what was typed to a model's inputs: which file belongs to which input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from model_loader import MLTensorInfo

from . import arrays, images
from .random_inputs import random_inputs
from .tensors import shown_tensor


@dataclass(frozen=True, slots=True)
class Given:
    """A file for an input; no name: for whichever input is left (an `.npz`: for its names)."""

    name: str | None
    path: Path


def parse(text: str, tensors: Iterable[MLTensorInfo]) -> Given:
    """Read `NAME=FILE` or `FILE`; raises UsageError for a file that is not there.

    Names of inputs and of files may hold `=` themselves, so the model's own names decide.
    """
    names = [tensor.name for tensor in tensors]
    for name in sorted(names, key=len, reverse=True):
        if text.startswith(f"{name}="):
            return Given(name, _file(text[len(name) + 1 :]))
    path = Path(text)
    if not path.exists() and "=" in text:
        name, _, rest = text.partition("=")
        if Path(rest).exists():
            raise click.UsageError(
                f"the model has no input {name!r}; its inputs are:\n{listed(tensors)}"
            )
    return Given(None, _file(text))


def gather(
    given: Sequence[str], tensors: Sequence[MLTensorInfo], *, scale: str, seed: int | None
) -> dict[str, Any]:
    """Give a value for each input by name, ready for `compute`.

    Inputs without a file are made up when there is a `seed`; without one, raises UsageError that
    says which inputs are needed. Also raises it for a file that does not fit.
    """
    files = [parse(text, tensors) for text in given]
    by_name = {tensor.name: tensor for tensor in tensors}
    values: dict[str, Any] = {}
    for file in files:
        if file.name is not None:
            _set(values, file.name, _read(file.path, by_name[file.name], scale), by_name)
    for file in files:
        if file.name is not None:
            continue
        if file.path.suffix.lower() == ".npz":
            for name, value in arrays.read_npz(file.path).items():
                _set(values, name, value, by_name)
            continue
        free = next((tensor for tensor in tensors if tensor.name not in values), None)
        if free is None:
            raise click.UsageError(
                f"{file.path}: every input has a value already; the inputs are:\n{listed(tensors)}"
            )
        values[free.name] = _read(file.path, free, scale)
    missing = [tensor for tensor in tensors if tensor.name not in values]
    if missing and seed is not None:
        made = random_inputs(tensors, seed)
        values |= {tensor.name: made[tensor.name] for tensor in missing if tensor.name in made}
        missing = [tensor for tensor in missing if tensor.name not in values]
    if missing:
        raise click.UsageError(
            f"these inputs need a value (--input NAME=FILE):\n{listed(missing)}\n"
            "To try the model with made-up values: --random 1"
        )
    return values


def listed(tensors: Iterable[MLTensorInfo]) -> str:
    """The inputs, a line each."""
    return "\n".join(f"  {shown_tensor(tensor)}" for tensor in tensors) or "  (none)"


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise click.UsageError(f"there is no file {text!r}")
    return path


def _read(path: Path, tensor: MLTensorInfo, scale: str) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return arrays.read_npy(path)
    if suffix == ".npz":
        found = arrays.read_npz(path)
        if tensor.name in found:
            return found[tensor.name]
        if len(found) == 1:
            return next(iter(found.values()))
        raise click.UsageError(
            f"{path} holds {', '.join(map(repr, found)) or 'nothing'}, but no {tensor.name!r}"
        )
    if suffix in images.SUFFIXES:
        return images.read_image(path, tensor, scale)
    known = ", ".join(sorted(arrays.SUFFIXES | images.SUFFIXES))
    raise click.UsageError(f"{path}: inputs are files of one of these kinds: {known}")


def _set(
    values: dict[str, Any], name: str, value: Any, by_name: Mapping[str, MLTensorInfo]
) -> None:
    if name not in by_name:
        raise click.UsageError(
            f"the model has no input {name!r}; its inputs are:\n{listed(by_name.values())}"
        )
    if name in values:
        raise click.UsageError(f"input {name!r} was given twice")
    values[name] = value
