"""Associations for more than storage: pynetdicom serves them, over a pair of sockets whose far end is the peer."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any

from isocenter.lazy import pynetdicom
from isocenter.service.dicom import messages
from isocenter.service.dicom.connection import Connection
from isocenter.service.dicom.library import entity, kept, references, report_of, sweep
from isocenter.service.dicom.listening import Listening
from isocenter.service.dicom.pdus import ASSOCIATE_RQ, LARGEST_DATA, ProtocolError, Request, pdu
from isocenter.service.dicom.services import COMMITMENT, VERIFICATION
from isocenter.service.objects import CommitmentRequest, ObjectStore

NOT_AUTHORISED = 0x0124  # PS3.7 C.4.2
SLACK = 1 << 20  # bytes of commands and heads of PDUs
AT_ONCE = 1 << 16


@dataclass(eq=False)
class Handed:
    """One association that pynetdicom serves. permits: what the peer may ask for."""

    connection: Connection
    request: Request
    permits: frozenset[str]
    store: ObjectStore
    listening: Listening

    def serve(self) -> None:
        """Carry bytes both ways until one side ends. Raises ProtocolError for more than an object without an answer."""
        ours, theirs = socket.socketpair()
        ours.settimeout(self.listening.idle_s)
        with ours:
            self._start(theirs)
            ours.sendall(pdu(ASSOCIATE_RQ, self.request.body))
            try:
                self._carry(ours)
            finally:
                sweep(self.store.journal.folder, self.listening.idle_s)

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
                if not (count := self.connection.some(buffer)):
                    return
                waiting += count
                if waiting > most:
                    raise ProtocolError("a message larger than was agreed")
                ours.sendall(buffer[:count])

    def end(self) -> None:
        """End it at once; what was not answered is asked again."""
        self.connection.stop_reading()

    def _start(self, theirs: socket.socket) -> None:
        ours = entity(self.listening.ae_title, self.listening.idle_s, self.store.journal.folder)
        ours.maximum_pdu_size = LARGEST_DATA
        ours.add_supported_context(VERIFICATION)
        if {"commit", "report"} & self.permits:
            ours.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
        events = pynetdicom.evt
        handlers: list[Any] = [
            (events.EVT_C_STORE, self._keep),
            (events.EVT_N_ACTION, self._note_request),
            (events.EVT_N_EVENT_REPORT, self._note_report),
        ]
        server = ours.make_server(("127.0.0.1", 0), evt_handlers=handlers)
        server.server_close()  # nobody connects to it: it has the one socket that it is given
        server.finish_request(theirs, (self.connection.address, 0))

    def _keep(self, event: Any) -> int:
        if "store" not in self.permits:
            return NOT_AUTHORISED
        return kept(self.store, event, self.request.calling)

    def _note_request(self, event: Any) -> tuple[int, None]:
        if "commit" not in self.permits:
            return NOT_AUTHORISED, None
        said = event.action_information
        classes, instances = references(said, "ReferencedSOPSequence")
        self.store.journal.append(
            CommitmentRequest(str(said.TransactionUID), self.request.calling, classes, instances, time.time())
        )
        return messages.SUCCESS, None

    def _note_report(self, event: Any) -> tuple[int, None]:
        if "report" not in self.permits:
            return NOT_AUTHORISED, None
        self.store.journal.append(report_of(event, self.request.calling))
        return messages.SUCCESS, None
