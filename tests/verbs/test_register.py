"""`register` and `convert --through`: what is written, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import SimpleITK
from numpy.testing import assert_allclose
from typer.testing import CliRunner

import isocenter
from drawn_pairs import blobs, oblique, pair_of, smooth_field
from isocenter.cli import app
from isocenter.errors import DatasetError, GeometryError, UsageError
from isocenter.files import SeriesNames, stated_patient, write_series
from isocenter.transforms import carried_labels, carried_points, inverted
from isocenter.values import Geometry, Image, Label, SpatialTransform

FIXED = Geometry((24, 22, 20), np.array([[1.0, 0, 0, -12], [0, 1, 0, -11], [0, 0, 1.2, -12], [0, 0, 0, 1]]))
LABELS = (Label(1, "inner"), Label(2, "outer"))


def drawn_on(image: Image) -> Image:
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
    true = SpatialTransform((smooth_field(FIXED, 1.5), isocenter.values.Affine(shift)), FIXED, other)
    fixed, moving = pair_of(true)
    isocenter.write(fixed, place / "fixed.nii.gz")
    isocenter.write(moving, place / "moving.nii.gz")
    isocenter.write(drawn_on(fixed), place / "fixed_labels.nii.gz")
    labels = carried_labels(drawn_on(fixed).data[0], FIXED, inverted(true), other)
    isocenter.write(moving.with_label_map(labels, LABELS), place / "labels.nii.gz")
    (place / "points.csv").write_text("name,x,y,z\na,0,1,2\nb,-3.5,2,-4\n")
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
    assert record["schema"] == "isocenter.registration"
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
    ours = isocenter.read(folder / "out" / "moved.nii.gz").data[0]
    inside = np.isfinite(ours) & (expected != -999.0)
    assert inside.mean() > 0.8
    assert_allclose(ours[inside], expected[inside], atol=0.05)


def test_points_go_into_the_moving_image_and_the_inverse_brings_them_back(folder):
    there = pd.read_csv(folder / "out" / "moved_points.csv")
    back = isocenter.read_transform(folder / "out" / "inverse.h5")
    assert list(there["name"]) == ["a", "b"]
    assert_allclose(carried_points(back, there[["x", "y", "z"]].to_numpy()), [[0, 1, 2], [-3.5, 2, -4]], atol=0.2)


def test_convert_carries_images_and_label_maps_through_a_transform_and_back(folder):
    out = folder / "out"
    words = ["--through", out / "transform.h5", "--onto", folder / "fixed.nii.gz", "--out", folder / "again.nii.gz"]
    done = CliRunner().invoke(app, list(map(str, ["convert", folder / "moving.nii.gz", *words])))
    assert done.exit_code == 0, done.output
    assert_allclose(isocenter.read(folder / "again.nii.gz").data, isocenter.read(out / "moved.nii.gz").data, atol=1e-3)
    made = isocenter.convert(
        folder / "fixed_labels.nii.gz", folder / "back.nii.gz",
        through=out / "transform.h5", onto=folder / "moving.nii.gz", inverse=True,
    )  # fmt: skip
    [image] = made.images
    assert [label.name for label in image.labels] == ["inner", "outer"]
    assert set(np.unique(image.data)) == {0, 1, 2}
    assert image.geometry.equals(isocenter.read(folder / "moving.nii.gz").geometry)


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
        isocenter.register(folder / "fixed.nii.gz", folder / "moving.nii.gz", out=folder / "bad", **given)
    assert not (folder / "bad").exists()


def test_a_transform_without_a_grid_is_refused(folder):
    with pytest.raises(UsageError, match="Give --through and --onto"):
        isocenter.convert(folder / "fixed.nii.gz", folder / "x.nii.gz", through=folder / "out" / "transform.h5")


@pytest.mark.whole
def test_dicom_on_both_sides_also_gives_a_registration_and_two_patients_need_a_word(tmp_path):
    fixed = blobs(FIXED)
    for name, patient in (("a", "p1"), ("b", "p2")):
        image = Image(np.rint(fixed.data).astype(np.int16), FIXED, modality="MR")
        write_series(image, SeriesNames(patient, "study", "t1"), tmp_path / name)
    with pytest.raises(UsageError, match="two patients"):
        isocenter.register(tmp_path / "a", tmp_path / "b", transform="rigid", initial="centres")
    made = isocenter.register(
        tmp_path / "a", tmp_path / "b", out=tmp_path / "out",
        transform="rigid", initial="centres", across_patients=True,
    )  # fmt: skip
    read = isocenter.read_transform(tmp_path / "out" / "transform.dcm")
    assert_allclose(carried_points(read, FIXED.corners), carried_points(made.transform, FIXED.corners), atol=0.01)
    moved = isocenter.read(tmp_path / "out" / "moved_dicom")
    source, placed = (isocenter.read(tmp_path / name) for name in ("b", "a"))
    assert moved.geometry.frame_of_reference == placed.geometry.frame_of_reference
    assert stated_patient(moved) == stated_patient(source)
    assert_allclose(moved.data[moved.valid], np.rint(made.moved.data)[moved.valid], atol=0.51)
