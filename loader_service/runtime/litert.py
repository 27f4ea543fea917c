"""LiteRT (``ai-edge-litert``): the maintained successor of tflite-runtime, and the first choice.

It verifies the FlatBuffer before it reads it, and delegates float and quantized graphs to XNNPACK.
"""

from __future__ import annotations

import ai_edge_litert
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from loader_service.runtime.native import Library

LIBRARY = Library("litert", ai_edge_litert.__version__, Interpreter, OpResolverType)
