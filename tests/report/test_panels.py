from __future__ import annotations

from hilum.report.figures import charts
from hilum.values import Estimate


def test_each_thing_has_a_panel_and_the_words_say_where_it_ends():
    steps = {"noise": {1: Estimate(0.8, 0.7, 0.9), 5: Estimate(0.6)}, "blur": {1: Estimate(0.7)}}
    drawn = charts.estimate_courses(steps, "Worse", axes=("severity", "AUROC"), base=0.9, caption="")
    assert drawn.alt == "AUROC over severity, 0.9 before. noise: 0.6 at the last step; blur: 0.7 at the last step"
    assert drawn.svg.startswith("<svg ")
