"""What draws pictures, and may not be installed."""

from __future__ import annotations

import pytest

from model_loader_cli.bench.drawing import can_draw

needs_matplotlib = pytest.mark.skipif(
    not can_draw(), reason="the pictures need Matplotlib, which make bench installs"
)
