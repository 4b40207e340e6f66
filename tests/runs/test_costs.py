"""What a case costs, measured on a few of its windows."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hilum.runs import _case_costs, foresight, training_jobs, training_loop
from hilum.runs._case_costs import SecondsPerCase
from hilum.runs._run_minutes import UNCUT
from hilum.runtime import Model, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks
from hilum.tasks import task_catalogue
from hilum.training.training_state import CommandClock, TrainingOutcome
from hilum.transforms.intensity import Normalisation
from hilum.values import Case, Geometry, Image, Label

TASK = task_catalogue.build_task(
    {"name": "segmentation", "labels": [{"value": 1, "name": "a"}], "loss": "ce", "tolerance": 1.0, "calibration": None}
)
SHAPE, PATCH = (40, 48, 32), (16, 16, 16)


def case(shape=SHAPE, spacing=(1.0, 1.0, 1.0)) -> Case:
    grid = Geometry.of_spacing(shape, spacing)
    voxels = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    mask = np.zeros((1, *shape), np.uint8)
    mask[0, 15:25, 15:30, 12:20] = 1
    return Case("c0", "p0", {"0": Image(voxels, grid)}, {"mask": Image(mask, grid, labels=(Label(1, "a"),))})


class Slow:
    """A network that takes 2 s for a window by a clock of its own, and counts windows."""

    def __init__(self) -> None:
        self.now, self.windows = 0.0, 0

    def __call__(self, batch):
        self.windows += len(batch)
        self.now += 2.0 * len(batch)
        return {"mask": np.concatenate([-batch, batch], axis=1)}


def model(network, **prepared) -> Model:
    preparing = Preprocessing(3, ("0",), (Normalisation("zscore"),), smallest=PATCH, **prepared)
    return Model(TASK, preparing, Inference(PATCH, 0.5), Networks(network, {"name": "none", "channels": 1}))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.25, 2.0)])
def test_the_windows_and_voxels_of_a_part_are_scaled_to_those_of_the_whole(spacing):
    whole, network = case(spacing=spacing), Slow()
    predicted = model(network, spacing=(1.0, 1.0, 1.0))
    predicted.predict(whole)
    every, network.windows = network.windows, 0
    part = _case_costs.sample_of(predicted, whole)
    predicted.predict(part.case)
    assert network.windows <= 2 < every
    assert part.windows == pytest.approx(every, rel=0.01)
    assert np.prod(part.case.images["0"].shape) * part.voxels == pytest.approx(np.prod(SHAPE))
    assert part.case.references["mask"].geometry.equals(part.case.images["0"].geometry)


def test_what_a_prediction_costs_is_known_without_predicting_the_whole_case(monkeypatch):
    whole, network = case(), Slow()
    monkeypatch.setattr(_case_costs.time, "monotonic", lambda: network.now)
    measured = _case_costs.measured_costs(model(network), whole)
    seen, network.windows = network.windows, 0
    model(network).predict(whole)
    assert seen < network.windows / 4
    assert measured.predict == measured.windows == 2.0 * network.windows
    assert measured.voxels == np.prod(SHAPE)
    assert measured.without_overlap.predict < measured.predict / 3


@pytest.mark.parametrize("turned", [1.0, -1.0])
def test_windows_in_the_air_beside_a_body_are_not_counted(turned):
    grid = Geometry(SHAPE, np.diag([turned * 4.0, 4.0, 4.0, 1.0]))
    voxels = np.full((1, *SHAPE), -1000.0, np.float32) + np.random.default_rng(0).normal(0, 5, (1, *SHAPE))
    voxels[0, :14, 16:32, :] += 1050  # a body at one side
    image = Image(voxels.astype(np.float32), grid, modality="CT")
    whole, network = Case("c0", "p0", {"0": image}, {}), Slow()
    skipping = model(network)
    skipping = replace(skipping, inference=replace(skipping.inference, skip="air"))
    skipping.predict(whole)
    assert network.windows < 60
    assert _case_costs.windows_seen(skipping, whole, 0.5) == network.windows
    assert _case_costs.windows_seen(model(network), whole, 0.5) == 60


def test_a_case_of_few_windows_is_measured_whole():
    small = case((24, 24, 16))
    assert _case_costs.sample_of(model(Slow()), small).case is small


def test_windows_that_overlap_less_save_their_share_of_the_time():
    assert SecondsPerCase(10.0, 1.0, 1.0, windows=8.0, apart=0.25).without_overlap.predict == 4.0
    assert SecondsPerCase(10.0, 1.0, 1.0, windows=8.0).without_overlap.predict == 10.0


def test_a_reading_that_takes_most_of_the_minutes_is_told_once_with_what_helps(caplog):
    now = [0.0]
    watch = foresight.watched_reading(2.0, CommandClock(0.0, now=lambda: now[0]))
    with caplog.at_level(logging.WARNING, "hilum"):
        for done in range(1, 11):
            now[0] = 5.0 * done
            watch(done, 10)
        assert not caplog.records  # 50 s of 120
        for done in range(1, 5):
            now[0] = 50.0 + 7.0 * done
            watch(done, 10)
    [record] = caplog.records
    assert "reading 10 cases will take about 120 s" in record.message
    assert all(word in record.message for word in ("half of 2 minutes", "--minutes", "coarser grid", "hilum check"))


def test_what_is_imported_with_the_first_case_is_not_expected_of_all_others(caplog):
    now = [0.0]
    watch = foresight.watched_reading(6.0, CommandClock(0.0, now=lambda: now[0]))
    with caplog.at_level(logging.WARNING, "hilum"):
        for done in range(1, 4709):
            now[0] = 3.5 + 0.01 * (done - 1)
            watch(done, 4708)
    assert not caplog.records  # 51 s of 360


def test_a_first_case_that_took_long_is_enough_to_foresee_the_rest(caplog):
    now = [0.0]
    watch = foresight.watched_reading(2.0, CommandClock(0.0, now=lambda: now[0]))
    now[0] = 30.0
    with caplog.at_level(logging.WARNING, "hilum"):
        watch(1, 4)
    assert "reading 4 cases will take about 120 s" in caplog.text


def test_one_line_says_what_comes_before_the_first_step_and_when_it_is_long(caplog, monkeypatch):
    now = [20.0]

    def prepared(cases, *options, what):
        now[0] += 10.0
        return [SimpleNamespace(nbytes=2**28)] * len(cases)

    monkeypatch.setattr(training_jobs, "prepare_cases", prepared)
    chosen = SimpleNamespace(training=SimpleNamespace(threads=2, memory=3.0))
    job = SimpleNamespace(train=[1] * 4, val=[1], unlabelled=(), settings=chosen, plan=SimpleNamespace(options={}))
    clock = CommandClock(0.0, now=lambda: now[0])
    with caplog.at_level(logging.INFO, "hilum"):
        expected = foresight.foresee(job, None, clock, 10.0)
        assert expected["first_step_s"] == pytest.approx(30 + 10 * 4 / 1.5 + 600 * foresight.PROBE_SHARE, abs=0.1)
        assert "5 cases: about 10 s each to prepare" in caplog.text
        assert "first step about" in caplog.text
        assert "more than half" not in caplog.text
        foresight.foresee(job, None, clock, 1.5)
    assert "reading and preparing will take about 67 s, more than half of 1.5 minutes" in caplog.text
    assert expected["memory_gib"] >= 3.0


def test_a_validation_that_saw_parts_of_cases_is_said_to_have_done_so(tmp_path):
    outcome = TrainingOutcome(tmp_path, "the best", 100, windows=3)
    whole = replace(outcome, windows=None)
    said = [
        training_loop.cut_short(UNCUT, [SimpleNamespace(job=None, outcome=one)], None, []) for one in (outcome, whole)
    ]
    assert "validation looked at 3 windows of each case" in said[0][0]
    assert said[1] == []
