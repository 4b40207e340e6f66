from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.losses import FocalLoss

from hilum.errors import PlanError
from hilum.tasks import task_settings
from hilum.tasks.classification import losses
from hilum.tasks.classification.losses import LOSSES
from hilum.tasks.classification.question import Classification
from hilum.values import CaseFacts, Dataset, Fingerprint, Geometry
from matrices import thinned

COUNTS = {"a": 60, "b": 30, "c": 10}
GRID = Geometry.of_pixels((4, 4))


def simulated(cases: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((cases, 3), generator=generator), torch.randint(0, 3, (cases,), generator=generator)


def task(loss: str, **given) -> Classification:
    settings = {"classes": list(COUNTS), "counts": COUNTS, "smoothing": 0.0, "loss": loss, **given}
    return task_settings.task_from_settings(Classification, settings)


def test_without_anything_else_it_is_cross_entropy():
    logits, target = simulated()
    expected = torch.nn.functional.cross_entropy(logits, target)
    assert float(losses.class_loss("ce", logits, target)) == pytest.approx(float(expected))
    weights = torch.tensor([1.0, 2.0, 5.0])
    weighted = torch.nn.functional.cross_entropy(logits, target, weight=weights)
    assert float(losses.class_loss("ce", logits, target, weights=weights)) == pytest.approx(float(weighted))


def test_the_focal_loss_is_that_of_monai_with_as_many_classes_as_it_averages_over():
    logits, target = simulated()
    theirs = FocalLoss(gamma=2.0, to_onehot_y=True, use_softmax=True)
    assert float(losses.class_loss("focal", logits, target)) == pytest.approx(
        3 * float(theirs(logits, target[:, None]))
    )


def test_the_hardest_half_of_a_batch_counts_and_of_one_case_all():
    logits, target = simulated(9)
    each = torch.nn.functional.cross_entropy(logits, target, reduction="none").sort(descending=True).values
    assert float(losses.class_loss("hardest", logits, target)) == pytest.approx(float(each[:4].mean()))
    assert float(losses.class_loss("hardest", logits[:1], target[:1])) > 0


def test_effective_numbers_count_few_cases_as_they_are_and_many_as_no_more_than_a_thousand():
    few = losses.effective_weights(np.array([1.0, 2.0]))
    assert few[0] / few[1] == pytest.approx(1.999, abs=1e-3)
    many = losses.effective_weights(np.array([1e5, 1e6]))
    assert many.tolist() == pytest.approx([1.0, 1.0])


def test_adjusted_logits_cost_what_cross_entropy_of_the_shifted_ones_costs():
    logits, target = simulated()
    shifted = logits + torch.log(torch.tensor([0.6, 0.3, 0.1]))
    adjusted = losses.class_loss("logit_adjusted", logits, target, np.array([60.0, 30.0, 10.0]))
    assert float(adjusted) == pytest.approx(float(torch.nn.functional.cross_entropy(shifted, target)))


@pytest.mark.parametrize("loss", thinned(3, [name for name in LOSSES if name not in ("focal", "hardest")]))
def test_what_a_loss_likes_best_is_brought_back_to_the_shares_of_the_training_cases(loss):
    made = task(loss)
    made = replace(made, prior_shift=made.under("natural")["task.prior_shift"].value)
    target = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    learnt = torch.zeros(3, requires_grad=True)
    for _ in range(200):  # the constant that the loss likes best
        (slope,) = torch.autograd.grad(made.loss({"class": learnt.expand(100, 3)}, target), learnt)
        learnt = (learnt - 4 * slope).detach().requires_grad_()
    probabilities = made.decode([((), {"class": learnt.detach().numpy()})], GRID).probabilities
    assert list(probabilities.values()) == pytest.approx([0.6, 0.3, 0.1], abs=1e-3)
    if loss == "logit_adjusted":  # what the network itself says is what it would say of equal classes
        assert float(learnt.detach().std()) < 1e-3


@pytest.mark.parametrize("sampling", ["square_root", "oversampled", "undersampled"])
def test_what_a_sampling_changed_is_brought_back(sampling):
    shift = task("ce").under(sampling)["task.prior_shift"].value
    shares = np.array([0.6, 0.3, 0.1])
    seen = np.sqrt(shares) if sampling == "square_root" else np.ones(3)
    back = np.log(seen) + np.array(list(shift.values()))
    assert np.exp(back) / np.exp(back).sum() == pytest.approx(shares, abs=1e-5)


@pytest.mark.parametrize(
    ("loss", "given", "message"),
    [
        ("dice", {}, "there is no loss 'dice'"),
        ("focal", {"smoothing": 0.1}, "takes no smoothed targets"),
        ("focal", {"order": "corn"}, "questions between grades"),
        ("logit_adjusted", {"weights": {"c": 3.0}}, "weights would do it twice"),
        ("class_balanced", {"counts": None}, "needs the cases of each class"),
    ],
)
def test_a_loss_that_does_not_go_with_the_rest_is_refused(loss, given, message):
    with pytest.raises(PlanError, match=message):
        task(loss, **given)


@pytest.mark.parametrize("loss", ["logit_adjusted", "class_balanced"])
@pytest.mark.parametrize("sampling", thinned(1, ["balanced", "oversampled", "square_root"]))
def test_classes_are_balanced_once(loss, sampling):
    with pytest.raises(PlanError, match=f"{sampling} sampling would do it twice"):
        task(loss).under(sampling)


def planned(counts: dict[str, int]):
    names = [name for name, number in counts.items() for _ in range(number)]
    cases = [
        CaseFacts(str(n), (8, 8), (1.0, 1.0), False, True, ("a",), "unknown", (), references={"class": name})
        for n, name in enumerate(names)
    ]
    fingerprint = Fingerprint(tuple(cases))
    decisions = Classification.settings_for(Dataset(()), fingerprint)
    made = task_settings.task_from_settings(
        Classification, {name: decision.value for name, decision in decisions.items()}
    )
    return made, {**decisions, **made.decisions(fingerprint)}


def test_a_class_too_scarce_to_be_sampled_as_often_has_its_logits_adjusted():
    made, decisions = planned({"no": 300, "yes": 5})
    assert (decisions["loss"].value, decisions["training.sampling"].value) == ("logit_adjusted", "natural")
    assert "yes has 60 times fewer training cases" in decisions["loss"].because
    assert made.prior_shift["yes"] - made.prior_shift["no"] == pytest.approx(np.log(5 / 300), abs=1e-5)
    assert task_settings.task_from_settings(Classification, task_settings.settings_of(made)) == made
    other, decisions = planned({"no": 95, "yes": 5})
    assert (decisions["loss"].value, decisions["training.sampling"].value) == ("ce", "balanced")
    assert other.loss_name == "ce"
