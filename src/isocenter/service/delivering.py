"""Deliveries other than by DIMSE: reports by FHIR or HL7, answers by STOW-RS, and notices by webhook or e-mail."""

from __future__ import annotations

import json
import os
import re
import smtplib
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from email.message import EmailMessage
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from isocenter.errors import FormatError, IsocenterError, foreign_errors
from isocenter.files import parse_json
from isocenter.files.dicom import COMPREHENSIVE_3D, as_comprehensive, read_identity
from isocenter.lazy import dicomweb_api, dicomweb_sessions, pydicom
from isocenter.service.dicom.messages import CLASS_NOT_SUPPORTED, NOT_UNDERSTOOD, SUCCESS
from isocenter.service.dicom.sending import PeerError, Sent
from isocenter.service.exchange.fhir import bundle, checked
from isocenter.service.exchange.fhir_server import BusyError, FhirServer
from isocenter.service.exchange.hl7 import control_id, message, send_by_mllp
from isocenter.service.exchange.report import Report, report_of
from isocenter.service.records.database import Database
from isocenter.service.settings import FHIR, Fhir, Notify, Settings, Smtp

# A try that failed after so long has waited for a peer in vain (s): the files after it would do the same.
SLOW_S = 2.0


def sent_one_by_one(
    paths: Sequence[Path], send: Callable[[Path], Sent], *, leaves: type[PeerError] | None = None
) -> list[Sent]:
    """One row for each file, in their order. send: gives a row, or raises PeerError for what is not about the file

    leaves: the error by which a peer asks to be left alone; as after a slow failure the rest is not tried, and fails
    Raises PeerError where the peer has answered no try.
    """
    rows, answered = list[Sent](), 0
    for index, path in enumerate(paths):
        began = time.monotonic()
        try:
            rows.append(send(path))
            answered += 1
        except PeerError as error:
            is_over = time.monotonic() - began > SLOW_S or (leaves is not None and isinstance(error, leaves))
            left = paths[index:] if is_over else [path]
            rows += [Sent(one, "", None, error.problem) for one in left]
            if len(rows) == len(paths) and not answered:
                raise
            if is_over:
                break
    return rows


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
    resource = bundle(report, fhir.version, transaction=True)
    FhirServer(fhir.base, idle_s).transact(checked(resource, fhir.version))


def _by_hl7(peer: str, idle_s: float, report: Report) -> None:
    host, _, port = peer.rpartition(":")
    send_by_mllp(host, int(port), message(report), control_id(report.job), idle_s=idle_s)


# And the name of a peer in capitals, with _ for what is no letter: "user:password", as no secret stands in a file.
CREDENTIALS = "ISOCENTER_CREDENTIALS_"
# HTTP statuses that are about what was sent; all others are about the peer, or about us.
OF_OBJECT = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


def session_of(variable: str) -> Any:
    """A session of HTTP, with the user:password of a variable of the environment where that is set."""
    session = dicomweb_sessions.create_session()
    user, colon, password = os.environ.get(variable, "").partition(":")
    if colon:
        session.auth = (user, password)
    return session


def store_over_web(url: str, paths: Sequence[Path], *, peer: str, idle_s: float) -> list[Sent]:
    """Send files to a peer's DICOMweb; one row for each, in their order.

    peer: its name, by which the environment has its user and password
    A Comprehensive 3D SR becomes a Comprehensive SR under a UID of its own for a peer that refuses that class.
    Each is a request of its own, so that no other depends on what is wrong with it.
    Raises PeerError where the peer answers nothing, or nobody.
    """
    session = session_of(CREDENTIALS + re.sub(r"\W", "_", peer).upper())
    client = dicomweb_api.DICOMwebClient(url, session=session, timeout=idle_s)
    client.set_http_retry_params(retry=False)  # the outbox tries again, and says meanwhile what is wrong

    def sent(path: Path) -> Sent:
        try:
            dataset = _read(path)
        except FormatError as error:
            return Sent(path, "", None, error.problem)
        row = _stored(client, url, path, dataset)
        if row.status == CLASS_NOT_SUPPORTED and dataset.SOPClassUID == COMPREHENSIVE_3D:
            with suppress(FormatError):  # of one with places in three dimensions the refusal stands
                row = _stored(client, url, path, as_comprehensive(dataset, str(path)))
        return row

    return sent_one_by_one(paths, sent)


def _read(path: Path) -> pydicom.Dataset:
    """A file's data set. Raises FormatError, whatever is wrong with it."""

    def unreadable(error: Exception) -> IsocenterError:
        words = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        return FormatError(f"cannot be read: {words}", str(path), "Do its job again")

    with foreign_errors(unreadable):
        read_identity(path)
        return pydicom.dcmread(path)


def _stored(client: Any, url: str, path: Path, dataset: pydicom.Dataset) -> Sent:
    """The outcome of one object. Raises PeerError for what is not about this object."""
    uid = str(dataset.SOPInstanceUID)
    try:
        return _answered(path, uid, client.store_instances([dataset]))
    except OSError as error:  # requests' errors are of this kind
        response = getattr(error, "response", None)
        if response is None:
            problem = f"does not answer ({type(error).__name__})"
            raise PeerError(problem, url, "Check that it is running") from error
        problem = f"answers with HTTP status {response.status_code} ({response.reason})"
        if response.status_code not in OF_OBJECT:
            raise PeerError(problem, url, "Check its address, and what its log says") from error
        return _refused(path, uid, response, problem)
    except Exception as error:  # the library encodes the object and decodes the answer, and raises what it likes
        return Sent(path, uid, None, f"{type(error).__name__} while it was sent")


def _refused(path: Path, uid: str, response: Any, problem: str) -> Sent:
    """The reason in the body of an HTTP error, where one is stated; else the status itself."""
    try:
        row = _answered(path, uid, pydicom.Dataset.from_json(response.json()))
    except Exception:  # it is no DICOM JSON
        return Sent(path, uid, None, problem)
    return Sent(path, uid, None, problem) if row.is_stored else row


def _answered(path: Path, uid: str, answer: pydicom.Dataset) -> Sent:
    """The part of an answer on the only object that was sent, whether it names that or not."""
    failed = answer.get("FailedSOPSequence") or []
    if not failed:
        return Sent(path, uid, SUCCESS)
    row = Sent(path, uid, int(failed[0].get("FailureReason") or SUCCESS))
    return Sent(path, uid, None, "the peer has not stored it") if row.is_stored else row


# "user:password" of webhooks and of the server for e-mail; no secret stands in a file.
WEBHOOK_CREDENTIALS = "ISOCENTER_WEBHOOK_CREDENTIALS"
SMTP_CREDENTIALS = "ISOCENTER_SMTP_CREDENTIALS"
REDIRECTS = range(300, 400)


def notify(to: Notify, smtp: Smtp | None, paths: Sequence[Path], *, idle_s: float) -> list[Sent]:
    """Send notices to a recipient; one row for each, in their order. Raises PeerError where nobody takes any."""
    with ExitStack() as open_now, _errors_of(to):
        if to.by == "webhook":
            send = partial(_posted, session_of(WEBHOOK_CREDENTIALS), to, idle_s)
        else:
            assert smtp is not None  # noqa: S101 - the settings say so
            send = partial(_mailed, open_now.enter_context(_server(smtp, idle_s)), smtp.sender, to)
        return sent_one_by_one(paths, send)


@contextmanager
def _errors_of(to: Notify) -> Iterator[None]:
    """Errors of a recipient as PeerError; those of requests and of smtplib are OSErrors."""
    try:
        yield
    except OSError as error:
        problem = f"does not answer, or does not take it ({type(error).__name__})"
        raise PeerError(problem, to.recipient, "Check its address, and what its log says") from error


def _posted(session: Any, to: Notify, idle_s: float, path: Path) -> Sent:
    """The outcome of one webhook. A redirect is refused for good: it could lead to this machine or into its network."""
    notice = parse_json(path.read_text(encoding="utf-8"))
    headers = {"Content-Type": "application/json", "Idempotency-Key": notice["notice"]}
    with _errors_of(to):
        answer = session.post(to.to, data=path.read_bytes(), headers=headers, timeout=idle_s, allow_redirects=False)
    if answer.status_code in REDIRECTS:
        problem = "it redirects to another address: give that one in [[notify]]"
        return Sent(path, notice["notice"], CLASS_NOT_SUPPORTED, problem)
    if not HTTPStatus.OK <= answer.status_code < HTTPStatus.MULTIPLE_CHOICES:
        return Sent(path, notice["notice"], None, f"answers with HTTP status {answer.status_code}")
    return Sent(path, notice["notice"], SUCCESS)


def _mailed(server: smtplib.SMTP, sender: str, to: Notify, path: Path) -> Sent:
    notice = parse_json(path.read_text(encoding="utf-8"))
    with _errors_of(to):
        server.send_message(_mail(notice, sender, to.to))
    return Sent(path, notice["notice"], SUCCESS)


def _server(smtp: Smtp, idle_s: float) -> smtplib.SMTP:
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
    stated_facts = [name for name in ("priority", "finding", "study", "because", "link") if name in notice]
    mail.set_content("\n".join(f"{name}: {notice[name]}" for name in stated_facts))
    mail.add_attachment(json.dumps(notice), subtype="json", filename="notice.json")
    return mail
