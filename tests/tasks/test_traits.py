from __future__ import annotations

import importlib

import pytest

from isocenter import tasks
from isocenter.belief import CHANGED, OF_CALIBRATION
from isocenter.errors import PlanError

METRICS = ("METRICS", "OF_GRADES", "OF_COSTS", "OF_READERS")


@pytest.mark.parametrize("name", tasks.TASKS)
def test_each_setting_of_a_kind_has_a_sentence_for_the_prose_of_plans(name: str) -> None:
    with pytest.raises(PlanError, match="no such setting") as refused:
        tasks.kind(name).of({"nonsense": 1})
    settings = refused.value.remedy.removeprefix("Choose one of ").split(", ")
    assert set(settings) - set(tasks.kind(name).traits.sentences) == set()


@pytest.mark.parametrize("name", tasks.TASKS)
def test_the_names_of_metrics_are_those_of_metrics_that_the_kind_states(name: str) -> None:
    scores, traits = importlib.import_module(f"isocenter.tasks.{name}.scores"), tasks.kind(name).traits
    stated = frozenset().union(*(getattr(scores, group, frozenset()) for group in METRICS))
    stated |= {getattr(scores, "SELECTED", "")}  # what chooses checkpoints is in no table
    assert set(traits.metric_names) - stated - OF_CALIBRATION - {*traits.belief} == set()


@pytest.mark.parametrize("name", ["classification", "findings", "detection", "instances"])
def test_the_change_by_calibration_has_one_name_in_each_kind_that_states_it(name: str) -> None:
    assert tasks.kind(name).traits.metric_names[CHANGED] == "Change of the log loss by calibration"


def test_kinds_that_share_a_network_bring_their_sentences_and_names_along() -> None:
    traits = tasks.kind("segmentation+classification").traits
    assert {"weighting", "segmentation.tolerance", "classification.order"} <= set(traits.sentences)
    assert (traits.metric_names["hd95"], traits.metric_names["auroc"]) == ("HD95", "AUROC")
