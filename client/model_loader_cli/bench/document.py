"""What `model-loader bench` measured, as the JSON that it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import model_loader as ml

from .machine import describe
from .samples import dropped

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def document(
    model: Path,
    report: ml.Report,
    rows: Sequence[DataclassInstance],
    samples: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Put together the machine, the figures of the arms, and the samples behind them."""
    gone, everything = dropped(samples)
    return {
        "model": str(model),
        "sha256": report.sha256,
        "runtime": report.runtime,
        "threads": report.threads,
        "machine": describe(),
        "unit": "milliseconds",
        "arms": [asdict(row) for row in rows],
        "blocks": everything,
        "blocks_dropped_for_steal": gone,
        "samples": list(samples),
    }
