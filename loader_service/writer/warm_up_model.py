"""Makes the zygote's warm-up model, and writes it as text into `warm_up.py`.

Run ``python -m loader_service.writer.warm_up_model`` after a change here or in the writer.
"""

from __future__ import annotations

import base64
import textwrap
from pathlib import Path

import numpy as np

from loader_service.runtime.schema_options import Activation
from loader_service.runtime.schema_tensor_types import TensorType

from .layers import conv_2d, fully_connected, reshape
from .model import ModelWriter

_HEADER = '''\
"""The zygote's warm-up model as text: reading it imports neither the writer nor FlatBuffers.

Written by `warm_up_model`; change it there.
"""

from __future__ import annotations

import base64

_ENCODED = """
'''
_FOOTER = '''
"""


def warm_up_model() -> bytes:
    """A convolution and a fully connected layer: x: float32[1, 4, 4, 1] → y: float32[1, 2].

    Both are delegated to XNNPACK, whose start reads files that the sandbox keeps from workers.
    """
    return base64.b64decode(_ENCODED)
'''


def make() -> bytes:
    """The model: 2 × 2 windows are summed into 2 channels, and all channels are summed twice."""
    model = ModelWriter("warm-up")
    graph = model.subgraph()
    x = graph.input("x", TensorType.FLOAT32, (1, 4, 4, 1))
    kernel = graph.constant("kernel", np.ones((2, 2, 2, 1), np.float32))
    bias = graph.constant("bias", np.zeros(2, np.float32))
    image = conv_2d(graph, x, kernel, bias, "image", stride=2, activation=Activation.RELU)
    flat = reshape(graph, image, (1, 8), "flat")
    weights = graph.constant("weights", np.ones((2, 8), np.float32))
    graph.output(fully_connected(graph, flat, weights, bias, "y"))
    return model.write()


def source() -> str:
    """The text of `warm_up.py`."""
    return _HEADER + "\n".join(textwrap.wrap(base64.b64encode(make()).decode(), 96)) + _FOOTER


if __name__ == "__main__":
    Path(__file__).with_name("warm_up.py").write_text(source())
