"""Rejection notes: what a key object selection takes back is in no job any more."""

from __future__ import annotations

import pydicom
import pytest

from hilum.service.records import tables
from hilum.service.records.study_index import StudyIndex
from service.objects_sent import encoded, note


@pytest.mark.filterwarnings("ignore:The value length")
def test_a_rejected_image_is_in_no_job_and_a_job_that_has_seen_it_says_so_at_once(small_node, mr, tmp_path, caplog):
    node = small_node
    caplog.set_level("INFO", "hilum")
    last = pydicom.dcmread(mr[-1])

    def sent(instance: str, code: str, *rejected: str) -> None:
        (tmp_path / "note.dcm").write_bytes(encoded(note(instance, last, code, *rejected)))
        node.receive(tmp_path / "note.dcm")
        node.keeper.absorb()

    node.receive(*mr)
    node.work()
    sent("1.7.1", "113000", last.SOPInstanceUID)  # of interest
    assert [row.state for row in node.rows(tables.JOBS)] == ["done"]
    sent("1.7.2", "113001", last.SOPInstanceUID, "1." + "2" * 70)  # the second is no UID
    assert [(row.state, row.reason) for row in node.rows(tables.JOBS)] == [
        ("superseded", "images of it were rejected: Rejected for Quality Reasons (113001, DCM)")
    ]
    assert "a note rejects 1 objects: Rejected for Quality Reasons" in caplog.text
    node.work()
    assert sorted((row.state, row.outcome) for row in node.rows(tables.JOBS)) == [
        ("done", "answered"),
        ("superseded", "answered"),
    ]
    [shape] = [
        row.shape
        for row in StudyIndex(node.database).series_of(node.rows(tables.JOBS)[0].study)
        if row.modality == "MR"
    ]
    assert shape == [24, 20, 7]
    sent("1.7.3", "113039", *(pydicom.dcmread(path).SOPInstanceUID for path in mr))
    node.work()
    assert [row.state for row in node.rows(tables.JOBS)] == ["superseded"] * 2
    [study] = node.rows(tables.STUDIES)
    assert (study.state, study.outcome) == ("done", "refused")
    assert not StudyIndex(node.database).lift(study.study)

    node.receive(*mr)  # once more, by somebody who does not know of the note
    node.work()
    [study] = node.rows(tables.STUDIES)
    assert (study.state, study.outcome, study.revision) == ("aside", "refused", study.routed)
    assert "a note rejects, and the note stands (" in study.reason and "an administrator lifts it" in study.reason
    assert "Data Retention Policy Expired (113039, DCM)" in study.reason
    assert StudyIndex(node.database).reroute(study.study)
    node.work()
    assert [row.state for row in node.rows(tables.STUDIES)] == ["done"]  # somebody has seen it, and the note stands

    node.receive(*mr)
    node.work()
    assert StudyIndex(node.database).lift(study.study)
    node.work()
    assert [(row.state, row.outcome) for row in node.rows(tables.STUDIES)] == [("done", "answered")]
    assert "done" in [row.state for row in node.rows(tables.JOBS)]
