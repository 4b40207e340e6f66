"""A FHIR server as a client sees it: searches, and transactions that make nothing twice."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from hilum.errors import FormatError
from hilum.files.storage import structured_text
from hilum.service.dicom.sending import PeerError

TOKEN = "HILUM_FHIR_TOKEN"  # noqa: S105 - the name of a variable
JSON = "application/fhir+json"
# Of an answer (bytes), and of the pages of a search; more is no search that a model asks.
LARGEST, MOST_PAGES = 64 << 20, 100
# Statuses that are about what was sent, and that no other try will change; all others are about the server or us.
# 412: the server has several resources of one of our identifiers, and makes no further one.
OF_RESOURCE = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.PRECONDITION_FAILED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


class BusyError(PeerError):
    """A server that asks to be left alone for a while. after_s: how long."""

    after_s = 0.0


# A resource of FHIR, of whatever kind.
Resource = dict[str, Any]


@dataclass(frozen=True)
class FhirServer:
    """A FHIR server by the address of its resources; the token comes from HILUM_FHIR_TOKEN.

    idle_s: how long it may be silent
    """

    base: str
    idle_s: float = 60.0
    token: str = field(default_factory=lambda: os.environ.get(TOKEN, ""), repr=False)

    def transact(self, bundle: bytes) -> None:
        """Send a Bundle of type transaction.

        Raises FormatError where the server refuses it for good or answers with odd FHIR, PeerError where it does not
        answer as a FHIR server does, BusyError where it asks to wait.
        """
        answer = self._ask("POST", self.base.rstrip("/"), data=bundle, headers={"Content-Type": JSON})
        if answer is None:
            return
        if answer.get("resourceType") != "Bundle" or answer.get("type") != "transaction-response":
            raise self._wrong("answers a transaction with something else")
        entries = self._parts(answer, "entry")
        if len(entries) != (count := len(structured_text.parse_json(bundle.decode())["entry"])):
            raise self._error(f"answers {len(entries)} of {count} entries of a transaction")
        for entry in entries:
            response = self._resource(entry, "response")
            status = str(response.get("status")).partition(" ")[0]
            if not re.fullmatch(r"2\d\d", status):
                problem = f"takes an entry of a transaction with status {status[:3]}{_issues(response.get('outcome'))}"
                raise self._wrong(problem) if status in map(str, map(int, OF_RESOURCE)) else self._error(problem)

    def search(self, kind: str, wanted: Mapping[str, str | Sequence[str]]) -> Iterator[Resource]:
        """The resources of a kind that fit, page by page. Errors as `transact`."""
        url: str | None = f"{self.base.rstrip('/')}/{kind}"
        parameters: Mapping[str, str | Sequence[str]] | None = wanted
        for _ in range(MOST_PAGES):
            answer = self._ask("GET", str(url), params=parameters)
            if answer is None:
                return
            if answer.get("resourceType") != "Bundle":
                raise self._wrong("answers a search with something else")
            for entry in self._parts(answer, "entry"):
                resource = self._resource(entry, "resource")
                if resource.get("resourceType") == kind:  # else an OperationOutcome, or what was included
                    yield resource
            following = [one.get("url") for one in self._parts(answer, "link") if one.get("relation") == "next"]
            if not following:
                return
            url, parameters = urljoin(f"{self.base.rstrip('/')}/", str(following[0])), None
            if urlsplit(url)[:2] != urlsplit(self.base)[:2]:  # the token is for nobody else
                raise self._wrong("names another server for the next page of a search")
        raise self._wrong(f"has more than {MOST_PAGES} pages of a search")

    def _parts(self, bundle: Resource, name: str) -> list[Resource]:
        """A list of objects in a Bundle. Raises FormatError for anything else."""
        parts = bundle.get(name) or []
        if not isinstance(parts, list) or not all(isinstance(one, dict) for one in parts):
            raise self._wrong(f"answers with a Bundle whose {name} is no FHIR")
        return parts

    def _resource(self, entry: Resource, name: str) -> Resource:
        """The object in an entry of a Bundle; an empty one without. Raises FormatError for anything else."""
        resource = entry.get(name) or {}
        if not isinstance(resource, dict):
            raise self._wrong("answers with an entry that is no FHIR")
        return resource

    def _ask(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> Any:
        """The answer as JSON; None where the server has taken something, or found nothing, and states no more."""
        all_headers = {
            "Accept": JSON,
            **(headers or {}),
            **({"Authorization": f"Bearer {self.token}"} if self.token else {}),
        }
        how: dict[str, Any] = {"headers": all_headers, "timeout": self.idle_s, "allow_redirects": False, "stream": True}
        try:
            with requests.request(method, url, **how, **options) as response:  # noqa: S113 - the timeout is in `how`
                body = b"".join(_pieces(response))
        except (requests.RequestException, ValueError) as error:
            problem = f"does not answer ({type(error).__name__})"
            raise PeerError(problem, self.base, "Check that it is running") from error
        status = response.status_code
        if len(body) > LARGEST:
            raise self._error("answers with more than a search can have")
        try:
            answer = structured_text.parse_json(body)
        except ValueError:
            answer = None
        if status in OF_RESOURCE:
            raise FormatError(f"HTTP status {status}{_issues(answer)}", self.base, "See what its log says")
        if status == HTTPStatus.TOO_MANY_REQUESTS or "Retry-After" in response.headers:
            busy = BusyError(f"asks to wait (HTTP status {status})", self.base, "It is tried again")
            pause = response.headers.get("Retry-After", "")
            busy.after_s = float(pause) if pause.isdecimal() else 0.0
            raise busy
        if status in range(300, 400):
            raise self._wrong("redirects to another address: give that one as fhir.base")
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise self._error(f"answers with HTTP status {status}{_issues(answer)}")
        is_empty = not body.strip()
        if is_empty and (method == "POST" or status == HTTPStatus.NO_CONTENT):
            return None
        if not isinstance(answer, dict):
            kind = response.headers.get("Content-Type", "").partition(";")[0] or "something"
            raise self._error(f"answers with {kind}, which is no FHIR")
        return answer

    def _error(self, problem: str) -> PeerError:
        return PeerError(problem, self.base, "Check fhir.base, and what its log says")

    def _wrong(self, problem: str) -> FormatError:
        """What no other try will change."""
        return FormatError(f"the FHIR server {problem}", self.base, "Check fhir.base, and what its log says")


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """The body, of a larger one only so much that this is seen."""
    size = 0
    for piece in response.iter_content(1 << 16):
        size += len(piece)
        yield piece
        if size > LARGEST:
            return


def _issues(answer: Any) -> str:
    """The codes of what an OperationOutcome complains of; its words may name the patient."""
    issues = answer.get("issue") if isinstance(answer, dict) else None
    issues = issues if isinstance(issues, list) else ()
    codes = [str(one.get("code")) for one in issues if isinstance(one, dict)]
    return f" ({', '.join(dict.fromkeys(codes))})" if codes else ""
