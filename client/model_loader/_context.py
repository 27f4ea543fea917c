"""The context: options that its models share."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from model_loader_wire.device_options import DeviceOptions
from model_loader_wire.limits import Limits

from ._closing import Closing
from ._connection import Connection, ConnectionFace, connect
from ._effects import Steps
from ._fork import BoundToProcess
from ._model_core import ModelCore
from ._options import ContextOptions, device_options, layers_tuple, lower
from ._recall import load_by_name_to_return, load_to_return
from ._source import Progress
from ._values import Format, Lost
from .errors import ConstraintError, InvalidStateError


class ContextFace(BoundToProcess):
    """What contexts of both faces show, and what they know of their models."""

    def __init__(
        self, connection: ConnectionFace, options: ContextOptions, owns_connection: bool
    ) -> None:
        self._connection = connection
        self._options = options
        self._owns_connection = owns_connection
        self._closed = False
        self._limits = lower(connection.limits, options.limits)
        self._models: weakref.WeakSet[ModelCore] = weakref.WeakSet()

    @property
    def device_preference(self) -> str:
        """One of "auto", "gpu" and "cpu"; "gpu" falls back to the CPU silently."""
        return self._options.device_preference

    @property
    def power_preference(self) -> str:
        """One of "auto", "high-performance" and "low-power"."""
        return self._options.power_preference

    @property
    def model_format(self) -> str:
        """The format of the models: "tflite"."""
        return self._options.model_format

    @property
    def num_threads(self) -> int:
        """Threads that were asked for; 0 leaves it to the service."""
        return self._options.num_threads

    @property
    def device_options(self) -> DeviceOptions:
        """The options for devices that were given; None for each that was not."""
        return self._options.devices

    @property
    def origin(self) -> str:
        """The name under which the models are counted and limited."""
        return self._connection.origin

    @property
    def limits(self) -> Limits:
        """The limits that hold for this context's models."""
        return self._limits

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<MLContext {self.model_format} of {self.origin!r}{state}>"

    def _load(
        self, source: Any, timeout: float | None, on_progress: Progress | None
    ) -> Steps[ModelCore]:
        self._check_open()
        session = self._connection._session
        core = yield from load_to_return(session, self._options, source, timeout, on_progress)
        self._models.add(core)
        return core

    def _load_by_name(self, name: Any, version: Any, timeout: float | None) -> Steps[ModelCore]:
        self._check_open()
        session = self._connection._session
        core = yield from load_by_name_to_return(session, self._options, name, version, timeout)
        self._models.add(core)
        return core

    def _close_models(self) -> Steps[None]:
        self._closed = True
        for model in list(self._models):
            yield from model.close()

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidStateError("the context was closed")


class MLContext(ContextFace, Closing):
    """Options for loading models (``MLContext`` of the specification). Thread-safe.

    Closing it ends the models that were loaded with it, and the connection that was made for it.
    """

    _connection: Connection

    @property
    def connection(self) -> Connection:
        """The connection that the models are loaded through."""
        return self._connection

    def formats(self) -> tuple[Format, ...]:
        """Return the model formats that can be loaded, with their versions.

        Raises InvalidStateError for a closed context, NetworkError if the service has gone.
        """
        self._check_open()
        return self._connection.formats()

    @property
    def lost(self) -> Lost | None:
        """Why the context is lost, with all its models, or None (an extension).

        The reason is "unavailable": the service ended. With ``connect(reconnect=True)`` that passes
        with the next call. Otherwise a lost context loads no more.
        """
        return self._connection._driver.run(self._connection._session.find_loss())

    def close(self) -> None:
        """End this context's models; closing twice is no error."""
        self._connection._driver.run(self._close_models())
        if self._owns_connection:
            self._connection.close()


def create_context(
    *,
    device_preference: str = "auto",
    power_preference: str = "auto",
    model_format: str = "tflite",
    num_threads: int = 0,
    connection: Connection | None = None,
    limits: Limits | None = None,
    required_layers: Iterable[str] = (),
    accelerator_name: str | None = None,
    execution_preference: str | None = None,
    allow_fp16: bool | None = None,
    max_number_delegated_partitions: int | None = None,
    min_nodes_per_partition: int | None = None,
    disallow_nnapi_cpu: bool | None = None,
    cache_token: bytes | None = None,
) -> MLContext:
    """Create a context (``ML.createContext()`` of the specification).

    `device_preference` is "auto", "gpu" or "cpu"; `power_preference` "auto", "high-performance" or
    "low-power"; `num_threads` 0 lets the service decide (one), a number above its limit is capped.
    `limits` lowers the service's limits for the models of this context. `required_layers` names
    sandbox layers without which no model may be loaded: ``load`` then raises NotSupportedError.
    Without a `connection` one is made as ``connect()`` does, and closed with the context.

    The other options are for devices, by NNAPI's names (`docs/devices.md`); a context that sets
    none of them has its models run by the CPU's kernels. `accelerator_name` names the device that
    shall run them, and no other then stands in for it. `execution_preference` is "undefined",
    "low_power", "fast_single_answer" or "sustained_speed"; where it is not set and another of these
    options is, `power_preference` says it. `allow_fp16` allows reduced precision.
    `max_number_delegated_partitions` (3; zero or below: any number) and `min_nodes_per_partition`
    (0) bound what is given away. `disallow_nnapi_cpu` (True) leaves the device "reference" out of
    the choice. `cache_token` (32 bytes) keeps what was compiled for the next load. An option that
    no device at hand honours is refused by ``load`` with NotSupportedError, as is a named device
    that is not there.

    Raises ConstraintError (a TypeError) for values outside these lists, QuotaExceededError for
    limits above the service's, and what ``connect`` raises.
    """
    options = ContextOptions(
        device_preference,
        power_preference,
        model_format,
        num_threads,
        limits,
        layers_tuple(required_layers),
        device_options(
            accelerator_name=accelerator_name,
            execution_preference=execution_preference,
            allow_fp16=allow_fp16,
            max_number_delegated_partitions=max_number_delegated_partitions,
            min_nodes_per_partition=min_nodes_per_partition,
            disallow_nnapi_cpu=disallow_nnapi_cpu,
            cache_token=cache_token,
        ),
    )
    if connection is not None:
        if not isinstance(connection, Connection):
            raise ConstraintError(
                "connection must come from model_loader.connect() or embed(), not "
                f"{type(connection).__name__}"
            )
        connection._session.check_usable()
        return MLContext(connection, options, owns_connection=False)
    made = connect()
    try:
        return MLContext(made, options, owns_connection=True)
    except BaseException:
        made.close()
        raise
