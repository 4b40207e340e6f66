"""`register` and `convert --through`: what is written, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK
from numpy.testing import assert_allclose
from typer.testing import CliRunner

import hilum
import real_data
from hilum.cli.terminal import app
from hilum.errors import DatasetError, GeometryError, UsageError
from hilum.files.dicom.reading import series_survey
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.transforms import spatial_transforms
from hilum.values import Geometry, Image, Label, SpatialTransform, spatial_transform
from hilum.verbs import register
from hilum.verbs.registering import frames as registering_frames
from simulated_pairs import blobs, oblique, pair_of, smooth_field

FIXED = Geometry((24, 22, 20), np.array([[1.0, 0, 0, -12], [0, 1, 0, -11], [0, 0, 1.2, -12], [0, 0, 0, 1]]))
PET = real_data.SHIPPED / "dicom" / "files" / "tcia_pet_1.dcm"
LABELS = (Label(1, "inner"), Label(2, "outer"))


def labelled(image: Image) -> Image:
    """The brightest voxels as structures."""
    levels = np.quantile(image.data, [0.8, 0.93])
    values = np.digitize(image.data[0], levels)
    return image.with_label_map(np.array([0, 2, 1], np.uint8)[values], LABELS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pair on unlike grids with labels and points, registered once."""
    place = tmp_path_factory.mktemp("register")
    other = oblique((30, 34, 28))
    shift = np.eye(4)
    shift[:3, 3] = other.corners.mean(axis=0) - FIXED.corners.mean(axis=0)
    true = SpatialTransform((smooth_field(FIXED, 1.5), spatial_transform.Affine(shift)), FIXED, other)
    fixed, moving = pair_of(true)
    hilum.write(fixed, place / "fixed.nii.gz")
    hilum.write(moving, place / "moving.nii.gz")
    hilum.write(labelled(fixed), place / "fixed_labels.nii.gz")
    labels = spatial_transforms.carry_labels(
        labelled(fixed).data[0], FIXED, spatial_transforms.invert_transform(true), other
    )
    hilum.write(moving.with_label_map(labels, LABELS), place / "labels.nii.gz")
    (place / "points.csv").write_text("name;x;y;z\na;0;1;2\nb;-3,5;2;-4\n")
    words = [
        "register", place / "fixed.nii.gz", place / "moving.nii.gz", "--out", place / "out",
        "--labels", place / "labels.nii.gz", "--fixed-labels", place / "fixed_labels.nii.gz",
        "--points", place / "points.csv", "--json",
    ]  # fmt: skip
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    (place / "printed.json").write_text(done.stdout)
    return place


def test_every_file_is_written_and_the_record_says_what_was_reached(folder):
    names = {path.name for path in (folder / "out").iterdir()}
    assert names == {
        "moved.nii.gz", "transform.h5", "inverse.h5", "field.nii.gz", "jacobian.nii.gz", "moved_labels.nii.gz",
        "moved_labels.labels.csv", "moved_points.csv", "registration.json", "report.html",
    }  # fmt: skip
    record = json.loads((folder / "out" / "registration.json").read_text())
    assert json.loads((folder / "printed.json").read_text()) == record
    assert record["schema"] == "hilum.registration"
    rows = {(row["metric"], row["label"]): row["value"] for row in record["rows"]}
    assert rows["dice", "inner"] > max(0.8, rows["dice_before", "inner"])
    assert rows["folded_percent", ""] == 0
    assert rows["inverse_error_mm", "mean"] < 0.1
    assert record["decisions"]["similarity"]["because"]
    assert (folder / "out" / "report.html").read_text().count("<img") == 4


def test_simple_itk_brings_the_moving_image_onto_the_fixed_one_with_the_transform_that_was_written(folder):
    fixed, moving = (SimpleITK.ReadImage(str(folder / f"{name}.nii.gz")) for name in ("fixed", "moving"))
    transform = SimpleITK.ReadTransform(str(folder / "out" / "transform.h5"))
    expected = SimpleITK.GetArrayFromImage(SimpleITK.Resample(moving, fixed, transform, SimpleITK.sitkLinear, -999.0)).T
    ours = hilum.read(folder / "out" / "moved.nii.gz").data[0]
    inside = np.isfinite(ours) & (expected != -999.0)
    assert inside.mean() > 0.8
    assert_allclose(ours[inside], expected[inside], atol=0.05)


def test_a_point_whose_coordinate_is_no_number_is_refused_with_its_cell(folder, tmp_path):
    (tmp_path / "points.csv").write_text("name,x,y,z\na,0,1,2\nb,-999,2 mm,-4\n")
    with pytest.raises(DatasetError, match=r"points\.csv: y in line 3: '2 mm' is no number"):
        hilum.register(folder / "fixed.nii.gz", folder / "moving.nii.gz", points=tmp_path / "points.csv")


def test_points_outside_the_fixed_image_are_counted_and_named():
    grid = Geometry((10, 20, 30), np.diag([2.0, 2.0, 2.0, 1.0]))
    places = [("in", 0, 0, 0), ("edge", 18.9, 38, 58), ("out", 19.2, 0, 0), ("far", -500, 0, 0)]
    table = pd.DataFrame(places, columns=["name", "x", "y", "z"])
    assert register._points_outside(table, grid).startswith("2 of 4 points outside the fixed image (out, far)")
    assert register._points_outside(table[:2], grid) == ""


def test_points_go_into_the_moving_image_and_the_inverse_brings_them_back(folder):
    there = pd.read_csv(folder / "out" / "moved_points.csv")
    back = hilum.read_transform(folder / "out" / "inverse.h5")
    assert list(there["name"]) == ["a", "b"]
    assert_allclose(
        spatial_transforms.carry_points(back, there[["x", "y", "z"]].to_numpy()), [[0, 1, 2], [-3.5, 2, -4]], atol=0.2
    )


def test_convert_carries_images_and_label_maps_through_a_transform_and_back(folder):
    out = folder / "out"
    words = ["--through", out / "transform.h5", "--onto", folder / "fixed.nii.gz", "--out", folder / "again.nii.gz"]
    done = CliRunner().invoke(app, list(map(str, ["convert", folder / "moving.nii.gz", *words])))
    assert done.exit_code == 0, done.output
    assert_allclose(hilum.read(folder / "again.nii.gz").data, hilum.read(out / "moved.nii.gz").data, atol=1e-3)
    made = hilum.convert(
        folder / "fixed_labels.nii.gz", folder / "back.nii.gz",
        through=out / "transform.h5", onto=folder / "moving.nii.gz", inverse=True,
    )  # fmt: skip
    [image] = made.images
    assert [label.name for label in image.labels] == ["inner", "outer"]
    assert set(np.unique(image.data)) == {0, 1, 2}
    assert image.geometry.equals(hilum.read(folder / "moving.nii.gz").geometry)


@pytest.mark.parametrize("name", ["moving", "labels"])
def test_an_image_that_a_transform_carries_off_the_grid_is_refused_before_it_is_written(folder, tmp_path, name):
    matrix = np.eye(4)
    matrix[:3, 3] = 1000
    away = SpatialTransform((spatial_transform.Affine(matrix),))
    with pytest.raises(GeometryError, match="no voxel of the grid comes to lie in the image"):
        hilum.convert(folder / f"{name}.nii.gz", tmp_path / "away.nii.gz", through=away, onto=folder / "fixed.nii.gz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"labels": "fixed_labels.nii.gz"}, GeometryError, "another grid than its image"),
        ({"fixed_mask": "labels.nii.gz"}, GeometryError, "another grid than its image"),
        ({"labels": "absent.nii.gz"}, UsageError, "no such file"),
        ({"points": "printed.json"}, DatasetError, "no column name"),
        ({"transform": "bspline"}, UsageError, "rigid, affine or deformable"),
    ],
)
def test_what_does_not_belong_to_the_pair_is_refused_and_nothing_is_written(folder, keywords, error, words):
    given = {name: folder / value if name != "transform" else value for name, value in keywords.items()}
    with pytest.raises(error, match=words):
        hilum.register(folder / "fixed.nii.gz", folder / "moving.nii.gz", out=folder / "bad", **given)
    assert not (folder / "bad").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("frames S --similarity mind", "register frames: No such option: --similarity"),
        ("frames S M", "register frames: Got unexpected extra argument"),
        ("frames S --labels-frame 2", "--labels-frame: there are no labels"),
        ("S M --to mean", "register: No such option: --to"),
        ("S M --transform affine --seconds 3", "--seconds: is not for affine registration"),
    ],
)
def test_a_flag_that_this_form_of_registration_has_no_use_for_is_refused_by_name(folder, cli, words, problem):
    places = {"S": folder / "fixed.nii.gz", "M": folder / "moving.nii.gz"}
    done = cli("register", *(places.get(word, word) for word in words.split()), "--out", folder / "unused")
    assert done.code == 2
    assert problem in done.err
    assert not (folder / "unused").exists()


@pytest.fixture(scope="module")
def followed(folder):
    """The same pair as a baseline and a follow-up 180 days later: one lesion grew, one is gone, one is new."""
    baseline = blobs(FIXED)
    balls = {"a": [((-4, 0, 0), 10), ((5, 5, -5), 4)], "b": [((-4, 0, 0), 14), ((5, -6, 5), 5)]}
    points = FIXED.to_world(np.moveaxis(np.indices(FIXED.shape), 0, -1))
    for name, each in balls.items():
        inside = np.logical_or.reduce([np.linalg.norm(points - at, axis=-1) <= size / 2 for at, size in each])
        hilum.write(baseline.with_label_map(inside.astype(np.uint8), (Label(1, "lesion"),)), folder / f"{name}.nii.gz")
    words = ["register", "fixed.nii.gz", "fixed.nii.gz", "--transform", "rigid", "--lesions", "a.nii.gz", "b.nii.gz"]
    paths = [str(folder / word) if word.endswith(".gz") else word for word in words]
    done = CliRunner().invoke(app, [*paths, "--days", "180", "--out", str(folder / "followed")])
    assert done.exit_code == 0, done.output
    return folder


def test_lesions_of_a_follow_up_are_matched_and_the_response_is_that_of_their_measures(followed):
    table = pd.read_csv(followed / "followed" / "lesions.csv").set_index("lesion")
    assert dict(table["state"]) == {"1": "matched", "2": "gone", "new 2": "new"}
    grown = table.loc["1"]
    assert_allclose(grown["change_percent"], 100 * (1.4**3 - 1), atol=25)
    assert_allclose(grown["ml_a_year"], (grown["after_ml"] - grown["before_ml"]) / 180 * 365.25)
    assert_allclose(grown["doubling_days"], 180 / np.log2(grown["after_ml"] / grown["before_ml"]))
    record = json.loads((followed / "followed" / "response.json").read_text())
    assert record["recist"]["response"] == "PD"
    assert record["recist"]["targets"] == [1]
    assert "by measurement alone" in (followed / "followed" / "report.html").read_text().lower()


def test_an_earlier_record_of_another_baseline_is_refused(followed):
    given = {"transform": "rigid", "earlier": [followed / "followed" / "response.json"], "days": 90}
    again = hilum.register(*[followed / "fixed.nii.gz"] * 2, lesions=(followed / "a.nii.gz",) * 2, **given)
    assert again.follow_up.responses["recist"].figures["over_nadir_percent"] == 0
    with pytest.raises(DatasetError, match="another baseline"):
        hilum.register(*[followed / "fixed.nii.gz"] * 2, lesions=(followed / "b.nii.gz",) * 2, **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lesions": ("a.nii.gz",)}, "1 masks"),
        ({"days": 9}, "0 masks"),
        ({"lesions": ("a.nii.gz",) * 2, "days": -1}, "-1 is not more than 0"),
    ],
)
def test_a_follow_up_that_cannot_be_is_refused(followed, given, words):
    masks = {"lesions": tuple(followed / name for name in given.get("lesions", ()))}
    with pytest.raises(UsageError, match=words):
        hilum.register(*[followed / "fixed.nii.gz"] * 2, **{**given, **masks})


def test_a_transform_without_a_grid_is_refused(folder):
    with pytest.raises(UsageError, match="Give --through and --onto"):
        hilum.convert(folder / "fixed.nii.gz", folder / "x.nii.gz", through=folder / "out" / "transform.h5")


def pet_series(folder, uptake, frame, day):
    """A PET of one warm lesion in a warm body, in SUV by the header of a real one, which lacks the patient's height."""
    head = pydicom.dcmread(PET)
    head.PatientSize, head.FrameOfReferenceUID, head.SeriesInstanceUID = "1.65", frame, f"{frame}.1"
    head.StudyDate = head.SeriesDate = head.AcquisitionDate = head.ContentDate = day
    head.Rows = head.Columns = 30
    grid = np.indices((8, 30, 30)) - np.reshape([3.5, 14.5, 14.5], (3, 1, 1, 1))
    body = 400 * np.exp(-((grid[0] / 4) ** 2 + (grid[1] / 9) ** 2 + (grid[2] / 7) ** 2))
    lesion = (
        np.linalg.norm((grid - np.reshape([0, 4, 3], (3, 1, 1, 1))) * np.reshape([5, 4.07, 4.07], (3, 1, 1, 1)), axis=0)
        <= 13
    )
    folder.mkdir()
    for n, plane in enumerate(np.where(lesion, uptake, body).astype(np.int16)):
        head.SOPInstanceUID, head.ImageIndex, head.InstanceNumber = f"{frame}.2.{n + 1}", n + 1, n + 1
        head.ImagePositionPatient, head.SliceLocation = [-60, -60, 5.0 * n], 5.0 * n
        head.file_meta.MediaStorageSOPInstanceUID = head.SOPInstanceUID
        head.PixelData = plane.tobytes()
        head.save_as(folder / f"{n}.dcm")
    image = hilum.read(folder)
    inside = (image.data[0] > np.quantile(image.data[0][image.data[0] > 0], 0.5)) & (
        np.moveaxis(lesion, 0, -1).swapaxes(0, 1)
    )
    hilum.write(image.with_label_map(inside.astype(np.uint8), (Label(1, "lesion"),)), f"{folder}.nii.gz")


@pytest.mark.whole
def test_a_pet_is_judged_by_its_uptake_and_the_moved_one_is_a_pet_in_suv(tmp_path):
    pet_series(tmp_path / "a", 3000, "1.2.3.4", "20240101")
    pet_series(tmp_path / "b", 1500, "1.2.3.5", "20240331")
    made = hilum.register(
        tmp_path / "a", tmp_path / "b", out=tmp_path / "out", transform="rigid", initial="centres",
        lesions=(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"),
    )  # fmt: skip
    assert made.follow_up.days == 90
    judged = made.follow_up.responses["percist"]
    assert (judged.verdict, judged.figures["new_lesions"]) == ("PMR", 0), judged.because
    lean = 9270 / (8780 + 244 * 69.7344 / 1.65**2)  # Janmahasatian, of a woman
    assert_allclose(judged.figures["sul_peak_before"], lean * hilum.read(tmp_path / "a").data.max(), rtol=0.02)
    moved = hilum.read(tmp_path / "out" / "moved_dicom")
    assert (moved.modality, moved.facts["unit"]) == ("PT", "SUVbw")
    assert_allclose(moved.data[moved.valid], made.moved.data[moved.valid], atol=1e-3)
    assert (moved.valid == np.isfinite(made.moved.data)).all()
    if shutil.which("dciodvfy"):
        found = subprocess.run(
            ["dciodvfy", tmp_path / "out" / "moved_dicom" / "0001.dcm"], check=False, capture_output=True, text=True
        )
        assert [line for line in found.stderr.splitlines() if line.startswith("Error")] == []


@pytest.mark.whole
def test_dicom_on_both_sides_also_gives_a_registration_and_two_patients_need_a_word(tmp_path):
    fixed = blobs(FIXED)
    for name, patient in (("a", "p1"), ("b", "p2")):
        image = Image(np.rint(fixed.data).astype(np.int16), FIXED, modality="MR")
        series_writing.write_series(image, SeriesNames(patient, "study", "t1"), tmp_path / name)
    with pytest.raises(UsageError, match="two patients"):
        hilum.register(tmp_path / "a", tmp_path / "b", transform="rigid", initial="centres")
    made = hilum.register(
        tmp_path / "a", tmp_path / "b", out=tmp_path / "out",
        transform="rigid", initial="centres", across_patients=True,
    )  # fmt: skip
    read = hilum.read_transform(tmp_path / "out" / "transform.dcm")
    assert_allclose(
        spatial_transforms.carry_points(read, FIXED.corners),
        spatial_transforms.carry_points(made.transform, FIXED.corners),
        atol=0.01,
    )
    moved = hilum.read(tmp_path / "out" / "moved_dicom")
    source, placed = (hilum.read(tmp_path / name) for name in ("b", "a"))
    assert moved.geometry.frame_of_reference == placed.geometry.frame_of_reference
    assert series_survey.stated_patient_pseudonym(moved) == series_survey.stated_patient_pseudonym(source)
    assert_allclose(moved.data[moved.valid], np.rint(made.moved.data)[moved.valid], atol=0.51)


def test_frames_whose_contents_changed_are_named_where_they_moved_by_less_than_a_voxel():
    rng = np.random.default_rng(0)
    scene = rng.uniform(0, 100, (12, 12, 12))
    vessel = np.zeros_like(scene)
    vessel[4:6] = 300
    frames = np.stack([scene, scene + rng.normal(0, 1, scene.shape), scene + vessel])[None].astype(np.float32)
    series = Image(frames, Geometry((12, 12, 12), np.diag([3.0, 3.0, 3.0, 1.0])), modality="MR", times=(0.0, 1.0, 2.0))
    [note] = registering_frames._unlike_frames(series, np.array([0.0, 0.1, 0.7]), ["", "", ""])
    assert note.startswith("the contents of frame 3 (0.") and "less than a voxel (3 mm)" in note
    assert list(registering_frames._unlike_frames(series, np.array([0.0, 0.1, 5.0]), ["", "", ""])) == []


def test_of_frames_of_pictures_the_shift_in_pixels_and_the_turn_in_the_plane_are_stated():
    rows, columns = np.mgrid[:64, :64].astype(float)

    def frame(right: float, down: float, degrees: float) -> np.ndarray:
        """The scene, which has moved by so many pixels and turned about the centre of the picture from x towards y."""
        turn = np.radians(degrees)
        x, y = columns - 31.5 - right, rows - 31.5 - down
        x, y = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
        blobs = [(-10, -8, 5, 100), (12, -4, 4, 70), (2, 13, 6, 120), (-14, 10, 3, 90)]
        return sum(h * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s**2)) for a, b, s, h in blobs)

    frames = np.stack([frame(0, 0, 0), frame(3, -2, 0), frame(-1, 2, 5)])[None].astype(np.float32)
    geometry = Geometry((64, 64), np.eye(3), physical=False, oriented=False)
    table = hilum.register_frames(Image(frames, geometry, modality="US", times=(0.0, 1.0, 2.0))).table
    assert_allclose(table[["x_pixels", "y_pixels", "z_deg"]], [[0, 0, 0], [3, -2, 0], [-1, 2, 5]], atol=0.3)
    assert table[["z_pixels", "x_deg", "y_deg"]].isna().all(axis=None)
