from __future__ import annotations

import pytest

from isocenter.verbs import budget
from isocenter.verbs.budget import Costs, seconds_after, shared_deadline, training_deadline

COSTS = Costs(predict=2.0, score=0.5, tune=1.0)


def test_what_follows_training_is_tuning_scoring_pictures_and_the_report():
    assert seconds_after(COSTS, 0, []) == budget.REPORT_SECONDS
    assert seconds_after(COSTS, 10, []) == budget.REPORT_SECONDS + 10 * (2.0 + 1.0)
    shown = 6  # two each of best, median and worst
    assert seconds_after(COSTS, 0, [(40, 1)]) == budget.REPORT_SECONDS + (40 + shown) * 2.0 + 40 * 0.5
    assert seconds_after(COSTS, 0, [(3, 5)]) == budget.REPORT_SECONDS + (3 + 3) * 5 * 2.0 + 3 * 0.5


def test_every_fold_gets_an_equal_part_of_the_time_that_is_left():
    elapsed, ends = 20.0, []
    for fold in range(5):
        ends.append(shared_deadline(520.0, elapsed, 5 - fold))
        elapsed = ends[-1]
    assert ends == pytest.approx([120, 220, 320, 420, 520])


def test_a_fold_that_took_longer_takes_from_all_that_follow():
    assert shared_deadline(520.0, 220.0, 3) == 320.0


def test_a_reserve_is_kept_of_the_minutes():
    assert training_deadline(10.0, 60.0) == 600 * (1 - budget.RESERVE) - 60
