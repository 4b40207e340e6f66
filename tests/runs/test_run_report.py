from __future__ import annotations

import io
import re
from dataclasses import replace

import pandas as pd
import PIL.Image
import pytest

from hilum.planning import plan_file
from hilum.report import Figure, Table
from hilum.runs import run_report
from hilum.runs.run_report import METHODS, MOST_LINES, RunReport
from hilum.runs.search_trials import SearchResult
from hilum.scoring.case_scoring import WRONG, ScoredCases
from hilum.scoring.model_verdict import Verdict
from hilum.tasks import task_catalogue
from hilum.tasks.segmentation.question import Segmentation
from hilum.training.length.step_probe import NARROWER
from hilum.values import BY_HAND, Decision, Estimate, Label, Plan, Row

TASK = Segmentation((Label(1, "liver"), Label(2, "tumour")))
TABLE = pd.DataFrame(
    {
        "case": ["a", "a", "b", "b"],
        "patient": ["p", "p", "q", "q"],
        "split": "test",
        "label": ["liver", "tumour"] * 2,
        "dice": [0.9, 0.5, 0.8, float("nan")],
    }
)


def rows(metric: str, *values: float, low: float | None = 0.1) -> list[Row]:
    return [
        Row(metric, label, Estimate(value, low, None if low is None else 0.95, n=2, method="patient bootstrap"))
        for label, value in zip(("all", "liver", "tumour"), values, strict=True)
    ]


def plan() -> Plan:
    sections = {
        "task": {"name": Decision("segmentation", "masks"), "tolerance": Decision({"liver": 2.0}, "two voxels")},
        "evaluation": {
            "primary": Decision("dice", "overlap is asked for"),
            "groups": Decision(None, "nobody named any"),
            "margin": Decision(None, "nobody named one"),
        },
    }
    made = Plan(sections)
    return made.with_decision(
        "evaluation.preregistered", Decision(plan_file.preregistration_digest(made), "before training")
    )


def page(primary: str = "dice", openings: int = 1, made: Plan | None = None, given: list[Row] | None = None) -> str:
    every = given or [*rows("dice", 0.85, 0.85, 0.5), *rows("hd95", 3.0, 2.0, 4.0)]
    scored = ScoredCases(TABLE, every, openings=openings, task=TASK)
    return RunReport("Title", "Lead.", primary=primary, scored=scored, notes=[], facts={}, views="", plan=made).html


def figure() -> Figure:
    """A picture of a case."""
    out = io.BytesIO()
    PIL.Image.new("L", (2, 2)).save(out, format="PNG")
    return Figure("picture", out.getvalue(), "alt")


def between(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


def test_what_was_named_before_training_stands_apart_from_what_is_exploratory():
    text = page(made=plan())
    assert "Dice was named primary before training, with its tolerance; all other figures are exploratory" in text
    headline = between(text, 'class="headline"', "<nav")
    assert "Dice" in headline
    assert "HD95" not in headline


def test_the_margin_and_groups_that_were_fixed_stand_with_the_primary_metric():
    made = plan().with_decision("evaluation.margin", Decision(0.05, BY_HAND))
    made = made.with_decision("evaluation.groups", Decision("sex,age:40", BY_HAND))
    made = made.with_decision(
        "evaluation.preregistered", Decision(plan_file.preregistration_digest(made), "before training")
    )
    words = "fixed with it: the margin of non-inferiority 0.05 and the groups sex, age:40; all other figures"
    assert words in page(made=made)


def test_figures_and_charts_link_to_the_files_of_which_they_are_made():
    text = page(made=plan())
    results = between(text, ">Results</h2>", "</section>")
    assert 'href="summary.json"' in results and 'href="cases.csv"' in results


def test_a_promise_that_was_changed_since_is_no_promise():
    changed = plan().with_decision("task.tolerance", Decision({"liver": 5.0}, "set by hand"))
    text = page(made=changed)
    assert "not those preregistered" in text
    assert "every figure is exploratory" in text
    assert "nothing shows that it was named beforehand" in page(made=None)


def test_the_report_says_how_often_the_test_was_opened_and_what_the_interval_does_not_hold():
    assert "opened for the first time on this machine" in page(openings=1)
    again = page(openings=3)
    assert "opened 3 times on this machine" in again
    assert "needs other cases to test it" in again
    assert "opened" not in page(openings=0)
    assert "they do not include the variation between trainings with other seeds" in again


def test_labels_stand_side_by_side_each_value_over_its_interval():
    text = between(page(), 'class="by-label"', "</table>")
    assert text.index("liver") < text.index("tumour")
    assert text.index("Dice") < text.index("HD95")
    assert "0.100\N{EN DASH}0.950" in text


def test_a_unit_stands_over_the_column_where_all_labels_have_it_and_else_with_each_value():
    def table(*units: str) -> str:
        found = [Row("hd95", f"l{n}", Estimate(2.5, 2.0, 3.0, unit=unit)) for n, unit in enumerate(units)]
        return between(page(given=found), 'class="by-label"', "</table>")

    assert "HD95 (ml)" in table("ml", "ml")
    assert "2.50<br>" in table("ml", "ml")
    mixed = table("ml", "years")
    assert "HD95<" in mixed
    assert "2.50 ml<br>" in mixed
    assert "2.50 years<br>" in mixed


def test_a_metric_that_is_defined_nowhere_has_no_column():
    nowhere = rows("false_positive_volume", float("nan"), float("nan"), float("nan"), low=None)
    assert "False positive volume" not in between(
        page(given=[*rows("dice", 0.8, 0.8, 0.5), *nowhere]), "by-label", "</table>"
    )


@pytest.mark.parametrize(("labels", "shown"), [(3, True), (9, False)])
def test_few_labels_stand_in_the_headline_and_many_do_not(labels, shown):
    many = [Row("dice", "all", Estimate(0.8)), *(Row("dice", f"l{n}", Estimate(0.5 + n / 100)) for n in range(labels))]
    headline = between(page(given=many), 'class="headline"', "</header>")
    assert ("Dice, l0" in headline) is shown


def test_the_page_asks_nobody_for_anything():
    text = page(made=plan())
    assert "default-src 'none'" in text
    assert 'src="http' not in text
    assert "<script" not in text


def test_of_one_structure_there_is_one_table_and_its_bias_stands_once():
    one = [
        Row("dice", "all", Estimate(0.8, 0.7, 0.9)),
        Row("volume_error", "all", Estimate(-1.5, -2.0, -1.0, unit="ml")),
    ]
    by = [Row("dice", "liver", Estimate(0.8, 0.7, 0.9)), Row("volume_bias", "liver", Estimate(-1.5, -2, -1, unit="ml")),
          Row("volume_loa_upper", "liver", Estimate(2.5, 2.0, 3.0, unit="ml"))]  # fmt: skip
    text = page(given=[*one, *by])
    assert 'class="by-label"' not in text
    assert "upper limit of agreement" in text


def test_the_mean_error_and_the_bias_of_several_structures_stand_once():
    values = {"volume_error": (-1.0, -1.5, -0.5), "volume_bias": (-1.0, -1.5, -0.5), "dice": (0.8, 0.9, 0.7)}
    text = page(given=[row for metric, own in values.items() for row in rows(metric, *own)])
    assert "Volume error" in text
    assert "bias" not in between(text, 'class="by-label"', "</table>")


def test_labels_are_called_what_they_are_and_further_figures_are_folded():
    many = [row for n in range(9) for row in rows(f"metric{n}", 0.5, 0.4 + n / 100, 0.6)]
    text = page(given=many)
    assert "By structure" in text
    assert '<th scope="col">Structure</th>' in text
    assert "<summary>More figures by structure</summary>" in text


def test_a_picture_says_the_score_of_its_case():
    scored = ScoredCases(
        TABLE, rows("dice", 0.85, 0.85, 0.5), task=TASK, shown=[("best", "a", [figure()], "<p>viewer</p>")]
    )
    text = RunReport("T", "L.", primary="dice", scored=scored, notes=[], facts={}, views="views/", plan=None).html
    assert "Dice: 0.700" in text  # the mean over its structures
    assert 'href="views/views/1.html"' in text


@pytest.mark.parametrize("simulated", [True, False])
def test_a_report_of_simulated_patients_says_so_in_title_verdict_and_below_every_picture(simulated):
    overview, of_case = replace(figure(), title="Dice by structure"), replace(figure(), title="a")
    scored = ScoredCases(
        TABLE, rows("dice", 0.85, 0.85, 0.5), [overview], [("best", "a", [of_case], "<p>viewer</p>")], task=TASK
    )
    text = RunReport(
        "Training on cohort", "L.", primary="dice", scored=scored, notes=[], facts={}, views="", plan=None,
        verdict=Verdict(simulated=simulated),
    ).html  # fmt: skip
    words = " (SIMULATED patients)" * simulated
    assert f"<title>Training on cohort{words}</title>" in text
    assert f"<h1>Training on cohort{words}</h1>" in text
    assert f"Dice by structure{words}</strong>" in text
    titles = re.findall("<figcaption><strong>(.*?)</strong>", text)
    assert len(titles) == 2
    assert all(title.endswith("(SIMULATED patients)") is simulated for title in titles)
    assert ('<p class="answer">SIMULATED patients' in text) is simulated


def test_at_most_ten_decisions_stand_open_those_by_hand_first_and_a_non_decision_has_no_sentence():
    chosen = {name: Decision(0.5, BY_HAND) for name in ("rotation", "scale", "shift", "contrast", "brightness", "gamma",
                                                        "noise", "blur", "low_resolution", "bias_field")}  # fmt: skip
    off = {"motion": Decision(0.0, "no voxel is known to move")}
    decided = {"network": {"name": Decision("unet", "it gives an output for every voxel")}}
    made = Plan({**plan().sections, **decided, "augmentation": {**chosen, **off}})
    [facts], [folded] = run_report.decided_section(made).blocks, run_report.plan_section(made).blocks
    assert [decision.because for _, decision in facts.items] == [BY_HAND] * MOST_LINES
    assert folded.summary == "15 decisions, each with its reason and source"
    assert "augmentation.motion" in folded.blocks[1].text


@pytest.mark.parametrize("because, named", [(f"a step takes 1.2 s, {NARROWER}", True), ("it fits the memory", False)])
def test_a_network_that_the_clock_narrowed_is_among_the_decisions_that_stand_open(because, named):
    decided = {"network": {"name": Decision("unet", "it gives an output for every voxel"),
                           "size": Decision({"width": 8}, because)}}  # fmt: skip
    [facts] = run_report.decided_section(Plan({**plan().sections, **decided})).blocks
    assert ("network.size" in dict(facts.items)) is named


def test_the_heading_over_pictures_names_the_ranks_that_are_shown_beside_wrong_calls_too():
    ranks = [("best", "a"), ("worst", "b"), (WRONG, "c")]
    shown = [(word, case, [figure()], "<p>viewer</p>") for word, case in ranks]
    scored = ScoredCases(TABLE, rows("dice", 0.85, 0.85, 0.5), task=TASK, shown=shown)
    text = RunReport("T", "L.", primary="dice", scored=scored, notes=[], facts={}, views="", plan=None).html
    assert text.index(">Best and worst cases</h2>") < text.index("worst: b") < text.index(">Wrong calls</h2>")


def test_a_table_without_any_interval_does_not_claim_one():
    text = page(given=[row for metric in ("dice", "hd95") for row in rows(metric, 0.8, 0.9, 0.7, low=None)])
    assert "By structure<" in between(text, 'class="by-label"', "</table>")


def test_wrong_calls_have_a_gallery_of_their_own_that_says_how_many_there_are():
    task = task_catalogue.build_task({"name": "classification", "classes": ["benign", "malignant"], "smoothing": 0.0})
    table = pd.DataFrame({"case": ["a", "b"], "label": "all", "brier": [0.1, 0.9], "reference": "benign",
                          "predicted": ["benign", "malignant"]})  # fmt: skip
    shown = [("best", "a", [figure()], "<p>a</p>"), (WRONG, "b", [figure()], "<p>b</p>")]
    scored = ScoredCases(table, [Row("accuracy", "all", Estimate(0.5))], task=task, shown=shown)
    text = RunReport("T", "L.", primary="accuracy", scored=scored, notes=[], facts={}, views="", plan=None).html
    assert "1 of 1, the worst first" in text
    assert text.index(">Best cases<") < text.index("wrong call: b")
    assert "Brier score: 0.900" in text


def test_how_figures_were_made_is_a_table_with_a_row_for_each_figure():
    exact = [
        Row("sensitivity", label, Estimate(0.5, 0.2, 0.8, method=f"Wilson; by size; {cases} cases"))
        for label, cases in (("all", 9), ("liver", 4), ("tumour", 4))
    ]
    given = [exact[0], *rows("dice", 0.8, 0.9, 0.7), *exact[1:], Row("dice_answered", "all", Estimate(0.9))]
    table = between(page(given=given), f">{METHODS}</h2>", "</section>").split("<tbody>")[1]
    assert re.findall("<t[hd].*?>(.*?)</t", table) == [
        "Sensitivity", "Wilson", "by size; all: 9 cases; liver, tumour: 4 cases",
        "Dice", "patient bootstrap", "",
    ]  # fmt: skip


def test_the_plan_is_the_last_section_and_an_appendix():
    text = page(made=plan())
    assert re.findall("<h2 id.*?>(.*?)</h2>", text)[-2:] == [METHODS, "The whole plan"]
    assert text.count('<section class="appendix"') == 2


def test_a_search_states_the_importance_of_decisions_or_why_it_does_not():
    trial = {"trial": 0, "state": "the plan", "steps": 5, "seconds": 1.0, "tried": "the plan", "why": "", "value": 0.5}
    few = SearchResult({}, "Searched", [trial, {**trial, "trial": 1, "state": "pruned"}])
    [section] = run_report.search_sections({"": few}, plan())
    assert "not stated of 1 whole trial; it takes 10" in str(section.blocks)
    ranked = SearchResult({}, "Searched", [trial], {"training.learning_rate": 0.75, "network.dropout": 0.25})
    [section] = run_report.search_sections({"": ranked}, plan())
    [table] = [block for block in section.blocks if isinstance(block, Table) and block.columns[0] == "Decision"]
    assert [list(row) for row in table.rows] == [["training.learning_rate", "0.75"], ["network.dropout", "0.25"]]
