"""Run untrusted models in sandboxed processes, behind the W3C Model Loader API.

    import model_loader as ml

    context = ml.create_context()
    loader = ml.MLModelLoader(context)
    with loader.load("model.tflite") as model:
        y = model.compute(x)

Importing this package loads no runtime: models run in processes of the service. The asynchronous
face, with the same objects, is ``model_loader.aio``.
"""

from model_loader_wire.delegation import Delegation
from model_loader_wire.limits import Limits

from . import aio
from ._connection import Connection, connect, embed
from ._context import MLContext, create_context
from ._loader import MLModelLoader
from ._model import MLModel
from ._tensor import MLTensor
from ._values import Format, Isolation, Lost, MLTensorInfo, ModelRow, Report
from .errors import (
    AbortError,
    ConstraintError,
    DataError,
    InvalidStateError,
    ModelLoaderError,
    NetworkError,
    NotSupportedError,
    OperationError,
    QuotaExceededError,
    SecurityError,
    TimeoutError,
    UnknownError,
)

__all__ = [
    "AbortError",
    "Connection",
    "ConstraintError",
    "DataError",
    "Delegation",
    "Format",
    "InvalidStateError",
    "Isolation",
    "Limits",
    "Lost",
    "MLContext",
    "MLModel",
    "MLModelLoader",
    "MLTensor",
    "MLTensorInfo",
    "ModelLoaderError",
    "ModelRow",
    "NetworkError",
    "NotSupportedError",
    "OperationError",
    "QuotaExceededError",
    "Report",
    "SecurityError",
    "TimeoutError",
    "UnknownError",
    "aio",
    "connect",
    "create_context",
    "embed",
]
