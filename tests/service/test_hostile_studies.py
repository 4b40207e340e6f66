"""Studies that are meant to harm, or damaged: each costs its own answer, and no other study's."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from hilum.errors import FormatError
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.service.records import tables
from hilum.service.routing import routing_facts
from hilum.values import Geometry, Image
from matrices import thinned
from service.databases import empty
from service.objects_sent import encoded, simulated
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model


@pytest.fixture
def node(small_node):
    return small_node


def test_rows_that_no_table_holds_cost_their_own_study_and_no_other(node, mr, tmp_path, monkeypatch, caplog):
    read = routing_facts.read_series_facts
    series_writing.write_series(
        Image(np.ones((1, 4, 4, 2), np.int16), Geometry((4, 4, 2), np.diag([-1.0, -1, 1, 1])), modality="MR"),
        SeriesNames("Doe", "another", "odd"),
        tmp_path / "odd",
    )

    def facts(series_key, uid, folder):
        known = read(series_key, uid, folder)
        return replace(known, frames=10**20) if known.attributes["SeriesDescription"] == "odd" else known

    monkeypatch.setattr(routing_facts, "read_series_facts", facts)
    node.receive(*sorted((tmp_path / "odd").iterdir()), *mr)
    node.work()
    found = {row.outcome: row for row in node.rows(tables.STUDIES)}
    assert {outcome: row.state for outcome, row in found.items()} == {"answered": "done", "refused": "done"}
    assert [row.problem for row in node.rows(tables.SERIES_ROWS) if row.problem] == [
        "the database cannot hold what it is given: Python int too large to convert to SQLite INTEGER"
    ]
    assert "cannot hold what it is given" in caplog.text and "Doe" not in caplog.text


def test_a_series_with_images_of_two_patients_is_refused_for_that_reason(node, mr, caplog):
    for path in mr[4:]:
        header = pydicom.dcmread(path)
        header.PatientID = "another-17"
        header.save_as(path)
    node.receive(*mr)
    node.work()
    [row] = node.rows(tables.STUDIES)
    assert (row.state, row.outcome) == ("done", "refused")
    assert [one.problem for one in node.rows(tables.SERIES_ROWS)] == ["the series holds images of 2 patients"]
    assert "another-17" not in caplog.text


def test_a_study_whose_first_series_is_damaged_is_known_by_its_others(node, tmp_path):
    """Else no search for the patient finds it."""
    file = encoded(simulated("1.2.1.1", series="1.2.1"))
    (tmp_path / "damaged.dcm").write_bytes(file[: file.index(b"\x20\x00\x0e\x00") + 8 + len("1.2.1 ") + 5])
    (tmp_path / "whole.dcm").write_bytes(encoded(simulated()))
    node.receive(tmp_path / "damaged.dcm", tmp_path / "whole.dcm")
    node.keeper.round()
    node.keeper.round()
    [row] = node.rows(tables.STUDIES)
    assert (row.state, row.attributes["PatientID"]) == ("complete", "secret-17")


def test_an_object_that_has_no_row_keeps_no_other_out(node, mr, monkeypatch):
    arrival = node.keeper._arrival
    monkeypatch.setattr(
        node.keeper, "_arrival", lambda one: replace(arrival(one), bytes=10**20 if "7" in one.path[-8:] else one.bytes)
    )
    node.receive(*mr)
    odd = sum("7" in path.name[-8:] for path in node.settings.folder.glob("studies/*/*/*/*.dcm"))
    assert node.keeper.absorb() == len(mr) - odd
    assert 0 < odd < len(mr)


def test_a_header_that_inflates_beyond_measure_takes_no_memory_and_is_refused(node, tmp_path):
    """Its UIDs come first, so that it is kept; an answer would need all of it."""
    bomb = simulated()
    bomb.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    bomb.add_new(0x00204000, "LT", "x" * 60_000_000)
    (tmp_path / "bomb.dcm").write_bytes(encoded(bomb))
    del bomb
    node.receive(tmp_path / "bomb.dcm")
    tracemalloc.start()
    try:
        node.work()
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    [row] = node.rows(tables.SERIES_ROWS)
    assert "inflates to more than" in row.problem
    [row] = node.rows(tables.STUDIES)
    assert (row.state, row.outcome) == ("done", "refused")


@pytest.mark.parametrize("kind", thinned(1, ["sqlite", "postgresql"]))
def test_a_header_with_values_that_no_table_holds_keeps_no_study_from_its_answer(tmp_path, mr, kind, request):
    url = "sqlite" if kind == "sqlite" else request.getfixturevalue("postgresql")
    node = SmallNode(tmp_path / "node", threshold_model(tmp_path / "model", LEVEL), database={"url": url})
    request.addfinalizer(node.store.close)
    request.addfinalizer(node.database.close)
    odd = tmp_path / "odd"
    odd.mkdir()
    for path in mr:
        dataset = pydicom.dcmread(path)
        dataset.add_new("StudyInstanceUID", "UI", "1.2.99")
        dataset.add_new("SOPInstanceUID", "UI", f"{dataset.SOPInstanceUID[:60]}.9")
        dataset.add_new("Modality", "CS", "MR AND WHATEVER ELSE\0 IS IN IT")
        dataset.add_new("MagneticFieldStrength", "DS", ["1.5", "3"])
        dataset.add_new("NumberOfFrames", "IS", "99999999999")
        dataset.add_new("Manufacturer", "LO", "a\0b")
        dataset.add_new("DiffusionBValue", "FD", float("nan"))
        dataset.save_as(odd / path.name)
    node.receive(*odd.iterdir(), *mr)
    node.work()
    found, stated = node.rows(tables.STUDIES), [row.attributes for row in node.rows(tables.SERIES_ROWS)]
    empty(node.database)
    assert [row.state for row in found] == ["done", "done"]
    assert json.dumps(stated, allow_nan=False)


def test_text_of_a_header_that_is_meant_to_harm_costs_its_own_study_at_most(node, mr, tmp_path, caplog):
    kinds = {
        "1.2.91": {"SeriesDescription": "<script>alert(1)</script>", "PatientName": "Doe^" + "Jane " * 13_000},
        "1.2.92": {"SeriesDescription": "T1\x1b[2J", "StationName": "=HYPERLINK(1)"},
        "1.2.93": {"PixelSpacing": "1+1\\__import__('os')"},
        "1.2.94": {"SeriesInstanceUID": "../../evil"},
    }
    for study, tags in kinds.items():
        (tmp_path / study).mkdir()
        for n, path in enumerate(mr):
            dataset = pydicom.dcmread(path)
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.1"
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.1.{n}"
            for keyword, value in tags.items():
                tag, raw = pydicom.tag.Tag(keyword), value.encode()[:65534]
                raw += b" " * (len(raw) % 2)
                vr = pydicom.datadict.dictionary_VR(tag)
                dataset._dict[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(raw), raw, 0, False, True)
            dataset.save_as(tmp_path / study / path.name)
    for study in kinds:
        if study == "1.2.94":
            with pytest.raises(FormatError, match="no UID"):
                node.receive(*sorted((tmp_path / study).iterdir()))
        else:
            node.receive(*sorted((tmp_path / study).iterdir()))
    node.receive(*mr)
    node.work()
    outcomes = sorted(row.outcome for row in node.rows(tables.STUDIES))
    assert outcomes == ["answered", "answered", "answered", "refused"]
    [problem] = [row.problem for row in node.rows(tables.SERIES_ROWS) if row.problem]
    assert "PixelSpacing (0028,0030): the value is not a number" in problem and "__import__" not in problem
    assert "\x1b" not in caplog.text and "Jane" not in caplog.text
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]
