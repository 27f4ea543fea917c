"""One model that a peer serves, with its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class PeerModel:
    """A model of one input `x` and one output `y`, both float32."""

    name: str
    """As it stands in the tables."""
    path: Path
    inputs: Path
    """An `.npz` file with the one input."""
    answer: tuple[int, ...]
    """The output's dimensions."""

    @property
    def served_as(self) -> str:
        """What the peer's clients call it: letters, digits and dashes."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name)

    def array(self) -> Any:
        """The input."""
        with np.load(self.inputs, allow_pickle=False) as file:
            return file[file.files[0]]


def model_of(values: Mapping[str, Any]) -> PeerModel:
    """Read the fields from JSON."""
    return PeerModel(
        values["name"], Path(values["path"]), Path(values["inputs"]), tuple(values["answer"])
    )
