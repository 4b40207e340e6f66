"""Answers to peers that have DICOMweb, by STOW-RS (PS3.18 10.5)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from isocenter.errors import FormatError, IsocenterError, foreign_errors
from isocenter.files.dicom import COMPREHENSIVE_3D, as_comprehensive, read_identity
from isocenter.lazy import dicomweb_api, dicomweb_sessions, pydicom
from isocenter.service.dicom.messages import CLASS_NOT_SUPPORTED
from isocenter.service.dicom.sending import PeerError, Sent
from isocenter.service.one_by_one import sent_one_by_one

SUCCESS = 0x0000
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
