"""What is kept of loaded models: bounded in number and in bytes, apart by owner."""

from __future__ import annotations

from loader_service.broker.descriptors import MOST_KEPT
from loader_service.broker.groups import Owner
from loader_service.broker.model_bytes import Collecting, ModelBytes
from loader_service.broker.model_store import ModelStore

OWNER = Owner(1000, "here")


def content(size: int) -> ModelBytes:
    """Sealed memory of that many bytes."""
    collecting = Collecting()
    collecting.add(memoryview(bytes(size)))
    return collecting.seal()


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_small_models_do_not_use_up_the_descriptors() -> None:
    store = ModelStore(1 << 20, MOST_KEPT)
    for number in range(MOST_KEPT + 10):
        store.keep(OWNER, digest(number), content(8))
    kept = [store.find(OWNER, digest(number)) is not None for number in range(MOST_KEPT + 10)]
    assert kept == [False] * 10 + [True] * MOST_KEPT


def test_large_models_give_way_by_their_bytes() -> None:
    store = ModelStore(100, MOST_KEPT)
    for number in range(3):
        store.keep(OWNER, digest(number), content(40))
    assert store.find(OWNER, digest(0)) is None
    assert store.find(OWNER, digest(2)) is not None
    assert store.find(Owner(1000, "elsewhere"), digest(2)) is None
