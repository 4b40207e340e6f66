"""A report as an HL7 v2.5.1 message ORU^R01, and its way to a receiver by MLLP.

The message is a pure function of the report: an OBX for each finding.
"""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal

import hl7

from hilum.errors import FormatError
from hilum.files.dicom.writing.sr import UCUM
from hilum.service.dicom.sending import PeerError
from hilum.service.exchange import findings_report
from hilum.service.exchange.findings_report import FindingsReport
from hilum.values.finding_records import CodeRecord, FindingRow

VERSION, ENCODING = "2.5.1", "UNICODE UTF-8"
# A control id has 20 letters (MSH-10), of which 80 bits of a job's key are enough to be its own.
CONTROL_LETTERS = 20
PRESENT, ABSENT = ("52101004", "Present", "SCT"), ("2667000", "Absent", "SCT")
REPORT_CODE = ("126000", "Imaging Measurement Report", "DCM")
ENDS = {
    "low": ("371885007", "Lower bound of confidence interval", "SCT"),
    "high": ("371886008", "Upper bound of confidence interval", "SCT"),
}
PROBABILITY = ("1", "probability", "UCUM")
# HL7 table 0485.
PRIORITIES = {"emergency": "S", "urgent": "A", "routine": "R", "background": "R"}
# Alphabetic, ideographic, phonetic: HL7 table 0465, in the order of DICOM's component groups.
WRITINGS = "AIP"
UNNAMED = "^^^^^^U"
SEX = {"M": "M", "F": "F", "O": "O"}
# What separates fields, components, repetitions and subcomponents, and begins an escape.
ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "~": "\\R\\", "&": "\\T\\"}
ESCAPED = re.compile(r"[\\|^~&]|\r\n|[\r\n]|[\x00-\x1f]")

Code = tuple[str, str, str]


def control_id(job: str, *, taken_back: bool = False) -> str:
    """MSH-10 of a job's message, the same each time it is sent; that which takes it back has one of its own."""
    return f"{job[: CONTROL_LETTERS - 1]}W" if taken_back else job[:CONTROL_LETTERS]


def oru_message(report: FindingsReport) -> bytes:
    """The report as ORU^R01 in UTF-8, the same bytes whenever it is made."""
    segments = [*_head(report), *_observations(report)]
    hl7_message = hl7.Message("\r", [_segment(*fields) for fields in segments])
    return str(hl7_message).encode()


def _segment(name: str, *fields: str) -> hl7.Segment:
    """A segment; its fields are escaped already."""
    last = max((n for n, one in enumerate(fields, start=1) if one), default=0)
    if name == "MSH":  # whose first field is the separator itself
        fields, last = ("|", *fields), last + 1
    return hl7.Segment("|", [hl7.Field("~", [name]), *(hl7.Field("~", [one]) for one in fields[:last])])


def _head(report: FindingsReport) -> Iterator[Sequence[str]]:
    at = report.issue_time.strftime("%Y%m%d%H%M%S+0000")
    sender = (escape_field("HILUM"), escape_field(report.node))
    kind = ("ORU^R01^ORU_R01", control_id(report.job, taken_back=bool(report.taken_back)), "P", VERSION)
    yield ("MSH", "^~\\&", *sender, "", "", at, "", *kind, "", "", "", "", "", ENCODING)
    issuer = escape_field(report.fact("IssuerOfPatientID"))
    identity = "~".join(f"{escape_field(one)}^^^{issuer}".rstrip("^") for one in report.facts("PatientID")) or '""'
    born, sex = report.fact("PatientBirthDate"), SEX.get(report.fact("PatientSex"), "U")
    born = born if re.fullmatch(r"\d{8}", born) else ""
    yield ("PID", "1", "", identity, "", _name(report.fact("PatientName")), "", born, sex)
    order, began = "~".join(map(escape_field, report.facts("AccessionNumber"))), _time(report)
    # Corrected; final; no results available, order canceled: table 0123.
    status = "C" if report.taken_back else "F" if report.has_answer else "X"
    priority = PRIORITIES[report.priority]
    study = _code(REPORT_CODE)
    filler = f"{report.job[:CONTROL_LETTERS]}^HILUM"
    yield ("OBR", "1", order, filler, study, priority, "", began, *[""] * 14, at, "", "", status)
    notes = [report.conclusion, f"StudyInstanceUID {report.study}"]
    model = report.record["model"]
    named = " ".join(str(model[key]) for key in ("name", "version") if model.get(key))
    digest = f", SHA-256 {model['sha256']}" if model.get("sha256") else ""
    notes.append(f"Model {named}{digest}")
    yield from _notes(notes)


def _observations(report: FindingsReport) -> Iterator[Sequence[str]]:
    number = 0
    at = report.issue_time.strftime("%Y%m%d%H%M%S+0000")
    doer = escape_field(str(report.record["model"].get("name", "")))
    measured = Counter[int]()
    for index in range(len(report.rows)):
        place, row = _place(report, index, measured)
        for sub, (kind, code, value, unit, p) in _values(row, place):
            number += 1
            # Post original as wrong; final; cannot be obtained: table 0085.
            state = "W" if report.taken_back else "F" if value else "X"
            yield (
                *("OBX", str(number), kind if value else "", code, sub, value, unit, "", "", p, "", state),
                *("", "", at, "", "", "", doer),
            )
            if sub == place:
                yield from _notes(_remarks(row))


def _place(report: FindingsReport, index: int, measured: Counter[int]) -> tuple[str, FindingRow]:
    """(sub-id, row) of a finding; of a measurement both name its structure. measured: how many each structure has."""
    row = report.rows[index]
    if (structure := report.structure_of(row)) is None:
        return str(index + 1), row
    (parent, name), codes = structure, row.get("codes") or ()
    words: CodeRecord = {"value": "", "meaning": f"{row['concept']} of {name}", "scheme": "L"}
    row = {**row, "codes": [*codes[:1], words, *codes[1:]]}
    if parent is None:
        return str(index + 1), row
    measured[parent] += 1
    return f"{parent + 1}.{measured[parent]}", row  # 2.1 is the first measurement of the structure in 2


def _values(row: FindingRow, index: str) -> Iterator[tuple[str, tuple[str, str, str, str, str]]]:
    """(sub-id, (type, concept, value, unit, probability)) of a finding, and of the ends of its interval."""
    value, concept, unit = row.get("value"), _concept(row), _unit(row.get("unit") or "")
    p = findings_report.finite_or_none(row.get("probability"))
    sure = "" if p is None else _decimal(p)
    number = findings_report.finite_or_none(value)
    if row.get("called"):
        yield index, ("CWE", _text(row.get("group") or "class"), concept, "", sure)
    elif isinstance(value, bool | list | tuple):  # a list is a box, which is there
        yield index, ("CWE", concept, _code(ABSENT if value is False else PRESENT), "", sure)
    elif number is not None:
        yield index, ("NM", concept, _decimal(number), unit, sure)
    elif isinstance(value, str) and value.strip():
        yield index, ("ST", concept, escape_field(value), "", sure)
    elif value is None and sure:  # all that is known is how likely it is
        yield index, ("NM", concept, sure, _code(PROBABILITY), sure)
    else:
        yield index, ("", concept, "", "", sure)
    for name, code in ENDS.items():
        if (end := findings_report.finite_or_none(row.get(name))) is not None:
            yield f"{index}.{name}", ("NM", _code(code), _decimal(end), unit, "")


def _remarks(row: FindingRow) -> Iterator[str]:
    """Remarks without a field: further codes, whether a probability is calibrated, the set of answers, the place."""
    if further := (row.get("codes") or ())[2:]:
        codes = [f"{one['value']} {one['meaning']} ({one['scheme']})" for one in further]
        yield f"Further codes: {'; '.join(codes)}"
    if findings_report.finite_or_none(row.get("probability")) is not None and not row.get("calibrated"):
        yield "The probability is not calibrated"
    if possible := row.get("possible"):
        yield f"Not ruled out at the stated coverage: {', '.join(possible)}"
    if isinstance(row.get("value"), list | tuple):
        yield f"Corners in {row.get('unit') or 'voxels'}: {row['value']}"
    if row.get("frame") is not None:
        yield f"Frame {row['frame']} (from 0)"
    if row.get("instance"):
        yield f"SOPInstanceUID {row['instance']}"


def _notes(words: Iterator[str] | Sequence[str]) -> Iterator[Sequence[str]]:
    for number, word in enumerate(filter(None, words), start=1):
        yield ("NTE", str(number), "L", escape_field(word))


def _concept(row: FindingRow) -> str:
    """The first two codes of a concept, as many as a coded element has; without any its words."""
    codes = [(one["value"], one["meaning"], one["scheme"]) for one in (row.get("codes") or ())[:2]]
    return "^".join(map(_code, codes)) if codes else _text(row["concept"])


def _code(code: Code) -> str:
    return "^".join(map(escape_field, code))


def _text(words: str) -> str:
    return f"^{escape_field(words)}"


def _unit(unit: str) -> str:
    code = "1" if unit == "1" else UCUM.get(unit)
    return "" if not unit else _text(unit) if code is None else _code((code, unit, "UCUM"))


def _decimal(number: float) -> str:
    """A number as NM writes it: all of its digits, and no exponent."""
    return format(Decimal(repr(number)), "f")


def _time(report: FindingsReport) -> str:
    """When the study began, as far as it is stated."""
    date, clock = report.fact("StudyDate"), report.fact("StudyTime").partition(".")[0]
    if not re.fullmatch(r"\d{8}", date):
        return ""
    return date + (clock if re.fullmatch(r"\d{4}(\d\d)?", clock) else "")


def _name(name: str) -> str:
    """A person's name: DICOM has the prefix before the suffix, HL7 after it.

    A name in several writings is repeated, each as the legal one (table 0200) with its writing.
    """
    groups = [(one, way) for one, way in zip(name.split("="), WRITINGS, strict=False) if one.strip(" ^")]
    is_marked = [way for _, way in groups] not in ([], [WRITINGS[0]])
    repetitions = []
    for group, way in groups:
        family, first_name, middle, prefix, suffix = [*group.split("^"), "", "", "", "", ""][:5]
        parts = "^".join(map(escape_field, (family, first_name, middle, suffix, prefix)))
        repetitions.append(f"{parts}^^L^{way}" if is_marked else parts.rstrip("^"))
    return "~".join(repetitions) or UNNAMED


def escape_field(text: str) -> str:
    """Text without what would end a field: separators are escaped, a line break is a break of the formatted text."""

    def written(match: re.Match[str]) -> str:
        found = match[0]
        if found in ESCAPES:
            return ESCAPES[found]
        return "\\.br\\" if found in ("\r\n", "\r", "\n") else " "

    return ESCAPED.sub(written, text)


BEGIN, END = b"\x0b", b"\x1c\r"
LARGEST = 1 << 20  # bytes of an acknowledgement
TAKEN, WRONG = ("AA", "CA"), ("AE", "CE")


def send_by_mllp(host: str, port: int, message: bytes, control_id: str, *, idle_s: float) -> None:
    """Send a message, and wait until the receiver has taken it.

    Raises FormatError where it finds the message wrong (AE): another try would be the same. PeerError where it does not
    answer in time, answers something else, or cannot take it now (AR).
    """
    receiver, until = f"{host}:{port}", time.monotonic() + idle_s
    try:
        with socket.create_connection((host, port), timeout=idle_s) as connection:
            connection.sendall(BEGIN + message + END)
            answer = _answer(connection, until)
    except OSError as error:
        problem = f"does not acknowledge ({type(error).__name__})"
        raise PeerError(problem, receiver, "Check that it is running") from error
    try:
        # Some end a segment by LF or CRLF, or leave lines blank between them.
        segments = (one.strip() for one in re.split(r"[\r\n]+", answer.decode(errors="replace")))
        acknowledged = hl7.parse("\r".join(filter(None, segments)))
        code, about = str(acknowledged["MSA.1"]), str(acknowledged["MSA.2"])
    except Exception as error:  # the library raises what it likes for what is no HL7
        raise PeerError(
            "answers with something that is no acknowledgement", receiver, "See what its log says"
        ) from error
    if about != control_id:
        raise PeerError("acknowledges another message", receiver, "See what its log says")
    if code in WRONG:
        raise FormatError(f"it finds an error in the message ({code})", receiver, "See what its log says")
    if code not in TAKEN:
        raise PeerError(f"does not take the message ({code or 'no code'})", receiver, "See what its log says")


def _answer(connection: socket.socket, until: float) -> bytes:
    """The first block that comes. Raises OSError where it does not come in time, or is none."""
    taken = b""
    while END[:1] not in taken:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(1 << 16)
        if (not piece and b"MSA" not in taken) or len(taken) > LARGEST:
            raise ConnectionError
        if not piece:  # it has said all, and has not ended the block
            break
        taken += piece
    block = taken.partition(END[:1])[0]
    return block.rpartition(BEGIN)[2]  # which is the whole where no byte begins it
