"""`probe` says of each layer what the host really does, and what to do about a refusal."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from loader_service.sandbox import (
    capabilities,
    cgroup,
    landlock,
    namespaces,
    probe,
    process,
    resource_limits,
    seccomp,
)
from loader_service.sandbox.layers import CGROUP_LAYERS, MINIMUM, PROCESS_LAYERS, Layer
from loader_service.sandbox.lockdown import LOCK_DOWN_LAYERS
from loader_service.sandbox.probe_attempts import ATTEMPTS
from loader_service.sandbox.remedies import REMEDIES
from tests.sandbox.sandboxed import become_ordinary, in_child, start_sandboxed, worker_uid

pytestmark = pytest.mark.isolation


def test_the_findings_agree_with_what_a_worker_gets() -> None:
    findings = probe.probe()
    assert set(findings) == set(Layer)
    worker = start_sandboxed(lambda: 0, uid=worker_uid())
    assert worker.wait().result() == 0
    entered = worker.outcome.entered | set(LOCK_DOWN_LAYERS)
    assert {layer for layer in PROCESS_LAYERS if findings[layer].available} == entered
    tree = cgroup.discover()
    held = frozenset() if tree is None else tree.layers
    if tree is not None:
        assert tree.remove()
    assert {layer for layer in CGROUP_LAYERS if findings[layer].available} == held


def test_each_finding_has_a_detail_and_a_remedy_only_where_it_is_needed() -> None:
    for layer, finding in probe.probe().items():
        assert finding.detail
        assert finding.remedy == ("" if finding.available else REMEDIES[layer])


def test_it_can_be_asked_by_a_process_with_threads_and_leaves_none() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    before = threading.active_count()
    try:
        assert not probe.missing_minimum(probe.probe())
        with pytest.raises(RuntimeError, match="one thread"):
            probe.probe_here()
    finally:
        stop.set()
        thread.join()
    assert threading.active_count() == before - 1


@pytest.mark.skipif(os.geteuid() != 0, reason="the tests run as an ordinary user already")
def test_an_ordinary_user_has_no_user_for_each_worker() -> None:
    def work() -> list[str]:
        become_ordinary()
        findings = probe.probe_here()
        return [layer for layer in PROCESS_LAYERS if not findings[layer].available]

    assert in_child(work).result() == [Layer.UNPRIVILEGED_UID]


@pytest.mark.skipif(os.geteuid() != 0, reason="root lowers the limit of an inner namespace")
def test_a_host_without_user_namespaces_is_found_out_by_trying() -> None:
    """The kernel's own refusal, with the sysctl of an outer namespace that allows no more."""

    def work() -> dict[str, str]:
        become_ordinary()
        namespaces.enter_user_namespace()
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        capabilities.drop_all()
        process.set_dumpable(True)
        findings = probe.probe_here()
        return {layer: finding.detail for layer, finding in findings.items() if finding.remedy}

    refused = in_child(work).result()
    with_user_namespace = {
        Layer.USER_NAMESPACE,
        Layer.MOUNT_NAMESPACE,
        Layer.EMPTY_ROOT,
        Layer.PID_NAMESPACE,
        Layer.NETWORK_NAMESPACE,
        Layer.IPC_NAMESPACE,
        Layer.UTS_NAMESPACE,
        Layer.CGROUP_NAMESPACE,
    }
    assert set(refused) >= with_user_namespace
    assert set(refused) - with_user_namespace <= {Layer.UNPRIVILEGED_UID, *CGROUP_LAYERS}
    assert {refused[layer] for layer in with_user_namespace} == {
        "[Errno 28] unshare: No space left on device"
    }


@pytest.mark.parametrize(
    ("layer", "module", "name"),
    [
        (Layer.USER_NAMESPACE, namespaces, "enter_user_namespace"),
        (Layer.UTS_NAMESPACE, namespaces, "enter_namespace"),
        (Layer.CGROUP_NAMESPACE, namespaces, "enter_namespace"),
        (Layer.NETWORK_NAMESPACE, namespaces, "enter_namespace"),
        (Layer.PID_NAMESPACE, namespaces, "enter_namespace"),
        (Layer.NO_NEW_PRIVILEGES, process, "set_no_new_privileges"),
        (Layer.LANDLOCK, landlock, "refuse_everything"),
        (Layer.NOT_DUMPABLE, process, "set_dumpable"),
        (Layer.RLIMITS, resource_limits, "apply_limits"),
        (Layer.SECCOMP, seccomp, "load_filter"),
    ],
)
def test_a_call_that_succeeds_without_effect_is_not_believed(
    layer: Layer, module: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, lambda *_: 0)
    finding = probe._in_child(layer, ATTEMPTS[layer])
    if os.geteuid() != 0 or layer is not Layer.USER_NAMESPACE:
        assert not finding.available
    assert finding.remedy == ("" if finding.available else REMEDIES[layer])


def test_an_attempt_that_dies_is_a_refusal() -> None:
    finding = probe._in_child(Layer.LANDLOCK, lambda: os._exit(3))
    assert finding == probe.Finding(
        False, "the attempt ended with status 3", REMEDIES[Layer.LANDLOCK]
    )


def test_the_minimum_is_looked_up() -> None:
    good = probe.Finding(True, "", "")
    bad = probe.Finding(False, "", "")
    findings = dict.fromkeys(Layer, good)
    assert probe.missing_minimum(findings) == frozenset()
    assert probe.missing_minimum({**findings, Layer.LANDLOCK: bad}) == frozenset()
    assert probe.missing_minimum(dict.fromkeys(Layer, bad)) == MINIMUM
