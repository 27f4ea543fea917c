"""A private broker for the life of this program: one child process, no root, no configuration."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from pathlib import Path

from model_loader_wire.causes import Cause, Failure, printable
from model_loader_wire.limits import Limits

from . import _fork
from .errors import ConstraintError, NetworkError, NotSupportedError, from_failure

START_SECONDS = 30.0
"""A private service that has not said anything by then has failed."""
END_SECONDS = 5.0
"""How long the program's end waits for the private service to end."""
DYING_SECONDS = 1.0
"""Between a killed process no longer answering and its being dead."""
ANSWER_LENGTH = 64 << 10
RUNTIMES = ("auto", "litert", "tflite-runtime")
OPERATORS = ("standard", "hardened")
ISOLATIONS = ("model", "origin")
_MODULES = {"litert": ("ai_edge_litert",), "tflite-runtime": ("tflite_runtime",)}


class EmbeddedBroker:
    """The child process; it ends when its life socket does, however this program ends."""

    def __init__(
        self,
        limits: Limits | None = None,
        runtime: str = "auto",
        operators: str = "standard",
        isolation: str = "model",
        devices: Iterable[str] = (),
    ) -> None:
        """Start it and wait until it listens."""
        options = _checked_options(
            limits,
            devices,
            runtime=(runtime, RUNTIMES),
            operators=(operators, OPERATORS),
            isolation=(isolation, ISOLATIONS),
        )
        _require_service(runtime)
        self._generation = _fork.current
        self._life, theirs = map(_beyond_standard, socket.socketpair())
        weakref.finalize(self, self._life.close).atexit = False  # at the exit: see _end_all
        _brokers.add(self)
        _fork.close_in_child(self)
        try:
            with theirs:
                # -P: a folder that the program happens to stand in must not supply modules.
                # A session of its own: Ctrl-C in the terminal is for the program alone.
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "loader_service.broker.embedded",
                        str(theirs.fileno()),
                        json.dumps(options),
                    ],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    # A program that was started without a stderr has something else there.
                    stderr=subprocess.DEVNULL if sys.__stderr__ is None else None,
                    start_new_session=True,
                )
            # The program imports what it will speak with while the service starts.
            importlib.import_module("grpc.experimental")
            answer = self._read_answer()
        except BaseException:
            self._life.close()
            _brokers.discard(self)
            raise
        self.directory = Path(str(answer["directory"]))
        self.pid = int(str(answer["pid"]))

    def alive(self) -> bool:
        """Whether the process still runs and belongs to this process."""
        return self._generation == _fork.current and self._process.poll() is None

    def has_died(self) -> bool:
        """Whether the process is dead, or just dying, as one is that no longer answers."""
        try:
            self._process.wait(DYING_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """End it with all its workers, and wait for its end a short while."""
        if self._generation != _fork.current:
            return
        self._life.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close_descriptor(self) -> None:
        """Close a forked child's copy, so that it does not keep the service alive."""
        self._life.close()
        # The child's copy of the Popen object must not wait for what is not its child.
        self._process.returncode = 0

    def _read_answer(self) -> dict[str, object]:
        data = b""
        ends = time.monotonic() + START_SECONDS
        while not data.endswith(b"\n"):
            self._life.settimeout(max(0.001, ends - time.monotonic()))
            try:
                piece = self._life.recv(4096)
            except TimeoutError:
                self._process.kill()
                raise NetworkError(
                    f"the private service did not start within {START_SECONDS:g} s"
                ) from None
            if not piece or len(data) > ANSWER_LENGTH:
                status = self._process.wait(END_SECONDS)
                raise NetworkError(f"the private service ended at its start with status {status}")
            data += piece
        answer = json.loads(data)
        if "error" in answer:
            error = answer["error"]
            raise from_failure(
                Failure(Cause(str(error["cause"])), printable(str(error["message"])))
            )
        return dict(answer)


_brokers: weakref.WeakSet[EmbeddedBroker] = weakref.WeakSet()


def _end_all() -> None:
    """Leave nothing behind when the program ends."""
    for broker in list(_brokers):
        broker.close()


atexit.register(_end_all)


class _Shared:
    """The one broker of this program."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.broker: EmbeddedBroker | None = None
        self.generation = _fork.current


_shared = _Shared()


def shared_broker() -> EmbeddedBroker:
    """Return this program's private broker; starts it at first use, and again if it died."""
    global _shared
    if _shared.generation != _fork.current:
        _shared = _Shared()  # a child has its own, and its parent's lock may be held for ever
    with _shared.lock:
        if _shared.broker is None or not _shared.broker.alive():
            if _shared.broker is not None:
                _shared.broker.close()
            _shared.broker = None
            _shared.broker = EmbeddedBroker()
        return _shared.broker


def _beyond_standard(end: socket.socket) -> socket.socket:
    """Move a socket away from the numbers of the standard streams, which a child gets anew.

    A program that was started without these streams has their numbers to give.
    """
    import fcntl  # not on Windows, where only a clear sentence is wanted

    with end:
        return socket.socket(fileno=fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3))


def _checked_options(
    limits: Limits | None, devices: Iterable[str] = (), **chosen: tuple[str, tuple[str, ...]]
) -> dict[str, object]:
    """Check each choice, given with what there is to choose from; raises ConstraintError."""
    for name, (choice, known) in chosen.items():
        if choice not in known:
            choices = ", ".join(map(repr, known))
            raise ConstraintError(f"{name} must be one of {choices}, not {choice!r}")
    if limits is not None and not isinstance(limits, Limits):
        raise ConstraintError(f"limits must be a model_loader.Limits, not {type(limits).__name__}")
    if isinstance(devices, str | bytes) or not isinstance(devices, Iterable):
        raise ConstraintError("devices must be a sequence of names of devices")
    named = list(devices)
    for name in named:
        if not isinstance(name, str):
            raise ConstraintError(f"devices must hold names of devices, not {name!r}")
    choices_made = {name: choice for name, (choice, _) in chosen.items()}
    limited = limits.set_values() if limits else {}
    return {"limits": limited, "devices": named, **choices_made}


def _require_service(runtime: str) -> None:
    """Say what to install, before a child process fails for want of it."""
    modules = _MODULES.get(runtime) or tuple(name for names in _MODULES.values() for name in names)
    extra = "tflite" if runtime == "tflite-runtime" else "service"
    found = importlib.util.find_spec("loader_service") is not None
    if not found or not any(importlib.util.find_spec(module) for module in modules):
        missing = "a TFLite runtime is" if found else "the service is"
        raise NotSupportedError(
            f"no Model Loader service runs here, and {missing} not installed to start a private "
            f"one: pip install 'model-loader[{extra}]', or name a running service with "
            "connect(address) or MODEL_LOADER_ADDRESS"
        )
    if not sys.executable or not os.access(sys.executable, os.X_OK):
        raise NotSupportedError(
            "this program has no Python interpreter of its own (sys.executable) to start a private "
            "service with: start model-loaderd"
        )
