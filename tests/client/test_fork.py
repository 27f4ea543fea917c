"""Forks: a child uses nothing of its parent's, and keeps nothing of it alive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from tests.client.conftest import put
from tests.client.fake_service import FakeService
from tests.shared_models import REPOSITORY

BEGIN = """
    import multiprocessing, os, signal, sys, time
    import numpy as np
    import model_loader as ml

    directory, content = sys.argv[1], bytes.fromhex(sys.argv[2])
    relay = sys.argv[3] == "relayed"
    signal.alarm(30)  # a hang is a failure
    X = np.ones((2, 3), np.float32)

    def fresh():
        connection = ml.connect(directory, relay=relay)
        loader = ml.MLModelLoader(ml.create_context(connection=connection))
        return connection, loader, loader.load(content)

    def refused(call):
        try:
            call()
        except ml.InvalidStateError as error:
            assert "forked" in str(error), error
        else:
            raise AssertionError(f"{call} worked")

    def check_child():
        refused(lambda: model.compute(X))
        refused(lambda: model.reset())
        refused(lambda: loader.load(content))
        refused(lambda: connection.formats())
        refused(lambda: ml.create_context(connection=connection))
        assert model.lost is None
        mine = fresh()
        assert (mine[2].compute(X) == X).all()
        model.close(), connection.close()  # not the child's to end: nothing happens
        mine[2].close()

    def wait_for(pid):
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 0, status
"""

SCRIPTS = {
    "os.fork, parent idle": """
        connection, loader, model = fresh()
        pid = os.fork()
        if pid == 0:
            check_child()
            sys.exit(0)
        wait_for(pid)
        assert (model.compute(X) == X).all()
    """,
    "os.fork, parent in use": """
        connection, loader, model = fresh()
        for _ in range(3):
            model.compute(X)
        pid = os.fork()
        if pid == 0:
            check_child()
            sys.exit(0)
        assert (model.compute(X) == X).all()
        wait_for(pid)
        assert (model.compute(X) == X).all()
        assert model.lost is None
    """,
    "multiprocessing with fork": """
        connection, loader, model = fresh()
        model.compute(X)
        process = multiprocessing.get_context("fork").Process(target=check_child)
        process.start()
        process.join()
        assert process.exitcode == 0, process.exitcode
        assert (model.compute(X) == X).all()
    """,
    "a child in the parent's with blocks": """
        connection, loader, model = fresh()
        with connection, loader, model:
            pid = os.fork()
            if pid:
                wait_for(pid)
                assert (model.compute(X) == X).all()
    """,
    "a child of a child": """
        connection, loader, model = fresh()
        pid = os.fork()
        if pid == 0:
            connection, loader, model = fresh()
            model.compute(X)
            pid = os.fork()
            if pid == 0:
                check_child()
                sys.exit(0)
            wait_for(pid)
            assert (model.compute(X) == X).all()
            sys.exit(0)
        wait_for(pid)
        assert (model.compute(X) == X).all()
    """,
    "a fork during a call of another thread": """
        import threading
        connection, loader, model = fresh()
        stop = []
        def use():
            while not stop:
                assert (model.compute(X) == X).all()
        thread = threading.Thread(target=use)
        thread.start()
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                check_child()
                os._exit(0)
            wait_for(pid)
        stop.append(1)
        thread.join()
    """,
}


def run(service: FakeService, script: str, road: str) -> subprocess.Popen[str]:
    """Start a script with a model to load."""
    text = textwrap.dedent(BEGIN) + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-c", text, str(service.directory), put(service).hex(), road],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


@pytest.mark.parametrize("road", ["direct", "relayed"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_fork(service: FakeService, name: str, road: str) -> None:
    process = run(service, SCRIPTS[name], road)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_child_does_not_keep_its_parents_worker_alive(service: FakeService) -> None:
    script = """
        connection, loader, model = fresh()
        pid = os.fork()
        if pid == 0:
            os.close(1), os.close(2)
            time.sleep(20)
            os._exit(0)
        print(pid, flush=True)
        os._exit(0)
    """
    process = run(service, script, "direct")
    output, _ = process.communicate(timeout=60)
    try:
        worker = service.loaded["model-0"].worker
        worker.join(5)
        assert not worker.is_alive()
    finally:
        os.kill(int(output), signal.SIGKILL)
