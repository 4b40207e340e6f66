"""Folders of images and masks, known by how their names end; masks that JPEG has blurred."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest

from cohorts import picture, volume
from hilum.errors import DatasetError, FormatError
from hilum.layouts import dataset_layouts
from hilum.layouts.cases import class_labels
from hilum.layouts.layout import DatasetOptions
from hilum.quality import dataset_examination


@pytest.mark.parametrize(
    ("images", "labels", "suffix"),
    [
        ("train_images", "train_masks", ""),
        ("ISIC2018_Task1_Input", "ISIC2018_Task1_GroundTruth", "_segmentation"),
        ("Photos", "ManualMask", "_mask"),
        ("JPEGImages", "SegmentationClass", ""),
        ("Original", "Ground truth", ""),
        ("CXR_png", "ManualMask", ""),
        ("ct", "masks", "_mask"),
        ("train/Original/left", "train/Ground truth/left", ""),
    ],
)
def test_folders_are_known_by_how_their_names_end(tmp_path, images, labels, suffix):
    for n in range(3):
        picture(tmp_path / images / f"x{n}.png", n)
        picture(tmp_path / labels / f"x{n}{suffix}.png", 255)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [(case.id, class_labels.observed_values(case)) for case in dataset] == [
        ("x0", (1,)),
        ("x1", (1,)),
        ("x2", (1,)),
    ]


def test_a_folder_of_masks_is_no_class_unless_all_are_called_so(tmp_path):
    for name, letter in (("CXR_png", "x"), ("ManualMask", "y")):
        for n in range(3):
            picture(tmp_path / "lungs" / name / f"{letter}{n}.png")
    with pytest.raises(DatasetError, match="no labels"):
        dataset_layouts.read_dataset(tmp_path / "lungs")
    for name in ("with_mask", "without_mask"):
        for n in range(3):
            picture(tmp_path / "faces" / name / f"x{n}.png")
    assert dataset_layouts.read_dataset(tmp_path / "faces").kinds == {"class"}


def test_pictures_that_look_like_masks_of_others_are_no_images_of_a_class(tmp_path):
    for name in ("benign", "malignant"):
        for n in range(3):
            photo(tmp_path / name / f"x{n}.png", n)
            label_map(tmp_path / name / f"x{n}_border.png")
    with pytest.raises(DatasetError, match=r"benign/x0_border.png may be masks"):
        dataset_layouts.read_dataset(tmp_path)
    for n in range(3):
        photo(tmp_path / "benign" / f"x{n}_border.png", n)
        photo(tmp_path / "malignant" / f"x{n}_border.png", n)
    assert len(dataset_layouts.read_dataset(tmp_path)) == 12


def photo(path: Path, seed: int) -> Path:
    """A picture of many values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (256, 256), np.uint8)).save(path)
    return path


def label_map(path: Path, values: int = 1, dtype: type = np.uint8) -> Path:
    """A label map of flat squares."""
    path.parent.mkdir(parents=True, exist_ok=True)
    squares = np.zeros((256, 256), dtype)
    for value in range(1, values + 1):
        row, column = divmod(value - 1, 8)
        squares[32 * row : 32 * row + 30, 32 * column : 32 * column + 30] = value
    PIL.Image.fromarray(squares).save(path)
    return path


@pytest.mark.parametrize("masks", ["target", "gts", "contours", "y", "manual"])
@pytest.mark.parametrize("images", ["scans", "images"])
def test_a_folder_of_label_maps_with_the_names_of_the_images_holds_their_masks_whatever_it_is_called(
    tmp_path, images, masks
):
    for n in range(3):
        photo(tmp_path / images / f"x{n}.png", n)
        label_map(tmp_path / masks / f"x{n}.png")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.kinds == {"mask"}
    assert [(case.id, class_labels.observed_values(case)) for case in dataset] == [
        ("x0", (1,)),
        ("x1", (1,)),
        ("x2", (1,)),
    ]


def test_such_folders_inside_classes_are_masks_too(tmp_path):
    for name in ("benign", "malignant"):
        for n in range(3):
            photo(tmp_path / name / "scans" / f"{n}.png", n)
            label_map(tmp_path / name / "target" / f"{n}.png")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert (len(dataset), dataset.kinds) == (6, {"mask", "class"})


@pytest.mark.parametrize("masks", ["masks", "Ground truth", "target"])
@pytest.mark.parametrize("above", ["", "knees"])
def test_images_may_lie_beside_the_folder_of_their_masks(tmp_path, masks, above):
    for n in range(3):
        photo(tmp_path / above / f"x{n}.png", n)
        label_map(tmp_path / above / masks / f"x{n}.png")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.kinds == {"mask"}
    assert [case.id.rpartition("/")[2] for case in dataset] == ["x0", "x1", "x2"]
    assert all(class_labels.observed_values(case) == (1,) for case in dataset)
    assert not dataset.problems


@pytest.mark.parametrize("masks", ["masks", "target"])
def test_images_beside_their_masks_in_folders_of_classes_have_both(tmp_path, masks):
    for name in ("benign", "malignant"):
        for n in range(3):
            photo(tmp_path / name / f"{n}.png", n)
            label_map(tmp_path / name / masks / f"{n}.png")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert (len(dataset), dataset.kinds) == (6, {"mask", "class"})


@pytest.mark.parametrize("masks", ["masks", "target"])
def test_two_places_of_images_with_the_names_of_the_masks_are_asked_about(tmp_path, masks):
    for n in range(3):
        photo(tmp_path / f"x{n}.png", n)
        photo(tmp_path / "overlays" / f"x{n}.png", n + 9)
        label_map(tmp_path / masks / f"x{n}.png")
    with pytest.raises(DatasetError, match=r"the folder itself.* overlays/"):
        dataset_layouts.read_dataset(tmp_path)


def test_folders_of_contrasts_beside_one_of_masks_are_channels(tmp_path):
    for n in range(3):
        for value, name in enumerate(("T1", "T2", "FLAIR")):
            volume(tmp_path / name / f"sub{n}.nii.gz", np.full((4, 5, 6), 10 * n + value, np.int16))
        volume(tmp_path / "seg" / f"sub{n}.nii.gz", np.eye(4, 5, dtype=np.uint8)[:, :, None].repeat(6, 2))
    (tmp_path / "T2" / "sub1.nii.gz").unlink()
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert (len(dataset), dataset.kinds, dataset.modality) == (3, {"mask"}, "MR")
    assert [list(case.images) for case in dataset] == [["FLAIR", "T1", "T2"], ["FLAIR", "T1"], ["FLAIR", "T1", "T2"]]
    assert [int(image.data.max()) for image in dataset.cases[2].images.values()] == [22, 20, 21]
    assert all(class_labels.observed_values(case) == (1,) for case in dataset)


@pytest.mark.parametrize("mask", ["{n}_seg", "{n}"])
def test_contrasts_in_the_names_of_images_are_channels_too(tmp_path, mask):
    for n in range(3):
        for value, name in enumerate(("t1", "flair")):
            volume(tmp_path / "images" / f"sub{n}_{name}.nii.gz", np.full((4, 5, 6), 10 * n + value, np.int16))
        label = np.eye(4, 5, dtype=np.uint8)[:, :, None].repeat(6, 2)
        volume(tmp_path / "labels" / f"{mask.format(n=f'sub{n}')}.nii.gz", label)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [(case.id, list(case.images)) for case in dataset] == [(f"sub{n}", ["flair", "t1"]) for n in range(3)]
    assert [int(image.data.max()) for image in dataset.cases[2].images.values()] == [21, 20]
    assert all(class_labels.observed_values(case) == (1,) for case in dataset)


def test_images_of_several_kinds_of_which_each_case_has_one_are_no_channels(tmp_path):
    for n, name in enumerate(("ct", "mr", "ct", "mr")):
        picture(tmp_path / "images" / f"x{n}_{name}.png", n)
        picture(tmp_path / "masks" / f"x{n}_{name}.png", 255)
    assert [list(case.images) for case in dataset_layouts.read_dataset(tmp_path)] == [["image"]] * 4


@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_images_of_several_contrasts_that_have_masks_of_their_own_are_cases(tmp_path, suffix):
    for n in range(3):
        for name in ("t1", "flair"):
            picture(tmp_path / "images" / f"sub{n}_{name}.png", n)
            picture(tmp_path / "masks" / f"sub{n}_{name}{suffix}.png", 255)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [list(case.images) for case in dataset] == [["image"]] * 6
    assert all(class_labels.observed_values(case) == (1,) for case in dataset)


def test_images_and_labels_of_several_parts_keep_them(tmp_path):
    for part in ("Tr", "Va", "Ts"):
        for n in range(2):
            picture(tmp_path / f"images{part}" / f"{part}{n}.png", n)
            picture(tmp_path / f"labels{part}" / f"{part}{n}.png", 255)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {dataset.splits[case.id] for case in dataset if case.id.startswith("Va")} == {"val"}
    assert {dataset.splits[case.id] for case in dataset if case.id.startswith("Ts")} == {"test"}
    assert (len(dataset), dataset.problems) == (6, ())


def test_a_picture_beside_folders_of_images_and_masks_is_only_noted(tmp_path):
    photo(tmp_path / "overview.png", 9)
    for n in range(3):
        photo(tmp_path / "scans" / f"x{n}.png", n)
        label_map(tmp_path / "target" / f"x{n}.png")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert (len(dataset), dataset.kinds) == (3, {"mask"})
    assert "1 image lies outside" in dataset.problems[0].what


def test_masks_that_jpeg_has_blurred_are_not_a_class(tmp_path):
    for n in range(3):
        photo(tmp_path / "scans" / f"x{n}.png", n)
        (tmp_path / "target").mkdir(exist_ok=True)
        square = np.zeros((256, 256), np.uint8)
        square[40:160, 40:160] = 255
        PIL.Image.fromarray(square).save(tmp_path / "target" / f"x{n}.jpg")
    assert dataset_layouts.read_dataset(tmp_path).kinds == {"mask"}


def test_folders_that_may_be_masks_or_classes_are_asked_about(tmp_path):
    for name, picture_of in (("a", photo), ("b", photo)):
        for n in range(3):
            picture_of(tmp_path / name / f"{n}.png", n)
    assert dataset_layouts.read_dataset(tmp_path).kinds == {"class"}
    for n in range(3):
        label_map(tmp_path / "c" / f"{n}.png")
    with pytest.raises(DatasetError, match=r"the files in c/ look like masks.*a/, b/.*--layout class_folders"):
        dataset_layouts.read_dataset(tmp_path)
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="class_folders"))) == 9


def test_maps_of_many_objects_are_asked_about(tmp_path):
    for n in range(3):
        photo(tmp_path / "scans" / f"x{n}.png", n)
        label_map(tmp_path / "objects" / f"x{n}.png", 40, np.uint16)
    with pytest.raises(DatasetError, match="objects/ look like masks"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_table_with_labels_goes_before_what_folders_look_like(tmp_path):
    for n in range(3):
        photo(tmp_path / "images" / f"x{n}.png", n)
        label_map(tmp_path / "target" / f"x{n}.png")
    (tmp_path / "table.csv").write_text("image,label\nimages/x0.png,a\nimages/x1.png,b\nimages/x2.png,a\n")
    assert dataset_layouts.read_dataset(tmp_path).kinds == {"class"}


def blurred(root: Path, mask: np.ndarray) -> np.ndarray:
    """A mask as JPEG beside its image, read again."""
    picture(root / "images" / "x.jpg", shape=mask.shape)
    (root / "masks").mkdir()
    PIL.Image.fromarray(mask).save(root / "masks" / "x.jpg", quality=90)
    [case] = dataset_layouts.read_dataset(root)
    return case.references["mask"].data[0]


def test_a_mask_of_black_and_white_survives_jpeg(tmp_path):
    rows, columns = np.mgrid[:120, :160]
    disc = (rows - 60) ** 2 + (columns - 70) ** 2 < 35**2
    found = blurred(tmp_path, (255 * disc).astype(np.uint8))
    assert set(np.unique(found)) == {0, 1}
    assert np.count_nonzero(found != disc) < 0.002 * disc.sum()


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 100, 200), (0, 128, 255)])
def test_other_label_maps_do_not_and_are_refused(tmp_path, values):
    contoured = np.repeat(np.array(values, np.uint8), 40)[None].repeat(60, axis=0)
    noise = np.random.default_rng(0).integers(0, 3, contoured.shape, np.uint8) * (max(values) < 3)
    with pytest.raises(FormatError, match="blurred by JPEG"):
        blurred(tmp_path, contoured + noise)


def test_the_note_says_how_many_pixels_jpeg_left_between(tmp_path):
    disc = np.pad(np.full((60, 60), 255, np.uint8), 50)
    picture(tmp_path / "images" / "x.jpg", shape=disc.shape)
    (tmp_path / "masks").mkdir()
    PIL.Image.fromarray(disc).save(tmp_path / "masks" / "x.jpg", quality=60)
    [case] = dataset_layouts.read_dataset(tmp_path)
    assert "a mask of black and white that JPEG has blurred" in case.references["mask"].notes[-1]


def test_a_mask_that_was_smoothed_is_refused_as_such(tmp_path):
    square = np.zeros((64, 64), np.uint8)
    square[10:40, 10:40] = 255
    contoured = PIL.Image.fromarray(square).rotate(20, PIL.Image.Resampling.BILINEAR)
    picture(tmp_path / "images" / "x.png", shape=(64, 64))
    (tmp_path / "masks").mkdir()
    contoured.save(tmp_path / "masks" / "x.png")
    [case] = dataset_layouts.read_dataset(tmp_path)
    with pytest.raises(FormatError, match=r"0 and 255 with \d+ grey values between them.*nearest neighbour"):
        _ = case.references["mask"]


@pytest.mark.parametrize("codes", ["LAS", "LPS", "SAR", "PIL"])
def test_what_is_stored_in_another_order_of_axes_is_brought_onto_those_of_the_first_image(tmp_path, codes):
    rng, contoured = np.random.default_rng(0), np.zeros((5, 6, 7), np.uint8)
    contoured[1, 2:4, 3:6] = 1
    stored = {name: rng.normal(size=contoured.shape).astype(np.float32) for name in ("flair", "t1")} | {
        "seg": contoured
    }
    for name, voxels in stored.items():
        image = nibabel.Nifti1Image(voxels, np.diag([1, 2, 3, 1]))
        (tmp_path / "x").mkdir(exist_ok=True)
        if name != "flair":
            wanted = nibabel.orientations.axcodes2ornt(codes)
            image = image.as_reoriented(nibabel.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], wanted))
        image.to_filename(tmp_path / "x" / f"{name}.nii.gz")
    [case] = dataset_layouts.read_dataset(tmp_path)
    mask = case.references["mask"]
    assert (case.images["t1"].data[0] == stored["t1"]).all()
    assert case.images["t1"].geometry.equals(case.images["flair"].geometry)
    assert (mask.data[0] == contoured).all()
    assert mask.geometry.equals(case.images["flair"].geometry)
    assert mask.notes[-1] == f"stored as {codes}, brought onto the axes of the first image (RAS)"


def test_a_mask_that_is_mirrored_in_the_world_is_not_turned_to_fit(tmp_path):
    for name, affine in (("images", np.eye(4)), ("masks", np.diag([-1, 1, 1, 1]))):
        (tmp_path / name).mkdir()
        nibabel.Nifti1Image(np.ones((5, 6, 7), np.uint8), affine).to_filename(tmp_path / name / "x.nii.gz")
    [case] = dataset_layouts.read_dataset(tmp_path)
    assert not case.references["mask"].geometry.equals(case.images["image"].geometry)


def test_folders_that_each_hold_images_and_masks_of_one_person_are_no_classes(tmp_path):
    for person in ("SC-HF-01", "SC-HYP-02", "SC-N-03"):
        for n in range(3):
            picture(tmp_path / person / "images" / f"{person}-IM-0001-{n}.png", n)
            picture(tmp_path / person / "masks" / f"{person}-IM-0001-{n}.png", 255)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.kinds == {"mask"}
    assert len({case.patient for case in dataset}) == 3


def test_folders_of_several_people_with_images_and_masks_are_classes(tmp_path):
    for name in ("benign", "malignant"):
        for n in range(4):
            picture(tmp_path / name / "images" / f"{name}{n // 2}-IM-0001-{n}.png", n)
            picture(tmp_path / name / "masks" / f"{name}{n // 2}-IM-0001-{n}.png", 255)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {case.references["class"] for case in dataset} == {"benign", "malignant"}
    assert dataset.kinds == {"mask", "class"}


def test_linked_folders_are_read_and_links_to_what_is_read_anyway_are_not(tmp_path):
    for n in range(3):
        picture(tmp_path / "elsewhere" / f"x{n}.png", n)
        picture(tmp_path / "set" / "masks" / f"x{n}.png", 255)
    (tmp_path / "set" / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "masks" / "up").symlink_to(tmp_path)
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set" / "masks")
    dataset = dataset_layouts.read_dataset(tmp_path / "set")
    assert [case.id for case in dataset] == ["x0", "x1", "x2"]
    assert not dataset.problems


@pytest.mark.parametrize("listed_in", ["table.csv", "dataset.json"])
def test_files_that_a_list_names_may_be_links_to_elsewhere(tmp_path, listed_in):
    """Data stores such as DVC and DataLad make data sets of links."""
    folder = tmp_path / "set"
    for kind in ("image", "mask"):
        store, place = tmp_path / "store" / kind, folder / kind
        place.mkdir(parents=True)
        for n in range(2):
            volume(store / f"{n}.nii.gz", np.full((3, 4, 5), n, np.uint8))
            (place / f"{n}.nii.gz").symlink_to(store / f"{n}.nii.gz")
    pairs = [{"image": f"image/{n}.nii.gz", "label": f"mask/{n}.nii.gz"} for n in range(2)]
    (folder / "table.csv").write_text("\n".join(["image,mask", *(",".join(pair.values()) for pair in pairs)]))
    described = {"modality": {"0": "MR"}, "labels": {"0": "background", "1": "a"}, "training": pairs}
    if listed_in == "dataset.json":
        (folder / "table.csv").unlink()
        (folder / listed_in).write_text(json.dumps(described))
    dataset = dataset_layouts.read_dataset(folder / "table.csv" if listed_in == "table.csv" else folder)
    assert listed_in in dataset.layout
    assert [int(case.references["mask"].data.max()) for case in dataset] == [0, 1]


def test_a_folder_that_may_not_be_listed_is_refused_and_not_left_out(folder_for_all):
    for n in range(3):
        picture(folder_for_all / "ill" / f"x{n}.png", n)
        picture(folder_for_all / "well" / f"y{n}.png", n)
    (folder_for_all / "lost+found").mkdir(mode=0o700)
    (folder_for_all / "well").chmod(0o000)
    with as_anybody(), pytest.raises(DatasetError, match=r"well: the folder cannot be listed \(Permission denied\)"):
        dataset_layouts.read_dataset(folder_for_all)
    (folder_for_all / "well").chmod(0o755)
    with as_anybody():
        assert len(dataset_layouts.read_dataset(folder_for_all)) == 6


@pytest.fixture
def folder_for_all():
    """A folder that other users may enter: pytest's own may not be."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


@contextmanager
def as_anybody() -> Iterator[None]:
    """Within, this process has the rights of an ordinary user: root may list every folder."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_mask_that_shows_by_its_transparency_alone_is_refused_and_one_in_its_colours_is_read(tmp_path, mode):
    contoured = np.zeros((8, 9), np.uint8)
    contoured[2:5, 3:6] = 255
    flat, channels = np.zeros_like(contoured), len(mode) - 1
    for n, (colour, alpha) in enumerate(((flat, contoured), (contoured, contoured))):
        picture(tmp_path / "images" / f"{n}.png", n)
        mask = tmp_path / "masks" / f"{n}.png"
        mask.parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(np.stack([colour] * channels + [alpha], -1), mode).save(mask)
    by_alpha, by_colour = dataset_layouts.read_dataset(tmp_path).cases
    with pytest.raises(FormatError, match="shows by its transparency alone"):
        by_alpha.references["mask"]
    assert by_colour.references["mask"].data.sum() == 9


def test_raw_data_beside_derivatives_are_bids_and_no_classes(tmp_path):
    """As in VerSe."""
    for n in range(3):
        volume(tmp_path / "rawdata" / f"sub-verse00{n}" / f"sub-verse00{n}_ct.nii.gz")
        contoured = np.zeros((6, 7, 8), np.uint8)
        contoured[2:4, 2:4, 2:4] = 1
        volume(tmp_path / "derivatives" / f"sub-verse00{n}" / f"sub-verse00{n}_seg-vert_msk.nii.gz", contoured)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.patient for case in dataset] == [f"sub-verse00{n}" for n in range(3)]
    assert dataset.kinds == {"mask"}


def test_words_may_be_parted_from_their_cases_by_two_lines(tmp_path):
    """As in HECKTOR."""
    for n in range(3):
        for word in ("CT", "PT"):
            volume(tmp_path / "imagesTr" / f"CHUM-00{n}__{word}.nii.gz")
        volume(tmp_path / "labelsTr" / f"CHUM-00{n}.nii.gz", np.ones((6, 7, 8), np.uint8))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [(case.id, list(case.images), *case.references) for case in dataset] == [
        (f"CHUM-00{n}", ["CT", "PT"], "mask") for n in range(3)
    ]


def test_sites_with_the_same_files_for_each_case_are_no_classes(tmp_path):
    """As in the challenge on white matter, whose masks no name marks."""
    for site in ("Utrecht", "Singapore"):
        for n in range(3):
            for name in ("pre/FLAIR", "pre/T1", "wmh"):
                volume(tmp_path / site / str(n) / f"{name}.nii.gz")
    with pytest.raises(DatasetError, match="no labels"):
        dataset_layouts.read_dataset(tmp_path)


def test_folders_of_the_images_and_masks_of_parts_state_the_split(tmp_path):
    for part in ("train", "val", "test"):
        for n in range(2):
            picture(tmp_path / f"{part}_images" / f"{part}{n}.png")
            picture(tmp_path / f"{part}_masks" / f"{part}{n}.png", 1)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.splits == {f"{part}{n}": part for part in ("train", "val", "test") for n in range(2)}
    for part in ("val", "test"):
        for kind in ("images", "masks"):
            for path in (tmp_path / f"{part}_{kind}").iterdir():
                path.unlink()
    assert dataset_layouts.read_dataset(tmp_path).splits == {}


def test_originals_beside_their_masks_are_images(tmp_path):
    for n in range(3):
        picture(tmp_path / f"{n}_original.png")
        picture(tmp_path / f"{n}_mask.png", 1)
    assert [(case.id, *case.references) for case in dataset_layouts.read_dataset(tmp_path)] == [
        (str(n), "mask") for n in range(3)
    ]


@pytest.mark.parametrize("name", ["M\udcfcller/x0.png", "M\udcfcller.png"])
def test_names_that_no_table_can_hold_are_to_be_changed(tmp_path, name):
    """As a system with Latin-1 wrote them."""
    try:
        picture(tmp_path / "set" / name)
    except OSError:
        pytest.skip("the file system takes names in UTF-8 alone")
    picture(tmp_path / "set" / "x1.png")
    with pytest.raises(
        DatasetError, match=r"1 file has a name or folder .*such as .*M\\udcfcller.*Rename it"
    ) as refused:
        dataset_layouts.read_dataset(tmp_path / "set", DatasetOptions(references=False))
    str(refused.value).encode()
    with pytest.raises(DatasetError, match="Rename"):
        dataset_layouts.read_dataset(tmp_path / "set" / name, DatasetOptions(references=False))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize("name", ["b.nii.gz", "table.csv", "pipe", "IM0002"])
def test_pipes_among_images_are_passed_over_and_not_waited_for(tmp_path, name):
    volume(tmp_path / "a.nii.gz")
    os.mkfifo(tmp_path / name)
    assert [case.id for case in dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))] == ["a"]


def test_a_link_that_leads_nowhere_stops_nothing_unless_it_is_an_image_by_its_name(tmp_path):
    """As git-annex and DVC leave what was not fetched."""
    volume(tmp_path / "a.nii.gz")
    (tmp_path / "IM0002").symlink_to(tmp_path / ".annex" / "IM0002")
    assert [case.id for case in dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))] == ["a"]
    (tmp_path / "b.nii.gz").symlink_to(tmp_path / ".annex" / "b")
    examination = dataset_examination.examine(dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False)))
    assert [problem.cases for problem in examination.problems if problem.severity == "error"] == [("b",)]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("{}", "{}annot"),
        ("{}", "{}_labels"),
        ("{}", "{}_GT"),
        ("{}", "gt-{}"),
        ("{}", "{}_target"),
        ("camvid/{}", "camvid/{}Masks"),
        ("{}/images", "{}_labels"),
        ("{}_images", "{}_labels"),
        ("{}_images", "{}annot"),
    ],
)
def test_folders_called_after_parts_and_what_they_hold_are_pairs_and_no_classes(tmp_path, images, masks):
    for n, part in enumerate(("train", "train", "val", "test")):
        photo(tmp_path / images.format(part) / f"x{n}.png", n)
        label_map(tmp_path / masks.format(part) / f"x{n}.png")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert sorted((case.id, dataset.splits[case.id], *case.references) for case in dataset) == [
        ("x0", "train", "mask"),
        ("x1", "train", "mask"),
        ("x2", "val", "mask"),
        ("x3", "test", "mask"),
    ]


def test_a_second_version_of_the_images_of_each_part_is_no_class(tmp_path):
    for n, part in enumerate(("train", "train", "val", "test")):
        for name in (part, f"{part}_noisy"):
            photo(tmp_path / name / f"x{n}.png", n)
    with pytest.raises(DatasetError, match="no labels"):
        dataset_layouts.read_dataset(tmp_path)


def test_masks_that_all_end_in_one_word_are_those_of_the_names_before_it(tmp_path):
    for n in range(3):
        photo(tmp_path / "images" / f"{n}TP_0{n}.png", n)
        label_map(tmp_path / "labels" / f"{n}TP_0{n}_L.png")
    assert [(case.id, *case.references) for case in dataset_layouts.read_dataset(tmp_path)] == [
        (f"{n}TP_0{n}", "mask") for n in range(3)
    ]
