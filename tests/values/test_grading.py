"""Grades in the names of classes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.values import grading

# From the lowest to the highest.
SCALES = [
    ("none", "mild", "moderate", "severe", "proliferative"),
    ("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR"),
    ("no DR", "mild NPDR", "moderate NPDR", "severe NPDR", "PDR"),
    ("No DR", "Non-proliferative DR", "Proliferative DR"),
    ("NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"),
    ("mild", "mild to moderate", "moderate to severe"),
    ("low", "intermediate", "high"),
    ("low grade", "high grade"),
    ("small", "medium", "large"),
    ("normal", "early", "intermediate", "late"),
    ("well differentiated", "moderately differentiated", "poorly differentiated"),
    ("Reject", "Usable", "Good"),
    ("1 none", "2 mild", "10 severe"),
    ("0", "0.5", "1", "2"),
    ("0", "1+", "2+", "3+"),
    ("none", "1+", "2+"),
    ("<5", "5-10", ">10"),
    ("Grade_2", "Grade_10"),
    ("normal", "stage 1", "stage 2"),
    ("BI-RADS 3", "BI-RADS 4a", "BI-RADS 4b", "BI-RADS 5"),
    ("grade I", "grade II", "grade III", "grade IV"),
    ("stage I", "stage IIa", "stage IIb"),
    ("density a", "density b", "density c", "density d"),
]


@given(st.sampled_from(SCALES).flatmap(lambda scale: st.tuples(st.just(scale), st.permutations(scale))))
def test_names_of_a_known_scale_rise_in_whatever_order_they_come(scale_and_shuffled):
    scale, shuffled = scale_and_shuffled
    assert grading.order_by_grade(shuffled) == scale


@pytest.mark.parametrize(
    "names",
    [
        ("benign", "malignant", "normal"),
        ("abnormal", "normal"),
        ("sick", "well"),
        ("covid19", "normal"),
        ("glioma", "meningioma", "no tumor"),
        ("-1", "1"),
        ("b", "d"),
        ("mild left", "mild right"),
        ("moderate", "poor"),  # of tissue moderate is lower, of quality poor is
        ("cyst", "2", "3"),
    ],
)
def test_other_names_are_of_no_scale(names):
    assert grading.order_by_grade(names) is None
