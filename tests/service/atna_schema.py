"""The schema of audit messages, PS3.15 A.5.1.1, as RELAX NG in XML: written from the rules of the standard."""

from __future__ import annotations

from functools import cache

from lxml import etree

XSD = "http://www.w3.org/2001/XMLSchema-datatypes"


def attribute(name: str, of: str = '<data type="token"/>', *, optional: bool = False) -> str:
    """An attribute of a kind of values."""
    own = f'<attribute name="{name}">{of}</attribute>'
    return f"<optional>{own}</optional>" if optional else own


def element(name: str, *contents: str, times: str = "") -> str:
    """An element; times: oneOrMore, zeroOrMore or optional."""
    own = f'<element name="{name}">{"".join(contents)}</element>'
    return f"<{times}>{own}</{times}>" if times else own


def one_of(*values: str) -> str:
    """Any of several values."""
    return f"<choice>{''.join(f'<value>{value}</value>' for value in values)}</choice>"


def upto(last: int) -> str:
    """A number from 1 on."""
    return one_of(*map(str, range(1, last + 1)))


BASE64 = '<data type="base64Binary"/>'
OTHER = attribute("codeSystemName") + attribute("displayName", optional=True) + attribute("originalText")
CODED = attribute("csd-code") + OTHER
EVENT = element(
    "EventIdentification",
    element("EventID", CODED),
    element("EventTypeCode", CODED, times="zeroOrMore"),
    attribute("EventActionCode", one_of(*"CRUDE"), optional=True),
    attribute("EventDateTime", '<data type="dateTime"/>'),
    attribute("EventOutcomeIndicator", one_of("0", "4", "8", "12")),
    element("EventOutcomeDescription", "<text/>", times="optional"),
)
PARTICIPANT = element(
    "ActiveParticipant",
    element("RoleIDCode", CODED, times="zeroOrMore"),
    element("MediaIdentifier", element("MediaType", CODED), times="optional"),
    attribute("UserID", "<text/>"),
    attribute("AlternativeUserID", "<text/>", optional=True),
    attribute("UserName", "<text/>", optional=True),
    attribute("UserIsRequestor", '<data type="boolean"/>'),
    attribute("NetworkAccessPointID", optional=True),
    attribute("NetworkAccessPointTypeCode", upto(5), optional=True),
    times="oneOrMore",
)
SOURCE = element(
    "AuditSourceIdentification",
    attribute("AuditEnterpriseSiteID", optional=True),
    attribute("AuditSourceID"),
    element("AuditSourceTypeCode", attribute("csd-code"), f"<optional>{OTHER}</optional>", times="zeroOrMore"),
)
OBJECT = element(
    "ParticipantObjectIdentification",
    element("ParticipantObjectIDTypeCode", CODED),
    "<choice>",
    element("ParticipantObjectName", '<data type="token"/>'),
    element("ParticipantObjectQuery", BASE64),
    "</choice>",
    element("ParticipantObjectDetail", attribute("type"), attribute("value", BASE64), times="zeroOrMore"),
    attribute("ParticipantObjectID"),
    attribute("ParticipantObjectTypeCode", upto(4), optional=True),
    attribute("ParticipantObjectTypeCodeRole", upto(26), optional=True),
    attribute("ParticipantObjectDataLifeCycle", upto(15), optional=True),
    attribute("ParticipantObjectSensitivity", optional=True),
    times="zeroOrMore",
)


@cache
def schema() -> etree.RelaxNG:
    """The schema; descriptions of DICOM objects, which the node does not write, are left out."""
    space = f'xmlns="http://relaxng.org/ns/structure/1.0" datatypeLibrary="{XSD}"'
    start = element("AuditMessage", EVENT, PARTICIPANT, SOURCE, OBJECT)
    return etree.RelaxNG(etree.fromstring(f"<grammar {space}><start>{start}</start></grammar>"))
