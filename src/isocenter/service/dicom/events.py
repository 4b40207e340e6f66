"""The events of one association for the audit, as lines of the journal: a receiver reaches no database."""

from __future__ import annotations

import time
import uuid

from isocenter.service.dicom.pdus import (
    CALLED_UNKNOWN,
    CALLING_UNKNOWN,
    CONGESTION,
    CONTEXT_UNKNOWN,
    Connection,
    Request,
)
from isocenter.service.objects.journal import Happened
from isocenter.service.objects.store import ObjectStore

REASONS = {
    CALLED_UNKNOWN: "the called title is not that of the node",
    CALLING_UNKNOWN: "no peer of this title and address is listed",
    CONTEXT_UNKNOWN: "the application context is not that of DICOM",
    CONGESTION: "too many associations, or a full disk",
}
FOR_WANT_OF_A_RIGHT = (CALLED_UNKNOWN, CALLING_UNKNOWN)


class AssociationEvents:
    """Requests and refusals of an association. Its methods raise ResourceError where nothing can be written."""

    def __init__(self, connection: Connection, request: Request, store: ObjectStore) -> None:
        self.connection, self.request, self.store = connection, request, store
        self._refused = set[str]()

    def opened(self, because: tuple[int, int, int] | None) -> None:
        """Record that it was accepted, or rejected with result, source and reason."""
        outcome = "success" if because is None else "refused" if because in FOR_WANT_OF_A_RIGHT else "failure"
        self._note("association", self.request.called, outcome, "" if because is None else REASONS[because])

    def refused(self, what: str) -> None:
        """Record that it asked for what its peer may not do; a peer that repeats it is no further event."""
        if what not in self._refused:
            self._note("refusal", what, "refused", "the peer's `may` does not list it")
            self._refused.add(what)

    def _note(self, action: str, thing: str, outcome: str, reason: str) -> None:
        who = (self.request.calling, self.connection.address)
        self.store.note(Happened(uuid.uuid4().hex, action, thing, *who, time.time(), outcome, reason))
