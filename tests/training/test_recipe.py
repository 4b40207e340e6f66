from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import isocenter
import trained
from isocenter.runtime import read_json


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
