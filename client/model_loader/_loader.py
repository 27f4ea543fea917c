"""The loader: from bytes to a model."""

from __future__ import annotations

from typing import Any

from ._closing import Closing
from ._context import ContextFace, MLContext
from ._effects import Steps
from ._fork import BoundToProcess
from ._model import MLModel
from ._model_core import ModelCore
from ._source import Progress
from .errors import ConstraintError, InvalidStateError


class LoaderFace(BoundToProcess):
    """What loaders of both faces know."""

    def __init__(self, context: ContextFace, kind: type[ContextFace]) -> None:
        if not isinstance(context, kind):
            raise ConstraintError(
                f"a loader is made from an MLContext, not {type(context).__name__}"
            )
        context._check_open()
        self._context = context
        self._closed = False

    def __repr__(self) -> str:
        return f"<MLModelLoader of {self._context!r}{' closed' if self._closed else ''}>"

    def _load(
        self, source: Any, timeout: float | None, on_progress: Progress | None
    ) -> Steps[ModelCore]:
        if self._closed:
            raise InvalidStateError("the loader was closed")
        return self._context._load(source, timeout, on_progress)

    def _load_by_name(self, name: Any, version: Any, timeout: float | None) -> Steps[ModelCore]:
        if self._closed:
            raise InvalidStateError("the loader was closed")
        return self._context._load_by_name(name, version, timeout)


class MLModelLoader(LoaderFace, Closing):
    """Loads models with the options of a context (``MLModelLoader`` of the specification).

    Closing a loader ends no model: models end with themselves or with their context.
    """

    _context: MLContext

    def __init__(self, context: MLContext) -> None:
        super().__init__(context, MLContext)

    def load(
        self,
        source: Any,
        *,
        timeout: float | None = None,
        on_progress: Progress | None = None,
    ) -> MLModel:
        """Load a model into a sandboxed process of its own.

        `source` is a bytes-like object, a path, or a binary file object (read from where it stands
        to its end; it need not be seekable). `timeout` is in seconds, by default the limit
        ``load_seconds``. `on_progress` is called with the bytes sent so far and the size (0 where
        it is not known): from a thread of its own, or on the event loop in ``aio``.

        Raises ConstraintError for another kind of source, OSError for a file that cannot be read,
        DataError for bytes that are no valid model, NotSupportedError for an operator or sandbox
        layer that there is not, QuotaExceededError for a limit, TimeoutError, OperationError if
        the model crashed its worker, and InvalidStateError for a closed loader or context.
        """
        driver = self._context.connection._driver
        core = driver.run(self._load(source, timeout, on_progress))
        return MLModel(driver, core)

    def load_by_name(
        self, name: str, version: int | None = None, *, timeout: float | None = None
    ) -> MLModel:
        """Load a model that the service's operator approved; its bytes stay with the service.

        `version` is a number from 1 up; None takes the highest that serves, which the operator may
        change at any time. `timeout` is in seconds, by default the limit ``load_seconds``.

        Raises NotFoundError if the service serves no such model, ConstraintError for a name or
        version of another kind, and otherwise what ``load`` raises.
        """
        driver = self._context.connection._driver
        return MLModel(driver, driver.run(self._load_by_name(name, version, timeout)))

    def close(self) -> None:
        """Let no more models be loaded; closing twice is no error."""
        self._closed = True
