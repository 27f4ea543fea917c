"""Compiled partitions over real workers: what is found again, by whom, and what is not believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from tests.devices.keeping_device import NAME
from tests.devices.models import chain, expected
from tests.devices.openvino_worker import need_openvino
from tests.support.raw_client import Service

pytestmark = pytest.mark.isolation

OPERATORS = ["ADD", "MUL", "FLOOR", "ADD"]
X = np.array([-2.25, 0, 1.5, 100], np.float32)
TOKEN, OTHER_TOKEN = b"1" * 32, b"2" * 32


class KeepingService(Service):
    """A service with the device that keeps what it compiles."""

    module = "tests.devices.keeping_broker"

    def __init__(self, **settings: object) -> None:
        super().__init__(None, "auto", devices=[NAME], **settings)

    def load(
        self, token: bytes | None, operators: list[str] = OPERATORS, origin: str | None = None
    ) -> list[str]:
        """Load a model, check its answer, and return what the report says of the cache."""
        options: dict[str, Any] = {} if token is None else {"cache_token": token}
        with (
            ml.connect(self.directory, origin=origin) as connection,
            ml.create_context(connection=connection, accelerator_name=NAME, **options) as context,
        ):
            model = ml.MLModelLoader(context).load(chain(operators))
            assert np.array_equal(model.compute(X), expected(operators, X))
            report = model.delegation()
            assert report is not None
            return [part.cache for part in report.partitions if part.device == NAME]


@pytest.fixture
def service() -> Iterator[KeepingService]:
    """A service that has compiled nothing yet."""
    with KeepingService() as started:
        yield started


def test_what_was_compiled_is_found_by_the_next_load_of_the_same(service: KeepingService) -> None:
    assert service.load(TOKEN) == ["miss", "miss"]
    assert service.load(TOKEN) == ["hit", "hit"]
    # By no other token, model or origin; and without a token nothing is asked for.
    assert service.load(OTHER_TOKEN) == ["miss", "miss"]
    assert service.load(TOKEN, ["ADD", "MUL", "FLOOR", "MUL"]) == ["miss", "miss"]
    assert service.load(TOKEN, origin="another program") == ["miss", "miss"]
    assert service.load(None) == ["", ""]
    assert service.load(TOKEN) == ["hit", "hit"]


@pytest.mark.slow
def test_what_openvino_compiled_is_found_by_the_next_load() -> None:
    need_openvino()
    options = {"accelerator_name": "openvino", "cache_token": TOKEN}
    with ml.embed(devices=["openvino"]) as connection:
        found = []
        for _ in range(2):
            context = ml.create_context(connection=connection, **options)  # type: ignore[arg-type]
            with ml.MLModelLoader(context).load(chain(OPERATORS)) as model:
                answer = model.compute(X)
                np.testing.assert_allclose(answer, expected(OPERATORS, X), rtol=1e-6)
                report = model.delegation()
                assert report is not None
                found.append([(part.device, part.cache) for part in report.partitions])
    assert found == [[("openvino:CPU", "miss")], [("openvino:CPU", "hit")]]


@pytest.mark.slow
def test_nothing_is_kept_where_that_is_the_limit() -> None:
    with KeepingService(compiled_cache_bytes=0) as service:
        assert [service.load(TOKEN), service.load(TOKEN)] == [["", ""]] * 2


@pytest.mark.slow
def test_an_entry_that_is_too_large_is_compiled_each_time() -> None:
    with KeepingService(compiled_cache_bytes=8 * 99_999) as service:
        assert [service.load(TOKEN), service.load(TOKEN)] == [["miss", "miss"]] * 2


@pytest.mark.slow
def test_a_directory_outlives_the_service_and_damage_is_compiled_anew(tmp_path: Path) -> None:
    folder = tmp_path / "compiled"
    with KeepingService(compiled_cache_directory=str(folder)) as service:
        assert service.load(TOKEN) == ["miss", "miss"]
    for path in folder.glob("*-*"):
        assert path.stat().st_size > 100_000
    with KeepingService(compiled_cache_directory=str(folder)) as service:
        assert service.load(TOKEN) == ["hit", "hit"]
    first, *_ = sorted(folder.glob("*-*"))
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    with KeepingService(compiled_cache_directory=str(folder)) as service:
        assert sorted(service.load(TOKEN)) == ["hit", "miss"]
        assert service.load(TOKEN) == ["hit", "hit"]
