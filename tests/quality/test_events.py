from __future__ import annotations

import math

import numpy as np
import pytest

from hilum.quality import dataset_examination
from hilum.quality.references.events import EVENT
from hilum.values import Case, CaseFacts, Cohort, Dataset, Fingerprint, Geometry, Image
from matrices import thinned

GRID = Geometry.of_pixels((20, 20))


def cohort(times, happened=None, splits=None, **more) -> Dataset:
    had = [True] * len(times) if happened is None else happened
    cases = tuple(
        Case(
            f"c{n}",
            f"p{n}",
            {"image": Image(np.random.default_rng(n).random((1, 20, 20)), GRID)},
            {"event": one, **more},
        )
        for n, one in enumerate(zip(times, had, strict=True))
    )
    return Dataset(cases, splits=splits or {}, patients_known=True)


def judged(times, happened=None, splits=None):
    """What is said of these references alone."""
    dataset = cohort(times, happened, splits)
    facts = tuple(
        CaseFacts(one.id, (20, 20), (1.0, 1.0), False, False, ("grey",), "CR", (), references=dict(one.references))
        for one in dataset
    )
    return list(EVENT.checks.cohort(Cohort(dataset, Fingerprint(facts))))


@pytest.mark.parametrize(("time", "word"), [(0.0, "0"), (-4.0, "negative"), (math.nan, "not a number")])
def test_a_time_that_nobody_can_be_followed_for_leaves_its_case_out(time, word):
    found = dataset_examination.examine(cohort([time, *range(1, 12)]))
    [one] = [problem for problem in found.problems if "last contact" in problem.what]
    assert (one.severity, one.cases) == ("error", ("c0",))
    assert one.what.endswith(f"is {word}")
    assert "leave the case out" in one.remedy
    assert not found.fatal
    assert len(found.dataset) == 11


def test_nobody_with_the_event_forbids_training_and_everybody_does_not():
    [fatal] = dataset_examination.examine(cohort(range(1, 13), [False] * 12)).fatal
    assert "all 12 cases are censored" in fatal.what
    assert not dataset_examination.examine(cohort(range(1, 13))).fatal


def test_events_in_the_test_part_alone_forbid_training():
    parts = {f"c{n}": "train" if n < 8 else "test" for n in range(12)}
    [fatal] = [one for one in judged(range(1, 13), [n >= 8 for n in range(12)], parts) if one.severity == "error"]
    assert "all 8 training cases are censored" in fatal.what


def test_nobody_with_the_event_beside_classes_is_a_warning_because_the_classes_can_be_learnt():
    dataset = cohort(range(1, 13), [False] * 12)
    cases = tuple(
        Case(one.id, one.patient, one.images, {**one.references, "class": "ab"[n % 2]}) for n, one in enumerate(dataset)
    )
    assert not dataset_examination.examine(Dataset(cases, patients_known=True)).fatal


def test_few_events_and_one_time_for_all_are_said():
    [few] = judged(range(1, 41), [n < 4 for n in range(40)])
    assert (few.severity, few.what) == ("warning", "4 of 40 cases had the event")
    assert any("all 12 times are 5" in one.what for one in judged([5.0] * 12))


def test_months_beside_days_are_named_whether_they_are_written_with_decimals_or_lie_apart():
    random = np.random.default_rng(0)
    days = np.round(random.exponential(600, 60) + 30)
    months = np.round(random.exponential(600, 15) / 30.4 + 1, 1) + 0.05
    [found] = judged([*days, *months])
    assert found.what.startswith("times seem to be in two units: 15 times")
    assert found.cases == tuple(f"c{n}" for n in range(60, 75))
    apart = np.round(np.concatenate([np.linspace(300, 900, 40), np.linspace(300, 900, 8) / 30.4]))
    [found] = judged(apart)
    assert "with nothing between them" in found.what
    assert found.cases == tuple(f"c{n}" for n in range(40, 48))


@pytest.mark.parametrize("shape", thinned(1, [0.7, 1.0, 2.0]))
def test_times_in_one_unit_are_suspected_in_fewer_than_one_set_of_fifty(shape):
    suspected = 0
    for seed in range(50):
        times = np.round(500 * np.random.default_rng(seed).weibull(shape, 60) + 10, seed % 3)
        suspected += any("two units" in one.what for one in judged(times))
    assert suspected < 1
