"""Labels that like images or their own names contradict are named, and right ones are left alone."""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
import pytest
from scipy import ndimage

from hilum.evaluation import label_errors
from hilum.quality import dataset_examination, label_contradictions
from hilum.values import Case, Dataset, Geometry, Image, Problem

CONTRADICTS, NAMED_OTHERWISE = "the label contradicts those of like images", "the name of the file says another class"


def discs(wrong: Set[int], names: Mapping[int, str] = {}, count: int = 120) -> Dataset:
    """Bright and dark discs on speckle, the wrong ones labelled as the others."""
    rows, columns = np.indices((24, 24))
    disc = (rows - 12) ** 2 + (columns - 12) ** 2 < 40
    cases = []
    for n in range(count):
        bright = n % 2 == 1
        speckle = ndimage.gaussian_filter(np.random.default_rng(n).normal(size=disc.shape), 1.5)
        pixels = (120 + 150 * speckle + (70 if bright else -70) * disc)[None]
        label = "bright" if bright != (n in wrong) else "dark"
        image = Image(pixels, Geometry.of_pixels(disc.shape))
        cases.append(Case(names.get(n, f"c{n}"), f"p{n}", {"image": image}, {"class": label}))
    return Dataset(tuple(cases), patients_known=True)


def found(dataset: Dataset, words: str) -> list[Problem]:
    return [one for one in dataset_examination.examine(dataset).problems if one.what.startswith(words)]


def test_labels_that_those_of_like_images_contradict_are_named_with_their_cases():
    wrong = set(range(0, 120, 20))
    [problem] = found(discs(wrong), CONTRADICTS)
    assert problem.severity == "warning"
    assert set(problem.cases) == {f"c{n}" for n in wrong}
    assert "6 labelled 'bright' where like images are 'dark'" in problem.what


@pytest.mark.parametrize("apart", [0.0, 2.5])
def test_of_sets_with_right_labels_one_in_twenty_or_fewer_gets_a_case_named(apart):
    named = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = rng.integers(2, size=60)
        features = rng.standard_t(6, size=(60, 20)) / 4
        features[:, 0] += apart * labels / 4
        chances = label_contradictions._leave_one_out(features, labels, np.arange(60), 2)
        named += (label_errors.probable_label_errors(chances, labels, false=label_contradictions.FALSE) >= 0).any()
    assert named <= 3


def test_an_image_is_not_judged_by_others_of_its_patient():
    """Two images of each patient, alike and with the same random label: images of others tell nothing of it."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(2, size=60), 2)
    features = np.repeat(rng.normal(size=(60, 10)), 2, axis=0)
    by_others = label_contradictions._leave_one_out(features, labels, np.repeat(np.arange(60), 2), 2)
    by_all = label_contradictions._leave_one_out(features, labels, np.arange(120), 2)
    rows = np.arange(120)
    assert by_others[rows, labels].mean() < 0.55
    assert by_all[rows, labels].mean() > 0.75


def test_a_name_that_says_another_class_is_named_where_names_say_the_class():
    names = {n: f"{('dark', 'bright')[n % 2]} ({n})" for n in range(24)}
    [problem] = found(discs(set(), names | {9: "dark (9)"}, count=24), NAMED_OTHERWISE)
    assert problem.cases == ("dark (9)",)
    assert not found(discs(set(), {n: f"dark {n}" for n in range(24)}, count=24), NAMED_OTHERWISE)


def test_of_two_names_of_classes_in_a_name_the_longer_one_counts_where_it_holds_the_other():
    classes = {"tumour": "tumour", "no tumour": "no tumour"}
    assert label_contradictions._class_in("no_tumour_17", classes) == "no tumour"
    assert label_contradictions._class_in("Tumour-17", classes) == "tumour"
    assert label_contradictions._class_in("tumours17", classes) is None
