"""The ways to run one model whose cost is compared; each is opened in a fresh process.

In process: what a program without a service would write. Direct and relayed: the service, private
to the process, by its public face. Echo: no model at all, the same number of bytes there and back
over a bare socket pair to another Python process, which no service that copies can be below.
"""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..tensors import Array
from .blocks import Call

MODULES = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an arm runs: the model's file, its inputs and how."""

    model: str
    inputs: str
    """An `.npz` file: the inputs in the model's order."""
    reply_bytes: int
    """Length of all outputs of one call together."""
    threads: int = 1
    runtime: str = "litert"
    buffer_bytes: int = 0
    """Echo: size asked for each socket buffer; 0 leaves the kernel's own."""
    device: str = ""
    """The service: the device that is named, as for `--device`; empty: none."""
    allow_fp16: bool = False
    """The service: whether that device may compute in reduced precision."""

    def arrays(self) -> list[Array]:
        """The inputs, in the model's order."""
        with np.load(self.inputs, allow_pickle=False) as file:
            return [file[name] for name in file.files]


@dataclass(frozen=True, slots=True)
class Opened:
    """An arm that is ready to be called."""

    call: Call
    close: Callable[[], None]
    model: Any = None
    """The service's arms: the loaded model."""


def open_interpreter(order: Order, model: bytes) -> Any:
    """Open the model as a program without a service would; inputs of unknown size are resized."""
    module = importlib.import_module(f"{MODULES[order.runtime]}.interpreter")
    interpreter = module.Interpreter(model_content=model, num_threads=order.threads)
    for detail, array in zip(interpreter.get_input_details(), order.arrays(), strict=True):
        if tuple(detail["shape"]) != array.shape:
            interpreter.resize_tensor_input(detail["index"], array.shape)
    interpreter.allocate_tensors()
    return interpreter


def in_process(order: Order) -> Opened:
    """Set the inputs, invoke, get the outputs: copies in and out, as the runtime's guide has it."""
    interpreter = open_interpreter(order, Path(order.model).read_bytes())
    indices = [detail["index"] for detail in interpreter.get_input_details()]
    inputs = list(zip(indices, order.arrays(), strict=True))
    outputs = [detail["index"] for detail in interpreter.get_output_details()]

    def call() -> object:
        for index, array in inputs:
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    return Opened(call, lambda: None)


def in_place(order: Order) -> Opened:
    """Invoke alone: the inputs are in the interpreter's memory already, the outputs stay there.

    What a program gets that writes its inputs through `tensor()`, and never lets go of the
    interpreter while it reads the outputs.
    """
    interpreter = open_interpreter(order, Path(order.model).read_bytes())
    for detail, array in zip(interpreter.get_input_details(), order.arrays(), strict=True):
        interpreter.set_tensor(detail["index"], array)
    call: Call = interpreter.invoke
    return Opened(call, lambda: None)


def direct(order: Order, *, relay: bool = False) -> Opened:
    """Call the model in a private service, on the direct channel."""
    import model_loader as ml

    from ..devices import context_options, private_devices

    wish = {"device": order.device or None, "allow_fp16": order.allow_fp16 or None}
    devices = private_devices(wish) if order.device else ()
    connection = ml.embed(runtime=order.runtime, devices=devices)
    road = ml.connect(connection.address, relay=True) if relay else connection
    context = ml.create_context(connection=road, num_threads=order.threads, **context_options(wish))
    model = ml.MLModelLoader(context).load(Path(order.model))
    arrays = order.arrays()
    names = [tensor.name for tensor in model.inputs()]
    inputs: Any = arrays[0] if len(arrays) == 1 else dict(zip(names, arrays, strict=True))

    def close() -> None:
        context.close()
        road.close()
        connection.close()

    return Opened(lambda: model.compute(inputs), close, model)


def relayed(order: Order) -> Opened:
    """Call it by gRPC, relayed by the broker."""
    return direct(order, relay=True)


def echo(order: Order) -> Opened:
    """Send the inputs' bytes to a bare process, and get as many bytes as the outputs have."""
    request = sum(array.nbytes for array in order.arrays())
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            if order.buffer_bytes:
                end.setsockopt(socket.SOL_SOCKET, option, order.buffer_bytes)
    child = os.fork()
    if child == 0:
        ours.close()
        _answer(theirs, request, order.reply_bytes)
    theirs.close()
    data, answer = bytes(request), bytearray(order.reply_bytes)

    def call() -> object:
        ours.sendall(data)
        _fill(ours, answer)
        return answer

    def close() -> None:
        ours.close()
        os.waitpid(child, 0)

    return Opened(call, close)


ARMS: Mapping[str, Callable[[Order], Opened]] = {
    "in process": in_process,
    "in place": in_place,
    "direct": direct,
    "relayed": relayed,
    "echo": echo,
}


def _answer(sock: socket.socket, request: int, reply: int) -> None:
    data, answer = bytearray(request), bytes(reply)
    try:
        while True:
            _fill(sock, data)
            sock.sendall(answer)
    except (EOFError, OSError):
        os._exit(0)


def _fill(sock: socket.socket, data: bytearray) -> None:
    view = memoryview(data)
    while len(view):
        count = sock.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]
