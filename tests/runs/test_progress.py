from __future__ import annotations

import io
import logging
import time

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.live import Live

from hilum.report.progress_tracking import Tracker
from hilum.runs import training_jobs
from hilum.runs.training_jobs import BLOCKS, TrainingWatch
from hilum.scoring.explaining import cohort_explanation
from hilum.training.training_state import Moment


def moment(step: int, validation: float | None = None, seconds: float | None = None) -> Moment:
    return Moment(step, 40, 2.0 * step if seconds is None else seconds, 1 / step, 1e-3, validation, 0.25)


def test_a_falling_curve_falls_through_all_blocks():
    assert training_jobs.sparkline(range(8, 0, -1), 24) == BLOCKS[::-1]
    assert training_jobs.sparkline([1, 1, 3, 3], 2) == BLOCKS[0] + BLOCKS[-1]
    assert training_jobs.sparkline([2.0], 24) == BLOCKS[0]
    assert training_jobs.sparkline([], 24) == ""


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60), st.integers(1, 30))
def test_a_curve_is_never_wider_than_its_place(values, width):
    drawn = training_jobs.sparkline(values, width)
    assert len(drawn) <= width
    assert set(drawn) <= set(BLOCKS)


def test_where_nobody_watches_the_last_line_says_how_training_went(caplog):
    with (
        caplog.at_level(logging.INFO, logger="hilum"),
        training_jobs.show_training("training", lambda figure: "dice") as watch,
    ):
        for step in range(1, 41):
            watch(moment(step, 0.5 + step / 100 if step % 20 == 0 else None))
    [stated] = [record.message for record in caplog.records]
    assert stated == (
        "training: step 40 of 40, loss 0.025, dice 0.9000 of the validation cases, learning rate 0.001, "
        "25 % waiting for data, 0 s left"
    )


def test_the_first_line_comes_as_soon_as_the_rest_is_seen_to_take_long(caplog):
    def lines(seconds: float, *done: int) -> list[str]:
        caplog.clear()
        now = time.monotonic()
        tracker = Tracker("testing", None, began=now - seconds, first=(1, now - seconds / 2))
        for number in done:
            tracker(number, 20)
        return [record.message for record in caplog.records]

    with caplog.at_level(logging.INFO, logger="hilum"):
        assert lines(12.0, 2, 3, 4) == ["testing: 2 of 20 in 12 s, 108 s left"]
        assert lines(12.0, 18) == []  # a moment more
        assert lines(0.5, 2) == []  # pieces of a moment say little of the others
        assert lines(12.0, 20) == ["testing: 20 of 20 in 12 s"]


def test_the_start_of_libraries_is_not_taken_for_the_speed(caplog):
    tracker = Tracker("testing", None, began=time.monotonic() - 12.0)
    with caplog.at_level(logging.INFO, logger="hilum"):
        for number in range(20):
            tracker(number, 20)
        assert not caplog.records
        tracker(20, 20)
    assert [record.message for record in caplog.records] == ["testing: 20 of 20 in 12 s"]


def test_the_time_left_follows_from_the_speed_that_was_seen():
    watch = TrainingWatch("training", lambda figure: "dice")
    for step in range(11, 31):  # resumed: the first ten steps were not seen
        watch(moment(step))
    assert watch.seconds_left(moment(30)) == 20.0


def test_a_terminal_shows_a_table_with_the_course_of_loss_and_metric():
    screen = io.StringIO()
    with Live(console=Console(file=screen, force_terminal=True, width=140), auto_refresh=False) as live:
        watch = TrainingWatch("training", lambda figure: "dice", live)
        for step in range(1, 41):
            watch(moment(step, 0.5 if step == 20 else 0.75 if step == 40 else None))
    shown = screen.getvalue()
    for word in ("40/40", "0.025", "0.7500", "0.001", "25 %", BLOCKS[0] + BLOCKS[-1]):
        assert word in shown


def test_a_piece_that_takes_long_tells_how_much_of_it_is_done_and_when_all_will_be(caplog):
    caplog.set_level(logging.INFO, logger="hilum")
    tracker = Tracker("explaining", None)
    tracker.began -= 100.0
    tracker.last_line -= 100.0
    tell = tracker.within(1, 4)
    tell(1, 2)
    assert "explaining: 1 of 4 in 100 s, 50 % of the next" in caplog.text
    tracker.first = (1.0, tracker.began)
    tracker.last_line -= 100.0
    tell(2, 2)
    assert "s left, 100 % of the next" in caplog.text, "a piece ends when its caller says so"


def test_each_case_is_given_a_way_to_tell_its_parts(caplog):
    seen = []
    results, failed = cohort_explanation.each_case(
        ["a", "b"], lambda case, tell: seen.append((case, callable(tell))) or case, "explaining", in_parts=True
    )
    assert (results, failed, seen) == (["a", "b"], [], [("a", True), ("b", True)])
