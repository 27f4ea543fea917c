"""Names of classes: from a text file, or from the label files packed into the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

Labels = Sequence[str]

LABEL_KINDS = frozenset({"TENSOR_AXIS_LABELS", "TENSOR_VALUE_LABELS"})
"""Kinds of packed files that hold one label a line (`AssociatedFileType` of the metadata)."""
LARGEST_FILE = 16 << 20
"""Bytes of a label file that are read at most."""


def read_labels(path: Path) -> Labels:
    """Read one label a line; raises UsageError for what is no text."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise click.UsageError(f"{path} is too large for a list of labels")
        return tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} cannot be read as labels: {error}") from None


def packed_labels(summary: Mapping[str, Any]) -> Labels:
    """Return the labels packed into a model, from what `inspect` told; () where there are none."""
    for file in summary.get("associated_files", ()):
        if file["kind"] in LABEL_KINDS and file["lines"]:
            return tuple(str(line) for line in file["lines"])
    return ()


def fits(labels: Labels, shape: Sequence[int]) -> bool:
    """Whether an output of that shape has one value for each label, and nothing else."""
    sizes = [size for size in shape if size != 1]
    return bool(labels) and (sizes == [len(labels)] or (not sizes and len(labels) == 1))
