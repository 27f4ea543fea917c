"""Run untrusted models in sandboxed processes, behind the W3C Model Loader API.

    import model_loader as ml

    context = ml.create_context()
    loader = ml.MLModelLoader(context)
    with loader.load("model.tflite") as model:
        y = model.compute(x)

Importing this package loads no runtime: models run in processes of the service. The asynchronous
face, with the same objects, is ``model_loader.aio``.
"""

import typing as _typing

from model_loader_wire.delegation import Delegation
from model_loader_wire.limits import Limits

from ._connection import Connection, connect, embed
from ._context import MLContext, create_context
from ._loader import MLModelLoader
from ._model import MLModel
from ._tensor import MLTensor
from ._values import Format, Isolation, Lost, MLTensorInfo, ModelRow, NamedModel, Report
from .errors import (
    AbortError,
    ConstraintError,
    DataError,
    InvalidStateError,
    ModelLoaderError,
    NetworkError,
    NotFoundError,
    NotSupportedError,
    OperationError,
    QuotaExceededError,
    SecurityError,
    TimeoutError,
    UnknownError,
)

if _typing.TYPE_CHECKING:
    from . import aio
else:

    def __getattr__(name):
        """Import ``aio``, and asyncio with it, for who uses it."""
        if name == "aio":
            from importlib import import_module

            return import_module(f"{__name__}.aio")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), "aio"})


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
    "NamedModel",
    "NetworkError",
    "NotFoundError",
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
