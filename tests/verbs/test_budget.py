from __future__ import annotations

from dataclasses import replace

import pytest

from fingerprints import facts
from isocenter import tasks
from isocenter.values import BY_HAND, Case, Decision, Fingerprint, Plan
from isocenter.verbs.training import gate
from isocenter.verbs.training import time_budget as budget
from isocenter.verbs.training.affordable import fewer_views
from isocenter.verbs.training.time_budget import Afterwards, Costs, Turn, seconds_after, training_deadline

COSTS = Costs(predict=2.0, score=0.5, tune=1.0)


def test_what_follows_training_is_tuning_scoring_pictures_and_the_report():
    assert seconds_after(COSTS, 0, []) == budget.REPORT_SECONDS
    assert seconds_after(COSTS, 10, []) == budget.REPORT_SECONDS + 10 * (2.0 + 1.0)
    shown = 6  # two each of best, median and worst
    large = replace(COSTS, voxels=2**30)  # those that are shown are predicted once more
    assert seconds_after(large, 0, [(40, 1)]) == budget.REPORT_SECONDS + (40 + shown) * 2.0 + 40 * 0.5
    assert seconds_after(large, 0, [(3, 5)]) == budget.REPORT_SECONDS + (3 + 3) * 5 * 2.0 + 3 * 0.5
    assert seconds_after(COSTS, 0, [(40, 1)]) == budget.REPORT_SECONDS + 40 * 2.0 + 40 * 0.5


@pytest.mark.parametrize(
    ("durations", "counted"),
    [
        ([0.3, 0.01, 0.01, 0.2, 0.01, 0.01], 0.01),  # the first call allocates; another program stops the fourth
        ([2.0, 0.4, 0.6], 0.5),  # enough after half a second
        ([5.0], 5.0),  # too long to be done twice
    ],
)
def test_one_slow_call_of_quick_work_does_not_decide_what_it_is_thought_to_take(durations, counted, monkeypatch):
    now, left = [100.0], list(durations)

    def work() -> int:
        now[0] += left.pop(0)
        return len(left)

    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])
    made, seconds = budget.timed(work)
    assert (made, left) == (len(durations) - 1, [])
    assert seconds == pytest.approx(counted)


def test_what_a_case_takes_is_measured_with_one_of_the_mean_size():
    shapes = {"small": (64, 64), "tiny": (32, 32), "like_most": (250, 260), "large": (512, 512), "huge": (1040, 1388)}
    found = Fingerprint(tuple(facts(shape=shape, name=name, physical=False) for name, shape in shapes.items()))
    cases = [Case(name, name, {}, {}) for name in shapes]
    assert budget.of_mean_size(cases, found).id == "large"  # the mean is of 356 thousand pixels
    assert budget.of_mean_size(cases[:3], found).id == "like_most"
    alike = Fingerprint(tuple(facts(name=name) for name in shapes))
    assert budget.of_mean_size(cases, alike).id == "small"  # the first


def test_mirrored_views_are_given_up_where_they_would_take_the_minutes_that_learning_needs():
    flips, exact = Decision([0, 1], "mirrored in training"), Decision(False, "it was not asked for")
    plan = Plan({"inference": {"flips": flips}, "training": {"deterministic": exact}})
    by_hand = plan.with_decision("inference.flips", Decision([0, 1], BY_HAND))
    exact = plan.with_decision("training.deterministic", Decision(True, ""))
    few, many = Afterwards(10.0, None, 10, [(20, 1)]), Afterwards(10.0, None, 20, [(60, 1)])
    assert 10 * 2.0 + 20 * 2.0 < 150 < 20 * 2.0 + 60 * 2.0
    assert fewer_views(plan, few, COSTS) is None
    given_up = fewer_views(plan, many, COSTS)
    assert given_up.value == []
    assert "4 views of each window the predictions after training would take 160 s, more than 25%" in given_up.because
    assert fewer_views(plan, few, replace(COSTS, score=60.0)) is None  # fewer views would not make that faster
    assert fewer_views(by_hand, many, COSTS) is None
    assert fewer_views(exact, many, COSTS) is None


def test_scores_of_fresh_weights_do_not_take_the_time_of_learning():
    after = Afterwards(3.0, None, 2, [(6, 1)])
    ragged = Costs(predict=1.0, score=60.0, tune=30.0)
    assert after.seconds(ragged) > 180
    assert after.first_deadline(ragged) == training_deadline(3.0, 0.4 * 180)
    smooth = Costs(predict=1.0, score=2.0, tune=1.0)
    assert after.first_deadline(smooth) == training_deadline(3.0, after.seconds(smooth))
    slow = Costs(predict=15.0, score=60.0, tune=30.0)  # that long it will take to predict, whatever is learnt
    assert after.first_deadline(slow) == training_deadline(3.0, budget.REPORT_SECONDS + 8 * 15.0)


def test_gates_look_at_as_many_training_cases_as_a_twentieth_of_the_minutes_lasts_but_at_a_few_in_any_case():
    def seconds(predict: float, *looking: int) -> float:
        """s of looking at training cases within 10 minutes."""
        costs = Costs(predict, score=0.0, tune=0.0)
        bare, whole = (Afterwards(10.0, None, 2, [(6, 1)], 5, own) for own in ((), looking))
        return whole.seconds(costs) - bare.seconds(costs)

    assert seconds(0.1, 200) == pytest.approx(20.0)  # all of them
    assert seconds(0.5, 200) == pytest.approx(30.0)  # 60 of them
    assert seconds(10.0, 200) == pytest.approx(300.0)  # 30 of them
    assert seconds(0.5, 200, 200, 40) == pytest.approx(3 * 15.0)  # 30 in each of three folds


@pytest.mark.parametrize(
    ("name", "settings", "fitted"),
    [
        ("segmentation", {"labels": [{"value": 1, "name": "a"}], "loss": "dice+ce", "tolerance": 2.0}, True),
        ("classification", {"classes": ["a", "b"], "smoothing": 0.0}, False),
        ("detection", {"classes": ["a"], "axes": 2, "typical": 8.0, "suppression": 0.5}, False),
    ],
)
def test_fits_to_voxels_are_in_the_minutes_of_which_they_take_at_most_a_twentieth(name, settings, fitted):
    task, each = tasks.build({"name": name, **settings}), budget.FITTING_SECONDS * fitted
    assert budget.fitting_seconds(task, 10.0, 1) == each
    assert budget.fitting_seconds(task, 60.0, 5) == 6 * each  # the mean of five folds has its own
    assert budget.fitting_seconds(task, 1.0, 5) == (3.0 if fitted else 0.0)
    whole, bare = (Afterwards(10.0, None, 2, [(6, 1)], baseline=one) for one in (each, 0.0))
    assert whole.seconds(COSTS) - bare.seconds(COSTS) == each


def test_a_gate_stops_looking_when_its_time_is_over(monkeypatch):
    looked = []
    monkeypatch.setattr(gate, "observed", lambda model, case, layers: (looked.append(case), None))
    assert len(gate._looked(None, range(50), seconds=-1.0)[0]) == budget.FEWEST_LOOKED == len(looked)
    assert len(gate._looked(None, range(50))[0]) == 50


def test_every_fold_gets_an_equal_part_of_the_time_that_is_left():
    elapsed, ends = 20.0, []
    for fold in range(5):
        ends.append(Turn(elapsed, 5 - fold).deadline(520.0))
        elapsed = ends[-1]
    assert ends == pytest.approx([120, 220, 320, 420, 520])


def test_a_fold_that_took_longer_takes_from_all_that_follow():
    assert Turn(220.0, 3).deadline(520.0) == 320.0


def test_a_reserve_is_kept_of_the_minutes():
    assert training_deadline(10.0, 60.0) == 600 * (1 - budget.RESERVE) - 60
