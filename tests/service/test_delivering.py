"""Files sent one by one: none is held up by another, and a peer that keeps us waiting is not asked for the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hilum.errors import ResourceError
from hilum.service import _delivering
from hilum.service._courier import FINAL
from hilum.service._intake import OrthancFront
from hilum.service.configuration import NoticeRecipient
from hilum.service.dicom.sending import PeerError, SendOutcome
from hilum.service.exchange.fhir_server import BusyError
from hilum.service.objects.object_store import ObjectStore
from service.objects_sent import encoded, simulated
from service.web_peer import WebPeer

PATHS = [Path(name) for name in "abc"]


def peer(**errors: PeerError):
    """A peer that takes all but these; and what it was asked for."""
    asked = list[str]()

    def send(path: Path) -> SendOutcome:
        asked.append(path.name)
        if path.name in errors:
            raise errors[path.name]
        return SendOutcome(path, "", 0)

    return send, asked


AWAY, BUSY = PeerError("is away", "peer", "Start it"), BusyError("is busy", "peer", "Wait")


def states(rows: list[SendOutcome]) -> str:
    return "".join("+" if row.is_stored else "-" for row in rows)


def test_a_file_that_is_not_taken_holds_up_no_other():
    send, asked = peer(a=AWAY)
    assert states(_delivering.send_one_by_one(PATHS, send)) == "-++"
    assert asked == ["a", "b", "c"]


def test_a_peer_that_keeps_us_waiting_or_asks_for_time_is_not_asked_for_the_rest(monkeypatch):
    send, asked = peer(b=BUSY)
    assert (states(_delivering.send_one_by_one(PATHS, send, leaves=BusyError)), asked) == ("+--", ["a", "b"])
    monkeypatch.setattr(_delivering, "SLOW_S", -1.0)
    send, asked = peer(b=AWAY)
    assert (states(_delivering.send_one_by_one(PATHS, send)), asked) == ("+--", ["a", "b"])


def test_a_peer_that_answers_nothing_is_away():
    send, asked = peer(a=AWAY, b=AWAY, c=AWAY)
    with pytest.raises(PeerError, match="is away"):
        _delivering.send_one_by_one(PATHS, send)
    assert asked == ["a", "b", "c"]


XML, HTML = "application/dicom+xml; charset=utf-8", "text/html"
UID, OTHER = "1.2.3.4", "1.2.3.9"


def in_json(tag: str, *uids: str, reason: int | None = None) -> dict[str, object]:
    why = {} if reason is None else {"00081197": {"vr": "US", "Value": [reason]}}
    return {tag: {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [one]}, **why} for one in uids]}}


def in_xml(tag: str, uid: str, reason: str = "", namespace: str = "") -> str:
    why = (
        f'<DicomAttribute tag="00081197" vr="US"><Value number="1">{reason}</Value></DicomAttribute>' if reason else ""
    )
    named = f'<DicomAttribute tag="00081155" vr="UI"><Value number="1">{uid}</Value></DicomAttribute>'
    item = f'<Item number="1">{named}{why}</Item>'
    return (
        f'<?xml version="1.0"?>\n<NativeDicomModel{namespace}><DicomAttribute tag="{tag}" vr="SQ">{item}'
        "</DicomAttribute></NativeDicomModel>"
    )


STORED, FAILED = "00081199", "00081198"
NATIVE = ' xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"'


def sent_to_web(tmp_path: Path, peer: WebPeer) -> SendOutcome | PeerError:
    path = tmp_path / "object.dcm"
    path.write_bytes(encoded(simulated(instance=UID)))
    try:
        with peer as web:
            [row] = _delivering.store_over_web(web.url, [path], peer="web", idle_s=5.0)
    except PeerError as error:
        return error
    return row


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (200, "application/dicom+json; charset=utf-8", in_json(STORED, OTHER, UID)),
        (202, "application/json", json.dumps([in_json(STORED, UID)])),
        (200, XML, in_xml(STORED, UID)),
        (200, "text/xml", in_xml(STORED, UID, namespace=NATIVE)),
        (409, "application/dicom+json", in_json(FAILED, UID, reason=0x0111)),
        (202, XML, in_xml(FAILED, UID, "273")),
    ],
)
def test_an_object_counts_as_stored_by_an_answer_of_the_standard_and_where_it_is_there(tmp_path, status, kind, body):
    row = sent_to_web(tmp_path, WebPeer(status, body, kind=kind))
    assert isinstance(row, SendOutcome) and (row.is_stored, row.instance) == (True, UID)


@pytest.mark.parametrize(
    ("status", "kind", "body", "words"),
    [
        (200, HTML, "<html>Please log in</html>", "text/html, which does not say that the object was stored"),
        (200, HTML, "<!DOCTYPE html><html>log in", "text/html, which"),
        (200, XML, "<NativeDicomModel/>", "does not say"),
        (200, "application/dicom+json", "", "does not say"),
        (200, "application/dicom+json", "[1, 2]", "does not say"),
        (200, "application/dicom+json", '{"00081199": "yes"}', "does not say"),
        (200, "application/dicom+json", in_json(STORED, OTHER, "1.2"), "does not say"),
        (204, "application/dicom+json", "", "does not say"),
        (202, XML, in_xml(FAILED, UID, "42752"), ""),  # A700: out of resources
        (409, "application/dicom+json", in_json(STORED, UID), "409"),
        (502, HTML, "", "502"),
    ],
)
def test_any_other_answer_is_not_believed_and_the_object_is_sent_again(tmp_path, status, kind, body, words):
    row = sent_to_web(tmp_path, WebPeer(status, body, kind=kind))
    assert words in row.problem
    assert isinstance(row, PeerError) or (not row.is_stored and row.status not in FINAL)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_by_an_object_a_notice_or_a_question(tmp_path, status):
    notice = tmp_path / "notice.json"
    notice.write_text(json.dumps({"notice": "n1"}))
    with WebPeer(200, in_json(STORED, UID)) as elsewhere:
        row = sent_to_web(tmp_path, WebPeer(status, "", location=elsewhere.url))
        with WebPeer(status, "", location=elsewhere.url) as web:
            [told] = _delivering.send_notices(
                NoticeRecipient(when="urgent", by="webhook", to=web.url), None, [notice], idle_s=5.0
            )
            with pytest.raises(ResourceError, match="redirects to another address"):
                OrthancFront(web.url, ObjectStore(tmp_path, "test"), tmp_path / "front.json").look()
    assert elsewhere.asked == []
    for one in (row, told):
        assert one.status in FINAL and "redirects to another address" in one.problem


@pytest.mark.parametrize(
    ("status", "kind", "body", "is_stored", "is_final"),
    [
        (200, HTML, "ok", True, False),
        (204, HTML, "", True, False),
        (200, HTML, "\n<!doctype HTML>Please log in", False, False),
        (410, HTML, "", False, True),
        (401, HTML, "", False, False),
    ],
)
def test_a_notice_is_taken_by_no_page_for_people_and_goes_aside_where_no_other_try_helps(
    tmp_path, status, kind, body, is_stored, is_final
):
    notice = tmp_path / "notice.json"
    notice.write_text(json.dumps({"notice": "n1"}))
    with WebPeer(status, body, kind=kind) as web:
        [row] = _delivering.send_notices(
            NoticeRecipient(when="urgent", by="webhook", to=web.url), None, [notice], idle_s=5.0
        )
    assert (row.is_stored, row.status in FINAL) == (is_stored, is_final)
