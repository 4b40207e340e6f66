from __future__ import annotations

from dataclasses import replace

import pytest

from hilum.planning import plan_file
from hilum.values import BY_HAND, Decision, Plan


def plan_of(kind: str = "segmentation", **task) -> Plan:
    sections = {
        "task": {name: Decision(value, "chosen") for name, value in {"name": kind, **task}.items()},
        "evaluation": {
            "primary": Decision("dice", "overlap"),
            "groups": Decision(None, "nobody asked for any"),
            "margin": Decision(None, "nobody stated any"),
        },
        "training": {"batch": Decision(4, "small")},
    }
    return Plan(sections)


def test_it_is_the_sha256_of_what_is_promised():
    # echo -n '{"evaluation.primary": "dice", "task.tolerance": 2.0}' | sha256sum
    assert (
        plan_file.preregistration_digest(plan_of(tolerance=2.0))
        == "27d022e16ed14e9a731d70edc5ca9ac9f4e4faf0e2e7b432179f9e2ec1400fd9"
    )


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("segmentation", "evaluation.primary", "nsd"),
        ("segmentation", "task.tolerance", 3.0),
        ("segmentation", "evaluation.margin", 0.05),
        ("classification", "task.operating_point", "youden"),
        ("classification", "task.prevalence", 0.1),
        ("classification", "task.costs", [[0.0, 1.0], [5.0, 0.0]]),
        ("findings", "task.operating_point", "youden"),
        ("survival", "task.horizons", [1.0]),
    ],
)
def test_whatever_could_flatter_the_figure_changes_it(kind, name, value):
    made = plan_of(kind, tolerance=2.0, operating_point="argmax", prevalence=None)
    assert plan_file.preregistration_digest(
        made.with_decision(name, Decision(value, BY_HAND))
    ) != plan_file.preregistration_digest(made)


def test_how_the_model_is_trained_does_not_change_it():
    made = plan_of(tolerance=2.0)
    assert plan_file.preregistration_digest(
        made.with_decision("training.batch", Decision(8, BY_HAND))
    ) == plan_file.preregistration_digest(made)
    assert plan_file.preregistration_digest(
        made.with_decision("task.loss", Decision("ce", BY_HAND))
    ) == plan_file.preregistration_digest(made)


def test_a_margin_that_nobody_stated_changes_nothing_and_one_that_was_changed_since_is_none():
    made = plan_of(tolerance=2.0)
    without = made.with_decision("evaluation.margin", Decision(None, "nobody stated any"))
    assert plan_file.preregistration_digest(without) == plan_file.preregistration_digest(made)
    stated = made.with_decision("evaluation.margin", Decision(0.05, BY_HAND))
    promised = stated.with_decision(
        "evaluation.preregistered", Decision(plan_file.preregistration_digest(stated), "before training")
    )
    assert plan_file.preregistered_margin(promised) == 0.05
    assert plan_file.preregistered_margin(promised.with_decision("evaluation.margin", Decision(0.1, BY_HAND))) is None
    assert (
        plan_file.preregistered_margin(stated) is None
        and plan_file.preregistered_margin(without) is None
        and plan_file.preregistered_margin(None) is None
    )


def test_groups_that_were_changed_since_are_none_that_were_fixed_before_training():
    stated = plan_of(tolerance=2.0).with_decision("evaluation.groups", Decision("sex,site", BY_HAND))
    promised = stated.with_decision(
        "evaluation.preregistered", Decision(plan_file.preregistration_digest(stated), "before training")
    )
    assert plan_file.preregistered_groups(promised) == "sex,site"
    assert plan_file.preregistered_groups(promised.with_decision("evaluation.groups", Decision("sex", BY_HAND))) is None
    assert plan_file.preregistered_groups(stated) is None and plan_file.preregistered_groups(None) is None


def test_trainings_of_one_plan_are_known_whatever_their_seed_and_speed_and_no_others():
    own = {"training": ("seed", "steps", "learning_rate"), "split": ("seed",), "preprocessing": ("border",)}
    sections = {section: {name: Decision(0, "a rule") for name in names} for section, names in own.items()}
    made = Plan(sections, data_hash="d")
    for name, value in {"training.seed": 7, "split.seed": 3, "training.steps": 99}.items():
        assert (
            plan_file.recipe_digest(made.with_decision(name, Decision(value, BY_HAND)))["recipe"]
            == plan_file.recipe_digest(made)["recipe"]
        )
    assert plan_file.recipe_digest(made.with_decision("training.seed", Decision(7, BY_HAND)))["seed"] == 7
    for name, value in {"training.learning_rate": 0.5, "preprocessing.border": 0.25}.items():
        assert (
            plan_file.recipe_digest(made.with_decision(name, Decision(value, BY_HAND)))["recipe"]
            != plan_file.recipe_digest(made)["recipe"]
        )
    assert plan_file.recipe_digest(replace(made, data_hash="e"))["recipe"] != plan_file.recipe_digest(made)["recipe"]
    assert plan_file.recipe_digest(None) == plan_file.recipe_digest(replace(made, data_hash="")) == {}
