"""A loaded model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from model_loader_wire.delegation import Delegation
from model_loader_wire.description import TensorDescription

from ._blocking import BlockingDriver
from ._closing import Closing
from ._fork import BoundToProcess
from ._model_core import ModelCore
from ._sequence import Sequence, answers
from ._values import Isolation, Lost, MLTensorInfo, Report


class ModelFace(BoundToProcess):
    """What models of both faces show."""

    def __init__(self, driver: Any, core: ModelCore) -> None:
        self._driver = driver
        self._core = core
        core.turn = driver.make_turn()

    def inputs(self, signature: str | None = None) -> tuple[MLTensorInfo, ...]:
        """Describe the inputs, of the default signature or a named one.

        Raises DataError for a name that is not in ``signatures()``.
        """
        return _infos(self._core.plan(signature).inputs)

    def outputs(self, signature: str | None = None) -> tuple[MLTensorInfo, ...]:
        """Describe the outputs, of the default signature or a named one.

        Raises DataError for a name that is not in ``signatures()``.
        """
        return _infos(self._core.plan(signature).outputs)

    def signatures(self) -> tuple[str, ...]:
        """Return the names of the model's signatures; the default one has none (an extension)."""
        return tuple(signature.name for signature in self._core.description.signatures[1:])

    @property
    def report(self) -> Report:
        """Runtime, kernels, threads, digest and limits of this model."""
        return self._core.report

    @property
    def isolation(self) -> Isolation:
        """How the model's worker is locked down, and how its memory is held."""
        return self._core.isolation

    def __repr__(self) -> str:
        core = self._core
        state = "closed" if core.closed else f"lost: {core.lost.reason}" if core.lost else "ready"
        name = f" {core.label!r}" if core.label else ""
        return f"<MLModel{name} {core.report.sha256[:12]} {state}>"


class MLModel(ModelFace, Closing):
    """A model in a sandboxed process of its own (``MLModel`` of the specification).

    Made by ``MLModelLoader.load``. Many threads may use it: their calls take turns. A model that
    nobody refers to any more is ended.
    """

    _driver: BlockingDriver

    def compute(
        self,
        inputs: Any,
        outputs: Any = None,
        *,
        signature: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Run the model once.

        `inputs` is one bare value for a model of one input, or a mapping from input names to
        values; {} for a model without inputs. A value is an array of exactly the declared data type
        and shape (nothing is cast) or an ``MLTensor``; for an "unknown" data type its raw bytes
        (``bytes`` or an array of uint8), for "string" a str, bytes, a nested list of them or an
        array of them.

        Returns one array if `inputs` was bare and there is one output, else a dict from output
        names to arrays. Arrays are new and writable; "unknown" gives raw bytes (uint8, of rank 1),
        "string" an array of object holding ``bytes``.

        With `outputs`, preallocated arrays (one, a sequence in the order of ``outputs()``, or a
        mapping by name; writable, C-contiguous, of exactly the outputs' type and shape), these are
        filled in place and None is returned. Their contents are undefined after an error.

        `timeout` is in seconds, by default the limit ``compute_seconds``; a longer one is allowed,
        but the service's limit then acts first. When it passes, the worker is ended and the model
        is lost. An interrupted call (Ctrl-C) leaves the model usable; its computation is run to
        its end and its answer dropped, before the next call.

        Raises DataError for inputs or outputs that do not fit (nothing was sent, except for outputs
        whose shape is known only after the run), QuotaExceededError for a limit, TimeoutError,
        OperationError if an operator failed (the model is still usable) or the worker crashed (it
        is lost: see ``lost``), SecurityError if the worker broke its sandbox's rules, and
        InvalidStateError for a model that is closed or lost.
        """
        return self._driver.exclusive(self._core.compute(inputs, outputs, signature, timeout))

    def compute_many(
        self,
        inputs: Iterable[Any],
        *,
        signature: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[Any]:
        """Run the model for each of `inputs`, and give the answers in their order (an extension).

        As ``compute`` for one after another, but the next inputs are on their way to the worker
        while it computes: `inputs` is read one ahead, and an array in it must not be changed before
        its answer has come. Nothing is computed before the first answer is asked for. Each answer
        has a `timeout` of its own, in seconds.

        The first error ends the sequence; the errors are those of ``compute``. Other calls on the
        model take turns with the answers of this one.
        """
        return answers(self._driver, Sequence(self._core, inputs, signature, timeout))

    def reset(self, *, timeout: float | None = None) -> None:
        """Put a stateful model back to the state in which it was loaded (an extension).

        The worker builds its interpreter anew. `timeout` is in seconds, by default the limit
        ``load_seconds``; when it passes, the worker is ended and the model is lost. Raises
        TimeoutError, OperationError or QuotaExceededError if the model cannot be opened again, and
        InvalidStateError for a model that is closed or lost.
        """
        self._driver.exclusive(self._core.reset(timeout))

    def delegation(self) -> Delegation | None:
        """Return which device runs which part of the model, as its worker last said (an extension).

        None for a model whose context has no options for devices: ``report.kernels`` tells what
        runs it. Failures of devices, and what was done about them, are in ``steps``. Origins of the
        web get a coarse report. Raises InvalidStateError for a model that is closed or lost,
        NetworkError if the service has gone.
        """
        return self._driver.run(self._core.delegation())

    @property
    def lost(self) -> Lost | None:
        """Why the model is lost, or None; notices the death of an idle worker, too."""
        return self._driver.run(self._core.check_lost())

    def close(self) -> None:
        """End the worker; closing twice is no error. A call under way in another thread ends with
        InvalidStateError.
        """
        self._driver.run(self._core.close())


def _infos(tensors: tuple[TensorDescription, ...]) -> tuple[MLTensorInfo, ...]:
    return tuple(
        MLTensorInfo(tensor.name, tensor.data_type.api_name, tensor.dimensions)
        for tensor in tensors
    )
