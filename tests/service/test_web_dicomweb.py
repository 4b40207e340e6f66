"""DICOMweb: what is stored is found, and fetched as it was, by clients that others have written."""

from __future__ import annotations

import io
import json
import re
import threading
from email.message import Message

import httpx
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

import real_data
from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.service.objects import dicom_json, multipart
from hilum.service.objects.multipart import MultipartReader
from hilum.service.web.dicomweb import retrieve, search
from matrices import thinned
from service.objects_sent import encoded, simulated
from service.web_served import BOUNDARY, RELATED, related, served

ATTRIBUTES = {"StudyDate": "20200102", "PatientName": "Doe^Jane", "PatientID": "secret-17", "Modality": "MR"}
SEG = "files/dcmqi_seg_23x38x3.dcm"
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
# One of each way in which frames are stored.
KINDS = (
    "pydicom_CT_small.dcm",
    "pydicom_ExplVR_BigEnd.dcm",
    "pydicom_MR_small_RLE.dcm",
    "pydicom_image_dfl.dcm",
    "pydicom_liver_1frame.dcm",
    "highdicom_seg_image_ct_binary.dcm",
    "fodicom_jpeg_baseline_ybr.dcm",
    "pydicomdata_emri_small_jpeg_2k_lossless.dcm",
    "pydicom_examples_ybr_color.dcm",
    "dcm4che_us_palette_rle_10frames.dcm",
    "fodicom_cr_mono1_modality_lut.dcm",
    "pydicomdata_parametric_map_float.dcm",
)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node with the CT whose segmentation it has made, a study that is complete, and one that is coming in."""
    with served(tmp_path_factory.mktemp("web") / "node") as web:
        slices = sorted((real_data.SHIPPED / "dicom/series/ct_23x38x3_with_seg").glob("*"))
        web.files = [path.read_bytes() for path in slices]
        assert web.store(*web.files).status_code == 200
        web.seg = (real_data.SHIPPED / "dicom" / SEG).read_bytes()
        web.uid = pydicom.dcmread(slices[0], stop_before_pixels=True).StudyInstanceUID
        made = pydicom.dcmread(io.BytesIO(web.seg))
        web.answer(web.uid, {"answer.dcm": (web.seg, made.SOPInstanceUID), "findings.json": (b"{}", None)}, [])
        web.store(encoded(simulated(study="1.2")))
        web.complete("1.2", ATTRIBUTES, modality="MR")
        web.store(*(encoded(simulated(f"1.3.3.{n}", study="1.3", series="1.3.3")) for n in range(3)))
        web.web = DICOMwebClient(f"{web.url}/dicomweb")
        yield web


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A node to which pictures are sent."""
    with served(tmp_path_factory.mktemp("web") / "node") as web:
        yield web


@pytest.fixture
def fresh(tmp_path):
    """A node of its own."""
    with served(tmp_path / "node", dicom={"max_object_mb": 2}) as web:
        yield web


def parts_of(answer: httpx.Response) -> list[bytes]:
    """The parts of a multipart answer, by its own reader."""
    found: list[bytes] = []
    reader = MultipartReader(Message_boundary(answer))
    for event in reader.feed(answer.content):
        if isinstance(event, str):
            found.append(b"")
        elif event is not None:
            found[-1] += event
    reader.finish()
    return found


def Message_boundary(answer: httpx.Response) -> bytes:  # noqa: N802
    header = Message()
    header["content-type"] = answer.headers["content-type"]
    return str(header.get_param("boundary")).encode()


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([b"--xx--yy", b"\r\n--xx--y", b"\r\n\r\n", b"--xx--yy--"]), max_size=4
    ),
    st.integers(1, 40),
)
def test_parts_are_the_same_however_the_body_is_cut(files, step):
    body, found = related(*files), []
    reader = MultipartReader(BOUNDARY.encode())
    for start in range(0, len(body), step):
        for event in reader.feed(body[start : start + step]):
            if isinstance(event, str):
                assert event == "application/dicom"
                found.append(b"")
            elif event is not None:
                found[-1] += event
    reader.finish()
    assert found == files


def parts_fed(data: bytes, step: int) -> tuple[list[bytes], bool]:
    """The parts of a body that comes in pieces, and whether it is refused."""
    reader, found = MultipartReader(b"b"), list[bytes]()
    try:
        for start in range(0, len(data), step):
            for event in reader.feed(data[start : start + step]):
                if isinstance(event, str):
                    found.append(b"")
                elif event is not None:
                    found[-1] += event
        reader.finish()
    except FormatError:
        return found, True
    return found, False


MARKS = st.sampled_from([b"--b", b"\r\n--b\r\n", b"\r\n\r\n", b"\r\n--b--", b"--b\r\n", b"Content-Type: x"])


@given(st.lists(st.binary(max_size=40) | MARKS, max_size=10).map(b"".join), st.integers(1, 50))
def test_any_bytes_are_the_same_parts_and_refused_alike_however_they_are_cut(data, step):
    parts, is_refused = parts_fed(data, len(data) or 1)
    cut, is_cut_refused = parts_fed(data, step)
    assert is_cut_refused == is_refused == (re.search(rb"(^|\r\n)--b--", data) is None or is_refused)
    assert all(part in data for part in parts)
    assert cut == parts if not is_refused else b"".join(cut).startswith(b"".join(parts)[: len(b"".join(cut))])


@given(st.binary(max_size=2000), st.integers(1, 500))
def test_no_more_of_a_part_is_held_back_than_a_boundary_may_be_long(data, step):
    assume(b"--b" not in data)
    reader, given_on = MultipartReader(b"b"), 0
    list(reader.feed(b"--b\r\n\r\n"))
    for start in range(0, len(data), step):
        given_on += sum(len(event) for event in reader.feed(data[start : start + step]))
        assert min(len(data), start + step) - given_on < 64


@pytest.mark.parametrize(
    "stated",
    [
        "",
        "text/plain",
        "multipart/related",
        'multipart/related; type="text/xml"; boundary=x',
        "multipart/related; boundary=" + "x" * 201,
    ],
)
def test_a_body_that_is_not_stated_to_be_dicom_parts_is_refused(node, stated):
    with pytest.raises(FormatError, match="multipart/related"):
        multipart.boundary_of(stated)
    assert node.client.post("/dicomweb/studies", content=b"x", headers={"Content-Type": stated}).status_code == 415


def test_a_client_stores_an_object_and_is_told_where_it_is(fresh):
    stored = DICOMwebClient(f"{fresh.url}/dicomweb").store_instances([simulated()])
    [one] = stored.ReferencedSOPSequence
    assert one.ReferencedSOPInstanceUID == "1.2.3.4"
    path = "/dicomweb/studies/1.2/series/1.2.3/instances/1.2.3.4"
    assert one.RetrieveURL == f"http://127.0.0.1{path}"  # this client names the host without its port
    fresh.keep()
    assert fresh.client.get(path).status_code == 200


def test_what_was_just_stored_is_found_before_its_row_is_there(fresh):
    """The keeper writes rows a moment after the answer; a search right after it waits for them."""
    later = threading.Timer(0.3, fresh.keep)
    assert (
        fresh.client.post("/dicomweb/studies", content=related(encoded(simulated())), headers=RELATED).status_code
        == 200
    )
    later.start()
    assert fresh.client.get("/dicomweb/studies/1.2/series/1.2.3/instances/1.2.3.4").status_code == 200
    assert len(fresh.client.get("/dicomweb/studies").json()) == 1
    later.join()


def test_a_search_does_not_wait_for_a_keeper_that_does_not_come(fresh):
    fresh.client.post("/dicomweb/studies", content=related(encoded(simulated())), headers=RELATED)
    assert fresh.client.get("/dicomweb/studies/1.2/metadata").status_code == 404


@pytest.mark.whole
def test_a_search_waits_for_nothing_that_comes_after_it(fresh):
    """Else a node to which others send all the time would answer no search."""
    studies = iter(range(10, 10_000))
    begun, ended = threading.Event(), threading.Event()

    def send() -> None:
        while not ended.is_set():
            body = related(encoded(simulated(study=f"1.{next(studies)}")))
            httpx.post(f"{fresh.url}/dicomweb/studies", content=body, headers=RELATED)
            begun.set()

    sending = threading.Thread(target=send)
    sending.start()
    begun.wait()
    try:
        assert fresh.client.get("/dicomweb/studies", timeout=30).status_code == 204
    finally:
        ended.set()
        sending.join()


def test_what_is_not_stored_is_said_with_the_reason(fresh):
    other, large = simulated("1.2.3.5", study="1.9"), simulated("1.2.3.6", side=1100)
    answer = fresh.store(
        encoded(simulated()), encoded(other), encoded(large), b"nonsense", path="/dicomweb/studies/1.2"
    )
    said = pydicom.Dataset.from_json(answer.json())
    assert answer.status_code == 202
    assert [one.ReferencedSOPInstanceUID for one in said.ReferencedSOPSequence] == ["1.2.3.4"]
    assert [hex(one.FailureReason) for one in said.FailedSOPSequence] == ["0xa900", "0xa700", "0xc000"]
    again = fresh.store(encoded(simulated()), encoded(simulated(StudyDescription="another")))
    assert (again.status_code, again.json()["00081198"]["Value"][0]["00081197"]["Value"]) == (202, [0x0111])
    assert fresh.store(b"nonsense").status_code == 409
    assert list((fresh.settings.folder / "inbox").rglob("*.part")) == []


def test_a_body_that_breaks_off_leaves_its_whole_objects_and_no_part_file(fresh):
    whole = related(encoded(simulated("1.2.3.1")), encoded(simulated("1.2.3.2")))
    answer = fresh.client.post("/dicomweb/studies", content=whole[:-300], headers=RELATED)
    assert answer.status_code == 422
    fresh.keep()
    assert fresh.client.get("/api/studies/1.2").json()["instances"] == 1
    assert list((fresh.settings.folder / "inbox").rglob("*.part")) == []


def test_an_object_with_a_damaged_header_is_found_and_given_as_it_came(fresh):
    file = encoded(simulated())
    damaged = file[: file.index(b"\x20\x00\x0e\x00") + 8 + len("1.2.3 ") + 5]  # up to SeriesInstanceUID, and half a tag
    assert fresh.store(damaged).status_code == 200
    [one] = fresh.client.get("/dicomweb/instances").json()
    assert one["00080018"]["Value"] == ["1.2.3.4"]
    at = "/dicomweb/studies/1.2/series/1.2.3/instances/1.2.3.4"
    assert fresh.client.get(f"{at}/metadata").json()[0]["0020000E"]["Value"] == ["1.2.3"]
    assert fresh.client.get(at, headers={"Accept": "application/dicom"}).content == damaged
    assert fresh.client.get(f"{at}/rendered").status_code in (404, 422)


def test_a_value_that_cannot_be_is_left_out_and_stands_in_no_log(fresh, caplog):
    file = encoded(simulated(AccessionNumber="7", FrameOfReferenceUID="1.2.77")).replace(b"1.2.77", b"1.02.7")
    fresh.store(file)
    [found] = fresh.client.get("/dicomweb/studies/1.2/metadata").json()
    assert (found["00080050"]["Value"], found.get("00200052", {}).get("Value")) == (["7"], None)
    assert "1.02.7" not in caplog.text


def test_an_answer_whose_file_is_damaged_is_left_out_and_hides_nothing_else(fresh):
    fresh.store(encoded(simulated()))
    fresh.answer("1.2", {"answer.dcm": (b"half", "2.25.7")}, [])
    for path in ("studies", "series", "instances", "studies/1.2/metadata"):
        assert len(fresh.client.get(f"/dicomweb/{path}").json()) == 1
    assert parts_of(fresh.client.get("/dicomweb/studies/1.2", headers={"Accept": AS_STORED})) == [encoded(simulated())]


def test_names_in_a_body_are_no_paths(fresh):
    head = b'Content-Type: application/dicom\r\nContent-Disposition: form-data; filename="../../escaped"\r\n'
    body = b"--" + BOUNDARY.encode() + b"\r\n" + head + b"Content-Location: /etc/escaped\r\n\r\n" + encoded(simulated())
    before = set(fresh.settings.folder.parent.rglob("*"))
    answer = fresh.client.post(
        "/dicomweb/studies", content=body + b"\r\n--" + BOUNDARY.encode() + b"--", headers=RELATED
    )
    assert answer.status_code == 200
    new = set(fresh.settings.folder.parent.rglob("*")) - before
    assert all(path.is_relative_to(fresh.settings.folder / "studies") for path in new if path.suffix == ".dcm")
    assert not any("escaped" in path.name for path in new)


def test_objects_come_back_byte_for_byte(node):
    answer = node.client.get(f"/dicomweb/studies/{node.uid}", headers={"Accept": AS_STORED})
    assert sorted(parts_of(answer)) == sorted([*node.files, node.seg])


def test_a_client_fetches_a_study_a_series_and_an_instance(node):
    study = node.web.retrieve_study(node.uid)
    assert len(study) == 4
    one = study[0]
    series = node.web.retrieve_series(node.uid, one.SeriesInstanceUID)
    assert {instance.SeriesInstanceUID for instance in series} == {one.SeriesInstanceUID}
    same = node.web.retrieve_instance(node.uid, one.SeriesInstanceUID, one.SOPInstanceUID)
    assert same.PixelData == one.PixelData


def test_a_segmentation_that_a_job_made_is_found_and_fetched_as_any_other_object(node, tmp_path):
    [found] = node.web.search_for_series(node.uid, search_filters={"Modality": "SEG"})
    seg = node.web.retrieve_series(node.uid, found["0020000E"]["Value"][0])[0]
    pydicom.dcmwrite(tmp_path / "seg.dcm", seg, enforce_file_format=True)
    assert np.array_equal(
        file_formats.read(tmp_path / "seg.dcm").data, file_formats.read(real_data.SHIPPED / "dicom" / SEG).data
    )
    [study] = node.web.search_for_studies(search_filters={"StudyInstanceUID": node.uid})
    assert study["00080061"]["Value"] == ["CT", "SEG"]
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([2], [4])


@pytest.mark.parametrize(
    ("filters", "studies"),
    [
        ({}, ["1.3", "1.2"]),
        ({"PatientID": "secret-17"}, ["1.3", "1.2"]),
        ({"PatientID": "secret-1"}, []),
        ({"PatientName": "doe*"}, ["1.3", "1.2"]),
        ({"00100010": "D?e^Jane"}, ["1.3", "1.2"]),
        ({"PatientName": "[a-z]*"}, []),
        ({"StudyDate": "20200101-20200103"}, ["1.2"]),
        ({"StudyDate": "20200102"}, ["1.2"]),
        ({"StudyDate": "-20200101"}, []),
        ({"ModalitiesInStudy": "MR"}, ["1.2"]),
        ({"StudyInstanceUID": "1.2,1.3"}, ["1.3", "1.2"]),
        ({"StudyInstanceUID": "1.2"}, ["1.2"]),
        ({"StudyInstanceUID": "*", "PatientID": "secret-*", "offset": "1"}, ["1.2"]),
    ],
)
def test_studies_are_found_by_their_attributes_whether_complete_or_still_coming(node, filters, studies):
    found = node.web.search_for_studies(search_filters=filters)
    assert [uid for one in found for uid in one["0020000D"]["Value"] if uid != node.uid] == studies


JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def test_a_name_in_several_scripts_is_given_and_found_in_each():
    held = dicom_json.json_element("PatientName", [JAPANESE])["00100010"]
    assert held["Value"] == [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}]
    assert dicom_json.json_element("PatientName", ["=山田^太郎"])["00100010"]["Value"] == [{"Ideographic": "山田^太郎"}]
    for wanted in ("yamada^tarou", "YAMADA*", "山田*", "やまだ^?ろう", JAPANESE, "=山田*", "Yamada*==*たろう"):
        assert dicom_json.element_matches(held, wanted), wanted
    for wanted in ("Yamada", "山本*", "Yamada*=山本*", "=Yamada*"):
        assert not dicom_json.element_matches(held, wanted), wanted


def test_a_study_of_a_patient_with_two_scripts_is_found_by_either(fresh):
    fresh.store(encoded(simulated(study="1.4")))
    fresh.complete("1.4", {**ATTRIBUTES, "PatientName": JAPANESE}, modality="MR")
    for name in ("Yamada^Tarou", "山田*"):
        found = fresh.client.get("/dicomweb/studies", params={"PatientName": name})
        assert found.status_code == 200, name
        assert found.json()[0]["00100010"]["Value"][0]["Ideographic"] == "山田^太郎"


@pytest.mark.parametrize(
    ("held", "wanted", "fits"),
    [
        ("20200101120000", "20200101-20200102", True),
        ("20200101120000.5", "-20200101", True),
        ("20200101120000", "20200102-", False),
        ("20200101120000", "202001011200-202001011200", True),
        ("20200101233000-0500", "20200102-20200103", False),
        ("20200101233000-0500", "20200102+0000-20200103+0000", True),
        ("20200101233000-0500", "20200101-0500-20200101-0500", True),
        ("20200101233000-0500", "20200101233000-0500", True),
        ("20201301233000-0500", "20200102+0000-20200103+0000", False),
        ("20200101", "2019-2021", True),
    ],
)
def test_dates_with_times_are_found_in_ranges(held, wanted, fits):
    assert dicom_json.element_matches({"vr": "DT", "Value": [held]}, wanted) == fits


@pytest.mark.parametrize(
    ("held", "wanted", "fits"),
    [
        ("1030", "103000-113000", True),
        ("10", "100000.000000-", True),
        ("103000", "103000.000000-103000.999999", True),
        ("103000.5", "103000-103000", True),
        ("1029", "103000-113000", False),
        ("11", "-1059", False),
        ("103000.25", "-103000.15", False),
    ],
)
def test_times_that_are_less_exact_than_a_range_are_found_in_it(held, wanted, fits):
    assert dicom_json.element_matches({"vr": "TM", "Value": [held]}, wanted) == fits


def test_pages_of_a_search_hold_every_study_once(node, monkeypatch):
    monkeypatch.setattr(search, "STUDIES_AT_ONCE", 1)
    pages = [node.web.search_for_studies(limit=1, offset=n) for n in range(4)]
    assert [len(page) for page in pages] == [1, 1, 1, 0]
    assert len({page[0]["0020000D"]["Value"][0] for page in pages[:3]}) == 3
    assert "more results" in node.client.get("/dicomweb/studies?limit=1").headers["Warning"]


def test_what_is_no_attribute_of_a_level_is_said_to_be_ignored(node):
    assert "ignored: 00080060" in node.client.get("/dicomweb/studies?Modality=MR").headers["Warning"]
    assert "Warning" not in node.client.get("/dicomweb/series?Modality=MR").headers
    assert node.client.get("/dicomweb/series?Modality=XA").status_code == 204


def test_series_and_instances_are_found_within_their_study_and_without_it(node):
    [series] = node.web.search_for_series("1.3")
    assert (series["0020000E"]["Value"], series["00201209"]["Value"]) == (["1.3.3"], [3])
    instances = node.web.search_for_instances("1.3", "1.3.3")
    assert [one["00080018"]["Value"][0] for one in instances] == ["1.3.3.0", "1.3.3.1", "1.3.3.2"]
    [one] = node.web.search_for_instances(search_filters={"SOPInstanceUID": "1.3.3.1"})
    assert (one["00280010"]["Value"], one["0020000D"]["Value"]) == ([8], ["1.3"])
    assert node.web.search_for_instances("1.3", "1.2.3") == []


def test_a_series_or_an_instance_that_states_nothing_gets_no_value_of_another_one(fresh):
    left = {"ImageLaterality": "L", "SeriesDescription": "T1", "BodyPartExamined": "HEAD", "StationName": "S"}
    fresh.store(encoded(simulated("1.5.1.1", study="1.5", series="1.5.1", StudyDescription="brain", **left)))
    fresh.store(encoded(simulated("1.5.1.2", study="1.5", series="1.5.1", SeriesDescription="T1")))
    fresh.store(encoded(simulated("1.5.2.1", study="1.5", series="1.5.2")))

    def found(query: str) -> list[tuple[str, object]]:
        answer = fresh.client.get(f"/dicomweb/{query}")
        level = "0020000E" if "series?" in query else "00080018"
        rows = [] if answer.status_code == 204 else answer.json()
        return [(row[level]["Value"][0], row.get(query[-8:], {}).get("Value")) for row in rows]

    [study] = fresh.client.get("/dicomweb/studies?StudyInstanceUID=1.5&Modality=OT&includefield=all").json()
    assert study["00080061"]["Value"] == ["OT"] and study["00081030"]["Value"] == ["brain"]
    assert not {"0020000E", "00080018", "00080060", "00200062", "0008103E", "00280010"} & set(study)
    assert found("series?BodyPartExamined=HEAD&includefield=00180015") == [("1.5.1", ["HEAD"])]
    wanted = "studies/1.5/series?SeriesDescription=*&includefield=0008103E"
    assert found(wanted) == [("1.5.1", ["T1"]), ("1.5.2", None)]
    assert found("studies/1.5/series?includefield=00081010") == [("1.5.1", ["S"]), ("1.5.2", None)]
    assert found("instances?ImageLaterality=L&includefield=00200062") == [("1.5.1.1", ["L"])]
    every = [("1.5.1.1", ["L"]), ("1.5.1.2", None), ("1.5.2.1", None)]
    assert found("studies/1.5/instances?includefield=all,00200062") == every
    whole = [("1.5.1.1", ["brain"]), ("1.5.1.2", ["brain"]), ("1.5.2.1", ["brain"])]
    assert found("instances?includefield=00081030") == whole  # what holds for the study holds for all of it


def test_numbers_that_json_does_not_have_are_texts(fresh):
    """PS3.18 F.2.3; a viewer could read nothing of a study whose metadata hold them as numbers."""
    inside = pydicom.Dataset()
    inside.DiffusionBValue = float("-inf")
    fresh.store(encoded(simulated(DiffusionBValue=float("nan"), MRDiffusionSequence=[inside])))

    def values(text: str) -> list[object]:
        [row] = json.loads(text, parse_constant=pytest.fail)
        return [row["00189087"]["Value"], row["00189117"]["Value"][0]["00189087"]["Value"]]

    assert values(fresh.client.get("/dicomweb/studies/1.2/metadata").text) == [["NaN"], ["-inf"]]
    assert values(fresh.client.get("/dicomweb/instances?includefield=all").text) == [["NaN"], ["-inf"]]
    assert dicom_json.json_element("DiffusionBValue", ["nan"])["00189087"]["Value"] == ["NaN"]


def test_a_search_says_what_it_does_not_do_and_takes_each_attribute_once(node):
    assert "fuzzymatching" in node.client.get("/dicomweb/studies?fuzzymatching=true").headers["Warning"]
    assert "Warning" not in node.client.get("/dicomweb/studies?fuzzymatching=false").headers
    twice = node.client.get("/dicomweb/studies?PatientID=1&00100020=secret-17")
    assert (twice.status_code, twice.json()["problem"]) == (400, "an attribute is asked for twice")


@pytest.mark.parametrize("level", ["studies", "series", "instances", "studies/1.3/series", "studies/1.3/instances"])
def test_parameters_that_nobody_knows_are_ignored_with_a_warning(node, level):
    """PS3.18 8.3: the request is processed as if they were not there."""
    plain = node.client.get(f"/dicomweb/{level}")
    odd = "accept=application/dicom%2Bjson&_=17&00091001=x&P%C3%A4tient=1&includefield=NoSuchWord,PatientAge"
    answer = node.client.get(f"/dicomweb/{level}?{odd}")
    assert (answer.status_code, len(answer.json())) == (200, len(plain.json()))
    warning = answer.headers["Warning"]
    assert "ignored: accept, _, 00091001, includefield NoSuchWord, 1 that cannot be written here" in warning
    nobody = node.client.get(f"/dicomweb/{level}?PatientID=nobody&frobnicate=1&emptyvaluematching=true")
    assert nobody.status_code == 204
    assert "frobnicate" in nobody.headers["Warning"]
    assert "emptyvaluematching parameter is not supported" in nobody.headers["Warning"]
    assert node.client.get(f"/dicomweb/{level}?limit=many").status_code == 400


def test_an_item_of_a_sequence_is_found_by_keywords_and_by_tags(fresh):
    """PS3.18 8.3.4.1: RequestAttributesSequence.RequestedProcedureID=A; both have to be of one item."""
    for number, procedures in enumerate((["A", "B"], ["C"], []), start=1):
        items = [pydicom.Dataset() for _ in procedures]
        for item, procedure in zip(items, procedures, strict=True):
            item.RequestedProcedureID, item.ScheduledProcedureStepID = procedure, f"step {procedure}"
        series, more = f"1.5.{number}", {"RequestAttributesSequence": items} if items else {}
        fresh.store(encoded(simulated(f"{series}.1", study="1.5", series=series, **more)))

    def found(query: str, level: str = "series") -> list[str]:
        answer = fresh.client.get(f"/dicomweb/{level}?{query}")
        return [] if answer.status_code == 204 else [row["0020000E"]["Value"][0] for row in answer.json()]

    name, step = "RequestAttributesSequence.RequestedProcedureID", "RequestAttributesSequence.ScheduledProcedureStepID"
    assert found(f"{name}=A") == found("00400275.00401001=A") == found(f"{name}=A", "instances") == ["1.5.1"]
    assert found(f"{name}=A&{step}=step A") == ["1.5.1"]
    assert found(f"{name}=A&{step}=step B") == []
    assert found(f"{name}=C") == ["1.5.2"]
    assert found(f"{name}=*") == ["1.5.1", "1.5.2", "1.5.3"]
    assert fresh.client.get(f"/dicomweb/series?{name}=A&{name}=B").status_code == 400
    assert "ignored: 00400275" in fresh.client.get(f"/dicomweb/studies?{name}=A").headers["Warning"]
    [row] = fresh.client.get("/dicomweb/series?SeriesInstanceUID=1.5.2&includefield=RequestAttributesSequence").json()
    assert row["00400275"]["Value"][0]["00401001"]["Value"] == ["C"]


def test_metadata_are_the_header_without_its_pixels(node):
    [one] = (node.web.retrieve_instance_metadata("1.2", "1.2.3", "1.2.3.4"),)
    header = pydicom.Dataset.from_json(one)
    assert (header.PatientName, header.Rows, "PixelData" in header) == ("Doe^Jane", 8, False)
    assert len(node.web.retrieve_series_metadata("1.3", "1.3.3")) == 3
    assert len(node.web.retrieve_study_metadata(node.uid)) == 4


@pytest.mark.parametrize("name", thinned(4, real_data.parameters("dicom/files", KINDS)))
def test_frames_are_decoded_and_shown(pictures, name):
    path = real_data.find(f"dicom/files/{name}")
    file = path.read_bytes()
    stored = pictures.store(file).json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    dataset = pydicom.dcmread(path)
    last = int(dataset.get("NumberOfFrames", 1))
    octets = 'multipart/related; type="application/octet-stream"'
    answer = pictures.client.get(f"{stored}/frames/1,{last}", headers={"Accept": octets})
    assert answer.status_code == 200, answer.text
    for part, number in zip(parts_of(answer), (0, last - 1), strict=True):
        pixels = pydicom.pixels.pixel_array(dataset, index=number, raw=dataset.SamplesPerPixel == 1)
        assert is_same_frame(part, pixels, dataset)
    for kind in ("png", "jpeg"):
        shown = pictures.client.get(f"{stored}/frames/{last}/rendered", headers={"Accept": f"image/{kind}"})
        picture = Image.open(io.BytesIO(shown.content))
        assert (picture.format, picture.size) == (kind.upper(), (dataset.Columns, dataset.Rows))
    assert pictures.client.get(f"{stored}/frames/{last + 1}").status_code == 404


def is_same_frame(part: bytes, pixels: np.ndarray, dataset: pydicom.Dataset) -> bool:
    """Whether a part has the words of a frame; of a lossy JPEG decoders differ by a rounding."""
    if dataset.BitsAllocated == 1:
        return part == np.packbits(pixels.ravel().astype(bool), bitorder="little").tobytes()
    found = np.frombuffer(part, pixels.dtype.newbyteorder("<")).reshape(pixels.shape)
    is_lossy = dataset.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit
    return np.allclose(found, pixels, atol=4 if is_lossy else 0)


@pytest.mark.parametrize("name", thinned(4, real_data.parameters("dicom/files", KINDS)))
def test_an_object_comes_decoded_to_whoever_asks_for_that_with_the_same_pixels_and_uids(pictures, name):
    path = real_data.find(f"dicom/files/{name}")
    stored = pictures.store(path.read_bytes()).json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    plain, source = "1.2.840.10008.1.2.1", pydicom.dcmread(path)
    accept = {"Accept": f'multipart/related; type="application/dicom"; transfer-syntax={plain}'}
    answer = pictures.client.get(stored, headers=accept)
    alone = pictures.client.get(stored, headers={"Accept": f"application/dicom; transfer-syntax={plain}"})
    assert (answer.status_code, alone.status_code) == (200, 200)
    [part] = parts_of(answer)
    assert (part == path.read_bytes()) == is_plain(source)
    found = pydicom.dcmread(io.BytesIO(part))
    assert (found.file_meta.TransferSyntaxUID, found.SOPInstanceUID) == (plain, source.SOPInstanceUID)
    is_raw = source.SamplesPerPixel == 1
    mine, other = (pydicom.pixels.pixel_array(one, raw=is_raw) for one in (found, source))
    assert np.allclose(mine, other, atol=4 if "jpeg_baseline" in name else 0)
    assert alone.content == part


@pytest.mark.parametrize(
    "name", thinned(4, real_data.parameters("dicom/files", [*KINDS, "pydicom_examples_overlay.dcm"]))
)
def test_whoever_names_no_transfer_syntax_gets_explicit_vr_and_the_lowest_byte_first(pictures, name):
    """PS3.18 8.7.3: the default of application/dicom, whatever is stored; `*` gives what is stored."""
    path = real_data.find(f"dicom/files/{name}")
    stored = pictures.store(path.read_bytes()).json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    for accept in ("*/*", "application/dicom", 'multipart/related; type="application/dicom"'):
        answer = pictures.client.get(stored, headers={"Accept": accept})
        [part] = [answer.content] if accept == "application/dicom" else parts_of(answer)
        assert is_plain(pydicom.dcmread(io.BytesIO(part)))
    for accept in ("application/dicom; transfer-syntax=*", AS_STORED):
        answer = pictures.client.get(stored, headers={"Accept": accept})
        [part] = parts_of(answer) if accept == AS_STORED else [answer.content]
        assert part == path.read_bytes()


def test_a_client_gets_pixels_that_it_can_read_and_what_is_stored_where_it_says_so(pictures, monkeypatch):
    monkeypatch.setattr(retrieve, "MOST_HELD", 1000)  # what is larger waits in a file
    source = pydicom.dcmread(real_data.SHIPPED / "dicom/files/pydicom_MR_small_RLE.dcm")
    pictures.store((real_data.SHIPPED / "dicom/files/pydicom_MR_small_RLE.dcm").read_bytes())
    client = DICOMwebClient(f"{pictures.url}/dicomweb")
    at = (source.StudyInstanceUID, source.SeriesInstanceUID, source.SOPInstanceUID)
    plain = client.retrieve_instance(*at, media_types=(("application/dicom", "1.2.840.10008.1.2.1"),))
    [first] = [one for one in client.retrieve_study(at[0]) if one.SOPInstanceUID == at[2]]
    kept = client.retrieve_instance(*at)  # which asks for `*`
    assert first.PixelData == plain.PixelData == source.pixel_array.tobytes()
    assert kept.PixelData == source.PixelData


def test_what_no_decoder_reads_is_not_acceptable_but_as_it_is_stored(pictures):
    odd, uid = "1.2.840.10008.1.2.4.92", "1.7.7"
    dataset = simulated(study=uid)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(odd)
    dataset.PixelData = pydicom.encaps.encapsulate([b"coded"])
    file = encoded(dataset)
    assert pictures.store(file).status_code == 200
    answer = pictures.client.get(f"/dicomweb/studies/{uid}")
    assert answer.status_code == 406
    assert odd in answer.json()["problem"] and "transfer-syntax=*" in answer.json()["remedy"]
    assert parts_of(pictures.client.get(f"/dicomweb/studies/{uid}", headers={"Accept": AS_STORED})) == [file]
    both = f'{AS_STORED};q=0.5, multipart/related; type="application/dicom"'
    assert parts_of(pictures.client.get(f"/dicomweb/studies/{uid}", headers={"Accept": both})) == [file]


def test_of_several_that_it_takes_a_client_gets_what_it_weighs_most(pictures):
    path = real_data.SHIPPED / "dicom/files/pydicom_MR_small_RLE.dcm"
    stored = pictures.store(path.read_bytes()).json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    weighed = f'{AS_STORED};q=0.1, multipart/related; type="application/dicom"; q=0.9, image/png; q=0'
    [part] = parts_of(pictures.client.get(stored, headers={"Accept": weighed}))
    assert is_plain(pydicom.dcmread(io.BytesIO(part)))
    assert pictures.client.get(stored, headers={"Accept": f"{AS_STORED}; q=0"}).status_code == 406


def test_the_highest_byte_comes_first_only_for_whoever_takes_what_is_stored(pictures):
    path, big = real_data.SHIPPED / "dicom/files/pydicom_ExplVR_BigEnd.dcm", "1.2.840.10008.1.2.2"
    stored = pictures.store(path.read_bytes()).json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    for wanted, comes in (("", is_plain), ("; transfer-syntax=*", is_big), (f"; transfer-syntax={big}", is_big)):
        for kind in ('multipart/related; type="application/dicom"', "application/dicom"):
            answer = pictures.client.get(stored, headers={"Accept": kind + wanted})
            [part] = parts_of(answer) if kind.startswith("multipart") else [answer.content]
            assert comes(pydicom.dcmread(io.BytesIO(part)))
            assert (part == path.read_bytes()) == (comes is is_big)


def is_big(dataset: pydicom.Dataset) -> bool:
    return dataset.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRBigEndian


def is_plain(dataset: pydicom.Dataset) -> bool:
    return dataset.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian


def test_a_compressed_frame_is_given_as_it_is_stored_to_whoever_takes_it(pictures):
    path = real_data.SHIPPED / "dicom/files/pydicom_MR_small_RLE.dcm"
    stored = pictures.store(path.read_bytes()).json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    frame = pydicom.encaps.get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1)
    for accept in ('type="image/dicom-rle"', 'type="application/octet-stream"; transfer-syntax=*'):
        answer = pictures.client.get(f"{stored}/frames/1", headers={"Accept": f"multipart/related; {accept}"})
        assert parts_of(answer) == [frame]
    assert pictures.client.get(f"{stored}/frames/1", headers={"Accept": "text/html"}).status_code == 406


def test_a_window_and_a_size_are_as_asked_for(node):
    where = "/dicomweb/studies/1.2/series/1.2.3/instances/1.2.3.4/rendered"
    accept = {"Accept": "image/png"}
    answer = node.client.get(where, params={"window": "2000,1,linear", "viewport": "16,32"}, headers=accept)
    picture = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert picture.shape == (16, 16)
    pixels = simulated().pixel_array
    plain = node.client.get(where, params={"window": "2000,1,linear"}, headers=accept)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(plain.content))) > 0, pixels > 1999.5)
    for wrong in ({"window": "1"}, {"window": "1,0"}, {"viewport": "0,5"}, {"viewport": "99999,5"}, {"quality": "0"}):
        assert node.client.get(where, params=wrong).status_code in (400, 422)


@pytest.mark.parametrize(
    "path",
    [
        "9.9",
        "1.2/series/9.9",
        "1.2/series/1.2.3/instances/9.9",
        "9.9/metadata",
        "1.3/series/1.2.3",
        "..%2F..",
        "1.2/series/1.2.3/instances/1.2.3.4/frames/0",
    ],
)
def test_what_the_node_has_not_is_answered_with_404(node, path):
    assert node.client.get(f"/dicomweb/studies/{path}").status_code in (404, 422)


def uploaded(orthanc, files: list[bytes]) -> None:
    """Give Orthanc the same objects, by a client of others."""
    client = DICOMwebClient(f"{orthanc.url}/dicom-web")
    client.store_instances([pydicom.dcmread(io.BytesIO(file)) for file in files])


def test_the_node_answers_as_orthanc_does(node, orthanc):
    uploaded(orthanc, [*node.files, node.seg])
    ours, theirs = node.web, DICOMwebClient(f"{orthanc.url}/dicom-web")
    uid = node.uid
    series = sorted(one["0020000E"]["Value"][0] for one in theirs.search_for_series(uid))
    assert sorted(one["0020000E"]["Value"][0] for one in ours.search_for_series(uid)) == series
    searches = [lambda client: client.search_for_studies(search_filters={"StudyInstanceUID": uid})]
    searches += [lambda client, of=of: client.search_for_instances(uid, of) for of in series]
    compared = set()
    for find in searches:
        found = {key_of(one): one for one in find(ours)}
        for other in find(theirs):
            mine = found.pop(key_of(other))
            shared = {tag for tag in mine.keys() & other.keys() - {"00081190"} if other[tag].get("Value")}
            assert {tag: mine[tag]["Value"] for tag in shared} == {tag: other[tag]["Value"] for tag in shared}
            compared |= shared
        assert found == {}
    assert {"00100020", "00080061", "00201206", "00201208", "00080018", "00280010"} <= compared
    ct = pydicom.dcmread(io.BytesIO(node.files[0]))
    at = (uid, ct.SeriesInstanceUID, ct.SOPInstanceUID)
    plain = (("application/octet-stream", "1.2.840.10008.1.2.1"),)
    frames = [client.retrieve_instance_frames(*at, [1], media_types=plain) for client in (ours, theirs)]
    assert frames[0] == frames[1]
    mine, other = (client.retrieve_instance_metadata(*at) for client in (ours, theirs))
    mine, other = mine[0] if isinstance(mine, list) else mine, other[0] if isinstance(other, list) else other
    assert mine == {tag: value for tag, value in other.items() if tag in mine}
    assert other.keys() - mine.keys() <= {"7FE00010", "00080005"}


def key_of(found: dict) -> tuple:
    """What an answer is about."""
    return tuple(found.get(tag, {}).get("Value", [""])[0] for tag in ("0020000D", "0020000E", "00080018"))


def test_orthanc_sends_to_the_node_and_fetches_from_it(fresh, orthanc):
    uploaded(orthanc, [encoded(simulated(f"1.2.3.{n}", side=64)) for n in range(3)])
    orthanc.ask("/dicom-web/servers/node", {"Url": f"{fresh.url}/dicomweb/", "HasDelete": False}, "PUT")
    orthanc.ask("/dicom-web/servers/node/stow", {"Resources": orthanc.ask("/studies"), "Synchronous": True})
    fresh.keep()
    assert fresh.client.get("/api/studies/1.2").json()["instances"] == 3
    orthanc.empty()
    orthanc.ask("/dicom-web/servers/node/retrieve", {"Resources": [{"Study": "1.2"}], "Synchronous": True})
    assert len(orthanc.ask("/instances")) == 3
