"""Making and watching workers: zygotes, renewal, environment, cgroups, memory, endings."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from loader_service.runtime.runtimes import installed_runtimes
from loader_service.sandbox import cgroup, cgroup_mounts
from loader_service.writer import costly, small
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.conftest import ONE
from tests.support.processes import wait_until_empty
from tests.support.raw_client import HANG_SECONDS, RawSession, Service, detail_of, exchange_over
from tests.support.stopping import stopped
from tests.support.waiting import wait_until

MODEL = small.add()
ROOT = os.geteuid() == 0
RUNTIMES = [runtime.name for runtime in installed_runtimes()]


def refused(call: Callable[[], object]) -> pb.ErrorDetail:
    """The detail of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return detail_of(caught.value)


def answers(session: RawSession, model_id: str) -> bool:
    """Whether a relayed model answers right."""
    data = session.compute(model_id, ONE).outputs[0].data
    return bool(np.frombuffer(data, np.float32)[0] == 2)


def test_a_killed_zygote_is_replaced_at_the_next_load() -> None:
    with Service() as service, RawSession(service.directory) as session:
        before = session.load(MODEL, relayed=True)
        (zygote,) = service.zygotes()
        os.kill(zygote, signal.SIGKILL)
        after = session.load(MODEL, relayed=True)
        assert answers(session, before.model_id)
        assert answers(session, after.model_id)
        service.wait_for_zygotes(1)
        (second,) = service.zygotes()
        assert second != zygote
        # Several loads that meet a dead zygote at once: one replacement, and all go well.
        os.kill(second, signal.SIGKILL)
        with ThreadPoolExecutor(4) as pool:
            loads = [pool.submit(session.load, MODEL, relayed=True) for _ in range(4)]
            assert all(answers(session, load.result().model_id) for load in loads)
        service.wait_for_zygotes(1)


def test_a_zygote_that_hangs_is_replaced() -> None:
    with Service(spawn_seconds=1) as service, RawSession(service.directory) as session:
        (zygote,) = service.zygotes()
        os.kill(zygote, signal.SIGSTOP)
        reply = session.load(MODEL, relayed=True)
        assert answers(session, reply.model_id)
        service.wait_for_zygotes(1)
        assert zygote not in service.zygotes()


def test_a_zygote_is_renewed_after_so_many_workers() -> None:
    with Service(forks_per_zygote=3) as service, RawSession(service.directory) as session:
        seen = set(service.zygotes())
        models = []
        for _ in range(6):
            models.append(session.load(MODEL, relayed=True))
            seen |= set(service.zygotes())
            service.wait_for_zygotes(1)
        # The rehearsal was the first one's first fork: 1 + 2, 3, 1.
        assert len(seen) == 3
        assert all(answers(session, model.model_id) for model in models)
        with ThreadPoolExecutor(4) as pool:
            loads = [pool.submit(session.load, MODEL, relayed=True) for _ in range(9)]
            assert all(answers(session, load.result().model_id) for load in loads)
        service.wait_for_zygotes(1)


@pytest.mark.skipif(not ROOT, reason="only root may read the environment of another user's process")
def test_workers_have_no_environment_but_the_fixed_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PROGRAM", "x")
    with Service() as service, RawSession(service.directory) as session:
        worker = session.load(MODEL).isolation.worker_pid
        for pid in (worker, *service.zygotes()):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            names = {item.partition(b"=")[0].decode() for item in environment.split(b"\0") if item}
            expected = {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "LC_ALL", "GLIBC_TUNABLES"}
            assert names - {"LD_LIBRARY_PATH"} == expected


@pytest.mark.skipif(not ROOT, reason="only root may read the descriptors of such a process")
def test_a_worker_has_its_five_descriptors_and_the_broker_no_copy() -> None:
    with Service() as service, RawSession(service.directory) as session:
        reply = session.load(MODEL)
        worker = Path(f"/proc/{reply.isolation.worker_pid}/fd")
        links = {int(fd.name): os.readlink(fd) for fd in worker.iterdir()}
        assert sorted(links) == [0, 1, 2, 3, 4]
        assert links[0] == links[1] == "/dev/null"
        assert links[2].startswith("pipe:")
        zygotes = {
            os.readlink(fd) for pid in service.zygotes() for fd in Path(f"/proc/{pid}/fd").iterdir()
        }
        held = {*service.open_files(), *zygotes}
        assert links[3] not in held
        assert links[4] not in held
        # The pipe's other end is the broker's, and nobody else's.
        assert links[2] in service.open_files()
        assert links[2] not in zygotes


def test_loading_and_closing_leaves_no_descriptor_and_no_process() -> None:
    with Service() as service, RawSession(service.directory) as session:

        def round_trip() -> None:
            for relayed in (False, True):
                model_id = session.load(MODEL, relayed=relayed).model_id
                session.call("CloseModel", pb.CloseModelRequest(model_id=model_id))
            service.wait_for_workers([])

        for _ in range(3):
            round_trip()
        first = len(service.open_files())
        for _ in range(10):
            round_trip()
        # The broker reaps a worker a moment before it closes what it had of it.
        wait_until(lambda: len(service.open_files()) <= first, "no more than after the first ones")


def test_strangers_are_reaped() -> None:
    """A worker's parent is the broker also when its zygote ends in between; so are others'."""
    with Service() as service, RawSession(service.directory) as session:
        for _ in range(5):
            service.wait_for_zygotes(1)
            zygotes = service.zygotes()
            with ThreadPoolExecutor(2) as pool:
                load = pool.submit(session.load, MODEL, relayed=True)
                for zygote in zygotes:
                    os.kill(zygote, signal.SIGKILL)
                assert answers(session, load.result().model_id)
        models = session.models()
        for model_id in models:
            session.call("CloseModel", pb.CloseModelRequest(model_id=model_id))
        assert len(models) == 5
        service.wait_for_workers([])


def test_the_broker_ends_and_takes_everything_with_it() -> None:
    service = Service()
    with service, RawSession(service.directory) as session:
        for relayed in (False, True):
            session.load(MODEL, relayed=relayed)
        assert len(service.workers()) == 2
        assert service.close() == 0
        # What is left is checked at the end of the block.


def test_a_killed_broker_takes_its_workers_and_zygotes_with_it() -> None:
    service = Service()
    with RawSession(service.directory) as session:
        session.load(MODEL)
        session.load(MODEL, relayed=True)
        family = [*service.workers(), *service.zygotes()]
        assert len(family) == 3
        os.kill(service.pid, signal.SIGKILL)
        assert service.wait() == -signal.SIGKILL

        def alive() -> list[int]:
            return [pid for pid in family if Path(f"/proc/{pid}/cmdline").exists() and cmd(pid)]

        assert not wait_until_empty(alive, HANG_SECONDS)
    # Files and cgroups are swept by the next one.
    with Service():
        assert not service.directory.exists()


def cmd(pid: int) -> bytes:
    """The command line; empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def held_by_cgroup(reply: pb.LoadReply) -> bool:
    """Whether a cgroup holds the worker's memory."""
    return reply.isolation.memory_held_by.startswith("cgroup")


def test_a_worker_is_in_its_own_cgroup_with_its_limits() -> None:
    with Service({"memory_bytes": 1 << 28}) as service, RawSession(service.directory) as session:
        reply = session.load(MODEL, limits=pb.Limits(memory_bytes=1 << 27, threads=1))
        if not held_by_cgroup(reply):
            pytest.skip("this host's cgroups cannot be written to")
        assert {"cgroup-memory", "cgroup-pids"} <= set(reply.isolation.layers)
        lines = Path(f"/proc/{reply.isolation.worker_pid}/cgroup").read_text().splitlines()
        own = [line for line in lines if "model-loader-" in line]
        for line in own:
            level = line.partition(f"/model-loader-{service.pid}-")[2].partition("/")[2]
            assert level.startswith(f"user-{os.geteuid()}/{cgroup.safe_name('test')}/worker-")
        assert len(own) >= (1 if reply.isolation.memory_held_by == "cgroup-v2" else 3)
        memory = next(line for line in own if ":memory:" in line or line.startswith("0::"))
        trees = cgroup_mounts.own_cgroups()
        version_2 = memory.startswith("0::")
        mounted = trees.version_2 if version_2 else trees.version_1["memory"]
        assert mounted is not None
        below = memory.partition(f"/model-loader-{service.pid}-")[2]
        group = next(mounted.glob(f"model-loader-{service.pid}-*")).parent / (
            f"model-loader-{service.pid}-{below}"
        )
        name = "memory.max" if version_2 else "memory.limit_in_bytes"
        assert int((group / name).read_text()) == 1 << 27
        session.call("CloseModel", pb.CloseModelRequest(model_id=reply.model_id))
        assert not group.exists()
        top = group.parent.parent.parent
        assert top.exists()
        service.close()
        assert not top.exists()


def test_a_share_of_the_processor_is_held_by_a_cgroup() -> None:
    with Service() as service, RawSession(service.directory) as session:
        if "cgroup-cpu" not in session.welcome.session.layers:
            pytest.skip("this host's cgroups cannot be written to")
        reply = session.load(costly.work(), relayed=True, limits=pb.Limits(cpu_percent=20))
        assert reply.limits.cpu_percent == 20
        own = cgroup_mounts.own_cgroups()
        parent = own.version_1.get("cpu", own.version_2)
        assert parent is not None
        pattern = f"model-loader-{service.pid}-*/user-*/*/worker-*/cpu.stat"
        fields = [stat.read_text().split() for stat in parent.glob(pattern)]
        counts = [int(words[words.index("nr_throttled") + 1]) for words in fields]
        assert len(counts) == 1

        def is_throttled() -> bool:
            """A tenth of a second of work is five times its share, if the machine has so much."""
            session.compute(reply.model_id, np.array([300], np.int32))
            (after,) = parent.glob(pattern)
            words = after.read_text().split()
            return int(words[words.index("nr_throttled") + 1]) > counts[0]

        wait_until(is_throttled, "being throttled")


@pytest.mark.isolation
@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroup", "rlimit"])
def test_memory_is_held_and_named(cgroups: bool) -> None:
    maximum = 128 << 20
    with (
        Service({"memory_bytes": maximum}, cgroups=cgroups) as service,
        RawSession(service.directory) as session,
    ):
        small_one = session.load(MODEL, relayed=True)
        if cgroups and not held_by_cgroup(small_one):
            pytest.skip("this host's cgroups cannot be written to")
        assert held_by_cgroup(small_one) == cgroups
        detail = refused(lambda: _fill(session, mebibytes=1024))
        assert (detail.cause, detail.limit) == ("out-of-memory", "memory_bytes"), detail
        assert detail.maximum == maximum
        assert detail.value >= maximum
        assert answers(session, small_one.model_id)


def _fill(session: RawSession, mebibytes: int) -> None:
    """Load a model that the verifier cannot see through, and let it take so much memory.

    Where no cgroup ends it, it is refused the memory and lives on: so it is closed.
    """
    reply = session.load(costly.memory_hog_on_demand(), relayed=True)
    try:
        session.compute(reply.model_id, np.array([mebibytes], np.int32))
    finally:
        session.call("CloseModel", pb.CloseModelRequest(model_id=reply.model_id))


@pytest.mark.isolation
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_without_cgroups_the_limit_is_the_models_own(runtime: str) -> None:
    """RLIMIT_DATA counts what the zygote had too; the limit that is named is what comes on top."""
    size = 64 << 20
    model = small.broadcast(size // 4)
    with (
        Service({"memory_bytes": 1 << 30}, runtime, cgroups=False) as service,
        RawSession(service.directory) as session,
    ):

        def fits(memory_bytes: int) -> bool:
            limits = pb.Limits(memory_bytes=memory_bytes)
            try:
                reply = session.load(model, relayed=True, limits=limits)
                outputs = session.compute(reply.model_id, ONE).outputs
            except grpc.RpcError as error:
                detail = detail_of(error)
                assert (detail.cause, detail.limit) == ("out-of-memory", "memory_bytes"), detail
                assert detail.maximum == memory_bytes
                assert detail.value > memory_bytes
                return False
            session.call("CloseModel", pb.CloseModelRequest(model_id=reply.model_id))
            return len(outputs[0].data) == size

        # One output tensor, and little else: less than it is refused, an eighth more is enough.
        assert not fits(size - (1 << 20))
        assert fits(size + size // 8)


@pytest.mark.isolation
def test_a_hog_does_not_take_its_neighbour_with_it() -> None:
    with Service({"memory_bytes": 128 << 20}) as service, RawSession(service.directory) as session:
        neighbour = session.load(MODEL)
        with session.channel(neighbour.model_id) as channel:
            for _ in range(3):
                detail = refused(lambda: _fill(session, mebibytes=1024))
                assert detail.cause == "out-of-memory"
                (output,) = exchange_over(channel, [ONE]).tensors
                assert np.frombuffer(output, np.float32) == 2
            service.wait_for_workers([neighbour.isolation.worker_pid])


def test_a_lost_channel_ends_its_worker() -> None:
    with Service() as service, RawSession(service.directory) as session:
        reply = session.load(MODEL)
        session.channel(reply.model_id).close()
        request = pb.GetModelRequest(model_id=reply.model_id, wait_seconds=HANG_SECONDS)
        state: Any = session.call("GetModel", request)
        assert (state.lost, state.detail.cause) == (True, "closed")
        service.wait_for_workers([])


@pytest.mark.parametrize(("leaves", "cause"), [(True, "closed"), (False, "crashed")])
def test_a_client_that_sends_no_frame_ends_its_worker_with_a_word(leaves: bool, cause: str) -> None:
    with Service() as service, RawSession(service.directory) as session:
        reply = session.load(MODEL)
        with session.channel(reply.model_id) as channel:
            with stopped(reply.isolation.worker_pid):
                channel.sendall(b"x" * 48)
                if leaves:
                    channel.close()
            request = pb.GetModelRequest(model_id=reply.model_id, wait_seconds=HANG_SECONDS)
            detail = session.call("GetModel", request).detail
        assert detail.cause == cause
        assert "the client sent what is no request" in detail.last_words
