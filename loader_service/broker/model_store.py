"""Models that are kept for a while, so that the same bytes need not be sent again."""

from __future__ import annotations

from collections import OrderedDict

from loader_service.broker.groups import Owner
from loader_service.broker.model_bytes import ModelBytes

Key = tuple[str, bytes]


class ModelStore:
    """Bytes by owner and digest; nobody finds, or can time, what another origin holds."""

    def __init__(self, kept_bytes: int, most: int) -> None:
        """Keep at most so many bytes, and so many models, for each principal; what was used longest
        ago gives way.
        """
        self._kept_bytes = kept_bytes
        self._most = most
        self._of: dict[int, OrderedDict[Key, ModelBytes]] = {}

    def takes(self, size: int) -> bool:
        """Whether bytes of that size would be kept."""
        return 0 < size <= self._kept_bytes and self._most > 0

    def find(self, owner: Owner, sha256: bytes) -> ModelBytes | None:
        """Return bytes that the same owner has loaded, or None."""
        models = self._of.get(owner.principal)
        content = models.get((owner.origin, sha256)) if models else None
        if models and content is not None:
            models.move_to_end((owner.origin, sha256))
        return content

    def keep(self, owner: Owner, sha256: bytes, content: ModelBytes) -> None:
        """Keep a copy of the descriptor of a model that was loaded."""
        if not self.takes(content.size):
            return
        models = self._of.setdefault(owner.principal, OrderedDict())
        if (owner.origin, sha256) not in models:
            models[owner.origin, sha256] = content.copy()
        models.move_to_end((owner.origin, sha256))
        while len(models) > self._most or _bytes(models) > self._kept_bytes:
            models.popitem(last=False)[1].close()

    def forget(self, principal: int) -> None:
        """Let go of all that a principal holds."""
        for content in self._of.pop(principal, {}).values():
            content.close()


def _bytes(models: OrderedDict[Key, ModelBytes]) -> int:
    return sum(content.size for content in models.values())
