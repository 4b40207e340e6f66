"""pynetdicom, as this house uses it: silent, with data sets in files, and what its events say.

A file of its own: the process that receives loads it without what sends and writes objects.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hilum.errors import FormatError, ResourceError
from hilum.lazy import pydicom, pynetdicom
from hilum.service.dicom import messages
from hilum.service.objects.journal import CommitmentReport, CommitmentRequest
from hilum.service.objects.object_store import ObjectStore

AT_ONCE = 1 << 16
NO_SUCH_OBJECT = 0x0112  # PS3.4 J.4.2
ALL_SAFE, SOME_FAILED = 1, 2


def application_entity(title: str, idle_s: float, inbox: Path | None = None) -> pynetdicom.AE:
    """An application entity that takes any class; what is stored comes into files in a folder, and not into memory."""
    # Only globals of the library say so.
    pynetdicom._config.UNRESTRICTED_STORAGE_SERVICE = True
    pynetdicom._config.STORE_SEND_CHUNKED_DATASET = True  # as the file has it, without decoding
    if inbox is not None:
        pynetdicom._config.STORE_RECV_CHUNKED_DATASET = True
        tempfile.tempdir = str(inbox)
    # It logs what it receives, names of patients too.
    pynetdicom._config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").propagate = False
    application = pynetdicom.AE(title)
    application.network_timeout = application.acse_timeout = application.dimse_timeout = (
        application.connection_timeout
    ) = idle_s
    return application


def keep_object(store: ObjectStore, event: Any, peer: str) -> int:
    """The status of a C-STORE whose object has come into a file; the library leaves that of a C-GET."""
    path = event.dataset_path
    try:
        with store.open_part() as part, path.open("rb") as file:
            while data := file.read(AT_ONCE):
                part.write(data)
            received = store.keep(part, peer, announced=str(event.request.AffectedSOPInstanceUID))
    except ResourceError:
        return messages.OUT_OF_RESOURCES
    except FormatError:
        return messages.NOT_UNDERSTOOD
    finally:
        path.unlink(missing_ok=True)
    return messages.COERCED if received.is_aside else messages.SUCCESS


def sweep_inbox(inbox: Path, idle_s: float) -> None:
    """Remove files of associations that ended within an object: nobody has written to them for longer than it may."""
    for path in inbox.glob(f"{tempfile.gettempprefix()}*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - 2 * idle_s:
                path.unlink()


def parse_commitment_report(event: Any, peer: str) -> CommitmentReport:
    """The content of an N-EVENT-REPORT."""
    dataset = event.event_information
    _, committed = referenced_objects(dataset, "ReferencedSOPSequence")
    _, failed = referenced_objects(dataset, "FailedSOPSequence")
    return CommitmentReport(str(dataset.TransactionUID), peer, committed, failed, time.time())


def commitment_report(request: CommitmentRequest, safe: Collection[str]) -> tuple[int, pydicom.Dataset]:
    """(type, information) of an N-EVENT-REPORT about objects, of which those with the UIDs `safe` are safe here."""
    pairs = list(zip(request.classes, request.instances, strict=True))
    good, bad = ([pair for pair in pairs if (pair[1] in safe) is whether] for whether in (True, False))
    dataset = pydicom.Dataset()
    dataset.TransactionUID = request.transaction
    if good:
        dataset.ReferencedSOPSequence = reference_sequence(good)
    if bad:
        dataset.FailedSOPSequence = reference_sequence(bad, NO_SUCH_OBJECT)
    return SOME_FAILED if bad else ALL_SAFE, dataset


def referenced_objects(dataset: pydicom.Dataset, keyword: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Classes and instances of a sequence of references; none where it is absent."""
    items = dataset.get(keyword, [])
    classes = tuple(str(item.ReferencedSOPClassUID) for item in items)
    return classes, tuple(str(item.ReferencedSOPInstanceUID) for item in items)


def reference_sequence(objects: Iterable[tuple[str, str]], because: int | None = None) -> list[pydicom.Dataset]:
    """The sequence of references to objects, by class and instance; because: the reason of a failure, for each."""
    items = []
    for sop_class, instance in objects:
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        if because is not None:
            item.FailureReason = because
        items.append(item)
    return items
