"""Hostile models, and how each must end, while another model keeps answering."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import click
import numpy as np

import model_loader as ml

from ..tensors import Array

MEBIBYTE = 1 << 20
HOG_MEMORY = 256 * MEBIBYTE
LOOP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Attack:
    """A model that misbehaves when it is called, and the error that must come of it."""

    title: str
    model: Callable[[], bytes]
    inputs: Mapping[str, Any]
    error: type[ml.ModelLoaderError]
    limit: str = ""
    """The limit that the error must name."""
    limits: ml.Limits = field(default_factory=ml.Limits)
    timeout: float | None = None


@dataclass(slots=True)
class Fate:
    """How an attack ended."""

    error: Exception | None = None
    """What the attacker's caller got; None if the attack succeeded."""
    seconds: float = 0.0
    answers: int = 0
    """Answers that the other model gave meanwhile."""
    wrong: int = 0
    """Those of them that were not its usual answers."""
    longest: float = 0.0
    """The longest of those calls, in seconds."""
    neighbour: Exception | None = None
    """An error of the other model."""

    def as_promised(self, attack: Attack) -> bool:
        """Whether the attack was stopped as it must be, and hurt nobody else."""
        return (
            type(self.error) is attack.error
            and (not attack.limit or getattr(self.error, "limit", "") == attack.limit)
            and self.neighbour is None
            and self.answers > 0
            and self.wrong == 0
        )


def attacks() -> tuple[Attack, ...]:
    """The demo's hostile models; raises ClickException where their writer is not installed."""
    try:
        from loader_service.writer import costly, hostile
    except ImportError as error:
        raise click.ClickException(
            f"the demo writes its hostile models itself, and cannot: {error}; "
            "pip install 'model-loader[service]'"
        ) from None
    return (
        Attack(
            "loops for ever",
            costly.endless,
            {"iterations": np.array([1], np.int32)},
            ml.TimeoutError,
            timeout=LOOP_SECONDS,
        ),
        Attack(
            "takes 4 GiB of memory, with a limit of 256 MiB",
            costly.memory_hog_on_demand,
            {"mebibytes": np.array([4096], np.int32)},
            ml.QuotaExceededError,
            limit="memory_bytes",
            limits=ml.Limits(memory_bytes=HOG_MEMORY),
        ),
        Attack(
            "crashes the runtime",
            hostile.division_fault,
            {"x": np.array([-(2**31)], np.int32)},
            ml.OperationError,
        ),
    )


def launch(
    attack: Attack, connection: ml.Connection, neighbour: ml.MLModel, images: Array, usual: Array
) -> Fate:
    """Load and call the hostile model, while `neighbour` goes on answering `images` as `usual`."""
    fate = Fate()
    over = threading.Event()
    watching = threading.Thread(target=_keep_asking, args=(neighbour, images, usual, over, fate))
    watching.start()
    began = perf_counter()
    try:
        context = ml.create_context(connection=connection, limits=attack.limits)
        with ml.MLModelLoader(context).load(attack.model()) as model:
            model.compute(attack.inputs, timeout=attack.timeout)
    except ml.ModelLoaderError as error:
        fate.error = error
    finally:
        fate.seconds = perf_counter() - began
        over.set()
        watching.join()
    return fate


def _keep_asking(
    model: ml.MLModel, images: Array, usual: Array, over: threading.Event, fate: Fate
) -> None:
    """Call the model until it is over, and at least once after that."""
    call, last = 0, False
    while not last:
        last = over.is_set()
        place = call % len(images)
        began = perf_counter()
        try:
            answer = model.compute(images[place][None])
        except Exception as error:
            fate.neighbour = error
            return
        fate.longest = max(fate.longest, perf_counter() - began)
        fate.answers += 1
        fate.wrong += int(np.argmax(answer) != usual[place])
        call += 1
