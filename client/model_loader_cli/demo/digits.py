"""The demo's model and the held-back digits, from `examples/digits` of the source checkout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from ..arrays import read_npz
from ..tensors import Array

MODEL = "digits.tflite"
HELD_BACK = "held_back.npz"
INK = 16
"""A pixel's largest value in the stored images; the model takes 0 to 1."""


@dataclass(frozen=True, slots=True)
class Digits:
    """The held-back digits: `images` uint8[count, 8, 8] from 0 to 16, `labels` uint8[count]."""

    model: Path
    images: Array
    labels: Array

    def batch(self) -> Array:
        """All images as the model takes them: float32[count, 8, 8, 1] from 0 to 1."""
        return (self.images.astype(np.float32) / INK)[..., np.newaxis]


def find_digits(folder: Path | None) -> Digits:
    """Read the example; raises ClickException where it is not there."""
    place = folder or Path(__file__).resolve().parents[3] / "examples" / "digits"
    for name in (MODEL, HELD_BACK):
        if not (place / name).is_file():
            raise click.ClickException(
                f"the demo needs {name}, which is not in {place}. It is part of the source code, "
                "not of the installed package: run the demo from a clone (make demo), or say where "
                "the folder is: model-loader demo --digits FOLDER"
            )
    arrays = read_npz(place / HELD_BACK)
    if not {"images", "labels"} <= arrays.keys():
        raise click.ClickException(f"{place / HELD_BACK} holds no images and labels")
    return Digits(place / MODEL, arrays["images"], arrays["labels"])
