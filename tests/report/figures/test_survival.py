from __future__ import annotations

import numpy as np
import pytest

from hilum.errors import UsageError
from hilum.report.figures import survival_figures
from hilum.report.figures.survival_figures import SurvivalCurve

CURVE = SurvivalCurve(
    np.array([2.0, 5.0]), np.array([0.75, 0.25]), np.array([0.4, 0.1]), np.array([0.9, 0.6]), np.array([3.0])
)


def test_the_words_of_the_curves_say_the_survival_at_each_tick():
    made = survival_figures.kaplan_meier_plot({"low": CURVE}, [0.0, 2.0, 6.0], {"low": [4, 4, 1]}, "KM", axis="days")
    assert made.alt == "Kaplan-Meier curves. low: 0.75 at 2, 0.25 at 6"
    assert "95 % interval" in made.caption
    assert made.svg


def test_a_second_group_makes_room_for_its_numbers_and_is_drawn():
    ticks = [0.0, 2.0, 6.0]
    one = survival_figures.kaplan_meier_plot({"low": CURVE}, ticks, {"low": [4, 4, 1]}, "KM", axis="days")
    both = {"low": CURVE, "high": CURVE}
    two = survival_figures.kaplan_meier_plot(both, ticks, {"low": [4, 4, 1], "high": [4, 4, 1]}, "KM", axis="days")
    assert two.size[1] > one.size[1]


def test_a_curve_without_its_numbers_at_risk_is_refused():
    with pytest.raises(UsageError, match="one count"):
        survival_figures.kaplan_meier_plot({"low": CURVE}, [0.0, 2.0], {"low": [4]}, "KM", axis="days")
    with pytest.raises(UsageError, match="one count"):
        survival_figures.kaplan_meier_plot({}, [], {}, "KM", axis="days")


def test_ticks_are_round_and_within_the_time():
    for last in (0.9, 7.0, 365.0, 4328.0):
        ticks = survival_figures.time_ticks(last)
        assert ticks[0] == 0
        assert ticks[-1] <= last
        assert 3 <= len(ticks) <= 8


def test_one_cases_curve_says_when_it_ended_and_how():
    when, chance = np.linspace(0, 10, 5), np.linspace(1, 0.2, 5)
    event = survival_figures.survival_curve(when, chance, "c", axis="days", last=4.0, happened=True)
    lost = survival_figures.survival_curve(when, chance, "c", axis="days", last=40.0)
    assert event.alt == "Predicted survival: 0.60 at 5, 0.20 at 10; event at 4"
    assert lost.alt.endswith("last contact at 40")
    assert survival_figures.survival_curve(when, chance, "c", axis="days").alt.endswith("0.20 at 10")


def test_calibration_says_each_group():
    made = survival_figures.observed_against_predicted([(0.2, 0.25, 0.1, 0.5), (0.7, 0.6, 0.4, 0.8)], "Calibration")
    assert made.alt == "Calibration by group. predicted 0.20, observed 0.25; predicted 0.70, observed 0.60"
