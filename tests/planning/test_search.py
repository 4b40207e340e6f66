from __future__ import annotations

import json
from dataclasses import replace

import pytest

import hilum
import trained
from hilum.errors import PlanError
from hilum.networks import factory
from hilum.planning import plan_changes, plan_checks, search_domains
from hilum.planning.rules import preprocessing_rules
from hilum.planning.search_domains import OF_A_FOLD, STRENGTHS, TRIED, Between, OneOf
from hilum.tasks import task_catalogue, task_settings
from hilum.transforms.augment import Augmentation
from hilum.values import BY_HAND, Fingerprint

SIZE = {"network.size": trained.SMALL_RESNET}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    data = trained.pictures(tmp_path_factory.mktemp("space") / "data", 60)
    return hilum.plan(data, device="cpu", threads=1)


@pytest.fixture(scope="module")
def whole(made):
    return search_domains.search_space(made.plan, made.room)


def test_the_plans_own_choices_are_the_plan_itself(made, whole):
    assert search_domains.apply_choices(made.plan, search_domains.planned_choices(whole), whole, made.room) is made.plan


def test_a_plan_of_pictures_is_searched_in_what_it_decides(whole):
    assert {
        "network.name",
        "network.width",
        "task.loss",
        "training.learning_rate",
        "training.weight_decay",
        "training.optimiser",
        "network.dropout",
        "training.batch",
        "augmentation",
    } <= (set(whole))
    assert whole["network.name"].own == "resnet" and len(whole["network.name"].values) > 2


def test_the_plans_own_number_lies_between_the_bounds_that_are_searched(whole):
    ranges = [domain for domain in whole.values() if isinstance(domain, Between)]
    assert ranges and all(one.low <= one.own <= one.high and one.low < one.high for one in ranges)


def test_a_trials_plan_can_be_followed_and_says_that_nobody_set_it_by_hand(made, whole):
    room = made.room
    others = {name: domain.values[-1] if isinstance(domain, OneOf) else domain.high for name, domain in whole.items()}
    plan = search_domains.apply_choices(made.plan, others, whole, room)
    plan_checks.checked_settings(plan)
    assert plan["network.name"] == others["network.name"]
    assert plan["augmentation.rotation"] == 2 * made.plan["augmentation.rotation"]
    assert plan["augmentation.flips"] == made.plan["augmentation.flips"]
    assert BY_HAND not in {decision.because for _, decision in plan}
    assert plan.decision("training.learning_rate").because == TRIED
    assert plan.decision("training.seed") == made.plan.decision("training.seed")


def test_sgd_learns_faster_by_its_own_schedule_and_dropout_is_tried_where_a_family_has_a_place_for_it(made, whole):
    rate = made.plan["training.learning_rate"] / 2
    choices = {"training.learning_rate": rate, "training.optimiser": "sgd", "network.dropout": 0.2}
    plan = search_domains.apply_choices(made.plan, choices, whole, made.room)
    assert plan["training.learning_rate"] == pytest.approx(2.5 * rate)
    assert (plan["training.optimiser"], plan["training.schedule"], plan["network.dropout"]) == ("sgd", "poly", 0.2)
    without = plan_changes.with_settings(made.plan, {"network.name": "lenet", "network.size": {}})
    assert "network.dropout" not in search_domains.search_space(without, made.room)


def test_what_a_person_has_set_is_no_knob(made):
    by_hand = plan_changes.with_settings(
        made.plan, {"training.learning_rate": 1e-3, "network.name": "resnet", "augmentation.rotation": 30.0}
    )
    found = search_domains.search_space(by_hand, made.room)
    assert {"training.learning_rate", "network.name"}.isdisjoint(found)
    stronger = search_domains.apply_choices(by_hand, {"augmentation": 2.0}, found, made.room)
    assert stronger["augmentation.rotation"] == 30.0
    assert stronger["augmentation.noise"] == 2 * made.plan["augmentation.noise"]


def test_folds_try_only_what_their_mean_does_not_need_in_common(made):
    found = search_domains.search_space(made.plan, made.room, of_fold=True)
    assert found and set(found) <= set(OF_A_FOLD)


def test_a_space_comes_back_from_its_record(whole):
    assert search_domains.space_from_record(json.loads(json.dumps(search_domains.space_record(whole)))) == whole


def test_what_a_trial_tries_is_said_in_one_line():
    domains = {"training.learning_rate": Between(1e-3, 1e-4, 1e-2), "augmentation": Between(1.0, 0.25, 2.0)}
    assert search_domains.choice_words({"training.learning_rate": 0.00212, "augmentation": 0.5}, domains) == (
        "training.learning_rate 0.00212, augmentation x 0.5"
    )
    assert search_domains.choice_words({"training.learning_rate": 1e-3, "augmentation": 1.0}, domains) == "as planned"


def test_families_and_strengths_that_a_search_names_exist():
    tried = "unet segresnet residual_encoder_unet resnet densenet se_resnet efficientnet convnext"
    assert factory.searched_families() == tuple(tried.split())
    assert set(STRENGTHS) <= set(vars(Augmentation()))


def test_each_kind_names_settings_of_its_own_and_values_that_it_knows():
    for name in task_catalogue.task_names():
        for key, values in task_settings.search_values(task_catalogue.task_class(name)).items():
            assert len(set(values)) > 1
            assert key in {"registration": ("smoothness", "labels_weight")}.get(name, ("loss",)), (
                f"test what else {name} lets be tried"
            )


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"search.trials": 1}, "greater than or equal to 2"),
        ({"search.minutes": 0}, "greater than 0"),
        ({"search.minutes": 90}, "leave none to train"),
        ({"search.trials": 4}, "neither minutes of a search"),
        ({"search.minutes": 9, "training.deterministic": True, "training.steps": 9}, "two equal searches need"),
    ],
)
def test_a_search_that_cannot_be_is_refused(made, given, match):
    with pytest.raises(PlanError, match=match):
        plan_checks.checked_settings(plan_changes.with_settings(made.plan, given))


def test_frames_around_are_tried_of_frames_of_clips_alone(made, whole):
    assert "preprocessing.around" not in whole
    assert made.plan.decision("preprocessing.around").because.endswith("no frames of clips")
    frames = [replace(case, id=f"clip_frame{n:03}") for n, case in enumerate(made.room.fingerprint.cases)]
    room = replace(made.room, fingerprint=Fingerprint(tuple(frames)))
    found = search_domains.search_space(made.plan, room)
    assert found["preprocessing.around"] == OneOf((0, 2))
    plan = search_domains.apply_choices(made.plan, {"preprocessing.around": 2}, found, room)
    assert plan.decision("preprocessing.around").because == TRIED
    assert plan_checks.checked_settings(plan).preprocessing.inputs == 5
    seen_alone = preprocessing_rules.decide_around(room.fingerprint)
    assert (seen_alone.value, "--tune" in seen_alone.because) == (0, True)
