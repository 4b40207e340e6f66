"""`--align`: images of a case on unlike grids, brought onto the first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hilum
from hilum.errors import GeometryError, UsageError
from hilum.reading import ReadingOptions, alignment, dataset_reading
from hilum.transforms import spatial_transforms
from hilum.values import Case, Geometry, Image, SpatialTransform
from simulated_pairs import blobs, turn_and_shift

GRID = Geometry((24, 22, 20), np.array([[1.0, 0, 0, -12], [0, 1, 0, -11], [0, 0, 1.2, -12], [0, 0, 0, 1]]))
OTHER = Geometry((30, 30, 28), np.array([[1.0, 0, 0, -15], [0, 1, 0, -15], [0, 0, 1.1, -15], [0, 0, 0, 1]]))
SHIFT, TURN = (3.0, -2.0, 1.5), (6.0, -4.0, 3.0)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Two cases of two images each: in one the second had moved, in the other both are already as close as can be."""
    place = tmp_path_factory.mktemp("align")
    scene = blobs(GRID.pad((12, 11, 10), (12, 11, 10)))
    fixed = spatial_transforms.carry_image(scene, SpatialTransform((), GRID, scene.geometry), GRID)
    moving = spatial_transforms.carry_image(
        scene,
        spatial_transforms.invert_transform(SpatialTransform((turn_and_shift(TURN, SHIFT, GRID),))),
        OTHER,
        "cubic",
    )
    moving = moving.with_pixels(np.nan_to_num(moving.data, nan=float(np.nanmin(moving.data))))
    rows = []
    for name, second in (("moved", moving), ("alike", fixed.with_pixels(fixed.data))):
        for channel, image in (("a", fixed), ("b", second)):
            hilum.write(image, place / f"{name}_{channel}.nii.gz")
        rows.append([name, f"{name}_a.nii.gz", f"{name}_b.nii.gz", "yes" if name == "moved" else "no"])
    pd.DataFrame(rows, columns=["id", "one", "two", "answer"]).to_csv(place / "cases.csv", index=False)
    return place / "cases.csv"


COLUMNS = "image:a=one,image:b=two,label=answer,id=id"


def test_the_motion_between_two_images_is_found_and_taken_out_and_stated(cases, tmp_path):
    hilum.check(cases, column=COLUMNS, align="register", out=tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "alignment.csv")
    assert list(table["case"]) == ["moved"]
    [row] = table.to_dict("records")
    assert (row["image"], row["onto"]) == ("b", "a")
    assert np.abs([row[f"{axis}_mm"] - shift for axis, shift in zip("xyz", SHIFT, strict=True)]).max() < 0.3
    assert np.abs([row[f"{axis}_deg"] - turn for axis, turn in zip("zyx", TURN, strict=True)]).max() < 0.6
    [case] = [
        one
        for one in dataset_reading.open_dataset(cases, ReadingOptions(column=COLUMNS, align="register"))
        if one.id == "moved"
    ]
    first, second = case.images["a"], case.images["b"]
    assert second.geometry.equals(first.geometry)
    inside = second.valid
    assert np.corrcoef(first.data[inside], second.data[inside])[0, 1] > 0.99


def test_an_image_on_the_same_grid_stays_as_it_is(cases):
    [case] = [
        one
        for one in dataset_reading.open_dataset(cases, ReadingOptions(column=COLUMNS, align="register"))
        if one.id == "alike"
    ]
    assert "onto" not in case.images["b"].facts


@pytest.mark.whole
def test_images_that_lie_as_well_as_they_can_are_refused_by_name(cases):
    first = hilum.read(cases.parent / "moved_a.nii.gz")
    lower = Geometry((24, 22, 18), np.array([[1.0, 0, 0, -12], [0, 1, 0, -11], [0, 0, 1.2, -9.6], [0, 0, 0, 1]]))
    second = first.with_pixels(np.ascontiguousarray(first.data[..., 2:]), lower)
    with pytest.raises(GeometryError, match="case 7, b: registration gains nothing"):
        _ = alignment.aligned_case(Case("case 7", "p", {"a": first, "b": second}), "register").images["b"]


def test_a_word_that_names_no_alignment_is_refused():
    with pytest.raises(UsageError, match="Choose world"):
        ReadingOptions(align="guess")


@pytest.mark.parametrize("how", ["world", "register"])
def test_a_mask_on_another_image_than_the_first_is_refused_with_the_choice_that_reads_it(how):
    fine, coarse = (Image(np.ones((1, *grid.shape), np.float32), grid) for grid in (GRID, OTHER))
    case = Case("case 7", "p", {"flair": coarse, "t1": fine}, {"mask": fine, "class": "ill"})
    first = alignment.aligned_case(case, how)
    with pytest.raises(GeometryError, match=f"mask lies on the grid of 't1'.* laid on 'flair'.*--align {how}:t1"):
        _ = first.references["mask"]
    assert first.references["class"] == "ill"
    chosen = alignment.aligned_case(case, f"{how}:t1")
    assert chosen.references["mask"] is fine and chosen.images["t1"] is fine
    with pytest.raises(GeometryError, match="no image 't2' to lay the others on, only flair, t1"):
        _ = alignment.aligned_case(case, f"{how}:t2").images["t1"]


def test_an_image_that_is_resampled_says_onto_which():
    fine, coarse = (Image(np.ones((1, *grid.shape), np.float32), grid) for grid in (GRID, OTHER))
    moved = alignment.aligned_case(Case("case 7", "p", {"flair": coarse, "t1": fine}), "world:t1").images["flair"]
    assert moved.geometry.equals(GRID) and "resampled onto the grid of 't1'" in moved.notes
