"""Images with masks: folders, suffixes, nnU-Net, the Decathlon, BIDS; and what a mask may hold."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from cohorts import paired, picture, volume
from hilum.errors import DatasetError, FormatError, GeometryError
from hilum.layouts import dataset_layouts
from hilum.layouts.cases import cell_loading, class_labels
from hilum.layouts.layout import DatasetOptions


def described(root: Path, **content: object) -> Path:
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def nnunet(root: Path, cases: int = 2, **content: object) -> Path:
    for n in range(cases):
        for channel in range(2):
            volume(root / "imagesTr" / f"c{n}_{channel:04d}.nii.gz", np.full((4, 5, 6), 10 * n + channel, np.int16))
        volume(root / "labelsTr" / f"c{n}.nii.gz", np.arange(120, dtype=np.uint8).reshape(4, 5, 6) % 3)
    standard = {
        "channel_names": {"0": "T2", "1": "ADC"},
        "labels": {"background": 0, "peripheral": 1, "transition": 2},
        "file_ending": ".nii.gz",
    }
    return described(root, **(standard | content))


# Folders


def test_masks_of_0_and_255_become_0_and_1(tmp_path):
    dataset = dataset_layouts.read_dataset(paired(tmp_path))
    assert [class_labels.observed_values(case) for case in dataset] == [(), (1,), (), (1,)]
    assert dataset.cases[1].references["mask"].dtype == np.uint8
    assert "mask" not in dataset.classes


def test_labels_get_names_from_the_flag_or_a_table(tmp_path):
    paired(tmp_path)
    named = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="0=background,1=vessel"))
    assert [(label.value, label.name) for label in named.classes["mask"]] == [(1, "vessel")]
    (tmp_path / "classes.csv").write_text("value,name,red,green,blue\n1,lesion,255,0,0\n")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [(label.value, label.name, label.colour) for label in dataset.classes["mask"]] == [
        (1, "lesion", (255, 0, 0))
    ]
    assert dataset.cases[0].references["mask"].labels == dataset.classes["mask"]


def test_labels_without_images_are_refused(tmp_path):
    picture(tmp_path / "labels" / "a.png")
    with pytest.raises(DatasetError, match="no images"):
        dataset_layouts.read_dataset(tmp_path)


def test_what_has_no_partner_is_said_and_left_out(tmp_path):
    paired(tmp_path)
    picture(tmp_path / "images" / "alone.png")
    picture(tmp_path / "labels" / "lost.png")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len(dataset) == 4
    assert {problem.cases for problem in dataset.problems} == {("lost",), ("alone",)}
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))) == 5


def test_two_images_that_differ_in_suffix_only_are_named_and_left_out(tmp_path):
    for n in range(3):
        volume(tmp_path / "images" / f"a{n}.nii.gz")
        volume(tmp_path / "labels" / f"a{n}.nii.gz", np.ones((4, 5, 6), np.uint8))
    volume(tmp_path / "images" / "a1.nii")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == ["a0", "a2"]
    [problem] = dataset.problems
    assert problem.what.startswith("2 images have the name of another and a different suffix")
    assert problem.cases == ("a1.nii", "a1.nii.gz")


def test_several_masks_of_one_image_are_joined(tmp_path):
    picture(tmp_path / "images" / "a.png")
    for name, column in (("a_mask", 0), ("a_mask_1", 4)):
        mask = np.zeros((4, 5), bool)
        mask[:, column] = True
        (tmp_path / "masks").mkdir(exist_ok=True)
        PIL.Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    [case] = dataset_layouts.read_dataset(tmp_path)
    assert case.references["mask"].data.sum() == 8
    assert len(case.files) == 3


def test_several_masks_on_different_grids_are_refused(tmp_path):
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "masks" / "a_mask.png", 255)
    picture(tmp_path / "masks" / "a_mask_1.png", 255, (5, 5))
    [case] = dataset_layouts.read_dataset(tmp_path)
    with pytest.raises(GeometryError, match="grid"):
        _ = case.references["mask"]


def test_images_and_labels_may_differ_in_the_word_before_the_number(tmp_path):
    for n in range(3):
        picture(tmp_path / "images" / f"img{n:04d}.png")
        picture(tmp_path / "labels" / f"label{n:04d}.png", n)
    assert [class_labels.observed_values(case) for case in dataset_layouts.read_dataset(tmp_path)] == [(), (1,), (2,)]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("x{n}", "x{n}_mask_1"),
        ("x{n}", "reader_anna/x{n}"),
        ("x{n}", "x{n}_1stHO"),
        ("x{n}", "x{n}_liver_mask"),
        ("x{n}", "liver/x{n}_LV"),
        ("img000{n}", "label000{n}"),
        ("left/x{n}", "x{n}"),
        ("x{n}a", "mask_x{n}a"),
        ("bus_000{n}-l", "mask_000{n}-l"),
        ("PANCREAS_000{n}", "label000{n}"),
        ("X{n}", "x{n}_Mask"),
    ],
)
def test_names_pair_as_the_page_on_layouts_lists(tmp_path, image, mask):
    for n in range(3):
        picture(tmp_path / "images" / f"{image.format(n=n)}.png", n)
        picture(tmp_path / "masks" / f"{mask.format(n=n)}.png", n)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.images["image"].data.max() for case in dataset] == [0, 1, 2]
    assert [case.references["mask"].data.max() for case in dataset] == [0, 1, 2]
    assert not dataset.problems


def test_a_file_beside_masks_whose_name_has_no_word_for_them_is_no_structure(tmp_path):
    for name in ("images/x", "masks/x", "masks/x_overlay"):
        picture(tmp_path / f"{name}.png", 1)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len(dataset.cases[0].files) == 2
    assert [problem.what for problem in dataset.problems] == ["1 label has no image"]


def test_images_without_dataset_json_may_have_numbered_channels(tmp_path):
    for n in range(2):
        for channel in range(3):
            volume(tmp_path / "imagesTr" / f"c{n}_{channel:04d}.nii.gz", np.full((4, 5, 6), channel, np.uint8))
        volume(tmp_path / "labelsTr" / f"c{n}.nii.gz")
    case = dataset_layouts.read_dataset(tmp_path).cases[0]
    assert [image.data.max() for image in case.images.values()] == [0, 1, 2]
    assert list(case.images) == ["0", "1", "2"]


def test_a_case_that_lacks_a_channel_is_read_with_those_it_has_and_said_so(tmp_path):
    for n in range(3):
        for channel in range(2):
            volume(tmp_path / "imagesTr" / f"c{n}_{channel:04d}.nii.gz")
        volume(tmp_path / "labelsTr" / f"c{n}.nii.gz")
    (tmp_path / "imagesTr" / "c1_0000.nii.gz").unlink()
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [list(case.images) for case in dataset] == [["0", "1"], ["0001"], ["0", "1"]]
    assert dataset.cases[1].images["0001"].channels == ("0001",)
    assert (dataset.problems[0].what, dataset.problems[0].cases) == ("channel 0: 1 of 3 cases lack it", ("c1",))


def test_a_channel_that_dataset_json_does_not_name_is_said_and_its_case_left_out(tmp_path):
    for n, channels in enumerate((2, 3, 1)):
        for channel in range(channels):
            volume(tmp_path / "imagesTr" / f"c{n}_{channel:04d}.nii.gz")
        volume(tmp_path / "labelsTr" / f"c{n}.nii.gz")
    described = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "one": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {case.id: list(case.images) for case in dataset} == {"c0": ["T1", "T2"], "c2": ["T1"]}
    assert dataset.problems[0].cases == ("c1",)
    assert dataset.problems[1].what == "channel T2: 1 of 2 cases lack it"


def test_a_blank_cell_is_an_image_that_a_case_lacks(tmp_path):
    for name in ("a1", "a2", "b2"):
        volume(tmp_path / f"{name}.nii.gz")
    (tmp_path / "cases.csv").write_text("id,t1,t2,label\na,a1.nii.gz,a2.nii.gz,ill\nb,,b2.nii.gz,well\n")
    options = DatasetOptions(column={"image:T1": "t1", "image:T2": "t2"})
    dataset = dataset_layouts.read_dataset(tmp_path / "cases.csv", options)
    assert [[image.channels for image in case.images.values()] for case in dataset] == [[("0",), ("0",)], [("T2",)]]
    assert dataset.problems[0].what == "channel T1: 1 of 2 cases lack it"


def test_class_folders_inside_images_and_masks_are_classes(tmp_path):
    for name in ("benign", "malignant", "normal"):
        for n in range(2):
            picture(tmp_path / "images" / name / f"{name} ({n}).png", n)
            picture(tmp_path / "masks" / name / f"{name} ({n})_mask.png", 0 if name == "normal" else 255)
    picture(tmp_path / "masks" / "benign" / "benign (1)_mask_1.png", 255)
    cases = {case.id: case for case in dataset_layouts.read_dataset(tmp_path)}
    classes = ["benign", "malignant", "normal"]
    assert {name: case.references["class"] for name, case in cases.items()} == {
        f"{name} ({n})": name for name in classes for n in range(2)
    }
    assert [len(cases[f"benign ({n})"].files) for n in range(2)] == [2, 3]
    assert class_labels.observed_values(cases["malignant (0)"]) == (1,)
    assert class_labels.observed_values(cases["normal (1)"]) == ()


def test_a_real_set_of_class_folders_inside_images_has_its_classes(corpus):
    dataset = dataset_layouts.read_dataset(corpus / "ultrasound")
    assert [label.name for label in dataset.classes["class"]] == ["benign", "malignant", "normal"]
    case = next(case for case in dataset if case.id == "benign (83)")
    assert case.references["class"] == "benign"
    assert len(case.files) == 3  # the image and two masks
    normal = next(case for case in dataset if case.references["class"] == "normal")
    assert class_labels.observed_values(normal) == ()


def test_the_hippocampus_is_read_as_its_readme_says(data):
    dataset = dataset_layouts.read_dataset(
        data / "hippocampus", DatasetOptions(labels="1=anterior,2=posterior", modality="MR")
    )
    assert [label.name for label in dataset.classes["mask"]] == ["anterior", "posterior"]
    assert all(class_labels.observed_values(case) == (1, 2) for case in dataset.cases[::20])
    for case in dataset.cases[::20]:
        image, mask = case.images["image"], case.references["mask"]
        assert mask.geometry.equals(image.geometry)
        assert (mask.dtype, image.modality) == (np.uint8, "MR")


# Suffixes


def test_the_first_observer_of_a_real_set_is_the_reference_and_the_second_is_kept(corpus):
    dataset = dataset_layouts.read_dataset(corpus / "chasedb1")
    case = dataset.cases[0]
    assert set(case.references) == {"mask", "mask:2ndHO"}
    assert "1stHO is the reference" in dataset.layout
    with PIL.Image.open(corpus / "chasedb1" / "Image_01L_1stHO.png") as first:
        assert_array_equal(case.references["mask"].data[0], np.asarray(first))


def test_image_and_mask_may_both_have_a_suffix(tmp_path):
    labels = np.arange(120, dtype=np.uint8).reshape(4, 5, 6) % 4
    for n, (name, mask) in enumerate((("brain_flair", "brain_flair_lesion_mask"), ("cord_t2", "cord_t2_mask"))):
        volume(tmp_path / f"{name}_image.nii.gz", np.full((4, 5, 6), n, np.int16))
        volume(tmp_path / f"{mask}.nii.gz", labels)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == ["brain_flair", "cord_t2"]
    assert [case.images["image"].data.max() for case in dataset] == [0, 1]
    assert [class_labels.observed_values(case) for case in dataset] == [(1, 2, 3)] * 2


def test_image_and_mask_of_real_volumes_may_both_have_a_suffix(corpus):
    dataset = dataset_layouts.read_dataset(corpus / "mri" / "single_cases")
    assert [case.id for case in dataset] == ["brain_flair", "cord_t2", "ct_spleen2"]
    assert class_labels.observed_values(dataset.cases[0]) == (1, 2, 3)


def half(path: Path, *, upper: bool) -> None:
    """A mask of the upper or the lower half of a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.repeat([[255 * upper], [255 * (not upper)]], 4, axis=0).astype(np.uint8).repeat(8, 1)).save(
        path
    )


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{n}", "{n}_{structure}_mask"),
        ("images/{n}", "masks/{structure}/{n}"),
        ("CXR_png/{n}", "ManualMask/{structure}/{n}"),
        ("{n}", "masks/{structure}/{n}"),
        ("1. Original Images/a. Training Set/{n}", "2. Groundtruths/a. Training Set/1. {structure}/{n}_ABC"),
    ],
)
def test_masks_of_several_structures_become_one_label_map(tmp_path, image, mask):
    for n in ("x1", "x2", "x3"):
        picture(tmp_path / f"{image.format(n=n)}.png", shape=(8, 8))
        for structure in ("liver", "spleen"):
            half(tmp_path / f"{mask.format(n=n, structure=structure)}.png", upper=structure == "liver")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [(label.value, label.name) for label in dataset.classes["mask"]] == [(1, "liver"), (2, "spleen")]
    assert len(dataset) == 3
    assert not dataset.problems
    for case in dataset:
        assert_array_equal(case.references["mask"].data[0], np.repeat([1, 2], 4)[:, None].repeat(8, 1))
    chosen = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="7=spleen"))
    assert [class_labels.observed_values(case) for case in chosen] == [(7,)] * 3


@pytest.mark.parametrize(("image", "mask"), [("{n}", "{n}_{structure}_mask"), ("images/{n}", "masks/{structure}/{n}")])
def test_a_case_that_lacks_the_mask_of_a_structure_is_left_out_and_named(tmp_path, image, mask):
    for n in ("x1", "x2", "x3"):
        picture(tmp_path / f"{image.format(n=n)}.png", shape=(8, 8))
        for structure in ("liver", "spleen")[: 1 if n == "x2" else 2]:
            half(tmp_path / f"{mask.format(n=n, structure=structure)}.png", upper=structure == "liver")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == ["x1", "x3"]
    assert dataset.problems[0].what == "1 case lacks masks of some of liver, spleen"
    assert dataset.problems[0].cases == ("x2",)


def test_one_folder_around_all_masks_is_no_structure(tmp_path):
    for n in ("x1", "x2", "x3"):
        picture(tmp_path / "images" / f"{n}.png", shape=(8, 8))
        map_of = tmp_path / "masks" / "png" / f"{n}.png"
        map_of.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 3).save(map_of)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [class_labels.observed_values(case) for case in dataset] == [(1, 2)] * 3
    assert "mask" not in dataset.classes


def test_masks_of_several_structures_and_a_mask_of_none_are_refused(tmp_path):
    picture(tmp_path / "a.png")
    for name in ("a_liver_mask", "a_spleen_mask", "a_mask"):
        picture(tmp_path / f"{name}.png", 255)
    with pytest.raises(DatasetError, match="liver, spleen"):
        dataset_layouts.read_dataset(tmp_path)


def test_several_structures_by_several_people_are_refused(tmp_path):
    picture(tmp_path / "a.png")
    for name in ("a_liver_1st", "a_spleen_1st", "a_liver_2nd"):
        picture(tmp_path / f"{name}.png", 255)
    with pytest.raises(DatasetError, match=r"structures \(liver, spleen\) and of several people"):
        dataset_layouts.read_dataset(tmp_path)


def test_masks_beside_images_in_class_folders_give_both(tmp_path):
    for name in ("benign", "malignant"):
        for n in range(2):
            picture(tmp_path / name / f"{name} ({n}).png")
            picture(tmp_path / name / f"{name} ({n})_mask.png", 255)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.kinds == {"class", "mask"}
    assert len(dataset) == 4


# What a mask may hold


@given(arrays(np.int32, (3, 4), elements=st.integers(0, 254)))
def test_label_numbers_are_kept(pixels):
    assert_array_equal(cell_loading.as_label_values(pixels, frozenset(), Path("mask")), pixels)
    assert_array_equal(cell_loading.as_label_values(pixels.astype(np.float32), frozenset(), Path("mask")), pixels)


@given(arrays(bool, (3, 4)))
def test_whichever_way_a_binary_mask_is_stored_it_is_0_and_1(mask):
    for stored in (mask, mask.astype(np.uint8), mask.astype(np.uint8) * 255, mask.astype(np.float64)):
        assert_array_equal(cell_loading.as_label_values(stored, frozenset(), Path("mask")), mask)


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        (np.array([[0.0, 0.5]]), "between"),
        (np.array([[0.0, np.nan]]), "between"),
        (np.array([[0, -1]]), "-1"),
        (np.array([[0, 128, 255]], np.uint8), "--labels"),
    ],
)
def test_what_is_no_label_map_is_refused(pixels, problem):
    with pytest.raises(FormatError, match=problem):
        cell_loading.as_label_values(pixels, frozenset(), Path("mask"))


def test_labels_that_a_scale_factor_has_rounded_are_whole_again():
    rounded = np.array([0, 1.0000001, 1.99999, 128 * 2 / 255, 3])
    assert cell_loading.as_label_values(rounded, frozenset(), Path("x")).tolist() == [0, 1, 2, 1, 3]


def test_values_between_whole_numbers_are_named_and_their_voxels_counted():
    pixels = np.array([0, 1.4, 1.4, 2.4, 3.4, 4.4, np.nan])
    with pytest.raises(
        FormatError, match=r"\(1.4, 2.4, 3.4 and 2 more, in 6 voxels\).*round them if an offset"
    ) as found:
        cell_loading.as_label_values(pixels, frozenset(), Path("mask"))
    assert "nearest neighbour" in found.value.remedy


def test_255_is_a_label_where_it_is_declared():
    pixels = np.array([[0, 128, 255]], np.uint8)
    assert_array_equal(cell_loading.as_label_values(pixels, frozenset({128, 255}), Path("mask")), pixels)


def test_a_palette_picture_is_a_label_map_of_its_indices(tmp_path):
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    palette = PIL.Image.fromarray((np.arange(20).reshape(4, 5) % 3).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    palette.save(tmp_path / "labels" / "a.png")
    [case] = dataset_layouts.read_dataset(tmp_path)
    assert class_labels.observed_values(case) == (1, 2)
    assert case.references["mask"].labels[0].colour == (128, 0, 0)


def test_a_grey_mask_that_was_packed_into_a_palette_keeps_its_values(tmp_path):
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    mask = np.zeros((4, 5), np.uint8)
    mask[1:3] = 1
    packed = PIL.Image.fromarray(1 - mask, mode="P")  # white is index 0, black is index 1
    packed.putpalette([255, 255, 255, 0, 0, 0])
    packed.save(tmp_path / "labels" / "a.png")
    [case] = dataset_layouts.read_dataset(tmp_path)
    assert_array_equal(case.references["mask"].data[0], mask)


def test_a_mask_in_colours_or_blurred_by_jpeg_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for name in ("a", "b"):
        picture(tmp_path / "images" / f"{name}.png", shape=(16, 16))
    (tmp_path / "masks").mkdir()
    PIL.Image.fromarray(noise).save(tmp_path / "masks" / "a.png")
    PIL.Image.fromarray(((noise[..., 0] > 128) * 255).astype(np.uint8)).save(tmp_path / "masks" / "b.jpg", quality=50)
    colours, blurred = dataset_layouts.read_dataset(tmp_path).cases
    with pytest.raises(FormatError, match="colours"):
        _ = colours.references["mask"]
    with pytest.raises(FormatError, match="JPEG"):
        _ = blurred.references["mask"]


@pytest.mark.parametrize("alpha", [False, True])
def test_a_mask_in_colours_is_read_by_the_colours_of_the_table_of_labels(tmp_path, alpha):
    numbers = np.random.default_rng(0).integers(0, 3, (16, 12), dtype=np.uint8)
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 255]], np.uint8)[numbers]
    opaque = np.full((16, 12, 1), 255, np.uint8)
    picture(tmp_path / "images" / "a.png", shape=(16, 12))
    (tmp_path / "masks").mkdir()
    PIL.Image.fromarray(np.concatenate([colours, opaque], axis=2) if alpha else colours).save(tmp_path / "masks/a.png")
    (tmp_path / "classes.csv").write_text("value,name,red,green,blue\n1,artery,255,0,0\n2,vein,0,128,255\n")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert_array_equal(dataset.cases[0].references["mask"].data[0], numbers)
    assert [label.name for label in dataset.classes["mask"]] == ["artery", "vein"]


@pytest.mark.parametrize(
    ("table", "colour"),
    [("1,artery,255,0,0", (254, 0, 0)), ("1,artery,255,0,0\n2,vein,255,0,0\n3,nerve,0,0,255", (255, 0, 0))],
)
def test_a_colour_that_is_not_that_of_one_label_is_refused_with_the_colour(tmp_path, table, colour):
    colours = np.zeros((4, 5, 3), np.uint8)
    colours[1:3] = colour
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    PIL.Image.fromarray(colours).save(tmp_path / "masks" / "a.png")
    (tmp_path / "classes.csv").write_text(f"value,name,red,green,blue\n{table}\n")
    [case] = dataset_layouts.read_dataset(tmp_path)
    with pytest.raises(FormatError, match=re.escape(f"has the colour {colour}, which is not that of one label")):
        _ = case.references["mask"]


# nnU-Net and the Decathlon


def test_nnunet_channels_have_the_names_and_order_of_dataset_json(tmp_path):
    dataset = dataset_layouts.read_dataset(nnunet(tmp_path))
    case = dataset.cases[1]
    assert list(case.images) == ["T2", "ADC"]
    assert [int(image.data.max()) for image in case.images.values()] == [10, 11]
    assert [label.name for label in dataset.classes["mask"]] == ["peripheral", "transition"]
    assert dataset.modality == "MR"
    assert dataset.splits == {}


def test_nnunets_test_images_are_test_cases_only_with_labels(tmp_path):
    nnunet(tmp_path)
    for channel in range(2):
        volume(tmp_path / "imagesTs" / f"t_{channel:04d}.nii.gz")
    assert len(dataset_layouts.read_dataset(tmp_path)) == 2
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))) == 3
    volume(tmp_path / "labelsTs" / "t.nii.gz")
    assert dataset_layouts.read_dataset(tmp_path).splits == {"t": "test"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"labels": {"background": 0, "whole": [1, 2]}}, "regions_class_order"),
        ({"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [3, 2]}, "marked by 3"),
        ({"labels": {"background": 0, "whole": ["1", "two"]}, "regions_class_order": [1]}, "not a list of mask values"),
        ({"channel_names": {"0": "T2", "1": "T2"}}, "one name"),
        ({"channel_names": ["T2", "ADC"]}, "channel_names"),
    ],
)
def test_a_dataset_json_that_cannot_be_followed_is_refused(tmp_path, content, problem):
    with pytest.raises(DatasetError, match=problem):
        dataset_layouts.read_dataset(nnunet(tmp_path, **content))


def test_a_damaged_dataset_json_is_refused(tmp_path):
    nnunet(tmp_path)
    (tmp_path / "dataset.json").write_text('{"labels": ')
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        dataset_layouts.read_dataset(tmp_path)


def decathlon(root: Path, training: list[object]) -> Path:
    volume(root / "imagesTr" / "a.nii.gz", np.stack([np.full((4, 5, 6), n, np.int16) for n in (3, 5)], axis=-1))
    volume(root / "labelsTr" / "a.nii.gz", np.arange(120, dtype=np.uint8).reshape(4, 5, 6) % 2)
    return described(
        root,
        modality={"0": "T1", "1": "FLAIR"},
        labels={"0": "background", "1": "tumour"},
        training=training,
        test=["./imagesTs/b.nii.gz"],
    )


def test_the_decathlons_fourth_axis_is_channels(tmp_path):
    decathlon(tmp_path, [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}])
    dataset = dataset_layouts.read_dataset(tmp_path)
    [case] = dataset
    assert {name: int(image.data.min()) for name, image in case.images.items()} == {"T1": 3, "FLAIR": 5}
    assert case.images["T1"].shape == (1, 4, 5, 6)
    assert [label.name for label in dataset.classes["mask"]] == ["tumour"]
    assert class_labels.observed_values(case) == (1,)


def test_paths_that_lead_out_of_the_folder_are_not_followed(tmp_path):
    volume(tmp_path / "secret.nii.gz")
    inside = decathlon(tmp_path / "set", [{"image": "../secret.nii.gz", "label": "./labelsTr/a.nii.gz"}])
    with pytest.raises(DatasetError, match="outside"):
        dataset_layouts.read_dataset(inside)


def test_listed_files_that_are_missing_are_said_and_left_out(tmp_path):
    pairs = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in "ab"]
    dataset = dataset_layouts.read_dataset(decathlon(tmp_path, pairs))
    assert [case.id for case in dataset] == ["a"]
    assert dataset.problems[0].cases == ("b",)


def test_a_count_of_cases_that_the_list_contradicts_is_said(tmp_path):
    folder = decathlon(tmp_path / "listed", [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}])
    for place, count in ((folder, 1), (nnunet(tmp_path / "named"), 2)):
        content = json.loads((place / "dataset.json").read_text())
        for stated, said in ((count, []), (count + 3, [f"states {count + 3} training cases"])):
            (place / "dataset.json").write_text(json.dumps({**content, "numTraining": stated}))
            warnings = [one.what for one in dataset_layouts.read_dataset(place).problems if "numTraining" in one.what]
            assert len(warnings) == len(said)
            assert all(words in warning for words, warning in zip(said, warnings, strict=True))


def test_as_many_volumes_as_modalities_are_needed(tmp_path):
    decathlon(tmp_path, [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}])
    volume(tmp_path / "imagesTr" / "a.nii.gz")
    [case] = dataset_layouts.read_dataset(tmp_path)
    with pytest.raises(DatasetError, match="2 channels"):
        _ = case.images["FLAIR"]


# BIDS


def test_bids_sessions_are_cases_with_contrasts_as_channels(tmp_path):
    for subject in ("01", "02"):
        for contrast in ("T1w", "FLAIR"):
            volume(tmp_path / f"sub-{subject}" / "ses-1" / "anat" / f"sub-{subject}_ses-1_{contrast}.nii.gz")
        volume(tmp_path / f"sub-{subject}" / "ses-1" / "func" / f"sub-{subject}_ses-1_task-rest_bold.nii.gz")
        place = tmp_path / "derivatives" / "labels" / f"sub-{subject}" / "ses-1" / "anat"
        volume(place / f"sub-{subject}_ses-1_space-orig_dseg.nii.gz", np.ones((4, 5, 6), np.uint8))
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\nsub-01\t40\tF\nsub-02\tn/a\tM\n")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == ["sub-01_ses-1", "sub-02_ses-1"]
    assert [case.patient for case in dataset] == ["sub-01", "sub-02"]
    assert list(dataset.cases[0].images) == ["FLAIR", "T1w"]
    assert class_labels.observed_values(dataset.cases[0]) == (1,)
    assert dataset.cases[1].covariates == {"age": None, "sex": "M"}
    assert dataset.modality == "MR"
    assert dataset.patients_known


@pytest.mark.parametrize("first", ["derivatives/auto", "."])
def test_masks_of_two_sources_in_bids_are_refused_and_not_joined(tmp_path, first):
    for subject in ("sub-01", "sub-02"):
        volume(tmp_path / subject / "anat" / f"{subject}_T1w.nii.gz")
        volume(tmp_path / "derivatives" / "prep" / subject / "anat" / f"{subject}_desc-brain_mask.nii.gz")
        volume(tmp_path / first / subject / "anat" / f"{subject}_dseg.nii.gz")
    assert len(dataset_layouts.read_dataset(tmp_path)) == 2  # that of the brain is not meant
    volume(tmp_path / "derivatives" / "manual" / "sub-02" / "anat" / "sub-02_label-lesion_mask.nii.gz")
    with pytest.raises(DatasetError, match=r"sub-02 has masks of 2 sources \(.*derivatives/manual") as refused:
        dataset_layouts.read_dataset(tmp_path)
    assert "move the others out of the folder" in refused.value.remedy
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))) == 2


def test_a_contrast_that_some_sessions_lack_is_said_and_left_out(tmp_path):
    for subject in ("01", "02"):
        volume(tmp_path / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz")
        volume(tmp_path / f"sub-{subject}" / "anat" / f"sub-{subject}_dseg.nii.gz")
    volume(tmp_path / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert list(dataset.cases[0].images) == ["image"]
    assert "T2w" in dataset.problems[0].what


def test_a_lone_file_with_a_number_is_a_channel_only_to_a_model_that_does_without_the_others(tmp_path):
    volume(tmp_path / "x_0001.nii.gz")
    with_both = DatasetOptions(references=False, channels=2)
    assert [case.id for case in dataset_layouts.read_dataset(tmp_path, with_both)] == ["x_0001"]
    [case] = dataset_layouts.read_dataset(tmp_path, replace(with_both, absent=True))
    assert (case.id, list(case.images), case.images["0001"].channels) == ("x", ["0001"], ("0001",))


def test_an_ome_tiff_is_named_without_both_of_its_suffixes(tmp_path):
    for n in range(3):
        tifffile.imwrite(tmp_path / f"x{n}.ome.tif", np.full((4, 5), n, np.uint8), ome=True)
        tifffile.imwrite(tmp_path / f"x{n}_mask.ome.tiff", np.ones((4, 5), np.uint8), ome=True)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [(case.id, class_labels.observed_values(case)) for case in dataset] == [
        ("x0", (1,)),
        ("x1", (1,)),
        ("x2", (1,)),
    ]


@pytest.mark.parametrize("kind", [bool, np.uint8, np.uint16])
def test_a_label_map_has_its_numbers_however_they_are_to_be_shown(tmp_path, kind):
    """tifffile writes truths with 0 as white, as ImageJ does masks."""
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 2:5] = 1
    for n in range(2):
        picture(tmp_path / "images" / f"x{n}.png", n, shape=(6, 8))
        (tmp_path / "masks").mkdir(exist_ok=True)
        values = mask.astype(kind) if kind is bool else (mask * 2).astype(kind)
        tifffile.imwrite(tmp_path / "masks" / f"x{n}.tif", values, photometric="miniswhite")
    case = dataset_layouts.read_dataset(tmp_path).cases[0]
    assert_array_equal(case.references["mask"].data[0], mask if kind is bool else 2 * mask)
    assert any("0 is white" in note for note in case.references["mask"].notes)


def test_contrasts_on_a_fourth_axis_are_named_by_dataset_json_alone(tmp_path):
    for n in range(2):
        volume(tmp_path / "images" / f"c{n}.nii", np.stack([np.full((4, 5, 6), v, np.float32) for v in (1, 2)], -1))
        volume(tmp_path / "labels" / f"c{n}.nii")
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "FLAIR", "1": "T1w"}, "labels": {"1": "tumour"}}')
    case = dataset_layouts.read_dataset(tmp_path).cases[0]
    assert {name: float(image.data.max()) for name, image in case.images.items()} == {"FLAIR": 1, "T1w": 2}
    assert case.images["FLAIR"].geometry.equals(case.references["mask"].geometry)
    for name in ("decathlon", "nnunet"):
        (tmp_path / "bare" / "images").mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "images" / "c0.nii", tmp_path / "bare" / "images")
        with pytest.raises(DatasetError, match=r"dataset\.json: there is no such file"):
            dataset_layouts.read_dataset(tmp_path / "bare", DatasetOptions(layout=name))
    with pytest.raises(DatasetError, match="lists no training pairs"):
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="decathlon"))


def test_what_is_no_number_in_a_mask_is_background(tmp_path):
    volume(tmp_path / "images" / "c0.nii", np.ones((4, 5, 6), np.float32))
    volume(tmp_path / "labels" / "c0.nii", np.where(np.indices((4, 5, 6))[0] == 1, 2.0, np.nan).astype(np.float32))
    mask = dataset_layouts.read_dataset(tmp_path).cases[0].references["mask"]
    assert np.unique(mask.data).tolist() == [0, 2] and any("NaN" in note for note in mask.notes)
