"""A real case made worse is named, and the set as it is raises no alarm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

import real_data
from fingerprints import facts
from hilum.layouts import dataset_layouts
from hilum.quality import _image_checks, dataset_examination
from hilum.quality.image_descriptors import ImageLook
from hilum.values import Case, Dataset, Geometry, Image
from matrices import thinned


@pytest.fixture(scope="module", params=real_data.FOLDERS)
def hearts(request: pytest.FixtureRequest) -> Dataset:
    dataset = dataset_layouts.read_dataset(request.param / "mri" / "cardiac_sunnybrook")
    # Sixty slices are enough.
    return replace(dataset, cases=dataset.cases[:: 1 + len(dataset) // 60])


def findings(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """The first word of each finding about single cases, and the cases."""
    return {
        one.what.split(":")[0]: one.cases
        for one in dataset_examination.examine(dataset, threads=2).problems
        if one.cases
    }


def spoilt(dataset: Dataset, at: int, change: Callable[[np.ndarray], np.ndarray]) -> Dataset:
    """The same set with one image changed."""
    case = dataset.cases[at]
    [(name, image)] = case.images.items()
    worse = replace(case, images={name: image.with_pixels(change(image.data.astype(np.float32)[0])[None])})
    return replace(dataset, cases=(*dataset.cases[:at], worse, *dataset.cases[at + 1 :]))


def test_the_hearts_as_they_are_raise_no_alarm(hearts):
    assert not [one for one in dataset_examination.examine(hearts, threads=2).problems if one.severity != "note"]


@pytest.mark.parametrize(
    ("word", "change"),
    thinned(
        1,
        [
            ("blurred", lambda image: ndimage.gaussian_filter(image, 2.5)),
            ("noisy", lambda image: image + np.random.default_rng(0).normal(0, 0.08 * np.ptp(image), image.shape)),
            ("clipped", lambda image: np.minimum(image, np.percentile(image, 90))),
            ("ghosts or motion", lambda image: image + 0.4 * np.roll(image, 70, axis=1)),
        ],
    ),
)
def test_one_heart_made_worse_is_named(hearts, word, change):
    found = findings(spoilt(hearts, 7, change))
    assert found[word] == (hearts.cases[7].id,)


def volumes(count: int, odd: Geometry | None = None) -> Dataset:
    """Noise on one grid, the last on another."""
    grids = [Geometry((12, 12, 8), np.diag([1.0, 1.0, 3.0, 1.0]))] * count
    grids[-1] = odd or grids[-1]
    cases = [
        Case(f"c{n}", f"p{n}", {"image": Image(np.random.default_rng(n).random((1, *grid.shape)), grid)})
        for n, grid in enumerate(grids)
    ]
    return Dataset(tuple(cases), patients_known=True)


def test_one_case_of_another_spacing_or_size_is_named():
    assert findings(volumes(20, Geometry((12, 12, 8), np.diag([1.0, 1.0, 7.0, 1.0])))) == {
        "spacing is unusual": ("c19",)
    }  # fmt: skip
    assert findings(volumes(20, Geometry((12, 12, 40), np.diag([1.0, 1.0, 3.0, 1.0])))) == {"size is unusual": ("c19",)}
    assert not findings(volumes(20))


def test_among_a_few_cases_nobody_knows_what_is_usual():
    assert not findings(volumes(7, Geometry((12, 12, 40), np.diag([1.0, 1.0, 7.0, 1.0]))))


def test_robust_z_is_that_of_a_normal_sample_and_no_outlier_moves_it():
    sample = np.random.default_rng(0).normal(5, 2, 20_001)
    assert_allclose(_image_checks.robust_z(sample, 1e-9), (sample - 5) / 2, atol=0.1)
    spoiled = sample.copy()
    spoiled[:200] = 1e9
    assert_allclose(_image_checks.robust_z(spoiled, 1e-9)[200:], _image_checks.robust_z(sample, 1e-9)[200:], atol=0.2)


def test_a_hair_among_equals_is_no_outlier():
    values = np.ones(50)
    values[3] = 1.001
    assert np.abs(_image_checks.robust_z(values, 0.05)).max() < 0.1


def test_colour_pictures_stand_beside_grey_ones():
    grid = Geometry.of_pixels((40, 40))
    cases = []
    for n in range(20):
        grey = np.random.default_rng(n).random((1, 40, 40))
        pixels = np.repeat(grey, 3, axis=0) if n % 2 else grey
        pixels = ndimage.gaussian_filter(pixels, (0, 2, 2)) if n == 3 else pixels
        cases.append(Case(f"c{n}", f"p{n}", {"i": Image(pixels, grid, channels=tuple("RGB") if n % 2 else ("0",))}))
    found = findings(Dataset(tuple(cases), patients_known=True))
    assert found["blurred"] == ("c3",)


@pytest.mark.whole
def test_the_hippocampi_raise_no_alarm_but_that_patients_are_not_named_and_one_of_a_hundredfold_range(data: Path):
    dataset = dataset_layouts.read_dataset(data / "hippocampus")
    patients, magnitude = dataset_examination.examine(dataset, threads=2).problems
    assert patients.what.startswith("patients are not known")
    # The values of this file go up to 358,215, those of the other 59 to 255 or to some thousands.
    assert magnitude.what.startswith("intensities are of another magnitude: their range is 297,185")
    assert magnitude.cases == ("hippocampus_044",)


@pytest.mark.whole
def test_the_hippocampi_of_the_corpus_raise_no_alarm_but_that_patients_and_structures_are_not_named(corpus: Path):
    dataset = dataset_layouts.read_dataset(corpus / "hippocampus")
    found = dataset_examination.examine(replace(dataset, cases=dataset.cases[::2]), threads=2)
    assert [one.what[:22] for one in found.problems] == ["nobody named the mask ", "patients are not known"]


def spaced(steps: list[float], unit: str) -> list[str]:
    """The findings on series whose samples lie so far apart."""
    cases = [replace(facts((64,), (step,), name=str(n)), unit=unit) for n, step in enumerate(steps)]
    nothing = dict.fromkeys(("sharpness", "noise", "clipped", "echo"), float("nan"))
    looks = {case.id: ImageLook(case.id, np.zeros(64), (nothing,)) for case in cases}
    return [one.what for one in _image_checks.find_outliers(cases, looks)]


def test_spacings_are_stated_in_their_unit():
    assert spaced([*[0.004] * 19, 0.002], "s") == ["spacing is unusual: 0.002 s, usually 0.004 s"]


def test_the_cases_of_a_second_scanner_are_no_outliers():
    assert not spaced([*[1.0] * 12, *[0.5] * 8], "mm")


def levels(ranges: list[float], medians: list[float]) -> list[tuple[tuple[str, ...], str]]:
    """The cases and words of each finding on images of such ranges and medians."""
    cases = [
        facts((64,), name=str(n), intensity={"low": 0.0, "high": high, "median": median})
        for n, (high, median) in enumerate(zip(ranges, medians, strict=True))
    ]
    nothing = dict.fromkeys(("sharpness", "noise", "clipped", "echo"), float("nan"))
    looks = {case.id: ImageLook(case.id, np.zeros(64), (nothing,)) for case in cases}
    return [(one.cases, one.what) for one in _image_checks.find_outliers(cases, looks) if "magnitude" in one.what]


def test_a_case_of_another_magnitude_is_named_however_far_all_others_are_from_each_other():
    usual = [87, 120, 175, 260, 390, 400, 530, 640, 700, 771, 96.0]
    middle = [one / 2 for one in usual]
    words = "intensities are of another magnitude: their {} is {}, that of all others {}"
    assert levels([*usual, 183_087], [*middle, 90_000]) == [(("11",), words.format("range", "183,087", "87 to 771"))]
    assert levels([*usual[:6], 0.5], [*middle[:6], 0.2]) == [(("6",), words.format("range", "0.5", "87 to 400"))]
    assert levels([*usual, 500], [*middle, 90_000]) == [(("11",), words.format("median", "90,000", "43.5 to 386"))]
    assert levels([*usual, 500], [*middle, -90_000])[0][0] == ("11",)
    assert levels([*usual, 2e5, 4e5], [*middle, 9e4, 2e5])[0][0] == ("11", "12")
    # Scanners, kinds of sequence and signs about zero are no magnitudes, and of a few nobody knows the usual.
    assert not levels([*usual, 5000], [*middle, 2500])
    assert not levels([*usual, *[2e5] * 4], [*middle, *[9e4] * 4])
    assert not levels([2000.0] * 12, [*[-900.0] * 11, 30.0])
    assert not levels([*usual[:3], 2e5], [*middle[:3], 9e4])
    assert not levels([0.0] * 12, [5.0] * 12)
