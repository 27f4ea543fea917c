"""A service whose models are attacks, and the models as a test sees them."""

from __future__ import annotations

import itertools
import json
import secrets
from typing import Any, Self

import numpy as np
import pytest

import model_loader as ml
from loader_service.sandbox.layers import Layer
from loader_service.writer import small
from tests.hostile.probe_runtime import ORDER
from tests.support.raw_client import Service

_serial = itertools.count()


def model_with(attack: str = "", **arguments: object) -> bytes:
    """Build a model that carries out an attack when it is loaded; each differs from all others."""
    order = {"attack": attack, "arguments": arguments} if attack else {}
    return b"".join((small.add(next(_serial)), ORDER, json.dumps(order).encode()))


class ProbeService(Service):
    """A broker of one's own whose models are attacks; its memory holds ``secret``."""

    module = "tests.hostile.probe_broker"

    def __init__(
        self, runtime: str = "probe", limits: dict[str, float] | None = None, **settings: object
    ) -> None:
        self.secret = secrets.token_hex(16)
        super().__init__(limits, runtime, secret=self.secret, **settings)
        self.connection = ml.connect(self.directory)

    def probe(
        self,
        attack: str = "",
        relay: bool = False,
        device: str | None = None,
        **arguments: object,
    ) -> Probe:
        """Load a model; an attack that is named here runs at its load.

        The worker of a probe with a device has all that the device is granted.
        """
        connection = ml.connect(self.directory, relay=True) if relay else self.connection
        context = ml.create_context(connection=connection, accelerator_name=device)
        return Probe(ml.MLModelLoader(context).load(model_with(attack, **arguments)))

    def __exit__(self, *error: Any) -> None:
        self.connection.close()
        super().__exit__(*error)


class Probe:
    """One worker that does what a test says."""

    def __init__(self, model: ml.MLModel) -> None:
        self.model = model
        self.pid = model.isolation.worker_pid

    def ask(self, attack: str, /, timeout: float | None = None, **arguments: object) -> Any:
        """Run an attack in the worker; returns its report. Raises what a caller would see."""
        order = json.dumps({"attack": attack, "arguments": arguments}).encode()
        report = self.model.compute(np.frombuffer(order, np.uint8), timeout=timeout)
        return json.loads(bytes(report))

    def call(self, *parts: object) -> int:
        """Make one system call in the worker; returns its result, or -errno."""
        (result,) = self.ask("calls.make", calls=[parts])
        assert isinstance(result, int)
        return result

    def error(
        self, attack: str, /, timeout: float | None = None, **arguments: object
    ) -> ml.ModelLoaderError:
        """Run an attack that must end in an error; returns that."""
        with pytest.raises(ml.ModelLoaderError) as caught:
            self.ask(attack, timeout, **arguments)
        return caught.value

    def loss(
        self, attack: str, /, timeout: float | None = None, **arguments: object
    ) -> tuple[type[ml.ModelLoaderError], str]:
        """Run an attack that must lose the model; returns the error's class and the reason."""
        error = self.error(attack, timeout, **arguments)
        lost = self.model.lost
        assert lost is not None, f"{error!r}, but the model is not lost"
        return type(error), lost.reason

    def is_killed_for(self, *parts: object) -> bool:
        """Whether the sandbox ends the worker at this system call."""
        error = self.loss("calls.make", calls=[parts])
        assert error == (ml.SecurityError, "policy-violation"), f"{parts}: {error}"
        return True

    def works(self) -> bool:
        """Whether the worker answers."""
        return bool(self.ask("inside.threads") == 1)

    def close(self) -> None:
        """Close the model."""
        self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def only(*layers: Layer) -> str:
    """The runtime's name for a probe with these layers alone."""
    return "probe:" + ",".join(layers)


def all_but(*layers: Layer) -> str:
    """The runtime's name for a probe with every layer except these."""
    return "probe-but:" + ",".join(layers)
