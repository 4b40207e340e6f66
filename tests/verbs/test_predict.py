from __future__ import annotations

import json
import re
import shutil
import signal
from itertools import count
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import hilum
import trained
from hilum.errors import DatasetError, UsageError
from hilum.runtime import record_files
from hilum.values import Problem
from hilum.verbs.predict import PredictionResult
from matrices import rarely

SERIES = Path("dicom", "series", "mr_hippocampus_001")


def predicted(run, *inputs, **flags):
    return hilum.predict(run.out, [*inputs], device="cpu", **flags)


@pytest.fixture
def image(segmented) -> Path:
    return segmented.data / "images" / "case01.nii.gz"


def test_a_result_lies_on_the_grid_of_its_source(segmented, image, tmp_path):
    result = predicted(segmented, image, out=tmp_path / "out")
    source, written = nibabel.load(image), nibabel.load(tmp_path / "out" / "case01.nii.gz")
    assert written.shape == source.shape
    assert_allclose(written.affine, source.affine, atol=1e-4)
    assert set(np.unique(written.dataobj)) <= {0, 1, 2}
    assert [path.name for path in result.files] == ["case01.nii.gz"]
    assert result.files[0].is_file()


@pytest.mark.parametrize(("order", "flip"), [((2, 0, 1), 1), ((0, 1, 2), -1), rarely(((1, 2, 0), -1))])
def test_the_order_in_which_a_file_keeps_its_axes_does_not_move_the_result(segmented, image, tmp_path, order, flip):
    """The same head, stored otherwise: the same voxel in the world gets the same label."""
    source = nibabel.load(image)
    straight = np.asarray(predicted(segmented, image).predictions["case01"].data)
    orientation = [[axis, flip if n == 0 else 1] for n, axis in enumerate(order)]
    turned = nibabel.orientations.apply_orientation(np.asarray(source.dataobj), orientation)
    turn = nibabel.orientations.inv_ornt_aff(orientation, source.shape)
    nibabel.Nifti1Image(turned, source.affine @ turn).to_filename(tmp_path / "turned.nii.gz")
    result = np.asarray(predicted(segmented, tmp_path / "turned.nii.gz").predictions["turned"].data)
    expected = nibabel.orientations.apply_orientation(straight, orientation)
    assert np.mean(result != expected) < 0.002  # sums in another order may round otherwise where two labels tie


def test_the_command_line_and_python_predict_the_same(segmented, image, tmp_path, cli):
    done = cli("predict", segmented.out, image, "--out", tmp_path / "out", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    in_python = predicted(segmented, image).predictions["case01"].data
    assert_array_equal(np.asarray(nibabel.load(tmp_path / "out" / "case01.nii.gz").dataobj), np.asarray(in_python))
    assert json.loads(done.out)["predicted"] == 1


def test_a_series_gets_a_nifti_on_its_grid_and_a_seg_on_the_same_voxels(segmented, data, tmp_path):
    predicted(segmented, data / SERIES, out=tmp_path / "out", abstain="off")  # its gate knows other images
    [nifti] = (tmp_path / "out").glob("*.nii.gz")
    seg = nifti.with_name(nifti.name.replace(".nii.gz", ".dcm"))
    label_map = nibabel.load(nifti)
    source = hilum.read(data / SERIES)
    assert label_map.shape == source.geometry.shape
    assert_allclose(label_map.affine, source.geometry.affine, atol=1e-4)
    voxels = np.asarray(label_map.dataobj)
    assert voxels.any()

    made = highdicom.seg.segread(seg)
    first = pydicom.dcmread(next(path for path in sorted((data / SERIES).rglob("*")) if path.is_file()))
    assert made.PatientID == first.PatientID
    assert made.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert made.StudyInstanceUID == first.StudyInstanceUID
    assert [made.get_segment_description(n).segment_label for n in made.segment_numbers] == ["shell", "core"]
    volume = made.get_volume(combine_segments=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    inverse = np.linalg.inv(label_map.affine) @ lps @ volume.affine
    marked = np.argwhere(volume.array)
    places = np.rint(marked @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    assert len(marked) == np.count_nonzero(voxels)
    assert_array_equal(voxels[tuple(places.T)], volume.array[tuple(marked.T)])


@pytest.mark.whole
def test_an_image_far_larger_than_those_that_trained_is_said_once_with_the_number_of_windows(segmented, tmp_path):
    """Trained on 16 voxels a side: hundreds of windows of 64 a side show what no training image did."""
    rng = np.random.default_rng(0)
    for name in ("large", "larger"):
        voxels = rng.normal(0, 10, (64, 64, 64 + 16 * (name == "larger"))).astype(np.int16)
        nibabel.Nifti1Image(voxels, trained.OBLIQUE).to_filename(tmp_path / f"{name}.nii.gz")
    images = [segmented.data / "images" / "case01.nii.gz", *sorted(tmp_path.glob("large*"))]
    refused = predicted(segmented, *images, abstain="off")
    assert [problem.cases for problem in refused.failures] == [("large",), ("larger",)]
    result = predicted(segmented, *images, abstain="off", allow_large=True)
    [warning] = [problem for problem in result.problems if "times as large" in problem.what]
    assert warning.cases == ("large", "larger")
    assert warning.severity == "warning"
    assert "2 images are up to 80 times as large as any that trained the model" in warning.what
    assert int(re.search(r"up to (\d+) windows", warning.what)[1]) >= 200
    assert "--region" in str(result)


def test_no_patient_of_a_series_stands_in_records_or_in_what_is_said(segmented, data, tmp_path, cli):
    first = pydicom.dcmread(next(path for path in sorted((data / SERIES).rglob("*")) if path.is_file()))
    done = cli("predict", segmented.out, data / SERIES, "--out", tmp_path / "out", "--device", "cpu", "--json")
    records = [(tmp_path / "out" / name).read_text() for name in ("summary.json", "predictions.csv")]
    for text in (done.out, done.err, *records):
        assert str(first.PatientName) not in text
        assert f'"{first.PatientID}"' not in text


@pytest.mark.whole
def test_a_study_with_a_localizer_is_predicted_and_what_was_left_out_is_named(segmented, data, tmp_path, cli):
    shutil.copytree(data / SERIES, tmp_path / "study")
    for path in sorted((tmp_path / "study").iterdir())[:2]:
        header = pydicom.dcmread(path)
        header.SeriesInstanceUID, header.ImageType = "1.2.7", ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        header.save_as(tmp_path / "study" / f"scout_{path.name}")
    flags = ("--device", "cpu", "--abstain", "off")  # its gate knows other images
    done = cli("predict", segmented.out, tmp_path / "study", "--out", tmp_path / "out", *flags)
    assert done.code == 0, done.err
    assert "1 image: 1 answered" in done.out
    left_out = next(line for line in done.out.splitlines() if line.startswith("warning: 1 series only served to"))
    assert "scout_" in left_out and "they are left out" in left_out


@pytest.mark.parametrize("verb", [hilum.predict, hilum.explain])
def test_where_no_case_can_be_read_the_error_names_the_case_and_not_what_was_left_out(segmented, data, tmp_path, verb):
    shutil.copytree(data / SERIES, tmp_path / "study")
    first, second, *_ = sorted((tmp_path / "study").iterdir())
    header = pydicom.dcmread(first)
    header.SeriesInstanceUID, header.ImageType = "1.2.7", ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    header.save_as(first.with_name("scout.dcm"))
    second.unlink()
    with pytest.raises(DatasetError, match=r"the first: .*slice is missing"):
        verb(segmented.out, tmp_path / "study", device="cpu")


def test_a_cohort_is_predicted_case_by_case_without_its_labels(segmented, tmp_path):
    predicted(segmented, segmented.data, out=tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert table["case"].tolist() == [f"case{n:02}" for n in range(12)]
    assert list(table.columns[:2]) == ["case", "image"]
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 12


def test_one_damaged_image_of_a_cohort_is_named_and_the_others_are_predicted(segmented, tmp_path, cli):
    data = trained.blobs(tmp_path / "data", 3)
    (data / "images" / "case01.nii.gz").write_bytes(b"no image")
    done = cli("predict", segmented.out, data / "images", "--out", tmp_path / "out", "--device", "cpu")
    assert done.code == 1
    assert "case01" in done.last
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (record["predicted"], len(record["failed"])) == (2, 1)
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2


def test_a_picture_gets_the_probability_of_each_class(classified, tmp_path):
    picture = sorted((classified.data / "dark").iterdir())[0]
    result = predicted(classified, picture, out=tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    stated = ["case", "image", "predicted", "probability_bright", "probability_dark", "set"]
    assert list(table.columns) == [*stated, "gate_p", "abstained", "total", "aleatoric", "epistemic"]
    row = table.iloc[0]
    assert row["probability_bright"] + row["probability_dark"] == pytest.approx(1.0)
    assert row["predicted"] == ("dark" if row["probability_dark"] > 0.5 else "bright")
    assert Path(row["image"]) == picture
    assert not result.files


def test_the_test_cases_get_the_probabilities_that_the_run_measured(classified):
    kept = pd.read_csv(classified.out / "evaluation" / "cases.csv", dtype={"case": str}).set_index("case")
    table = predicted(classified, classified.data).table
    named = {Path(row.image).stem: row.probability_dark for row in table.itertuples()}
    for case, row in kept.iterrows():
        assert named[Path(case).stem] == pytest.approx(row["probability_dark"], abs=1e-6)


@pytest.mark.whole
def test_a_picture_and_its_mask_model_write_a_png(tmp_path):
    for n in range(8):
        image, mask = trained.blob(n)
        for folder, array in (("images", image[:, :, 8].clip(0, 255)), ("masks", 255 * (mask[:, :, 8] > 0))):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            trained.PIL.Image.fromarray(array.astype(np.uint8)).save(tmp_path / "data" / folder / f"{n}.png")
    size = {"width": 4, "strides": [[1, 1], [2, 2]]}
    run = trained.segmenting(tmp_path / "data", tmp_path / "run", labels="1=blob", assignments={"network.size": size})
    hilum.predict(run.out, tmp_path / "data" / "images" / "3.png", out=tmp_path / "out", device="cpu")
    written = np.asarray(trained.PIL.Image.open(tmp_path / "out" / "3.png"))
    assert written.shape == (16, 16)
    assert set(np.unique(written)) <= {0, 1}


@pytest.mark.whole
def test_older_predictions_are_replaced_whole_when_asked_for(segmented, image, tmp_path):
    predicted(segmented, segmented.data, out=tmp_path / "out")
    predicted(segmented, image, out=tmp_path / "out", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["case01.nii.gz"]


def test_wrong_calls_are_refused(segmented, image, tmp_path):
    with pytest.raises(UsageError, match="nothing to predict"):
        predicted(segmented)
    with pytest.raises(UsageError, match="jpeg"):
        predicted(segmented, image, format="jpeg")
    with pytest.raises(DatasetError, match="no case"):
        predicted(segmented, image, format="dcm", out=tmp_path / "out")  # no series that a SEG could belong to
    assert not list(tmp_path.iterdir())


def ending_at_the_third(run, error: BaseException):
    """The model of a run, of whose third case comes an error."""
    model, asked = hilum.load(run.out, "cpu"), count(1)

    def stopping(batch):
        if next(asked) == 3:
            raise error
        return model.networks.run(batch)

    return model.with_run(stopping)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), KeyError("a defect")])
def test_stopped_predictions_keep_the_cases_that_were_done(segmented, tmp_path, error):
    with pytest.raises(type(error)):
        hilum.predict(ending_at_the_third(segmented, error), segmented.data, out=tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "predictions.csv")["case"].tolist() == ["case00", "case01"]
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2


def test_ctrl_c_pressed_again_while_the_finished_cases_are_recorded_keeps_them(segmented, tmp_path, monkeypatch):
    write_json = record_files.write_json
    presses = iter([signal.SIGINT])  # once: a second press would end at once

    def pressed(path, *given, **named):
        if path.name == "summary.json":
            for press in presses:
                signal.raise_signal(press)
        write_json(path, *given, **named)

    monkeypatch.setattr("hilum.runtime.record_files.write_json", pressed)
    with pytest.raises(KeyboardInterrupt):
        hilum.predict(ending_at_the_third(segmented, KeyboardInterrupt()), segmented.data, out=tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "predictions.csv")["case"].tolist() == ["case00", "case01"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["predicted"] == 2


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory):
    root = tmp_path_factory.mktemp("channels")
    return trained.segmenting(trained.two_channels(root / "data"), root / "run", labels=None)


@pytest.mark.whole
def test_files_numbered_by_channel_are_one_case_also_where_it_is_the_only_one(two_channels, tmp_path):
    source = two_channels.out.parent / "data" / "imagesTr"
    for name in ("case00_0000.nii.gz", "case00_0001.nii.gz"):
        (tmp_path / "one").mkdir(exist_ok=True)
        (tmp_path / "one" / name).write_bytes((source / name).read_bytes())
    single, among = predicted(two_channels, tmp_path / "one"), predicted(two_channels, two_channels.out.parent / "data")
    assert list(single.predictions) == ["case00"]
    assert_array_equal(single.predictions["case00"].data, among.predictions["case00"].data)


@pytest.mark.whole
def test_channels_in_another_order_are_found_by_name(two_channels, tmp_path):
    source = two_channels.out.parent / "data" / "imagesTr"
    table = tmp_path / "table.csv"
    table.write_text(f"t1,t2\n{source / 'case00_0000.nii.gz'},{source / 'case00_0001.nii.gz'}\n")
    [in_order] = predicted(two_channels, table, column={"image:T1": "t1", "image:T2": "t2"}).predictions.values()
    [exchanged] = predicted(two_channels, table, column={"image:T2": "t2", "image:T1": "t1"}).predictions.values()
    assert_array_equal(exchanged.data, in_order.data)
    [with_wrong_names] = predicted(
        two_channels, table, column={"image:T1": "t2", "image:T2": "t1"}
    ).predictions.values()
    assert (with_wrong_names.data != in_order.data).any()


def test_numbers_of_frames_are_no_channels_to_a_model_of_one_channel(segmented, image, tmp_path):
    for n in range(4):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"case{n // 2}_{n % 2:04}.nii.gz").write_bytes(image.read_bytes())
    assert len(predicted(segmented, tmp_path / "in").predictions) == 4


@pytest.fixture(scope="module")
def folds(segmented, tmp_path_factory) -> Path:
    """A run of two folds: the run's model, and one whose weights are a little different."""
    root = tmp_path_factory.mktemp("folds")
    for n in (0, 1):
        best = root / f"fold_{n}" / "checkpoints" / "best"
        shutil.copytree(segmented.out / "checkpoints" / "best", best)
        weights = record_files.read_tensors(best / "weights.safetensors")
        record_files.write_tensors(
            best / "weights.safetensors", {name: (1 + n / 2) * one for name, one in weights.items()}
        )
        record_files.seal_folder(best)
    return root


def saved_probabilities(run: Path, image: Path, out: Path, **flags: object) -> np.ndarray:
    hilum.predict(run, image, device="cpu", out=out, save_probabilities=True, **flags)
    return nibabel.load(out / f"{image.name.split('.')[0]}_probabilities.nii.gz").get_fdata()


def test_the_folds_of_a_run_are_averaged_unless_one_is_picked(folds, image, tmp_path):
    first, second = (saved_probabilities(folds, image, tmp_path / str(n), fold=n) for n in (0, 1))
    joint = saved_probabilities(folds, image, tmp_path / "mean")
    assert np.abs(first - second).max() > 0.01
    assert_allclose(joint, (first + second) / 2, atol=0.01)  # the windows are averaged after the folds
    record = json.loads((tmp_path / "mean" / "summary.json").read_text())["model"]
    single = json.loads((tmp_path / "0" / "summary.json").read_text())["model"]
    assert record["weights_sha256"] != single["weights_sha256"]
    with pytest.raises(UsageError, match="Choose one of 0, 1"):
        hilum.predict(folds, image, fold=7)
    with pytest.raises(UsageError, match="--fold"):
        hilum.predict(hilum.load(folds, "cpu"), image, fold=0)


def led(run: Path, folder: Path, **inference: object) -> Path:
    """The run's model, led over images otherwise."""
    shutil.copytree(run / "checkpoints" / "best", folder)
    record = json.loads((folder / "model.json").read_text())
    record["inference"] |= inference
    (folder / "model.json").write_text(json.dumps(record))
    record_files.seal_folder(folder)
    return folder


def test_the_command_line_mirrors_as_the_plan_or_the_flag_says(segmented, image, tmp_path, cli):
    knowing = led(segmented.out, tmp_path / "knowing", flips=[1], left_right=0)
    for flags, expected in (((), [1]), (("--mirror",), [1]), (("--no-mirror",), [])):
        out = tmp_path / f"out{len(flags)}{len(expected)}"
        done = cli("predict", knowing, image, "--out", out, "--device", "cpu", *flags)
        assert done.code == 0, done.err
        assert json.loads((out / "summary.json").read_text())["model"]["mirrored"] == expected


def test_mirroring_that_nobody_knows_to_be_true_is_wrong_use(segmented, image, tmp_path, cli):
    unknowing = led(segmented.out, tmp_path / "unknowing", flips=[], left_right=None)
    refused = cli("predict", unknowing, image, "--out", tmp_path / "out", "--mirror", "--device", "cpu")
    assert refused.code == 2
    assert "which axis runs from left to right" in refused.last
    assert not (tmp_path / "out").exists()


def test_measurements_say_how_large_and_how_bright_each_structure_is(segmented, image, tmp_path):
    result = predicted(segmented, image, out=tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "measurements.csv")
    axes, centre = ["long_axis_mm", "short_axis_mm"], ["centre_x_mm", "centre_y_mm", "centre_z_mm"]
    shape = [*axes, "pieces", *centre, "sphericity", "elongation", "flatness"]
    assert list(table.columns) == ["case", "label", "voxels", "volume_ml", *shape, "mean_0", "sd_0", "max_0"]
    mask = np.asarray(nibabel.load(tmp_path / "out" / "case01.nii.gz").dataobj)
    source = nibabel.load(image)
    for row, value in zip(table.itertuples(), (1, 2), strict=True):
        inside = source.get_fdata()[mask == value]
        assert row.case == "case01"
        assert row.voxels == inside.size
        assert row.volume_ml == pytest.approx(inside.size * abs(np.linalg.det(source.affine)) / 1000, rel=1e-4)
        assert row.volume_ml == result.table[f"{row.label}_ml"][0]
        if inside.size:
            assert (row.mean_0, row.sd_0, row.max_0) == pytest.approx((inside.mean(), inside.std(), inside.max()))
            assert 0 < row.short_axis_mm <= row.long_axis_mm
    assert len(result.measurements) == 2


def test_what_has_no_file_to_go_to_is_refused(segmented, image):
    with pytest.raises(UsageError, match="Give out=FOLDER"):
        predicted(segmented, image, save_probabilities=True)
    with pytest.raises(UsageError, match="Give out=FOLDER"):
        predicted(segmented, image, overlay=True)


def test_evaluate_and_predict_give_the_same_masks(segmented, tmp_path):
    """What is scored is what is written: one path for both."""
    hilum.evaluate(segmented.out, segmented.data, out=tmp_path / "scored", device="cpu", labels=trained.LABELS)
    scored = pd.read_csv(tmp_path / "scored" / "cases.csv").set_index(["case", "label"])
    cases = [segmented.data / "images" / f"{case}.nii.gz" for case in scored.index.unique(level=0)]
    table = predicted(segmented, *cases).measurements.set_index(["case", "label"])
    for place, row in scored.iterrows():
        assert table.loc[place, "voxels"] == row["voxels_predicted"]


def test_what_many_results_have_in_common_is_one_line():
    cases = [f"c{number}" for number in range(5)]
    problems = [Problem.warning(f"{case}: the axis has {n} steps", (case,)) for n, case in enumerate(cases)]
    refused = [Problem.error(f"{case}: is cut short", (case,)) for case in ("d0", "d1", "d2", "d3")]
    result = PredictionResult(pd.DataFrame({"case": cases}), {}, [*problems, *refused], [], {})
    lines = repr(result).splitlines()
    assert sum("steps" in line for line in lines) == 1
    assert "warning: 5 cases, here the words of the first: the axis has 0 steps" in "\n".join(lines)
    assert sum(line.startswith("error: ") for line in lines) == 4
