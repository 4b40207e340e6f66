"""Series of several radiographs: each view has its own answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pydicom
import pytest

import hilum
from dicom_objects import picture
from hilum.service.records import tables
from service.objects_sent import encoded, simulated
from service.small_node import SmallNode
from service.thresholds import threshold_model


@pytest.fixture
def node(small_node):
    return small_node


def views(folder: Path, count: int = 4, modality: str = "MG", **tags) -> list[Path]:
    """Radiographs of one series, some larger than others."""
    sop_class = {"MG": "1.2.840.10008.5.1.4.1.1.1.2", "CT": "1.2.840.10008.5.1.4.1.1.2"}[modality]
    folder.mkdir()
    for number in range(1, count + 1):
        stated = {"Modality": modality, "SOPClassUID": sop_class, "InstanceNumber": number, **tags}
        view = simulated(f"1.2.3.{number}", side=8 + 4 * (number > 2), **stated)
        (folder / f"{number}.dcm").write_bytes(encoded(view))
    return sorted(folder.iterdir())


def test_each_view_of_a_series_of_radiographs_has_its_own_result_as_by_the_command(tmp_path):
    paths = views(tmp_path / "views")
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 11112}
    model = threshold_model(tmp_path / "model", 2000, axes=2)
    node = SmallNode(
        tmp_path / "node", model, peers=[pacs], rules=[{"name": "r", "model": "threshold.onnx", "send": ["pacs"]}]
    )
    node.receive(*paths)
    node.work()
    [row], made = node.rows(tables.JOBS), node.rows(tables.ANSWERS)
    assert (row.state, row.outcome) == ("sending", "answered"), row.reason
    segmentations = sorted(one.name for one in made if one.kind == "seg")
    assert segmentations == [f"answer_{number}.dcm" for number in range(1, 5)]
    reports = [f"answer_{number}_report.dcm" for number in range(1, 5)]
    assert sorted(one.name for one in node.rows(tables.DELIVERIES)) == sorted([*segmentations, *reports])
    hilum.predict(model, tmp_path / "views", out=tmp_path / "out")
    theirs = sorted(path for path in (tmp_path / "out").rglob("*.dcm") if "_report" not in path.name)
    for number, (path, their) in enumerate(zip(segmentations, theirs, strict=True), start=1):
        our = pydicom.dcmread(node.result(path))
        assert our.PixelData == pydicom.dcmread(their).PixelData
        [series] = our.ReferencedSeriesSequence
        assert [one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence] == [f"1.2.3.{number}"]
    rows = json.loads(node.result("findings.json").read_text())["rows"]
    assert [*dict.fromkeys(one["instance"] for one in rows)] == [f"1.2.3.{number}" for number in range(1, 5)]
    assert len({one.sop_instance_uid for one in made if one.kind == "seg"}) == 4
    node.store.close()
    node.database.close()


def test_nothing_is_given_out_of_a_part_of_a_series_of_radiographs(node, tmp_path):
    paths = views(tmp_path / "views")
    cut = pydicom.dcmread(paths[2])
    cut.PixelData = cut.PixelData[:40]
    cut.save_as(paths[2])
    node.receive(*paths)
    node.work()
    assert node.rows(tables.JOBS) == [] and node.rows(tables.ANSWERS) == []
    assert [row.outcome for row in node.rows(tables.STUDIES)] == ["refused"]


def test_of_several_views_the_gate_withholds_only_those_that_it_does_not_know(tmp_path, gated):
    usual = np.asarray(PIL.Image.open(gated.data / "bright" / "00.png"))
    for number, pixels in enumerate((usual, np.full((24, 24), 4000, np.uint16)), start=1):
        tags = {"Modality": "DX", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1", "InstanceNumber": number}
        uids = {"SOPInstanceUID": f"1.2.3.{number}", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}
        (tmp_path / f"{number}.dcm").write_bytes(encoded(picture(pixels.astype(np.uint16), **tags, **uids)))
    node = SmallNode(tmp_path / "node", gated.out)
    node.receive(*sorted(tmp_path.glob("*.dcm")))
    node.work()
    [row], table = node.rows(tables.JOBS), pd.read_csv(node.result("predictions.csv"))
    assert row.outcome == "answered" and row.reason.startswith("image 2 of 2: "), row.reason
    assert table["abstained"].isna().tolist() == [True, False]
    assert {one.row["instance"] for one in node.rows(tables.FINDING_ROWS)} == {"1.2.3.1"}
    node.store.close()
    node.database.close()


def test_images_of_one_series_that_are_no_radiographs_are_not_a_case_each(node, tmp_path):
    node.receive(*views(tmp_path / "views", modality="CT"))
    node.work()
    assert node.rows(tables.JOBS) == []
