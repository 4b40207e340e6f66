"""How cases are sampled and what corrects for it go together through every change of a plan."""

from __future__ import annotations

import numpy as np
import pytest

import hilum
import trained
from hilum.planning import plan_changes, plan_file
from hilum.values import Decision


@pytest.fixture(scope="module")
def scarce(tmp_path_factory):
    """48 pictures, of which 4 are dark."""
    root = trained.pictures(tmp_path_factory.mktemp("scarce"), 90)
    for path in sorted((root / "dark").iterdir())[4:]:
        path.unlink()
    return root


def planned(data, out=None, **assignments):
    return hilum.plan(data, device="cpu", out=out, assignments=assignments)


def shift(plan) -> float:
    found = plan["task.prior_shift"]
    return found["dark"] - found["bright"]


def test_a_scarce_class_is_sampled_as_often_and_corrected_by_its_share_of_the_training_cases(scarce):
    plan = planned(scarce).plan
    assert plan["training.sampling"] == "balanced"
    counts = plan["task.counts"]
    assert shift(plan) == pytest.approx(np.log(counts["dark"] / counts["bright"]), abs=1e-5)


@pytest.mark.whole
def test_another_sampling_or_weights_by_hand_bring_their_own_correction(scarce):
    natural = planned(scarce, **{"training.sampling": "natural"}).plan
    assert natural["task.prior_shift"] is None
    weighted = planned(scarce, **{"training.sampling": "natural", "task.weights": {"dark": 4.0}}).plan
    assert shift(weighted) == pytest.approx(-np.log(4.0), abs=1e-5)


def test_the_correction_follows_an_edit_of_the_sampling(scarce, tmp_path):
    out = tmp_path / "plan.yaml"
    planned(scarce, out=out)
    text = out.read_text(encoding="utf-8")
    out.write_text(text.replace("value: balanced", "value: natural"), encoding="utf-8")
    read = plan_file.read_plan(out)
    assert (read["training.sampling"], read["task.prior_shift"]) == ("natural", None)


def test_a_fold_corrects_by_its_own_shares_for_the_runs_own_sampling(scarce):
    made = planned(scarce)
    fingerprint = made.examination.fingerprint
    dark = [case.id for case in fingerprint.cases if case.references["class"] == "dark"]
    fold = plan_changes.plan_for_fold(
        made.plan, made.examination.dataset, fingerprint.only({c.id for c in fingerprint.cases} - set(dark[:2]))
    )
    counts = fold["task.counts"]
    assert counts["dark"] == 2
    assert shift(fold) == pytest.approx(np.log(2 / counts["bright"]), abs=1e-5)


def test_all_folds_are_taught_by_the_loss_of_the_plan_whatever_their_own_cases_would_choose(scarce):
    made = planned(scarce)
    plan = made.plan.with_decision("task.loss", Decision("focal", "a rule said so"))
    fold = plan_changes.plan_for_fold(plan, made.examination.dataset, made.examination.fingerprint)
    assert fold["task.loss"] == "focal"
