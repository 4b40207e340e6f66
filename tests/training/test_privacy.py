"""Private training: what it spends, what a step sees of a sample, and what it refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.utils import clip_grad_norm_

import trained
from accountants import epsilon_by_hand
from hilum.errors import HilumError, PlanError
from hilum.objectives.objective_terms import Supervised
from hilum.planning import plan_changes, plan_checks, plan_file
from hilum.planning.plan_sections import PrivacySettings
from hilum.planning.rules import privacy_rules
from hilum.runtime import model_files, torch_networks
from hilum.scoring import data_record
from hilum.training import privacy_accounting
from hilum.training.data.batch_loading import Batch
from hilum.training.data.private_sampling import Chance, PoissonSampling
from hilum.training.length.schedule import TrainingPace
from hilum.training.privacy_accounting import PrivacyBudget, Spending
from hilum.training.step import private_step
from hilum.training.step.batch_loss import Criterion
from hilum.training.step.computation import Compute
from hilum.training.step.private_step import SampleGradients
from hilum.training.training_state import State
from hilum.verbs import package


@pytest.mark.parametrize(("noise", "rate", "steps"), [(0.9, 0.054, 200), (2.0, 0.01, 1000), (1.1, 1.0, 3)])
def test_epsilon_is_that_of_an_accountant_by_quadrature(noise, rate, steps):
    spent = Spending(1e-4).after(noise, rate, steps - 1).after(noise, rate)
    assert len(spent.steps) == 1
    by_hand = epsilon_by_hand(noise, rate, steps, 1e-4)
    assert by_hand * 0.9999 <= spent.epsilon <= 1.01 * by_hand


def test_the_noise_is_the_least_that_keeps_to_the_budget_whatever_was_spent_before():
    spent = Spending(1e-4).after(1.0, 0.05, 40)
    noise = spent.solve_noise(8.0, 0.05, 60)
    assert spent.after(noise, 0.05, 60).epsilon <= 8.0 < spent.after(noise / 1.01, 0.05, 60).epsilon
    with pytest.raises(HilumError, match="is spent"):
        spent.solve_noise(spent.epsilon, 0.05, 1)


def test_steps_planned_anew_solve_the_noise_anew_and_a_resumed_training_counts_what_was_taken():
    settings = PrivacySettings(epsilon=8.0, delta=1e-3)
    budget = PrivacyBudget.for_units(settings, 500, 25, Chance())
    for step in range(3):
        budget.take_step(step, TrainingPace(6))
    resumed = PrivacyBudget.for_units(settings, 500, 25, Chance())
    resumed.restore(json.loads(json.dumps(budget.state)), "here")
    for step in range(3, 12):
        resumed.take_step(step, TrainingPace(12))
    first, second = resumed.spending.steps
    assert (first.steps, second.steps) == (3, 9)
    assert second.noise_multiplier > first.noise_multiplier
    assert 7.9 < resumed.spending.epsilon <= 8.0
    assert {row["epsilon"] for row in resumed.rows("north")} == {resumed.spending.epsilon}


def test_a_known_seed_claims_nothing():
    budget = PrivacyBudget.for_units(PrivacySettings(epsilon=8.0), 50, 5, Chance(seed=1))
    budget.spending = budget.spending.after(1.0, 0.1)
    [row] = budget.rows()
    assert (row["noise"], row["epsilon"]) == ("seed", None)


def test_each_patient_is_sampled_by_chance_alone_with_one_image():
    units = privacy_accounting.units_of_cases(["a", "b", "a", "c"], "patient")
    assert units == ((0, 2), (1,), (3,))
    sampling = PoissonSampling(units, 0.3, Chance(seed=0))
    sampled = [[case for case, _ in sampling.of_step(step)] for step in range(2000)]
    assert [len(one) for one in sampled].count(0) == pytest.approx(2000 * 0.7**3, rel=0.1)
    assert all(not {0, 2} <= set(one) for one in sampled)
    counts = np.bincount([case for one in sampled for case in one])
    assert counts == pytest.approx([300, 600, 300, 600], rel=0.15)


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """A private run of six steps, and its settings."""
    root = tmp_path_factory.mktemp("private")
    asked = {"privacy.epsilon": 8.0, "privacy.delta": 1e-3, "training.batch": 8}
    asked["network.size"] = {**trained.SMALL_RESNET, "norm": "group"}
    run = trained.classifying(trained.pictures(root / "data"), root / "run", assignments=asked)
    return run, plan_checks.checked_settings(plan_file.read_plan(run.out / "plan.yaml"))


def test_a_private_run_states_what_it_spent_and_what_no_noise_was_added_to(private):
    run, settings = private
    record = json.loads((run.out / "privacy.json").read_text(encoding="utf-8"))
    [row] = record["rows"]
    assert (row["site"], row["unit"], row["steps"], row["noise"], row["delta"]) == ("", "case", 6, "system", 1e-3)
    assert row["sampling_rate"] == pytest.approx(8 / row["units"])
    assert 7.9 < row["epsilon"] <= 8.0
    by_hand = epsilon_by_hand(row["noise_multiplier"], row["sampling_rate"], 6, 1e-3)
    assert row["epsilon"] == pytest.approx(by_hand, rel=0.01)
    assert {"plan.yaml", "gate", "log.csv"} <= {one["what"] for one in record["outside"]}
    assert settings.network.size["norm"] == "group"
    assert settings.training.precision == "float32"
    assert (settings.training.networks, settings.split.inner_folds, settings.training.compute) == (1, 0, "eager")


def test_a_package_states_the_budget_and_no_hash_of_a_training_image(private):
    run, _ = private
    model = model_files.load(run.out, "cpu")
    evidence = package.run_evidence(run.out, model, plan_file.read_plan(run.out / "plan.yaml"))
    assert json.loads(evidence.audits["privacy.json"])["rows"][0]["steps"] == 6
    record, parts = data_record.read_data_record(run.out), pd.read_csv(run.out / "split.csv", dtype=str)
    own = {part: record.hashes(parts["case"][parts["split"] == part]) for part in ("train", "val")}
    assert own["train"] and not own["train"] & set(evidence.trained)
    assert own["val"] and own["val"] <= set(evidence.trained)
    assert any("privacy.json" in one for one in evidence.limits)


def batch_of(settings, count: int) -> Batch:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(count, settings.preprocessing.inputs, *settings.training.patch)).astype(np.float32)
    generators = tuple(np.random.default_rng(n) for n in range(count))
    return Batch(images, np.arange(count) % 2, generators, (1.0, 1.0))


@pytest.mark.parametrize("one_by_one", [False, True])
def test_without_noise_a_step_is_the_sum_of_a_loop_over_samples(private, one_by_one):
    """The loop: one sample after the other through the usual step, its gradient cut by torch."""
    _, settings = private
    settings = replace(settings, augmentation=replace(settings.augmentation, probability=0.0, flips=()))
    torch.manual_seed(0)
    network = torch_networks.build_module(settings.task, settings.architecture).eval()
    criterion, batch, clip = Criterion(settings, "cpu", {"supervised": Supervised()}), batch_of(settings, 5), 0.2
    samples = SampleGradients(criterion, one_by_one)
    [(gradients, losses)] = samples.of_batch(network, batch, Compute())
    assert samples.one_by_one == one_by_one
    added, lengths = private_step.clipped_gradient_sum(gradients, clip)

    expected = {name: torch.zeros_like(one) for name, one in network.named_parameters()}
    for n in range(5):
        alone = replace(
            batch,
            images=batch.images[n : n + 1],
            targets=batch.targets[n : n + 1],
            generators=batch.generators[n : n + 1],
        )
        network.zero_grad()
        loss = criterion.judge_batch(network, alone, Compute()).loss
        loss.backward()
        assert loss.item() == pytest.approx(float(losses[n]), rel=1e-5)
        assert float(clip_grad_norm_(network.parameters(), clip)) == pytest.approx(float(lengths[n]), rel=1e-4)
        for name, one in network.named_parameters():
            expected[name] += one.grad
    assert (lengths > clip).any()
    for name, one in private_step.add_noise(added, 0.0, Chance(), 0).items():
        torch.testing.assert_close(one, expected[name], rtol=1e-4, atol=1e-6)


def test_a_batch_that_nobody_was_sampled_for_has_no_gradients(private):
    _, settings = private
    network = torch_networks.build_module(settings.task, settings.architecture)
    samples = SampleGradients(Criterion(settings, "cpu", {"supervised": Supervised()}))
    assert [*samples.of_batch(network, batch_of(settings, 0), Compute())] == []


def test_a_gradient_that_is_no_number_counts_as_zero():
    gradients = {"a": torch.tensor([[3.0, 4.0], [math.nan, 1.0]]), "b": torch.tensor([[0.0], [math.inf]])}
    added, lengths = private_step.clipped_gradient_sum(gradients, 1.0)
    assert added["a"].tolist() == pytest.approx([0.6, 0.8])
    assert added["b"].tolist() == [0.0]
    assert float(lengths[0]) == 5.0


def test_noise_has_the_deviation_that_was_asked_for_and_is_another_each_time():
    blank = {"a": torch.zeros(100, 100)}
    one, other = (private_step.add_noise(blank, 0.7, Chance(), 0)["a"] for _ in range(2))
    assert one.std().item() == pytest.approx(0.7, rel=0.03)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"augmentation.mixup": 0.2}, "it makes one image of several"),
        ({"network.size": trained.SMALL_RESNET}, "normalises over the batch"),
        ({"objectives.terms": ["supervised", "mean_teacher"]}, "mean_teacher is over a batch"),
        ({"training.networks": 2}, "several networks"),
        ({"split.folds": 3}, "each fold"),
        ({"training.fairness": "group_dro", "training.protected": "sex"}, "groups of people"),
    ],
)
def test_what_looks_at_several_samples_is_refused_by_name(private, changed, message):
    plan = plan_file.read_plan(private[0].out / "plan.yaml")
    with pytest.raises(PlanError, match=message):
        privacy_rules.check_privacy(plan_checks.typed_sections.typed_plan(plan_changes.with_settings(plan, changed)))


def test_a_budget_of_nothing_and_too_large_a_delta_are_refused():
    with pytest.raises(PlanError, match=r"privacy\.epsilon"):
        plan_checks.check_wishes({"privacy.epsilon": 0})
    with pytest.raises(PlanError, match="above one in 30"):
        privacy_rules.refuse_delta(0.05, 30)


def test_a_state_without_a_budget_record_is_refused(private):
    run, _ = private
    state = json.loads((run.out / "checkpoints" / "last" / "state.json").read_text(encoding="utf-8"))
    assert State.from_record(state, "here").step == 6
    budget = PrivacyBudget.for_units(PrivacySettings(epsilon=8.0), 30, 8, Chance())
    with pytest.raises(HilumError, match="privacy budget"):
        budget.restore({}, "here")
