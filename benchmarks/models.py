"""The models that are measured: the project's own, and third-party ones where they are there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from model_loader_cli.bench.processes import Arm, run

REPOSITORY = Path(__file__).resolve().parent.parent
FLOAT_BYTES = 4


def copy(size: int) -> bytes:
    """`size` bytes of float32 in, the same out: a model that does nothing but move them."""
    from loader_service.runtime.schema_tensor_types import TensorType
    from loader_service.writer import small

    return small.copy(TensorType.FLOAT32, (size // FLOAT_BYTES,))


def image_to_scores() -> bytes:
    """MobileNet's tensors without its work: 602,112 bytes in, the first 4,000 of them out."""
    from loader_service.runtime.schema_operators import BuiltinOperator
    from loader_service.runtime.schema_tensor_types import TensorType
    from loader_service.writer.model import ModelWriter

    model = ModelWriter("the first values of an image")
    graph = model.subgraph()
    image = graph.input("image", TensorType.FLOAT32, (1, 224, 224, 3))
    flat = graph.tensor("flat", TensorType.FLOAT32, (1, 150528))
    shape = graph.constant("flat/shape", np.array([1, 150528], np.int32))
    graph.operator(BuiltinOperator.RESHAPE, [image, shape], [flat], new_shape=(1, 150528))
    scores = graph.tensor("scores", TensorType.FLOAT32, (1, 1000))
    begin = graph.constant("begin", np.array([0, 0], np.int32))
    size = graph.constant("size", np.array([1, 1000], np.int32))
    graph.operator(BuiltinOperator.SLICE, [flat, begin, size], [scores])
    graph.output(scores)
    model.signature("serving_default", graph, {"image": image}, {"scores": scores})
    return model.write()


def _mobilenet(version: int, quantized: bool) -> bytes:
    from loader_service.writer import mobilenet

    write = mobilenet.mobilenet_v1 if version == 1 else mobilenet.mobilenet_v2
    return write(quantized=quantized)


def _add() -> bytes:
    from loader_service.writer import small

    return small.add()


def payload_name(size: int) -> str:
    """The name of `copy(size)`."""
    for unit, factor in (("MB", 1_000_000), ("kB", 1000)):
        if size >= factor:
            return f"{size // factor} {unit} copied"
    raise ValueError(f"{size} bytes are no payload of the list")


PAYLOADS = (4000, 64_000, 1_000_000, 16_000_000, 64_000_000)
"""Bytes in, and as many out."""

WRITTEN: Mapping[str, Callable[[], bytes]] = {
    "4 bytes": _add,
    "602 kB in, 4 kB out": image_to_scores,
    "MobileNet v1 float32": partial(_mobilenet, 1, False),
    "MobileNet v1 int8": partial(_mobilenet, 1, True),
    "MobileNet v2 float32": partial(_mobilenet, 2, False),
    "MobileNet v2 int8": partial(_mobilenet, 2, True),
    **{payload_name(size): partial(copy, size) for size in PAYLOADS},
}
"""Models by the project's writer, with seeded weights: right in size and cost, meaningless."""

SHARED: Mapping[str, str] = {
    "YAMNet": "yamnet_audio_classifier",
    "MoveNet": "movenet_lightning_ptq",
}
"""Third-party models, by their names in the manifest of the shared folder."""

SHARED_ON_DEVICES: Mapping[str, str] = {
    "DeepLab v3": "deeplabv3_257_float",
    "Basic Pitch": "basic_pitch_nmp",
}
"""More of them, for the comparison of devices."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of one call."""

    request: int
    reply: int


class Store:
    """Models as files in a folder, with inputs beside them, made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[str, Sizes] = {}

    def path(self, name: str) -> Path:
        """The model's file; raises KeyError for a name that nobody knows."""
        path = self._folder / f"{_slug(name)}.tflite"
        if not path.exists():
            data = WRITTEN[name]() if name in WRITTEN else shared_models()[name].read_bytes()
            path.write_bytes(data)
        return path

    def inputs(self, name: str) -> Path:
        """Inputs of the model, in its order (`.npz`): real ones where there are some, or seeded."""
        self.sizes(name)
        return self._inputs(name)

    def sizes(self, name: str) -> Sizes:
        """What goes in and comes out in one call; the model is run once, elsewhere."""
        known = self._sizes.get(name)
        if known is None:
            known = self._sizes[name] = self._try_out(name)
        return known

    def _inputs(self, name: str) -> Path:
        return self._folder / f"{_slug(name)}.npz"

    def _try_out(self, name: str) -> Sizes:
        given = {"model": str(self.path(name)), "inputs": str(self._inputs(name))}
        if name in stored_runs():
            given["stored"] = str(stored_runs()[name])
        return Sizes(**run(Arm("benchmarks.programs.prepare", given), REPOSITORY))


@cache
def shared_models() -> Mapping[str, Path]:
    """Those third-party models that are here: in MODEL_LOADER_SHARED, else in ../shared."""
    return {name: folder / entry["file"] for name, (folder, entry) in _entries().items()}


@cache
def stored_runs() -> Mapping[str, Path]:
    """Real inputs of third-party models, where there are some (`.npz`: `in0`, `in1` …)."""
    return {
        name: folder / run["file"]
        for name, (folder, entry) in _entries().items()
        for run in entry["expected"]
        if run["kind"] == "real" and run.get("file")
    }


@cache
def _entries() -> Mapping[str, tuple[Path, Mapping[str, Any]]]:
    """Of the manifest: by the name here, the folder and what is known of the model."""
    folder = Path(os.environ.get("MODEL_LOADER_SHARED") or REPOSITORY.parent / "shared") / "models"
    manifest = folder / "MANIFEST.json"
    if not manifest.is_file():
        return {}
    known = json.loads(manifest.read_text(encoding="utf-8"))["models"]
    entries = {entry["name"]: entry for entry in known}
    wanted = {**SHARED, **SHARED_ON_DEVICES}
    return {name: (folder, entries[model]) for name, model in wanted.items() if model in entries}


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
