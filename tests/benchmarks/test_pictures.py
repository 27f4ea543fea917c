"""Pictures of samples of which nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import cases, pictures
from model_loader_cli.bench.comparison import BACK_TO_BACK, ECHO
from model_loader_cli.bench.drawing import drawn
from tests.benchmarks.conftest import block
from tests.support.drawing import needs_matplotlib


@needs_matplotlib
@pytest.mark.parametrize("draw", [pictures.latency, pictures.payload])
def test_where_time_was_stolen_throughout_a_picture_is_empty(
    draw: pictures.Draw, tmp_path: Path
) -> None:
    pair = {ECHO: {"blocks": {BACK_TO_BACK: [block(1, 2, stolen=1)]}}}
    disturbed = {"name": cases.FOUR_BYTES, "sizes": {"request": 4}, "pairs": [pair]}
    with drawn(tmp_path / "empty.svg", 4, 3) as figure:
        draw(figure, {"models": [disturbed], "payloads": []})
    assert (tmp_path / "empty.svg").read_text().count("<svg") == 1
