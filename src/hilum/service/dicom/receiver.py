"""A process that receives: it reads each association's request, and serves it or hands it on."""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hilum.errors import ResourceError, UsageError
from hilum.service.dicom import messages
from hilum.service.dicom.dicom_listening import AssociationEvents, ListenerSettings
from hilum.service.dicom.handed_associations import HandedAssociation
from hilum.service.dicom.storage import Association
from hilum.service.objects.object_store import ObjectStore

if TYPE_CHECKING:
    from hilum.service.records.workitem_records import Workitems

LOG = logging.getLogger(__name__)
BACKLOG = 128
POLL = 0.05  # s until a wish to stop is seen
MOST_SILENT = 64  # connections without a request, of which the oldest gives way
REQUEST_S = 30.0  # for a request to come, PS3.8 9.1.5 (ARTIM)
DRAIN_S = 25.0  # for objects that are coming


class Receiver:
    """Listening sockets, and a thread for each connection.

    name:   of the process, in the folder's name in `inbox/`
    orders: the workitems, which alone are of the records: they are opened once somebody asks for one
    """

    def __init__(
        self,
        listening: ListenerSettings,
        folder: Path,
        name: str = "receiver",
        orders: Callable[[], Workitems] | None = None,
    ) -> None:
        """Raises UsageError where a port is in use."""
        self.listening, self.orders = listening, orders
        with ExitStack() as stack:
            self._doors: list[tuple[socket.socket, ssl.SSLContext | None]] = []
            self._doors.append((stack.enter_context(_bound(listening.host, listening.port)), None))
            if (tls := listening.tls) is not None:
                self._doors.append((stack.enter_context(_bound(listening.host, tls.port)), tls.context))
            self._sockets = stack.pop_all()
        self.store = ObjectStore(folder, name, sync=listening.sync, min_free_gb=listening.min_free_gb)
        self._lock = threading.Lock()
        self._silent: deque[socket.socket] = deque()
        self._served: set[Association | HandedAssociation] = set()

    @property
    def port(self) -> int:
        """The port without TLS."""
        return int(self._doors[0][0].getsockname()[1])

    def serve(self, stop: threading.Event) -> None:
        """Receive until `stop`; then objects that are coming are received to their end."""
        with self._sockets, selectors.DefaultSelector() as selector:
            for door, context in self._doors:
                selector.register(door, selectors.EVENT_READ, (door, context))
            while not stop.is_set():
                for key, _ in selector.select(POLL):
                    door, context = key.data
                    with suppress(OSError):  # gone before it was taken, or no more files can be open
                        self._admit(door.accept()[0], context)
        self._drain()
        self.store.close()

    def _admit(self, plain: socket.socket, context: ssl.SSLContext | None) -> None:
        with self._lock:
            self._silent.append(plain)
            oldest = self._silent.popleft() if len(self._silent) > MOST_SILENT else None
        if oldest is not None:
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)  # its thread closes it
        threading.Thread(target=self._attend, args=(plain, context), daemon=True).start()

    def _attend(self, plain: socket.socket, context: ssl.SSLContext | None) -> None:
        """One connection, from its first byte to its last."""
        with plain, suppress(OSError):  # a peer that is gone needs no answer
            plain.settimeout(min(REQUEST_S, self.listening.idle_s))
            secured = plain if context is None else _secure(plain, context)
            connection = messages.Connection(secured, self.listening.idle_s)
            try:
                self._associate(connection, plain)
            except (messages.ProtocolError, TimeoutError, EOFError) as error:
                LOG.warning("ended a connection from %s: %s", connection.address, str(error) or type(error).__name__)
                connection.send(messages.abort_pdu())
            except ResourceError as error:
                LOG.error("ended a connection from %s, because of the node: %s", connection.address, error.problem)
                connection.send(messages.abort_pdu())
            finally:
                connection.close()

    def _associate(self, connection: messages.Connection, plain: socket.socket) -> None:
        try:
            kind, body = connection.first()
        finally:
            with self._lock, suppress(ValueError):
                self._silent.remove(plain)
        if kind != messages.ASSOCIATE_RQ:
            raise messages.ProtocolError("a first PDU that is not an association request")
        request = messages.parse_request(body)
        permits = self.listening.permits(request.calling, connection.address)
        served = self._served_by(connection, request, permits)
        because = self._refusal(request, permits)
        with self._lock:
            if because is None and len(self._served) >= self.listening.max_associations:
                because = messages.CONGESTION
            if because is None:
                self._served.add(served)
        try:
            AssociationEvents(connection, request, self.store).record_opening(because)
        except ResourceError:  # what cannot be audited is not done
            with self._lock:
                self._served.discard(served)
            raise
        if because is not None:
            LOG.warning("rejected an association from %s: result, source, reason %s", connection.address, because)
            connection.send(messages.rejection_pdu(because))
            return
        try:
            served.serve()
        finally:
            with self._lock:
                self._served.remove(served)

    def _served_by(
        self, connection: messages.Connection, request: messages.AssociationRequest, permits: frozenset[str]
    ) -> Association | HandedAssociation:
        classes = {proposal.sop_class for proposal in request.proposals} - {messages.VERIFICATION}
        if all(map(messages.is_storage, classes)) and ("store" in permits or not classes):
            return Association(connection, request, permits, self.store, self.listening)
        return HandedAssociation(connection, request, permits, self.store, self.listening, self.orders)

    def _refusal(self, request: messages.AssociationRequest, permits: frozenset[str]) -> tuple[int, int, int] | None:
        if not request.is_known:
            return messages.CONTEXT_UNKNOWN
        if not self.listening.is_local and request.called != self.listening.ae_title:
            return messages.CALLED_UNKNOWN
        if not permits:
            return messages.CALLING_UNKNOWN
        stores = any(messages.is_storage(proposal.sop_class) for proposal in request.proposals)
        return messages.CONGESTION if stores and self.store.is_full else None

    def _drain(self) -> None:
        with self._lock:
            served = list(self._served)
        for association in served:
            association.end()
        until = time.monotonic() + DRAIN_S
        while self._served and time.monotonic() < until:
            time.sleep(POLL / 4)


def _secure(plain: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """The connection under TLS. Raises OSError for a peer with which that does not come about, which the log names."""
    address = plain.getpeername()[0]
    try:
        return context.wrap_socket(plain, server_side=True)
    except (ssl.SSLError, TimeoutError) as error:
        LOG.warning("no TLS with %s: %s", address, getattr(error, "reason", None) or type(error).__name__)
        raise


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Several receivers listen on one port, and the kernel deals connections out among them.
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
        door.listen(BACKLOG)
    except OSError as error:
        door.close()
        raise UsageError(f"cannot listen there ({error.strerror})", f"{host}:{port}", "Choose another port") from error
    return door
