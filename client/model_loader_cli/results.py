"""What a computation gave: for people, for scripts, and as files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from model_loader import MLTensorInfo

from .labels import Labels, fits
from .tensors import Array

SHOWN_VALUES = 8
"""Values of an output that are shown in the terminal."""
LISTED_VALUES = 10_000
"""Values of an output that go into the JSON document; larger ones need --output."""
FILE_NAME_LENGTH = 100


Scale = tuple[float, int]
"""Scale and zero point of a quantized output: real = scale * (value - zero point)."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One of the largest values of an output."""

    index: int
    value: int | float
    """As the model gave it."""
    real: float
    """What it stands for: another number only where the output is quantized."""
    label: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """One output of a call."""

    name: str
    data_type: str
    array: Array
    top: tuple[Ranked, ...]

    def values(self) -> list[str]:
        """The first values, as text."""
        return [_text(value) for value in self.array.reshape(-1)[:SHOWN_VALUES].tolist()]

    def to_json(self) -> dict[str, Any]:
        """The output as a JSON-able object; `values` is null where there are too many."""
        listed = _plain(self.array.tolist()) if self.array.size <= LISTED_VALUES else None
        return {
            "name": self.name,
            "data_type": self.data_type,
            "shape": list(self.array.shape),
            "values": listed,
            "top": [
                {
                    "index": entry.index,
                    "value": entry.value,
                    "real": entry.real,
                    "label": entry.label,
                }
                for entry in self.top
            ],
        }


def results_of(
    outputs: Mapping[str, Any],
    tensors: Sequence[MLTensorInfo],
    *,
    count: int,
    labels: Labels = (),
    scales: Sequence[Scale | None] | None = None,
) -> list[Result]:
    """Pair the outputs with what the model declared, and rank `count` values of each vector."""
    results = []
    for tensor, scale in zip(tensors, scales or [None] * len(tensors), strict=True):
        array = np.asarray(outputs[tensor.name])
        top = ranked(array, count, labels, scale) if count and _is_vector(array) else ()
        results.append(Result(tensor.name, tensor.data_type, array, top))
    return results


def output_scales(
    summary: Mapping[str, Any], signature: str | None, tensors: Sequence[MLTensorInfo]
) -> list[Scale | None]:
    """Say how each output is quantized, from what `inspect` told of the file."""
    if signature is None:
        found = [tensor["quantization"] for tensor in summary["subgraphs"][0]["outputs"]]
    else:
        ports = {
            port["name"]: port["tensor"]["quantization"]
            for known in summary["signatures"]
            if known["key"] == signature
            for port in known["outputs"]
        }
        found = [ports.get(tensor.name) for tensor in tensors]
    if len(found) != len(tensors):
        return [None] * len(tensors)
    return [_scale(values) for values in found]


def ranked(
    array: Array, count: int, labels: Labels = (), scale: Scale | None = None
) -> tuple[Ranked, ...]:
    """Return the `count` largest values, the first of equal ones first."""
    flat = array.reshape(-1)
    # Not the reversed order of argsort, which would turn equal values around.
    keys = -flat.astype(np.float64) if flat.dtype.kind in "fb" else -flat.astype(np.int64)
    order = np.argsort(keys, kind="stable")[:count]
    named = fits(labels, array.shape)
    factor, zero_point = scale or (1.0, 0)
    return tuple(
        Ranked(
            int(place),
            flat[place].item(),
            (flat[place].item() - zero_point) * factor,
            labels[place] if named else None,
        )
        for place in order
    )


def write_arrays(results: Sequence[Result], folder: Path) -> list[Path]:
    """Write one `.npy` a result; names of tensors never lead out of the folder."""
    taken: set[str] = set()
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for result in results:
            path = folder / f"{file_name(result.name, taken)}.npy"
            array = result.array
            if array.dtype == object:
                # Strings: as bytes of one length, because an object array would be a pickle.
                array = np.array(array.tolist(), dtype=np.bytes_).reshape(array.shape)
            np.save(path, array, allow_pickle=False)
            paths.append(path)
    except OSError as error:
        raise click.ClickException(f"the outputs cannot be written: {error}") from None
    return paths


def file_name(name: str, taken: set[str]) -> str:
    """Turn a tensor's name into a file name of plain characters that is not in `taken` yet."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:FILE_NAME_LENGTH].lstrip(".-") or "output"
    result, number = plain, 1
    while result.lower() in taken:
        result, number = f"{plain}-{number}", number + 1
    taken.add(result.lower())
    return result


def _scale(values: Mapping[str, Any] | None) -> Scale | None:
    if values is None or values["count"] != 1 or len(values["zero_point"]) != 1:
        return None
    scale = values["scale"][0]
    return (scale, values["zero_point"][0]) if isinstance(scale, float) else None


def _is_vector(array: Array) -> bool:
    """Whether values can be ranked: one dimension of more than one element, and no text."""
    return array.dtype.kind in "fiub" and sum(size != 1 for size in array.shape) <= 1


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return repr(value.decode("utf-8", "backslashreplace"))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return [_plain(item) for item in value] if isinstance(value, list) else value
