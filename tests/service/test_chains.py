"""Rules that wait for the answer of another rule, and look within it or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom

import isocenter
from isocenter.files import DatasetOptions, read_dataset
from isocenter.files.dicom import SeriesNames, write_series
from isocenter.service.records.tables import jobs, series
from isocenter.values import Geometry, Image
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model


def test_a_rule_within_another_answer_marks_nothing_outside_its_box(tmp_path, mr):
    """The ball is bright in the middle; the second threshold holds at the far end of the first axis too."""
    high, low = (threshold_model(tmp_path, level, name=name) for name, level in (("high", LEVEL), ("low", 20.5)))
    chained = [
        {"name": "ball", "model": "high.onnx"},
        {"name": "all", "model": "low.onnx"},
        {"name": "within", "model": "low.onnx", "inside": {"rule": "ball", "label": "bright", "margin_mm": 1}},
    ]
    node = SmallNode(tmp_path / "node", high, low, rules=chained)
    node.receive(*mr)
    node.work()
    found = {}
    for job in node.rows(jobs):
        answer = isocenter.read(node.settings.folder / "results" / job.job / "answer.nii.gz")
        found[job.rule] = np.asarray(answer.data)[0] > 0
    node.store.close()
    node.database.close()
    places = np.argwhere(found["ball"])
    outside = np.ones_like(found["ball"])
    outside[tuple(slice(low - 1, high + 2) for low, high in zip(places.min(0), places.max(0), strict=True))] = False
    assert (found["all"] & outside).any()
    assert not (found["within"] & outside).any()
    np.testing.assert_array_equal(found["within"], found["all"] & ~outside)


def test_a_rule_within_the_answer_on_another_series_looks_where_that_lies_in_the_patient(tmp_path, mr):
    """The second series has voxels half as long along its first axis, and begins elsewhere."""
    high, low = (threshold_model(tmp_path, level, name=name) for name, level in (("high", LEVEL), ("low", 20.5)))
    chained = [
        {"name": "ball", "model": "high.onnx", "when": {"SeriesDescription": "series"}},
        {
            "name": "within",
            "model": "low.onnx",
            "when": {"SeriesDescription": "~fine|elsewhere"},
            "inside": {"rule": "ball", "label": "bright"},
        },
    ]
    node = SmallNode(tmp_path / "node", high, low, rules=chained)
    node.receive(*mr)
    [first] = read_dataset(mr[0].parent, DatasetOptions(references=False, channels=1))
    [coarse] = first.images.values()
    affine = coarse.geometry.affine @ np.diag([0.5, 1, 1, 1])
    affine[:3, 3] = coarse.geometry.to_world(np.array([3.75, 2, 1]))
    bright = Image(np.full((1, 40, 18, 7), 90, np.int16), Geometry((40, 18, 7), affine), modality="MR")
    uids = {"StudyInstanceUID": pydicom.dcmread(mr[0]).StudyInstanceUID}
    for name, frame in (("fine", pydicom.dcmread(mr[0]).FrameOfReferenceUID), ("elsewhere", "1.2.3")):
        for path in _in_study(bright, name, tmp_path / name, {**uids, "FrameOfReferenceUID": frame}):
            node.receive(path)
    node.work()
    by_series = {row.series: row.attributes["SeriesDescription"] for row in node.rows(series)}
    found = {by_series[row.inputs["series"]["image"]]: row for row in node.rows(jobs)}
    assert (found["elsewhere"].outcome, "another frame of reference" in found["elsewhere"].reason) == ("refused", True)
    ball, fine = (
        isocenter.read(node.settings.folder / "results" / found[name].job / "answer.nii.gz")
        for name in ("series", "fine")
    )
    node.store.close()
    node.database.close()
    places = np.argwhere(np.asarray(ball.data)[0] > 0)
    ends = [ball.geometry.to_world(end) for end in (places.min(0) - 0.5, places.max(0) + 0.5)]
    low_corner, high_corner = sorted(fine.geometry.to_index(np.array(ends)).tolist())
    marked = np.argwhere(np.asarray(fine.data)[0] > 0)
    np.testing.assert_allclose(marked.min(0) - 0.5, low_corner, atol=1e-3)
    np.testing.assert_allclose(marked.max(0) + 0.5, high_corner, atol=1e-3)


def _in_study(image: Image, name: str, folder: Path, uids: dict[str, str]) -> list[Path]:
    """A series that belongs to a study that is there."""
    write_series(image, SeriesNames("p", "study", name), folder)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        for keyword, uid in uids.items():
            setattr(dataset, keyword, uid)
        dataset.save_as(path)
    return sorted(folder.iterdir())
