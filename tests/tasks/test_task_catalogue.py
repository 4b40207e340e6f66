"""Names of kinds of problem: ours, and those that other programs have."""

from __future__ import annotations

import re

import pytest

import hilum
import trained
from hilum.errors import PlanError
from hilum.tasks import task_catalogue
from hilum.tasks.index import ELSEWHERE, TASKS

WORD = re.compile(r"[a-z]+")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_of_other_programs_is_answered_by_a_kind_that_exists(name):
    assert name not in TASKS
    with pytest.raises(PlanError, match=re.escape(f"there is no task {name!r}. Use {ELSEWHERE[name]}")):
        task_catalogue.task_class(name)
    assert {*WORD.findall(ELSEWHERE[name])} & {*TASKS, task_catalogue.ALL}


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("multi-task", "Use multitask for all kinds"),
        ("segmentation+instance segmentation", "Use instances"),
        ("binary_classification", "Use classification; there are classification, detection, "),
        ("alchemy", "Use classification, detection, "),
    ],
)
def test_a_kind_that_is_asked_for_by_another_name_is_named(name, remedy, tmp_path):
    with pytest.raises(PlanError, match=re.escape(remedy)):
        hilum.plan(trained.pictures(tmp_path, 8), task=name)
