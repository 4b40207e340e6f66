from __future__ import annotations

import numpy as np
import pytest

from hilum.errors import UsageError
from hilum.report.figures import charts, drawing
from hilum.values import Estimate

TRUE = np.array([2.0, 3.0, 4.0])
WRITE_SVG = drawing.svg
LIMITS = (Estimate(-0.3, -0.5, -0.1, unit="ml"), Estimate(0.5, 0.3, 0.7, unit="ml"))


def test_words_say_what_is_drawn_to_who_cannot_see_it():
    near = charts.agreement_plot(TRUE, TRUE + 0.25, "volume", unit="ml", error_bars=[0.1, 0.2, 0.3])
    assert near.alt == "Predicted against reference (ml), 3 points, mean distance 0.250"
    assert "1.96 standard deviations" in near.caption
    apart = charts.bland_altman(TRUE, TRUE + 0.1, "volume", bias=Estimate(0.1, unit="ml"), limits=LIMITS, unit="ml")
    assert "upper limit 0.500 ml, bias 0.100 ml, lower limit \N{MINUS SIGN}0.300 ml" in apart.alt
    assert "95 % intervals" in apart.caption


def test_the_numbers_of_the_lines_stand_beside_the_points(monkeypatch):
    drawn = []
    monkeypatch.setattr(drawing, "svg", lambda canvas: drawn.append(canvas) or WRITE_SVG(canvas))
    charts.bland_altman(TRUE, TRUE + 0.1, "volume", bias=Estimate(0.1, unit="ml"), limits=LIMITS, unit="ml")
    [axes] = drawn[0].axes
    right = axes.get_window_extent().x1
    assert [text.get_text() for text in axes.texts] == ["0.500", "0.100", "\N{MINUS SIGN}0.300"]
    assert all(text.get_window_extent().x0 >= right for text in axes.texts)


def test_a_single_case_has_no_limits_and_is_drawn_all_the_same():
    nothing = Estimate(float("nan"), method="none: one patient")
    drawn = charts.bland_altman([2.0], [2.5], "volume", bias=Estimate(0.5), limits=(nothing, nothing))
    assert "lower limit undefined" in drawn.alt
    assert "intervals" not in drawn.caption
    assert charts.agreement_plot([2.0], [2.5], "volume").svg


def test_error_bars_of_many_cases_would_hide_them_and_are_left_out():
    many = np.linspace(0, 1, 200)
    assert "Bars" not in charts.agreement_plot(many, many, "volume", error_bars=np.ones(200)).caption


@pytest.mark.parametrize(("reference", "predicted"), [([], []), ([1.0], [1.0, 2.0])])
def test_without_a_pair_there_is_nothing_to_draw(reference, predicted):
    with pytest.raises(UsageError, match="one of each"):
        charts.agreement_plot(reference, predicted, "volume")
