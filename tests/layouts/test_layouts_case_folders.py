"""A folder a case, as in BraTS, KiTS and TotalSegmentator; volumes and segmentations numbered alike, as in LiTS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hilum
import trained
from cohorts import classed, picture, volume
from hilum.errors import DatasetError, FormatError, UsageError
from hilum.layouts import dataset_layouts
from hilum.layouts.cases import class_labels
from hilum.layouts.layout import DatasetOptions

SHAPE = (4, 5, 6)
PREDICTED = DatasetOptions(references=False, channels=3)


def part(*slices: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[slices] = 1
    return mask


LIVER, SPLEEN = part(slice(0, 2)), part(slice(2, 4))


def brats(root: Path, *, masks: bool = True) -> Path:
    for n in range(3):
        place = root / f"BraTS_{n:03d}"
        for value, name in enumerate(("t1", "t2", "flair")):
            volume(place / f"BraTS_{n:03d}_{name}.nii.gz", np.full(SHAPE, 10 * n + value, np.int16))
        if masks:
            volume(place / f"BraTS_{n:03d}_seg.nii.gz", part(slice(n, n + 1)))
    return root


def organs(root: Path, count: int = 2, **structures: np.ndarray) -> Path:
    for n in range(count):
        volume(root / f"s{n}" / "ct.nii.gz")
        for name, mask in (structures or {"liver": LIVER, "spleen": SPLEEN}).items():
            volume(root / f"s{n}" / "segmentations" / f"{name}.nii.gz", mask)
    return root


def test_contrasts_of_a_case_are_its_channels_and_its_mask_lies_among_them(tmp_path):
    dataset = dataset_layouts.read_dataset(brats(tmp_path))
    assert [case.id for case in dataset] == ["BraTS_000", "BraTS_001", "BraTS_002"]
    assert list(dataset.cases[0].images) == ["flair", "t1", "t2"]
    assert [int(image.data.max()) for image in dataset.cases[1].images.values()] == [12, 10, 11]
    assert (dataset.cases[2].references["mask"].data[0] == part(slice(2, 3))).all()
    assert (dataset.kinds, dataset.modality) == ({"mask"}, "MR")


@pytest.mark.parametrize("image", ["imaging", "image", "scan", "ct"])
@pytest.mark.parametrize("mask", ["segmentation", "seg", "mask", "label", "gt", "roi"])
def test_an_image_and_its_mask_are_known_by_usual_words(tmp_path, image, mask):
    for n in range(2):
        volume(tmp_path / f"case_{n:05d}" / f"{image}.nii.gz")
        volume(tmp_path / f"case_{n:05d}" / f"{mask}.nii.gz", LIVER)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == ["case_00000", "case_00001"]
    assert list(dataset.cases[0].images) == ["image"]
    assert class_labels.observed_values(dataset.cases[0]) == (1,)


def test_pictures_named_as_their_folder_are_its_images(tmp_path):
    for n in range(3):
        picture(tmp_path / f"p{n}" / f"p{n}.png")
        picture(tmp_path / f"p{n}" / "mask.png", 255)
    assert [(case.id, class_labels.observed_values(case)) for case in dataset_layouts.read_dataset(tmp_path)] == [
        (f"p{n}", (1,)) for n in range(3)
    ]


def test_a_name_that_only_begins_with_the_letters_of_its_folder_stays_whole(tmp_path):
    for case in ("t", "s"):
        for name in ("t1", f"{case}_flair", "mask"):
            volume(tmp_path / case / f"{name}.nii.gz")
    names = {case.id: set(case.images) for case in dataset_layouts.read_dataset(tmp_path)}
    assert names == {key: {"t1", "flair"} for key in "st"}


def test_masks_of_structures_become_one_label_map_in_the_order_of_their_names(tmp_path):
    dataset = dataset_layouts.read_dataset(organs(tmp_path))
    assert [(label.value, label.name) for label in dataset.classes["mask"]] == [(1, "liver"), (2, "spleen")]
    assert (dataset.cases[0].references["mask"].data[0] == LIVER + 2 * SPLEEN).all()
    assert (dataset.cases[0].references["mask"].labels, dataset.modality) == (dataset.classes["mask"], "CT")


@pytest.mark.parametrize("name", ["{}_mask", "mask_{}", "{}-segmentation"])
def test_structures_may_stand_before_or_after_the_word_for_a_mask(tmp_path, name):
    for n in range(2):
        volume(tmp_path / f"p{n}" / "image.nii.gz")
        for structure, mask in (("liver", LIVER), ("spleen", SPLEEN)):
            volume(tmp_path / f"p{n}" / f"{name.format(structure)}.nii.gz", mask)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [label.name for label in dataset.classes["mask"]] == ["liver", "spleen"]
    assert (dataset.cases[1].references["mask"].data[0] == LIVER + 2 * SPLEEN).all()


def test_those_that_are_asked_for_have_the_values_that_are_asked_for(tmp_path):
    organs(tmp_path)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="3=spleen"))
    assert class_labels.observed_values(dataset.cases[0]) == (3,)
    with pytest.raises(UsageError, match="no mask is named kidney"):
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="1=liver,2=kidney"))


def test_structures_that_touch_are_parted_and_those_that_overlap_are_refused(tmp_path):
    touching = np.zeros((40, 40, 40), np.uint8)
    other, within = touching.copy(), touching.copy()
    touching[:20], other[20:], within[5:15] = 1, 1, 1
    other[19, :2] = 1
    near = (
        dataset_layouts.read_dataset(organs(tmp_path / "near", liver=touching, spleen=other))
        .cases[0]
        .references["mask"]
    )
    assert near.notes[-1] == "masks of structures overlap in 80 voxels, which count for the first of them"
    organs(tmp_path / "within", liver=touching, tumour=within)
    with pytest.raises(FormatError, match="16000 voxels of 16000 lie in other structures too"):
        _ = dataset_layouts.read_dataset(tmp_path / "within").cases[0].references["mask"]
    alone = (
        dataset_layouts.read_dataset(tmp_path / "within", DatasetOptions(labels="1=tumour")).cases[0].references["mask"]
    )
    assert int(alone.data.sum()) == 16000


def test_a_case_without_one_of_the_structures_is_left_out_and_said(tmp_path):
    organs(tmp_path, 3)
    (tmp_path / "s1" / "segmentations" / "spleen.nii.gz").unlink()
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == ["s0", "s2"]
    assert [(problem.severity, problem.cases) for problem in dataset.problems] == [("error", ("s1",))]


def test_masks_with_and_without_a_structure_do_not_go_together(tmp_path):
    organs(tmp_path)
    volume(tmp_path / "s0" / "mask.nii.gz", LIVER)
    with pytest.raises(DatasetError, match=r"mask that names no structure, mask.nii.gz, and others in segmentations/"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_case_may_lack_one_of_several_images_or_its_mask(tmp_path):
    brats(tmp_path)
    (tmp_path / "BraTS_001" / "BraTS_001_t2.nii.gz").unlink()
    (tmp_path / "BraTS_002" / "BraTS_002_seg.nii.gz").unlink()
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [(case.id, list(case.images)) for case in dataset] == [
        ("BraTS_000", ["flair", "t1", "t2"]),
        ("BraTS_001", ["flair", "t1"]),
    ]
    assert {problem.cases for problem in dataset.problems} == {("BraTS_001",), ("BraTS_002",)}


@pytest.mark.parametrize("count", [1, 3])
def test_new_cases_without_masks_are_read_alike(tmp_path, count):
    brats(tmp_path, masks=False)
    for n in range(count, 3):
        for path in (tmp_path / f"BraTS_{n:03d}").iterdir():
            path.unlink()
    found = dataset_layouts.read_dataset(tmp_path, PREDICTED)
    assert [(case.id, list(case.images)) for case in found] == [
        (f"BraTS_{n:03d}", ["flair", "t1", "t2"]) for n in range(count)
    ]


def test_so_is_the_folder_of_one_case_itself(tmp_path):
    [case] = dataset_layouts.read_dataset(brats(tmp_path, masks=False) / "BraTS_001", PREDICTED)
    assert (case.id, list(case.images)) == ("BraTS_001", ["flair", "t1", "t2"])


def test_parts_and_classes_are_folders_above_the_cases(tmp_path):
    for split in ("train", "test"):
        for grade in ("HGG", "LGG"):
            brats(tmp_path / split / grade)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len(dataset) == 12
    assert {dataset.splits[case.id] for case in dataset} == {"train", "test"}
    assert {label.name for label in dataset.classes["class"]} == {"HGG", "LGG"}


def test_folders_of_classes_stay_classes(tmp_path):
    dataset = dataset_layouts.read_dataset(classed(tmp_path))
    assert dataset.kinds == {"class"}
    for name in ("a", "b"):  # numbered alike
        for n in range(3):
            picture(tmp_path / "numbered" / name / f"{n}.png")
    assert dataset_layouts.read_dataset(tmp_path / "numbered").kinds == {"class"}


def test_volumes_and_segmentations_of_one_folder_are_paired_by_their_numbers(tmp_path):
    for n in (0, 1, 10):
        volume(tmp_path / f"volume-{n}.nii", np.full(SHAPE, n, np.int16))
        volume(tmp_path / f"segmentation-{n}.nii", np.full(SHAPE, n % 2, np.uint8))
    dataset = dataset_layouts.read_dataset(tmp_path)
    found = {case.id: (int(case.images["image"].data.max()), class_labels.observed_values(case)) for case in dataset}
    assert found == {"volume-0": (0, ()), "volume-1": (1, (1,)), "volume-10": (10, ())}


@pytest.mark.whole
def test_such_cases_train_and_predict(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(8):
        for name in ("t1", "t2"):
            volume(tmp_path / "data" / f"p{n}" / f"{name}.nii.gz", rng.normal(size=(12, 12, 12)).astype(np.float32))
        volume(tmp_path / "data" / f"p{n}" / "mask.nii.gz", np.pad(np.ones((6, 6, 6), np.uint8), 3))
    few = {**trained.TWO_STEPS, "network.size": trained.SMALL_UNET, "split.calibration": 0}
    hilum.train(tmp_path / "data", out=tmp_path / "run", assignments=few, device="cpu", threads=1)
    (tmp_path / "data" / "p0" / "mask.nii.gz").unlink()
    hilum.predict(tmp_path / "run", tmp_path / "data" / "p0", out=tmp_path / "answers", device="cpu")
    assert [path.name for path in (tmp_path / "answers").glob("*.nii.gz")] == ["p0.nii.gz"]


@pytest.mark.parametrize("name", ["pat{n}_ct", "IXI00{n}-Guys-0828-T1", "scan_{n}_ct", "t1_{n}"])
def test_images_of_one_contrast_in_one_folder_are_a_case_each(tmp_path, name):
    """They were the channels of one."""
    for n in range(4):
        volume(tmp_path / f"{name.format(n=n)}.nii.gz", np.full(SHAPE, n, np.int16))
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert [case.id for case in dataset] == [name.format(n=n) for n in range(4)]
    assert all(list(case.images) == ["image"] for case in dataset)


@pytest.mark.parametrize("name", ["sub{n:02d}_{word}", "{word}_{n}"])
@pytest.mark.parametrize("above", ["", "scans"])
def test_images_of_cases_in_one_folder_are_known_by_the_words_in_their_names(tmp_path, name, above):
    words = {"T1": 0, "FLAIR": 1, "seg": None}
    for n in range(3):
        for word, value in words.items():
            data = LIVER if value is None else np.full(SHAPE, 10 * n + value, np.int16)
            volume(tmp_path / above / f"{name.format(n=n, word=word)}.nii.gz", data)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert (len(dataset), dataset.kinds, dataset.modality) == (3, {"mask"}, "MR")
    assert [list(case.images) for case in dataset] == [["FLAIR", "T1"]] * 3
    assert [int(image.data.max()) for image in dataset.cases[2].images.values()] == [21, 20]
    assert all((case.references["mask"].data[0] == LIVER).all() for case in dataset)


def test_one_contrast_of_each_case_in_one_folder_may_be_named_too(tmp_path):
    for n in range(3):
        volume(tmp_path / f"sub{n:02d}_T1w.nii.gz")
        volume(tmp_path / f"sub{n:02d}_mask.nii.gz", LIVER)
    assert [(case.id, class_labels.observed_values(case)) for case in dataset_layouts.read_dataset(tmp_path)] == [
        (f"sub{n:02d}", (1,)) for n in range(3)
    ]


def test_images_without_masks_in_one_folder_are_predicted_by_case(tmp_path):
    for n in range(3):
        for word in ("t1", "t2", "flair"):
            volume(tmp_path / f"sub{n:02d}_{word}.nii.gz")
    dataset = dataset_layouts.read_dataset(tmp_path, PREDICTED)
    assert [(case.id, list(case.images)) for case in dataset] == [
        (f"sub{n:02d}", ["flair", "t1", "t2"]) for n in range(3)
    ]


def test_several_label_maps_of_a_case_are_refused_at_once_and_one_alone_is_read_with_its_numbers(tmp_path):
    """As in KiTS21: three ways to unite what several people contoured."""
    for n in range(2):
        volume(tmp_path / f"case{n}" / "imaging.nii.gz", np.random.default_rng(n).normal(0, 9, SHAPE))
        for way in ("AND", "MAJ", "OR"):
            volume(tmp_path / f"case{n}" / f"aggregated_{way}_seg.nii.gz", LIVER + 2 * SPLEEN)
    with pytest.raises(DatasetError, match=r"3 masks of the case .*several numbers") as refused:
        dataset_layouts.read_dataset(tmp_path)
    assert "move the others out" in str(refused.value)
    for way in ("AND", "OR"):
        for n in range(2):
            (tmp_path / f"case{n}" / f"aggregated_{way}_seg.nii.gz").unlink()
    assert [class_labels.observed_values(case) for case in dataset_layouts.read_dataset(tmp_path)] == [(1, 2)] * 2


def test_parts_in_a_folder_beside_a_mask_of_the_whole_are_refused_by_the_name_of_that_folder(tmp_path):
    for n in range(2):
        volume(tmp_path / f"case{n}" / "imaging.nii.gz")
        volume(tmp_path / f"case{n}" / "segmentation.nii.gz", LIVER + 2 * SPLEEN)
        for reader in (1, 2):
            volume(tmp_path / f"case{n}" / "instances" / f"kidney_instance-1_annotation-{reader}.nii.gz", LIVER)
    with pytest.raises(DatasetError, match=r"Move each instances/ out .* if segmentation.nii.gz is meant"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_format_at_the_end_of_a_case_folders_name_is_not_in_the_names_of_its_files(tmp_path):
    """As in UCSF-PDGM, whose one mask is called by the tumour and has a number for each part of it."""
    for n in range(2):
        place = tmp_path / f"X-{n:04d}_nifti"
        for word in ("T1", "FLAIR"):
            volume(place / f"X-{n:04d}_{word}.nii.gz", np.random.default_rng(n).normal(0, 9, SHAPE))
        volume(place / f"X-{n:04d}_tumor_segmentation.nii.gz", LIVER + 3 * SPLEEN)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [(list(case.images), class_labels.observed_values(case)) for case in dataset] == [
        (["FLAIR", "T1"], (1, 3))
    ] * 2
