"""Every result of a verb has its rows as a DataFrame, and a notebook shows it."""

from __future__ import annotations

import pandas as pd
import pytest

import hilum
from hilum.networks.member_catalogue import FamilyMember
from hilum.values import Estimate, Row
from hilum.verbs.networks import NetworkTable
from hilum.verbs.train import Run


@pytest.fixture(scope="module")
def evaluated(classified):
    return hilum.evaluate(classified.out, classified.data, device="cpu")


@pytest.fixture(scope="module")
def predicted(classified):
    return hilum.predict(classified.out, sorted(classified.data.rglob("*.png"))[0], device="cpu")


def test_an_evaluation_has_a_row_for_every_figure(evaluated):
    table = evaluated.table
    assert isinstance(table, pd.DataFrame)
    assert list(table["metric"]) == [row.metric for row in evaluated.rows]
    assert {"label", "value", "low", "high", "n", "unit"} <= set(table)


def test_a_notebook_shows_the_words_over_the_table(evaluated):
    page = evaluated._repr_html_()
    assert page.startswith("<pre>scored ")
    assert page.index("</pre>") < page.index("<table")
    assert evaluated.primary in page


def test_what_a_notebook_shows_is_escaped(tmp_path):
    run = Run(tmp_path / "<b>", (Row("dice", "<i>", Estimate(0.5)),), "dice", 1, 1.0)
    assert "<b>" not in run._repr_html_() and "<i>" not in run._repr_html_()


def test_a_check_has_a_row_for_every_finding_the_worst_first(classified):
    found = hilum.check(classified.data)
    assert list(found.table) == ["severity", "what", "cases", "why", "remedy"]
    assert len(found.table) == len(found.problems)
    assert "<table" in found._repr_html_()


def test_a_plan_has_a_row_for_every_decision(classified):
    table = hilum.plan(classified.data, minutes=1, device="cpu").table
    assert list(table) == ["name", "value", "because", "source"]
    assert "network.name" in set(table["name"])


@pytest.mark.whole
def test_a_comparison_has_a_row_for_every_figure_and_model(classified, evaluated, tmp_path):
    hilum.evaluate(classified.out, classified.data, device="cpu", out=tmp_path / "again")
    table = hilum.compare([classified.out, tmp_path / "again"]).table
    assert set(table["model"]) == {classified.out.name, "again"}
    assert table.loc[table["model"] == "again", "difference"].dropna().eq(0).all()
    assert table.loc[table["model"] == classified.out.name, "difference"].isna().all()


def test_a_prediction_names_its_case_its_task_and_its_classes(predicted):
    (made,) = predicted.predictions.values()
    assert repr(made).startswith(f"{predicted.table['case'][0]}, classification:")
    assert "probability: " in repr(made)
    assert len(predicted.table) == 1 and "<table" in predicted._repr_html_()


def test_the_networks_have_a_row_for_each_family():
    one = FamilyMember("thin", 3, ("dense",), (64, 32, 32), 999, 15, "doi:10.1/x")
    assert NetworkTable((one,)).table["parameters"].tolist() == [999]
