from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Picture

from hilum.errors import UsageError
from hilum.report.figures import cohort_figures, sheets
from hilum.values import BoundingBoxes, Geometry, Image, Label


def picture(seed: int) -> Image:
    return Image(np.random.default_rng(seed).random((1, 20, 30)), Geometry.of_pixels((20, 30)))


def test_the_balance_says_every_class_with_all_its_parts():
    made = cohort_figures.class_balance({"well": {"train": 5, "test": 2}, "ill": {"train": 1}}, "Balance")
    assert made.alt == "well: 7 cases; ill: 1 cases"
    assert made.svg


def test_of_many_classes_the_commonest_are_drawn():
    made = cohort_figures.class_balance({f"class{n}": {"all": n} for n in range(1, 60)}, "Balance")
    assert "class59: 59" in made.alt
    assert "class9: 9" not in made.alt
    assert made.caption == "The 30 commonest of 59."


def test_the_profile_says_where_most_of_the_middle_image_lies():
    lines = np.zeros((9, 10))
    lines[:, 3] = 1.0
    made = cohort_figures.intensity_profiles(lines, np.linspace(0, 1, 11), "Profiles", axis="share")
    assert "9 images" in made.alt
    assert "lies at 0.35" in made.alt


def test_pairs_stand_side_by_side_with_what_is_said_of_them():
    made = sheets.pair_sheet([("a", picture(0), "b", picture(1), "likeness 0.990")] * 3, "Pairs")
    assert made.alt.startswith("3 pairs: a and b, likeness 0.990")
    one = sheets.pair_sheet([("a", picture(0), "b", picture(1), "equal")], "Pair")
    assert one.size[1] < made.size[1]


def test_a_sheet_draws_the_outlines_that_it_is_given():
    mask = picture(0).with_pixels(np.zeros((1, 20, 30), np.uint8))
    mask.data[0, 5:15, 5:20] = 1
    blank = {"a": picture(0).with_pixels(np.zeros((1, 20, 30)))}
    plain = sheets.contact_sheet(blank, "Sheet")
    drawn = sheets.contact_sheet(blank, "Sheet", references={"a": mask}, marked=["a"])
    assert len(drawn.png) > len(plain.png)


@pytest.mark.parametrize("make", [lambda: cohort_figures.class_balance({}, "x"), lambda: sheets.pair_sheet([], "x")])
def test_nothing_to_show_is_refused(make):
    with pytest.raises(UsageError, match="at least one"):
        make()


def test_a_sheet_draws_boxes_as_well():
    blank = {"a": picture(0), "b": picture(0)}
    boxes = BoundingBoxes(np.array([[4.0, 4, 12, 14]]), ("cell",))
    plain = sheets.contact_sheet(blank, "Sheet")
    drawn = sheets.contact_sheet(blank, "Sheet", references={"a": boxes}, labels=(Label(1, "cell", (255, 0, 0)),))
    before, after = (np.asarray(Picture.open(io.BytesIO(made.png)).convert("RGB"), int) for made in (plain, drawn))
    # A picture of few colours shifts them a little where others are drawn.
    left, right = np.array_split((abs(after - before) > 60).any(axis=(0, 2)), 2)
    assert left.any()
    assert not right.any()


def test_a_sheet_says_the_class_of_each_case():
    images = {"a": picture(0), "b": picture(1)}
    plain = sheets.contact_sheet(images, "Sheet")
    named = sheets.contact_sheet(images, "Sheet", classes={"a": "benign", "b": "malignant"})
    assert "benign" in named.alt and "benign" not in plain.alt
