"""A client in a process of its own: ``python -m tests.integration.caller ADDRESS ELEMENTS CALLS``.

It loads a model of so many elements, warms up and says so; on a line of input it makes so many
calls between two getppid(2), which nothing else calls.
"""

from __future__ import annotations

import os
import sys

import numpy as np

import model_loader as ml
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import small


def main(address: str, elements: int, calls: int) -> None:
    """Call, when told to."""
    with ml.connect(address) as connection, ml.create_context(connection=connection) as context:
        model = ml.MLModelLoader(context).load(small.double(TensorType.FLOAT32, (elements,)))
        x = np.ones(elements, np.float32)
        out = np.empty(elements, np.float32)
        for _ in range(20):
            model.compute(x, out)
        print("ready", flush=True)
        sys.stdin.readline()
        os.getppid()
        for _ in range(calls):
            model.compute(x, out)
        os.getppid()
        sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
