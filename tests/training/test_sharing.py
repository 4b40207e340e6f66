"""Networks for every voxel that share the minutes of a training."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trained
from hilum.planning import plan_file
from hilum.runs import training_jobs
from hilum.training import session_length
from hilum.training.length.schedule import Speed, TrainingPace
from hilum.training.length.step_probe import Budget
from hilum.training.session_length import Length, SeveralNetworks
from hilum.training.training_state import CommandClock, Share, State

STEP = 0.5


def steps_in(left: float) -> Budget:
    """Half a second each."""
    return Budget(int(left / STEP), 1, Speed(STEP, 0.0), "half a second each")


def clock(seconds: float, deadline: float) -> CommandClock:
    return CommandClock(0.0, deadline=deadline, now=lambda: seconds)


@pytest.mark.parametrize(
    ("minutes", "networks", "steps"),
    [(5, 1, 600), (20, 1, 2400), (60, 3, 2315), (24 * 60, 5, 33507)],
)
def test_minutes_that_are_enough_for_several_networks_are_shared(minutes, networks, steps):
    """By hand, of steps of half a second: .97 of a third of 3600 s less 2 x 10 s of predictions are 1157.5 s."""
    budget, share = session_length.budget_in_shares(
        SeveralNetworks(5, 10.0), clock(100.0, 100.0 + 60 * minutes), steps_in
    )
    assert (1 if share is None else share.networks) == networks
    assert budget.steps == pytest.approx(steps, abs=1)
    assert ("share" in budget.because) == (networks > 1)


def test_nothing_is_shared_where_nobody_else_may():
    assert session_length.budget_in_shares(None, clock(0.0, 86400.0), steps_in)[1] is None


@given(st.integers(2, 5), st.floats(0, 1e4), st.floats(0, 60), st.floats(1e4, 1e5))
def test_all_shares_and_what_predictions_take_fit_into_the_minutes(networks, began, kept, left):
    share = Share(networks, began, kept)
    assert 0.96 * left <= networks * share.seconds_of(left) + kept <= left
    state = State(3, TrainingPace(10), 2, speed=Speed(1.0, 0.0), share=share)
    record = json.loads(json.dumps({**asdict(state), "best": None}))
    assert State.from_record(record, "here") == state


def test_a_share_is_planned_anew_within_itself_and_not_over_all_minutes():
    """At 400 of 1000 s a step takes twice the time; the share of two networks ends at 485 s."""
    state = State(200, TrainingPace(1000), 1, speed=Speed(STEP, 0.0), share=Share(2, 0.0, 0.0))
    length = Length(clock(400.0, 1000.0), several=SeveralNetworks(2, 0.0))
    _, after = length.adjust(SimpleNamespace(most_steps=None), state, 2 * STEP)
    assert after.pace.steps == pytest.approx(200 + 85 / after.speed.step, abs=1)
    _, alone = length.adjust(SimpleNamespace(most_steps=None), replace(state, share=None), 2 * STEP)
    assert alone.pace.steps == pytest.approx(200 + 600 / alone.speed.step, abs=1)


class Shared(Length):
    """Two steps without a probe, as if four networks had the rest of the minutes."""

    def plan_steps(self, session):
        return State(0, TrainingPace(2), 1, speed=Speed(0.001, 0.0), share=Share(4, self.clock.seconds, 0.0))

    def adjust(self, session, state, step):
        return self, state


@pytest.mark.whole
def test_networks_for_every_voxel_have_the_rest_of_the_minutes_and_their_mean_is_the_model(
    segmented, tmp_path, monkeypatch
):
    asked = []

    def length(clock, decided, recount, fewest, several):
        asked.append(several)
        return Shared(clock) if several else Length(clock, decided, recount, fewest)

    monkeypatch.setattr(training_jobs, "Length", length)
    chosen = {"training.steps": None, "guard.gate": False}
    run = trained.segmenting(segmented.data, tmp_path / "run", minutes=30, assignments=chosen)
    plan = plan_file.read_plan(run.out / "plan.yaml")
    assert asked[0].most == plan["training.networks"] == 5
    assert asked[1:] == [None] * 4
    assert "never above" in plan.decision("training.networks").because
    assert len(list((run.out / "members").glob("[0-9]"))) == 5
