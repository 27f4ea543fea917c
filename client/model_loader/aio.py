"""The asynchronous face: the same objects, with coroutines where the others block.

    import model_loader as ml

    async with await ml.aio.create_context() as context:
        model = await ml.aio.MLModelLoader(context).load("model.tflite")
        y = await model.compute(x)

What is said of the blocking objects holds here too. A call whose task is cancelled ends at once;
its computation is run to its end by the worker and its answer dropped, before the model's next
call. Each object belongs to the event loop on which it was made.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, TypeVar

from model_loader_wire.causes import Cause
from model_loader_wire.delegation import Delegation
from model_loader_wire.limits import Limits

from . import _connection, _context, _embedded, _loader, _model
from ._async import AsyncDriver
from ._closing import AsyncClosing
from ._model_core import ModelCore
from ._opening import open_session
from ._options import ContextOptions, device_options, layers_tuple
from ._recall import inspect_when_there
from ._returning import answered
from ._sequence import Sequence
from ._source import Progress
from ._tls import Credentials
from ._values import Format, Lost, ModelRow, NamedModel
from .errors import ConstraintError

__all__ = [
    "Connection",
    "MLContext",
    "MLModel",
    "MLModelLoader",
    "connect",
    "create_context",
    "embed",
]

Function = TypeVar("Function", bound=Callable[..., Any])


def _documented_by(blocking: Callable[..., Any]) -> Callable[[Function], Function]:
    def take(function: Function) -> Function:
        function.__doc__ = blocking.__doc__
        return function

    return take


class Connection(_connection.ConnectionFace, AsyncClosing):
    """A connection to a service; see ``model_loader.Connection``."""

    _driver: AsyncDriver

    @_documented_by(_connection.Connection.formats)
    async def formats(self) -> tuple[Format, ...]:
        return await self._driver.run(answered(self._session, self._session.formats))

    @_documented_by(_connection.Connection.models)
    async def models(self) -> tuple[ModelRow, ...]:
        return await self._driver.run(answered(self._session, self._session.models))

    @_documented_by(_connection.Connection.named_models)
    async def named_models(self) -> tuple[NamedModel, ...]:
        return await self._driver.run(answered(self._session, self._session.named_models))

    @_documented_by(_connection.Connection.inspect)
    async def inspect(self, source: Any, *, timeout: float | None = None) -> dict[str, Any]:
        return await self._driver.run(inspect_when_there(self._session, source, timeout))

    @_documented_by(_connection.Connection.close)
    async def close(self) -> None:
        await self._driver.run(self._session.close(self._owned_broker))


class MLContext(_context.ContextFace, AsyncClosing):
    """Options for loading models; see ``model_loader.MLContext``."""

    _connection: Connection

    @property
    def connection(self) -> Connection:
        """The connection that the models are loaded through."""
        return self._connection

    @_documented_by(_context.MLContext.formats)
    async def formats(self) -> tuple[Format, ...]:
        self._check_open()
        return await self._connection.formats()

    @property
    def lost(self) -> Lost | None:
        """Why the context is lost, with all its models, or None; see ``model_loader.MLContext``."""
        self._connection._session.look()
        return self._connection._session.loss

    @_documented_by(_context.MLContext.close)
    async def close(self) -> None:
        await self._connection._driver.run(self._close_models())
        if self._owns_connection:
            await self._connection.close()


class MLModelLoader(_loader.LoaderFace, AsyncClosing):
    """Loads models; see ``model_loader.MLModelLoader``."""

    _context: MLContext

    def __init__(self, context: MLContext) -> None:
        super().__init__(context, MLContext)

    @_documented_by(_loader.MLModelLoader.load)
    async def load(
        self,
        source: Any,
        *,
        timeout: float | None = None,
        on_progress: Progress | None = None,
    ) -> MLModel:
        driver = self._context.connection._driver
        return MLModel(driver, await driver.run(self._load(source, timeout, on_progress)))

    @_documented_by(_loader.MLModelLoader.load_by_name)
    async def load_by_name(
        self, name: str, version: int | None = None, *, timeout: float | None = None
    ) -> MLModel:
        driver = self._context.connection._driver
        return MLModel(driver, await driver.run(self._load_by_name(name, version, timeout)))

    @_documented_by(_loader.MLModelLoader.close)
    async def close(self) -> None:
        self._closed = True


class MLModel(_model.ModelFace, AsyncClosing):
    """A model in a sandboxed process of its own; see ``model_loader.MLModel``.

    Many tasks may use it: their calls take turns.
    """

    _driver: AsyncDriver

    def __init__(self, driver: AsyncDriver, core: ModelCore) -> None:
        super().__init__(driver, core)
        core.on_end = lambda: driver.spawn(core.find_verdict())
        if core.channel is not None and core.channel.has_ended():
            core.on_end()

    @_documented_by(_model.MLModel.compute)
    async def compute(
        self,
        inputs: Any,
        outputs: Any = None,
        *,
        signature: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        return await self._driver.exclusive(self._core.compute(inputs, outputs, signature, timeout))

    async def compute_many(
        self,
        inputs: Iterable[Any],
        *,
        signature: str | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Run the model for each of `inputs`; see ``model_loader.MLModel.compute_many``.

        Whoever leaves the loop early closes the iterator (``contextlib.aclosing``).
        """
        sequence = Sequence(self._core, inputs, signature, timeout)
        try:
            while (step := sequence.step()) is not None:
                answer = await self._driver.exclusive(step)
                sequence.answered()
                yield answer
        finally:
            sequence.leave()

    @_documented_by(_model.MLModel.reset)
    async def reset(self, *, timeout: float | None = None) -> None:
        await self._driver.exclusive(self._core.reset(timeout))

    @_documented_by(_model.MLModel.delegation)
    async def delegation(self) -> Delegation | None:
        return await self._driver.run(self._core.delegation())

    @property
    def lost(self) -> Lost | None:
        """Why the model is lost, or None. The reason is "lost" for the moment between the worker's
        end and the service's verdict.
        """
        core = self._core
        ended = core.channel is not None and core.channel.has_ended()
        if core.lost is None and ended and not core.closed:
            return Lost(Cause.LOST, "the worker ended; the service is being asked why")
        return core.lost

    @_documented_by(_model.MLModel.close)
    async def close(self) -> None:
        await self._driver.run(self._core.close())


@_documented_by(_connection.connect)
async def connect(
    address: str | os.PathLike[str] | None = None,
    *,
    origin: str | None = None,
    relay: bool = False,
    reconnect: bool = False,
    ca: str | os.PathLike[str] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    token: str | None = None,
) -> Connection:
    credentials = Credentials(ca=ca, certificate=certificate, key=key, token=token)
    driver = AsyncDriver()
    steps = open_session(address, origin, relay, None, credentials, reconnect=reconnect)
    opened = await driver.run(steps)
    return Connection(driver, opened, None)


@_documented_by(_connection.embed)
async def embed(
    *,
    limits: Limits | None = None,
    runtime: str = "auto",
    operators: str = "standard",
    isolation: str = "model",
    devices: Iterable[str] = (),
    origin: str | None = None,
) -> Connection:
    driver = AsyncDriver()
    broker = await asyncio.to_thread(
        _embedded.EmbeddedBroker, limits, runtime, operators, isolation, devices
    )
    try:
        session = await driver.run(open_session(None, origin, False, broker))
    except BaseException:
        broker.close()
        raise
    return Connection(driver, session, broker)


@_documented_by(_context.create_context)
async def create_context(
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
    if connection is not None and not isinstance(connection, Connection):
        raise ConstraintError(
            "connection must come from model_loader.aio.connect() or embed(), not "
            f"{type(connection).__name__}"
        )
    if connection is not None:
        connection._session.check_usable()
        return MLContext(connection, options, owns_connection=False)
    made = await connect()
    try:
        return MLContext(made, options, owns_connection=True)
    except BaseException:
        await made.close()
        raise
