"""Sizes of studies beside the values that R gave (`bench/against_r.py --part sizes`).

pwr 1.3.0, rpact 3.3.4, R 4.2.2.
"""

from __future__ import annotations

import importlib
from math import ceil
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
# Of two arms in all, or of one; events of both arms.
SIZES = {
    "means": (63.76561044, 1),
    "means, paired": (33.36712914, 1),
    "means, small": (4204.890881, 2),
    "means, non-inferior": (350.7701932, 2),
    "proportions": (774.6770334, 2),
    "proportions, non-inferior": (1161.475811, 2),
    "survival": (246.7871045, 2),
    "means, three looks": (129.163311, 2),
    "proportions, five looks of Pocock": (939.3835183, 2),
    "survival, three looks": (249.9446993, 2),
}
BOUNDS = {
    "obrien-fleming, 2": [2.962588043, 1.968595646],
    "obrien-fleming, 3": [3.710302873, 2.511427484, 1.993047483],
    "obrien-fleming, 5": [4.876884949, 3.357011922, 2.680280067, 2.289816774, 2.031032063],
    "pocock, 2": [2.156999218, 2.200976975],
    "pocock, 3": [2.279428239, 2.294911139, 2.295939587],
    "pocock, 5": [2.437976688, 2.426813863, 2.410194136, 2.396649294, 2.385999702],
}


@pytest.fixture(scope="module")
def ours():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        return importlib.import_module("against_r").sizes_of_ours()


def test_sizes_are_those_of_r_rounded_up_to_as_many_in_each_arm(ours):
    assert {name: ours[name] for name in SIZES} == {
        name: [arms * ceil(number / arms)] for name, (number, arms) in SIZES.items()
    }
    assert ours["means, power"] == pytest.approx([0.8014595579], abs=1e-5)
    assert set(ours) == {*SIZES, *BOUNDS, "means, power"}


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_of_looks_are_those_of_r(ours, name):
    assert ours[name] == pytest.approx(BOUNDS[name], abs=2e-5)
