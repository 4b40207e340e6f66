"""Series, clips and cines all the way: read, planned, trained, scored, predicted, packaged. All data are simulated."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

import hilum
import simulated_in_time
from packages import no_export

FEW = {"training.steps": 4, "training.validations": 1, "training.batch": 2}
FLAGS = {"device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    root = tmp_path_factory.mktemp("in_time")
    yield root


def test_a_series_is_marked_sample_by_sample_and_its_package_says_the_same(room):
    data = simulated_in_time.electrocardiograms(room / "series")
    found = hilum.check(data, threads=1)
    assert found.passed
    assert found.facts["spacing"] == "median 0.005 s"
    size = {"width": 4, "widest": 8, "strides": [[1], [2]]}
    run = hilum.train(data, out=room / "series_run", assignments={**FEW, "network.size": size}, **FLAGS)
    plan = hilum.plan(data, **FLAGS).plan
    assert (plan["preprocessing.ndim"], plan["preprocessing.unit"], plan["augmentation.flips"]) == (1, "s", [])
    units = {row.metric: row.estimate.unit for row in run.rows}
    assert units["hd95_s"] == "s"
    image = data / "images" / "patient01.csv"
    hilum.predict(str(run.out), str(image), out=room / "series_found", device="cpu", overlay=True)
    marked = hilum.read(room / "series_found" / "patient01.csv")
    assert marked.geometry.equals(hilum.read(image).geometry, 1e-4)
    measured = pd.read_csv(room / "series_found" / "measurements.csv")
    assert measured["length_s"][0] == pytest.approx(measured["voxels"][0] * simulated_in_time.STEP)
    with no_export():
        hilum.package(run.out, out=room / "series_packaged", backends=())
    packaged = hilum.load(room / "series_packaged", "cpu").predict(str(image))
    assert_array_equal(packaged.data, marked.data[0])
    assert (room / "series_packaged" / "scripts" / "formats.py").is_file()


@pytest.mark.whole
def test_a_clip_has_one_answer_whatever_its_length(room):
    data = simulated_in_time.clips(room / "clips")
    size = {"width": 4, "blocks": [1, 1], "stem_stride": 1, "frames": 8}
    run = hilum.train(data, out=room / "clips_run", assignments={**FEW, "network.size": size}, **FLAGS)
    plan = hilum.plan(data, **FLAGS).plan
    assert (plan["preprocessing.frames"], plan["network.name"], plan["network.size"]["frames"]) == (8, "clip_resnet", 8)
    assert "9 to 12 frames" in plan.decision("preprocessing.frames").because
    model = hilum.load(run.out, "cpu")
    image = hilum.read(data / "weak" / "patient00.nii.gz")
    assert sum(model.predict(image).probabilities.values()) == pytest.approx(1)
    with pytest.raises(hilum.errors.GeometryError, match="no frames"):
        model.predict(image.frame(0))
    hilum.package(run.out, out=room / "clips_packaged", backends=())
    packaged = hilum.load(room / "clips_packaged", "cpu")
    assert packaged.predict(image).probabilities == pytest.approx(model.predict(image).probabilities)
    described = json.loads((room / "clips_packaged" / "configs" / "metadata.json").read_text())
    assert len(described["network_data_format"]["inputs"]["image"]["channel_def"]) == 8
    assert json.loads((room / "clips_packaged" / "hilum" / "model.json").read_text())["onnx"]["exported"]


@pytest.mark.whole
def test_clips_of_unequal_length_are_learnt_together_and_each_is_predicted_as_long_as_it_is(room):
    data = simulated_in_time.clips(room / "unequal", longest=9)
    size = {"width": 4, "blocks": [1, 1], "stem_stride": 2, "hidden": 8}
    more = {"network.name": "clip_gru", "network.size": size, "preprocessing.frames": 8, "preprocessing.interval": 0.05}
    run = hilum.train(data, out=room / "unequal_run", assignments={**FEW, **more}, **FLAGS)
    model, path = hilum.load(run.out, "cpu"), data / "strong" / "patient01.nii.gz"
    image = hilum.read(path)
    seen, _ = model.preprocessing(image, "x")
    gone = np.isnan(seen).all(axis=(1, 2))
    assert 0 < gone.sum() < 8
    assert np.isfinite(seen[~gone]).all()
    frames = image.data
    for count in (2, frames.shape[1]):  # as short as can be, and as it is
        part = replace(image, pixels=frames[:, :count], times=image.times[:count])
        assert sum(model.predict(part).probabilities.values()) == pytest.approx(1)
    twice = replace(
        image, pixels=np.concatenate([frames] * 3, axis=1), times=tuple(0.04 * n for n in range(frames.shape[1] * 3))
    )
    for refused, says in (
        (image.frame(0), "no frames"),
        (replace(image, pixels=frames[:, :1], times=(0.0,)), "has 1 frame"),
        (replace(image, times=None), "does not state the times"),
        (twice, "8 times at most"),
    ):
        with pytest.raises(hilum.errors.GeometryError, match=says):
            model.predict(refused)


@pytest.mark.whole
def test_masks_of_every_frame_come_back_with_their_times_and_the_change_over_the_beat(room):
    data = simulated_in_time.cines(room / "cine")
    size = {"width": 4, "widest": 8, "strides": [[1, 1], [2, 2]]}
    run = hilum.train(data, out=room / "cine_run", assignments={**FEW, "network.size": size}, **FLAGS)
    split = pd.read_csv(run.out / "split.csv")
    assert len(split) == 4 * 4 + 4 * 5
    assert (split.groupby("patient")["split"].nunique() == 1).all()
    image = data / "images" / "patient01.nii.gz"
    hilum.predict(str(run.out), str(image), out=room / "cine_found", device="cpu", overlay=True)
    written = nibabel.load(room / "cine_found" / "patient01.nii.gz")
    assert written.shape == (16, 16, 1, 5)
    assert written.header.get_zooms()[3] == pytest.approx(simulated_in_time.FRAME)
    table = pd.read_csv(room / "cine_found" / "predictions.csv")
    assert table["frame"].tolist() == [0, 1, 2, 3, 4]
    measured = pd.read_csv(room / "cine_found" / "measurements.csv")
    volumes = measured[measured["frame"] != "all"]["volume_ml"]
    [whole] = measured[measured["frame"] == "all"].to_dict("records")
    assert (whole["largest_volume_ml"], whole["smallest_volume_ml"]) == (volumes.max(), volumes.min())
    voxel = 1.5 * 1.5 * 8 / 1000
    assert volumes.tolist() == pytest.approx((np.asarray(written.dataobj) > 0).sum(axis=(0, 1, 2)) * voxel)


def test_two_time_points_of_a_case_are_two_channels_in_the_order_of_the_table(room):
    for n in range(3):
        voxels, _ = simulated_in_time.heartbeat(n, 0.5, 2)
        for name, frame in (("before", 0), ("after", 1)):
            nibabel.Nifti1Image(voxels[..., frame], np.eye(4)).to_filename(room / f"{name}{n}.nii.gz")
    rows = [f"before{n}.nii.gz,after{n}.nii.gz,{('same', 'less')[n % 2]},p{n}" for n in range(3)]
    (room / "change.csv").write_text("\n".join(["first,second,label,patient", *rows]))
    found = hilum.check(room / "change.csv", column={"image:before": "first", "image:after": "second"}, threads=1)
    assert found.facts["channels"] == "before, after"
    assert found.facts["classes"] == "less (1), same (2)"


@pytest.mark.whole
def test_the_strength_of_a_beat_is_learnt(tmp_path):
    """A disc that loses 20 % of its area against one that loses 70 %."""
    some = {"training.steps": 80, "training.validations": 2, "training.batch": 8}
    run = hilum.train(simulated_in_time.clips(tmp_path / "clips", 32), out=tmp_path / "run", assignments=some, **FLAGS)
    assert run.rows[0].estimate.value > 0.9
