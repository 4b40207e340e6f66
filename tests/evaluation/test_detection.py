from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hilum.errors import UsageError
from hilum.evaluation import box_matching
from hilum.evaluation.box_matching import Froc, Matches
from hilum.values import BoundingBoxes
from matrices import only

SIDE = 40.0


def truth(*corners: tuple[float, ...], ignored: tuple[bool, ...] = ()) -> BoundingBoxes:
    axes = len(corners[0]) // 2 if corners else 2
    marks = np.array(ignored or [False] * len(corners), dtype=bool)
    return BoundingBoxes(np.array(corners).reshape(-1, 2 * axes), ("a",) * len(corners), ignored=marks)


def found(*scored: tuple[float, tuple[float, ...]]) -> BoundingBoxes:
    boxes = truth(*(box for _, box in scored))
    return BoundingBoxes(boxes.corners, boxes.names, np.array([score for score, _ in scored]))


def random_boxes(rng: np.random.Generator, count: int, axes: int) -> np.ndarray:
    low = rng.uniform(0, SIDE, (count, axes))
    return np.concatenate([low, low + rng.uniform(4, 12, (count, axes))], axis=1)


def cohort(seed: int, images: int, axes: int, per_image: int = 13) -> tuple[list[BoundingBoxes], list[BoundingBoxes]]:
    """Predictions of which some are near a reference, with scores that all differ; as many references in each image."""
    rng = np.random.default_rng(seed)
    references, predictions = [], []
    for _ in range(images):
        boxes = random_boxes(rng, per_image, axes)
        near = boxes[rng.random(per_image) < 0.7] + rng.normal(0, 0.6, (1, 2 * axes))
        guesses = np.concatenate([near, random_boxes(rng, int(rng.integers(0, 12)), axes)])
        ignored = rng.random(per_image) < 0.1
        references.append(BoundingBoxes(boxes, ("a",) * per_image, ignored=ignored))
        predictions.append(BoundingBoxes(guesses, ("a",) * len(guesses), rng.random(len(guesses))))
    return predictions, references


def test_the_overlap_of_boxes_is_worked_out_by_hand():
    boxes = [[0, 0, 2, 2], [0, 0, 4, 4], [10, 10, 12, 12]]
    assert_allclose(box_matching.box_iou(boxes, [[1, 1, 3, 3]]), [[1 / 7], [4 / 16], [0]])
    assert_allclose(box_matching.box_iou([[0, 0, 0, 2, 2, 2]], [[1, 0, 0, 3, 2, 2]]), [[1 / 3]])
    assert box_matching.box_iou(np.zeros((0, 4)), [[1, 1, 3, 3]]).shape == (0, 1)


@given(st.integers(0, 10**6), st.sampled_from([2, 3]), st.floats(-50, 50), st.floats(0.1, 10))
def test_overlap_is_symmetric_at_most_one_and_the_same_wherever_and_however_large(seed, axes, shift, factor):
    rng = np.random.default_rng(seed)
    one, other = random_boxes(rng, 5, axes), random_boxes(rng, 4, axes)
    overlap = box_matching.box_iou(one, other)
    assert_allclose(overlap, box_matching.box_iou(other, one).T)
    assert ((overlap >= 0) & (overlap <= 1 + 1e-12)).all()
    assert_allclose(np.diag(box_matching.box_iou(one, one)), 1)
    assert_allclose(box_matching.box_iou(one * factor + shift, other * factor + shift), overlap, atol=1e-9)


def test_average_precision_is_worked_out_by_hand():
    """Two of four references found, at precisions 1 and 2/3: recalls 0 to 0.25 and to 0.5 of 101."""
    reference = [truth((0, 0, 4, 4), (10, 10, 14, 14)), truth((0, 0, 4, 4), (20, 20, 24, 24))]
    predicted = [found((0.9, (0, 0, 4, 4)), (0.8, (30, 30, 34, 34))), found((0.7, (20, 20, 24, 24)))]
    matches = Matches.at(0.5, predicted, reference)
    assert float(matches.average_precision()) == pytest.approx((26 + 25 * 2 / 3) / 101)
    assert_allclose(matches.curve, [[0.25, 0.5], [1, 2 / 3]])


def test_a_perfect_detector_scores_one_and_one_that_finds_nothing_nothing():
    references = [truth((0, 0, 4, 4), (10, 10, 14, 14))]
    perfect = [found((0.9, (0, 0, 4, 4)), (0.4, (10, 10, 14, 14)))]
    assert float(Matches.at(0.95, perfect, references).average_precision()) == 1
    assert float(Matches.at(0.5, [found()], references).average_precision()) == 0
    assert np.isnan(Matches.at(0.5, perfect, [truth()]).average_precision())


def test_the_second_box_on_one_reference_is_wrong():
    twice = [found((0.9, (0, 0, 4, 4)), (0.8, (0, 0, 4, 4)))]
    assert Matches.at(0.5, twice, [truth((0, 0, 4, 4))]).right.tolist() == [True, False]


def test_the_surer_box_takes_the_reference_even_where_the_other_fits_better():
    predicted = [found((0.5, (0, 0, 4, 4)), (0.9, (0, 0, 4, 5)))]
    matches = Matches.at(0.5, predicted, [truth((0, 0, 4, 4))])
    assert matches.scores.tolist() == [0.9, 0.5]
    assert matches.right.tolist() == [True, False]


def test_what_lies_in_an_ignored_reference_is_neither_right_nor_wrong_however_often():
    references = [truth((0, 0, 10, 10), (20, 20, 24, 24), ignored=(True, False))]
    predicted = [found((0.9, (1, 1, 4, 4)), (0.8, (5, 5, 9, 9)), (0.7, (20, 20, 24, 24)))]
    matches = Matches.at(0.5, predicted, references)
    assert (matches.scores.tolist(), matches.references.tolist()) == ([0.7], [1])
    assert float(matches.average_precision()) == 1


@pytest.mark.parametrize("overlap", [None, 0.1, 0.5])
def test_small_boxes_in_a_large_ignored_reference_are_no_false_ones_of_the_free_response_curve(overlap):
    references = [truth((0, 0, 100, 100), (120, 120, 124, 124), ignored=(True, False))]
    predicted = [found((0.9, (1, 1, 4, 4)), (0.8, (50, 50, 59, 59)), (0.7, (120, 120, 124, 124)))]
    froc = Froc.from_boxes(predicted, references, overlap=overlap)
    assert (len(froc.false), froc.scores.tolist(), float(froc.cpm())) == (0, [0.7], 1.0)


def test_no_more_boxes_of_an_image_count_than_asked_for():
    predicted = [found((0.2, (0, 0, 4, 4)), *((0.5 + n / 100, (30, 30, 34, 34)) for n in range(3)))]
    references = [truth((0, 0, 4, 4))]
    assert Matches.at(0.5, predicted, references, most=3).right.sum() == 0
    assert Matches.at(0.5, predicted, references, most=4).right.sum() == 1


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("overlap", only([0.5], [0.1, 0.5, 0.75]))
@pytest.mark.parametrize("seed", only([0], [0, 1]))
def test_average_precision_is_that_of_monais_port_of_cocos_evaluation(axes, overlap, seed):
    coco = pytest.importorskip("monai.apps.detection.metrics.coco")
    matching = pytest.importorskip("monai.apps.detection.metrics.matching")
    # 7 images of 13 references: their shares meet none of the 101 recalls, on which rounding decides there.
    predicted, references = cohort(seed, 7, axes)
    references = [truth(*map(tuple, one.corners)) for one in references]
    metric = coco.COCOMetric(classes=["a"], iou_list=[overlap], max_detection=[100], verbose=False)
    zeros = [np.zeros(len(one), int) for one in predicted]
    results = matching.matching_batch(
        iou_fn=box_matching.box_iou,
        iou_thresholds=metric.iou_thresholds,
        pred_boxes=[one.corners for one in predicted],
        pred_classes=zeros,
        pred_scores=[one.scores for one in predicted],
        gt_boxes=[one.corners for one in references],
        gt_classes=[np.zeros(len(one), int) for one in references],
    )
    expected = metric(results)[0][f"AP_IoU_{overlap:.2f}_MaxDet_100"]
    assert 0 < expected < 1
    figure = float(Matches.at(overlap, predicted, references).average_precision())
    assert figure == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 10**6), st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_an_image_that_counts_twice_is_as_good_as_two_such_images(seed, times):
    predicted, references = cohort(seed, 4, 2, per_image=5)
    repeated = [number for number, count in enumerate(times) for _ in range(count)]
    again = [[one[number] for number in repeated] for one in (predicted, references)]
    weights = np.array([times, [1, 1, 1, 1]], dtype=float)
    for overlap in (0.1, 0.5):
        whole = Matches.at(overlap, predicted, references)
        both = whole.average_precision(weights)
        assert_allclose(both[0], Matches.at(overlap, *again).average_precision(), atol=1e-12)
        assert_allclose(both[1], whole.average_precision(), atol=1e-12)
    froc = Froc.from_boxes(predicted, references)
    for rate in Froc.rates:
        assert_allclose(
            froc.sensitivity(rate, weights)[0],
            Froc.from_boxes(*again).sensitivity(rate) if repeated else np.nan,
            atol=1e-12,
        )


def test_sensitivity_at_a_rate_of_false_boxes_is_worked_out_by_hand():
    """Four scans, three references; the second hit comes with the first false box, the third after the second."""
    references = [truth((0, 0, 4, 4)), truth((0, 0, 4, 4)), truth((0, 0, 4, 4)), truth()]
    predicted = [
        found((0.9, (1, 1, 3, 3)), (0.85, (0, 0, 4, 4))),  # a second hit of one reference is neither
        found((0.7, (0, 0, 6, 6)), (0.75, (20, 20, 24, 24))),
        found((0.3, (0, 0, 4, 4)), (0.5, (20, 20, 24, 24))),
        found(),
    ]
    froc = Froc.from_boxes(predicted, references)
    assert froc.scores.tolist() == [0.9, 0.7, 0.3]
    assert sorted(froc.false.tolist()) == [0.5, 0.75]
    # One false box is a quarter a scan, two are a half.
    expected = {0.125: 1 / 3, 0.25: 2 / 3, 0.5: 1, 1: 1, 2: 1, 4: 1, 8: 1}
    for rate, share in expected.items():
        assert float(froc.sensitivity(rate)) == pytest.approx(share), rate
    assert float(froc.cpm()) == pytest.approx(np.mean(list(expected.values())))
    rates, shares = froc.curve
    assert rates.tolist() == [0, 0.25, 0.25, 0.5, 0.5]
    assert_allclose(shares, [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1])


def test_a_centre_on_the_far_edge_hits_nothing_and_overlap_is_another_rule():
    references = [truth((0, 0, 4, 4))]
    aside = [found((0.9, (2, 2, 6, 6)))]
    assert np.isneginf(Froc.from_boxes(aside, references).scores).all()
    assert Froc.from_boxes(aside, references, overlap=0.1).scores.tolist() == [0.9]


def test_the_free_response_curve_is_that_of_luna16s_evaluation():
    """Its rules written out plainly: the highest score of all that hit a reference; what hits nothing is false."""
    predicted, references = cohort(3, 6, 3, per_image=5)
    froc = Froc.from_boxes(predicted, references)
    events = []
    total = sum(int((~one.ignored).sum()) for one in references)
    for boxes, reference in zip(predicted, references, strict=True):
        best: dict[int, float] = defaultdict(lambda: -1.0)
        for centre, score in zip(boxes.centres, boxes.scores, strict=True):
            hits = [
                n
                for n, (low, high) in enumerate(zip(reference.low, reference.high, strict=True))
                if all(low <= centre) and all(centre < high)
            ]
            for n in hits:
                best[n] = max(best[n], score)
            if not hits:
                events.append((score, 0))
        events += [(score, 1) for n, score in best.items() if not reference.ignored[n]]
    events.sort(reverse=True)
    hits = np.cumsum([event for _, event in events]) / total
    false = np.cumsum([1 - event for _, event in events]) / len(references)
    for rate in Froc.rates:
        assert float(froc.sensitivity(rate)) == pytest.approx(max([0, *hits[false <= rate]])), rate
    assert_allclose(froc.curve, [false, hits])


def test_sensitivity_among_some_references_is_at_the_score_of_all():
    references = [truth((0, 0, 2, 2), (10, 10, 20, 20))]
    predicted = [found((0.9, (10, 10, 20, 20)), (0.8, (30, 30, 34, 34)), (0.7, (0, 0, 2, 2)))]
    froc = Froc.from_boxes(predicted, references)
    assert_allclose(froc.sizes, [2, 10])
    small = froc.sizes < 5
    assert float(froc.sensitivity(0.5, among=small)) == 0
    assert float(froc.sensitivity(0.5, among=~small)) == 1
    assert float(froc.sensitivity(1.0, among=small)) == 1
    assert np.isnan(froc.sensitivity(1.0, among=np.zeros(2, bool)))


def test_the_size_of_a_box_is_the_side_of_the_cube_of_its_volume():
    assert_allclose(box_matching.box_sizes(truth((0, 0, 0, 2, 4, 8))), [4])
    assert_allclose(box_matching.box_sizes(truth((0, 0, 0, 2, 4, 8)), (4, 1, 0.25)), [4])


def test_boxes_without_scores_or_of_other_images_are_refused():
    with pytest.raises(UsageError, match="scores"):
        Matches.at(0.5, [truth((0, 0, 1, 1))], [truth()])
    with pytest.raises(UsageError, match="2 images"):
        Froc.from_boxes([found(), found()], [truth()])
