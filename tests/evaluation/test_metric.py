from __future__ import annotations

import pytest

from hilum.evaluation import Metric, Metrics
from hilum.evaluation.metric import BEFORE, BY_EPISTEMIC, OF_ANSWERED

HD95 = Metric("hd95", "HD95", "less", unit="mm")
NSD = Metric("nsd", "NSD")
ECE = Metric("ece", "ECE", "less", is_of_belief=True)
METRICS = Metrics((HD95, NSD, NSD.in_unit("_pixels", "NSD, tolerance in pixels"), ECE))


def test_a_metric_has_the_name_of_the_papers_and_leaves_its_unit_to_the_value() -> None:
    names = ("hd95", "hd95_pixels", "nsd_pixels", "volume_error_mm2", "my_metric", "hd95_answered")
    words = ["HD95", "HD95", "NSD, tolerance in pixels", "Volume error", "My metric", "HD95, answered"]
    assert [METRICS.metric_named(name).words for name in names] == words


def test_the_end_of_a_name_is_the_unit_of_its_values_and_a_ratio_has_none() -> None:
    units = [METRICS.metric_named(f"hd95{end}").unit for end in ("", "_pixels", "_voxels", "_ppm")]
    assert units == ["mm", "pixels", "voxels", "ppm"]
    assert METRICS.metric_named("nsd_voxels").unit == ""


def test_of_an_unknown_metric_more_is_better_and_no_plan_may_name_it() -> None:
    assert METRICS.metric_named("my_metric").better == "more"
    assert not METRICS.metric_named("my_metric").may_judge


@pytest.mark.parametrize("end", [BEFORE, BY_EPISTEMIC, OF_ANSWERED])
def test_a_metric_by_other_probabilities_or_of_fewer_cases_is_better_the_same_way_and_judges_nothing(end: str) -> None:
    metric = METRICS.metric_named(f"ece{end}")
    assert (metric.better, metric.may_judge) == ("less", False)
    assert metric.is_of_belief == (end != OF_ANSWERED)  # the answered cases have their figures elsewhere


def test_a_kind_says_whose_gaps_are_tested_and_which_figure_tells_how_far_results_hold() -> None:
    marked = METRICS.mark_audited(audited=("hd95",), calibration="ece")
    assert [one.name for one in marked if one.is_audited] == ["hd95"]
    assert [one.name for one in marked if one.is_calibration] == ["ece"]
    assert marked.metric_named("hd95_pixels").is_audited
    assert not marked.metric_named("hd95_answered").is_audited
    with pytest.raises(ValueError, match="dice is no metric"):
        METRICS.mark_audited(audited=("dice",), calibration="ece")


def test_of_two_metrics_with_one_name_the_later_one_counts() -> None:
    assert Metrics((HD95, Metric("hd95", "Hausdorff distance"))).metric_named("hd95").words == "Hausdorff distance"
