"""Requests of the node to peers beside C-STORE: C-FIND, C-MOVE, C-GET and storage commitment."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from hilum.lazy import pydicom, pynetdicom
from hilum.service.dicom import pynetdicom_events
from hilum.service.dicom.dicom_listening import DicomPeer
from hilum.service.dicom.messages import COMMITMENT, COMMITMENT_INSTANCE, EXPLICIT, IMPLICIT, SUCCESS
from hilum.service.dicom.sending import IDLE_S, MOST_CONTEXTS, WARNINGS, PeerError
from hilum.service.objects.journal import CommitmentReport, CommitmentRequest
from hilum.service.objects.object_store import ObjectStore

Level = Literal["STUDY", "SERIES", "IMAGE"]

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{n}" for n in (1, 2, 3))  # study root, PS3.4 C.6.2
NATIVE = (EXPLICIT, IMPLICIT)
PENDING = (0xFF00, 0xFF01)
SETTLED_S = 0.02


def find_records(
    us: str, peer: DicomPeer, attributes: Mapping[str, str], level: Level, *, idle_s: float = IDLE_S
) -> list[dict[str, str]]:
    """Records that a peer has, as {keyword: text}; an empty text asks for a value. Raises PeerError."""
    with _associate(us, peer, [(FIND, NATIVE)], idle_s) as association:
        rows = []
        for status, answer in association.send_c_find(_identifier(attributes, level), FIND):
            if _status(status, peer, *PENDING) in PENDING and answer is not None:
                rows.append({one.keyword: "" if one.is_empty else str(one.value) for one in answer if one.keyword})
    return rows


def move_objects(
    us: str, peer: DicomPeer, attributes: Mapping[str, str], level: Level, to: str, *, idle_s: float = IDLE_S
) -> int:
    """Have a peer send objects to an AE title that it knows; return the number sent. Raises PeerError."""
    with _associate(us, peer, [(MOVE, NATIVE)], idle_s) as association:
        return _count_moved(association.send_c_move(_identifier(attributes, level), to, MOVE), peer)


def fetch_objects(
    us: str,
    peer: DicomPeer,
    attributes: Mapping[str, str],
    level: Level,
    into: ObjectStore,
    *,
    classes: Sequence[str] = (),
    idle_s: float = IDLE_S,
) -> int:
    """Have a peer send objects here and now, of these or the usual classes; return the number taken. PeerError."""
    usual = [str(one.abstract_syntax) for one in pynetdicom.StoragePresentationContexts]
    taken = list(dict.fromkeys([*classes, *usual]))[: MOST_CONTEXTS - 1]
    syntaxes = list(dict.fromkeys([*NATIVE, *map(str, pynetdicom.ALL_TRANSFER_SYNTAXES)]))
    contexts = [(GET, NATIVE), *((one, syntaxes) for one in taken)]
    roles = [pynetdicom.build_role(one, scp_role=True) for one in taken]
    handlers = [(pynetdicom.evt.EVT_C_STORE, lambda event: pynetdicom_events.keep_object(into, event, peer.ae_title))]
    inbox = into.journal.folder
    with _associate(us, peer, contexts, idle_s, roles=roles, handlers=handlers, inbox=inbox) as association:
        return _count_moved(association.send_c_get(_identifier(attributes, level), GET), peer)


def request_commitment(
    us: str, peer: DicomPeer, request: CommitmentRequest, *, wait_s: float = 0.0, idle_s: float = IDLE_S
) -> CommitmentReport | None:
    """Ask a peer to be answerable for objects: its report, or None where that will come to our receiver later.

    Raises PeerError.
    """
    reports: list[CommitmentReport] = []
    came = threading.Event()

    def note(event: Any) -> tuple[int, None]:
        """Keep a report that comes on this association."""
        reports.append(pynetdicom_events.parse_commitment_report(event, peer.ae_title))
        came.set()
        return SUCCESS, None

    dataset = pydicom.Dataset()
    dataset.TransactionUID = request.transaction
    dataset.ReferencedSOPSequence = pynetdicom_events.reference_sequence(
        zip(request.classes, request.instances, strict=True)
    )
    handlers = [(pynetdicom.evt.EVT_N_EVENT_REPORT, note)]
    with _associate(us, peer, [(COMMITMENT, NATIVE)], idle_s, handlers=handlers) as association:
        _status(association.send_n_action(dataset, 1, COMMITMENT, COMMITMENT_INSTANCE)[0], peer)
        came.wait(wait_s)
    return next(iter(reports), None)


def report_commitment(
    us: str, peer: DicomPeer, request: CommitmentRequest, safe: frozenset[str], *, idle_s: float = IDLE_S
) -> None:
    """Tell a peer which of the objects that it asked about are safe here, by their UIDs. Raises PeerError."""
    kind, dataset = pynetdicom_events.commitment_report(request, safe)
    roles = [pynetdicom.build_role(COMMITMENT, scp_role=True)]
    with _associate(us, peer, [(COMMITMENT, NATIVE)], idle_s, roles=roles) as association:
        _status(association.send_n_event_report(dataset, kind, COMMITMENT, COMMITMENT_INSTANCE)[0], peer)


@contextmanager
def _associate(
    us: str,
    peer: DicomPeer,
    contexts: Sequence[tuple[str, Sequence[str]]],
    idle_s: float,
    *,
    roles: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
    inbox: Path | None = None,
) -> Iterator[Any]:
    """An association for these classes, each with its syntaxes."""
    proposed = [pynetdicom.build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in contexts]
    ours = pynetdicom_events.application_entity(us, idle_s, inbox)
    handlers = [*handlers, (pynetdicom.evt.EVT_CONN_OPEN, _at_once)]
    association = ours.associate(
        peer.host,
        peer.port,
        proposed,
        peer.ae_title,
        ext_neg=list(roles),
        evt_handlers=list(handlers),
        tls_args=None if peer.tls is None else (peer.tls.context, peer.host),
    )
    if not association.is_established:
        problem = "rejects the association" if association.is_rejected else "cannot be reached"
        raise PeerError(problem, peer.place, "Check the address, both AE titles, and that each knows the other")
    try:
        # Its own thread may be about to look for a message, and would take the answer to ours: let it come to rest.
        association._reactor_checkpoint.clear()
        time.sleep(SETTLED_S)
        yield association
    finally:
        if association.is_established:
            association.release()


def _at_once(event: Any) -> None:
    """Nagle's algorithm would hold the end of each message back for 40 ms."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _identifier(attributes: Mapping[str, str], level: Level) -> pydicom.Dataset:
    identifier = pydicom.Dataset()
    for keyword, text in {"QueryRetrieveLevel": level, **attributes}.items():
        setattr(identifier, keyword, text)
    if not all(text.isascii() for text in attributes.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    return identifier


def _count_moved(answers: Iterator[tuple[pydicom.Dataset, Any]], peer: DicomPeer) -> int:
    """The number of objects that were sent, of the last answer."""
    count = 0
    for status, _ in answers:
        _status(status, peer, *PENDING, *WARNINGS)
        count = int(status.get("NumberOfCompletedSuboperations", count))
    return count


def _status(answer: pydicom.Dataset, peer: DicomPeer, *others: int) -> int:
    """The status of an answer. Raises PeerError where there is none, or it is a failure."""
    status = answer.get("Status")
    if status is None:
        raise PeerError("gives no answer", peer.place, "See what its log says")
    if status not in (SUCCESS, *others):
        raise PeerError(f"answers with status {int(status):04X}", peer.place, "See what its log says")
    return int(status)
