"""What origins of the web learn of devices, over real workers: coarse classes, whatever happens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

import model_loader as ml
from tests.devices.little_delegate import compile_delegate
from tests.devices.models import chain, expected
from tests.support.host import user_namespaces_usable
from tests.support.raw_client import Service

pytestmark = pytest.mark.isolation

OPERATORS = ["ADD", "MUL", "FLOOR", "ADD"]
X = np.array([-2.25, 0, 1.5, 100], np.float32)
WEB, OWN = "https://a.example", None
HARDWARE = ("external", "little", "openvino")
"""Words that nobody of the web may be told."""


@contextmanager
def contexts(little: Path, fault: str, *origins: str | None) -> Iterator[list[ml.MLContext]]:
    """Contexts of a browser's origins, in a service whose one device has a fault."""
    device = f"external:little={little}" + (f",fault={fault}" if fault else "")
    with ExitStack() as stack:
        service = stack.enter_context(
            Service(None, "auto", devices=[device], embedder_uids=[os.geteuid()])
        )
        yield [
            ml.create_context(
                connection=stack.enter_context(ml.connect(service.directory, origin=origin)),
                execution_preference="undefined",
            )
            for origin in origins
        ]


def says_nothing(*texts: object) -> None:
    """Fail if one of these names a device."""
    for text in texts:
        assert not [word for word in HARDWARE if word in str(text)], text


def test_the_web_sees_coarse_classes_and_the_owner_all(little: Path) -> None:
    with contexts(little, "", WEB, OWN) as (web, own):
        with ml.MLModelLoader(web).load(chain(OPERATORS)) as model:
            assert np.array_equal(model.compute(X), expected(OPERATORS, X))
            report = model.delegation()
            assert report is not None
            assert report == ml.Delegation(0, report.partitions, coarse=True)
            # The little delegate says nothing of its type.
            assert [item.device for item in report.partitions] == ["other", "cpu"]
            assert {(item.nodes, item.run_seconds) for item in report.partitions} == {(0, None)}
            (row,) = web.connection.models()
            assert model.isolation.devices == row.isolation.devices == {}
            says_nothing(report, model.isolation, row, model.report)
            # Where a device runs all of a model, XNNPACK has nothing.
            assert (model.report.kernels, model.report.note) == ("", "")
        for options in ({"accelerator_name": "external:little"}, {"allow_fp16": True}):
            asked = ml.create_context(connection=web.connection, **options)
            with pytest.raises(ml.NotSupportedError, match="origins of the web") as refused:
                ml.MLModelLoader(asked).load(chain(OPERATORS))
            says_nothing(refused.value)
        with ml.MLModelLoader(own).load(chain(OPERATORS)) as model:
            whole = model.delegation()
            assert whole is not None
            assert [item.device for item in whole.partitions] == ["external:little"] * 2 + [
                "xnnpack"
            ]
            assert "external:little" in model.isolation.devices
            assert model.report.kernels == "xnnpack"


@pytest.mark.slow
@pytest.mark.skipif(
    not user_namespaces_usable(), reason="this host refuses user namespaces to this user"
)
def test_why_a_device_has_no_worker_is_not_told_to_the_web(tmp_path: Path) -> None:
    """A library that starts threads, and one day ends the process that loads it."""
    gone = tmp_path / "gone"
    dies = f'if (access("{gone}", F_OK) == 0) {{ puts("the little hardware is gone"); _exit(3); }}'
    tmp_path.chmod(0o755)
    with contexts(compile_delegate(tmp_path, threads=2, at_load=dies), "", WEB, OWN) as origins:
        for context in origins:
            ml.MLModelLoader(context).load(chain(OPERATORS)).close()
        gone.touch()
        for context, words in zip(
            origins,
            (
                "a worker could not be made",
                "a worker could not be made: its process ended before it had loaded the device",
            ),
            strict=True,
        ):
            with pytest.raises(ml.NetworkError) as failed:
                ml.MLModelLoader(context).load(chain(OPERATORS))
            assert str(failed.value) == words
            assert failed.value.last_words == ""


@pytest.mark.slow
def test_last_words_of_a_device_are_not_told_to_the_web(little: Path) -> None:
    with contexts(little, "abort", WEB, OWN) as origins:
        for context, words in zip(origins, (False, True), strict=True):
            model = ml.MLModelLoader(context).load(chain(OPERATORS))
            with pytest.raises(ml.OperationError, match="SIGABRT") as failed:
                model.compute(X)
            said = f"{failed.value} {vars(failed.value)} {model.lost}"
            assert ("the little delegate gives up" in said) is words
            if not words:
                says_nothing(said)
