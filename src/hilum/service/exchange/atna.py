"""Events of the audit as messages of DICOM PS3.15 A.5, which IHE's profile ATNA has too: one XML document each.

The schema is that of PS3.15 A.5.1; codes are of DCM (PS3.16 D) where it has one for what happened.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from hilum.service.records.audit_records import CONFIGURATION, FAILURE, REFUSED, AuditEvent
from hilum.values.plain_values import PlainValue

DCM, RFC3881, OURS = "DCM", "RFC-3881", "99HILUM"
# Nominal success, minor and serious failure
OUTCOMES = {FAILURE: "4", REFUSED: "8"}
MEANINGS = {
    "110101": "Audit Log Used",
    "110103": "DICOM Instances Accessed",
    "110104": "DICOM Instances Transferred",
    "110106": "Export",
    "110109": "Order Record",
    "110111": "Procedure Record",
    "110112": "Query",
    "110113": "Security Alert",
    "110114": "User Authentication",
    "110122": "Login",
    "110123": "Logout",
    "110126": "Node Authentication",
    "110131": "Software Configuration",
    "110132": "Use of Restricted Function",
    "110152": "Destination Role ID",
    "110153": "Source Role ID",
}
# Of an action the event, its kind where DCM has one, and whether something was created, read, updated or executed.
EVENTS = {
    "login": ("110114", "110122", "E"),
    "logout": ("110114", "110123", "E"),
    "association": ("110113", "110126", "E"),
    "study received": ("110104", None, "C"),
    "prediction": ("110103", None, "C"),
    "view": ("110103", None, "R"),
    "view blind": ("110103", None, "R"),
    "blind read": ("110103", None, "U"),
    "query": ("110112", None, "E"),
    "export": ("110106", None, "R"),
    "export blind": ("110106", None, "R"),
    "correction": ("110103", None, "U"),
    "verdict": ("110103", None, "U"),
    CONFIGURATION: ("110113", "110131", "E"),
    **dict.fromkeys(("change asked for", "change approved", "change begun", "change ended"), ("110113", "110131", "E")),
    "refusal": ("110113", "110132", "E"),
    "audit read": ("110101", None, "R"),
}
ORDER, PROCEDURE = ("110109", None, "U"), ("110111", None, "U")
# Of what events are about: type, role, and the code of its identifier (PS3.15 A.5.1.2)
PATIENT, STUDY, QUERY, RESOURCE = ("1", "1"), ("2", "3"), ("2", "24"), ("2", "13")
PATIENT_NUMBER = ("2", RFC3881, "Patient Number")
STUDY_UID = ("110180", DCM, "Study Instance UID")
SOP_CLASS_UID = ("110181", DCM, "SOP Class UID")
URI = ("12", RFC3881, "URI")


def atna_message(event: AuditEvent) -> str:
    """An event as one line of XML."""
    message = Element("AuditMessage")
    _identification(message, event)
    _participants(message, event)
    source = SubElement(message, "AuditSourceIdentification", AuditSourceID=str(event["node"] or "hilum"))
    SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})
    for thing in _things(event):
        message.append(thing)
    return tostring(message, encoding="unicode").replace("\n", "&#10;")


def _identification(message: Element, event: AuditEvent) -> None:
    action = event["action"]
    of_orders = ORDER if action.startswith("workitem") else PROCEDURE
    code, kind, done = EVENTS.get(action, of_orders)
    at = datetime.fromtimestamp(event["at"], UTC).isoformat(timespec="milliseconds")
    outcome = OUTCOMES.get(event["outcome"], "0")
    attributes = {"EventActionCode": done, "EventDateTime": at, "EventOutcomeIndicator": outcome}
    element = SubElement(message, "EventIdentification", attributes)
    SubElement(element, "EventID", _code(code, DCM, MEANINGS[code]))
    if kind is not None:
        SubElement(element, "EventTypeCode", _code(kind, DCM, MEANINGS[kind]))
    SubElement(element, "EventTypeCode", _code(action.replace(" ", "-"), OURS, action))
    if reason := event["detail"].get("reason"):
        SubElement(element, "EventOutcomeDescription").text = str(reason)


def _participants(message: Element, event: AuditEvent) -> None:
    """Who asked for it, and of what leaves the node or comes to it the other side."""
    attributes = {"UserID": event["actor"] or "nobody", "UserIsRequestor": "true"}
    if event["address"]:
        attributes |= {"NetworkAccessPointID": event["address"], "NetworkAccessPointTypeCode": "2"}
    who = SubElement(message, "ActiveParticipant", attributes)
    if event["role"]:
        SubElement(who, "RoleIDCode", _code(event["role"], OURS, event["role"]))
    if peer := event["detail"].get("peer"):
        other = SubElement(message, "ActiveParticipant", {"UserID": str(peer), "UserIsRequestor": "false"})
        SubElement(other, "RoleIDCode", _code("110152", DCM, MEANINGS["110152"]))


def _things(event: AuditEvent) -> Iterator[Element]:
    """Objects of the event: the patient under the pseudonym, and the object with what else is known."""
    if event["patient"]:
        yield _thing(PATIENT, PATIENT_NUMBER, event["patient"], event["patient"], {})
    study, name = event["detail"].get("study"), str(event["object"] or "-")
    if event["action"] == "query":
        yield _thing(QUERY, SOP_CLASS_UID, name, None, event["detail"])
    elif study is not None:
        yield _thing(STUDY, STUDY_UID, str(study), name, event["detail"])
    else:
        yield _thing(RESOURCE, URI, name, name, event["detail"])


def _thing(
    kind: tuple[str, str],
    code: tuple[str, str, str],
    identifier: str,
    name: str | None,
    detail: Mapping[str, PlainValue],
) -> Element:
    """An object that took part. name: None for a query, which stands in its place."""
    of_type = {"ParticipantObjectTypeCode": kind[0], "ParticipantObjectTypeCodeRole": kind[1]}
    element = Element("ParticipantObjectIdentification", {"ParticipantObjectID": identifier, **of_type})
    SubElement(element, "ParticipantObjectIDTypeCode", _code(*code))
    if name is None:
        SubElement(element, "ParticipantObjectQuery").text = _base64(detail)
        return element
    SubElement(element, "ParticipantObjectName").text = name
    for key, value in detail.items():
        SubElement(element, "ParticipantObjectDetail", {"type": key, "value": _base64(value)})
    return element


def _code(code: str, system: str, meaning: str) -> dict[str, str]:
    return {"csd-code": code, "codeSystemName": system, "originalText": meaning}


def _base64(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return base64.b64encode(text.encode("utf-8")).decode("ascii")
