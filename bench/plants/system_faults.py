"""Faults of systems: a disk that is full at a write, a record whose bytes changed, a server whose answers are odd."""

from __future__ import annotations

import json
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import numpy as np

import hilum
from hilum.errors import HilumError
from hilum.files import file_formats
from hilum.runtime import Context
from hilum.runtime.covariate_encoding import Number
from hilum.service.configuration import CovariateSource, FhirSection
from hilum.service.exchange import fhir_covariates
from hilum.service.records import audit_records
from hilum.service.records.audit_records import AuditEvent
from hilum.values import Geometry, Image

from . import table_faults
from .image_looks import differ_from, look_at_image
from .planted import Array, Fault, Planted, Random, Seen, Volume, Wanted, emptied

# Names under which a volume and a picture are written.
VOLUME_NAMES = ("v.nii", "v.nii.gz", "v.nrrd", "v.mha")
PICTURE_NAMES = ("p.png", "p.tif", "p.npy")
# The page of a check has its styles in it, and is larger than so many bytes.
SMALLEST_PAGE = 4000


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes, which is what a full disk is like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill_disk(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted, Callable[..., Seen]]:
    """The disk is full before an image is written whole."""
    if volume.affine is None:
        planes = volume.values[None] if volume.values.ndim == 2 else np.moveaxis(volume.values, -1, 0)
        image = Image(np.ascontiguousarray(planes), Geometry.of_pixels(volume.values.shape[:2]))
        target = folder / "out" / rng.choice(PICTURE_NAMES)
    else:
        image = Image(volume.values[None], Geometry(volume.values.shape, volume.affine))
        target = folder / "out" / rng.choice(VOLUME_NAMES)
    file_formats.write(image, folder / "whole" / target.name)
    size = (folder / "whole" / target.name).stat().st_size
    room = [rng.randrange(size)]

    def write(path: Path, options: Mapping[str, Any]) -> Seen:
        try:
            with full_disk(room[0]):
                file_formats.write(image, path)
        except HilumError as error:
            left = [str(one.name) for one in path.parent.rglob("*")] if path.parent.is_dir() else []
            return Seen(None, f"{error.problem}", error.remedy, f"{left} is left behind" if left else "")
        seen = look_at_image(path, options)
        if seen.values is None:  # whoever wrote it learnt of nothing
            return Seen(Volume(np.empty(0)), f"written without an error: {seen.words}")
        return seen

    def free(path: Path) -> None:
        room[0] = 1 << 40

    return target, Wanted(("refused",), "", (("space|disk", free),), (0.01, 1e-6)), write


FULL = Fault("a full disk", fill_disk)


def plant_full_disk(source: str, pictures: list[Array], folder: Path, rng: Random) -> tuple[list[Fault], Planted]:
    """The disk is full before the results of `check` are written whole."""
    sheet = table_faults.sheet_of(pictures, folder / "set", rng)
    table, out = folder / "set" / "table.csv", folder / "out"
    table.write_bytes(sheet.content())
    room = [rng.randrange(SMALLEST_PAGE)]

    def check(path: Path, options: Mapping[str, Any]) -> Seen:
        try:
            with full_disk(room[0]):
                hilum.check(path, out=out)
        except HilumError as error:
            left = [one.name for one in out.rglob("*")] if out.is_dir() else []
            return Seen(None, error.problem, error.remedy, f"{left} is left behind" if left else "")
        return Seen(sorted(path.name for path in out.iterdir()), "")

    def free(_: Path) -> None:
        room[0] = 1 << 40

    wanted = Wanted(("refused",), "", (("space|disk", free),))
    return [RESULTS], Planted(source, table, wanted, check, lambda *_: "")


RESULTS = Fault("a full disk while check writes", plant_full_disk)


def sealed_lines(rng: Random) -> list[str]:
    """Events of an audit, each with the hash of the one before, as a node exports them."""
    previous = audit_records.FIRST
    lines = []
    for sequence in range(1, rng.randint(6, 20)):
        event = {
            "sequence": sequence,
            "at": 1.7e9 + sequence,
            "node": "one",
            "actor": rng.choice(("eve", "bob")),
            "role": "radiologist",
            "address": "10.0.0.7",
            "action": rng.choice(("view", "change", "send")),
            "object": f"{rng.randrange(1 << 60):x}",
            "patient": "",
            "outcome": "success",
            "detail": {"n": rng.randrange(100), "words": 'für "alle"'},
            "previous": previous,
            "hash": "",
        }
        text = audit_records.canonical_text(cast("AuditEvent", event))
        previous = event["hash"] = audit_records.event_hash(text)
        lines.append(audit_records.canonical_text(cast("AuditEvent", event)) + "\n")
    return lines


def change_byte(lines: list[str], rng: Random) -> bytes:
    """One bit of one byte is another."""
    content = bytearray("".join(lines).encode())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def drop_line(lines: list[str], rng: Random) -> bytes:
    """An event is missing."""
    del lines[rng.randrange(len(lines))]
    return "".join(lines).encode()


def double_line(lines: list[str], rng: Random) -> bytes:
    """An event stands there twice."""
    at = rng.randrange(len(lines))
    return "".join([*lines[: at + 1], *lines[at:]]).encode()


def exchange_lines(lines: list[str], rng: Random) -> bytes:
    """Two events change places."""
    first, second = rng.sample(range(len(lines)), 2)
    lines[first], lines[second] = lines[second], lines[first]
    return "".join(lines).encode()


def cut_lines(lines: list[str], rng: Random) -> bytes:
    """The file ends early."""
    content = "".join(lines).encode()
    return content[: rng.randrange(len(content) - 1)]


RECORDS = (
    Fault("a byte of the audit changed", change_byte),
    Fault("an event of the audit missing", drop_line),
    Fault("an event of the audit twice", double_line),
    Fault("events of the audit exchanged", exchange_lines),
    Fault("an audit cut", cut_lines),
)


@dataclass
class Peer:
    """What a FHIR server answers of a patient's readings, and how.

    body: changes the bytes of an answer; late_s: how long it waits; stated: of the answer's length
    """

    readings: list[dict[str, Any]]
    body: Callable[[bytes], bytes] = field(default=lambda content: content)
    late_s: float = 0.0
    beyond: int = 0
    idle_s: float = 2.0

    def answer(self, path: str) -> bytes:
        """The answer to a search."""
        found = self.readings if "/Observation" in path else [{"resourceType": "Patient", "id": "p"}]
        bundle = {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": one} for one in found]}
        content = json.dumps(bundle).encode()
        return self.body(content) if "/Observation" in path else content


NAME, CODE = "creatinine (mg/dL)", "http://loinc.org|2160-0"
STUDY = {"PatientID": "17", "StudyDate": "20260301", "StudyTime": "120000", "TimezoneOffsetFromUTC": "+0000"}


def peer_of(rng: Random) -> tuple[Peer, float]:
    """A server with readings of two months, the newest first, and the newest value."""
    readings = []
    for number in range(rng.randint(3, 8)):
        readings.append(
            {
                "resourceType": "Observation",
                "id": f"r{number}",
                "status": "final",
                "subject": {"reference": "Patient/p"},
                "code": {"coding": [{"system": "http://loinc.org", "code": "2160-0"}]},
                "effectiveDateTime": f"2026-02-{27 - 3 * number:02d}T08:00:00Z",
                "valueQuantity": {"value": round(rng.uniform(0.5, 3), 2), "unit": "mg/dL", "code": "mg/dL"},
            }
        )
    return Peer(readings), float(readings[0]["valueQuantity"]["value"])


def order_answers(peer: Peer, rng: Random) -> Wanted:
    """Readings come in another order than was asked for."""
    rng.shuffle(peer.readings)
    return Wanted(("same",))


def double_answers(peer: Peer, rng: Random) -> Wanted:
    """Each reading comes twice."""
    peer.readings = [*peer.readings, *peer.readings]
    return Wanted(("same",))


def delay_answers(peer: Peer, rng: Random) -> Wanted:
    """Answers come late, and in time."""
    peer.late_s = 0.05
    return Wanted(("same",))


def exceed_time(peer: Peer, rng: Random) -> Wanted:
    """Answers come later than anybody waits."""
    peer.late_s, peer.idle_s = 0.3, 0.05
    return Wanted(("refused",))


def cut_answers(peer: Peer, rng: Random) -> Wanted:
    """Answers end early."""
    share = rng.uniform(0.05, 0.95)
    peer.body = lambda content: content[: int(share * len(content))]
    return Wanted(("refused",))


def end_answers(peer: Peer, rng: Random) -> Wanted:
    """Answers end before the length that they state."""
    peer.beyond = rng.randint(1, 1000)
    peer.idle_s = 0.3
    return Wanted(("refused",))


def empty_answers(peer: Peer, rng: Random) -> Wanted:
    """Answers have no content."""
    peer.body = lambda content: b""
    return Wanted(("refused",))


def mark_answers(peer: Peer, rng: Random) -> Wanted:
    """A byte-order mark stands before the content."""
    peer.body = lambda content: b"\xef\xbb\xbf" + content
    return Wanted(("same", "refused"))


def answer_of_another(peer: Peer, rng: Random) -> Wanted:
    """A reading is of another patient."""
    rng.choice(peer.readings)["subject"] = {"reference": "Patient/q"}
    return Wanted(("refused",))


def answer_in_other_unit(peer: Peer, rng: Random) -> Wanted:
    """The newest reading is in another unit."""
    peer.readings[0]["valueQuantity"] = {"value": 88.0, "unit": "umol/L", "code": "umol/L"}
    return Wanted(("refused",))


def contradict_answers(peer: Peer, rng: Random) -> Wanted:
    """Two readings of one moment do not agree."""
    other = json.loads(json.dumps(peer.readings[0]))
    other["id"], other["valueQuantity"]["value"] = "other", 9.9
    peer.readings.append(other)
    return Wanted(("refused",))


ANSWERS = (
    Fault("answers in another order", order_answers),
    Fault("answers twice", double_answers),
    Fault("answers late", delay_answers),
    Fault("answers too late", exceed_time),
    Fault("answers cut", cut_answers),
    Fault("answers shorter than stated", end_answers),
    Fault("empty answers", empty_answers),
    Fault("a mark before answers", mark_answers),
    Fault("an answer of another patient", answer_of_another),
    Fault("an answer in another unit", answer_in_other_unit),
    Fault("answers that contradict", contradict_answers),
)


class PeerAnswer(BaseHTTPRequestHandler):
    """What the server of a `Peer` answers."""

    def do_GET(self) -> None:
        """Answer a search."""
        peer = cast("PeerServer", self.server).peer
        time.sleep(peer.late_s)
        content = peer.answer(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "application/fhir+json")
        self.send_header("Content-Length", str(len(content) + peer.beyond))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        pass


class PeerServer(ThreadingHTTPServer):
    """A FHIR server on this machine."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        super().__init__(("127.0.0.1", 0), PeerAnswer)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # whoever asked did not wait


def ask(peer: Peer) -> Seen:
    """The newest reading before the study, as a node asks for it."""
    with PeerServer(peer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        section = FhirSection(base=f"http://127.0.0.1:{server.server_port}")
        sources = {NAME: CovariateSource(source=f"fhir:Observation?code={CODE}")}
        context = Context((Number(NAME, 1, 1.1, 0.3),))
        try:
            found = fhir_covariates.fetch_covariates(sources, context, STUDY, section, idle_s=peer.idle_s)
        except HilumError as error:
            return Seen(None, error.problem, error.remedy, "" if error.remedy else "no remedy")
        finally:
            server.shutdown()
    return Seen(found[NAME].value, "")


def plant(source: str, volume: Volume, folder: Path, rng: Random) -> tuple[list[Fault], Planted]:
    """A full disk, a changed record, or odd answers."""
    kind = rng.choice(("disk", "record", "answers"))
    if kind == "disk":
        target, wanted, write = fill_disk(volume, folder, rng)
        return [FULL], Planted(source, target, wanted, write, differ_from(volume))
    if kind == "record":
        fault = rng.choice(RECORDS)
        lines = sealed_lines(rng)
        head = json.loads(lines[-1])["hash"]
        path = folder / "audit.jsonl"
        path.write_bytes(cast("bytes", fault.plant(list(lines), rng)))
        again = ("earlier|export|again", lambda place: place.write_text("".join(lines)))
        wanted = Wanted(("refused",), "", (again,))
        return [fault], Planted("simulated", path, wanted, lambda place, _: verify(place, head), lambda *_: "")
    fault = rng.choice(ANSWERS)
    peer, newest = peer_of(rng)
    whole = replace(peer, readings=json.loads(json.dumps(peer.readings)))
    wanted = fault.plant(peer, rng)

    def repair(_: Path) -> None:
        for name, value in vars(whole).items():
            setattr(peer, name, value)

    return [fault], Planted(
        "simulated",
        emptied(folder),
        replace(wanted, mends=(("check|correct|give|set|log", repair),)),
        lambda *_: ask(peer),
        lambda value, _: "" if value == newest else f"{value} in place of {newest}",
    )


def verify(path: Path, head: str) -> Seen:
    """Whether an export of the audit is as it was sealed."""
    try:
        return Seen(hilum.verify_audit(path, head=head).events, "")
    except HilumError as error:
        return Seen(None, error.problem, error.remedy, "" if error.remedy else "no remedy")
