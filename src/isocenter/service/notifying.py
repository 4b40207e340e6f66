"""Notices on their way to people: by webhook and by e-mail, each as often as it takes, under one id."""

from __future__ import annotations

import json
import os
import smtplib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from email.message import EmailMessage
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from isocenter.files import parse_json
from isocenter.service.dicom.messages import CLASS_NOT_SUPPORTED, SUCCESS
from isocenter.service.dicom.sending import PeerError, Sent
from isocenter.service.one_by_one import sent_one_by_one
from isocenter.service.settings import Notify, Smtp
from isocenter.service.web_sending import session_of

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
    stated = [name for name in ("priority", "finding", "study", "because", "link") if name in notice]
    mail.set_content("\n".join(f"{name}: {notice[name]}" for name in stated))
    mail.add_attachment(json.dumps(notice), subtype="json", filename="notice.json")
    return mail
