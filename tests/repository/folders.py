"""Putting models into a repository, as an operator does."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from loader_service.repository.files import MODEL, PIN, WARM_UP


def put(
    folder: Path,
    name: str,
    version: int,
    model: bytes,
    *,
    pin: str | None = None,
    warm_up: dict[str, Any] | None = None,
) -> Path:
    """Write a version and let it appear at once; returns its folder."""
    prepared = folder / name / f".{version}"
    prepared.mkdir(parents=True)
    (prepared / MODEL).write_bytes(model)
    digest = hashlib.sha256(model).hexdigest() if pin is None else pin
    (prepared / PIN).write_text(f"{digest}  {MODEL}\n", encoding="ascii")
    if warm_up is not None:
        np.savez(prepared / WARM_UP, **warm_up)
    return prepared.rename(folder / name / str(version))
