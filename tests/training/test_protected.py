from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from apple_gpus import on_apple
from hilum.objectives.objective_terms import ObjectiveStep, SeenBatch, Supervised
from hilum.training.data import protected_groups
from hilum.training.data.batch_loading import Loader
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.data.protected_groups import ProtectedGroups


def people(*counts: tuple[str, int, int]) -> list[PreparedCase]:
    """Cases of (group, class, how many)."""
    image = np.zeros((1, 4, 4), dtype=np.float32)
    own = [(group, label) for group, label, count in counts for _ in range(count)]
    return [
        PreparedCase(f"c{n}", image, np.array(label), (), (1.0, 1.0), group=group)
        for n, (group, label) in enumerate(own)
    ]


UNEQUAL = (("F", 0, 30), ("F", 1, 10), ("M", 0, 20), ("M", 1, 40))


def of_groups(method, cases):
    """The objectives by which people are treated alike."""
    chosen = SimpleNamespace(training=SimpleNamespace(fairness=method), terms={"supervised": Supervised()})
    return protected_groups.objectives_of_groups(chosen, cases)


def seen(outputs, targets, cases, **options):
    """A step with these outputs."""
    labelled = SeenBatch(torch.zeros(len(cases), 1), targets, (), cases=tuple(cases))
    return ObjectiveStep(labelled, outputs, run=None, teacher=None, judge=judge, task=None, **options)


def judge(outputs, targets):
    return (outputs["class"][:, 0] - targets).square().mean()


def test_reweighed_cases_have_group_and_class_independent():
    made = ProtectedGroups.for_cases("reweigh", people(*UNEQUAL))
    weights = made.weights[made.cells]
    assert_allclose(weights.sum(), 100)
    group = np.repeat(["F", "F", "M", "M"], [30, 10, 20, 40])
    ill = np.repeat([0, 1, 0, 1], [30, 10, 20, 40])
    for name in "FM":
        assert_allclose(np.average(ill[group == name], weights=weights[group == name]), 0.5)
    # Kamiran and Calders: P(group) P(class) / P(group, class)
    assert_allclose(weights[0], 0.4 * 0.5 / 0.3)


def test_the_loss_of_a_reweighed_batch_is_the_weighted_mean_of_its_cases():
    made = ProtectedGroups.for_cases("reweigh", people(*UNEQUAL))
    cases = [0, 31, 45, 99, 1]
    outputs, targets = torch.randn(5, 1, dtype=torch.float64), torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0])
    each = (outputs[:, 0] - targets).square()
    expected = (each * torch.from_numpy(made.weights[made.cells[cases]])).mean()
    objective = of_groups("reweigh", people(*UNEQUAL))["supervised"]
    assert_allclose(objective.loss(seen({"class": outputs}, targets, cases)), expected)


def test_the_group_that_is_worst_off_comes_to_count_most():
    objective = of_groups("group_dro", people(("F", 0, 50), ("M", 0, 50)))["supervised"]
    outputs, targets, parts = {"class": torch.tensor([[0.1], [2.0]])}, torch.zeros(2), objective.parts(None, 0)
    step = seen(outputs, targets, [0, 50], parts=parts)
    first = float(objective.loss(step))
    assert parts.shares.tolist() == [0.5, 0.5]  # a look changes nothing: they move with the weights
    for _ in range(500):
        last = float(objective.loss(step))
        objective.after(step)
    assert_allclose(first, 0.5 * 0.01 + 0.5 * 4.0, atol=0.05)
    assert_allclose(last, 4.0, atol=0.01)
    assert_allclose(parts.shares.sum(), 1)
    on_gpu = {"class": on_apple(outputs["class"])}
    assert_allclose(float(objective.loss(seen(on_gpu, targets, [0, 50], parts=parts))), 4.0, atol=0.01)


def sampled(method: str, count: int, **options) -> Counter:
    cases = people(*UNEQUAL)
    protected = ProtectedGroups.for_cases(method, cases)
    loader = Loader(cases, (4, 4), 10, 0.0, 3, strata=protected.strata_to_sample)
    seen = [index for step in range(count // 10) for index in loader.of_step(step).cases]
    return Counter((cases[index].group, int(cases[index].target)) for index in seen)


def test_resampled_cases_come_with_group_and_class_independent():
    assert sampled("resample", 100) == {("F", 0): 20, ("F", 1): 20, ("M", 0): 30, ("M", 1): 30}


def test_balanced_batches_have_as_many_of_each_group():
    cases = people(*UNEQUAL)
    loader = Loader(
        cases, (4, 4), 10, 0.0, 3, strata=ProtectedGroups.for_cases("balanced_batches", cases).strata_to_sample
    )
    for step in range(20):
        assert Counter(cases[index].group for index in loader.of_step(step).cases) == {"F": 5, "M": 5}


def test_of_several_findings_groups_weigh_alike_whichever_comes_first():
    image = np.zeros((1, 4, 4), dtype=np.float32)
    findings = [(n % 2, n > 3) for n in range(10)]
    for order in (slice(None), slice(None, None, -1)):
        cases = [
            PreparedCase(f"c{n}", image, np.array(known[order], np.float32), (), (1.0, 1.0), group="FM"[n > 7])
            for n, known in enumerate(findings)
        ]
        made = ProtectedGroups.for_cases("reweigh", cases)
        assert_allclose(made.weights[made.cells], [10 / 2 / 8] * 8 + [10 / 2 / 2] * 2)


def test_without_classes_groups_weigh_alike():
    image = np.zeros((1, 4, 4), dtype=np.float32)
    cases = [
        PreparedCase(
            f"c{n}", image, np.zeros((4, 4), np.uint8), (np.zeros((1, 2), int),), (1.0, 1.0), group="FM"[n > 7]
        )
        for n in range(10)
    ]
    made = ProtectedGroups.for_cases("reweigh", cases)
    assert_allclose(made.weights[made.cells], [10 / 2 / 8] * 8 + [10 / 2 / 2] * 2)


@pytest.mark.parametrize("method", ["none", "resample"])
def test_only_methods_of_the_loss_change_it(method):
    assert of_groups(method, people(*UNEQUAL)) == {}


def test_an_adversary_learns_to_tell_groups_and_the_network_to_hide_them():
    objective = of_groups("adversarial", people(("F", 0, 2), ("M", 0, 2)))["adversary"]
    pooled = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    adversary = torch.tensor([[0.5, 0.0], [-0.5, 0.0]], requires_grad=True)
    parts = torch.nn.ParameterDict({"weights": adversary})
    objective.loss(seen({}, None, [0, 2], features=pooled, parts=parts)).backward()
    adversary = parts["weights"]
    assert adversary.grad[0, 0] < 0 < adversary.grad[1, 0]  # a step down tells the groups better
    straight = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    said = straight @ adversary.detach()[:, :-1].T
    torch.nn.functional.cross_entropy(said, torch.tensor([0, 1])).backward()
    assert_allclose(pooled.grad, -straight.grad)
