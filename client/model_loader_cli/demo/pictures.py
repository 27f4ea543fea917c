"""Small grey images as block characters, several side by side."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from ..tensors import Array
from ..terminal import can_show

BLOCKS = " ░▒▓█"
LETTERS = " .:+#"
"""For a terminal whose encoding has no blocks."""
CELL = 2
"""Characters a pixel: about as wide as a line is high."""
GAP = 3


def pictures(images: Array, captions: Sequence[Text], most: int, columns: int) -> list[Text]:
    """Draw images [count, height, width] with values 0 to `most`, and a caption under each.

    As many stand side by side as fit into `columns`.
    """
    shades = BLOCKS if can_show(BLOCKS) else LETTERS
    width = images.shape[2] * CELL + GAP
    across = max(1, (columns + GAP) // width)
    lines: list[Text] = []
    for first in range(0, len(images), across):
        row = images[first : first + across]
        for y in range(images.shape[1]):
            strips = ["".join(shade(value, most, shades) for value in image[y]) for image in row]
            lines.append(Text((" " * GAP).join(strips)))
        line = Text()
        for caption in captions[first : first + across]:
            padded = caption.copy()
            padded.truncate(width, pad=True)
            line.append_text(padded)
        lines += [line, Text()]
    return lines


def shade(value: float, most: int, shades: str) -> str:
    """Draw one pixel; full ink is the last shade."""
    step = min(int(float(value) * len(shades) / (most + 1)), len(shades) - 1)
    return shades[step] * CELL
