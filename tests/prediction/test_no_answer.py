"""Images and outputs that have no answer: one value everywhere, and outputs that are not finite numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hilum
from hilum.errors import DatasetError
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.runtime.preprocessing import preprocessing
from hilum.service.records import tables
from hilum.values import Geometry, Image
from service.small_node import SmallNode
from situations import noisy_picture, write_picture
from small_onnx import network

# Above 140 the root of what is below 0: NaN.
ROOT = [("Sub", "c x", "d"), ("Sqrt", "d", "r"), ("Sub", "r h", "o")]
WEIGHTS = {"c": 140.0, "h": 3.0}


def volume(*values: float, size: int = 6) -> Image:
    """Planes of these values, one after the other."""
    data = np.zeros((1, size, size, size), np.float32)
    for plane in range(size):
        data[0, :, :, plane] = values[plane % len(values)]
    return Image(data, Geometry.of_spacing((size, size, size), (1, 1, 1)), modality="CT")


def saved(folder: Path, **images: Image) -> list[Path]:
    for name, image in images.items():
        hilum.write(image, folder / f"{name}.nii.gz")
    return [folder / f"{name}.nii.gz" for name in images]


def test_a_case_whose_outputs_are_not_finite_fails_and_the_others_go_on(tmp_path, cli):
    model = network(tmp_path, ROOT, WEIGHTS)
    good, bad, last = saved(tmp_path, good=volume(100, 139), bad=volume(100, 200), last=volume(139, 100))
    done = cli("predict", model, good, bad, last, "--out", tmp_path / "out")
    assert done.code == 1
    assert "bad.nii.gz: the network's outputs are not finite numbers" in done.out + done.err
    assert done.out.startswith("3 images: 2 answered, 1 failed: the network's outputs are not finite numbers")
    outcomes = json.loads((tmp_path / "out" / "summary.json").read_text())["outcomes"]
    assert {one["case"]: one["outcome"] for one in outcomes} == {
        "good": "answered",
        "bad": "failed",
        "last": "answered",
    }
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {"good.nii.gz", "last.nii.gz"}


def test_so_it_is_in_a_volume_that_is_never_held(tmp_path, monkeypatch):
    monkeypatch.setattr(preprocessing, "STREAMED_BYTES", 0)
    model = network(tmp_path, ROOT, WEIGHTS)
    good, bad = saved(tmp_path, good=volume(100, 139), bad=volume(100, 200))
    result = hilum.predict(model, [good, bad], out=tmp_path / "out", save_probabilities=True)
    assert ["not finite" in problem.what for problem in result.failures] == [True]
    assert not list((tmp_path / "out").glob("bad*")) and (tmp_path / "out" / "good.nii.gz").is_file()


def test_a_network_of_classes_that_answers_no_numbers_has_no_answer(tmp_path):
    steps = [("ReduceMean", "x", "m", {"axes": [2, 3], "keepdims": 0}), ("Gemm", "m w b", "y")]
    weights = {"w": np.array([[-2.0, 2.0]]), "b": np.array([1.0, -1.0]), "c": 100.0}
    described = {"channels": ["OP"], "patch": [32, 32], "normalisation": [{"method": "range", "low": 0, "high": 255}]}
    below_zero = [("Sub", "y c", "z"), ("Log", "z", "o")]
    model = network(
        tmp_path, [*steps, *below_zero], weights, labels=["benign", "malignant"], outputs="classes", **described
    )
    image = noisy_picture(0)[0][8:40, 8:40]
    write_picture(tmp_path / "bright.png", image)
    with pytest.raises(DatasetError, match=r"bright.png: the network's outputs are not finite numbers .*NaN"):
        hilum.predict(model, tmp_path / "bright.png")


def test_a_network_of_voxels_that_answers_no_numbers_has_no_answer(tmp_path):
    weights = {"w": np.reshape([-1.0, 1.0], (2, 1, 1, 1, 1)), "b": np.reshape([140.0, -140.0], (2, 1, 1, 1))}
    steps = [("Conv", "x w", "c"), ("Add", "c b", "y"), ("Log", "y", "o")]
    model = network(tmp_path, steps, weights, labels={"background": 0, "bright": 1}, outputs="classes")
    [scan] = saved(tmp_path, scan=volume(100, 200))
    with pytest.raises(DatasetError, match=r"scan.nii.gz: the network's outputs are not finite numbers .*NaN"):
        hilum.predict(model, scan)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_image_of_one_value_has_no_result_of_a_model_without_a_gate(tmp_path, monkeypatch, streamed):
    if streamed:
        monkeypatch.setattr(preprocessing, "STREAMED_BYTES", 0)
    model = network(tmp_path, [("Sub", "x h", "o")], WEIGHTS)
    data = np.full((1, 6, 6, 6), 50, np.float32)
    data[0, 1, 1, 1] = 51
    files = saved(tmp_path, blank=volume(50), spot=volume(50).with_pixels(data))
    rows = hilum.predict(model, [*files], out=tmp_path / "out").table.set_index("case")
    assert rows.loc["blank", "abstained"] == "it is one value everywhere once it is normalised"
    assert np.isnan(rows.loc["blank", "bright_ml"]) and rows.loc["spot", "bright_ml"] == pytest.approx(0.216)
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {"spot.nii.gz"}


def test_it_has_one_with_the_reason_where_a_person_wants_it(tmp_path):
    model = network(tmp_path, [("Sub", "x h", "o")], WEIGHTS)
    [blank] = saved(tmp_path, blank=volume(50))
    for abstain, refused in (("mark", "it is one value everywhere once it is normalised"), ("off", None)):
        result = hilum.predict(model, blank, abstain=abstain)
        assert result.table["bright_ml"].item() == pytest.approx(0.216)
        assert result.table.get("abstained", np.array([None])).tolist() == [refused]
        assert ["one value everywhere" in problem.what for problem in result.problems] == [True]


@pytest.mark.parametrize(
    ("values", "outcome", "reason"),
    [
        ((100, 200), "failed", "the network's outputs are not finite numbers"),
        ((50,), "abstained", "it is one value everywhere"),
    ],
)
def test_a_job_of_a_node_states_why_it_has_no_answer(tmp_path, values, outcome, reason):
    node = SmallNode(tmp_path / "node", network(tmp_path / "model", ROOT, WEIGHTS))
    image = volume(*values)
    image = replace(image.with_pixels(image.data.astype(np.int16)), geometry=Geometry((6, 6, 6), np.eye(4)))
    series_writing.write_series(image, SeriesNames("patient", "study", "series"), tmp_path / "series")
    node.receive(*sorted((tmp_path / "series").iterdir()))
    node.work()
    [job], [study] = node.rows(tables.JOBS), node.rows(tables.STUDIES)
    node.store.close()
    node.database.close()
    assert (job.state, job.outcome, study.outcome) == ("done", outcome, outcome)
    assert job.reason.startswith(reason) and job.attempts == 1
