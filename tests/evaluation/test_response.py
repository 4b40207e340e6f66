"""PERCIST, worked out by hand."""

from __future__ import annotations

import pytest

from hilum.evaluation import lesions


@pytest.mark.parametrize(
    ("before", "after", "new", "verdict"),
    [
        (8.0, 5.0, 0, "PMR"),
        (8.0, 6.0, 0, "SMD"),
        (2.0, 1.3, 0, "SMD"),  # 35 % less, but only by 0.7
        (8.0, 10.5, 0, "PMD"),
        (8.0, 0.0, 0, "CMR"),
        (8.0, 4.0, 1, "PMD"),
        (1.8, 1.0, 0, "NE"),
    ],
)
def test_the_uptake_of_the_hottest_lesion_decides_by_percist(before, after, new, verdict):
    assert lesions.percist(before, after, new, 1.9 if verdict == "NE" else None).verdict == verdict
