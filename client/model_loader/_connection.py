"""A connection: one session with one service."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from model_loader_wire.limits import Limits

from . import _embedded
from ._blocking import BlockingDriver
from ._closing import Closing
from ._fork import BoundToProcess
from ._opening import open_session
from ._recall import inspect_when_there
from ._returning import answered
from ._session import Session
from ._tls import Credentials
from ._values import Format, ModelRow, NamedModel


class ConnectionFace(BoundToProcess):
    """What connections of both faces show."""

    def __init__(
        self, driver: Any, session: Session, owned_broker: _embedded.EmbeddedBroker | None
    ) -> None:
        self._driver = driver
        self._session = session
        session.turn = driver.make_turn()
        self._owned_broker = owned_broker

    @property
    def address(self) -> str:
        """The service's address, as ``connect`` takes it."""
        return self._session.address

    @property
    def origin(self) -> str:
        """The name under which the models are counted and limited."""
        return self._session.origin

    @property
    def limits(self) -> Limits:
        """The limits of the service; one context, or one load, may lower them."""
        return self._session.limits

    @property
    def layers(self) -> tuple[str, ...]:
        """The sandbox layers that every worker of this service gets."""
        return self._session.layers

    @property
    def service_version(self) -> str:
        """The version of the service."""
        return self._session.service_version

    @property
    def embedded(self) -> bool:
        """Whether the service is this program's own child process."""
        return self._session.broker is not None

    @property
    def broker_pid(self) -> int | None:
        """The process id of the embedded service, or None for a daemon."""
        broker = self._session.broker
        return None if broker is None else broker.pid

    @property
    def relayed(self) -> bool:
        """Whether tensors go through the broker instead of a direct channel."""
        return self._session.relayed

    def __repr__(self) -> str:
        state = " closed" if self._session.closed else ""
        kind = "embedded" if self.embedded else self.address
        return f"<model_loader connection to {kind} as {self.origin!r}{state}>"


class Connection(ConnectionFace, Closing):
    """A connection to a service, made by ``connect`` or ``embed``. Thread-safe.

    Closing it ends all models that were loaded through it.
    """

    _driver: BlockingDriver

    def formats(self) -> tuple[Format, ...]:
        """Return the model formats that can be loaded, with their versions.

        Raises InvalidStateError for a closed connection, NetworkError if the service has gone.
        """
        return self._driver.run(answered(self._session, self._session.formats))

    def models(self) -> tuple[ModelRow, ...]:
        """Return the models of the caller's user in all sessions, as the service sees them.

        Raises InvalidStateError for a closed connection, NetworkError if the service has gone.
        """
        return self._driver.run(answered(self._session, self._session.models))

    def named_models(self) -> tuple[NamedModel, ...]:
        """Return the models that ``load_by_name`` loads: every version that serves.

        Raises InvalidStateError for a closed connection, NetworkError if the service has gone.
        """
        return self._driver.run(answered(self._session, self._session.named_models))

    def inspect(self, source: Any, *, timeout: float | None = None) -> dict[str, Any]:
        """Read what a model file is, inside a sandbox.

        `source` and `timeout` are as for ``load``, and so are the errors. Returns JSON values:
        ``file`` (subgraphs, operators, signatures, metadata, packed files), ``loads`` with
        ``runtime``, ``kernels`` and ``note``, or ``failure`` if the runtime does not take the
        model; ``sha256``, ``size`` in bytes and ``isolation``.
        """
        return self._driver.run(inspect_when_there(self._session, source, timeout))

    def close(self) -> None:
        """End the session and its models; closing twice is no error."""
        self._driver.run(self._session.close(self._owned_broker))


def connect(
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
    """Open a connection.

    `address` is ``unix:/directory`` or the directory's path, or ``tcp://host:port`` (the same as
    ``grpcs://host:port``) for a service of another machine. Without it: the variable
    ``MODEL_LOADER_ADDRESS``, else a running daemon of the user's, else the system's, else a private
    service of this program's own, which ends with it.

    `origin` names the program within its user, for counting and limits; by default it is derived
    from the program's file, and shown as ``origin``. `relay` sends tensors through the broker,
    for places where no descriptor can be handed over, as is always done over the network.

    `reconnect` lets the connection outlive its service: calls wait until one is there again at the
    same place, and the models that the program still holds are then loaded again. What was under
    way is lost, as ever, and so are models that keep state (``docs/api.md``).

    The rest is for the network (``docs/network.md``): `ca` is the file of the authority that must
    have signed the service's certificate, `certificate` and `key` the files that show who this
    client is, all in PEM, and `token` says so otherwise. What is not given is looked for in
    ``MODEL_LOADER_TLS_CA``, ``MODEL_LOADER_TLS_CERTIFICATE``, ``MODEL_LOADER_TLS_KEY``, and in the
    file that ``MODEL_LOADER_TOKEN_FILE`` names.

    Raises NetworkError if a named service does not answer, SecurityError if it belongs to somebody
    else, cannot prove who it is, or does not know this client, NotSupportedError where no service
    can run, ConstraintError for what is no address, or no credentials for it.
    """
    credentials = Credentials(ca=ca, certificate=certificate, key=key, token=token)
    driver = BlockingDriver()
    session = driver.run(
        open_session(address, origin, relay, None, credentials, reconnect=reconnect)
    )
    return Connection(driver, session, None)


def embed(
    *,
    limits: Limits | None = None,
    runtime: str = "auto",
    operators: str = "standard",
    isolation: str = "model",
    devices: Iterable[str] = (),
    origin: str | None = None,
) -> Connection:
    """Start a private service with these settings, and connect to it; it ends with the connection.

    `limits` replaces the usual limits where it sets them, higher ones too; `runtime` is "litert",
    "tflite-runtime", or "auto" for the first that is installed; `operators` says which operators a
    model may use: "standard" for all that the runtimes carry, "hardened" for those that LiteRT
    hardens for models from the web; `isolation` says what has a process of its own: each "model",
    or, to save memory, each "origin" with all its models, which are then lost together; `devices`
    enables devices beside the CPU's, with what each needs of the sandbox (`docs/devices.md`):
    "openvino", or "external:NAME=LIBRARY" for a library with TensorFlow Lite's external delegate;
    `origin` is as for ``connect``.

    Raises ConstraintError for values outside these, NotSupportedError where the service is not
    installed or this host cannot run it, NetworkError if it does not start.
    """
    driver = BlockingDriver()
    broker = _embedded.EmbeddedBroker(limits, runtime, operators, isolation, devices)
    try:
        return Connection(driver, driver.run(open_session(None, origin, False, broker)), broker)
    except BaseException:
        broker.close()
        raise
