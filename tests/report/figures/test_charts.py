from __future__ import annotations

import io
import re
import warnings
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from PIL import Image as Picture
from sklearn.metrics import average_precision_score, roc_auc_score

from hilum.errors import UsageError
from hilum.evaluation import Metrics
from hilum.report import Figure
from hilum.report.display import Ink
from hilum.report.figures import charts as figures_charts
from hilum.report.figures import discrimination_figures, drawing, heat_map
from hilum.report.figures.drawing import SVG_LIMIT
from hilum.values import Estimate, Row

STRANGE = r"$\frac{$ <script> x_1"
LOG = pd.DataFrame(
    {
        "step": [1, 2, 3, 4],
        "seconds": [0.5, 1.0, 1.5, 200.0],
        "loss": [1.0, 0.8, 0.7, 0.5],
        "learning_rate": [1e-3, 1e-3, 5e-4, 0],
        "dice": [np.nan, 0.5, np.nan, 0.75],
        "hd95": [np.nan, 7.0, np.nan, 3.0],
        "validation_loss": [np.nan, 0.9, np.nan, 0.6],
        "never": [np.nan] * 4,
    }
)


@pytest.fixture
def canvases(monkeypatch) -> list[drawing.Canvas]:
    """What charts draw from here on; they are not written, which takes longer."""
    drawn: list[drawing.Canvas] = []
    monkeypatch.setattr(drawing, "svg", lambda canvas: drawn.append(canvas) or "")
    return drawn


def sound(figure: Figure) -> bool:
    """A drawing of sensible size in the inks of the page, with words for who cannot see it."""
    is_inked = "var(--series-0, #0068a8)" in figure.svg and not re.search(r": #(?!000000)", figure.svg)
    is_small = len(figure.svg) <= SVG_LIMIT and min(figure.size) > 100
    return is_inked and is_small and bool(figure.alt) and bool(figure.title)


def test_every_chart_is_small_has_the_inks_of_its_page_and_words() -> None:
    rng = np.random.default_rng(0)
    truth, score = rng.random(50) < 0.5, rng.random(50)
    rows = [Row("dice", STRANGE, Estimate(0.8, 0.7, 0.9)), Row("dice", "b", Estimate(0.5, method="none: one patient"))]
    charts = [
        figures_charts.training_curves(LOG),
        figures_charts.label_scores(rows, "scores", metrics=Metrics()),
        figures_charts.histogram_chart({STRANGE: score, "empty": []}, "histogram", axis=STRANGE),
        figures_charts.scatter(score, score, "scatter", axes=("a (mm)", STRANGE), identity=True),
        discrimination_figures.roc({STRANGE: (truth, score)}, "roc"),
        discrimination_figures.precision_recall({STRANGE: (truth, score)}, "precision and recall"),
        discrimination_figures.reliability_diagram(truth, score, "reliability"),
        discrimination_figures.decision_curve_plot(
            score, -score, (-score - 0.1, np.full(score.shape, np.nan)), score, "decision"
        ),
        discrimination_figures.confusion_plot([[3, 1], [0, 4]], [STRANGE, "b"], "confusion"),
        heat_map.bar_chart({STRANGE: 0.5, "b": -0.1}, "bars", axis="score"),
    ]
    assert [figure.title for figure in charts if not sound(figure)] == []


def test_a_name_is_text_in_a_drawing_and_says_nothing_of_its_inks() -> None:
    name = 'fill: #0068a8"><script>&\x01'
    drawn = heat_map.bar_chart({name: 0.5}, name, axis=name).svg
    texts = [one.text for one in ElementTree.fromstring(drawn).iter("*") if one.tag.endswith("text")]  # noqa: S314
    assert texts.count(r'fill: #0068a8"><script>&\x01') == 1
    assert "<script>" not in drawn


def test_letters_that_our_font_lacks_are_drawn_by_the_page_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = heat_map.bar_chart({"病変 ប": 0.5}, "words", axis="得点").svg
    assert "病変" in drawn


def test_two_drawings_of_a_page_share_no_id_and_refer_to_their_own() -> None:
    one, other = (figures_charts.scatter([1, 2], [3, 4], "points", axes=(name, "b")).svg for name in ("one", "other"))
    ids, others = (re.findall(r' id="([^"]+)"', drawn) for drawn in (one, other))
    assert ids and len(set(ids)) == len(ids) and not set(ids) & set(others)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', one)) <= set(ids)


def test_a_drawing_of_thousands_of_points_has_them_as_pixels_and_its_words_as_text() -> None:
    points = np.random.default_rng(0).normal(size=(2, 4000))
    drawn = figures_charts.scatter(*points, "many", axes=("across", "up")).svg
    assert len(drawn) < 2 * SVG_LIMIT
    assert "data:image/png" in drawn and ">across</text>" in drawn


def test_metrics_of_unlike_units_do_not_share_an_axis() -> None:
    assert figures_charts._measured_columns(LOG) == (["validation_loss"], [["dice"], ["hd95"]])


def test_one_metric_of_training_and_of_validation_cases_has_one_panel_whatever_its_unit() -> None:
    log = pd.DataFrame({"step": [1, 2], "loss": 1.0, "gradient_norm": 1.0, "loss_supervised": 0.5, "loss_other": 0.5})
    for value in (0.5, -3.0):
        both = log.assign(validation=value, training_metric=0.7)
        assert figures_charts._measured_columns(both) == (
            ["loss_supervised", "loss_other"],
            [["validation", "training_metric"]],
        )
        assert sound(figures_charts.training_curves(both))


def test_a_log_of_steps_and_losses_alone_is_drawn() -> None:
    assert sound(figures_charts.training_curves(LOG[["step", "loss"]]))


@pytest.mark.parametrize("log", [LOG[["step"]], LOG.iloc[:0]])
def test_a_log_without_losses_is_refused(log: pd.DataFrame) -> None:
    with pytest.raises(UsageError, match="step and loss"):
        figures_charts.training_curves(log)


def test_the_words_of_a_score_chart_say_each_interval_or_why_there_is_none() -> None:
    rows = [Row("dice", "a", Estimate(0.8, 0.7, 0.9)), Row("dice", "b", Estimate(0.5, method="none: one patient"))]
    alt = figures_charts.label_scores(rows, "scores", metrics=Metrics()).alt
    assert alt == "Dice, a 0.800 (95 % interval 0.700 to 0.900); Dice, b 0.500 (no interval: one patient)"


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_the_area_under_the_curve_is_that_of_scikit_learn_also_with_ties(pairs: list[tuple[bool, int]]) -> None:
    truth, score = np.array([t for t, _ in pairs]), np.array([s for _, s in pairs], dtype=float)
    points = discrimination_figures._roc_points(truth, score)
    if truth.all() or not truth.any():
        assert points is None
    else:
        assert points is not None
        assert discrimination_figures._area(points) == pytest.approx(roc_auc_score(truth, score))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_the_area_under_the_steps_of_precision_is_scikit_learns_average_precision(
    pairs: list[tuple[bool, int]],
) -> None:
    truth, score = np.array([t for t, _ in pairs]), np.array([s for _, s in pairs], dtype=float)
    if truth.any():
        assert discrimination_figures._stepped_area(
            discrimination_figures._precision_points(truth, score)
        ) == pytest.approx(average_precision_score(truth, score))


def test_a_band_is_drawn_behind_its_curve_and_said() -> None:
    truth, score = np.arange(40) % 2 == 1, np.linspace(0, 1, 40)
    across = np.linspace(0, 1, 5)
    with_band = discrimination_figures.roc(
        {"a": (truth, score)}, "roc", bands={"a": (across, across * 0.8, np.minimum(1, across + 0.2))}
    )
    assert "Band: 95 % interval" in with_band.caption
    assert "fill-opacity" in with_band.svg
    assert "fill-opacity" not in discrimination_figures.roc({"a": (truth, score)}, "roc").svg


def test_a_class_that_all_cases_have_is_named_as_left_out() -> None:
    figure = discrimination_figures.roc({"a": ([True, True], [0.1, 0.9]), "b": ([True, False], [0.9, 0.1])}, "roc")
    assert "Left out, because all cases are alike there: a." in figure.caption
    assert "b: area 1.000" in figure.alt


def test_the_reliability_of_a_bin_is_its_share_with_the_exact_interval() -> None:
    points = discrimination_figures._reliability_points(
        np.array([1, 0, 0, 1], dtype=bool), np.array([0.95, 0.12, 0.18, 1.0]), 10
    )
    assert_allclose(points["mean"], [0.15, 0.975])
    assert_allclose(points["share"], [0.0, 1.0])
    assert_allclose(points["low"], [0.0, 0.025**0.5])  # Clopper and Pearson with two of two: (alpha / 2)^(1 / n)
    assert points["count"].tolist() == [2, 2]


def test_a_confusion_matrix_of_other_size_than_its_classes_is_refused() -> None:
    with pytest.raises(UsageError, match="one row and column"):
        discrimination_figures.confusion_plot([[1, 2]], ["a", "b"], "confusion")


def test_a_long_name_keeps_its_ends() -> None:
    assert drawing.short_name("hippocampus_001", 22) == "hippocampus_001"
    assert drawing.short_name("a" * 30 + "_001", 12) == "aaaaa\N{HORIZONTAL ELLIPSIS}aa_001"
    assert len(drawing.short_name("x" * 99, 12)) == 12


def test_names_that_would_be_shortened_alike_are_whole() -> None:
    wavelets = ["wavelet-HLH_firstorder_Mean", "wavelet-HLL_firstorder_Mean"]
    assert drawing.short_name(wavelets[0]) == drawing.short_name(wavelets[1])
    assert drawing.shorten_all([*wavelets, "age"]) == [*wavelets, "age"]


def test_two_covariates_whose_names_are_shortened_alike_have_a_bar_each(canvases) -> None:
    heat_map.bar_chart({"wavelet-HLH_firstorder_Mean": 0.5, "wavelet-HLL_firstorder_Mean": -0.2}, "bars", axis="score")
    bars = canvases[0].axes[0].patches
    assert [bar.get_width() for bar in bars] == [0.5, -0.2]
    assert len({bar.get_y() for bar in bars}) == 2


def test_of_thousands_of_covariates_the_farthest_from_0_have_a_bar_and_the_caption_says_so(canvases) -> None:
    made = heat_map.bar_chart({f"gene_{n}": n / 5000 for n in range(5000)}, "bars", axis="score")
    assert max(canvases[0].get_size_inches()) < 40  # of 200 points each, where a picture ends at 65,536
    assert made.caption == "The 30 of 5000 that are farthest from 0."
    assert made.alt.startswith("bars: gene_4999 1, ") and "gene_4969" not in made.alt


def test_of_thousands_of_groups_the_first_have_a_line_and_the_caption_says_so(canvases) -> None:
    rows = [(f"gene_{n // 2}", str(n % 2), Estimate(0.5, 0.4, 0.6, n=9), True) for n in range(3000)]
    made = figures_charts.forest(rows, "Dice by group", axis="Dice")
    assert max(canvases[0].get_size_inches()) < 40  # of 200 points each, where a picture ends at 65,536
    assert "2940 more groups are not drawn." in made.caption


def test_the_loss_of_every_fold_is_drawn(canvases) -> None:
    folds = {f"fold {n} loss": [1.0, 0.5] for n in range(7)}
    figures_charts.training_curves(pd.DataFrame({"step": [1, 2], "loss": [1.0, 0.5], **folds}))
    named = [line.get_label() for line in canvases[0].axes[0].lines]
    assert set(folds) <= set(named)


@pytest.mark.whole
def test_many_classes_have_charts_without_a_legend_that_hides_them(canvases) -> None:
    classes = 49
    rng = np.random.default_rng(0)
    truth, score = rng.integers(classes, size=300), rng.random((300, classes))
    curves = {f"class {n}": (truth == n, score[:, n]) for n in range(classes)}
    charts = [
        discrimination_figures.roc(curves, "roc"),
        discrimination_figures.precision_recall(curves, "precision and recall"),
    ]
    assert all(canvas.axes[0].get_legend() is None for canvas in canvases)
    assert all("lines, too many to name" in one.caption for one in charts)
    matrix = discrimination_figures.confusion_plot(np.eye(classes, dtype=int), list(curves), "confusion")
    assert matrix.wide and max(canvases[-1].get_size_inches()) <= 16
    assert "per cent" not in matrix.caption
    groups = figures_charts.histogram_chart({name: one for name, (_, one) in curves.items()}, "scores", axis="score")
    assert groups.alt.startswith("Dots")


def test_nearly_all_of_a_class_is_not_said_to_be_all_of_it(canvases) -> None:
    discrimination_figures.confusion_plot([[199, 1], [0, 4]], ["a", "b"], "confusion")
    written = [text.get_text() for text in canvases[0].axes[0].texts]
    assert written == ["199", "> 99 %", "1", "< 1 %", "0", "0 %", "4", "100 %"]


def test_curves_of_several_folds_say_what_their_dashes_are_too(canvases) -> None:
    made = discrimination_figures.precision_recall({"a": ([True, False], [0.9, 0.1])}, "curve", caption="Pooled.")
    assert made.caption.startswith("Dashed: the precision of calling every case positive")
    assert made.caption.endswith("Pooled.")


def test_precision_is_drawn_from_a_recall_of_0_on() -> None:
    points = discrimination_figures._precision_points(np.array([True, False, True]), np.array([0.9, 0.5, 0.1]))
    assert_allclose(points, [[0, 0.5, 0.5, 1], [1, 1, 0.5, 2 / 3]])


def test_the_same_values_make_the_same_drawing() -> None:
    one, other = (figures_charts.training_curves(LOG) for _ in range(2))
    assert one.svg == other.svg


def test_the_folds_of_a_run_share_a_panel_whatever_their_range() -> None:
    log = pd.DataFrame({"step": [1, 2], "loss": [1.0, 0.5], "fold 0 loss": 1.0, "fold 0": [-0.4, 0.2], "fold 1": 0.5})
    assert figures_charts._measured_columns(log) == (["fold 0 loss"], [["fold 0", "fold 1"]])
    of_training = [f"fold {n} training_metric" for n in range(2)]
    both = log.assign(**dict.fromkeys(of_training, 0.9))
    assert figures_charts._measured_columns(both) == (["fold 0 loss"], [["fold 0", "fold 1"], of_training])
    renamed = log.rename(columns={"fold 0": "hd95", "fold 1": "dice"})
    assert figures_charts._measured_columns(renamed) == (["fold 0 loss"], [["dice"], ["hd95"]])


def test_few_values_are_dots_and_many_a_histogram() -> None:
    few, many = (figures_charts.histogram_chart({"dice": np.linspace(0, 1, n)}, "Dice", axis="Dice") for n in (12, 60))
    assert few.alt.startswith("Dots of Dice") and "Dot: one value" in few.caption
    assert many.alt.startswith("Histogram of Dice")


def test_the_picture_of_a_chart_lies_on_white_and_its_drawing_on_the_page() -> None:
    def draw(canvas: drawing.Canvas, ink: Ink) -> None:
        axes = canvas.subplots()
        drawing.plain_axes(axes, ink)
        axes.fill_between([0, 1], [0, 1], color=ink.series[0], alpha=0.2)

    shown = drawing.draw_chart(draw, title="a chart", caption="", alt="", is_file=True)
    with Picture.open(io.BytesIO(shown.png)) as opened:
        assert max(opened.convert("RGB").getcolors(1 << 20))[1] == (255, 255, 255)
    assert "--paper" not in shown.svg
