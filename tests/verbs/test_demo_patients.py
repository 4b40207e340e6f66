"""Simulated patients on disk: DICOM like anybody's, told apart by patient, with segmentations that fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from hilum.layouts import dataset_layouts
from hilum.quality import synthetic_images
from hilum.transforms import phantoms
from hilum.values import Case, Dataset, Image
from hilum.verbs import demo

EXAMINATIONS = [(0, 0), (0, 1), (1, 0)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "cohort"
    demo.write_phantoms(out, patients=2, twice=1, seed=5)
    return out


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return dataset_layouts.read_dataset(folder)


def case_of(dataset: Dataset, image: Image) -> Case:
    """The case that lies where a phantom was made."""
    [case] = [case for case in dataset if case.images["image"].geometry.shape == image.geometry.shape]
    return case


def test_each_examination_is_a_case_and_a_patient_who_came_twice_is_one_patient(dataset: Dataset) -> None:
    assert len(dataset) == 3
    assert dataset.patients_known
    assert sorted([case.patient for case in dataset].count(name) for name in {case.patient for case in dataset}) == [
        1,
        2,
    ]
    assert dataset.modality == "MR"
    assert not dataset.problems


def test_the_structures_keep_their_names_and_numbers(dataset: Dataset) -> None:
    assert [(label.value, label.name) for label in dataset.classes["mask"]] == [(1, "front"), (2, "back")]


@pytest.mark.parametrize("examination", EXAMINATIONS)
def test_image_and_segmentation_come_back_voxel_by_voxel(examination: tuple[int, int], dataset: Dataset) -> None:
    image, mask = phantoms.make_phantom(5, *examination)
    case = case_of(dataset, image)
    for made, back in ((image, case.images["image"]), (mask, case.references["mask"])):
        np.testing.assert_array_equal(back.data, made.data)
        np.testing.assert_allclose(back.geometry.corners, made.geometry.corners, atol=1e-6)


def test_every_file_says_that_it_is_simulated(folder: Path) -> None:
    for path in folder.rglob("image/*.dcm"):
        head = pydicom.dcmread(path, stop_before_pixels=True)
        assert str(head.PatientID).startswith("PHANTOM")
        assert "simulated" in head.StudyDescription
        assert head.SyntheticData == "YES"


def test_whoever_reads_the_cohort_again_knows_that_it_is_simulated(dataset: Dataset) -> None:
    assert synthetic_images.is_simulated(dataset)


def test_nothing_is_left_of_a_cohort_that_could_not_be_finished(tmp_path: Path) -> None:
    def full(done: int, total: int, words: str = "") -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(Exception, match="cannot be written"):
        demo.write_phantoms(tmp_path / "cohort", patients=2, twice=0, progress=full)
    assert list(tmp_path.iterdir()) == []
