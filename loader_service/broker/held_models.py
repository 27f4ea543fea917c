"""Model bytes that need not be uploaded: offered by their client, or kept from an earlier load."""

from __future__ import annotations

from loader_service.broker.descriptors import Descriptors
from loader_service.broker.model_bytes import ModelBytes
from loader_service.broker.model_store import ModelStore
from loader_service.broker.offers import Offers, no_offer
from loader_service.broker.outstanding import Outstanding
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import refuse
from loader_service.broker.sessions import Session, Sessions
from loader_service.broker.settings import Settings
from loader_service.broker.upload import check_size
from model_loader_wire.causes import Cause


class HeldModels:
    """What each session may load by a name instead of its bytes."""

    def __init__(
        self,
        settings: Settings,
        principals: Principals,
        sessions: Sessions,
        uploads: Outstanding,
        descriptors: Descriptors,
    ) -> None:
        self._principals = principals
        self._descriptors = descriptors
        self._settings = settings
        self._sessions = sessions
        self._uploads = uploads
        self._store = ModelStore(settings.kept_model_bytes, descriptors.kept_models)
        self._offers: dict[Session, Offers] = {}
        sessions.when_closed.append(self._forget)

    def offer(self, session: Session, descriptor: int, size: int) -> bytes:
        """Take over a client's sealed memory; returns the offer's name. Raises Refusal."""
        content = ModelBytes(descriptor)
        try:
            if content.size != size:
                raise refuse(
                    Cause.INVALID_INPUT,
                    f"{size} bytes were announced, {content.size} were offered",
                )
            limits = self._principals.policy_for(session.owner).limits
            check_size(size, limits)
        except BaseException:
            content.close()
            raise
        return self._offers_of(session).add(content, limits.upload_bytes or 0)

    def find(self, session: Session, sha256: bytes) -> bytes:
        """Return the name of bytes that the session's origin has loaded before, or none (empty)."""
        content = self._store.find(session.owner, sha256)
        return b"" if content is None else self._offers_of(session).add(content.copy(), None)

    def lend(self, session: Session, content: ModelBytes) -> bytes:
        """Name the service's own bytes for one load; they are not kept for the session's origin."""
        lent = content.copy()
        lent.may_be_kept = False
        return self._offers_of(session).add(lent, None)

    def take(self, session: Session, name: bytes) -> ModelBytes:
        """Hand over the bytes of that name, which is then used up; raises Refusal for another."""
        # A session that is over has none, and must get none: nobody would close it again.
        offers = self._offers.get(session)
        if offers is None:
            raise no_offer()
        return offers.take(name)

    def keeps(self, size: int) -> bool:
        """Whether a model of that size would be kept."""
        return self._store.takes(size)

    def keep(self, session: Session, sha256: bytes, content: ModelBytes) -> None:
        """Keep a model that was loaded, until the last session of its principal ends."""
        if not session.closed and content.may_be_kept:
            self._store.keep(session.owner, sha256, content)

    def _offers_of(self, session: Session) -> Offers:
        offers = self._offers.get(session)
        if offers is None:
            seconds = self._settings.claim_seconds
            offers = Offers(session.owner, self._uploads, self._descriptors, seconds)
            self._offers[session] = offers
        return offers

    def _forget(self, session: Session) -> None:
        if offers := self._offers.pop(session, None):
            offers.close()
        if not self._sessions.of_principal(session.principal):
            self._store.forget(session.principal)
