"""Inspection gives the facts of sound models, and one kind of error for all others."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from loader_service.runtime import (
    associated_files,
    inspection,
    model_metadata,
    schema,
    schema_metadata,
)
from loader_service.runtime.flatbuffer import MalformedModel
from loader_service.runtime.inspection import inspect_model
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.runtime.summary import ModelSummary, OperatorSummary, TensorSummary, to_json
from loader_service.writer import hostile, small, stateful
from loader_service.writer.encode import encode
from loader_service.writer.model import ModelWriter
from loader_service.writer.tensors import Quantization
from tests.shared_models import SharedModel, each_model, require_model

# Files of the shared models in which no FlatBuffer of the schema begins.
GARBAGE = {
    "bad_issue115308_8_bytes",
    "bad_java_invalid_model",
    "bad_test_model_broken",
    "fuzz_int32_max_dim",
    "fuzz_malicious",
    "fuzz_near_overflow",
}


def _model_with_metadata() -> ModelWriter:
    """A model whose metadata describes an output labelled by a packed file."""
    metadata = {
        "name": "digits",
        "author": "an author",
        "license": "a licence",
        "subgraph_metadata": [
            {
                "output_tensor_metadata": [
                    {
                        "associated_files": [
                            {
                                "name": "labels.txt",
                                "type": int(schema_metadata.AssociatedFileType.TENSOR_AXIS_LABELS),
                            }
                        ]
                    }
                ]
            }
        ],
    }
    model = ModelWriter("described")
    model.subgraph()
    model.metadata(
        schema_metadata.METADATA_NAME,
        encode(schema_metadata.MODEL_METADATA, metadata, schema_metadata.FILE_IDENTIFIER),
    )
    model.metadata(schema_metadata.MINIMUM_RUNTIME_VERSION_NAME, b"2.14.0\0\0\0\0")
    return model


def _packed(model: bytes, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The model with files packed behind it."""
    stream = io.BytesIO(model)
    with zipfile.ZipFile(stream, "a", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def test_a_small_model_in_full() -> None:
    data = small.add()
    x = TensorSummary("x", "FLOAT32", (1,), None, None)
    summary = inspect_model(data)
    (graph,) = summary.subgraphs
    assert (graph.name, graph.tensor_count, graph.operator_count) == ("main", 3, 1)
    assert graph.inputs == (x,)
    assert [output.name for output in graph.outputs] == ["y"]
    assert summary.operators == (OperatorSummary("ADD", 1, 1, custom=False),)
    assert summary.schema_version == 3
    assert summary.size == len(data)
    (signature,) = summary.signatures
    assert (signature.key, signature.subgraph) == ("serving_default", 0)
    assert [(port.name, port.tensor) for port in signature.inputs] == [("x", x)]
    assert summary.remarks == ()


def test_dynamic_shapes_and_quantization_are_told() -> None:
    model = ModelWriter()
    graph = model.subgraph()
    scales = Quantization.per_channel([0.5] * 40, dimension=1)
    graph.input("x", TensorType.INT8, (1, 40), shape_signature=(-1, 40), quantization=scales)
    (tensor,) = inspect_model(model.write()).subgraphs[0].inputs
    assert (tensor.shape, tensor.shape_signature) == ((1, 40), (-1, 40))
    assert tensor.quantization is not None
    assert tensor.quantization.scale == (0.5,) * inspection.SHOWN_SCALES
    assert (tensor.quantization.count, tensor.quantization.dimension) == (40, 1)


def test_custom_operators_are_named_by_their_code() -> None:
    (operator,) = inspect_model(hostile.custom_operator("Mine")).operators
    assert operator == OperatorSummary("Mine", 1, 1, custom=True)


def test_operators_are_counted_over_all_subgraphs() -> None:
    counts = {
        operator.name: operator.count for operator in inspect_model(stateful.counter()).operators
    }
    assert counts == {
        "ADD": 1,
        "ASSIGN_VARIABLE": 2,
        "CALL_ONCE": 2,
        "READ_VARIABLE": 2,
        "VAR_HANDLE": 3,
    }


def test_numbers_of_a_later_schema_are_shown_as_numbers() -> None:
    values = {
        "version": 3,
        "operator_codes": [{"builtin_code": 5000}],
        "subgraphs": [
            {"tensors": [{"type": 100}], "inputs": [0], "operators": [{"opcode_index": 0}]}
        ],
    }
    summary = inspect_model(encode(schema.MODEL, values, schema.FILE_IDENTIFIER))
    assert summary.operators[0].name == "BUILTIN_5000"
    assert summary.subgraphs[0].inputs[0].type == "TYPE_100"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_metadata_and_packed_files_are_read(method: int) -> None:
    files = {"labels.txt": b"zero\none\n", "numbers.bin": bytes(range(256))}
    summary = inspect_model(_packed(_model_with_metadata().write(), files, method))
    assert summary.metadata is not None
    assert (summary.metadata.name, summary.metadata.author) == ("digits", "an author")
    assert summary.minimum_runtime_version == "2.14.0"
    assert summary.metadata_names == ("TFLITE_METADATA", "min_runtime_version")
    labels, numbers = summary.associated_files
    assert (labels.name, labels.size, labels.kind) == ("labels.txt", 9, "TENSOR_AXIS_LABELS")
    assert labels.lines == ("zero", "one")
    assert (numbers.name, numbers.size, numbers.kind, numbers.lines) == (
        "numbers.bin",
        256,
        "UNKNOWN",
        (),
    )


def test_an_archive_with_offsets_of_its_own_is_read_too() -> None:
    archive = _packed(b"", {"labels.txt": b"zero\n"})
    (file,) = inspect_model(small.add() + archive).associated_files
    assert file.lines == ("zero",)


def test_long_texts_are_cut() -> None:
    lines = "".join(f"line {number}\n" for number in range(10_000))
    packed = _packed(small.add(), {"lines.txt": lines.encode(), "long.txt": b"x" * 100_000})
    text, long = inspect_model(packed).associated_files
    assert text.lines == tuple(f"line {number}" for number in range(model_metadata.SHOWN_LINES))
    (line,) = long.lines
    assert len(line) == model_metadata.SHOWN_LINE_LENGTH


def test_files_of_labels_are_told_whole_unless_they_are_very_long() -> None:
    model = _model_with_metadata().write()
    lines = tuple(f"label {number}" for number in range(2000))
    (labels,) = inspect_model(
        _packed(model, {"labels.txt": "\n".join(lines).encode()})
    ).associated_files
    assert labels.lines == lines
    bomb = b"label\n" * (1 << 20)
    (labels,) = inspect_model(_packed(model, {"labels.txt": bomb})).associated_files
    assert labels.lines == ("label",) * model_metadata.SHOWN_LINES


def test_a_zip_bomb_is_not_unpacked() -> None:
    bomb = _packed(small.add(), {"bomb.txt": b"0" * (64 << 20)})
    assert len(bomb) < 1 << 17
    (file,) = associated_files.packed_files(bomb)
    assert file.size == 64 << 20
    assert file.read(bomb, 10) == b"0" * 10
    assert file.read(bomb, 0) == b""


def test_an_archive_of_very_many_files_is_listed_in_part() -> None:
    packed = _packed(small.add(), {f"{number}.txt": b"" for number in range(1000)})
    assert len(inspect_model(packed).associated_files) == associated_files.MAXIMUM_ENTRIES


def test_damage_outside_the_model_is_a_remark() -> None:
    packed = _packed(_model_with_metadata().write(), {"labels.txt": b"zero\none\n" * 50})
    directory = packed.index(b"PK\x01\x02")
    damaged = packed[:directory] + b"??" + packed[directory + 2 :]
    summary = inspect_model(damaged)
    assert summary.associated_files == ()
    assert summary.remarks == (
        f"packed files left out: packed files: the directory is damaged at byte {directory}",
    )
    without_metadata = inspect_model(packed.replace(b"M001", b"M002"))
    assert without_metadata.metadata is None
    assert without_metadata.remarks[0].startswith("metadata left out")
    assert without_metadata.associated_files[0].lines[0] == "zero"


def test_a_summary_is_json() -> None:
    model = ModelWriter()
    quantization = Quantization((float("nan"), float("inf")), (0, 0))
    model.subgraph().input("x", TensorType.INT8, (2,), quantization=quantization)
    text = json.dumps(to_json(inspect_model(model.write())), allow_nan=False)
    assert json.loads(text)["subgraphs"][0]["inputs"][0]["quantization"]["scale"] == ["nan", "inf"]


def test_indices_that_lead_nowhere_are_named() -> None:
    for values, place in (
        ({"subgraphs": [{"inputs": [0]}]}, r"model\.subgraphs\[0\]\.tensors\[0\]"),
        ({"subgraphs": [{"outputs": [-1]}]}, r"model\.subgraphs\[0\]\.tensors\[-1\]"),
        (
            {"subgraphs": [{"operators": [{"opcode_index": 7}]}]},
            r"model\.subgraphs\[0\]\.operators\[0\]\.opcode_index",
        ),
        ({"signature_defs": [{"subgraph_index": 3}]}, r"model\.subgraphs\[3\]"),
        ({"metadata": [{"name": "min_runtime_version", "buffer": 9}]}, r"model\.buffers\[9\]"),
    ):
        data = encode(schema.MODEL, values, schema.FILE_IDENTIFIER)
        with pytest.raises(MalformedModel, match=place):
            inspect_model(data)


def test_many_offsets_to_one_place_do_not_multiply_the_work() -> None:
    # A thousand subgraphs that are one and the same, with a thousand inputs each.
    graph = {"tensors": [{"shape": [1] * 8}], "inputs": [0] * 1000}
    data = encode(schema.MODEL, {"subgraphs": [graph] * 1000}, schema.FILE_IDENTIFIER)
    with pytest.raises(MalformedModel, match="too many elements"):
        inspect_model(data)


@each_model()
def test_every_shared_model_is_inspected(shared_model: SharedModel) -> None:
    data = shared_model.read()
    if shared_model.name in GARBAGE:
        with pytest.raises(MalformedModel):
            inspect_model(data)
        return
    _assert_agrees(inspect_model(data), shared_model)


def _assert_agrees(summary: ModelSummary, shared_model: SharedModel) -> None:
    """The summary agrees with the manifest, which other code made."""
    facts = shared_model.values
    assert summary.size == facts["size"]
    assert summary.schema_version == facts["schema_version"]
    assert summary.remarks == ()
    assert [
        {
            "name": graph.name,
            "inputs": len(graph.inputs),
            "outputs": len(graph.outputs),
            "ops": graph.operator_count,
            "tensors": graph.tensor_count,
        }
        for graph in summary.subgraphs
    ] == facts["subgraphs"]
    counted: dict[str, int] = {}
    for operator in summary.operators:
        name = f"CUSTOM:{operator.name}" if operator.custom else operator.name
        counted[name] = counted.get(name, 0) + operator.count
    assert counted == facts["ops"]
    # Of a model that the runtime did not take, the manifest knows no inputs and outputs.
    if summary.subgraphs and facts["inputs"] is not None:
        for ours, theirs in (
            (summary.subgraphs[0].inputs, facts["inputs"]),
            (summary.subgraphs[0].outputs, facts["outputs"]),
        ):
            assert [(t.name, list(t.shape)) for t in ours] == [
                (t["name"], t["shape"]) for t in theirs
            ]


def test_metadata_of_a_real_model() -> None:
    summary = inspect_model(require_model("mobilenet_v1_0.25_224_float").read())
    assert summary.metadata is not None
    assert summary.metadata.name == "MobileNetV1 image classifier"
    (labels,) = summary.associated_files
    assert (labels.name, labels.kind) == ("labels.txt", "TENSOR_AXIS_LABELS")
    assert labels.lines[:2] == ("background", "tench")


def test_damaged_bytes_never_raise_anything_else() -> None:
    choice = random.Random(2022)
    sound = [
        small.two_signatures(),
        stateful.counter(),
        _packed(_model_with_metadata().write(), {"labels.txt": b"zero\none\n" * 20}),
    ]
    refused = 0
    for number in range(6000):
        data = bytearray(sound[number % len(sound)])
        for _ in range(choice.randint(1, 8)):
            data[choice.randrange(len(data))] = choice.randrange(256)
        if number % 10 == 0:
            del data[choice.randrange(len(data)) :]
        try:
            json.dumps(to_json(inspect_model(bytes(data))), allow_nan=False)
        except MalformedModel:
            refused += 1
    # Most damage hits what is followed; the rest leaves something to tell.
    assert 600 < refused < 5400


def test_nothing_is_opened_or_imported_while_inspecting(tmp_path: Path) -> None:
    """Inside the sandbox no file can be opened, so nothing may be loaded late."""
    files = {
        "sound": _packed(_model_with_metadata().write(), {"labels.txt": "nül\nö\n".encode()}),
        "old_name": _packed(small.add(), {"labels.txt": b"zero"}).replace(
            b"labels.txt", b"l\xe4bels.txt"
        ),
        "damaged_archive": _packed(small.add(), {"labels.txt": b"zero"}).replace(b"PK\x01", b"PK?"),
        "text": hostile.text_instead(),
        "truncated": hostile.truncated(),
        "broken_name": small.add().replace(b"adds a", b"a\xffds a"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    script = (
        "import sys\n"
        "from loader_service.runtime.flatbuffer import MalformedModel\n"
        "from loader_service.runtime.inspection import inspect_model\n"
        "from loader_service.runtime.summary import to_json\n"
        f"names = {sorted(files)!r}\n"
        "contents = [open(name, 'rb').read() for name in names]\n"
        "events = []\n"
        "sys.addaudithook(lambda event, _: events.append(event))\n"
        "for data in contents:\n"
        "    try:\n"
        "        to_json(inspect_model(data))\n"
        "    except MalformedModel as error:\n"
        "        str(error)\n"
        "late = [event for event in events if event in ('open', 'import', 'exec', 'compile')]\n"
        "assert not late, late\n"
        "print('inspected', len(contents), 'numpy' in sys.modules)\n"
    )
    root = Path(inspection.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"inspected {len(files)} False\n", done.stderr
