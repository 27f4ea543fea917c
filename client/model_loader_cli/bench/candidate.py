"""A device that is compared: what it takes of a model, and how far off its answers are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import model_loader as ml

from ..devices import context_options, private_devices
from ..tensors import Array
from .numerical import Difference, NotComparable, difference

REFERENCE = "reference"
REDUCED = ", reduced precision"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device, as precise as the model's file or less so."""

    device: str
    """As for `--device`: with the library, for an external one."""
    allow_fp16: bool = False

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return self.device.partition("=")[0] + (REDUCED if self.allow_fp16 else "")

    def options(self) -> dict[str, Any]:
        """The options of a context for it."""
        return context_options({"device": self.device, "allow_fp16": self.allow_fp16 or None})


def candidates(devices: Iterable[str], allow_fp16: bool) -> list[Candidate]:
    """Each device once, and once more with reduced precision where that is allowed."""
    precisions = (False, True) if allow_fp16 else (False,)
    return [Candidate(device, less) for device in dict.fromkeys(devices) for less in precisions]


@dataclass(frozen=True, slots=True)
class Trial:
    """What one load and one call showed."""

    label: str
    refused: str = ""
    """Why it does not run the model; empty: it does."""
    off_by: Difference | None = None
    """From the reference kernels; None where these do not run the model, or answer otherwise."""
    share: float = 0.0
    """Of the operators, those that it runs itself, from 0 to 1."""
    compile_seconds: float = 0.0
    delegation: Mapping[str, Any] | None = None
    """The whole report."""

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def trial_of(values: Mapping[str, Any]) -> Trial:
    """Read what `Trial.to_json` wrote."""
    off_by = values["off_by"]
    return Trial(**{**values, "off_by": None if off_by is None else Difference(**off_by)})


def try_out(
    connection: ml.Connection,
    model: Path,
    inputs: Sequence[Array],
    chosen: Iterable[Candidate],
    threads: int,
) -> Iterator[Trial]:
    """Run the model once on each device, in the sandbox; the inputs are in the model's order."""
    try:
        wanted, _ = _run(connection, model, inputs, Candidate(REFERENCE), threads)
    except ml.ModelLoaderError:
        wanted = {}
    for candidate in chosen:
        try:
            answers, report = _run(connection, model, inputs, candidate, threads)
        except ml.ModelLoaderError as error:
            yield Trial(candidate.label, refused=error.message)
            continue
        name = candidate.device.partition("=")[0]
        own = [part for part in report.partitions if part.device.startswith(name)]
        yield Trial(
            candidate.label,
            off_by=_off_by(answers, wanted),
            share=sum(map(report.share, own)),
            compile_seconds=sum(part.compile_seconds for part in own),
            delegation=report.to_values(),
        )


def enabled_for(chosen: Iterable[Candidate]) -> tuple[str, ...]:
    """What a private service must enable for all of them."""
    names = (name for item in chosen for name in private_devices({"device": item.device}))
    return tuple(dict.fromkeys(names))


def _run(
    connection: ml.Connection,
    path: Path,
    inputs: Sequence[Array],
    candidate: Candidate,
    threads: int,
) -> tuple[dict[str, Array], ml.Delegation]:
    context = ml.create_context(connection=connection, num_threads=threads, **candidate.options())
    with ml.MLModelLoader(context).load(path) as model:
        names = [tensor.name for tensor in model.inputs()]
        answer = model.compute(dict(zip(names, inputs, strict=True)))
        report = model.delegation()
    assert report is not None  # a device was named
    return {name: np.asarray(value) for name, value in answer.items()}, report


def _off_by(answers: Mapping[str, Array], wanted: Mapping[str, Array]) -> Difference | None:
    try:
        return difference(answers, wanted) if wanted else None
    except NotComparable:
        return None
