"""tflite-runtime 2.14: the older package, kept as the second choice.

It does not verify a FlatBuffer: damaged files crash it, and the sandbox contains that. Its default
XNNPACK flags leave quantized graphs to the built-in kernels; that default is kept, because the
contract is equality with the plain library. It needs NumPy 1 and has no wheels for Python 3.12.
"""

from __future__ import annotations

import numpy as np
import tflite_runtime
from tflite_runtime.interpreter import Interpreter, OpResolverType

from loader_service.runtime.native import Library

if int(np.__version__.partition(".")[0]) >= 2:
    # Built against NumPy 1; with NumPy 2 it imports, and fails at the first model.
    raise ImportError(f"tflite-runtime needs NumPy 1, and NumPy {np.__version__} is installed")

LIBRARY = Library("tflite-runtime", tflite_runtime.__version__, Interpreter, OpResolverType)
