"""Records of findings and reports that tests of FHIR and HL7 make, and servers that take them."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hl7
from hypothesis import strategies as st

from hilum.service.exchange.fhir_reports import CERTAINTY, HIGH, LOW, PROBABILITY
from hilum.service.exchange.findings_report import FindingsReport, SegmentReference
from hilum.service.exchange.hl7_reports import ENDS
from hilum.values import Code, Finding
from hilum.values.finding import FindingsRecord

STUDY, SERIES = "1.2.840.5", "1.2.840.5.1"
MODEL = {"name": "lung nodules", "version": "1.2", "sha256": "ab" * 32, "weights_sha256": "ef" * 32}
PATIENT = {
    "PatientID": "17|x",
    "PatientName": "Doe^Jane^^Dr^MD",
    "PatientBirthDate": "19700131",
    "PatientSex": "F",
    "AccessionNumber": "A^1",
    "StudyDate": "20260301",
    "StudyTime": "101112.5",
}
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(
    str.strip
)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9)
chances = st.none() | st.floats(0, 1)
codes = st.builds(
    Code, st.sampled_from(["SCT", "LN", "RADLEX", "99SITE"]), st.from_regex(r"[A-Z0-9-]{1,9}", fullmatch=True), words
)
findings = st.builds(
    Finding,
    concept=words,
    value=numbers | st.booleans() | st.none() | st.just([[1.5, 2.0, 3.0], [4.0, 5.5, 6.0]]),
    unit=st.sampled_from(["", "1", "ml", "mm", "%", "years", "voxels", "furlong"]),
    probability=chances,
    codes=st.lists(codes, max_size=4).map(tuple),
    low=st.none() | numbers,
    high=st.none() | numbers,
    group=words,
    called=st.sampled_from([None, True, False]),
    possible=st.none() | st.lists(words, max_size=2).map(tuple),
    label=st.none() | st.integers(0, 99),
    box=st.none() | st.integers(0, 9),
    calibrated=st.booleans(),
)


def report(*rows: Finding, outcome: str = "answered", is_empty: bool = False, **changed: Any) -> FindingsReport:
    """The report of a job with these findings."""
    findings = FindingsRecord(rows, outcome, changed.pop("reason", ""), MODEL, is_empty=is_empty)
    record = json.loads(json.dumps(findings.record))
    facts: dict[str, Any] = {
        "model_hash": "cd" * 32,
        "study": STUDY,
        "stamp": 1.78e9,
        "series": (SERIES,),
        "patient": PATIENT,
        "node": "radiology",
        "text": "For research use only",
    }
    return FindingsReport("0123456789abcdef" * 2, record, **{**facts, **changed})


SEGMENT = SegmentReference("1.2.9", "1.2.9.1", "1.2.840.10008.5.1.4.1.1.66.4", 3)


def resources(made, kind: str) -> list[dict[str, Any]]:
    """The resources of one kind in a Bundle."""
    return [one["resource"] for one in made["entry"] if one["resource"]["resourceType"] == kind]


def numbers_of_fhir(observation) -> dict[str, float | bool | None]:
    """Value, probability and ends of the interval of an Observation."""
    coded = {
        one["code"]["coding"][0]["code"]: one["valueQuantity"]["value"]
        for one in observation.get("component", ())
        if "coding" in one["code"]
    }
    return {
        "value": observation.get("valueQuantity", {}).get("value"),
        "probability": coded.get(PROBABILITY[0], coded.get(CERTAINTY[0])),
        "low": coded.get(LOW[0]),
        "high": coded.get(HIGH[0]),
    }


def numbers_of_hl7(text, count) -> list[dict[str, float | None]]:
    """The same of each finding of a message; the ends of an interval follow it, and OBX-4 names them."""
    rows = [dict.fromkeys(("value", "probability", "low", "high")) for _ in range(count)]
    following, row = iter(rows), rows[0] if rows else {}
    for line in (one for one in text.split("\r") if one.startswith("OBX")):
        fields = line.split("|")
        end = fields[4].rpartition(".")[2]
        if end in ENDS:
            assert fields[3].startswith(ENDS[end][0])
            row[end] = Decimal(fields[5])
            continue
        row = next(following)
        if fields[2] == "NM" and "probability" not in fields[6]:
            row["value"] = Decimal(fields[5])
        if fields[9]:
            row["probability"] = Decimal(fields[9])
    return rows


@dataclass
class FhirPeer:
    """A FHIR server that keeps what it is sent; `answers` come first, each once."""

    url: str = ""
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    searches: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = field(default_factory=list)

    def transact(self, bundle: dict[str, Any]) -> dict[str, Any]:
        """Make what has an identifier that is new; what is there stays, but for what is put in its place."""
        statuses = []
        for entry in bundle["entry"]:
            if entry["request"]["method"] == "PUT":
                self.resources[unquote(entry["request"]["url"])] = entry["resource"]
                statuses.append("200 OK")
                continue
            asked = f"{entry['request']['url']}?{unquote(entry['request']['ifNoneExist'])}"
            statuses.append("200 OK" if asked in self.resources else "201 Created")
            self.resources.setdefault(asked, entry["resource"])
        entries = [{"response": {"status": one}} for one in statuses]
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}


@contextmanager
def fhir_peer(*answers: tuple[int, dict[str, str], bytes], seed: int | None = None) -> Iterator[FhirPeer]:
    """A FHIR server on a free port; seed: of its failures, every second request before or after its work."""
    chance, peer = random.Random(seed), FhirPeer(answers=list(answers))  # noqa: S311 - no secret

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            when = chance.choice(["before", "after", "", ""]) if seed is not None else ""
            if when == "before":
                return self._say(503, {}, b"")
            if peer.answers:
                return self._say(*peer.answers.pop(0))
            peer.asked.append((self.path, {}, dict(self.headers)))
            made = json.dumps(peer.transact(json.loads(body))).encode()
            if when == "after":  # the work is done, and nobody hears of it
                return self.close_connection
            return self._say(200, {"Content-Type": "application/fhir+json"}, made)

        def do_GET(self) -> None:
            if peer.answers:
                return self._say(*peer.answers.pop(0))
            place = urlsplit(self.path)
            peer.asked.append((place.path, parse_qs(place.query), dict(self.headers)))
            kind = place.path.rpartition("/")[2]
            entries = [{"resource": one} for one in peer.searches.get(kind, [])]
            body = json.dumps({"resourceType": "Bundle", "type": "searchset", "entry": entries}).encode()
            return self._say(200, {"Content-Type": "application/fhir+json"}, body)

        def _say(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    peer.url = f"http://127.0.0.1:{server.server_port}/fhir"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def hl7_peer(
    answer: Callable[[str, int], str | None], *, end: str = "\r", frame: tuple[bytes, bytes] = (b"\x0b", b"\x1c\r")
) -> Iterator[tuple[str, list[str]]]:
    """A receiver by MLLP: where it listens, and what it took.

    answer: of the control id and the number of the message, the code of its acknowledgement; None for none
    end, frame: of the segments of its acknowledgements, and what begins and ends their block
    """
    taken, stop = list[str](), threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.05)

    def serve() -> None:
        while not stop.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            with connection:
                data = b""
                while b"\x1c\r" not in data and (piece := connection.recv(65536)):
                    data += piece
                text = data.strip(b"\x0b\x1c\r").decode()
                taken.append(text)
                control = str(hl7.parse(text)["MSH.F10"])
                code = answer(control, len(taken))
                if code is None:
                    stop.wait(0.05)
                    continue
                acknowledged = f"MSH|^~\\&|||||20260101||ACK|1|P|2.5.1{end}MSA|{code}|{control}{end}"
                connection.sendall(frame[0] + acknowledged.encode() + frame[1])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}", taken
    finally:
        stop.set()
        thread.join(10)
        server.close()
