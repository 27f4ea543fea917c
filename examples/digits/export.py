"""Writes the trained classifier as a TFLite model, with its signature, metadata and labels."""

from __future__ import annotations

from loader_service.runtime.schema_metadata import METADATA_NAME
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_options import Activation
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer.layers import conv_2d, fully_connected, pool_2d, reshape, softmax
from loader_service.writer.metadata import Description, TensorDescription, pack
from loader_service.writer.model import ModelWriter
from loader_service.writer.subgraph import SubgraphWriter
from loader_service.writer.tensors import Tensor

from .network import CLASSES, SIZE, Parameters

SIGNATURE = "classify"
LABELS_FILE = "labels.txt"

DESCRIPTION = Description(
    name="Handwritten digits",
    description="Tells which digit an image of 8 by 8 pixels shows.",
    version="1",
    author="The Model Loader project",
    license="Apache-2.0; trained on data under CC BY 4.0 (E. Alpaydin, C. Kaynak)",
    inputs=[TensorDescription("image", "8 by 8 pixels, from 0 (paper) to 1 (ink)")],
    outputs=[TensorDescription("probabilities", "of each digit, 0 to 9", LABELS_FILE)],
)


def write_model(parameters: Parameters) -> bytes:
    """The `.tflite` file: image float32[?, 8, 8, 1] → probabilities float32[?, 10]."""
    model = ModelWriter("handwritten digits")
    graph = model.subgraph()
    image = graph.input(
        "image", TensorType.FLOAT32, (1, SIZE, SIZE, 1), shape_signature=(-1, SIZE, SIZE, 1)
    )
    value = conv_2d(
        graph, image, *_layer(graph, parameters, "first"), "first", activation=Activation.RELU
    )
    value = conv_2d(
        graph, value, *_layer(graph, parameters, "second"), "second", activation=Activation.RELU
    )
    value = pool_2d(graph, BuiltinOperator.MAX_POOL_2D, value, "pooled", size=2, stride=2)
    units = parameters["hidden/weights"].shape[1]
    value = reshape(graph, value, (-1, units), "flat")
    value = fully_connected(
        graph, value, *_layer(graph, parameters, "hidden"), "hidden", activation=Activation.RELU
    )
    value = fully_connected(graph, value, *_layer(graph, parameters, "output"), "logits")
    probabilities = softmax(graph, value, "probabilities")
    graph.output(probabilities)
    model.signature(SIGNATURE, graph, {"image": image}, {"probabilities": probabilities})
    model.metadata(METADATA_NAME, DESCRIPTION.encode())
    labels = "".join(f"{digit}\n" for digit in range(CLASSES)).encode()
    return pack(model.write(), {LABELS_FILE: labels})


def _layer(graph: SubgraphWriter, parameters: Parameters, name: str) -> tuple[Tensor, Tensor]:
    """A layer's weights and bias as constants."""
    weights, bias = f"{name}/weights", f"{name}/bias"
    return graph.constant(weights, parameters[weights]), graph.constant(bias, parameters[bias])
