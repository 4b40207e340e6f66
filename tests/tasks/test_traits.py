from __future__ import annotations

import pytest

from hilum.belief.calibration_scores import LOG_LOSS_CHANGE
from hilum.errors import PlanError
from hilum.tasks import index, task_catalogue, task_settings


@pytest.mark.parametrize("name", index.TASKS)
def test_a_kind_names_all_its_settings_where_it_refuses_one(name: str) -> None:
    with pytest.raises(PlanError, match="no such setting") as refused:
        task_catalogue.build_task({"name": name, "nonsense": 1})
    settings = refused.value.remedy.removeprefix("Choose one of ").split(", ")
    assert settings == list(task_settings.declared_settings(task_catalogue.task_class(name)))


@pytest.mark.parametrize("name", index.TASKS)
def test_each_metric_of_a_kind_is_declared_once(name: str) -> None:
    metrics = task_catalogue.task_class(name).metrics
    assert len({one.name for one in metrics.each}) == len(metrics.each)


KINDS = {name: task_catalogue.task_class(name) for name in index.TASKS}
# What somebody points at is no belief of the model's own.
STATING = [
    name for name, kind in KINDS.items() if not (kind.answers_features or kind.answers_pairs or kind.takes_prompts)
]


@pytest.mark.parametrize("name", STATING)
def test_each_kind_has_one_figure_that_tells_how_far_its_results_hold(name: str) -> None:
    [metric] = [one for one in task_catalogue.task_class(name).metrics if one.is_calibration]
    assert metric.name in {"ece", "ece_near", "coverage", "calibration_slope"}


@pytest.mark.parametrize("name", ["classification", "findings", "detection", "instances"])
def test_the_change_by_calibration_has_one_name_in_each_kind_that_states_it(name: str) -> None:
    assert (
        task_catalogue.task_class(name).metrics.metric_named(LOG_LOSS_CHANGE.name).words
        == "Change of the log loss by calibration"
    )


def test_kinds_that_share_a_network_bring_their_settings_and_names_along() -> None:
    both = task_catalogue.task_class("segmentation+classification")
    assert (both.metrics.metric_named("hd95").words, both.metrics.metric_named("auroc").words) == ("HD95", "AUROC")
    assert {"weighting", "segmentation.tolerance", "classification.order"} <= set(task_settings.declared_settings(both))
