"""Associations for more than storage: pynetdicom serves them over a pair of sockets; the records keep workitems."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING, Any

from hilum.errors import HilumError
from hilum.files.dicom import library_warnings
from hilum.lazy import pydicom, pynetdicom
from hilum.service.dicom import messages, pynetdicom_events
from hilum.service.dicom.dicom_listening import AssociationEvents, ListenerSettings
from hilum.service.dimse_statuses import UPS_PUSH, WorkitemError
from hilum.service.objects import dicom_json
from hilum.service.objects.dicom_json import Conditions
from hilum.service.objects.journal import CommitmentRequest, ReplyFile
from hilum.service.objects.object_store import ObjectStore
from hilum.service.records.actor import Actor

if TYPE_CHECKING:
    from hilum.service.records.workitem_records import Workitems


UPS_PULL = "1.2.840.10008.5.1.4.34.6.3"
UPS_CLASSES = (UPS_PUSH, UPS_PULL)
CHANGE_STATE, REQUEST_CANCEL = 1, 2  # of N-ACTION, PS3.4 CC.2.1 and CC.2.2
PENDING, NO_SUCH_ACTION, PROCESSING_FAILURE = 0xFF00, 0x0123, 0x0110
Answer = tuple[Any, "pydicom.Dataset | None"]


@dataclass(frozen=True, eq=False)
class UpsService:
    """The answers to one association's messages about workitems.

    opened: the records, once they are asked for
    who:    the peer
    """

    opened: Callable[[], Workitems]
    who: Actor

    @property
    def handlers(self) -> list[Any]:
        """The events of pynetdicom that it answers, but N-ACTION, which other services have too."""
        events = pynetdicom.evt
        return [
            (events.EVT_N_CREATE, self._create),
            (events.EVT_N_SET, self._update),
            (events.EVT_N_GET, self._get),
            (events.EVT_C_FIND, self._find),
        ]

    def act(self, event: Any) -> Answer:
        """The answer to an N-ACTION: a change of state, or a wish to cancel."""

        def done(workitems: Workitems) -> None:
            uid = str(event.request.RequestedSOPInstanceUID)
            # A wish to cancel may come without any information.
            information = event.action_information if event.request.ActionInformation else pydicom.Dataset()
            if event.action_type == CHANGE_STATE:
                state, transaction = (
                    str(information.get(one) or "") for one in ("ProcedureStepState", "TransactionUID")
                )
                workitems.change_state(uid, state, transaction, who=self.who)
            elif event.action_type == REQUEST_CANCEL:
                workitems.request_cancel(uid, str(information.get("ReasonForCancellation") or ""), who=self.who)
            else:
                raise WorkitemError(NO_SUCH_ACTION, "the node has no event channels", uid, "Retrieve the workitem")

        return self._answer(done)

    def _create(self, event: Any) -> Answer:
        def done(workitems: Workitems) -> pydicom.Dataset:
            named = event.request.AffectedSOPInstanceUID
            answer = pydicom.Dataset()
            answer.AffectedSOPInstanceUID = workitems.create(event.attribute_list, str(named or ""), who=self.who)
            return answer if named is None else pydicom.Dataset()

        return self._answer(done)

    def _update(self, event: Any) -> Answer:
        uid = str(event.request.RequestedSOPInstanceUID)
        return self._answer(lambda workitems: workitems.update(uid, event.modification_list, who=self.who))

    def _get(self, event: Any) -> Answer:
        def done(workitems: Workitems) -> pydicom.Dataset:
            dataset, asked = workitems.get(str(event.request.RequestedSOPInstanceUID)), event.attribute_identifiers
            return _only(dataset, asked) if asked else dataset

        return self._answer(done)

    def _find(self, event: Any) -> Iterator[tuple[Any, pydicom.Dataset | None]]:
        try:
            with library_warnings.collect_warnings():
                identifier = event.identifier
                asked, conditions = [one.tag for one in identifier], _conditions(identifier)
                rows = [
                    one
                    for one in self.opened().all(who=self.who)
                    if dicom_json.elements_match(one.to_json_dict(), conditions)
                ]
        except HilumError as error:
            yield _status(PROCESSING_FAILURE, error.problem), None
            return
        for row in rows:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield PENDING, _only(row, [*asked, "SOPClassUID", "SOPInstanceUID"])

    def _answer(self, step: Callable[[Workitems], pydicom.Dataset | None]) -> Answer:
        """The status of a step, and what it gives."""
        try:
            with library_warnings.collect_warnings():  # what is odd is said with its value, which may be a patient's
                return messages.SUCCESS, step(self.opened())
        except WorkitemError as error:
            return _status(error.status, error.problem), None
        except HilumError as error:  # the records are away
            return _status(PROCESSING_FAILURE, error.problem), None


def _status(status: int, comment: str) -> pydicom.Dataset:
    answer = pydicom.Dataset()
    answer.Status = status
    answer.ErrorComment = comment.encode("ascii", "replace").decode()[: messages.LONGEST_COMMENT].replace("\\", "/")
    return answer


def _only(dataset: pydicom.Dataset, asked: list[Any]) -> pydicom.Dataset:
    """The asked elements of a data set; those that it does not have are empty. PS3.4 C.2.2"""
    kept = pydicom.Dataset()
    kept.SpecificCharacterSet = dataset.SpecificCharacterSet
    for element in asked:
        tag = pydicom.tag.Tag(element)
        if tag in dataset:
            kept[tag] = dataset[tag]
        elif pydicom.datadict.dictionary_has_tag(tag):
            kept.add_new(tag, pydicom.datadict.dictionary_VR(tag).partition(" ")[0], None)
    return kept


def _conditions(identifier: pydicom.Dataset) -> Conditions:
    """Conditions of a search, {tag: text}, or of a sequence {tag: {tag: text}}."""
    conditions: Conditions = {}
    for element in identifier:
        name = f"{int(element.tag):08X}"
        if element.VR == "SQ":
            conditions[name] = _conditions(element.value[0]) if element.value else {}
        elif element.keyword != "SpecificCharacterSet":
            several = isinstance(element.value, pydicom.multival.MultiValue)
            conditions[name] = (
                "" if element.is_empty else "\\".join(map(str, element.value if several else [element.value]))
            )
    return conditions


SLACK = 1 << 20  # bytes of commands and heads of PDUs
AT_ONCE = 1 << 16
REPORT_ANSWERED = 0x8100  # PS3.7 E.1
# Between two looks for an answer of the keeper; and how long a peer has said nothing before a report goes out, because
# few expect one between a request and its answer (s).
LOOK_S, QUIET_S = 0.05, 0.2
MOST_AWAITED = 64  # answers on one association; who asks more gets them on others


class MessageGap(threading.Event):
    """An event that the library's thread passes between two messages: there `step` can send one apart from others."""

    def __init__(self, step: Callable[[], None]) -> None:
        super().__init__()
        self.step = step
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Take the step, and wait until the thread may go on."""
        self.step()
        return super().wait(timeout)


@dataclass
class AwaitedCommitment:
    """An answer about commitment that a peer may get on its association; association, context: of the library."""

    request: CommitmentRequest
    reply: ReplyFile
    association: Any
    context: Any
    is_sent: bool = False

    def send(self, number: int) -> None:
        """Tell the peer what is safe, once the keeper has said it; number: of the message."""
        safe = None if self.is_sent else self.reply.come()
        if safe is None:
            return
        kind, dataset = pynetdicom_events.commitment_report(self.request, safe)
        syntax = self.context.transfer_syntax
        data = pynetdicom.dsutils.encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
        message = pynetdicom.dimse_primitives.N_EVENT_REPORT()
        message.MessageID, message.EventTypeID, message.EventInformation = number, kind, BytesIO(data or b"")
        message.AffectedSOPClassUID, message.AffectedSOPInstanceUID = messages.COMMITMENT, messages.COMMITMENT_INSTANCE
        self.is_sent = True
        self.association.dimse.send_msg(message, self.context.context_id)


@dataclass(eq=False)
class HandedAssociation:
    """One association that pynetdicom serves.

    permits: what the peer may ask for
    orders:  the workitems, opened once they are asked for; None where none can be ordered
    """

    connection: messages.Connection
    request: messages.AssociationRequest
    permits: frozenset[str]
    store: ObjectStore
    listening: ListenerSettings
    orders: Callable[[], Workitems] | None = None
    _awaited: dict[int, AwaitedCommitment] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _spoke_at: float = 0.0
    _looked_at: float = 0.0

    def __post_init__(self) -> None:
        self._events = AssociationEvents(self.connection, self.request, self.store)

    def serve(self) -> None:
        """Carry bytes both ways until one side ends. Raises ProtocolError for more than an object without an answer."""
        ours, theirs = socket.socketpair()
        ours.settimeout(self.listening.idle_s)
        with ours:
            self._start(theirs)
            ours.sendall(messages.encode_pdu(messages.ASSOCIATE_RQ, self.request.body))
            try:
                self._carry(ours)
            finally:
                for awaited in list(self._awaited.values()):
                    awaited.reply.close()
                pynetdicom_events.sweep_inbox(self.store.journal.folder, self.listening.idle_s)

    def _carry(self, ours: socket.socket) -> None:
        # One thread for both ways, as OpenSSL asks for.
        most, waiting = self.listening.max_object_mb * 1e6 + SLACK, 0
        buffer = memoryview(bytearray(AT_ONCE))
        while ready := self.connection.ready(ours):
            if ours in ready:
                if not (data := ours.recv(AT_ONCE)):
                    return
                waiting = 0
                self.connection.send(data)
            if self.connection.socket in ready:
                if not (size := self.connection.some(buffer)):
                    return
                waiting, self._spoke_at = waiting + size, time.monotonic()
                if waiting > most:
                    raise messages.ProtocolError("a message larger than was agreed")
                ours.sendall(buffer[:size])

    def end(self) -> None:
        """End it at once; what was not answered is asked again."""
        self.connection.stop_reading()

    def _start(self, theirs: socket.socket) -> None:
        ours = pynetdicom_events.application_entity(
            self.listening.ae_title, self.listening.idle_s, self.store.journal.folder
        )
        ours.maximum_pdu_size = messages.LARGEST_DATA
        ours.add_supported_context(messages.VERIFICATION)
        if {"commit", "report"} & self.permits:
            ours.add_supported_context(messages.COMMITMENT, scu_role=True, scp_role=True)
        events = pynetdicom.evt
        act, ordering = self._note_request, list[Any]()
        if "order" in self.permits and self.orders is not None:
            who = Actor(self.request.calling, "service", self.connection.address)
            service = UpsService(self.orders, who)
            act, ordering = partial(self._act, service), service.handlers
            for sop_class in UPS_CLASSES:
                ours.add_supported_context(sop_class)
        handlers: list[Any] = [
            *ordering,
            (events.EVT_C_STORE, self._keep),
            (events.EVT_N_ACTION, act),
            (events.EVT_N_EVENT_REPORT, self._note_report),
            (events.EVT_DIMSE_RECV, self._note_answer),
        ]
        if "order" not in self.permits and any(one.sop_class in UPS_CLASSES for one in self.request.proposals):
            self._events.record_refusal("order")
        server = ours.make_server(("127.0.0.1", 0), evt_handlers=handlers)
        server.server_close()  # nobody connects to it: it has the one socket that it is given
        server.finish_request(theirs, (self.connection.address, 0))

    def _keep(self, event: Any) -> int:
        if "store" not in self.permits:
            self._events.record_refusal("store")
            return messages.NOT_AUTHORISED
        return pynetdicom_events.keep_object(self.store, event, self.request.calling)

    def _act(self, service: UpsService, event: Any) -> tuple[Any, Any]:
        """The answer to an N-ACTION, by its class."""
        return (
            self._note_request(event)
            if event.request.RequestedSOPClassUID == messages.COMMITMENT
            else service.act(event)
        )

    def _note_request(self, event: Any) -> tuple[int, None]:
        if "commit" not in self.permits:
            self._events.record_refusal("commit")
            return messages.NOT_AUTHORISED, None
        dataset = event.action_information
        classes, instances = pynetdicom_events.referenced_objects(dataset, "ReferencedSOPSequence")
        transaction = str(dataset.TransactionUID)
        request = CommitmentRequest(transaction, self.request.calling, classes, instances, time.time())
        if len(self._awaited) < MOST_AWAITED:
            reply = ReplyFile.begun(self.store.journal.folder)
            request = replace(request, reply=f"{reply.place.parent.name}/{reply.place.name}")
            self._awaited[next(self._numbers)] = AwaitedCommitment(request, reply, event.assoc, event.context)
            event.assoc._reactor_checkpoint = MessageGap(self._tell)
        self.store.journal.append(request)
        return messages.SUCCESS, None

    def _tell(self) -> None:
        """Send what the keeper has answered by now, to a peer that says nothing at the moment."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S or now - self._spoke_at < QUIET_S:
            return
        self._looked_at = now
        for number, awaited in list(self._awaited.items()):
            awaited.send(number)

    def _note_answer(self, event: Any) -> None:
        """A peer that has the report needs no other; one that wants none on this association gets its own."""
        command = event.message.command_set
        if command.get("CommandField") != REPORT_ANSWERED:
            return
        awaited = self._awaited.pop(command.get("MessageIDBeingRespondedTo", 0), None)
        if awaited is not None:
            awaited.reply.close(is_delivered=command.get("Status") == messages.SUCCESS)

    def _note_report(self, event: Any) -> tuple[int, None]:
        if "report" not in self.permits:
            self._events.record_refusal("report")
            return messages.NOT_AUTHORISED, None
        self.store.journal.append(pynetdicom_events.parse_commitment_report(event, self.request.calling))
        return messages.SUCCESS, None
