"""Trying a model of the repository before it serves: it is loaded and run as any other is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from loader_service.broker.loading import Loading
from loader_service.broker.model_bytes import ModelBytes
from loader_service.broker.relay import Relay
from loader_service.broker.sessions import Sessions
from loader_service.repository.files import WARM_UP, WARM_UP_BYTES, Unfit
from model_loader_wire.description import TensorDescription
from model_loader_wire.frames import Entry
from model_loader_wire.v1 import model_loader_pb2 as pb

if TYPE_CHECKING:
    from loader_service.repository.arrays import Array

ORIGIN = "program:model-loaderd"
"""The origin of these loads, of the service's own user: no web origin, so its operators hold."""


class Verification:
    """Loads as the service's own user, by its policy and within its limits."""

    def __init__(self, sessions: Sessions, loading: Loading) -> None:
        self._sessions = sessions
        self._loading = loading

    async def verify(self, label: str, content: ModelBytes, warm_up: bytes | None) -> None:
        """Load a model and run it once; raises Refusal, or Unfit for inputs that are not its own.

        Without inputs it runs on zeros, if the sizes of all its inputs are known.
        """
        # Only a service with a repository needs it, and a private one must start quickly.
        from loader_service.repository.arrays import Array, read_arrays

        arrays = None
        if warm_up is not None:
            # They may be large, and others wait for the loop.
            arrays = await asyncio.to_thread(read_arrays, warm_up, WARM_UP_BYTES)
        session = self._sessions.open(os.geteuid(), ORIGIN)
        try:
            header = pb.LoadHeader(
                model_format="tflite",
                offer=self._loading.held.lend(session, content),
                relayed=True,
                label=label,
            )
            model = await self._loading.load(session, _alone(header))
            assert model.relay is not None
            inputs = model.description.signatures[0].inputs
            if arrays is not None:
                await _run(model.relay, inputs, arrays)
            elif all(tensor.is_static for tensor in inputs):
                zeros = {
                    tensor.name: Array(
                        tensor.data_type,
                        tuple(size or 0 for size in tensor.dimensions or ()),
                        bytes(tensor.byte_length or 0),
                    )
                    for tensor in inputs
                }
                await _run(model.relay, inputs, zeros)
        finally:
            await self._sessions.close(session)


async def _alone(header: pb.LoadHeader) -> AsyncIterator[pb.LoadRequest]:
    yield pb.LoadRequest(header=header)


async def _run(relay: Relay, inputs: Sequence[TensorDescription], arrays: dict[str, Array]) -> None:
    """Run a model on arrays that are named as its inputs are."""
    names = {tensor.name for tensor in inputs}
    if arrays.keys() != names:
        raise Unfit(f"{WARM_UP} has {sorted(arrays)}, and the model's inputs are {sorted(names)}")
    in_order = [arrays[tensor.name] for tensor in inputs]
    entries = [Entry(array.data_type, array.dimensions, len(array.data)) for array in in_order]
    await relay.compute(0, entries, [array.data for array in in_order])
