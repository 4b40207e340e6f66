"""An association that stores: data sets go from the socket into the file, without being decoded.

PS3.8 9 and PS3.7 9.1.1; what is done here is C-STORE and C-ECHO alone, whatever the class and the syntax.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

from hilum.errors import FormatError, ResourceError
from hilum.service.dicom import messages
from hilum.service.dicom.dicom_listening import AssociationEvents, ListenerSettings
from hilum.service.objects import object_store
from hilum.service.objects.object_store import IncomingPart, ObjectStore

LOG = logging.getLogger(__name__)
VALUE = struct.Struct(">IBB")  # length, context and bits of a presentation data value, PS3.8 9.3.5.1 and E.2
IS_COMMAND, IS_LAST = 1, 2
LARGEST_COMMAND = 1 << 14
MOST_UNSECURED = 256  # objects of an association, so that a long one keeps no long list
LONGEST_UID = 64


@dataclass
class Message:
    """A command whose data set is coming; part: where it goes, None where it is read and thrown away."""

    command: Mapping[int, bytes]
    context: int
    part: IncomingPart | None = None
    status: int = messages.SUCCESS
    comment: str = ""


@dataclass(eq=False)
class Association:
    """One association, from its acceptance to its end.

    permits: what the peer may ask for; is_idle: whether nothing of a message has come yet
    """

    connection: messages.Connection
    request: messages.AssociationRequest
    permits: frozenset[str]
    store: ObjectStore
    listening: ListenerSettings
    is_ending: bool = False
    is_idle: bool = False
    _command: bytearray = field(default_factory=bytearray)
    _message: Message | None = None
    _unsecured: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._events = AssociationEvents(self.connection, self.request, self.store)
        self._contexts = {one.number: one for one in self.request.proposals if one.preferred_syntax}

    def serve(self) -> None:
        """Receive until the peer releases. Raises ProtocolError, EOFError, OSError; what has come whole stays."""
        buffer = memoryview(bytearray(messages.LARGEST_DATA))
        self.connection.send(messages.acceptance_pdu(self.request))
        try:
            while True:
                self.is_idle = self._message is None and not self._command
                if self.is_ending and self.is_idle:
                    self.connection.send(messages.abort_pdu())
                    return
                kind, length = self.connection.head(buffer, messages.LARGEST_DATA)
                self.is_idle = False
                self.connection.fill(buffer[:length])
                if kind == messages.P_DATA:
                    self._take(buffer[:length])
                elif kind == messages.RELEASE_RQ:
                    self._secure()
                    self.connection.send(messages.encode_pdu(messages.RELEASE_RP, bytes(4)))
                    return
                elif kind == messages.ABORT:
                    return
                else:
                    raise messages.ProtocolError("a PDU that has no place in an association")
        finally:
            self._drop()
            self._secure()

    def end(self) -> None:
        """Take no further message; one that is coming is received to its end."""
        self.is_ending = True
        if self.is_idle:
            self.connection.stop_reading()

    def _take(self, data: memoryview) -> None:
        at = 0
        while at < len(data):
            if len(data) - at < VALUE.size:
                raise messages.ProtocolError("a data value that is cut short")
            length, context, bits = VALUE.unpack_from(data, at)
            value = data[at + VALUE.size : at + 4 + length]
            at += 4 + length
            if length < 2 or at > len(data) or context not in self._contexts:
                raise messages.ProtocolError("a data value of a wrong length or context")
            if bits & IS_COMMAND:
                self._take_command(value, context, is_last=bool(bits & IS_LAST))
            else:
                self._take_data(value, context, is_last=bool(bits & IS_LAST))

    def _take_command(self, value: memoryview, context: int, *, is_last: bool) -> None:
        self._command += value
        if self._message is not None or len(self._command) > LARGEST_COMMAND:
            raise messages.ProtocolError("a command within another message, or a very long one")
        if not is_last:
            return
        command = messages.parse_command(bytes(self._command))
        self._command.clear()
        kind = messages.command_number(command, messages.COMMAND)
        messages.command_number(command, messages.MESSAGE if kind != messages.C_CANCEL else messages.ANSWERS)
        message = Message(command, context)
        has_data = messages.command_number(command, messages.DATA_SET) != messages.NO_DATA_SET
        if has_data:
            self._message = message
        if kind == messages.C_STORE:
            if not has_data:
                raise messages.ProtocolError("an object without a data set")
            self._start_object(message)
        elif kind != messages.C_ECHO:
            message.status = messages.UNKNOWN_OPERATION
        if not has_data and kind != messages.C_CANCEL:  # there is nothing to cancel, and nothing to answer
            self._answer(message)

    def _start_object(self, message: Message) -> None:
        if "store" not in self.permits:
            self._events.record_refusal("store")
            message.status, message.comment = messages.NOT_AUTHORISED, "may not store here"
            return
        if not messages.is_storage(self._contexts[message.context].sop_class):
            message.status, message.comment = messages.CLASS_NOT_SUPPORTED, "an object in a context without storage"
            return
        uids = [message.command.get(element, b"") for element in (messages.SOP_CLASS, messages.INSTANCE)]
        if not all(0 < len(uid) <= LONGEST_UID for uid in uids):
            message.status, message.comment = messages.NOT_UNDERSTOOD, "no UIDs in the command"
            return
        try:
            message.part = self.store.open_part()
            syntax = str(self._contexts[message.context].preferred_syntax)
            message.part.write(messages.file_head(uids[0], uids[1], syntax))
        except ResourceError as error:
            self._refuse(message, error.problem)

    def _take_data(self, value: memoryview, context: int, *, is_last: bool) -> None:
        message = self._message
        if message is None or message.context != context:
            raise messages.ProtocolError("a data set without a command")
        if message.part is not None:
            try:
                message.part.write(value)
            except ResourceError as error:
                self._refuse(message, error.problem)
            else:
                if message.part.size > self.listening.max_object_mb * 1e6:
                    self._refuse(message, f"larger than {self.listening.max_object_mb} MB")
        if is_last:
            self._message = None
            with message.part or nullcontext():  # the answer goes out before the part file is removed
                if message.part is not None:
                    self._keep(message, message.part)
                self._answer(message)

    def _keep(self, message: Message, part: IncomingPart) -> None:
        announced = message.command[messages.INSTANCE].rstrip(b" \0").decode("latin-1")
        try:
            received = self.store.keep(part, self.request.calling, announced=announced)
        except ResourceError as error:
            message.status, message.comment = messages.OUT_OF_RESOURCES, error.problem
        except FormatError as error:
            message.status, message.comment = messages.NOT_UNDERSTOOD, error.problem
        else:
            if received.is_aside:
                message.status, message.comment = messages.COERCED, "another object has this UID: it is kept aside"
            self._unsecured.append(received.path)
            if len(self._unsecured) >= MOST_UNSECURED:
                self._secure()

    def _refuse(self, message: Message, comment: str) -> None:
        """Throw away what has come, and what will come."""
        message.status, message.comment = messages.OUT_OF_RESOURCES, comment
        if message.part is not None:
            message.part.close()
            message.part = None

    def _answer(self, message: Message) -> None:
        if message.status == messages.COERCED:
            LOG.warning("an object is aside, because another has its UID")
        elif message.status != messages.SUCCESS:
            # Other comments quote what came.
            why = f": {message.comment}" if message.status == messages.OUT_OF_RESOURCES else ""
            LOG.warning("refused an object or command with status %04X%s", message.status, why)
        reply = messages.response_pdu(message.command, message.context, message.status, message.comment)
        self.connection.send(reply)

    def _secure(self) -> None:
        if self.store.sync == "association":
            object_store.secure_files(self.store.folder, self._unsecured)
        self._unsecured.clear()

    def _drop(self) -> None:
        """An object that has not come whole leaves nothing."""
        if self._message is not None and self._message.part is not None:
            self._message.part.close()
