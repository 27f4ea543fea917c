"""Pictures, drawn with Matplotlib (the extra `bench`): the same figures give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .interval import Interval

INSTALL = "pip install 'model-loader[bench]'"
SUFFIXES = (".svg", ".png")
STYLE = {
    "svg.hashsalt": "model-loader",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
}
NO_DATE = {"Date": None}
BAR_HEIGHT = 0.3
"""Inches."""
YARDSTICK_COLOUR, EXACT_COLOUR, REDUCED_COLOUR = "#555555", "#0072b2", "#e69f00"
"""Told apart by colour-blind readers, too."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: a name, milliseconds, and what is written beside it."""

    name: str
    value: Interval
    note: str = ""
    colour: str = EXACT_COLOUR


def can_draw() -> bool:
    """Whether Matplotlib is installed."""
    return find_spec("matplotlib") is not None


@contextmanager
def drawn(path: Path, width: float, height: float) -> Iterator[Any]:
    """Give an empty figure of so many inches; it is written when the block ends.

    Raises ImportError without Matplotlib.
    """
    import matplotlib

    matplotlib.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, metadata=NO_DATE if path.suffix == ".svg" else {})


def bars(axes: Any, title: str, values: Sequence[Bar]) -> None:
    """Draw milliseconds a call as lying bars, the first one on top, with their intervals."""
    for bar in values:
        value = bar.value
        error = [[value.median - value.low], [value.high - value.median]]
        axes.barh([bar.name], [value.median], xerr=error, color=bar.colour, capsize=2)
        if bar.note:
            axes.annotate(
                bar.note, (value.high, bar.name), (4, 0), textcoords="offset points", va="center"
            )
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xlim(left=0)
    axes.set_title(title)
    axes.set_xlabel("ms a call")


def draw_bars(path: Path, title: str, values: Sequence[Bar]) -> None:
    """Draw one picture of bars; raises ImportError without Matplotlib."""
    with drawn(path, 7, 1.2 + BAR_HEIGHT * len(values)) as figure:
        bars(figure.subplots(), title, values)
