from __future__ import annotations

import json

from isocenter.training import Clock
from isocenter.verbs.training.time_budget import EARLIER, Stages, stages_in_words


def test_each_stage_has_the_time_between_its_end_and_that_of_the_one_before():
    now = [100.0]
    stages = Stages(Clock(began=90.0, now=lambda: now[0]))
    for name, at in (("reading", 95.0), ("training", 800.0), ("testing", 830.0)):
        now[0] = at
        stages.ended(name)
    assert stages.seconds == {"reading": 5.0, "training": 705.0, "testing": 30.0}
    assert stages_in_words(stages.seconds) == "reading 5 s, training 11.8 min, testing 30 s"


def test_a_resumed_run_tells_the_time_of_earlier_sessions_from_its_own():
    stages = Stages(Clock(began=0.0, spent=60.0, now=lambda: 7.0))
    stages.ended("reading")
    assert stages.seconds == {EARLIER: 60.0, "reading": 7.0}


def test_the_stages_of_a_run_fill_its_minutes_and_stand_in_its_report(segmented):
    seconds = json.loads((segmented.out / "environment.json").read_text(encoding="utf-8"))["seconds"]
    assert list(seconds) == ["reading and planning", "training", "calibration and thresholds", "gate", "testing"]
    minutes = json.loads((segmented.out / "run.json").read_text(encoding="utf-8"))["minutes"]
    assert 0 < sum(seconds.values()) <= 60 * minutes + 0.5  # what is left is the report's, and each is rounded
    assert "reading and planning" in (segmented.out / "report.html").read_text(encoding="utf-8")
