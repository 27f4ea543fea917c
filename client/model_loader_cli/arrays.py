"""NumPy files as input tensors. Pickles are never read: they would run code in this process."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np

from .tensors import Array

SUFFIXES = frozenset({".npy", ".npz"})
DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for files that it cannot read."""


def read_npy(path: Path) -> Array:
    """Read one array; raises UsageError for anything else."""
    try:
        array = np.load(path, allow_pickle=False)
    except DAMAGED as error:
        raise click.UsageError(f"{path} cannot be read as an array: {error}") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise click.UsageError(f"{path} holds several arrays: name it .npz")
    return array


def read_npz(path: Path) -> Mapping[str, Array]:
    """Read all arrays of an archive by name; raises UsageError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if isinstance(archive, np.ndarray):
                raise click.UsageError(f"{path} holds one array: name it .npy")
            return {name: archive[name] for name in archive.files}
    except DAMAGED as error:
        raise click.UsageError(f"{path} cannot be read as an archive of arrays: {error}") from None
