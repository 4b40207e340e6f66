from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import hilum
import trained
from fingerprints import LAPTOP, SAMPLED, cohort, facts, intensity, several
from hilum.errors import PlanError
from hilum.planning import plan_changes, plan_checks, planner
from hilum.planning.plan_inputs import Wishes
from hilum.planning.plan_sections import SplitSettings
from hilum.values import BY_HAND, Decision, Fingerprint, Plan

HU = {"min": -1024.0, "low": -1000.0, "high": 1500.0, "mean": -300.0, "deviation": 400.0}


def planned(found: Fingerprint) -> Plan:
    return planner.make_plan(cohort(found.cases), found, SAMPLED, LAPTOP, Wishes(Decision("cpu", "a test"), 60.0))


@pytest.mark.whole
def test_a_fold_takes_its_statistics_from_its_own_training_cases():
    voxels = [np.linspace(-100.0 + 10 * n, 100.0 + 10 * n, 2001) for n in range(9)]
    cases = [facts(name=f"c{n}", modality="CT", intensity=HU, inside=intensity(own)) for n, own in enumerate(voxels)]
    found = Fingerprint(tuple(cases))
    made = planned(found)
    own = plan_changes.plan_for_fold(made, cohort(cases), found.only({"c0", "c1", "c2"}))
    for plan, inside in ((made, voxels), (own, voxels[:3])):
        [window] = plan["preprocessing.normalisation"]
        assert window["low"] == pytest.approx(np.percentile(np.concatenate(inside), 0.5), abs=3)
    assert "3 training cases" in own.decision("preprocessing.normalisation").because
    for name in ("preprocessing.spacing", "training.patch", "network.size"):  # one grid for all: outputs are averaged
        assert own[name] == made[name]


def test_a_fold_leaves_out_a_covariate_that_its_own_training_cases_have_alike():
    found = several(24, modality="MR")
    known = [{"age": 40.0 + n, "sex": "fm"[n % 2], "site": "far" if n > 12 else "near"} for n in range(24)]
    data = cohort(found.cases)
    data = replace(data, cases=tuple(replace(case, covariates=own) for case, own in zip(data, known, strict=True)))
    wishes = Wishes(Decision("cpu", "a test"), 60.0, context=["age", "site", "sex"])
    made = planner.make_plan(data, found, SAMPLED, LAPTOP, wishes)
    own = plan_changes.plan_for_fold(made, data, found.only({f"c{n}" for n in range(13)}), wishes.context)
    assert set(made["network.context"]) == {"age", "site", "sex"}
    assert own["network.context"]["age"]["median"] == 46.0
    assert "site" not in own["network.context"]
    assert plan_changes.plan_for_fold(made, data, found, None)["network.context"] == made["network.context"]


@pytest.mark.parametrize("treatment", ["resample", "balanced_batches"])
def test_where_groups_decide_how_often_a_case_is_sampled_the_plan_does_not_say_that_all_are_sampled_alike(treatment):
    usual = planned(several(3))
    made = plan_changes.with_settings(usual, {"training.fairness": treatment, "training.protected": "sex"})
    assert made["training.sampling"] == "natural"
    assert made.decision("training.sampling").because.startswith("training.fairness")
    weighed = plan_changes.with_settings(usual, {"training.fairness": "reweigh", "training.protected": "sex"})
    assert weighed.decision("training.sampling") == usual.decision("training.sampling")


def test_what_was_set_by_hand_stays_in_every_fold():
    found = several(6, modality="CT", intensity=HU)
    by_hand = [{"method": "window", "low": 0.0, "high": 80.0}]
    made = plan_changes.with_settings(planned(found), {"preprocessing.normalisation": by_hand})
    assert (
        plan_changes.plan_for_fold(made, cohort(found.cases), found.only({"c0"}))["preprocessing.normalisation"]
        == by_hand
    )


def test_folds_of_a_data_set_are_planned_each_for_itself(tmp_path):
    made = hilum.plan(trained.blobs(tmp_path / "data", 9), labels=trained.LABELS, device="cpu", threads=1, folds=3)
    assert made.plan["split.folds"] == 3
    assert made.plan["split.method"] == "folds"
    assert len(made.folds) == 3
    for fold in range(3):
        one = made.of_fold(fold)
        assert one.parts == made.folds[fold]
        assert plan_checks.checked_settings(one.plan).split == SplitSettings("folds", 3)


def test_folds_share_a_grid_and_the_plan_says_whose_cases_it_comes_from():
    single = planned(several(6))
    shared = plan_changes.shared_by_folds(plan_changes.with_settings(single, {"inference.patch": [32, 32, 32]}))
    for name in ("preprocessing.spacing", "training.patch", "network.size"):
        assert shared[name] == single[name]
        assert "of fold 0, for all folds alike" in shared.decision(name).because
    assert shared.decision("inference.patch").because == BY_HAND
    assert shared.decision("training.batch") == single.decision("training.batch")


def test_sgd_brings_its_rate_and_schedule_unless_a_person_says_otherwise():
    made = planned(several(3))
    sgd = plan_changes.with_settings(made, {"training.optimiser": "sgd"})
    assert (sgd["training.learning_rate"], sgd["training.schedule"]) == (0.01, "poly")
    assert "goes with SGD" in sgd.decision("training.schedule").because
    own = plan_changes.with_settings(made, {"training.optimiser": "sgd", "training.learning_rate": 0.1})
    assert own["training.learning_rate"] == 0.1
    assert own.decision("training.learning_rate").because == BY_HAND


def test_another_kind_of_image_is_refused_because_neither_normalisation_nor_augmentation_would_follow_it():
    made = planned(several(3, modality="MR"))
    with pytest.raises(PlanError, match="--modality CT"):
        plan_changes.with_settings(made, {"preprocessing.modality": "CT"})
    edited = made.with_decision("preprocessing.modality", Decision("CT", BY_HAND))
    with pytest.raises(PlanError, match="neither normalisation nor augmentation"):
        plan_changes.with_settings(edited, {"preprocessing.modality": "CT"})
    assert plan_changes.with_settings(made, {"preprocessing.modality": "MR"})["preprocessing.modality"] == "MR"


@pytest.mark.parametrize("patch", ["large", [0.5, 32, 32]])
def test_an_impossible_size_of_the_patch_is_named_by_what_was_set(patch):
    made = planned(several(6))
    with pytest.raises(PlanError) as refused:
        plan_checks.checked_settings(plan_changes.with_settings(made, {"training.patch": patch}))
    assert refused.value.where == "training.patch"


def test_mirroring_at_test_follows_that_of_training():
    made = plan_changes.with_settings(planned(several(3)), {"augmentation.flips": [0]})
    assert made["inference.flips"] == [0]
    plan_checks.checked_settings(made)


def test_mirroring_that_puts_a_label_on_the_wrong_side_is_refused():
    found = several(3, modality="MR")
    made = planner.make_plan(
        cohort(found.cases, ["left eye"]), found, SAMPLED, LAPTOP, Wishes(Decision("cpu", "a test"), 60.0)
    )
    assert made["augmentation.flips"] == []
    for name in ("augmentation.flips", "inference.flips"):
        with pytest.raises(PlanError) as refused:
            plan_checks.checked_settings(made.with_decision(name, Decision([0], BY_HAND)))
        assert refused.value.where == name
        assert "counterpart" in refused.value.problem
        plan_checks.checked_settings(made.with_decision(name, Decision([1], BY_HAND)))


def test_a_change_leaves_the_plan_it_was_made_from_as_it_was():
    made = planned(several(3))
    assert plan_changes.with_settings(made, {"training.batch": 2})["training.batch"] == 2
    assert made["training.batch"] == 4


def graded(**assignments) -> Plan:
    cases = [facts((28, 28), name=f"c{n}", references={"class": str(n % 3)}) for n in range(30)]
    return plan_changes.with_settings(planned(Fingerprint(tuple(cases))), assignments)


def test_an_order_set_by_hand_brings_the_quadratic_kappa_unless_another_metric_was_set_too():
    plain, made = graded(), graded(**{"task.order": "corn"})
    assert plain["evaluation.primary"] == plain["training.selection"] == "auroc"
    assert made["evaluation.primary"] == made["training.selection"] == "quadratic_kappa"
    assert "square of the grades between" in made.decision("training.selection").because
    assert plan_checks.checked_settings(made).task.order == "corn"
    own = graded(**{"task.order": "corn", "evaluation.primary": "mae"})
    assert (own["evaluation.primary"], own["training.selection"]) == ("mae", "quadratic_kappa")
    plan_checks.checked_settings(own)
    with pytest.raises(PlanError, match=r"training\.selection"):
        plan_checks.checked_settings(graded(**{"task.order": "corn", "training.selection": "auroc"}))
    with pytest.raises(PlanError, match=r"task\.smoothing"):
        plan_checks.checked_settings(graded(**{"task.order": "corn", "task.smoothing": 0.1}))


def test_folds_answer_the_same_questions_though_one_of_them_lacks_a_finding():
    found = [{"a": n % 2 == 0, "rare": n == 0} for n in range(12)]
    cases = [facts((28, 28), name=f"c{n}", references={"findings": one}) for n, one in enumerate(found)]
    whole = Fingerprint(tuple(cases))
    made = planned(whole)
    assert made["task.findings"] == ["a", "rare"]
    without = plan_changes.plan_for_fold(made, cohort(cases), whole.only({f"c{n}" for n in range(1, 12)}))
    assert without["task.findings"] == ["a", "rare"]
    with_all = plan_changes.plan_for_fold(made, cohort(cases), whole.only({f"c{n}" for n in range(6)}))
    assert with_all["task.counts"]["rare"] == {"present": 1, "absent": 5}


def test_a_network_that_sees_images_whole_sees_them_in_the_shape_that_was_set_by_hand():
    made = graded(**{"preprocessing.shape": [64, 48]})
    for name in ("training.patch", "inference.patch", "preprocessing.smallest"):
        assert made[name] == [64, 48]
        assert "the whole image, in the shape that was set by hand" in made.decision(name).because
    plan_checks.checked_settings(made)
    cut = graded(**{"preprocessing.shape": [64, 64], "training.patch": [48, 48]})
    assert cut["training.patch"] == cut["preprocessing.smallest"] == [48, 48]
    plan_checks.checked_settings(cut)
