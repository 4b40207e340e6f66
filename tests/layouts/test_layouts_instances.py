"""Objects with numbers of their own: one map an image, or one mask an object."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from numpy.testing import assert_array_equal

import real_data
from cohorts import volume
from hilum.errors import FormatError, GeometryError
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions

NUMBERED = DatasetOptions(kinds=frozenset({"instances"}))


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


def squares(*corners: tuple[int, int], shape: tuple[int, int] = (20, 24)) -> list[np.ndarray]:
    masks = []
    for down, across in corners:
        mask = np.zeros(shape, dtype=np.uint8)
        mask[down : down + 4, across : across + 4] = 255
        masks.append(mask)
    return masks


def bowl(root: Path, cases: dict[str, list[np.ndarray]]) -> Path:
    """A folder a case, as in stage1_train of the Data Science Bowl."""
    for name, masks in cases.items():
        picture(root / name / "images" / f"{name}.png", np.full((20, 24), 9, np.uint8))
        for n, mask in enumerate(masks):
            picture(root / name / "masks" / f"{n:02}f3a.png", mask)
    return root


def test_a_folder_a_case_with_one_mask_an_object_is_read_as_instances(tmp_path):
    dataset = dataset_layouts.read_dataset(bowl(tmp_path, {"aa": squares((1, 1), (10, 10)), "bb": squares((5, 5))}))
    assert dataset.kinds == {"instances"}
    assert [case.id for case in dataset] == ["aa", "bb"]
    assert "one mask per object" in dataset.layout
    numbers = dataset.cases[0].references["instances"].data[0]
    assert_array_equal(np.unique(numbers), [0, 1, 2])
    assert numbers[1, 1] == 1
    assert numbers[13, 13] == 2


def test_folders_above_the_cases_do_not_matter(tmp_path):
    bowl(tmp_path / "stage1_train", {"aa": squares((1, 1), (10, 10)), "bb": squares((5, 5))})
    assert len(dataset_layouts.read_dataset(tmp_path)) == 2


def test_masks_of_objects_are_joined_where_a_structure_is_asked_for(tmp_path):
    bowl(tmp_path, {"aa": squares((1, 1), (10, 10)), "bb": squares((5, 5))})
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(kinds=frozenset({"mask"})))
    assert dataset.kinds == {"mask"}
    assert dataset.cases[0].references["mask"].data.sum() == 32


def test_where_objects_overlap_the_first_has_the_voxels_and_it_is_noted(tmp_path):
    objects = squares((1, 1), (3, 3), (1, 1), (2, 2))
    reference = dataset_layouts.read_dataset(bowl(tmp_path, {"aa": objects})).cases[0].references["instances"]
    assert [int((reference.data == n).sum()) for n in (1, 2, 3, 4)] == [16, 12, 0, 2]
    assert list(reference.notes) == [
        "masks of objects overlap in 34 voxels, which count for the first of them",
        "1 object lies wholly under others: left out",
    ]


def test_a_label_map_is_read_as_numbers_where_they_are_asked_for_and_255_is_one_of_them(tmp_path):
    numbers = np.zeros((20, 24), dtype=np.uint8)
    numbers[2, 2], numbers[5, 5], numbers[9, 9] = 1, 2, 255
    picture(tmp_path / "images" / "a.png", np.full((20, 24), 7, np.uint8))
    picture(tmp_path / "labels" / "a.png", numbers)
    [case] = dataset_layouts.read_dataset(tmp_path, NUMBERED)
    assert set(case.references) == {"instances"}
    assert_array_equal(np.unique(case.references["instances"].data), [0, 1, 2, 255])
    [plain] = dataset_layouts.read_dataset(tmp_path)
    assert set(plain.references) == {"mask"}


def test_volumes_and_numbers_beyond_16_bits_keep_their_numbers(tmp_path):
    numbers = np.zeros((6, 7, 8), dtype=np.int32)
    numbers[1, 1, 1], numbers[4, 4, 4] = 70_000, 3
    volume(tmp_path / "images" / "a.nii.gz", np.zeros((6, 7, 8), np.int16))
    volume(tmp_path / "labels" / "a.nii.gz", numbers)
    [case] = dataset_layouts.read_dataset(tmp_path, NUMBERED)
    assert case.references["instances"].data.max() == 70_000


def test_a_manifest_names_maps_of_objects_in_its_column_of_masks(tmp_path):
    picture(tmp_path / "a.png", np.full((20, 24), 7, np.uint8))
    tifffile.imwrite(tmp_path / "a_objects.tif", np.eye(20, 24, dtype=np.uint16) * 300)
    (tmp_path / "cases.csv").write_text("image,mask\na.png,a_objects.tif\n")
    [case] = dataset_layouts.read_dataset(tmp_path / "cases.csv", NUMBERED)
    assert case.references["instances"].data.max() == 300


def test_several_maps_with_numbers_of_one_image_and_masks_of_other_sizes_are_refused(tmp_path):
    one, other = squares((1, 1), (9, 9))
    numbered = bowl(tmp_path / "numbered", {"aa": [one // 255, other // 85]})
    with pytest.raises(FormatError, match="numbers above 1"):
        _ = dataset_layouts.read_dataset(numbered).cases[0].references["instances"]
    uneven = bowl(tmp_path / "uneven", {"aa": [one, other[:, :-2]]})
    with pytest.raises(GeometryError, match="grid"):
        _ = dataset_layouts.read_dataset(uneven).cases[0].references["instances"]


def test_a_case_with_two_images_is_left_out_and_named(tmp_path):
    bowl(tmp_path, {"aa": squares((1, 1), (10, 10)), "bb": squares((5, 5))})
    picture(tmp_path / "bb" / "images" / "second.png", np.zeros((20, 24), np.uint8))
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="object_masks"))
    assert [case.id for case in dataset] == ["aa"]
    assert dataset.problems[0].cases == ("bb",)


@pytest.mark.parametrize(
    ("folder", "counts"),
    real_data.facts(
        shipped={"dsb2018": (10, 147), "histology": (5, 102)}, corpus={"dsb2018": (120, 5119), "histology": (54, 2442)}
    ),
)
@pytest.mark.parametrize("name", ["dsb2018", "histology"])
def test_the_counts_of_real_sets_are_those_of_their_tables(name, folder, counts):
    cases, objects = counts[name]
    dataset = dataset_layouts.read_dataset(folder / name, NUMBERED)
    assert len(dataset) == cases
    found = [len(np.unique(case.references["instances"].data)) - 1 for case in dataset]
    assert sum(found) == objects
    assert found == [case.covariates["n_nuclei"] for case in dataset]
