"""Threads in the keeper's process: a step that is taken again and again, and the sealing of the audit."""

from __future__ import annotations

import json
import os
import platform
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from hilum import errors
from hilum.errors import HilumError, ResourceError
from hilum.service.configuration import NodeSettings
from hilum.service.records import audit_records
from hilum.service.records.audit_records import AuditHead
from hilum.service.records.record_database import Database
from hilum.work_state import log

# Between two times (s): an event is sealed within 2 s, also where a round of its thread takes some time.
SEAL_S, HEAD_S, AGAIN_S = 0.5, 3600.0, 60.0
KIND = "AUDIT-HEAD"


class AuditSealing:
    """Seals what processes of the node have recorded; says every hour how far the audit has come."""

    def __init__(self, settings: NodeSettings, database: Database) -> None:
        self.settings, self.database = settings, database
        self._said = AuditHead()
        self._threads: list[threading.Thread] = []

    def start(self, stop: threading.Event) -> None:
        """Seal what an earlier keeper has left, then go on until `stop`."""
        self.seal()
        for step, pause_s in ((self.seal, SEAL_S), (self.state_head, HEAD_S)):
            pauses = {"rest_s": 0.0, "idle_s": pause_s, "again_s": max(1.0, min(pause_s, AGAIN_S))}
            run = partial(repeat_step, step, stop, "the audit", **pauses)
            self._threads.append(threading.Thread(target=run, name="audit", daemon=True))
        for thread in self._threads:
            thread.start()

    def finish(self, until: float) -> None:
        """Seal what was recorded until the end, and say how far it has come. until: by the monotonic clock."""
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        try:
            self.seal()
            self.state_head()
        except HilumError as error:  # the next keeper does it
            log.warning("the audit: %s", error.problem)

    def seal(self) -> int:
        """Seal what is not; 0, for the next events come while this thread rests."""
        audit_records.seal_events(self.database, self.settings.node.name)
        return 0

    def state_head(self) -> int:
        """Write the head into the log, and send it to syslog, unless it was; 0."""
        last = audit_records.last_sealed_head(self.database)
        if last != self._said:
            log.info("audit: event %d is the last, and its hash is %s", last.sequence, last.hash)
            if (to := self.settings.audit.syslog) is not None:
                message = {"node": self.settings.node.name, "sequence": last.sequence, "hash": last.hash}
                send_syslog(to, syslog_message(KIND, json.dumps(message), datetime.now().astimezone()))
            self._said = last
        return 0


# Facility 13, log audit, at severity 6, informational: RFC 5424 6.2.1
PRIORITY = 13 * 8 + 6
APPLICATION = "hilum"
CONNECT_S = 5.0


def syslog_message(kind: str, text: str, at: datetime) -> bytes:
    """A message. kind: its MSGID."""
    moment = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    host = platform.node().encode("ascii", "ignore").decode() or "-"
    return f"<{PRIORITY}>1 {moment} {host} {APPLICATION} {os.getpid()} {kind} - {text}".encode()


def send_syslog(to: str, message: bytes) -> None:
    """Send a message to host:port. Raises ResourceError where nobody takes it."""
    host, _, port = to.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), CONNECT_S) as connection:
            connection.sendall(b"%d " % len(message) + message)
            # A server that has gone away resets the connection; one that is there closes its side after ours.
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
    except TimeoutError:  # it took the bytes and keeps the connection
        return
    except OSError as error:
        problem = f"the server of syslog takes nothing: {error.strerror or type(error).__name__}"
        raise ResourceError(problem, to, "Is it running, and does [audit] syslog name it?") from error


def repeat_step(
    step: Callable[[], int], stop: threading.Event, who: str, *, rest_s: float, idle_s: float, again_s: float
) -> None:
    """Take a step until `stop`. step: says how much it has done; who: in the log.

    rest_s:  s before each step
    idle_s:  s after one that has found nothing to do
    again_s: s after one that has failed
    """
    while not stop.wait(rest_s):
        try:
            with errors.foreign_errors(_as_ours):
                if step() == 0:
                    stop.wait(idle_s)
        except ResourceError as error:
            log.warning("%s: %s", who, error.problem)
            stop.wait(again_s)
        except (HilumError, MemoryError) as error:  # a thread that ends does nothing more, and nobody sees why
            log.error("%s met an unexpected error: %s", who, errors.describe_fault(error.__cause__ or error))
            stop.wait(again_s)


def _as_ours(error: Exception) -> HilumError:
    words = error.strerror if isinstance(error, OSError) else None
    kind = ResourceError if words else HilumError
    return kind(words or f"{type(error).__name__} was not expected", "the node", "It tries again")
