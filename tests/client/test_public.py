"""The public face: what there is, and what importing it brings along."""

from __future__ import annotations

import builtins
import json
import pickle
import subprocess
import sys

import pytest

import model_loader as ml
from model_loader import errors
from model_loader_wire.causes import TABLE, Cause, Failure

NAMES = {
    *("create_context", "connect", "embed", "aio"),
    *("Connection", "MLContext", "MLModelLoader", "MLModel"),
    *("MLTensor", "MLTensorInfo", "Limits", "Lost", "Isolation"),
    *("Delegation", "Format", "ModelRow", "NamedModel", "Report"),
    *("ModelLoaderError", "AbortError", "ConstraintError", "DataError", "InvalidStateError"),
    *("NetworkError", "NotFoundError", "NotSupportedError", "OperationError", "QuotaExceededError"),
    *("SecurityError", "TimeoutError", "UnknownError"),
}


def test_public_names_are_these_and_no_others() -> None:
    assert set(ml.__all__) == NAMES
    assert list(ml.__all__) == sorted(ml.__all__)
    shown = {name for name in vars(ml) if not name.startswith("_")}
    assert shown - NAMES == {"errors"}


def test_every_public_object_is_documented() -> None:
    for module in (ml, ml.aio):
        for name in module.__all__:
            thing = getattr(module, name)
            assert thing.__doc__, name
            for key, member in vars(thing).items() if isinstance(thing, type) else ():
                if not key.startswith("_") and (callable(member) or isinstance(member, property)):
                    assert member.__doc__, f"{name}.{key}"


def test_import_loads_no_runtime_and_no_service() -> None:
    code = "import json, sys, model_loader; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=60
    )
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    heavy = {"ai_edge_litert", "tflite_runtime", "tensorflow", "loader_service", "flatbuffers"}
    assert not loaded & (heavy | {"psutil", "click", "rich", "model_loader_cli"})


def test_import_leaves_grpc_and_asyncio_for_later() -> None:
    """A program that starts a private service imports them while that starts."""
    code = (
        "import sys, model_loader as ml\n"
        "later = {'grpc', 'asyncio', 'ssl', 'logging'}\n"
        "assert not later & set(sys.modules), later & set(sys.modules)\n"
        "assert 'aio' in dir(ml) and 'aio' not in vars(ml)\n"
        "assert ml.aio.Connection and 'asyncio' in sys.modules\n"
        "assert not hasattr(ml, 'oia')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_import_starts_nothing() -> None:
    code = "import threading, os, model_loader; print(threading.active_count())"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=60
    )
    assert done.stdout == b"1\n"


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_becomes_the_error_of_the_table(cause: Cause) -> None:
    failure = Failure(cause, "what happened", "memory_bytes", 3, 2, "last words")
    error = errors.from_failure(failure)
    assert type(error).__name__ == TABLE[cause].error
    assert type(error).__name__ in ml.__all__
    assert isinstance(error, ml.ModelLoaderError)
    assert error.cause is cause
    assert (error.limit, error.value, error.maximum) == ("memory_bytes", 3, 2)
    assert str(error) == "what happened\nThe worker's last words were:\nlast words"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert vars(again) == vars(error)


def test_errors_are_builtin_ones_too() -> None:
    assert issubclass(ml.TimeoutError, builtins.TimeoutError)
    assert issubclass(ml.ConstraintError, TypeError)
    assert issubclass(ml.NetworkError, ConnectionError)


def test_every_error_has_its_usual_cause() -> None:
    for kind in ml.ModelLoaderError.__subclasses__():
        assert TABLE[kind.usual_cause].error == kind.__name__
        assert kind("x").cause is kind.usual_cause


def test_tree_at_the_top_of_the_module_is_the_tree() -> None:
    document = errors.__doc__ or ""
    for kind in ml.ModelLoaderError.__subclasses__():
        assert f"── {kind.__name__} " in document
    assert document.count("── ") == len(ml.ModelLoaderError.__subclasses__())
