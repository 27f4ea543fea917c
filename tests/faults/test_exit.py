"""A program that ends while its threads compute ends at once, and says nothing of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.shared_models import REPOSITORY
from tests.support.raw_client import HANG_SECONDS

PROGRAM = """
import os, sys, threading, time
import numpy as np
import model_loader as ml
from loader_service.writer import costly
connection = ml.connect(ml.create_context().connection.address, relay=sys.argv[1] == "relayed")
context = ml.create_context(connection=connection)
models = [ml.MLModelLoader(context).load(costly.work()) for _ in range(3)]
def call(model):
    try:
        model.compute(np.array([10**9], np.int32))
    except ml.InvalidStateError as error:
        os.write(1, f"{error}\\n".encode())  # in one piece: print is not
threads = [threading.Thread(target=call, args=(model,), daemon=True) for model in models]
for thread in threads:
    thread.start()
while any(row.cpu_seconds < 0.02 for row in connection.models()):
    time.sleep(0.01)
import atexit
# What was registered first runs last: here the threads have had their word.
atexit._run_exitfuncs()
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize("road", ["direct", "relayed"])
def test_calls_of_other_threads_end_with_the_program(road: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, road],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
        timeout=3 * HANG_SECONDS,
    )
    assert ended.stdout.splitlines() == ["the model was closed during the call"] * 3
    assert (ended.returncode, ended.stderr) == (0, "")
