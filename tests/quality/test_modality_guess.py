"""What kind of image it is, where nobody says so: told by names and values, or not told at all."""

from __future__ import annotations

import nibabel
import numpy as np
import PIL.Image
import pytest

import hilum
from fingerprints import facts
from hilum.quality import modality_checks
from hilum.reading import ReadingOptions, dataset_reading
from hilum.values import Dataset, Fingerprint

RNG = np.random.default_rng(3)


def volumes(root, values, count=4):
    """images/ beside labels/; values: of a volume of 12 voxels a side, called with its number."""
    for n in range(count):
        for folder, array in (
            ("images", values(n)),
            ("labels", (np.indices((12, 12, 12)).sum(0) > 16).astype(np.uint8)),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(array, np.diag([1.0, 1, 1, 1])).to_filename(root / folder / f"case{n}.nii.gz")
    return root


def pictures(root, pixels, classes=("a", "b"), count=6):
    """A folder a class; pixels: (24, 24) or (24, 24, 3), called with its number."""
    for n in range(count):
        folder = root / classes[n % len(classes)]
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.clip(pixels(n), 0, 255).astype(np.uint8)).save(folder / f"{n}.png")
    return root


def guess_of(root, needs=()):
    dataset = dataset_reading.open_dataset(root, ReadingOptions(), needs=needs)
    examination = dataset_reading.examine_cases(dataset, 1)
    found = modality_checks.guess_modality(examination.dataset, examination.fingerprint)
    return None if found is None else found.modality


def disc(n, inside, outside):
    """Two values, one in a disc, with a little noise."""
    away = np.hypot(*(np.indices((24, 24)) - 11.5))
    field = np.where((away < 10)[..., None], np.array(inside), np.array(outside)).astype(float)
    return field + np.random.default_rng(n).normal(0, 2, field.shape)


def hounsfield(fill):
    def values(n):
        rng = np.random.default_rng(n)
        volume = rng.normal(40, 30, (12, 12, 12))
        volume[:3], volume[3:5], volume[5, 5] = fill, -1000, 900
        return volume.astype(np.int16)

    return values


@pytest.mark.parametrize("fill", [-1000, -1024, -3024])
def test_hounsfield_units_are_told_by_their_air(tmp_path, fill):
    assert guess_of(volumes(tmp_path / "cases", hounsfield(fill))) == "CT"


@pytest.mark.parametrize("name", ["scans_oct_2024", "mri_export", "ct_scans"])
def test_hounsfield_units_go_before_what_a_folder_is_called(tmp_path, name):
    dataset = dataset_reading.open_dataset(volumes(tmp_path / name, hounsfield(-1000)), ReadingOptions())
    examination = dataset_reading.examine_cases(dataset, 1)
    guess = modality_checks.guess_modality(examination.dataset, examination.fingerprint)
    assert guess.modality == "CT"
    assert ('"mri", which would be MR' in guess.because) == (name == "mri_export")  # both are named where they disagree


@pytest.mark.parametrize(
    ("name", "modality"),
    [("scans_oct_2024", None), ("12-Oct", None), ("3oct2024", None), ("retina_oct", "OPT"), ("oct_2024_mri", "MR")],
)
def test_an_october_in_the_name_of_volumes_is_no_optical_coherence_tomography(tmp_path, name, modality):
    grey = volumes(tmp_path / name, lambda n: np.abs(RNG.normal(300, 80, (12, 12, 12))).astype(np.int16))
    assert guess_of(grey) == modality


@pytest.mark.parametrize(
    "values",
    [
        lambda n: (np.abs(RNG.normal(300, 80, (12, 12, 12))) * (n + 1)).astype(np.int16),
        lambda n: RNG.uniform(-4096, 4095, (12, 12, 12)).astype(np.int16),
        lambda n: RNG.normal(0, 1, (12, 12, 12)).astype(np.float32),
        lambda n: (hounsfield(-1000)(n) + 1024).astype(np.int16),
    ],
    ids=["magnitudes of MR", "phases", "standardised", "a CT whose offset is lost"],
)
def test_other_numbers_are_no_hounsfield_units(tmp_path, values):
    assert guess_of(volumes(tmp_path / "cases", values)) is None


@pytest.mark.parametrize(
    ("inside", "outside", "modality"),
    [
        ((150, 70, 30), (0, 0, 0), "OP"),
        ((150, 70, 30), (120, 60, 25), None),
        ((190, 160, 200), (205, 195, 210), "SM"),
        ((30, 120, 60), (10, 60, 20), None),
        ((90, 90, 90), (0, 0, 0), None),
    ],
    ids=["a fundus with its border", "skin without a border", "a stained section", "a green thing", "grey in colour"],
)
def test_colours_and_a_dark_border_tell_a_fundus_and_a_stained_section(tmp_path, inside, outside, modality):
    assert guess_of(pictures(tmp_path / "cases", lambda n: disc(n, inside, outside))) == modality


def numbered(root, count, cases=4):
    """Grey pictures of 16 bits, each with so many single pixels that are objects."""
    for n in range(cases):
        labels = np.zeros((24, 24), dtype=np.uint16)
        for number in range(count):
            labels[3 * (number // 8), 3 * (number % 8)] = number + 1
        for folder, array in (("images", 900 * (labels > 0) + n), ("labels", labels)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(array.astype(np.uint16)).save(root / folder / f"{n}.png")
    return root


@pytest.mark.parametrize(
    ("name", "count", "modality"),
    [("cases", 12, "GM"), ("cases", 4, None), ("teeth", 12, None), ("hand-bones", 12, None), ("retina_oct", 12, "OPT")],
    ids=["cells", "few objects", "teeth are as many", "so are bones of a hand", "a name goes first"],
)
def test_many_single_objects_in_pictures_are_cells_unless_a_name_speaks_of_radiographs(tmp_path, name, count, modality):
    assert guess_of(numbered(tmp_path / name, count), {"instances"}) == modality


@pytest.mark.parametrize(
    ("name", "classes", "level", "modality"),
    [
        ("cases", ("normal", "pneumonia"), 130, "DX"),
        ("cases", ("normal", "pneumonia"), 30, None),
        ("cases", ("benign", "malignant"), 130, None),
        ("breast_ultrasound", ("benign", "malignant"), 60, "US"),
        ("brain-mri", ("no", "yes"), 60, "MR"),
        ("about_us", ("no", "yes"), 60, None),
    ],
)
def test_grey_pictures_are_told_by_names_and_a_radiograph_by_its_brightness_too(
    tmp_path, name, classes, level, modality
):
    data = pictures(tmp_path / name, lambda n: RNG.normal(level, 25, (24, 24)), classes)
    assert guess_of(data) == modality


def test_a_plan_takes_the_guess_with_its_reason_and_a_person_decides_otherwise(tmp_path):
    data = pictures(tmp_path / "cases", lambda n: disc(n, (150, 70, 30), (0, 0, 0)), count=24)
    guessed = hilum.plan(data, device="cpu").plan
    assert guessed["preprocessing.modality"] == "OP"
    assert "it is a guess: they are colour pictures" in guessed.decision("preprocessing.modality").because
    assert guessed["augmentation.flips"] == [1]  # the other eye is the mirror image
    assert hilum.plan(data, device="cpu", modality="XC").plan["preprocessing.modality"] == "XC"


def test_check_says_what_was_guessed_and_warns_where_nothing_tells_it(tmp_path):
    fundus = hilum.check(pictures(tmp_path / "one", lambda n: disc(n, (150, 70, 30), (0, 0, 0))))
    assert fundus.facts["modality"].startswith("unknown; guessed: OP, because")
    assert not [one for one in fundus.problems if "kind of image" in one.what]
    data = pictures(tmp_path / "two", lambda n: RNG.normal(60, 25, (24, 24)))
    [warning] = [one for one in hilum.check(data).problems if "kind of image" in one.what]
    assert (warning.severity, "not mirrored" in warning.why, "--modality" in warning.remedy) == ("warning", True, True)
    assert not [one for one in hilum.check(data, modality="US").problems if "kind of image" in one.what]


def test_structures_that_are_bright_in_some_cases_and_dark_in_others_are_named_with_what_to_do():
    def case(name, inside):
        return facts(name=name, modality="MR", inside={"mean": inside})

    bright, dark = [case(f"a{n}", 80.0) for n in range(5)], [case(f"b{n}", 20.0) for n in range(2)]
    dataset = Dataset(())
    [problem] = modality_checks.unlike_contrasts(dataset, Fingerprint((*bright, *dark)))
    assert "brighter than the image in 5 cases and darker in 2" in problem.what
    assert problem.cases == ("b0", "b1") and "--any-contrast" in problem.remedy
    unsure = [case(f"c{n}", 50.0) for n in range(4)]
    for alike in ((*bright, dark[0]), (*bright, *dark, *unsure)):
        assert not [*modality_checks.unlike_contrasts(dataset, Fingerprint(alike))]
    assert not [*modality_checks.unlike_contrasts(Dataset((), painted="from maps"), Fingerprint((*bright, *dark)))]
