from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

import isocenter
import trained
from isocenter.planning import read_plan, settings
from isocenter.runtime import read_json
from isocenter.training import recipe


@pytest.fixture(scope="session")
def chosen(segmented):
    """The settings of a small run."""
    return settings(read_plan(segmented.out / "plan.yaml"))


def test_the_rate_rises_over_the_warm_up_and_falls_as_a_cosine_to_nearly_nothing(chosen):
    training = replace(chosen.training, warmup=0.1, learning_rate=2.0)
    rates = [recipe._rate(step, 100, training) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * n for n in range(1, 11)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(1.0)  # half-way down
    assert rates[10 + 30] == pytest.approx(1 + math.cos(math.pi / 3))
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_one_step_is_a_whole_schedule(chosen):
    assert recipe._rate(0, 1, replace(chosen.training, learning_rate=0.5)) == 0.5


def test_the_average_looks_back_over_its_share_of_the_steps_and_early_on_follows_quickly(chosen):
    training = replace(chosen.training, ema=0.05)
    assert recipe._decay(0, 1000, training) == 0.1
    assert recipe._decay(1000, 1000, training) == pytest.approx(1 - 1 / 50)
    assert recipe._decay(5, 1000, replace(training, ema=0.0)) == 0.0  # the weights themselves


def test_the_average_is_the_weighted_mean_of_all_weights_so_far():
    module = torch.nn.BatchNorm1d(1)
    averaged = copy.deepcopy(module)
    for value, steps in ((3.0, 4), (7.0, 9)):
        with torch.no_grad():
            module.weight.fill_(value)
        module.num_batches_tracked.fill_(steps)
        recipe._average(averaged, module, 0.75)
    assert averaged.weight.item() == pytest.approx(0.75 * (0.75 * 1 + 0.25 * 3) + 0.25 * 7)
    assert int(averaged.num_batches_tracked) == 9


def test_what_only_scales_or_shifts_is_not_drawn_towards_zero(chosen):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    decayed, free = recipe._optimiser(network, chosen.training).param_groups
    assert [p.ndim for p in decayed["params"]] == [4]
    assert [p.ndim for p in free["params"]] == [1, 1, 1]
    assert (decayed["weight_decay"], free["weight_decay"]) == (chosen.training.weight_decay, 0.0)


def test_the_metric_of_a_validation_is_the_tasks_own_score(segmented):
    """Where the network's grid is the image's own, up to its order of axes, nothing is lost on the way."""
    model = isocenter.load(segmented.out / "checkpoints" / "last", "cpu")
    scored = isocenter.evaluate(
        segmented.out / "checkpoints" / "last", segmented.data, labels=trained.LABELS, device="cpu"
    )
    parts = pd.read_csv(segmented.out / "split.csv", dtype=str)
    val = parts.loc[parts["split"] == "val", "case"]
    table = scored.scored.table
    expected = table[table["case"].isin(val)]["dice"].mean()
    logged = pd.read_csv(segmented.out / "log.csv")["validation"].iloc[-1]
    assert model.record["step"] == 6
    assert logged == pytest.approx(expected, abs=0.02)  # validation runs in the precision of the training


def test_the_log_has_a_row_a_step_and_the_validations_that_were_planned(segmented):
    log = pd.read_csv(segmented.out / "log.csv")
    assert list(log.columns) == ["step", "seconds", "loss", "learning_rate", "validation"]
    assert log["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert log["seconds"].is_monotonic_increasing
    assert log.loc[log["validation"].notna(), "step"].tolist() == [3, 6]


def test_the_best_checkpoint_is_that_of_the_best_validation(segmented):
    log = pd.read_csv(segmented.out / "log.csv").dropna()
    record = read_json(segmented.out / "checkpoints" / "best" / "model.json", "isocenter.model")["record"]
    assert record["validation"] == pytest.approx(log["validation"].max())
    assert record["step"] == log.loc[log["validation"].idxmax(), "step"]


def test_two_runs_with_the_same_steps_are_alike_to_the_bit(segmented, tmp_path):
    trained.segmenting(segmented.data, tmp_path / "again")
    for name in ("best", "last"):
        ours, theirs = (
            load_file(run / "checkpoints" / name / "weights.safetensors") for run in (segmented.out, tmp_path / "again")
        )
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_another_seed_gives_other_weights(segmented, tmp_path):
    trained.segmenting(segmented.data, tmp_path / "again", seed=1)
    ours, theirs = (
        load_file(run / "checkpoints" / "last" / "weights.safetensors") for run in (segmented.out, tmp_path / "again")
    )
    assert not all(np.array_equal(ours[key], theirs[key]) for key in ours)
