"""Model bytes that the service has already and that a session may name in its next load."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from loader_service.broker.descriptors import OF_AN_OFFER, Descriptors
from loader_service.broker.groups import Owner
from loader_service.broker.model_bytes import ModelBytes
from loader_service.broker.outstanding import Outstanding
from loader_service.broker.refusal import Refusal, over_limit, refuse
from model_loader_wire.causes import Cause

OFFERS_OF_A_SESSION = 64
"""Offers of one session that no load has taken yet; each holds a descriptor."""


@dataclass(slots=True)
class _Offer:
    content: ModelBytes
    counted: int
    """Bytes of it that count as uploads under way."""
    expiry: asyncio.TimerHandle


class Offers:
    """One session's offers. Each is good for one load, and for a limited time."""

    def __init__(
        self, owner: Owner, uploads: Outstanding, descriptors: Descriptors, seconds: float
    ) -> None:
        """Count what is offered among the owner's `uploads` and the `descriptors` held for it.

        It is dropped after so many seconds.
        """
        self._owner = owner
        self._uploads = uploads
        self._descriptors = descriptors
        self._seconds = seconds
        self._offers: dict[bytes, _Offer] = {}

    def add(self, content: ModelBytes, most: int | None) -> bytes:
        """Take over bytes for a load; returns their name. Raises Refusal if there are too many.

        `most` is the limit upload_bytes for bytes that came from the client, None for such as the
        service holds anyway.
        """
        try:
            return self._add(content, most)
        except BaseException:
            content.close()
            raise

    def _add(self, content: ModelBytes, most: int | None) -> bytes:
        if len(self._offers) >= OFFERS_OF_A_SESSION:
            raise over_limit(
                "offers",
                len(self._offers) + 1,
                OFFERS_OF_A_SESSION,
                "too many models are offered that no load has taken",
            )
        counted = 0 if most is None else content.size
        self._descriptors.take(self._owner.principal, OF_AN_OFFER)
        if most is not None:
            try:
                self._uploads.take(self._owner, counted, most)
            except BaseException:
                self._descriptors.give_back(self._owner.principal, OF_AN_OFFER)
                raise
        name = secrets.token_bytes(16)
        expiry = asyncio.get_running_loop().call_later(self._seconds, self._expire, name)
        self._offers[name] = _Offer(content, counted, expiry)
        return name

    def take(self, name: bytes) -> ModelBytes:
        """Hand over what was offered by that name, once; raises Refusal for any other name."""
        content = self._remove(name)
        if content is None:
            raise no_offer()
        return content

    def close(self) -> None:
        """Drop them all."""
        for name in list(self._offers):
            self._expire(name)

    def _expire(self, name: bytes) -> None:
        content = self._remove(name)
        if content is not None:
            content.close()

    def _remove(self, name: bytes) -> ModelBytes | None:
        offer = self._offers.pop(name, None)
        if offer is None:
            return None
        offer.expiry.cancel()
        self._descriptors.give_back(self._owner.principal, OF_AN_OFFER)
        self._uploads.give_back(self._owner, offer.counted)
        return offer.content


def no_offer() -> Refusal:
    """Say that a name is none, or none any more."""
    return refuse(Cause.FORBIDDEN, "this session has no offer of that name, or it expired")
