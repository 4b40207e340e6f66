"""Answers and reports to peers, notices to people, and words about what is kept: threads in the keeper's process.

What was superseded is taken back where it was sent, by a rejection note, once its successor has been sent.
"""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy import select

from hilum import errors
from hilum.errors import FormatError, HilumError, ResourceError
from hilum.files.dicom import rejection
from hilum.files.dicom.rejection import KEY_OBJECTS
from hilum.files.dicom.writing import stamp
from hilum.files.dicom.writing.stamp import Stamp
from hilum.files.storage import hashing
from hilum.runtime import record_files
from hilum.service import _delivering, _node_threads
from hilum.service.configuration import NodeSettings, PeerSection
from hilum.service.dicom import asking, dicom_listening, sending
from hilum.service.dicom.dicom_listening import DicomPeer
from hilum.service.dicom.sending import PeerError, SendOutcome
from hilum.service.exchange.fhir_server import BusyError
from hilum.service.objects import object_store
from hilum.service.objects.journal import CommitmentReport, CommitmentRequest, JournalLine, ReplyFile
from hilum.service.records import delivery_outbox
from hilum.service.records.delivery_outbox import TAKEN_BACK, Delivery, Outbox, SupersededJob
from hilum.service.records.job_queue import REJECTION, ResultFile
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.study_index import StudyIndex
from hilum.service.records.tables import INSTANCES, STUDIES
from hilum.values import grouping
from hilum.work_state import log

# Between two looks at the outbox (s); answers in one association; how long a report may come on the same association.
LOOK_S, AT_ONCE, REPORT_S = 0.1, 10, 2.0
# How long a peer may take for a report on the association on which it asked (s), before it gets one of its own.
TAKEN_S = 5.0
# A request for commitment may come before the rows of its objects: so often, and so long apart (s), it is looked again.
TRIES, AGAIN_S = 5, 1.0
# Between two looks for answers to peers that are not listed, and for results that were superseded (s).
LISTED_S = 10.0
# Between two questions for counts (s); how long a study has to rest before one, because a peer that hands objects on
# as they come to it has at every moment as many as are here; and how long a peer that says none is left alone.
COUNT_S, REST_S, SILENT_S = 1.0, 5.0, 600.0
# Statuses of C-STORE that no other try will change: refused class, wrong UID, another class (A9xx), not understood
# (Cxxx). PS3.4 B.2.3
FINAL = frozenset((0x0122, 0x0117, *range(0xA900, 0xAA00), *range(0xC000, 0xD000)))


class Couriers:
    """Carries what waits in the outbox to its peers; tells peers what is safe here, and hears what is safe there."""

    def __init__(self, settings: NodeSettings, database: Database) -> None:
        self.settings, self.database = settings, database
        self.outbox = Outbox(database, settings.queue.lease_s)
        self.rejecter = RejectionWriter(settings, self.outbox)
        self.us = settings.dicom.ae_title
        self.peers = {one.name: one for one in settings.peers}
        self.recipients = {one.recipient: one for one in settings.notify}
        self.requests: queue.SimpleQueue[CommitmentRequest] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.index = StudyIndex(database)
        self._away: set[str] = set()  # peers that have not answered
        self._silent: dict[str, float] = {}  # AE titles that say no counts, until when they are not asked

    def hear(self, line: JournalLine) -> None:
        """A line of a journal that is no object: what a peer asks to be safe here, or says is safe there."""
        match line:
            case CommitmentRequest():
                self.requests.put(line)
            case CommitmentReport():
                self._believe(line)
            case _:
                log.warning("a line of a journal could not be read")

    def start(self, stop: threading.Event) -> None:
        """A thread for each peer, and one for each step that looks at all of them, until `stop`."""
        carried = (*self.peers, *self.settings.report_to, *self.recipients)
        steps: list[tuple[Callable[[], int], float]] = [(partial(self.deliver, name), 0.0) for name in carried]
        steps += [(self.vouch, 0.0), (self.count, COUNT_S), (self.give_up, LISTED_S)]
        if self.settings.report_to or any(peer.reject for peer in self.settings.peers):
            steps.append((self.rejecter.round, LISTED_S))
        for step, rest_s in steps:
            pauses = {"rest_s": rest_s, "idle_s": LOOK_S, "again_s": AGAIN_S}
            thread = threading.Thread(
                target=_node_threads.repeat_step, args=(step, stop, "a courier"), kwargs=pauses, daemon=True
            )
            thread.start()
            self.threads.append(thread)

    def deliver(self, peer: str) -> int:
        """Send a few of the answers that wait for a peer, and return the number that it has taken."""
        waiting = self.outbox.claim(peer, AT_ONCE)
        if not waiting:
            return 0
        to = self.peers.get(peer)
        try:
            with errors.foreign_errors(_unforeseen):
                rows = self._send_to_peer(peer, waiting)
        except HilumError as error:
            for delivery in waiting:
                self._note_failure(
                    delivery, error.problem, after_s=error.after_s if isinstance(error, BusyError) else 0.0
                )
            if not isinstance(error, PeerError):
                raise
            if peer not in self._away:
                log.warning("peer %s: %s; answers wait for it", peer, error.problem)
            self._away.add(peer)
            return 0
        if peer in self._away:
            log.info("peer %s takes answers again", peer)
            self._away.remove(peer)
        for delivery, row in zip(waiting, rows, strict=True):
            self._note(delivery, row)
        sent = [row for row in rows if row.is_stored]
        if sent and to is not None and to.commit and to.dicomweb is None:
            self._ask(dicom_listening.peer_of_settings(to), sent)
        return len(sent)

    def give_up(self) -> int:
        """Set aside answers to peers that are no longer listed, for nobody else carries them; return their number."""
        given_up = self.outbox.give_up_unlisted([*self.peers, *self.settings.report_to, *self.recipients])
        for peer, count in given_up.items():
            log.warning(
                "peer %s is no longer listed: %s aside",
                peer,
                errors.count_phrase(count, "answer for it is", "answers for it are"),
            )
        return sum(given_up.values())

    def _send_to_peer(self, peer: str, waiting: Sequence[Delivery]) -> Sequence[SendOutcome]:
        """The outcome of sending to a peer: by STOW-RS where it has DICOMweb, else by C-STORE.

        Of notices it is that of their webhook or server of e-mail, of reports that of FHIR or HL7.
        """
        folder = self.settings.folder / "results"
        paths = [folder / one.job / one.name for one in waiting]
        if (recipient := self.recipients.get(peer)) is not None:
            return _delivering.send_notices(recipient, self.settings.smtp, paths, idle_s=self.settings.dicom.idle_s)
        if (to := self.peers.get(peer)) is None:
            return _delivering.send_reports(peer, self.settings, self.outbox.database, paths)
        if to.deidentify is not None:
            return _delivering.send_without_identity(to.deidentify, paths, partial(self._send_objects, to))
        return self._send_objects(to, paths)

    def _send_objects(self, to: PeerSection, paths: Sequence[Path]) -> list[SendOutcome]:
        if to.dicomweb is None:
            return sending.send_files(
                self.us, dicom_listening.peer_of_settings(to), paths, idle_s=self.settings.dicom.idle_s
            )
        return _delivering.store_over_web(to.dicomweb, paths, peer=to.name, idle_s=self.settings.dicom.idle_s)

    def _note(self, delivery: Delivery, row: SendOutcome) -> None:
        status = "" if row.status is None else f"status {row.status:04X}"
        if row.is_stored:
            self.outbox.sent(delivery, row.instance)
        elif row.status in FINAL:
            self.outbox.note_refusal(delivery, f"the peer refuses it for good: {row.problem or status}")
            # The peer's own words may name the patient.
            log.warning("peer %s refuses an answer of job %s with %s: it is aside", delivery.peer, delivery.job, status)
        else:
            self._note_failure(delivery, row.problem or status)

    def _note_failure(self, delivery: Delivery, reason: str, *, after_s: float = 0.0) -> None:
        if self.outbox.note_failure(delivery, reason, after_s=after_s):
            log.warning("peer %s has not taken an answer of job %s for days: it is aside", delivery.peer, delivery.job)

    def _ask(self, peer: DicomPeer, sent: Sequence[SendOutcome]) -> None:
        """Have the peer be answerable for what it took; a report may come later, to our receiver."""
        transaction = f"2.25.{uuid.uuid4().int}"
        classes, uids = tuple(one.sop_class for one in sent), tuple(one.instance for one in sent)
        request = CommitmentRequest(transaction, peer.ae_title, classes, uids, time.time())
        try:
            report = asking.request_commitment(self.us, peer, request, wait_s=REPORT_S)
        except PeerError as error:
            log.info("peer %s commits nothing: %s", peer.name, error.problem)
            return
        if report is not None:
            self._believe(report)

    def _believe(self, report: CommitmentReport) -> None:
        for name, peer in self.peers.items():
            if peer.ae_title == report.peer:
                self.outbox.note_commitment(list(report.committed), name)
                if count := self.outbox.note_disowning(report.failed, name):
                    words = errors.count_phrase(
                        count, "answer that it took, which is", "answers that it took, which are"
                    )
                    log.warning("peer %s reports that it does not keep %s aside", name, words)

    def vouch(self) -> int:
        """Answer one request for commitment, once the objects survive a power cut; return the number that do."""
        try:
            request = self.requests.get_nowait()
        except queue.Empty:
            return 0
        peer = next((one for one in self.peers.values() if one.ae_title == request.peer and "commit" in one.may), None)
        if peer is None:
            log.warning("a peer that is not listed asks for commitment")
            return 0
        try:
            paths = self._secure_objects(request.instances)
        except ResourceError:
            self.requests.put(request)  # the peer was told that it gets a report
            raise
        reply = ReplyFile(self.settings.folder / "inbox" / request.reply)
        if request.reply and reply.give(paths.keys(), TAKEN_S):
            return len(paths)
        try:
            asking.report_commitment(self.us, dicom_listening.peer_of_settings(peer), request, frozenset(paths))
        except PeerError as error:
            log.warning("peer %s gets no commitment report: %s", peer.name, error.problem)
        return len(paths)

    def count(self) -> int:
        """Ask the senders of studies that are still coming in how many objects there are; all here is complete."""
        complete = 0
        coming = self.database.rows(
            select(STUDIES.c.study, STUDIES.c.uid, STUDIES.c.instances, INSTANCES.c.peer)
            .join(INSTANCES, INSTANCES.c.study == STUDIES.c.study)
            .where(STUDIES.c.state == "receiving", STUDIES.c.last_at <= DatabaseClock() - REST_S)
            .distinct()
        )
        for study, uid, here, title in coming:
            peer = next((one for one in self.peers.values() if one.ae_title == title), None)
            if peer is None or time.monotonic() < self._silent.get(title, 0.0):
                continue
            asked = {"StudyInstanceUID": uid, "NumberOfStudyRelatedInstances": ""}
            try:
                answers = asking.find_records(self.us, dicom_listening.peer_of_settings(peer), asked, "STUDY")
            except PeerError:
                answers = []
            counts = [one.get("NumberOfStudyRelatedInstances", "") for one in answers]
            if counts == [str(here)]:
                complete += self.index.hurry(study)
            elif not any(counts):  # it is none that is asked, such as a scanner
                self._silent[title] = time.monotonic() + SILENT_S
        return complete

    def _secure_objects(self, uids: Sequence[str]) -> Mapping[str, set[str]]:
        """{UID: paths} of objects that are here and survive a power cut; their rows may take a moment to come."""
        paths = self._paths(uids)
        for _ in range(TRIES):
            if len(paths) == len(set(uids)):
                break
            time.sleep(AGAIN_S)
            paths = self._paths(uids)
        folder, secured = self.settings.folder, set[str]().union(*paths.values())
        # What came under the same UID lies aside: whoever sent that relies on it as well.
        asides = [
            one.path.relative_to(folder).as_posix() for one in object_store.read_asides(folder) if one.first in secured
        ]
        object_store.secure_files(folder, [*secured, *asides])
        return paths

    def _paths(self, uids: Sequence[str]) -> Mapping[str, set[str]]:
        """{UID: paths} of objects that are here: in the records, and with their file; two studies may share a UID."""
        query = select(INSTANCES.c.uid, INSTANCES.c.path).where(INSTANCES.c.uid.in_(uids))
        rows = self.database.rows(query)
        return grouping.distinct_by_key(
            (row.uid, row.path) for row in rows if (self.settings.folder / row.path).exists()
        )


def _unforeseen(error: Exception) -> HilumError:
    return HilumError(f"{type(error).__name__} was not expected", "courier", "It tries again")


def _write_report_note(path: Path, superseded: SupersededJob) -> ResultFile:
    """The note by which a report is taken back, as a file of the job."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record_files.write_json(path, TAKEN_BACK, {"because": superseded.reason})
    return ResultFile(path.name, REJECTION, path.stat().st_size, hashing.file_hash(path))


@dataclass(frozen=True, eq=False)
class RejectionWriter:
    """Writes the notes for peers with `reject`, and for those that get reports, in the keeper's process.

    undone: jobs and peers for which no note can be written, because their files are gone
    """

    settings: NodeSettings
    outbox: Outbox
    undone: set[tuple[str, str]] = field(default_factory=set)

    def round(self) -> int:
        """Put a note into the outbox for each superseded job that a peer has results of; return the number of notes."""
        rejecting = [peer.name for peer in self.settings.peers if peer.reject]
        due = self.outbox.to_reject([*rejecting, *self.settings.report_to])
        return sum(self._note_rejection(one) for one in due if (one.job, one.peer) not in self.undone)

    def _note_rejection(self, superseded: SupersededJob) -> bool:
        """Whether there is a note for a job and a peer from now on."""
        of_report = superseded.peer in self.settings.report_to
        folder = self.settings.folder / "results" / superseded.job
        name = delivery_outbox.note_name(superseded.peer, of_report=of_report)
        if of_report:
            return self.outbox.add_note(superseded, _write_report_note(folder / name, superseded))
        present = {folder / one: uid for one, uid in superseded.objects.items() if (folder / one).exists()}
        try:
            answer = self._write_note(folder / name, present, superseded)
        except FormatError as error:
            log.warning("job %s: no rejection note can be written: %s", superseded.job, error.problem)
            self.undone.add((superseded.job, superseded.peer))
            return False
        return self.outbox.add_note(superseded, answer)

    def _write_note(self, path: Path, objects: Mapping[Path, str], superseded: SupersededJob) -> ResultFile:
        """The note as a file of the job; written again after a crash it is the same."""
        if not objects:
            raise FormatError("the results that it would name are gone", str(path), "Reject them in the PACS")
        rejection.write_rejection(objects, path, reason=f"superseded: {superseded.reason}", overwrite=True)
        node = self.settings.node
        note_stamp = Stamp(node.uid_root, f"{superseded.job} {path.name}", superseded.since, node.text)
        uid = str(stamp.apply_stamp(path, note_stamp).SOPInstanceUID)
        return ResultFile(path.name, REJECTION, path.stat().st_size, hashing.file_hash(path), KEY_OBJECTS, uid)
