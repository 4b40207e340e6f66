"""Figures of single objects: by hand, and against loops over every pair of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hilum.errors import GeometryError, UsageError
from hilum.evaluation import instances
from hilum.evaluation.instances import InstanceOverlap

MAPS = arrays.arrays(np.uint8, (7, 9), elements=st.integers(0, 4))


def row(text: str) -> np.ndarray:
    return np.array([[int(one) for one in text]])


def every_pair(predicted: np.ndarray, reference: np.ndarray) -> list[tuple[int, int, int, int]]:
    """(predicted, reference, intersection, union) of all pairs, by counting voxels."""
    found = []
    for p in [v for v in np.unique(predicted) if v]:
        for r in [v for v in np.unique(reference) if v]:
            one, other = predicted == p, reference == r
            found.append((p, r, int((one & other).sum()), int((one | other).sum())))
    return found


def test_two_halves_of_one_object_and_one_object_missed():
    # The reference has objects of 4 and 2 voxels. The prediction finds 3 of the first, and 1 more elsewhere.
    found = instances.instance_overlap(row("1110000020"), row("1111022000"))
    assert len(found.predicted) == 2
    assert len(found.reference) == 2
    assert found.iou.tolist() == [0.75]
    # One is found at 0.5 to 0.7, none above: 1 / (1 + 1 + 1) at five of ten thresholds.
    assert found.ap((0.5,)) == pytest.approx(1 / 3)
    assert found.ap((0.75,)) == 0
    assert found.ap() == pytest.approx(5 / 3 / 10)
    assert found.f1() == found.rq == 0.5
    assert found.sq == 0.75
    assert found.pq == pytest.approx(0.5 * 0.75)
    # AJI: 3 voxels in common; 4 of their union, 2 of the missed and 1 of the false object.
    assert found.aji == pytest.approx(3 / 7)


def test_objects_that_were_joined_are_one_find_at_best():
    found = instances.instance_overlap(row("11111110"), row("11112220"))
    assert found.matched_pairs(0.5) == 1
    # Both references take the one prediction: 4 of 7 and 3 of 7, as Kumar's algorithm says.
    assert found.aji == pytest.approx((4 + 3) / (7 + 7))


def test_an_overlap_of_just_a_half_is_no_find_because_two_objects_could_have_it():
    assert instances.instance_overlap(row("11110000"), row("11220000")).matched_pairs(0.5) == 0


def test_numbers_do_not_matter_but_which_voxels_share_one():
    one, other = row("1102233"), np.array([[70000, 70000, 0, 5, 5, 9, 9]])
    found = instances.instance_overlap(one, other)
    assert found.ap() == found.aji == found.pq == 1


def test_without_any_object_nothing_is_scored_and_with_one_that_is_not_there_the_score_is_zero():
    nothing, something = row("0000"), row("0110")
    empty = instances.instance_overlap(nothing, nothing)
    assert all(math.isnan(value) for value in (empty.ap(), empty.aji, empty.pq, empty.sq, empty.rq))
    for found in (instances.instance_overlap(something, nothing), instances.instance_overlap(nothing, something)):
        assert found.ap() == found.aji == found.pq == found.rq == 0
        assert math.isnan(found.sq)


@given(MAPS, MAPS)
def test_figures_are_those_of_loops_over_every_pair(predicted, reference):
    found, pairs = instances.instance_overlap(predicted, reference), every_pair(predicted, reference)
    objects, others = ({v for v in np.unique(one) if v} for one in (predicted, reference))
    if not objects and not others:
        return
    for threshold in InstanceOverlap.thresholds:
        right = sum(both / union > threshold for _, _, both, union in pairs)
        assert found.matched_pairs(threshold) == right
        assert found.ap((threshold,)) == pytest.approx(right / (len(objects) + len(others) - right))
    hits = [both / union for _, _, both, union in pairs if both / union > 0.5]
    missed, false = len(others) - len(hits), len(objects) - len(hits)
    assert found.pq == pytest.approx(sum(hits) / (len(hits) + missed / 2 + false / 2))
    # Kumar 2017, algorithm 1; of equally good predictions any may be taken, so only the bounds of such ties are sure.
    totals = set()
    for last in (False, True):
        common = union_of_all = 0
        taken = set()
        for r in others:
            met = [pair for pair in pairs if pair[1] == r and pair[2]]
            if not met:
                union_of_all += int((reference == r).sum())
                continue
            best = max(pair[2] / pair[3] for pair in met)
            p, _, both, union = [pair for pair in met if pair[2] / pair[3] == best][-1 if last else 0]
            common, union_of_all = common + both, union_of_all + union
            taken.add(p)
        union_of_all += sum(int((predicted == p).sum()) for p in objects - taken)
        totals.add(common / union_of_all)
    if len(totals) == 1:
        assert found.aji == pytest.approx(totals.pop())


def test_maps_of_other_grids_and_thresholds_where_pairs_are_not_unique_are_refused():
    with pytest.raises(GeometryError, match="own grid"):
        instances.instance_overlap(row("110"), row("1100"))
    with pytest.raises(UsageError, match=r"0\.5"):
        instances.instance_overlap(row("110"), row("110")).matched_pairs(0.3)
