"""A report as a FHIR Bundle, in R5 or R4B; a pure function of the report.

Observations follow HL7's guide "DICOM SR to FHIR Resource Mapping" (hl7.fhir.uv.dicom-sr 1.0.0, STU 1), Device and
Provenance "AI Transparency on FHIR" too (hl7.fhir.uv.aitransparency 1.0.0-ballot of January 2026).
"""

from __future__ import annotations

import base64
import json
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from hilum.errors import FormatError
from hilum.files.dicom.writing.sr import UCUM
from hilum.service.exchange import findings_report
from hilum.service.exchange.fhir_server import Resource
from hilum.service.exchange.findings_report import NAMESPACE, FindingsReport, SegmentReference
from hilum.values.finding_records import FindingRow

Version = Literal["R5", "R4B"]

DCM, SCT = "http://dicom.nema.org/resources/ontology/DCM", "http://snomed.info/sct"
UNITS = "http://unitsofmeasure.org"
# Addresses of coding schemes, PS3.16 8 and https://terminology.hl7.org; others get one below SCHEME.
SYSTEMS: Mapping[str, str] = {
    "SCT": SCT,
    "DCM": DCM,
    "LN": "http://loinc.org",
    "LOINC": "http://loinc.org",
    "UCUM": UNITS,
    "RADLEX": "http://radlex.org",
    "RADELEMENT": "http://radelement.org",
    "FMA": "http://purl.org/sig/ont/fma",
    "UMLS": "http://terminology.hl7.org/CodeSystem/umls",
    "NCIt": "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    "ICD10": "http://hl7.org/fhir/sid/icd-10",
    "ICD11": "http://id.who.int/icd/release/11/mms",
}
SCHEME = "urn:hilum:scheme:"
DICOM_UID, URI = "urn:dicom:uid", "urn:ietf:rfc:3986"
# "Artificial Intelligence asserted", as the guide on transparency marks what a model states.
AI_ASSERTED = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
TRANSPARENCY = "http://hl7.org/fhir/uv/aitransparency"
DICOM_SR = "http://hl7.org/fhir/uv/dicom-sr"
PROBABILITY, CERTAINTY = ("122157", "Probability"), ("111012", "Certainty of Finding")
LOW, HIGH = ("371885007", "Lower bound of confidence interval"), ("371886008", "Upper bound of confidence interval")
PRESENT, ABSENT = ("52101004", "Present"), ("2667000", "Absent")
# What a row states besides its values, as components: {field of the row: words}.
PLACES = {
    "label": "Value in the label map",
    "box": "Row of the box",
    "frame": "Frame, from 0",
    "case": "Image",
    "instance": "SOP Instance UID",
}
CORNERS, POSSIBLE = "Corners", "Not ruled out at the stated coverage"
# The status of what was sent and holds no more.
TAKEN_BACK = "entered-in-error"
# How FHIR calls the priority of a request, and each of ours.
PRIORITY = "http://hl7.org/fhir/request-priority"
URGENCIES = {"emergency": "stat", "urgent": "urgent", "routine": "routine", "background": "routine"}
# How a report system finds the format of a model card by its address.
CARDS = {".md": ("text/markdown", "AIModelCardMarkdownFormat"), ".xml": ("application/xml", "AImodelCardCHAIformat")}


def report_bundle(report: FindingsReport, version: Version, *, transaction: bool = False) -> Resource:
    """The report's Bundle: DiagnosticReport, Observations, Device, Provenance, with a card DocumentReference, in R5
    ImagingSelections too.

    transaction: for a server, which makes each resource only where it has none of its identifier; of a report that
                 was taken back it exchanges those that it has
    """
    content = _Bundle(report, version)
    entries = [_entry(url, resource, transaction=transaction) for url, resource in content.resources.items()]
    kind = {"type": "transaction"} if transaction else {"type": "collection", "timestamp": _instant(report)}
    return {"resourceType": "Bundle", **kind, "entry": entries}


def encode_bundle(resource: Resource, version: Version) -> bytes:
    """The Bundle as JSON. Raises FormatError where it is none of its version of FHIR."""
    room = "fhir.resources" if version == "R5" else f"fhir.resources.{version}"
    try:
        import_module(f"{room}.bundle").Bundle.model_validate(resource)
    except ValueError as error:  # pydantic's is one; its words hold values, which may be a patient's
        places = sorted({".".join(map(str, one["loc"])) for one in getattr(error, "errors", list)()})
        problem = f"the report is no {version} of FHIR ({', '.join(places[:3]) or type(error).__name__})"
        raise FormatError(problem, "fhir", "Report it") from error
    return json.dumps(resource, ensure_ascii=False, allow_nan=False).encode()


def _entry(url: str, resource: Resource, *, transaction: bool) -> Resource:
    entry: Resource = {"fullUrl": url, "resource": resource}
    if transaction:
        kind = resource["resourceType"]
        # Provenance has no identifier by which a server could find it; a tag every resource has.
        [identifier, *_] = resource.get("identifier") or resource["meta"]["tag"]
        name, value = ("identifier", identifier["value"]) if "identifier" in resource else ("_tag", identifier["code"])
        asked = f"{name}={quote(identifier['system'], safe='')}%7C{quote(value, safe='')}"
        if resource.get("status") == TAKEN_BACK:  # in place of the one that is there
            return {**entry, "request": {"method": "PUT", "url": f"{kind}?{asked}"}}
        entry["request"] = {"method": "POST", "url": kind, "ifNoneExist": asked}
    return entry


class _Bundle:
    """The resources of a report as they are put together: {fullUrl: resource}."""

    def __init__(self, report: FindingsReport, version: Version) -> None:
        self.report, self.is_r5 = report, version == "R5"
        self.resources: dict[str, Resource] = {}
        self.device = self._add_device()
        sources = [self._add_series(uid) for uid in report.series] if self.is_r5 else []
        rows = [self._add_observation(number, row, sources) for number, row in enumerate(report.rows)]
        self.about = self._add_report(rows)
        if not report.taken_back:
            self._add_provenance([self.about, *rows])

    def _add(self, key: uuid.UUID, resource: Resource) -> str:
        self.resources[url := f"urn:uuid:{key}"] = resource
        return url

    @property
    def _subject(self) -> Resource:
        name, system = self.report.fact("PatientID"), self.report.patient_system
        if not name:
            return {"type": "Patient", "display": "Patient without a PatientID"}
        return {"type": "Patient", "identifier": {**({"system": system} if system else {}), "value": name}}

    @property
    def _study(self) -> Resource:
        kind = {"coding": [{"system": DCM, "code": "110180", "display": "Study Instance UID"}]}
        identifier = {"type": kind, "system": DICOM_UID, "value": f"urn:oid:{self.report.study}"}
        return {"type": "ImagingStudy", "identifier": identifier}

    @property
    def _order(self) -> Resource:
        """The orders of the study by its accession numbers, where they are stated."""
        numbers = self.report.facts("AccessionNumber")
        if not numbers:
            return {}
        system = "http://terminology.hl7.org/CodeSystem/v2-0203"
        kind = {"coding": [{"system": system, "code": "ACSN", "display": "Accession ID"}]}
        return {"basedOn": [{"type": "ServiceRequest", "identifier": {"type": kind, "value": one}} for one in numbers]}

    def _add_device(self) -> str:
        """The model: the same resource for all of its jobs."""
        model, key = self.report.record["model"], uuid.uuid5(NAMESPACE, self.report.model_hash)
        name = model.get("name") or "unnamed model"
        coding = [{"system": f"{TRANSPARENCY}/CodeSystem/AIdeviceTypeCS", "code": "Artificial-Intelligence"}]
        versions = {"Version": model.get("version"), "SHA-256 of the model": model.get("sha256")}
        versions_stated = [{"type": {"text": words}, "value": value} for words, value in versions.items() if value]
        device: Resource = {
            "resourceType": "Device",
            "meta": {"security": [AI_ASSERTED]},
            "identifier": [{"system": URI, "value": f"urn:uuid:{key}"}],
            "type": [{"coding": coding}] if self.is_r5 else {"coding": coding},
            **({"version": versions_stated} if versions_stated else {}),
        }
        if self.is_r5:
            device["name"] = [{"value": name, "type": "user-friendly-name"}]
        else:
            device["deviceName"] = [{"name": name, "type": "user-friendly-name"}]
        if self.report.card:
            extension = f"{TRANSPARENCY}/StructureDefinition/aitransparency.modelCardDescription"
            device["extension"] = [{"url": extension, "valueReference": {"reference": self._add_card(key)}}]
        return self._add(key, device)

    def _add_card(self, model: uuid.UUID) -> str:
        """The address of the model card."""
        card = self.report.card
        key = uuid.uuid5(model, card)
        kind, code = CARDS.get(PurePosixPath(urlsplit(card).path).suffix, ("", ""))
        codes = f"{TRANSPARENCY}/CodeSystem/AIinputsCS"
        category = {"coding": [{"system": codes, "code": code}]} if code else {"text": "Model card"}
        return self._add(
            key,
            {
                "resourceType": "DocumentReference",
                "identifier": [{"system": URI, "value": f"urn:uuid:{key}"}],
                "status": "current",
                "type": {"coding": [{"system": codes, "code": "AIModelCard", "display": "AI Model-Card"}]},
                "category": [category],
                "content": [{"attachment": {**({"contentType": kind} if kind else {}), "url": card}}],
            },
        )

    def _selection(self, part: str, code: tuple[str, str], **fields: Any) -> str:
        key = self.report.key(part)
        return self._add(
            key,
            {
                "resourceType": "ImagingSelection",
                "identifier": [{"system": URI, "value": f"urn:uuid:{key}"}],
                "status": TAKEN_BACK if self.report.taken_back else "available",
                "subject": self._subject,
                "issued": _instant(self.report),
                "code": {"coding": [_coding(DCM, code)]},
                "studyUid": self.report.study,
                "derivedFrom": [self._study],
                **fields,
            },
        )

    def _add_series(self, uid: str) -> str:
        return self._selection(f"series {uid}", ("121112", "Source of Measurement"), seriesUid=uid)

    def _add_segment(self, number: int, segment: SegmentReference) -> str:
        storage = {"system": URI, "code": f"urn:oid:{segment.sop_class}"}
        segment_reference = {"uid": segment.instance, "sopClass": storage, "subset": [str(segment.number)]}
        code = ("121191", "Referenced Segment")
        return self._selection(f"segment {number}", code, seriesUid=segment.series, instance=[segment_reference])

    def _add_observation(self, number: int, row: FindingRow, sources: Sequence[str]) -> str:
        report, key = self.report, self.report.key(f"finding {number}")
        segment = report.segments.get(row["concept"]) if self.is_r5 and row.get("label") is not None else None
        focus = [*sources, *([] if segment is None else [self._add_segment(number, segment)])]
        kind = {"coding": [{"system": f"{DICOM_SR}/CodeSystem/dicom-identifier-type", "code": "observation-uid"}]}
        components = list(_components(row))
        body = {} if (structure := report.structure_of(row)) is None else {"bodySite": self._site(*structure)}
        observation: Resource = {
            "resourceType": "Observation",
            "meta": {"security": [AI_ASSERTED]},
            "identifier": [{"type": kind, "system": DICOM_UID, "value": f"urn:oid:2.25.{key.int}"}],
            **self._order,
            "partOf": [self._study],
            "status": TAKEN_BACK if report.taken_back else "final",
            "subject": self._subject,
            **({"focus": [{"reference": one} for one in focus]} if focus else {}),
            "issued": _instant(report),
            "device": {"reference": self.device},
            **_coded_value(row, has_components=bool(components)),
            **body,
            **({"component": components} if components else {}),
        }
        return self._add(key, observation)

    def _site(self, place: int | None, name: str) -> Resource:
        """The structure that a finding measures, with its codes where it has a finding of its own."""
        return {**({} if place is None else codeable_concept(self.report.rows[place])), "text": name}

    def _add_report(self, rows: Sequence[str]) -> str:
        report = self.report
        key, imaging = report.key("report"), ("363679005", "Imaging")
        about: Resource = {
            "resourceType": "DiagnosticReport",
            # A report has no element for its priority.
            "meta": {"security": [AI_ASSERTED], "tag": [{"system": PRIORITY, "code": URGENCIES[report.priority]}]},
            "identifier": [{"system": URI, "value": f"urn:uuid:{key}"}],
            **self._order,
            # Of a report without an answer, as the measurement was not completed.
            "status": TAKEN_BACK if report.taken_back else "final" if report.has_answer else "cancelled",
            "category": [{"coding": [_coding(SCT, imaging)]}],
            "code": {"coding": [_coding(DCM, ("126000", "Imaging Measurement Report"))]},
            "subject": self._subject,
            "issued": _instant(report),
            ("study" if self.is_r5 else "imagingStudy"): [self._study],
            **({"result": [{"reference": url} for url in rows]} if rows else {}),
            **({"conclusion": report.conclusion} if report.conclusion else {}),
        }
        if report.pdf is not None:
            data = base64.b64encode(report.pdf).decode()
            about["presentedForm"] = [{"contentType": "application/pdf", "data": data}]
        return self._add(key, about)

    def _add_provenance(self, targets: Sequence[str]) -> str:
        key = self.report.key("provenance")
        asserted = {"coding": [AI_ASSERTED]}
        roles = [{"system": f"{TRANSPARENCY}/CodeSystem/AIdeviceTypeCS", "code": "Artificial-Intelligence"}]
        types = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
        agent = {
            "type": {"coding": [{"system": types, "code": "author", "display": "Author"}]},
            "role": [{"coding": roles}],
            "who": {"reference": self.device},
        }
        cards = [url for url, one in self.resources.items() if one["resourceType"] == "DocumentReference"]
        used = [("derivation" if not self.is_r5 else "instantiates", {"reference": url}) for url in cards]
        used += [("source", self._study)]
        provenance: Resource = {
            "resourceType": "Provenance",
            "meta": {"tag": [{"system": f"{SCHEME}job", "code": self.report.job}]},
            "target": [{"reference": url} for url in targets],
            "recorded": _instant(self.report),
            **({"authorization": [{"concept": asserted}]} if self.is_r5 else {"reason": [asserted]}),
            "agent": [agent],
            "entity": [{"role": role, "what": what} for role, what in used],
        }
        return self._add(key, provenance)


def _instant(report: FindingsReport) -> str:
    return report.issue_time.isoformat(timespec="milliseconds")


def _coding(system: str, code: tuple[str, str]) -> Resource:
    return {"system": system, "code": code[0], "display": code[1]}


def codeable_concept(row: FindingRow) -> Resource:
    """The concept of a row with all of its codes."""
    codings = []
    for code in row.get("codes") or ():
        system = SYSTEMS.get(code["scheme"], f"{SCHEME}{quote(code['scheme'], safe='')}")
        codings.append({"system": system, "code": code["value"], "display": code["meaning"]})
    return {**({"coding": codings} if codings else {}), "text": row["concept"]}


def _quantity(value: float, unit: str) -> Resource:
    """A number with its unit: as UCUM where the unit is known there, else in words alone."""
    code = "1" if unit == "1" else UCUM.get(unit)
    words = {"unit": unit} if unit else {}
    return {"value": value, **words, **({"system": UNITS, "code": code} if code else {})}


def _coded_value(row: FindingRow, *, has_components: bool) -> Resource:
    """The concept of a row and its value; of a called class its group, and the class as its value."""
    value, code = row.get("value"), codeable_concept(row)
    if row.get("called"):
        return {"code": {"text": row.get("group") or "class"}, "valueCodeableConcept": code}
    if isinstance(value, bool | list | tuple):  # a list is a box, which is there
        presence = ABSENT if value is False else PRESENT
        return {"code": code, "valueCodeableConcept": {"coding": [_coding(SCT, presence)]}}
    if (number := findings_report.finite_or_none(value)) is not None:
        return {"code": code, "valueQuantity": _quantity(number, row.get("unit") or "")}
    if isinstance(value, str) and value.strip():
        return {"code": code, "valueString": value}
    if has_components and value is None:
        return {"code": code}
    absent = "unknown" if value is None or isinstance(value, str) else _absent(float(value))
    system = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
    return {"code": code, "dataAbsentReason": {"coding": [{"system": system, "code": absent}]}}


def _absent(number: float) -> str:
    return "not-a-number" if math.isnan(number) else "positive-infinity" if number > 0 else "negative-infinity"


def _components(row: FindingRow) -> Iterator[Resource]:
    """Probability, ends of the interval, set of answers, and where the finding lies."""
    unit = row.get("unit") or ""
    if (p := findings_report.finite_or_none(row.get("probability"))) is not None:
        code = _coding(DCM, PROBABILITY if row.get("calibrated") else CERTAINTY)
        yield {"code": {"coding": [code]}, "valueQuantity": _quantity(p, "1")}
    for name, end in (("low", LOW), ("high", HIGH)):
        if (number := findings_report.finite_or_none(row.get(name))) is not None:
            yield {"code": {"coding": [_coding(SCT, end)]}, "valueQuantity": _quantity(number, unit)}
    for answer in row.get("possible") or ():
        yield {"code": {"text": POSSIBLE}, "valueCodeableConcept": {"text": answer}}
    if isinstance(row.get("value"), list | tuple):
        words = f"{CORNERS} ({unit})" if unit else CORNERS
        yield {"code": {"text": words}, "valueString": json.dumps(row["value"])}
    for name, words in PLACES.items():
        if (box := row.get(name)) not in (None, ""):
            kind = "valueInteger" if isinstance(box, int) else "valueString"
            yield {"code": {"text": words}, kind: box}
