"""The probe is the tests' alone: nothing that is shipped can load it."""

from __future__ import annotations

import numpy as np
import pytest

import model_loader as ml
from loader_service.broker.zygote_process import BOOTSTRAP
from loader_service.runtime.runtimes import MODULES, find_runtime
from tests.hostile.probes import ProbeService, model_with


def test_no_setting_names_the_probe() -> None:
    with pytest.raises(ml.ModelLoaderError, match="runtime"):
        ml.embed(runtime="probe")
    with pytest.raises(ValueError, match="probe"):
        find_runtime("probe")
    assert all(module.startswith("loader_service.") for module in MODULES.values())
    assert "tests" not in BOOTSTRAP


def test_to_a_real_runtime_an_order_is_nothing() -> None:
    """The bytes of an attack are a good model with something after it."""
    with ml.embed() as connection, ml.create_context(connection=connection) as context:
        model = ml.MLModelLoader(context).load(model_with("deaths.abort"))
        low, high = model.compute(np.array([0], np.float32)), 1_000_000
        assert 0 <= low < high
        assert model.report.runtime != "probe 1"


def test_a_probe_runs_in_a_worker_like_any_other() -> None:
    with ProbeService() as service, service.probe() as probe:
        assert probe.model.report.runtime == "probe 1"
        with ml.embed() as connection:
            assert set(probe.model.isolation.layers) == set(connection.layers)
