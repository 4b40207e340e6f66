import numpy as np
import pytest
from numpy.testing import assert_allclose

from hilum.errors import DatasetError
from hilum.evaluation import case_tables, intervals, mask_overlap


def scored(cases: int = 24, missing: int = 0, seed: int = 0):
    """Two structures in each case, two cases a patient; the right one is not there in the first cases."""
    random = np.random.default_rng(seed)
    rows = []
    for case in range(cases):
        for label, mean in (("left", 0.8), ("right", 0.6)):
            dice = np.nan if label == "right" and case < missing else mean + random.normal(0, 0.05)
            patient = f"p{case // 2}"
            rows.append({"case": f"c{case}", "patient": patient, "split": "test", "label": label, "dice": dice})
    return case_tables.case_table(rows)


def test_the_row_over_all_labels_comes_first_and_is_the_mean_of_the_others():
    rows = case_tables.mean_rows(scored(missing=5), {"dice": ""}, seed=0)
    assert [row.label for row in rows] == ["all", "left", "right"]
    overall, left, right = (row.estimate for row in rows)
    assert overall.value == pytest.approx((left.value + right.value) / 2)
    assert (overall.n, left.n, right.n, right.patients) == (24, 24, 19, 10)
    assert "5 undefined left out" in overall.method
    assert "5 undefined left out" in right.method


def test_with_every_score_there_the_mean_over_labels_is_that_of_the_cases():
    table = scored()
    overall = case_tables.mean_rows(table, {"dice": ""}, seed=3)[0].estimate
    by_case = table.groupby(["case", "patient"], sort=False)["dice"].mean().reset_index()
    same = intervals.bootstrap(by_case["dice"], by_case["patient"], seed=3)
    assert_allclose([overall.value, overall.low, overall.high], [same.value, same.low, same.high])


def test_a_label_that_is_never_scored_does_not_take_the_mean_with_it():
    rows = case_tables.mean_rows(scored(missing=24), {"dice": ""}, seed=0)
    assert rows[0].estimate.value == rows[1].estimate.value
    assert np.isnan(rows[2].estimate.value)


@pytest.mark.parametrize(("patients", "mark"), [(1, "1 patient with right"), (2, "2 patients with right"), (12, "")])
def test_a_mean_over_labels_is_no_surer_than_its_rarest_label(patients, mark):
    overall = case_tables.mean_rows(scored(missing=24 - 2 * patients), {"dice": ""}, seed=0)[0].estimate
    assert overall.method.partition("unreliable: ")[2].partition(";")[0] == mark
    assert overall.low < overall.value < overall.high


def test_a_mean_over_labels_takes_the_exact_interval_of_a_label_that_is_always_missed_along():
    table = scored()
    table.loc[table["label"] == "right", "dice"] = 0.0
    overall, left, right = (row.estimate for row in case_tables.mean_rows(table, {"dice": ""}, seed=0))
    assert (right.low, right.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 12)))
    assert overall.high == pytest.approx((left.high + right.high) / 2) and overall.low == pytest.approx(left.low / 2)
    constant = table.assign(dice=(table["label"] == "left").astype(float))
    overall, left, right = (row.estimate for row in case_tables.mean_rows(constant, {"dice": ""}, seed=0))
    assert (overall.low, overall.high) == pytest.approx((left.low / 2, (1 + right.high) / 2))
    assert "exact interval of labels scored" in overall.method


def test_cases_without_labels_have_one_row():
    table = scored()
    table = table[table["label"] == "left"].assign(label="all")
    rows = case_tables.mean_rows(table, {"dice": ""}, seed=0)
    assert [(row.metric, row.label) for row in rows] == [("dice", "all")]
    assert rows[0].estimate == intervals.bootstrap(table["dice"], table["patient"], seed=0)


def test_perfect_structures_are_bounded_by_the_number_of_patients():
    overall = case_tables.mean_rows(scored().assign(dice=1.0), {"dice": ""}, seed=0)[0].estimate
    assert (overall.value, overall.low, overall.high) == (1.0, pytest.approx(0.025 ** (1 / 12)), 1.0)


def test_the_unit_stands_beside_the_figure():
    rows = case_tables.mean_rows(scored().assign(hd95=scored()["dice"] * 9), {"dice": "", "hd95": "mm"}, seed=0)
    assert [row.estimate.unit for row in rows] == ["", "", "", "mm", "mm", "mm"]


def test_pooled_figures_are_those_of_all_voxels_laid_together():
    random = np.random.default_rng(0)
    masks = [[random.random((6, 6)) < share for share in (0.2 + case / 30, 0.5)] for case in range(15)]
    rows = []
    for case, (prediction, reference) in enumerate(masks):
        found = mask_overlap.overlap_of_masks(prediction, reference)
        counts = {"voxels_both": found.both, "voxels_predicted": found.predicted, "voxels_reference": found.reference}
        rows.append({"case": f"c{case}", "patient": f"p{case}", "split": "test", "label": "1", **counts})
    found = {
        (row.metric, row.label): row.estimate for row in case_tables.pooled_rows(case_tables.case_table(rows), seed=0)
    }
    joint = mask_overlap.overlap_of_masks(*(np.stack(each) for each in zip(*masks, strict=True)))
    for metric, value in (("dice_pooled", joint.dice), ("iou_pooled", joint.iou)):
        overall = found[metric, "all"]
        assert overall.value == found[metric, "1"].value == pytest.approx(value)
        assert overall.low < overall.value < overall.high
        assert (overall.n, overall.patients) == (15, 15)


def test_pooled_dice_without_counts_is_refused():
    with pytest.raises(DatasetError, match="Count voxels"):
        case_tables.pooled_rows(scored(), seed=0)
