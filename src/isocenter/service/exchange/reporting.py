"""Reports on their way to a FHIR server or to receivers of HL7."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from isocenter.errors import FormatError
from isocenter.service.dicom.messages import SUCCESS
from isocenter.service.dicom.sending import Sent
from isocenter.service.exchange import mllp
from isocenter.service.exchange.fhir import bundle, checked
from isocenter.service.exchange.fhir_server import BusyError, FhirServer
from isocenter.service.exchange.hl7 import control_id, message
from isocenter.service.exchange.report import Report, report_of
from isocenter.service.one_by_one import sent_one_by_one
from isocenter.service.records.database import Database
from isocenter.service.settings import FHIR, Fhir, Settings

# How C-STORE says that it does not understand what it is sent, PS3.4 B.2.3: no other try will change that.
NOT_UNDERSTOOD = 0xC000


def report_to(peer: str, settings: Settings, database: Database, records: Sequence[Path]) -> list[Sent]:
    """Send the reports of jobs to a peer of `[fhir]` or `[hl7]`; one row for each, in their order.

    records: files with the findings of the jobs, each in its job's folder
    Raises PeerError where the peer takes none.
    """
    send = partial(_by_hl7, peer, settings.dicom.idle_s)
    if peer == FHIR and settings.fhir is not None:
        send = partial(_by_fhir, settings.fhir, settings.dicom.idle_s)

    def sent(path: Path) -> Sent:
        try:
            send(report_of(settings, database, path.parent.name))
        except FormatError as error:
            return Sent(path, "", NOT_UNDERSTOOD, error.problem)
        return Sent(path, "", SUCCESS)

    return sent_one_by_one(records, sent, leaves=BusyError)


def _by_fhir(fhir: Fhir, idle_s: float, report: Report) -> None:
    made = bundle(report, fhir.version, transaction=True)
    FhirServer(fhir.base, idle_s).transact(checked(made, fhir.version))


def _by_hl7(peer: str, idle_s: float, report: Report) -> None:
    host, _, port = peer.rpartition(":")
    mllp.send(host, int(port), message(report), control_id(report.job), idle_s=idle_s)
