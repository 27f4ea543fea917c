"""What a fault is tried on: a service that stops on order, a client process, and a bystander."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from loader_service.sandbox.cgroup_mounts import own_cgroups
from loader_service.writer import small
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.conftest import ONE, Bystander
from tests.shared_models import REPOSITORY
from tests.support.processes import describe, wait_until_empty
from tests.support.raw_client import HANG_SECONDS, RawSession, Service
from tests.support.stopping import is_dead, resume
from tests.support.waiting import wait_until

Said = dict[str, Any]


def settled(look: Callable[[], list[str]]) -> list[str]:
    """What `look` gives when it has been the same, or less of it, for half a second."""
    least, since = look(), time.monotonic()
    while time.monotonic() < since + 0.5:
        time.sleep(0.02)
        if len(seen := look()) < len(least):
            least, since = seen, time.monotonic()
    return least


def groups_of(broker: int) -> list[Path]:
    """The cgroups of a broker's workers, in one hierarchy."""
    own = own_cgroups()
    parent = own.version_1.get("memory", own.version_2)
    if parent is None:
        return []
    while True:
        try:
            return list(parent.glob(f"model-loader-{broker}-*/user-*/*/worker-*"))
        except FileNotFoundError:  # one went while it was looked into
            continue


def trees_of(broker: int) -> list[Path]:
    """All cgroup trees of a broker."""
    own = own_cgroups()
    parents = {*own.version_1.values(), *([own.version_2] if own.version_2 else [])}
    return [tree for parent in parents for tree in parent.glob(f"model-loader-{broker}-*")]


class StagedService(Service):
    """A broker that stops at a stage on order."""

    module = "tests.faults.staged_broker"

    def cgroups(self) -> list[Path]:
        """The groups of its workers, in one hierarchy."""
        return groups_of(self.pid)

    def trees(self) -> list[Path]:
        """All cgroup trees of it."""
        return trees_of(self.pid)


class Client:
    """A process that uses the client library on order."""

    def __init__(self, directory: Path, stage_file: Path, face: str, road: str) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.faults.client"),
                *(str(directory), str(stage_file), face, road),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
        )
        self.pid = self._process.pid
        self._heard = b""

    def begin(self, do: str, **more: object) -> None:
        """Send an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self, seconds: float = HANG_SECONDS) -> Said:
        """Wait for what the last order came to."""
        assert self._process.stdout is not None
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self._process.stdout], [], [], seconds)
            assert ready, f"the client said nothing within {seconds:g} s"
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            assert piece, "the client ended"
            self._heard += piece
        line, _, self._heard = self._heard.partition(b"\n")
        said: Said = json.loads(line)
        return said

    def ask(self, do: str, *, seconds: float = HANG_SECONDS, **more: object) -> Any:
        """Give an order that must go well."""
        self.begin(do, **more)
        said = self.hear(seconds)
        assert "said" in said, said
        return said["said"]

    def error(self, do: str, **more: object) -> tuple[str, str]:
        """Give an order that must fail; returns the error's class and cause."""
        self.begin(do, **more)
        return error_in(self.hear())

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self.end()

    def end(self) -> int:
        """Let it end, and wait."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        status = self._process.wait(HANG_SECONDS)
        self._process.stdout.close()
        return status

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None


def error_in(said: Said) -> tuple[str, str]:
    """The class and the cause of an error that a client met."""
    assert "error" in said, said
    return said["error"], said["cause"]


class Ground:
    """One service after the other, with a bystander on each; started anew when its broker died."""

    def __init__(self, folder: Path, **limits: float) -> None:
        self._limits = limits
        self._stage_file = folder / "stage"
        self._clients: dict[tuple[str, str], Client] = {}
        self._start()

    def _start(self) -> None:
        self.disarm()
        # No model is kept for later: each load brings its bytes.
        self.service = StagedService(
            self._limits, stage_file=str(self._stage_file), kept_model_bytes=0
        )
        self.bystander = Bystander(self.service)
        self._loads_again()
        self._descriptors = settled(self.service.open_files)

    def arm(self, stage: str) -> None:
        """Let the first process that reaches this stage stop there."""
        written = self._stage_file.with_suffix(".new")
        written.write_text(stage)
        written.rename(self._stage_file)

    def disarm(self) -> None:
        """Let nothing stop."""
        self._stage_file.unlink(missing_ok=True)

    def client(self, face: str, road: str) -> Client:
        """A client of that kind without a connection; the same process as before if it lives."""
        if self.service.poll() is not None:  # a test failed with its broker dead
            self._check_dead_broker()
        client = self._clients.get((face, road))
        if client is None or not client.alive:
            client = Client(self.service.directory, self._stage_file, face, road)
            self._clients[face, road] = client
        return client

    def worker(self) -> int:
        """The one worker beside the bystander's."""

        def others() -> set[int]:
            return set(self.service.workers()) - {self.bystander.pid}

        wait_until(lambda: bool(others()), "the one worker beside the bystander's")
        (pid,) = others()
        return pid

    def zygote(self) -> int:
        """The one zygote."""
        (pid,) = self.service.zygotes()
        return pid

    def kill(self, victim: str, client: Client) -> None:
        """Kill one of the four kinds of process, and let all others go on."""
        others = [self.service.pid, *self.service.zygotes(), *self.service.workers(), client.pid]
        if victim == "client":
            client.kill()
        elif victim == "broker":
            self._family = others[:-1]
            os.kill(self.service.pid, signal.SIGKILL)
            self.service.wait()
        else:
            os.kill(self.worker() if victim == "worker" else self.zygote(), signal.SIGKILL)
        self.disarm()
        resume(others)

    def check(self, client: Client) -> None:
        """Assert that everything is as before: nothing left, the bystander answers, it loads.

        A broker that was killed has taken its family with it; the next one sweeps its files.
        """
        assert not self._stage_file.exists(), "the stage was not reached"
        if client.alive:
            client.ask("leave")
        if self.service.poll() is None:
            self.bystander.is_undisturbed()
            self._loads_again()
            self.service.wait_for_zygotes(1)
            if self.bystander_has_group():
                wait_until(
                    lambda: len(self.service.cgroups()) == 1, "the end of the others' cgroups"
                )
            wait_until_empty(self._new_descriptors, HANG_SECONDS)
            assert not self._new_descriptors(), (self.service.open_files(), self._descriptors)
        else:
            self._check_dead_broker()

    def _new_descriptors(self) -> list[int]:
        """As many as there are more than at the beginning."""
        return [0] * (len(self.service.open_files()) - len(self._descriptors))

    def bystander_has_group(self) -> bool:
        """Whether cgroups are written on this host."""
        return bool(self.service.cgroups())

    def _check_dead_broker(self) -> None:
        left = wait_until_empty(lambda: [p for p in self._family if not is_dead(p)], HANG_SECONDS)
        assert not left, f"left behind by a killed broker: {describe(left)}"
        dead = self.service
        self._end_clients()
        self._close_bystander()
        dead.forget()
        self._start()
        assert not dead.directory.exists()
        assert not dead.trees()

    def _loads_again(self) -> None:
        with RawSession(self.service.directory, "again") as session:
            reply = session.load(small.add(), relayed=True)
            (output,) = session.compute(reply.model_id, ONE).outputs
            assert np.frombuffer(output.data, np.float32) == 2
            session.call("CloseModel", pb.CloseModelRequest(model_id=reply.model_id))
        self.service.wait_for_workers([self.bystander.pid])

    def _end_clients(self) -> None:
        for client in self._clients.values():
            if client.alive:
                resume([client.pid])
                assert client.end() == 0
        self._clients.clear()

    def _close_bystander(self) -> None:
        self.bystander.close()

    def close(self) -> None:
        """End everything; nothing may be left."""
        self._end_clients()
        self._close_bystander()
        with self.service:
            pass
