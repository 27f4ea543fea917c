"""One arm in one fresh process: ``python -m benchmarks.arms ARM MODEL CALLS BLOCKS``.

Prints a JSON object with one entry for each block: the median time of a call in nanoseconds, and
the clock ticks stolen during the block.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from benchmarks.machine import stolen_ticks

WARM_UP = 20
Call = Callable[[], object]


def in_process(model: bytes) -> tuple[Call, Callable[[], None]]:
    """Call LiteRT in this process: set the input, invoke, get the output."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    output = interpreter.get_output_details()[0]["index"]
    data = _data(detail["shape"], detail["dtype"])

    def call() -> object:
        interpreter.set_tensor(detail["index"], data)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return call, lambda: None


def service(model: bytes, *, relay: bool = False) -> tuple[Call, Callable[[], None]]:
    """Call the same model through the service, embedded."""
    import model_loader as ml

    connection = ml.embed(runtime="litert")
    road = ml.connect(connection.address, relay=True) if relay else connection
    context = ml.create_context(connection=road, num_threads=1)
    loaded = ml.MLModelLoader(context).load(model)
    (tensor,) = loaded.inputs()
    data = _data(tensor.dimensions, tensor.data_type)

    def close() -> None:
        context.close()
        road.close()
        connection.close()

    return lambda: loaded.compute(data), close


def relayed(model: bytes) -> tuple[Call, Callable[[], None]]:
    """Call it by gRPC, relayed by the broker."""
    return service(model, relay=True)


def echo(model: bytes) -> tuple[Call, Callable[[], None]]:
    """Send the model's input to a bare process and get as many bytes as its output has."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    sizes = [
        int(np.prod(details[0]["shape"])) * np.dtype(details[0]["dtype"]).itemsize
        for details in (interpreter.get_input_details(), interpreter.get_output_details())
    ]
    del interpreter
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _echo(theirs, *sizes)
    theirs.close()
    data, answer = bytes(sizes[0]), bytearray(sizes[1])

    def call() -> object:
        ours.sendall(data)
        _fill(ours, answer)
        return answer

    def close() -> None:
        ours.close()
        os.waitpid(child, 0)

    return call, close


ARMS: dict[str, Callable[[bytes], tuple[Call, Callable[[], None]]]] = {
    "in-process": in_process,
    "direct": service,
    "relayed": relayed,
    "echo": echo,
}


def main(arguments: list[str]) -> int:
    """Run one arm and print its blocks."""
    arm, model, calls, blocks = arguments[0], arguments[1], int(arguments[2]), int(arguments[3])
    call, close = ARMS[arm](Path(model).read_bytes())
    for _ in range(WARM_UP):
        call()
    result = []
    for _ in range(blocks):
        stolen = stolen_ticks()
        times = []
        for _ in range(calls):
            began = perf_counter_ns()
            call()
            times.append(perf_counter_ns() - began)
        result.append({"median_ns": statistics.median(times), "stolen": stolen_ticks() - stolen})
    close()
    print(json.dumps(result))
    return 0


def _data(shape: Any, data_type: Any) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(1)
    if np.dtype(data_type).kind == "f":
        return random.random(tuple(shape), np.float32).astype(data_type)
    return random.integers(0, 100, tuple(shape)).astype(data_type)


def _echo(sock: socket.socket, request: int, reply: int) -> None:
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
