"""Grades whose names are words: never in the order of the alphabet."""

from __future__ import annotations

import pytest

import hilum
from cohorts import picture, table
from hilum.errors import PlanError, UsageError
from hilum.tasks import task_settings
from hilum.tasks.classification import question
from hilum.tasks.classification.question import Classification

CORN = {"task.order": "corn"}


def graded(root, words, columns="image,label"):
    rows = []
    for n in range(5 * len(words)):
        picture(root / f"i{n}.png", n)
        rows.append(f"i{n}.png,{words[n % len(words)]}")
    return table(root / "t.csv", columns, rows)


def test_grades_in_words_stand_as_their_scale_rises(tmp_path):
    words = ["none", "mild", "moderate", "severe", "proliferative"]
    path = graded(tmp_path, 2 * words)
    plan = hilum.plan(path, modality="OP", assignments=CORN).plan
    assert plan["task.classes"] == words
    assert plan["task.ranked"] is True
    backwards = "proliferative,severe,moderate,mild,none"
    plan = hilum.plan(path, modality="OP", order=backwards).plan
    assert plan["task.classes"] == backwards.split(",")
    assert plan.options["order"] == backwards


def test_grades_of_no_known_scale_are_asked_for(tmp_path):
    path = graded(tmp_path, ["calm", "swollen", "burst"])
    plan = hilum.plan(path, modality="OP").plan
    assert plan["task.classes"] == ["burst", "calm", "swollen"]
    assert plan["task.ranked"] is False
    with pytest.raises(PlanError, match=r"order burst, calm, swollen, and that is the alphabet's.*--order"):
        hilum.plan(path, modality="OP", assignments=CORN)
    for given in ({"order": "calm,swollen,burst"}, {"labels": "0=calm,1=swollen,2=burst"}):
        made = hilum.plan(path, modality="OP", assignments=CORN, **given).plan
        assert made["task.classes"] == ["calm", "swollen", "burst"]
    alphabetical = hilum.plan(path, modality="OP", assignments=CORN, order=["burst", "calm", "swollen"]).plan
    assert alphabetical["task.ranked"] is True
    with pytest.raises(UsageError, match="does not name each class once: the classes are burst, calm, swollen"):
        hilum.plan(path, modality="OP", order="calm,swollen")


def test_an_order_that_is_set_in_a_plan_file_is_judged_too():
    settings = {"classes": ["burst", "calm", "swollen"], "smoothing": 0.0, "order": "corn", "ranked": False}
    with pytest.raises(PlanError, match="--order mild,moderate,severe"):
        task_settings.task_from_settings(Classification, settings)
    assert (
        task_settings.settings_of(task_settings.task_from_settings(Classification, {**settings, "order": "none"}))[
            "ranked"
        ]
        is False
    )
    assert task_settings.task_from_settings(Classification, {**settings, "ranked": True}).is_ranked
    with pytest.raises(PlanError, match=r"scale rises otherwise.*--order none,mild,severe"):
        task_settings.task_from_settings(Classification, {**settings, "classes": ["mild", "none", "severe"]})


def test_an_order_that_the_data_set_declares_is_known():
    assert question.decide_ranking(["calm", "swollen", "burst"], is_stated=False).value
    assert not question.decide_ranking(["severe", "mild"], is_stated=False).value
    assert question.decide_ranking(["grade I", "grade II"], is_stated=False).value
