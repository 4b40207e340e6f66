"""Findings as FHIR and HL7: both state the same numbers, and servers get each report once, whatever fails."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st

import hilum
from hilum.errors import FormatError, UsageError
from hilum.service._courier import Couriers
from hilum.service.configuration import FhirSection, Hl7Section, NodeSettings
from hilum.service.dicom.sending import PeerError
from hilum.service.exchange import fhir_reports, findings_report, hl7_reports
from hilum.service.exchange.fhir_server import BusyError, FhirServer
from hilum.service.records import tables
from hilum.values import Code, Finding
from service.objects_sent import encoded, note, simulated
from service.reports import (
    SEGMENT,
    STUDY,
    fhir_peer,
    findings,
    hl7_peer,
    numbers_of_fhir,
    numbers_of_hl7,
    report,
    resources,
)
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model
from service.web_served import served

PNEUMOTHORAX = Finding(
    "pneumothorax", True, probability=0.875, codes=(Code("SCT", "36118008", "Pneumothorax"),), calibrated=True
)


@settings(max_examples=12, deadline=None)
@given(rows=st.lists(findings, max_size=3), version=st.sampled_from(["R5", "R4B"]))
def test_fhir_and_hl7_state_the_numbers_of_the_record_and_are_valid(rows, version):
    made = report(*rows)
    stated = fhir_reports.report_bundle(made, version)
    fhir_reports.encode_bundle(stated, version)
    fhir_reports.encode_bundle(fhir_reports.report_bundle(made, version, transaction=True), version)
    text = hl7_reports.oru_message(made).decode()
    assert parse_message(text, find_groups=True).validate()
    by_fhir = [numbers_of_fhir(one) for one in resources(stated, "Observation")]
    by_hl7 = numbers_of_hl7(text, len(rows))
    for row, of_fhir, of_hl7 in zip(rows, by_fhir, by_hl7, strict=True):
        is_number = isinstance(row.value, int | float) and not isinstance(row.value, bool) and not row.called
        kept = {"value": row.value if is_number else None, "probability": row.probability}
        kept |= {"low": row.low, "high": row.high}
        assert of_fhir == kept
        assert {name: one if one is None else float(one) for name, one in of_hl7.items()} == kept


def test_a_report_made_again_is_the_same():
    made = report(PNEUMOTHORAX, Finding("lung", 812.5, "ml", low=800.0, high=830.0))
    assert fhir_reports.report_bundle(made, "R5", transaction=True) == fhir_reports.report_bundle(
        made, "R5", transaction=True
    )
    assert hl7_reports.oru_message(made) == hl7_reports.oru_message(made)


def test_an_observation_has_all_codes_of_its_concept_and_the_segment_of_its_label():
    lung = (Code("SCT", "39607008", "Lung"), Code("RADLEX", "RID1301", "lung"), Code("99X", "L", "lung"))
    made = fhir_reports.report_bundle(
        report(Finding("lung", 812.5, "ml", codes=lung, label=3), segments={"lung": SEGMENT}), "R5"
    )
    [observation] = resources(made, "Observation")
    assert [(one["system"], one["code"]) for one in observation["code"]["coding"]] == [
        ("http://snomed.info/sct", "39607008"),
        ("http://radlex.org", "RID1301"),
        ("urn:hilum:scheme:99X", "L"),
    ]
    quantity = {"value": 812.5, "unit": "ml", "system": "http://unitsofmeasure.org", "code": "ml"}
    assert observation["valueQuantity"] == quantity
    [study] = observation["partOf"]
    assert study["identifier"]["value"] == f"urn:oid:{STUDY}"
    selections = {f"urn:uuid:{one['identifier'][0]['value'][9:]}": one for one in resources(made, "ImagingSelection")}
    [_, segment] = [selections[one["reference"]] for one in observation["focus"]]
    assert (segment["instance"][0]["uid"], segment["instance"][0]["subset"]) == (SEGMENT.instance, ["3"])


def test_what_is_not_finite_is_said_to_be_absent():
    rows = [{"concept": "risk", "value": math.inf, "unit": "1"}, {"concept": "risk", "value": None, "unit": ""}]
    made = report()
    made.record["rows"].extend(rows)
    stated = resources(fhir_reports.report_bundle(made, "R4B"), "Observation")
    absent = [one["dataAbsentReason"]["coding"][0]["code"] for one in stated]
    assert absent == ["positive-infinity", "unknown"]
    lines = [one.split("|") for one in hl7_reports.oru_message(made).decode().split("\r") if one.startswith("OBX")]
    assert [(one[5], one[11]) for one in lines] == [("", "X"), ("", "X")]


def test_an_outcome_without_a_result_says_so():
    [nothing] = resources(fhir_reports.report_bundle(report(is_empty=True), "R5"), "DiagnosticReport")
    assert (nothing["status"], nothing["conclusion"]) == ("final", "Not detected. For research use only")
    for outcome in ("abstained", "refused", "failed"):
        unanswered = report(outcome=outcome, reason="no such organ")
        [about] = resources(fhir_reports.report_bundle(unanswered, "R5"), "DiagnosticReport")
        words = f"No answer: {outcome}. no such organ. For research use only"
        assert (about["status"], about["conclusion"]) == ("cancelled", words)
        assert f"|{words}" in hl7_reports.oru_message(unanswered).decode()


def test_the_device_names_the_model_and_its_card_and_the_page_is_the_presented_form():
    made = fhir_reports.report_bundle(
        report(PNEUMOTHORAX, card="https://models.example/card.md", pdf=b"%PDF-1.7"), "R4B"
    )
    [device], [card], [about] = (resources(made, one) for one in ("Device", "DocumentReference", "DiagnosticReport"))
    assert device["deviceName"][0]["name"] == "lung nodules"
    assert {one["value"] for one in device["version"]} == {"1.2", "ab" * 32}
    assert card["content"][0]["attachment"] == {"contentType": "text/markdown", "url": "https://models.example/card.md"}
    assert about["presentedForm"][0] == {"contentType": "application/pdf", "data": "JVBERi0xLjc="}
    fhir_reports.encode_bundle(made, "R4B")


def test_a_message_has_patient_order_and_codes_escaped_in_their_fields():
    lines = hl7_reports.oru_message(report(PNEUMOTHORAX)).decode().split("\r")
    head, patient, order, *_ = (one.split("|") for one in lines)
    assert (head[9], len(head[9])) == (hl7_reports.control_id("0123456789abcdef" * 2), 20)
    assert patient[3] == r"17\F\x" and patient[5] == "Doe^Jane^^MD^Dr" and patient[7:9] == ["19700131", "F"]
    assert order[2] == r"A\S\1" and order[7] == "20260301101112"
    assert any(f"Model lung nodules 1.2, SHA-256 {'ab' * 32}" in line for line in lines)
    [observed] = [one.split("|") for one in lines if one.startswith("OBX")]
    assert observed[2:6] == ["CWE", "36118008^Pneumothorax^SCT", "1", "52101004^Present^SCT"]
    assert observed[9] == "0.875"


@pytest.mark.parametrize(("section", "wrong"), [("fhir", {"base": "no address"}), ("hl7", {"send": ["nobody"]})])
def test_the_sections_are_keywords_of_serve(section, wrong):
    with pytest.raises(UsageError, match=rf"\[{section}\]: {section}\.{next(iter(wrong))}"):
        hilum.serve("model", **{section: wrong})


def test_the_file_that_the_page_on_the_exchange_shows_has_every_key_of_its_sections():
    pages = Path(__file__).parents[2] / "docs" / "how-to"
    assert '--8<-- "docs/how-to/node.toml:exchange"' in (pages / "exchange.md").read_text(encoding="utf-8")
    stated = tomllib.loads((pages / "node.toml").read_text(encoding="utf-8"))
    own = NodeSettings.model_validate(stated)
    assert own.report_to == ["fhir", "ris.example:2575"]
    assert (stated["fhir"].keys(), stated["hl7"].keys()) == (
        FhirSection.model_fields.keys(),
        Hl7Section.model_fields.keys(),
    )


def test_sections_that_contradict_each_other_are_refused():
    pacs = {"name": "fhir", "ae_title": "A", "host": "h", "port": 1}
    code = {"creatinine": "fhir:Observation?code=http://loinc.org|2160-0"}
    for sections, words in (
        ({"fhir": {"base": "http://h/fhir"}, "peers": [pacs]}, "a peer is called fhir"),
        ({"models": {"m": {"path": "m", "covariates": code}}}, "there is no \\[fhir\\]"),
        ({"hl7": {"send": ["a:1", "a:1"]}}, "a:1 is named twice"),
        ({"hl7": {"send": ["no port"]}}, "pattern"),
    ):
        with pytest.raises(ValueError, match=words):
            NodeSettings.model_validate(sections)


def test_a_job_is_had_as_fhir_over_http(tmp_path):
    record = json.dumps(report(PNEUMOTHORAX).record).encode()
    with served(tmp_path / "node") as web:
        web.store(encoded(simulated()))
        job = web.answer("1.2", {"findings.json": (record, None)}, [])
        answer = web.client.get(f"/api/jobs/{job}/fhir", params={"version": "R4B"})
        unknown = web.client.get(f"/api/jobs/{'0' * 32}/fhir")
    assert answer.headers["Content-Type"].startswith("application/fhir+json")
    [observation] = resources(answer.json(), "Observation")
    assert observation["code"]["text"] == "pneumothorax"
    assert unknown.status_code == 404


def transaction() -> bytes:
    return fhir_reports.encode_bundle(fhir_reports.report_bundle(report(PNEUMOTHORAX), "R4B", transaction=True), "R4B")


@pytest.mark.parametrize(
    ("status", "headers", "error", "words"),
    [
        (412, {}, FormatError, "412"),
        (429, {"Retry-After": "120"}, BusyError, "asks to wait"),
        (200, {"Content-Type": "text/html"}, PeerError, "text/html, which is no FHIR"),
        (302, {"Location": "http://127.0.0.1:1/"}, FormatError, "redirects to another address"),
        (401, {}, PeerError, "401"),
    ],
)
def test_a_server_that_does_not_take_a_transaction_is_asked_again_or_never(status, headers, error, words):
    with fhir_peer((status, headers, b"<html>sign in</html>")) as peer, pytest.raises(error, match=words) as raised:
        FhirServer(peer.url, 5.0).transact(transaction())
    assert getattr(raised.value, "after_s", 120.0) == 120.0


def answered_with(*statuses: str, **more: object) -> bytes:
    """Answer to `transaction()`, which has four entries."""
    entries = [{"response": {"status": one, "outcome": more}} for one in statuses]
    return json.dumps({"resourceType": "Bundle", "type": "transaction-response", "entry": entries}).encode()


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (
            answered_with("201 Created", "200", "201", "422 no", issue=[{"code": "invalid"}]),
            FormatError,
            r"422 \(invalid",
        ),
        (answered_with("201", "201", "409 Conflict", "201"), PeerError, "status 409"),
        (answered_with("201", "", "201", "201"), PeerError, "with status"),
        (answered_with("201"), PeerError, "1 of 4 entries"),
        (b'{"resourceType": "Bundle", "type": "batch-response"}', FormatError, "something else"),
        (
            b'{"resourceType": "Bundle", "type": "transaction-response", "entry": ["x"]}',
            FormatError,
            "entry is no FHIR",
        ),
        (b"ok", PeerError, "no FHIR"),
    ],
)
def test_every_entry_of_an_answer_to_a_transaction_has_to_be_taken(body, error, words):
    with fhir_peer((200, {}, body)) as peer, pytest.raises(error, match=words):
        FhirServer(peer.url, 5.0).transact(transaction())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_before_an_answer_is_no_part_of_it(encoding):
    body = answered_with("201", "201", "201", "201").decode().encode(encoding)
    with fhir_peer((200, {}, body)) as peer:
        FhirServer(peer.url, 5.0).transact(transaction())


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_an_empty_answer_that_something_was_taken_is_believed(status):
    with fhir_peer((status, {}, b"")) as peer:
        FhirServer(peer.url, 5.0).transact(transaction())
        assert peer.answers == []


def test_a_repeated_transaction_makes_no_second_report(monkeypatch):
    monkeypatch.setenv("HILUM_FHIR_TOKEN", "secret")
    with fhir_peer() as peer:
        for _ in range(2):
            FhirServer(peer.url, 5.0).transact(transaction())
        kinds = sorted(one.partition("?")[0] for one in peer.resources)
        assert kinds == ["Device", "DiagnosticReport", "Observation", "Provenance"]
        assert {headers["Authorization"] for _, _, headers in peer.asked} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("AE", FormatError, "finds an error"),
        ("AR", PeerError, "does not take the message"),
        (None, PeerError, "does not acknowledge"),
    ],
)
def test_a_receiver_that_does_not_take_a_message_is_asked_again_or_never(code, error, words):
    with hl7_peer(lambda control, number: code) as (place, _), pytest.raises(error, match=words):
        host, _, port = place.partition(":")
        hl7_reports.send_by_mllp(
            host, int(port), hl7_reports.oru_message(report(PNEUMOTHORAX)), "0123456789abcdef0123", idle_s=2.0
        )


@pytest.mark.parametrize(
    ("end", "frame"),
    [
        ("\n", (b"\x0b", b"\x1c\r")),
        ("\r\n", (b"", b"\x1c\r")),
        ("\r\r", (b"\x0b", b"\x1c")),
        (" \n\r\n", (b"\r\n", b"")),
    ],
)
def test_an_acknowledgement_is_taken_whatever_ends_its_lines_and_its_block(end, frame):
    with hl7_peer(lambda control, number: "AA", end=end, frame=frame) as (place, taken):
        host, _, port = place.partition(":")
        hl7_reports.send_by_mllp(
            host, int(port), hl7_reports.oru_message(report(PNEUMOTHORAX)), "0123456789abcdef0123", idle_s=2.0
        )
    assert len(taken) == 1


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", "ﾔﾏﾀﾞ^ﾀﾛｳ^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P"),
        ("=山田^太郎", "山田^太郎^^^^^L^I"),
        ("Hong^Gildong==홍^길동", "Hong^Gildong^^^^^L^A~홍^길동^^^^^L^P"),
        ("Doe^Jane==", "Doe^Jane"),
        ("^^", "^^^^^^U"),
        (["O", "Brien^Pat"], r"O\E\Brien^Pat"),
    ],
)
def test_a_name_has_all_of_its_writings_each_with_its_type(name, stated):
    made = report(PNEUMOTHORAX, patient={"PatientName": name})
    text = hl7_reports.oru_message(made).decode()
    assert text.split("\r")[1].split("|")[5] == stated
    assert parse_message(text, find_groups=True).validate()


def test_an_attribute_of_two_values_stays_two_values():
    made = report(PNEUMOTHORAX, patient={"AccessionNumber": ["A1", "A^2"], "PatientID": ["17", "x"]})
    _, patient, order, *_ = (one.split("|") for one in hl7_reports.oru_message(made).decode().split("\r"))
    assert (patient[3], order[2]) == ("17~x", r"A1~A\S\2")
    [observed] = resources(fhir_reports.report_bundle(made, "R5"), "Observation")
    assert [one["identifier"]["value"] for one in observed["basedOn"]] == ["A1", "A^2"]


def test_measurements_of_two_structures_name_their_structure():
    axis, organ = Code("SCT", "103339001", "Long axis"), Code("SCT", "10200004", "Liver")
    rows = []
    for label, (name, codes) in enumerate([("organ", (organ,)), ("lesion", ())], start=1):
        place = {"group": f"first: {name}", "label": label}
        rows.append(Finding(name, 3.5, "ml", low=3.0, high=4.0, codes=codes, **place))
        rows.append(Finding("long axis", 20.0, "mm", codes=(axis,), **place))
        rows.append(Finding("short axis", 10.0, "mm", **place))
    rows.append(Finding("long axis", 5.0, "mm", codes=(axis, organ), group="rim", label=9))  # its size is not stated
    made = report(*rows)
    lines = [one.split("|") for one in hl7_reports.oru_message(made).decode().split("\r") if one.startswith("OBX")]
    assert [one[3:5] for one in lines if one[6].endswith("^mm^UCUM") and "Bound" not in one[3]] == [
        ["103339001^Long axis^SCT^^long axis of first: organ^L", "1.1"],
        ["^short axis of first: organ^L", "1.2"],
        ["103339001^Long axis^SCT^^long axis of first: lesion^L", "4.1"],
        ["^short axis of first: lesion^L", "4.2"],
        ["103339001^Long axis^SCT^^long axis of rim^L", "7"],
    ]
    assert "NTE|1|L|Further codes: 10200004 Liver (SCT)" in hl7_reports.oru_message(made).decode()
    sites = [one.get("bodySite") for one in resources(fhir_reports.report_bundle(made, "R4B"), "Observation")]
    liver = {"system": "http://snomed.info/sct", "code": "10200004", "display": "Liver"}
    first, second, rim = ({"text": one} for one in ("first: organ", "first: lesion", "rim"))
    assert sites == [None, *[{"coding": [liver], **first}] * 2, None, second, second, rim]
    for version in ("R4B", "R5"):
        fhir_reports.encode_bundle(fhir_reports.report_bundle(made, version), version)
    assert parse_message(hl7_reports.oru_message(made).decode(), find_groups=True).validate()


def test_a_receiver_that_keeps_silent_is_left_after_a_while():
    with hl7_peer(lambda control, number: None) as (place, _), pytest.raises(PeerError, match="does not acknowledge"):
        host, _, port = place.partition(":")
        hl7_reports.send_by_mllp(
            host, int(port), hl7_reports.oru_message(report(PNEUMOTHORAX)), "0123456789abcdef0123", idle_s=0.02
        )


def test_the_priority_is_that_which_the_findings_give_before_that_of_the_rule(tmp_path, mr):
    expected = {"urgent": ("S", "stat"), "plain": ("R", "routine")}
    limits = {"urgent": 0.0, "plain": 1e9}
    for name, (of_hl7, of_fhir) in expected.items():
        node = SmallNode(
            tmp_path / name,
            threshold_model(tmp_path / "model", LEVEL),
            rules=[{"name": "r", "model": "threshold.onnx", "priority": "background"}],
            urgent=[{"finding": "bright", "value": limits[name], "priority": "emergency"}],
        )
        node.receive(*mr)
        node.work()
        made = findings_report.report_of_job(node.settings, node.database, node.rows(tables.JOBS)[0].job)
        node.store.close()
        node.database.close()
        [order] = [
            one.split("|") for one in hl7_reports.oru_message(made).decode().split("\r") if one.startswith("OBR")
        ]
        [stated] = resources(fhir_reports.report_bundle(made, "R5"), "DiagnosticReport")
        assert (order[5], stated["meta"]["tag"][0]["code"]) == (of_hl7, of_fhir)


@pytest.mark.parametrize("version", ["R5", "R4B"])
def test_a_report_that_was_taken_back_is_valid_and_puts_itself_in_the_place_of_the_first(version):
    made = report(PNEUMOTHORAX, Finding("lung", 812.5, "ml", low=800.0, high=830.0))
    back = replace(made, taken_back="images of it were rejected")
    first, second = (fhir_reports.report_bundle(one, version, transaction=True) for one in (made, back))
    fhir_reports.encode_bundle(second, version)
    kinds = ("DiagnosticReport", "Observation")
    assert {one["status"] for kind in kinds for one in resources(second, kind)} == {"entered-in-error"}
    assert resources(second, "Provenance") == []
    named = {entry["fullUrl"] for entry in first["entry"]}
    assert {entry["fullUrl"] for entry in second["entry"]} <= named
    text = hl7_reports.oru_message(back).decode()
    assert parse_message(text, find_groups=True).validate()
    lines = [line.split("|") for line in text.split("\r")]
    assert {line[11] for line in lines if line[0] == "OBX"} == {"W"}
    assert [line[25] for line in lines if line[0] == "OBR"] == ["C"]
    assert "Taken back: images of it were rejected" in text
    controls = {hl7_reports.control_id(made.job), hl7_reports.control_id(made.job, taken_back=True)}
    assert len(controls) == 2 and all(len(one) <= 20 for one in controls)


@pytest.mark.filterwarnings("ignore:The value length")
def test_reports_of_a_study_that_a_note_rejects_are_taken_back_at_fhir_and_hl7(tmp_path, mr, monkeypatch):
    monkeypatch.setattr("hilum.service.records.delivery_outbox.FIRST_S", 0.0)
    with fhir_peer() as fhir, hl7_peer(lambda *_: "AA") as (place, taken):
        node = SmallNode(
            tmp_path / "node",
            threshold_model(tmp_path / "model", LEVEL),
            fhir={"base": fhir.url, "version": "R5"},
            hl7={"send": [place]},
            rules=[{"name": "r", "model": "threshold.onnx"}],
        )
        couriers = Couriers(node.settings, node.database)

        def carried() -> None:
            node.work()
            couriers.rejecter.round()
            for peer in ("fhir", place):
                couriers.deliver(peer)

        node.receive(*mr)
        carried()
        assert {one["status"] for key, one in fhir.resources.items() if "Report" in key} == {"final"}
        images = [pydicom.dcmread(path) for path in mr]
        (tmp_path / "note.dcm").write_bytes(
            encoded(note("1.7.1", images[-1], "113001", *(one.SOPInstanceUID for one in images)))
        )
        node.receive(tmp_path / "note.dcm")
        node.keeper.absorb()
        carried()
        carried()  # once is enough
        node.store.close()
        node.database.close()
    judged = [one for key, one in fhir.resources.items() if key.startswith(("DiagnosticReport", "Observation"))]
    assert {one["status"] for one in judged} == {"entered-in-error"}
    assert len(taken) == 2 and "|W" in taken[1] and "Rejected for Quality Reasons" in taken[1]


@pytest.mark.whole
def test_every_report_arrives_at_servers_that_fail_half_the_time_and_repeats_have_the_same_id(
    tmp_path, mr, monkeypatch
):
    monkeypatch.setattr("hilum.service.records.delivery_outbox.FIRST_S", 0.0)
    heard: dict[str, int] = {}

    def half(control: str, number: int) -> str | None:
        """The first message is never acknowledged, though it has come; of the others every second one."""
        heard[control] = heard.get(control, 0) + 1
        return "AA" if number % 2 == 0 else None

    with fhir_peer(seed=5) as fhir, hl7_peer(half) as (place, taken):
        node = SmallNode(
            tmp_path / "node",
            threshold_model(tmp_path / "model", LEVEL),
            fhir={"base": fhir.url, "version": "R4B"},
            hl7={"send": [place]},
            rules=[{"name": name, "model": "threshold.onnx"} for name in ("a", "b")],
        )
        node.receive(*mr)
        node.work()
        couriers = Couriers(node.settings, node.database)
        for _ in range(30):
            couriers.deliver("fhir")
            couriers.deliver(place)
        rows, done = node.rows(tables.DELIVERIES), node.rows(tables.JOBS)
        stored = fhir_reports.report_bundle(
            findings_report.report_of_job(node.settings, node.database, done[0].job), "R5"
        )
        node.store.close()
        node.database.close()
    assert {(row.peer, row.name, row.state) for row in rows} == {
        ("fhir", "findings.json", "sent"),
        (place, "findings.json", "sent"),
    }
    assert len(rows) == 4 and {row.state for row in done} == {"done"}
    assert sum(one.startswith("DiagnosticReport?") for one in fhir.resources) == 2
    assert sum(one.startswith("Device?") for one in fhir.resources) == 1
    assert set(heard) == {hl7_reports.control_id(row.job) for row in done}
    segments = [own for one in resources(stored, "ImagingSelection") for own in one.get("instance", ())]
    assert [one["subset"] for one in segments][:1] == [["1"]]
    assert len(taken) > 2 and len(set(taken)) == 2
