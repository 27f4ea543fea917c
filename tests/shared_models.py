"""The third-party models that many tests run on, where they are there.

They live outside the repository, in ``models/`` of the folder that ``MODEL_LOADER_SHARED`` names,
else of ``shared`` beside the repository. Without them the tests that need them are skipped with a
reason; the project's own small models (``loader_service.writer``) are always there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

ABSENT = "the shared models are not there (MODEL_LOADER_SHARED or ../shared)"


@dataclass(frozen=True, slots=True)
class Expected:
    """Stored inputs and outputs of one run: an ``.npz`` file and how it was made."""

    kind: str
    """``"random"``, ``"real"``, ``"signature"`` or ``"resize"``."""
    path: Path
    name: str | None
    values: Mapping[str, Any]
    """The manifest's whole entry."""


@dataclass(frozen=True, slots=True)
class SharedModel:
    """One model of the manifest; `values` holds what has no field of its own here."""

    name: str
    path: Path
    kind: str
    """File format: ``"tflite"`` or ``"onnx"``."""
    category: str
    """``real``, ``edge``, ``malformed``, ``unsupported``, ``crash``, ``resource_hog``, ``onnx``."""
    runs: bool
    """Whether LiteRT 2.3.0 runs it in process."""
    core: bool
    """One of the smaller set that stands for the rest."""
    error: str | None
    """What LiteRT 2.3.0 said, for one that does not run."""
    kills_process: bool
    keeps_state: bool
    dynamic_shapes: bool
    expected: tuple[Expected, ...]
    values: Mapping[str, Any]

    def read(self) -> bytes:
        """Return the model file's bytes."""
        return self.path.read_bytes()

    def expected_of(self, kind: str) -> tuple[Expected, ...]:
        """Return the stored runs of one kind that have a file."""
        return tuple(run for run in self.expected if run.kind == kind)


def shared_folder() -> Path | None:
    """Return the shared folder, or None where there is none (or it may not be read)."""
    named = os.environ.get("MODEL_LOADER_SHARED")
    folder = Path(named) if named else REPOSITORY.parent / "shared"
    manifest = folder / "models" / "MANIFEST.json"
    try:
        return folder.resolve() if os.access(manifest, os.R_OK) else None
    except OSError:
        return None


@cache
def manifest() -> tuple[SharedModel, ...]:
    """Return every model of the manifest, in its order; empty where it is absent."""
    folder = shared_folder()
    if folder is None:
        return ()
    models = folder / "models"
    entries = json.loads((models / "MANIFEST.json").read_text(encoding="utf-8"))["models"]
    return tuple(_model(models, entry) for entry in entries)


def _model(models: Path, entry: Mapping[str, Any]) -> SharedModel:
    return SharedModel(
        name=entry["name"],
        path=models / entry["file"],
        kind=entry["kind"],
        category=entry["category"],
        runs=entry["runs"],
        core=entry["core"],
        error=entry["error"],
        kills_process=entry.get("kills_process", False),
        keeps_state=entry.get("has_state_between_invocations", False),
        dynamic_shapes=entry.get("dynamic_shapes", False),
        expected=tuple(
            Expected(run["kind"], models / run["file"], run.get("name"), run)
            for run in entry["expected"]
            if run.get("file")
        ),
        values=entry,
    )


def select(
    *, kind: str | None = "tflite", category: str | None = None, runs: bool | None = None
) -> Iterator[SharedModel]:
    """Yield the manifest's models of that file format, category and verdict (None: any)."""
    for model in manifest():
        if (
            kind in (None, model.kind)
            and category in (None, model.category)
            and runs in (None, model.runs)
        ):
            yield model


def each_model(
    *, kind: str | None = "tflite", category: str | None = None, runs: bool | None = None
) -> pytest.MarkDecorator:
    """Parametrize a test by `shared_model`; where the models are absent it is skipped once."""
    parameters: list[Any] = [
        pytest.param(model, id=model.name)
        for model in select(kind=kind, category=category, runs=runs)
    ]
    if not parameters:
        reason = "the manifest has no such model" if manifest() else ABSENT
        parameters = [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
    return pytest.mark.parametrize("shared_model", parameters)


def require_shared() -> Path:
    """Return the folder of the models, or skip the calling test with the reason."""
    folder = shared_folder()
    if folder is None:
        pytest.skip(ABSENT)
    return folder / "models"


def require_model(name: str) -> SharedModel:
    """Return one model by its manifest name, or skip the calling test with the reason.

    Raises KeyError for a name that the manifest does not have.
    """
    require_shared()
    for model in manifest():
        if model.name == name:
            return model
    raise KeyError(name)
