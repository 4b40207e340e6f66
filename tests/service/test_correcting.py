"""Results that people correct and judge on the node's page."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pydicom
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

import hilum
import real_data
from files.test_dicom_answers import errors_in
from hilum.errors import UsageError
from hilum.files import file_formats
from hilum.files.dicom import object_identity
from hilum.files.dicom.reading import seg_reading
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.layouts import dataset_layouts
from hilum.service._courier import Couriers
from hilum.service.node_folder import MODELS
from hilum.service.objects import object_store
from hilum.service.reading import correcting
from hilum.service.reading.label_strokes import Stroke
from hilum.service.records import tables
from hilum.service.records.actor import Actor
from hilum.service.web import access, server
from hilum.service.web.web_node import WebNode
from service.objects_sent import encoded
from service.small_node import LEVEL, SmallNode
from service.test_reading import slice_of, voxels_of
from service.test_rejections import note
from service.test_views import views
from service.thresholds import class_model, threshold_model

PACS = {"name": "PACS", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}


def page(node: SmallNode, account: str = "ada", role: str = "radiologist") -> TestClient:
    """The node's routes, as a person asks for them who has logged in."""
    routes = server.web_app(WebNode(node.settings, node.database, node.store)).app.app

    async def as_person(scope, receive, send):
        if scope["type"] == "http":
            access.enter_actor(scope, Actor(account, role))
        await routes(scope, receive, send)

    return TestClient(as_person, base_url="http://127.0.0.1:8180")


@pytest.fixture
def read_node(tmp_path, mr):
    """A node with a result of a study, whose corrections go to a peer."""
    model = threshold_model(tmp_path / "model", LEVEL)
    node = SmallNode(tmp_path / "node", model, page={"send": ["PACS"]}, peers=[PACS])
    describe(node)
    node.receive(*mr)
    node.work()
    yield node
    node.store.close()
    node.database.close()


def describe(node: SmallNode) -> None:
    """Write down what routing asks of the node's models, as it does before it starts."""
    facts = {"schema": "hilum.models", "version": 1, "rows": [asdict(one) for one in node.models.values()]}
    (node.settings.folder / MODELS).write_text(json.dumps(facts))


def address(node: SmallNode) -> str:
    [job] = node.rows(tables.JOBS)
    return f"/api/jobs/{job.job}"


def test_what_is_corrected_goes_out_as_seg_and_verified_report_on_the_exact_voxels(read_node, mr):
    job, ada = address(read_node), page(read_node)
    image = file_formats.read(mr[0].parent)
    model = image.data[0] > LEVEL
    start = int(np.ravel_multi_index((3, 5, 6), model.shape))
    sent = {"stroke": "one", "label": 1, "runs": [[start, 2]]}
    erased = {"stroke": "two", "label": 0, "runs": [[int(np.flatnonzero(model)[0]), 1]]}
    for stroke in (sent, erased, {**sent, "stroke": "three", "runs": [[0, 4]]}, sent):
        assert ada.post(f"{job}/draft", json=stroke).json() == {"revision": 0}
    assert ada.delete(f"{job}/draft/three").status_code == 200
    # Logged out, reloaded or crashed: the strokes are there, for this account alone.
    assert [one["stroke"] for one in page(read_node).get(f"{job}/draft").json()["strokes"]] == ["one", "two"]
    assert page(read_node, "ben").get(f"{job}/draft").json() == {"revision": 0, "strokes": []}
    answer = ada.put(f"{job}/correction", json={"revision": 0}).json()
    assert (answer["revision"], answer["lacking"]) == (1, [])
    assert answer["answers"] == [
        "answer.dcm",
        "answer.labels.csv",
        "answer.nii.gz",
        "answer_report.dcm",
        "findings.json",
    ]
    assert ada.get(f"{job}/draft").json() == {"revision": 1, "strokes": []}

    wanted = model.copy()
    wanted.reshape(-1)[start : start + 2] = True
    wanted.reshape(-1)[np.flatnonzero(model)[0]] = False
    [made] = read_node.rows(tables.CORRECTIONS)
    folder = read_node.settings.folder / "results" / made.correction
    np.testing.assert_array_equal(seg_reading.read_segmentation(folder / "answer.dcm", image.geometry).data[0], wanted)
    np.testing.assert_array_equal(file_formats.read(folder / "answer.nii.gz").data[0], wanted)
    seg, report = (pydicom.dcmread(folder / name) for name in ("answer.dcm", "answer_report.dcm"))
    for name in ("answer.dcm", "answer_report.dcm"):
        assert errors_in(folder / name) == []
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert str(seg.ContentCreatorName) == "ada^"
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("VERIFIED", "FINAL")
    assert str(report.VerifyingObserverSequence[0].VerifyingObserverName) == "ada^"
    [document] = report.PredecessorDocumentsSequence
    before = pydicom.dcmread(read_node.result("answer_report.dcm"))
    named = document.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == before.SOPInstanceUID
    # What the model made stays, and both go to the peer.
    np.testing.assert_array_equal(file_formats.read(read_node.result("answer.nii.gz")).data[0], model)
    sent = {(row.name, row.peer) for row in read_node.rows(tables.DELIVERIES)}
    assert sent == {("answer.dcm", "PACS"), ("answer_report.dcm", "PACS")}
    assert {row.job for row in read_node.rows(tables.DELIVERIES)} == {made.correction}

    identity = object_identity.read_identity(mr[0])
    [result] = ada.get(f"/api/studies/{identity.study}/reading").json()["jobs"]
    assert (result["revision"], result["maps"]) == (1, ["mask", "original"])
    volume = round(float(wanted.sum()) * image.geometry.voxel_size[0], 6)
    size = next(row for row in result["findings"] if row["concept"] == "bright")
    assert size["value"] == pytest.approx(volume)
    plane = ada.get(f"/api/series/{identity.series}/grid").json()["planes"]["axial"]
    for name, source in (("mask", wanted), ("original", model)):
        got = slice_of(ada, f"{job}/maps/{name}/slices/axial/3")
        np.testing.assert_array_equal(got, voxels_of(source, plane, 3))
    found = ada.get(f"/dicomweb/studies/{identity.study}/instances").json()
    assert seg.SOPInstanceUID in {one["00080018"]["Value"][0] for one in found}


def test_an_answer_that_is_erased_is_not_detected_by_a_person(read_node, mr):
    job, ada = address(read_node), page(read_node)
    shape = file_formats.read(mr[0].parent).data[0].shape
    erase = {"stroke": "all", "label": 0, "runs": [[0, int(np.prod(shape))]]}
    assert ada.post(f"{job}/draft", json=erase).status_code == 200
    answer = ada.put(f"{job}/correction", json={"revision": 0}).json()
    assert answer["answers"] == ["answer.labels.csv", "answer.nii.gz", "answer_report.dcm", "findings.json"]
    assert answer["lacking"] == []
    [made] = read_node.rows(tables.CORRECTIONS)
    folder = read_node.settings.folder / "results" / made.correction
    record = json.loads((folder / "findings.json").read_text())
    assert (record["outcome"], record["is_empty"], record["reason"]) == (
        "answered",
        True,
        "the reader has found nothing",
    )
    assert [(row["concept"], row["value"], row["unit"]) for row in record["rows"]] == [("bright", False, "")]
    report = pydicom.dcmread(folder / "answer_report.dcm")
    assert errors_in(folder / "answer_report.dcm") == []
    assert (report.VerificationFlag, len(report.PredecessorDocumentsSequence)) == ("VERIFIED", 1)
    stated = report.to_json()
    assert "not detected: bright" in stated and "Not detected" in stated and '"ml"' not in stated
    assert {row.name for row in read_node.rows(tables.DELIVERIES)} == {"answer_report.dcm"}
    # What is corrected again afterwards is a result.
    assert ada.post(f"{job}/draft", json={"stroke": "again", "label": 1, "runs": [[0, 4]]}).status_code == 200
    answer = ada.put(f"{job}/correction", json={"revision": 1}).json()
    assert "answer.dcm" in answer["answers"]
    made = max(read_node.rows(tables.CORRECTIONS), key=lambda row: row.revision)
    record = json.loads((read_node.settings.folder / "results" / made.correction / "findings.json").read_text())
    assert not record["is_empty"] and record["rows"][0]["value"] > 0


def test_the_worklist_shows_a_corrected_finding_as_it_stands_marked_and_with_its_priority(tmp_path, mr):
    urgent = [{"finding": "bright", "value": 0.01, "priority": "urgent"}]
    node = SmallNode(tmp_path / "node", threshold_model(tmp_path / "model", LEVEL), urgent=urgent)
    describe(node)
    node.receive(*mr)
    node.work()
    job, ada = address(node), page(node)

    def listed(*names: str) -> list:
        [row] = ada.get("/api/worklist").json()["rows"]
        return [row[name] for name in (*names, "is_corrected", "verdict", "outcome")]

    before, *stated = listed("finding", "priority")
    assert before.startswith("bright: ") and stated == ["urgent", False, None, "answered"]
    size = int(np.prod(file_formats.read(mr[0].parent).data[0].shape))
    for revision, (label, finding, priority) in enumerate([(0, "nothing found", "routine"), (1, "bright: ", "urgent")]):
        stroke = {"stroke": f"s{revision}", "label": label, "runs": [[0, size]]}
        assert ada.post(f"{job}/draft", json=stroke).status_code == 200
        assert ada.put(f"{job}/correction", json={"revision": revision}).status_code == 200
        assert ada.post(f"{job}/feedback", json={"verdict": "corrected"}).status_code == 200
        found, *stated = listed("finding", "priority")
        assert found.startswith(finding) and found != before
        assert stated == [priority, True, "corrected", "answered"]
    node.store.close()
    node.database.close()


@pytest.mark.whole
def test_a_corrected_mask_lies_in_the_pacs_on_the_exact_voxels(read_node, mr, orthanc, tmp_path):
    job, ada = address(read_node), page(read_node)
    wanted = (file_formats.read(mr[0].parent).data[0] > LEVEL).copy()
    start = int(np.ravel_multi_index((3, 5, 6), wanted.shape))
    ada.post(f"{job}/draft", json={"stroke": "one", "label": 1, "runs": [[start, 2]]})
    ada.put(f"{job}/correction", json={"revision": 0})
    couriers = Couriers(read_node.settings, read_node.database)
    couriers.peers["PACS"] = couriers.peers["PACS"].model_copy(update={"port": orthanc.port})
    assert couriers.deliver("PACS") == 2
    [seg] = orthanc.ask("/tools/find", {"Level": "Instance", "Query": {"Modality": "SEG"}})
    (tmp_path / "back.dcm").write_bytes(orthanc.ask(f"/instances/{seg}/file"))
    wanted[3, 5, 6:8] = True
    back = seg_reading.read_segmentation(tmp_path / "back.dcm", file_formats.read(mr[0].parent).geometry)
    np.testing.assert_array_equal(back.data[0], wanted)


def test_of_two_people_who_correct_at_once_the_second_is_told(read_node):
    job, ada, ben = address(read_node), page(read_node), page(read_node, "ben")
    for one in (ada, ben):
        assert one.post(f"{job}/draft", json={"stroke": "s", "label": 1, "runs": [[0, 3]]}).status_code == 200
    assert ada.put(f"{job}/correction", json={"revision": 0}).status_code == 200
    refused = ben.put(f"{job}/correction", json={"revision": 0})
    assert (refused.status_code, refused.json()["problem"]) == (
        412,
        "revision 1 stands, and this correction began from 0",
    )
    assert len(ben.get(f"{job}/draft").json()["strokes"]) == 1  # nothing is lost
    assert ben.put(f"{job}/correction", json={"revision": 1}).json()["revision"] == 2
    first, second = (
        read_node.settings.folder / "results" / row.correction for row in read_node.rows(tables.CORRECTIONS)
    )
    segs = [pydicom.dcmread(folder / "answer.dcm") for folder in (first, second)]
    assert [one.InstanceNumber for one in segs] == [1, 2]
    assert len({one.SeriesInstanceUID for one in segs}) == 1
    [document] = pydicom.dcmread(second / "answer_report.dcm").PredecessorDocumentsSequence
    named = document.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == pydicom.dcmread(first / "answer_report.dcm").SOPInstanceUID


ELSEWHERE = [
    ({"label": 1, "runs": [[3839, 2]]}, "outside the grid of 24 x 20 x 8 voxels"),
    ({"label": 1, "runs": [[-1, 2]]}, "outside the grid"),
    ({"label": 1, "runs": [[5, 0]]}, "outside the grid"),
    ({"label": 7, "runs": [[0, 1]]}, "the label map has no label 7"),
    ({"label": 1, "runs": []}, "the stroke is empty"),
    ({"box": {"corners": [0, 0, 0, 25, 2, 2], "label": "bright"}}, "the box lies outside the grid"),
    ({"box": {"corners": [0, 0, 5, 5], "label": "bright"}}, "a box of 4 corners"),
    ({"label": 1, "runs": [[0, 1]], "image": 1}, "the series has 1 images"),
]


def test_a_stroke_on_another_grid_is_refused(read_node):
    ada, job = page(read_node), address(read_node)
    for stroke, problem in ELSEWHERE:
        refused = ada.post(f"{job}/draft", json={"stroke": "s", **stroke})
        assert (refused.status_code, problem in refused.json()["problem"]) == (422, True), stroke
    assert ada.get(f"{job}/draft").json()["strokes"] == []
    nothing = ada.put(f"{job}/correction", json={"revision": 0})
    assert (nothing.status_code, nothing.json()["problem"]) == (409, "there is no unsaved stroke")


def test_a_role_that_may_not_correct_is_refused(read_node):
    job = address(read_node)
    for role in ("viewer", "service", ""):
        asked = page(read_node, role=role)
        for answer in (
            asked.post(f"{job}/draft", json={"stroke": "s", "label": 1, "runs": [[0, 1]]}),
            asked.put(f"{job}/correction", json={"revision": 0}),
            asked.post(f"{job}/feedback", json={"verdict": "accepted"}),
        ):
            assert answer.status_code == 403
    assert read_node.rows(tables.FEEDBACK) == read_node.rows(tables.CORRECTIONS) == []


def test_a_superseded_job_is_neither_corrected_nor_judged(read_node):
    ada, job = page(read_node), address(read_node)
    assert ada.post(f"{job}/draft", json={"stroke": "s", "label": 1, "runs": [[0, 1]]}).status_code == 200
    with read_node.database.write() as connection:
        connection.execute(update(tables.JOBS).values(state="superseded"))
    for answer in (
        ada.post(f"{job}/draft", json={"stroke": "t", "label": 1, "runs": [[0, 1]]}),
        ada.put(f"{job}/correction", json={"revision": 0}),
        ada.post(f"{job}/feedback", json={"verdict": "accepted"}),
    ):
        assert (answer.status_code, answer.json()["problem"]) == (409, "the job is superseded")
    assert read_node.rows(tables.CORRECTIONS) == []


def test_verdicts_are_kept_with_the_findings_before_and_after(read_node, mr):
    ada, job = page(read_node), address(read_node)
    assert ada.post(f"{job}/feedback", json={"verdict": "rejected"}).status_code == 422
    assert ada.post(f"{job}/feedback", json={"verdict": "rejected", "reason": "bored"}).status_code == 422
    assert ada.post(f"{job}/feedback", json={"verdict": "corrected"}).status_code == 409
    said = {"verdict": "rejected", "reason": "wrong outline", "text": " leaks ", "seconds": 12.5}
    assert ada.post(f"{job}/feedback", json=said).json() == {"verdict": "rejected", "revision": 0}
    assert ada.post(f"{job}/draft", json={"stroke": "s", "label": 1, "runs": [[0, 50]]}).status_code == 200
    assert ada.put(f"{job}/correction", json={"revision": 0}).status_code == 200
    assert ada.post(f"{job}/feedback", json={"verdict": "corrected"}).status_code == 200
    rejected, corrected = read_node.rows(tables.FEEDBACK)
    assert (rejected.account, rejected.reason, rejected.text, rejected.seconds) == (
        "ada",
        "wrong outline",
        "leaks",
        12.5,
    )
    assert rejected.before == rejected.after == corrected.before
    assert (rejected.correction, corrected.correction) == (None, read_node.rows(tables.CORRECTIONS)[0].correction)
    assert corrected.after[0]["value"] > corrected.before[0]["value"]
    [result] = ada.get(f"/api/studies/{object_identity.read_identity(mr[0]).study}/reading").json()["jobs"]
    assert (result["verdict"]["verdict"], result["verdict"]["account"]) == ("corrected", "ada")
    told = [row.action for row in read_node.rows(tables.AUDIT) if row.actor == "ada"]
    assert told == ["verdict", "correction", "verdict", "view"]


@pytest.mark.whole
def test_a_segmentation_of_another_product_is_corrected_and_judged_without_a_model(tmp_path):
    node = SmallNode(tmp_path / "node", page={"send": ["PACS"]}, peers=[PACS])
    files = sorted((real_data.SHIPPED / "dicom" / "series" / "ct_23x38x3_with_seg").glob("*.dcm"))
    other = real_data.SHIPPED / "dicom" / "files" / "dcmqi_seg_23x38x3.dcm"
    node.receive(*files, other)
    node.work()
    image, sent, ada = file_formats.read(files[0].parent), seg_reading.read_segmentation(other), page(node)
    study, series = object_identity.read_identity(files[0]).study, object_identity.read_identity(files[0]).series
    told = ada.get(f"/api/studies/{object_identity.read_identity(other).study}/reading").json()
    [result] = told["jobs"]
    assert (result["job"], result["rule"]) == (object_store.uid_key(object_identity.read_identity(other).instance), "")
    assert (result["segmentation_of_another"], result["series"], result["maps"]) == (True, [series], ["mask"])
    assert result["model"]
    on_image = seg_reading.read_segmentation(other, image.geometry)
    job, label = f"/api/jobs/{result['job']}", result["labels"][0]["label"]
    plane = ada.get(f"/api/series/{series}/grid").json()["planes"]["axial"]
    got = slice_of(ada, f"{job}/maps/mask/slices/axial/1")
    np.testing.assert_array_equal(got, voxels_of(on_image.data[0], plane, 1))
    assert ada.post(f"{job}/draft", json={"stroke": "s", "label": label, "runs": [[7, 5]]}).status_code == 200
    answer = ada.put(f"{job}/correction", json={"revision": 0}).json()
    assert (answer["revision"], answer["lacking"]) == (1, [])
    assert ada.post(f"{job}/feedback", json={"verdict": "accepted"}).status_code == 200
    [made], [said] = node.rows(tables.CORRECTIONS), node.rows(tables.FEEDBACK)
    wanted = on_image.data[0].copy()
    wanted.reshape(-1)[7:12] = label
    folder = node.settings.folder / "results" / made.correction
    again = seg_reading.read_segmentation(folder / "answer.dcm", image.geometry)
    values = {one.name: one.value for one in again.labels}
    for one in sent.labels:
        np.testing.assert_array_equal(again.data[0] == values[one.name], wanted == one.value)
    assert said.instance == object_identity.read_identity(other).instance
    report = pydicom.dcmread(folder / "answer_report.dcm")
    assert report.StudyInstanceUID == study
    named = str(report)
    assert object_identity.read_identity(other).instance in named
    assert {row.job for row in node.rows(tables.ANSWERS)} == {made.correction}
    node.store.close()
    node.database.close()


def test_what_people_said_is_a_data_set_that_check_and_train_read(read_node, mr, tmp_path):
    ada, job = page(read_node), address(read_node)
    assert ada.post(f"{job}/draft", json={"stroke": "s", "label": 1, "runs": [[0, 50]]}).status_code == 200
    assert ada.put(f"{job}/correction", json={"revision": 0}).status_code == 200
    with pytest.raises(UsageError, match="nobody has judged a result"):
        hilum.feedback(read_node.settings.folder, out=tmp_path / "none")
    assert ada.post(f"{job}/feedback", json={"verdict": "accepted"}).status_code == 200
    # A later correction that nobody has judged changes nothing of what was accepted.
    assert ada.post(f"{job}/draft", json={"stroke": "t", "label": 0, "runs": [[0, 9]]}).status_code == 200
    assert ada.put(f"{job}/correction", json={"revision": 1}).status_code == 200
    said = hilum.feedback(read_node.settings.folder, out=tmp_path / "said")
    assert (said.cases, said.left_out, list(said.table["verdict"])) == (1, {}, ["accepted"])
    checked = hilum.check(tmp_path / "said", out=tmp_path / "check")
    assert checked.dataset.classes["mask"][0].name == "bright"
    [case] = dataset_layouts.read_dataset(tmp_path / "said")
    wanted = np.ascontiguousarray(file_formats.read(mr[0].parent).data[0] > LEVEL)
    wanted.reshape(-1)[:50] = True
    np.testing.assert_array_equal(case.references["mask"].data[0], wanted)
    np.testing.assert_array_equal(next(iter(case.images.values())).data, file_formats.read(mr[0].parent).data)
    assert case.patient == read_node.rows(tables.STUDIES)[0].patient
    assert b"study" not in (tmp_path / "said" / "dataset.csv").read_bytes()
    with pytest.raises(UsageError, match="nobody has judged a result"):
        hilum.feedback(read_node.settings.folder, out=tmp_path / "late", since="2999-01-01")


@pytest.mark.whole
def test_of_several_views_only_the_one_that_was_marked_is_corrected(tmp_path):
    paths = views(tmp_path / "views", count=3)
    node = SmallNode(tmp_path / "node", threshold_model(tmp_path / "model", 2000, axes=2))
    describe(node)
    node.receive(*paths)
    node.work()
    ada, job = page(node), address(node)
    grids = [ada.get(f"/api/series/1.2.3/grid?image={number}").json() for number in range(3)]
    assert [grid["images"] for grid in grids] == [3, 3, 3]
    assert ada.get("/api/series/1.2.3/grid?image=3").status_code == 404
    shown = [slice_of(ada, f"/api/series/1.2.3/slices/picture/0?image={number}") for number in range(3)]
    masks = [slice_of(ada, f"{job}/maps/mask/slices/picture/0?image={number}") for number in range(3)]
    for pixels, mask in zip(shown, masks, strict=True):
        np.testing.assert_array_equal(mask, pixels > 2000)
    stroke = {"stroke": "s", "label": 1, "runs": [[0, masks[1].size]], "image": 1}
    assert ada.post(f"{job}/draft", json=stroke).status_code == 200
    made = ada.put(f"{job}/correction", json={"revision": 0}).json()
    assert made["lacking"] == []
    again = [slice_of(ada, f"{job}/maps/mask/slices/picture/0?image={number}") for number in range(3)]
    for number in (0, 2):
        np.testing.assert_array_equal(again[number], masks[number])
    assert again[1].min() == 1
    [correction] = node.rows(tables.CORRECTIONS)
    sizes = {row["instance"] for row in correction.findings}
    assert len(sizes) == 3  # those of the other views stay
    [seg] = (node.settings.folder / "results" / correction.correction).glob("answer_?.dcm")
    [series] = pydicom.dcmread(seg).ReferencedSeriesSequence
    [image] = series.ReferencedInstanceSequence
    marked = [one for one in paths if pydicom.dcmread(one).SOPInstanceUID == image.ReferencedSOPInstanceUID]
    np.testing.assert_array_equal(file_formats.read(marked[0]).data[0], shown[1])
    node.store.close()
    node.database.close()


def test_nothing_more_is_sent_of_a_correction_whose_images_are_rejected(read_node, mr, tmp_path):
    ada, job = page(read_node), address(read_node)
    assert ada.post(f"{job}/draft", json={"stroke": "s", "label": 1, "runs": [[0, 3]]}).status_code == 200
    assert ada.put(f"{job}/correction", json={"revision": 0}).status_code == 200
    last = pydicom.dcmread(mr[-1])
    (tmp_path / "note.dcm").write_bytes(encoded(note("1.7.1", last, "113001", last.SOPInstanceUID)))
    read_node.receive(tmp_path / "note.dcm")
    read_node.work()
    assert {row.state for row in read_node.rows(tables.DELIVERIES)} == {"aside"}
    assert "rejected" in read_node.rows(tables.DELIVERIES)[0].reason


def test_an_accepted_class_is_the_label_of_its_case(tmp_path, mr):
    node = SmallNode(tmp_path / "node", class_model(tmp_path / "model"))
    describe(node)
    node.receive(*mr)
    node.work()
    ada, job = page(node), address(node)
    refused = ada.post(f"{job}/draft", json={"stroke": "s", "label": 1, "runs": [[0, 3]]})
    assert (refused.status_code, refused.json()["problem"]) == (409, "the result has no mask")
    assert ada.post(f"{job}/feedback", json={"verdict": "accepted"}).status_code == 200
    said = hilum.feedback(tmp_path / "node", out=tmp_path / "said", rule="classes.onnx")
    assert said.as_record()["verdicts"] == {"accepted": 1}
    [case] = dataset_layouts.read_dataset(tmp_path / "said")
    assert case.references["class"] == "odd"
    with pytest.raises(UsageError, match="nobody has judged a result of 'other'"):
        hilum.feedback(tmp_path / "node", out=tmp_path / "none", rule="other")
    node.store.close()
    node.database.close()


def test_boxes_are_added_changed_and_removed_and_lose_what_the_model_said_of_them():
    rows = [
        {"concept": "nodule", "value": [0, 0, 2, 2], "unit": "voxels", "probability": 0.9, "box": 0},
        {"concept": "nodule", "value": [5, 5, 8, 8], "unit": "voxels", "probability": 0.7, "box": 1},
        {"concept": "age", "value": 60, "unit": "years"},
    ]
    strokes = [
        Stroke("a", box={"corners": [1, 1, 3, 3], "label": "nodule", "box": 0}),
        Stroke("b", box={"corners": [], "label": None, "box": 1}),
        Stroke("c", box={"corners": [4, 4, 6, 6], "label": "mass", "box": None}),
    ]
    assert correcting.apply_box_strokes(rows, strokes) == [
        rows[2],
        {"concept": "nodule", "value": [1, 1, 3, 3], "unit": "voxels", "box": 0},
        {"concept": "mass", "value": [4, 4, 6, 6], "unit": "voxels", "box": 1},
    ]


@pytest.mark.whole
def test_an_earlier_study_of_the_patient_stands_beside_the_one_that_is_read(read_node, mr, tmp_path):
    image = file_formats.read(mr[0].parent)
    series_writing.write_series(image, SeriesNames("p", "later", "series"), tmp_path / "later")
    series_writing.write_series(image, SeriesNames("q", "other", "series"), tmp_path / "other")
    later = sorted((tmp_path / "later").iterdir())
    read_node.receive(*later, *sorted((tmp_path / "other").iterdir()))
    read_node.work()
    ada, first, second = (
        page(read_node),
        object_identity.read_identity(mr[0]).study,
        object_identity.read_identity(later[0]).study,
    )
    told = ada.get(f"/api/studies/{second}/reading").json()
    assert told["earlier"] == [{"study": first, "date": "", "description": "study"}]
    assert ada.get(f"/api/studies/{first}/reading").json()["earlier"] == []
