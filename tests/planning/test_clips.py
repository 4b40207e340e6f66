"""What is planned for clips: how many frames, when they are looked at, and what of it cannot be."""

from __future__ import annotations

from dataclasses import replace

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprints import LAPTOP, SAMPLED, cohort, facts
from hilum.errors import DatasetError, PlanError
from hilum.planning import plan_changes, plan_checks, planner
from hilum.planning.plan_inputs import Wishes
from hilum.transforms import clip_frames
from hilum.values import Decision, Fingerprint, Plan
from matrices import thinned

FRAME = 0.04  # s


def clips_of(frames: list[int | None], step: float | None = FRAME) -> Fingerprint:
    """Cases with so many frames, at even steps where it is known."""
    lasts = [None if step is None or count is None else step * (count - 1) for count in frames]
    cases = [
        replace(
            facts((32, 32), name=f"c{n}", physical=False, references={"class": ("weak", "strong")[n % 2]}),
            frames=count,
            lasts=long,
        )
        for n, (count, long) in enumerate(zip(frames, lasts, strict=True))
    ]
    return Fingerprint(tuple(cases))


def planned(found: Fingerprint, **assignments: object) -> Plan:
    made = planner.make_plan(
        cohort(found.cases, ("weak", "strong")),
        found,
        SAMPLED,
        LAPTOP,
        Wishes(
            Decision("cpu", "a test"),
            60.0,
            network=str(assignments["network.name"]) if "network.name" in assignments else None,
        ),
    )
    return plan_changes.with_settings(made, assignments)


def test_frames_are_spread_evenly_unless_an_interval_is_set_and_the_plan_says_which_would_do():
    made = planned(clips_of([9, 12, 30, 20] * 4))
    assert (made["preprocessing.frames"], made["preprocessing.interval"]) == (8, None)
    assert made["preprocessing.time_unit"] == "s"
    stated = made.decision("preprocessing.interval").because
    assert "0.32 to 1.16 s" in stated
    assert "preprocessing.interval=0.17 (s) takes at most 8" in stated
    assert planned(clips_of([9, 12] * 4, step=None))["preprocessing.time_unit"] == "frame"
    assert planned(clips_of([None] * 4))["preprocessing.time_unit"] is None


@hypothesis.settings(max_examples=8)
@given(st.lists(st.integers(2, 80), min_size=4, max_size=4), st.sampled_from([None, 0.013, 0.04, 1.0, 7.3]))
def test_with_the_interval_that_the_plan_names_every_training_clip_is_seen_to_its_end_without_gaps(frames, step):
    made = planned(clips_of(frames, step))
    stated = made.decision("preprocessing.interval").because
    interval = float(stated.partition("preprocessing.interval=")[2].split()[0])
    for count in frames:
        times = [n * (step or 1.0) for n in range(count)]
        slots = clip_frames.frames_at_steps(times, interval, made["preprocessing.frames"])
        found = [one for one in slots if one is not None]
        assert slots[: len(found)] == found
        assert times[-1] - times[found[-1]] <= interval


@pytest.mark.parametrize("name", thinned(1, ["clip_gru", "clip_lstm", "clip_resnet", "clip_transformer"]))
def test_every_family_of_clips_takes_an_interval_and_so_many_frames_as_are_planned(name):
    changes = {"network.name": name, "preprocessing.interval": 0.1, "preprocessing.frames": 16}
    made = planned(clips_of([9, 12, 30, 20]), **changes)
    chosen = plan_checks.checked_settings(plan_changes.with_predicted_memory(made, clips_of([9, 12, 30, 20]), LAPTOP))
    assert (chosen.preprocessing.interval, chosen.network.size["frames"]) == (0.1, 16)


def test_a_size_set_by_hand_is_told_of_the_frames_and_another_number_is_refused():
    size = {"width": 8, "blocks": [1, 1]}
    made = planned(clips_of([9, 12, 30, 20]), **{"network.size": size})
    assert plan_checks.checked_settings(made).network.size == {**size, "frames": 8}
    with pytest.raises(PlanError, match=r"4 frames, where preprocessing\.frames is 8"):
        plan_checks.checked_settings(planned(clips_of([9, 12, 30, 20]), **{"network.size": {**size, "frames": 4}}))


def test_nothing_is_looked_at_between_two_frames():
    with pytest.raises(PlanError, match=r"an interval of 0\.5 frames is shorter"):
        plan_checks.checked_settings(planned(clips_of([9, 12, 9, 12], step=None), **{"preprocessing.interval": 0.5}))


def test_still_images_are_no_clips():
    with pytest.raises(PlanError, match="clip_gru takes clips, and these are still images"):
        plan_checks.checked_settings(planned(clips_of([None] * 4), **{"network.name": "clip_gru"}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"preprocessing.interval": 0.0}, r"preprocessing.interval: .*0"),
        ({"preprocessing.interval": float("inf")}, "frames every inf"),
        ({"preprocessing.interval": 0.2, "network.name": "resnet"}, "resnet cannot handle missing frames"),
        ({"preprocessing.interval": 0.2, "preprocessing.frames": None}, "still images"),
    ],
)
def test_an_interval_that_cannot_be_is_refused(changes, says):
    with pytest.raises(PlanError, match=says):
        plan_checks.checked_settings(planned(clips_of([9, 12, 30, 20]), **changes))


def test_an_interval_with_which_training_clips_last_too_long_is_refused_by_how_many_they_are():
    found = clips_of([9, 12, 30, 20])
    made = planned(found, **{"preprocessing.interval": 0.05})
    with pytest.raises(PlanError, match=r"3 training clips last longer \(1\.16 s\) than 8 frames every 0\.05"):
        plan_changes.with_predicted_memory(made, found, LAPTOP)


def test_clips_among_stills_and_clips_of_one_frame_are_refused():
    with pytest.raises(DatasetError, match="2 of 4 cases are clips"):
        planned(clips_of([9, None, 9, None]))
    with pytest.raises(DatasetError, match="c1 of 4 clips have one frame"):
        planned(clips_of([9, 1, 9, 8]))
