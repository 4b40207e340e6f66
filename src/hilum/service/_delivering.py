"""Deliveries other than by DIMSE: reports by FHIR or HL7, answers by STOW-RS, and notices by webhook or e-mail."""

from __future__ import annotations

import json
import os
import re
import smtplib
import ssl
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from email.message import EmailMessage
from functools import partial
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, fromstring

import requests

from hilum import errors
from hilum.deidentification import dicom_objects, keyed_names
from hilum.deidentification.confidentiality_profile import ConfidentialityProfile
from hilum.errors import FormatError, HilumError, IntegrityError
from hilum.files.dicom import object_identity
from hilum.files.dicom.writing import report_changes
from hilum.files.dicom.writing.report_changes import COMPREHENSIVE_3D
from hilum.files.storage import structured_text
from hilum.lazy import pydicom
from hilum.runtime import record_files
from hilum.service.configuration import FHIR, FhirSection, NodeSettings, NoticeRecipient, SmtpSection
from hilum.service.dicom.messages import CLASS_NOT_SUPPORTED, NOT_UNDERSTOOD, SUCCESS
from hilum.service.dicom.sending import PeerError, SendOutcome
from hilum.service.dimse_statuses import DUPLICATE
from hilum.service.exchange import fhir_reports, findings_report, hl7_reports
from hilum.service.exchange.fhir_server import BusyError, FhirServer
from hilum.service.exchange.findings_report import FindingsReport
from hilum.service.objects.dicom_json import DicomJson
from hilum.service.records import delivery_outbox
from hilum.service.records.delivery_outbox import TAKEN_BACK
from hilum.service.records.record_database import Database

# A try that failed after so long has waited for a peer in vain (s): the files after it would do the same.
SLOW_S = 2.0


def send_one_by_one(
    paths: Sequence[Path], send: Callable[[Path], SendOutcome], *, leaves: type[PeerError] | None = None
) -> list[SendOutcome]:
    """One row for each file, in their order. send: gives a row, or raises PeerError for what is not about the file

    leaves: the error by which a peer asks to be left alone; as after a slow failure the rest is not tried, and fails
    Raises PeerError where the peer has answered no try.
    """
    rows, answered = list[SendOutcome](), 0
    for index, path in enumerate(paths):
        began = time.monotonic()
        try:
            rows.append(send(path))
            answered += 1
        except PeerError as error:
            is_over = time.monotonic() - began > SLOW_S or (leaves is not None and isinstance(error, leaves))
            left = paths[index:] if is_over else [path]
            rows += [SendOutcome(one, "", None, error.problem) for one in left]
            if len(rows) == len(paths) and not answered:
                raise
            if is_over:
                break
    return rows


def send_without_identity(
    options: Sequence[str], paths: Sequence[Path], send: Callable[[Sequence[Path]], list[SendOutcome]]
) -> list[SendOutcome]:
    """Send copies of files without the identity of their patients; one row for each file, in their order.

    What may not be handed on is refused for good, with the reason. Raises what `send` raises.
    """
    profile, names = ConfidentialityProfile(frozenset(options)), keyed_names.read_names()
    rows, sources = dict[Path, SendOutcome](), dict[Path, Path]()
    with tempfile.TemporaryDirectory(prefix="hilum-") as room:
        for number, path in enumerate(paths):
            target = Path(room, f"{number}.dcm")
            try:
                dicom_objects.write_alone(path, target, profile, names)
                sources[target] = path
            except FormatError as error:
                rows[path] = SendOutcome(path, "", NOT_UNDERSTOOD, error.problem)
            except OSError as error:
                rows[path] = SendOutcome(path, "", None, f"cannot be read: {error.strerror}")
        for row in send(list(sources)) if sources else ():
            rows[sources[row.path]] = replace(row, path=sources[row.path])
    return [rows[path] for path in paths]


def send_reports(peer: str, settings: NodeSettings, database: Database, records: Sequence[Path]) -> list[SendOutcome]:
    """Send the reports of jobs to a peer of `[fhir]` or `[hl7]`; one row for each, in their order.

    records: files with the findings of the jobs, each in its job's folder, or notes that take them back
    Raises PeerError where the peer takes none.
    """
    send = partial(_by_hl7, peer, settings.dicom.idle_s)
    if peer == FHIR and settings.fhir is not None:
        send = partial(_by_fhir, settings.fhir, settings.dicom.idle_s)

    def sent(path: Path) -> SendOutcome:
        try:
            report = findings_report.report_of_job(settings, database, path.parent.name)
            if delivery_outbox.is_note(path.name):
                report = replace(report, taken_back=str(record_files.read_json(path, TAKEN_BACK)["because"]))
            send(report)
        except (FormatError, IntegrityError) as error:
            return SendOutcome(path, "", NOT_UNDERSTOOD, error.problem)
        return SendOutcome(path, "", SUCCESS)

    return send_one_by_one(records, sent, leaves=BusyError)


def _by_fhir(fhir: FhirSection, idle_s: float, report: FindingsReport) -> None:
    resource = fhir_reports.report_bundle(report, fhir.version, transaction=True)
    FhirServer(fhir.base, idle_s).transact(fhir_reports.encode_bundle(resource, fhir.version))


def _by_hl7(peer: str, idle_s: float, report: FindingsReport) -> None:
    host, _, port = peer.rpartition(":")
    hl7_reports.send_by_mllp(
        host,
        int(port),
        hl7_reports.oru_message(report),
        hl7_reports.control_id(report.job, taken_back=bool(report.taken_back)),
        idle_s=idle_s,
    )


# And the name of a peer in capitals, with _ for what is no letter: "user:password", as no secret stands in a file.
CREDENTIALS = "HILUM_CREDENTIALS_"
# HTTP statuses that no other try will change (bad request, gone, too large, of another kind, not to be processed); all
# others are about the peer, about us, or about the moment.
FOR_GOOD = (400, 410, 413, 415, 422)
SAYING = (400, 409)  # of which the body says what was not stored, PS3.18 10.5.3
REDIRECTS = range(300, 400)
FAILED_SOP, STORED_SOP, INSTANCE, REASON = "00081198", "00081199", "00081155", "00081197"


class HttpSession(requests.Session):
    """A session of HTTP that follows no redirect: that could lead to another host, or lose the body."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """No other address, whatever an answer states."""


def open_http_session(variable: str) -> HttpSession:
    """A session with the user:password of a variable of the environment where that is set."""
    session = HttpSession()
    user, colon, password = os.environ.get(variable, "").partition(":")
    if colon:
        session.auth = (user, password)
    return session


def open_peer_session(peer: str) -> requests.Session:
    """A session with a peer's DICOMweb, with the credentials that the environment has for it."""
    return open_http_session(CREDENTIALS + re.sub(r"\W", "_", peer).upper())


def store_over_web(url: str, paths: Sequence[Path], *, peer: str, idle_s: float) -> list[SendOutcome]:
    """Send files to a peer's DICOMweb; one row for each, in their order.

    peer: its name, by which the environment has its user and password
    A Comprehensive 3D SR becomes a Comprehensive SR under a UID of its own for a peer that refuses that class.
    Each is a request of its own, so that no other depends on what is wrong with it.
    Raises PeerError where the peer answers nothing, or nobody.
    """
    session = open_peer_session(peer)
    stored = partial(_store_object, partial(session.post, timeout=idle_s), url)

    def sent(path: Path) -> SendOutcome:
        try:
            dataset = _read_dataset(path)
        except FormatError as error:
            return SendOutcome(path, "", None, error.problem)
        row = stored(path, str(dataset.SOPInstanceUID), path.read_bytes())
        if row.status == CLASS_NOT_SUPPORTED and dataset.SOPClassUID == COMPREHENSIVE_3D:
            with suppress(FormatError):  # of one with places in three dimensions the refusal stands
                plain, buffer = report_changes.as_comprehensive(dataset, str(path)), BytesIO()
                pydicom.dcmwrite(buffer, plain)
                row = stored(path, str(plain.SOPInstanceUID), buffer.getvalue())
        return row

    return send_one_by_one(paths, sent)


def _read_dataset(path: Path) -> pydicom.Dataset:
    """A file's data set. Raises FormatError, whatever is wrong with it."""

    def unreadable(error: Exception) -> HilumError:
        words = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        return FormatError(f"cannot be read: {words}", str(path), "Do its job again")

    with errors.foreign_errors(unreadable):
        object_identity.read_identity(path)
        return pydicom.dcmread(path)


def _store_object(post: Callable[..., requests.Response], url: str, path: Path, uid: str, data: bytes) -> SendOutcome:
    """The outcome of one object. Raises PeerError for what is not about this object."""
    boundary = uuid.uuid4().hex
    head, tail = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n", f"\r\n--{boundary}--\r\n"
    kind = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'}
    try:
        answer = post(f"{url.rstrip('/')}/studies", head.encode() + data + tail.encode(), headers=kind)
    except OSError as error:  # requests' errors are of this kind
        raise PeerError(f"does not answer ({type(error).__name__})", url, "Check that it is running") from error
    status, problem = answer.status_code, f"answers with HTTP status {answer.status_code} ({answer.reason})"
    if status in REDIRECTS:
        return SendOutcome(path, uid, NOT_UNDERSTOOD, "it redirects to another address: give that one as its dicomweb")
    is_taken = status < HTTPStatus.MULTIPLE_CHOICES
    row = _parse_answer(path, uid, answer.content) if is_taken or status in SAYING else None
    if row is not None and (is_taken or row.status != SUCCESS):
        return row
    if status in FOR_GOOD:
        return SendOutcome(path, uid, NOT_UNDERSTOOD, problem)
    if status == HTTPStatus.CONFLICT:
        return SendOutcome(path, uid, None, problem)
    if is_taken:
        what = answer.headers.get("Content-Type", "").partition(";")[0] or "nothing"
        problem = f"answers with {what[:64]}, which does not say that the object was stored"
    raise PeerError(problem, url, "Check its address, and what its log says")


def _parse_answer(path: Path, uid: str, content: bytes) -> SendOutcome | None:
    """The part of an answer on the only object that was sent, whether it names that or not; None where there is none.

    An object that is there already counts as stored.
    """
    try:
        is_xml = content.lstrip()[:1] == b"<" and b"<!DOCTYPE" not in content  # which could define what grows
        answer = _dicom_xml(fromstring(content)) if is_xml else structured_text.parse_json(content)  # noqa: S314
        answer = answer[0] if isinstance(answer, list) else answer
        failed, stored = (_item(answer, tag, uid) for tag in (FAILED_SOP, STORED_SOP))
        reason = int(_value(failed, REASON) or SUCCESS)
        known_as = str(_value(stored, INSTANCE) or uid)
    except (ParseError, ValueError, TypeError, LookupError, AttributeError):  # it is no DICOM JSON, nor XML
        return None
    if failed is None:
        return None if stored is None else SendOutcome(path, known_as, SUCCESS)
    row = SendOutcome(path, uid, reason)
    return (
        row if reason == DUPLICATE or not row.is_stored else SendOutcome(path, uid, None, "the peer has not stored it")
    )


def _dicom_xml(model: Element) -> DicomJson:
    """Native DICOM Model (PS3.19 A.1) as DICOM JSON, values as texts."""
    elements = DicomJson()
    for attribute in model.iterfind("{*}DicomAttribute"):
        items = [_dicom_xml(item) for item in attribute.iterfind("{*}Item")]
        elements[attribute.attrib["tag"]] = {
            "Value": items or [(one.text or "").strip() for one in attribute.iterfind("{*}Value")]
        }
    return elements


def _item(answer: DicomJson, tag: str, uid: str) -> DicomJson | None:
    """The item of a sequence that names an object, or its only one; None without."""
    items: list[DicomJson] = answer.get(tag, {}).get("Value") or []
    return next((one for one in items if _value(one, INSTANCE) == uid), items[0] if len(items) == 1 else None)


def _value(item: DicomJson | None, tag: str) -> Any:
    """The first value of an element; None where it has none."""
    return next(iter((item or {}).get(tag, {}).get("Value") or ()), None)


# "user:password" of webhooks and of the server for e-mail; no secret stands in a file.
WEBHOOK_CREDENTIALS = "HILUM_WEBHOOK_CREDENTIALS"
SMTP_CREDENTIALS = "HILUM_SMTP_CREDENTIALS"


def send_notices(
    to: NoticeRecipient, smtp: SmtpSection | None, paths: Sequence[Path], *, idle_s: float
) -> list[SendOutcome]:
    """Send notices to a recipient; one row for each, in their order. Raises PeerError where nobody takes any."""
    with ExitStack() as open_now, _errors_of(to):
        if to.by == "webhook":
            send = partial(_post_notice, open_http_session(WEBHOOK_CREDENTIALS), to, idle_s)
        else:
            assert smtp is not None  # noqa: S101 - the settings say so
            send = partial(_mail_notice, open_now.enter_context(_server(smtp, idle_s)), smtp.sender, to)
        return send_one_by_one(paths, send)


@contextmanager
def _errors_of(to: NoticeRecipient) -> Iterator[None]:
    """Errors of a recipient as PeerError; those of requests and of smtplib are OSErrors."""
    try:
        yield
    except OSError as error:
        problem = f"does not answer, or does not take it ({type(error).__name__})"
        raise PeerError(problem, to.recipient, "Check its address, and what its log says") from error


def _post_notice(session: Any, to: NoticeRecipient, idle_s: float, path: Path) -> SendOutcome:
    """The outcome of one webhook. A redirect is refused for good: it could lead to this machine or into its network."""
    notice = structured_text.parse_json(path.read_text(encoding="utf-8"))
    headers = {"Content-Type": "application/json", "Idempotency-Key": notice["notice"]}
    with _errors_of(to):
        answer = session.post(to.to, data=path.read_bytes(), headers=headers, timeout=idle_s)
    status, problem = answer.status_code, f"answers with HTTP status {answer.status_code}"
    if status in REDIRECTS:
        problem = "it redirects to another address: give that one in [[notify]]"
    if status in REDIRECTS or status in FOR_GOOD:
        return SendOutcome(path, notice["notice"], NOT_UNDERSTOOD, problem)
    if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return SendOutcome(path, notice["notice"], None, problem)
    if answer.content.lstrip()[:9].lower().startswith((b"<html", b"<!doctype")):
        return SendOutcome(path, notice["notice"], None, "answers with a page for people, such as that for a login")
    return SendOutcome(path, notice["notice"], SUCCESS)


def _mail_notice(server: smtplib.SMTP, sender: str, to: NoticeRecipient, path: Path) -> SendOutcome:
    notice = structured_text.parse_json(path.read_text(encoding="utf-8"))
    with _errors_of(to):
        server.send_message(_mail(notice, sender, to.to))
    return SendOutcome(path, notice["notice"], SUCCESS)


def _server(smtp: SmtpSection, idle_s: float) -> smtplib.SMTP:
    """A session with the server for e-mail, which has seen who we are."""
    if smtp.tls == "always":
        server: smtplib.SMTP = smtplib.SMTP_SSL(
            smtp.host, smtp.port, timeout=idle_s, context=ssl.create_default_context()
        )
    else:
        server = smtplib.SMTP(smtp.host, smtp.port, timeout=idle_s)
    try:
        if smtp.tls == "starttls":
            server.starttls(context=ssl.create_default_context())
        user, colon, password = os.environ.get(SMTP_CREDENTIALS, "").partition(":")
        if colon:
            server.login(user, password)
    except OSError:
        server.close()
        raise
    return server


def _mail(notice: dict[str, str], sender: str, to: str) -> EmailMessage:
    """An e-mail whose id is the notice's, so that a repeat is known as one."""
    mail = EmailMessage()
    mail["Subject"] = f"{notice['priority']}: {notice['finding']}"
    mail["From"], mail["To"] = sender, to
    mail["Message-ID"] = f"<{notice['notice']}@{sender.rpartition('@')[2]}>"
    mail["Idempotency-Key"] = notice["notice"]
    stated_facts = [
        name
        for name in ("priority", "finding", "study", "because", "outcome", "model", "model_version", "link")
        if name in notice
    ]
    mail.set_content("\n".join(f"{name}: {notice[name]}" for name in stated_facts))
    mail.add_attachment(json.dumps(notice), subtype="json", filename="notice.json")
    return mail
