"""The proof of it all: a tiny model in a private service, with the answer checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import model_loader as ml

from ..exits import NoService
from ..service import service


@dataclass(frozen=True, slots=True)
class Trial:
    """How the tiny model fared."""

    works: bool
    detail: str
    layers: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    memory_held_by: str = ""


def try_model() -> Trial:
    """Load a model that adds one, in a private service, and have it add."""
    try:
        from loader_service.writer import small
    except ImportError as error:
        return Trial(False, f"the service is not installed: {error}")
    try:
        with (
            service(None, private=True) as connection,
            ml.MLModelLoader(ml.create_context(connection=connection)).load(small.add()) as model,
        ):
            answer: Any = model.compute(np.array([1], np.float32))
            if answer.tolist() != [2.0]:
                return Trial(False, f"1 + 1 gave {answer.tolist()}")
            isolation = model.isolation
            return Trial(
                True,
                f"1 + 1 is 2, behind {len(isolation.layers)} layers, by {model.report.runtime}",
                isolation.layers,
                dict(isolation.missing),
                isolation.memory_held_by,
            )
    except (ml.ModelLoaderError, NoService) as error:
        return Trial(False, f"{type(error).__name__}: {error}")
