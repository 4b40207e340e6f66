from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fingerprints import facts
from hilum.runs import _case_costs, gate, run_end
from hilum.runs import _run_minutes as budget
from hilum.runs._case_costs import SecondsPerCase
from hilum.runs._run_minutes import Cuts, Minutes, RunStages
from hilum.runs._run_trainings import FinishedTraining, Role, RunTraining
from hilum.runs._training_order import CONTROL, FOLD, INNER_FOLD, MAIN
from hilum.scoring import case_scoring
from hilum.tasks import task_catalogue
from hilum.training.training_state import CommandClock
from hilum.values import BY_HAND, Case, Decision, Fingerprint, Plan

COSTS = SecondsPerCase(predict=2.0, score=0.5, tune=1.0)


def following(selecting: int, tested: list[tuple[int, int]], costs: SecondsPerCase = COSTS) -> float:
    """s after training, but for the report."""
    return Minutes(10.0, None, selecting, tested, pictured=6, kept=2**27).seconds(costs) - budget.REPORT_SECONDS


def test_what_follows_training_is_tuning_scoring_pictures_and_the_report():
    assert following(0, []) == 0
    assert following(10, []) == 10 * (2.0 + 1.0)
    shown = 6  # two each of best, median and worst
    large = replace(COSTS, voxels=2**30)  # those that are shown are predicted once more
    assert following(0, [(40, 1)], large) == (40 + shown) * 2.0 + 40 * 0.5
    assert following(0, [(3, 5)], large) == (3 + 3) * 5 * 2.0 + 3 * 0.5
    assert following(0, [(40, 1)]) == 40 * 2.0 + 40 * 0.5


def test_a_network_takes_no_time_for_cases_whose_outputs_are_known():
    costs = replace(COSTS, network=1.5)
    bare, knowing = (Minutes(10.0, None, 10, [(40, 1)], known=known) for known in (0, 20))
    assert bare.seconds(costs) - knowing.seconds(costs) == 20 * 1.5
    assert costs.of_networks(3) == SecondsPerCase(predict=6.0, score=0.5, tune=1.0, network=4.5)


def test_what_improves_a_result_after_the_network_takes_no_time_where_a_gate_looks():
    refining, gated = replace(COSTS, refine=1.5), Minutes(10.0, None, 0, [], looked_at=20)
    assert gated.seconds(COSTS) - gated.seconds(refining) == 20 * 1.5
    assert refining.of_networks(3).predict == 3 * 0.5 + 1.5


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

    monkeypatch.setattr(_case_costs.time, "monotonic", lambda: now[0])
    made, seconds = _case_costs.timed(work)
    assert (made, left) == (len(durations) - 1, [])
    assert seconds == pytest.approx(counted)


def test_what_a_case_takes_is_measured_with_one_of_the_mean_size():
    shapes = {"small": (64, 64), "tiny": (32, 32), "like_most": (250, 260), "large": (512, 512), "huge": (1040, 1388)}
    found = Fingerprint(tuple(facts(shape=shape, name=name, physical=False) for name, shape in shapes.items()))
    cases = [Case(name, name, {}, {}) for name in shapes]
    assert budget.case_of_mean_size(cases, found).id == "large"  # the mean is of 356 thousand pixels
    assert budget.case_of_mean_size(cases[:3], found).id == "like_most"
    alike = Fingerprint(tuple(facts(name=name) for name in shapes))
    assert budget.case_of_mean_size(cases, alike).id == "small"  # the first


def test_mirrored_views_are_given_up_where_they_would_take_the_minutes_that_learning_needs():
    flips, exact = Decision([0, 1], "mirrored in training"), Decision(False, "it was not asked for")
    plan = Plan({"inference": {"flips": flips}, "training": {"deterministic": exact}})
    by_hand = plan.with_decision("inference.flips", Decision([0, 1], BY_HAND))
    exact = plan.with_decision("training.deterministic", Decision(True, ""))
    few, many = Minutes(10.0, None, 10, [(20, 1)]), Minutes(10.0, None, 20, [(60, 1)])
    assert 10 * 2.0 + 20 * 2.0 < 150 < 20 * 2.0 + 60 * 2.0
    assert few.fewer_views(plan, COSTS) is None
    given_up = many.fewer_views(plan, COSTS)
    assert given_up.value == []
    assert "4 views of each window the predictions after training would take 160 s, more than 25%" in given_up.because
    assert few.fewer_views(plan, replace(COSTS, score=60.0)) is None  # fewer views would not make that faster
    assert many.fewer_views(by_hand, COSTS) is None
    assert many.fewer_views(exact, COSTS) is None


def test_scores_of_fresh_weights_do_not_take_the_time_of_learning(monkeypatch):
    after = Minutes(3.0, None, 2, [(6, 1)])
    monkeypatch.setattr(_case_costs, "measured_costs", lambda model, case: model)

    def first_end(costs: SecondsPerCase) -> float:
        return after.end(after.fresh_costs(costs))

    ragged = SecondsPerCase(predict=1.0, score=60.0, tune=30.0)
    assert after.seconds(ragged) > 180
    assert first_end(ragged) == pytest.approx(180 * (1 - budget.RESERVE) - 0.4 * 180)
    smooth = SecondsPerCase(predict=1.0, score=2.0, tune=1.0)
    assert first_end(smooth) == after.end(smooth)
    slow = SecondsPerCase(predict=15.0, score=60.0, tune=30.0)  # that long it will take to predict, whatever is learnt
    assert first_end(slow) == pytest.approx(180 * (1 - budget.RESERVE) * (1 - budget.AFTER_SHARE))
    slow = replace(slow, predict=10.0)
    assert first_end(slow) == 180 * (1 - budget.RESERVE) - (budget.REPORT_SECONDS + 8 * 10.0)


def test_scores_with_images_left_out_are_given_up_where_they_would_take_the_minutes_that_learning_needs():
    after = Minutes(10.0, None, 2, [(6, 1)], subsets=[(6, 1)] * 3)
    bare, slow = replace(after, subsets=()), replace(COSTS, predict=20.0)
    assert after.seconds(COSTS) - bare.seconds(COSTS) == 3 * 6 * 2.5  # 45 s of 60
    assert after.cuts(COSTS, 40.0).subsets
    assert after.seconds(slow) == bare.seconds(slow)
    assert not after.cuts(slow, 40.0).subsets
    assert bare.cuts(slow, 40.0).subsets


WINDOWED = SecondsPerCase(10.0, 0.5, 1.0, windows=8.0, apart=0.25)


def test_where_minutes_end_windows_overlap_less_and_then_fewer_cases_are_looked_at():
    after = Minutes(10.0, None, 10, [(40, 1)])
    assert after.cuts(WINDOWED, 40.0) == after.cuts_of_gates  # 542 s of 548
    assert after.cuts(WINDOWED, 200.0) == replace(after.cuts_of_gates, overlap=0.0)  # 242 s of 388
    few = after.cuts(WINDOWED, 400.0)
    left = 588 - 400 - budget.REPORT_SECONDS
    assert (few.overlap, few.tuned, few.scoring) == (0.0, int(budget.TUNED_SHARE * left / 9), 4.5)
    assert few.looking == pytest.approx([budget.LOOKED_SHARE * left] * 2)
    assert few.end == 588 - budget.REPORT_SECONDS
    assert few.allows(few.end - 5.0, 4.5)
    assert not few.allows(few.end - 4.0, 4.5)
    none = after.cuts(WINDOWED, 570.0)
    assert (none.tuned, none.looking) == (0, (0.0, 0.0))
    assert none.of([Case("a", "a", {}, {})]) == []
    assert after.cuts(replace(WINDOWED, predict=0.1), 580.0) == after.cuts_of_gates  # nobody waits long for that


def test_training_has_its_part_of_the_minutes_and_all_of_them_where_not_even_one_case_can_be_scored():
    after, end = Minutes(10.0, None, 10, [(40, 1)], began=88.0), 588.0
    slow = replace(WINDOWED, predict=30.0, windows=28.0)
    assert after.end(slow) == pytest.approx(end - budget.AFTER_SHARE * 500)
    hopeless = replace(slow, predict=2000.0, windows=1900.0)
    assert after.end(hopeless) == end - budget.REPORT_SECONDS
    assert after.end(slow, now=end - 20) == end - budget.REPORT_SECONDS  # it is too late for one


def test_no_test_case_is_begun_that_would_end_too_late(monkeypatch):
    now = [0.0]

    def measured(model, folds, cases):
        now[0] += 10.0
        yield 0, cases[0]

    monkeypatch.setattr(case_scoring, "measure_here", measured)
    cuts = Cuts(0.0, 1, (0.0, 0.0), scoring=30.0, end=45.0)  # it was believed to be slow
    done = list(run_end.scored_in_time(CommandClock(0.0, now=lambda: now[0]), cuts, None, {}, "abcdefg"))
    assert done == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


def test_gates_look_at_as_many_training_cases_as_a_twentieth_of_the_minutes_lasts_but_at_a_few_in_any_case():
    def seconds(predict: float, *looking: int) -> float:
        """s of looking at training cases within 10 minutes."""
        costs = SecondsPerCase(predict, score=0.0, tune=0.0)
        bare, whole = (Minutes(10.0, None, 2, [(6, 1)], 5, own) for own in ((), looking))
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
    task, each = task_catalogue.build_task({"name": name, **settings}), budget.FITTING_SECONDS * fitted
    assert budget.fitting_seconds(task, 10.0, 1) == each
    assert budget.fitting_seconds(task, 60.0, 5) == 6 * each  # the mean of five folds has its own
    assert budget.fitting_seconds(task, 1.0, 5) == (3.0 if fitted else 0.0)
    whole, bare = (Minutes(10.0, None, 2, [(6, 1)], fitting=one) for one in (each, 0.0))
    assert whole.seconds(COSTS) - bare.seconds(COSTS) == each


def test_a_gate_stops_looking_when_its_time_is_over():
    looked, hour = [], 3600.0
    model = SimpleNamespace(observe=lambda case, layers: (looked.append(case), None), preprocessing=None)
    assert len(gate._training_observations(model, range(50), None, -1.0, hour)) == budget.FEWEST_LOOKED == len(looked)
    assert len(gate._training_observations(model, range(50), None, 3600.0, hour)) == 50


def of(share: float, role: Role = FOLD) -> RunTraining:
    return RunTraining("", role, Plan({}), {}, share)


def test_every_fold_gets_an_equal_part_of_the_time_that_is_left():
    elapsed, ends, finished = 20.0, [], []
    for _ in range(5):
        ends.append(budget.training_deadline(of(0.2), finished, elapsed, 520.0))
        elapsed, finished = ends[-1], [*finished, FinishedTraining(of(0.2), None)]
    assert ends == pytest.approx([120, 220, 320, 420, 520])


def test_a_fold_that_took_longer_takes_from_all_that_follow():
    assert budget.training_deadline(of(0.2), [FinishedTraining(of(0.2), None)] * 2, 220.0, 520.0) == pytest.approx(
        320.0
    )


@pytest.mark.parametrize("role", [CONTROL, INNER_FOLD, Role("round", stands_beside=True)])
def test_a_training_beside_the_model_takes_no_longer_than_that_however_much_is_left(role):
    done = [FinishedTraining(of(0.6, MAIN), None)]
    assert budget.training_deadline(of(0.4, role), done, 10.0, 500.0) == pytest.approx(10 + 0.6 * 500)
    assert budget.training_deadline(of(0.4, role), done, 400.0, 500.0) == pytest.approx(500.0)


def test_a_reserve_is_kept_of_the_minutes():
    minutes = Minutes(10.0, None, 0, [])
    assert minutes.end(COSTS) == 600 * (1 - budget.RESERVE) - budget.REPORT_SECONDS


@pytest.mark.parametrize(
    ("each", "predict", "networks"),
    [(60.0, 0.1, 5), (250.0, 0.1, 3), (60.0, 0.4, 2), (2000.0, 0.1, 1), (1.0, 2.0, 1)],
)
def test_as_many_networks_as_the_time_left_allows_and_as_a_case_may_take(each, predict, networks):
    minutes, costs = Minutes(10.0, None, 0, []), SecondsPerCase(predict, 0.0, 0.0)
    decision = minutes.networks_in_time(Decision(None, "open"), costs, 50.0, each)
    assert decision.value == networks
    assert decision.because.startswith("open: one took")


def test_each_stage_has_the_time_between_its_end_and_that_of_the_one_before():
    now = [100.0]
    stages = RunStages(CommandClock(began=90.0, now=lambda: now[0]))
    for name, at in (("reading", 95.0), ("training", 800.0), ("testing", 830.0)):
        now[0] = at
        stages.mark_end(name)
    assert stages.seconds == {"reading": 5.0, "training": 705.0, "testing": 30.0}
    assert budget.stages_in_words(stages.seconds) == "reading 5 s, training 11.8 min, testing 30 s"


def test_a_resumed_run_tells_the_time_of_earlier_sessions_from_its_own():
    stages = RunStages(CommandClock(began=0.0, spent=60.0, now=lambda: 7.0))
    stages.mark_end("reading")
    assert stages.seconds == {budget.EARLIER: 60.0, "reading": 7.0}


def test_the_stages_of_a_run_fill_its_minutes_and_stand_in_its_report(segmented):
    record = json.loads((segmented.out / "environment.json").read_text(encoding="utf-8"))
    seconds, expected, came = record["seconds"], record["expected"], record["came"]
    assert expected.keys() == came.keys() == {"first_step_s", "memory_gib"}
    assert expected["memory_gib"] == pytest.approx(came["memory_gib"], rel=1.0)
    assert 0 < came["first_step_s"] < sum(seconds.values())
    assert list(seconds) == ["reading and planning", "training", "calibration and thresholds", "gate", "testing"]
    minutes = json.loads((segmented.out / "run.json").read_text(encoding="utf-8"))["minutes"]
    assert 0 < sum(seconds.values()) <= 60 * minutes + 0.5  # what is left is the report's, and each is rounded
    assert "reading and planning" in (segmented.out / "report.html").read_text(encoding="utf-8")
