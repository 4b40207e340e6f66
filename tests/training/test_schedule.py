from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.planning import plan_checks, plan_file
from hilum.training.length import schedule
from hilum.training.length.schedule import FEWEST_STEPS, Speed, TrainingPace


@pytest.fixture(scope="session")
def chosen(segmented):
    """How a small run was trained."""
    return plan_checks.checked_settings(plan_file.read_plan(segmented.out / "plan.yaml")).training


def rates(steps, training):
    pace = TrainingPace(steps)
    return [schedule.learning_rate_at(pace.progress(step), pace.stride, training) for step in range(steps)]


def test_the_rate_rises_over_the_warm_up_and_falls_as_a_cosine_to_nearly_nothing(chosen):
    found = rates(100, replace(chosen, warmup=0.1, learning_rate=2.0, schedule="cosine"))
    assert found[:10] == pytest.approx([0.2 * n for n in range(1, 11)])
    assert found[10] == pytest.approx(2.0)
    assert found[55] == pytest.approx(1.0)  # half-way down
    assert found[10 + 30] == pytest.approx(1 + math.cos(math.pi / 3))
    assert found[10:] == sorted(found[10:], reverse=True)
    assert 0 < found[-1] < 0.001


def test_the_polynomial_is_nnunets(chosen):
    found = rates(250, replace(chosen, warmup=0.0, learning_rate=0.01, schedule="poly"))
    assert found == pytest.approx([0.01 * (1 - step / 250) ** 0.9 for step in range(250)])


def test_one_step_is_a_whole_schedule(chosen):
    assert rates(1, replace(chosen, learning_rate=0.5)) == [0.5]


def test_the_average_looks_back_over_its_share_of_the_steps_and_early_on_follows_quickly(chosen):
    training = replace(chosen, ema=0.05)
    assert schedule.average_decay(0, 1 / 1000, training) == 0.1
    assert schedule.average_decay(1000, 1 / 1000, training) == pytest.approx(1 - 1 / 50)
    assert schedule.average_decay(5, 1 / 1000, replace(training, ema=0.0)) == 0.0  # the weights themselves


@given(
    st.integers(1, 500),
    st.lists(st.tuples(st.floats(0, 1), st.integers(-50, 500)), max_size=6),
)
@settings(max_examples=60)
def test_progress_never_falls_and_ends_at_one_however_often_the_steps_are_planned_anew(steps, changes):
    pace, done, last = TrainingPace(steps), 0, 0.0
    for share, left in changes:
        stop = done + int(share * (pace.steps - done))
        for step in range(done, stop + 1):
            assert last - 1e-12 <= pace.progress(step) <= 1
            last = pace.progress(step)
        if stop < pace.steps:
            before = pace.progress(stop)
            pace = pace.replan(stop, left)
            assert pace.progress(stop) == before
        done = stop
    assert pace.progress(pace.steps) == 1
    assert pace.progress(pace.steps - 1) < 1


@given(st.integers(1, 300), st.integers(1, 12), st.lists(st.integers(1, 300), max_size=4))
@settings(max_examples=60)
def test_validations_lie_evenly_over_the_progress_and_the_last_step_is_validated(steps, validations, changes):
    pace, done, looked = TrainingPace(steps), 0, 0
    for left in [*changes, None]:
        stop = pace.steps if left is None else (done + pace.steps) // 2
        looked += sum(pace.is_due(step, validations) for step in range(done + 1, stop + 1))
        assert looked <= validations
        assert looked == pace.looks(stop, validations) or steps < validations or looked <= stop
        done = stop
        if left is not None and done < pace.steps:
            pace = pace.replan(done, left)
    assert pace.is_due(pace.steps, validations)


def test_validations_of_a_plain_pace_are_at_equal_steps():
    pace = TrainingPace(60)
    assert [step for step in range(1, 61) if pace.is_due(step, 6)] == [10, 20, 30, 40, 50, 60]


def test_steps_that_still_fit_are_left_alone():
    speed = Speed(0.5, 2.0)
    assert schedule.replan_steps(TrainingPace(100), 50, 10, speed, left=25 + 10 + 0.5, deadline=100.0) is None
    assert schedule.fitting_steps(35.0, speed, 5) == 50


def test_a_machine_half_as_fast_gets_half_of_the_steps_that_are_left():
    pace, because = schedule.replan_steps(TrainingPace(100), 50, 10, Speed(1.0, 0.0), left=25.0, deadline=60.0)
    assert (pace.steps, pace.since, pace.reached) == (75, 50, 0.5)
    assert "100 were planned; after 50 a step takes 1.000 s, and 25 s are left" in because


def test_a_faster_machine_does_more():
    pace, _ = schedule.replan_steps(TrainingPace(100), 50, 10, Speed(0.25, 1.0), left=25.0, deadline=60.0)
    assert pace.steps == 50 + (25 - 5) * 4


def test_no_machine_is_fast_enough_for_more_steps_than_there_may_be():
    time_left = {"left": 25.0, "deadline": 60.0}
    pace, _ = schedule.replan_steps(TrainingPace(100), 50, 10, Speed(0.25, 1.0), most=110, **time_left)
    assert pace.steps == 110
    assert schedule.replan_steps(TrainingPace(100), 50, 10, Speed(0.25, 1.0), most=100, **time_left) is None
    pace, _ = schedule.replan_steps(TrainingPace(100), 50, 10, Speed(1.0, 0.0), most=100, **time_left)
    assert pace.steps == 75  # a slower one takes steps away as ever


def test_epochs_become_steps_by_the_batch(chosen):
    assert schedule.most_steps(replace(chosen, epochs=None), 1000) is None
    assert schedule.most_steps(replace(chosen, epochs=40, batch=64), 1078) == math.ceil(40 * 1078 / 64)
    assert schedule.most_steps(replace(chosen, epochs=40, batch=32), 1078) == math.ceil(40 * 1078 / 32)
    assert schedule.most_steps(replace(chosen, epochs=0.1, batch=8), 20) == FEWEST_STEPS


def test_without_time_left_a_tenth_of_the_steps_lets_the_rate_come_to_its_end():
    pace, _ = schedule.replan_steps(TrainingPace(100), 50, 10, Speed(1.0, 1.0), left=-3.0, deadline=60.0)
    assert (pace.steps, pace.progress(50), pace.progress(55)) == (55, 0.5, 1.0)
    assert schedule.replan_steps(pace, 52, 10, Speed(1.0, 1.0), left=-9.0, deadline=60.0) is None
    pace, _ = schedule.replan_steps(TrainingPace(100), 98, 10, Speed(9.0, 1.0), left=9.0, deadline=60.0) or (
        TrainingPace(100),
        "",
    )
    assert pace.steps == 100


def test_however_late_it_is_the_fewest_steps_are_done():
    late = {"left": -3.0, "deadline": 0.6}
    assert schedule.replan_steps(TrainingPace(FEWEST_STEPS), 1, 1, Speed(1.0, 1.0), **late) is None
    pace, _ = schedule.replan_steps(TrainingPace(100), 4, 1, Speed(1.0, 1.0), **late)
    assert pace.steps == FEWEST_STEPS


@given(st.floats(0.2, 4.0), st.floats(0.2, 4.0), st.floats(0.0, 5.0))
@settings(max_examples=40)
def test_a_run_on_a_machine_whose_load_changes_still_ends_near_its_time(first, second, validation):
    """Simulated: a step takes 1 s in the probe, `first` in the first half of the time, `second` in the other."""
    deadline, validations, clock, done = 1000.0, 10, 0.0, 0
    speed = Speed(1.0, validation)
    pace = TrainingPace(schedule.fitting_steps(deadline, speed, validations))
    spell, since, checked = 0.0, 0, 0.0
    while done < pace.steps:
        took = first if clock < deadline / 2 else second
        clock, spell, done = clock + took, spell + took, done + 1
        due = pace.is_due(done, validations)
        if due:
            clock, speed = clock + validation, speed.after(validation=validation)
        if (due or clock - checked > 60) and done < pace.steps:
            speed = speed.after(step=spell / (done - since))
            spell, since, checked = 0.0, done, clock
            anew = schedule.replan_steps(pace, done, validations, speed, left=deadline - clock, deadline=deadline)
            pace = anew[0] if anew else pace
    assert abs(clock - deadline) < 0.05 * deadline
