from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

import isocenter
import trained
from isocenter.errors import DatasetError, IntegrityError, UsageError
from isocenter.evaluation import Compared
from isocenter.values import Estimate
from isocenter.verbs.evaluation.comparison import Comparison, comparison_table


@pytest.fixture(scope="module")
def pair(segmented, tmp_path_factory):
    """A run, and its network of an earlier step scored on the same cases."""
    out = tmp_path_factory.mktemp("compare") / "again"
    given = {"labels": trained.LABELS, "device": "cpu", "split": "test"}
    isocenter.evaluate(segmented.out, segmented.data, out=out, **given)
    table = pd.read_csv(out / "cases.csv", dtype=str, keep_default_na=False)
    table["dice"] = [str(min(1.0, float(value) + 0.1)) for value in table["dice"]]
    table.to_csv(out / "cases.csv", index=False)
    return segmented.out, out


def test_the_difference_of_two_models_stands_with_its_interval_in_words_table_and_record(pair, tmp_path):
    run, other = pair
    found = isocenter.compare(run, other, out=tmp_path / "out")
    first = found.rows[0]
    assert (first.metric, first.label, found.primary) == ("dice", "all", "dice")
    assert first.differences[0].value == pytest.approx(0.1, abs=1e-9)
    assert "again less" in repr(found)
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert record["models"] == list(found.names)
    assert record["differences"]["again"][0]["value"] == pytest.approx(0.1)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "again" in page
    assert "one in twenty" in page
    assert "cases, whose patients are unknown, were drawn again" in page
    assert record["differences"]["again"][0]["patients"] == 0
    with pytest.raises(UsageError, match="exists already"):
        isocenter.compare(run, other, out=tmp_path / "out")


def test_all_figures_of_an_evaluation_come_out_of_its_table_again(pair):
    run, _ = pair
    found = isocenter.compare(*pair)
    summary = json.loads((run / "evaluation" / "summary.json").read_text())["rows"]
    known = {(row["metric"], row["label"]): row["value"] for row in summary}
    assert {(row.metric, row.label) for row in found.rows} == set(known)
    for row in found.rows:
        if known[row.metric, row.label] is not None:
            assert row.estimates[0].value == pytest.approx(known[row.metric, row.label], nan_ok=True)


def test_models_of_other_questions_or_cases_are_refused(pair, classified, tmp_path):
    run, other = pair
    with pytest.raises(UsageError, match="have no figures in common"):
        isocenter.compare(run, classified.out)
    with pytest.raises(UsageError, match="1 evaluation given"):
        isocenter.compare(run)
    with pytest.raises(UsageError, match="given twice"):
        isocenter.compare(run, run)
    shutil.copytree(other, tmp_path / "fewer")
    table = pd.read_csv(tmp_path / "fewer" / "cases.csv", dtype=str, keep_default_na=False)
    table[table["case"] != table["case"][0]].to_csv(tmp_path / "fewer" / "cases.csv", index=False)
    with pytest.raises(DatasetError, match="in only one of the tables"):
        isocenter.compare(run, tmp_path / "fewer")


def test_what_is_no_evaluation_is_refused_with_what_to_give(pair, tmp_path):
    run, other = pair
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no evaluation"):
        isocenter.compare(run, tmp_path / "empty")
    with pytest.raises(UsageError, match="no such file or folder"):
        isocenter.compare(run, tmp_path / "nowhere")
    shutil.copytree(other, tmp_path / "older")
    (tmp_path / "older" / "task.json").unlink()
    with pytest.raises(IntegrityError, match="says nothing of the kind of problem"):
        isocenter.compare(run, tmp_path / "older")


def test_a_label_whose_figures_are_those_over_all_labels_has_no_row_of_its_own():
    both = (Estimate(0.9, 0.8, 1.0), Estimate(0.8, 0.7, 0.9))
    other = (Estimate(0.5, 0.4, 0.6), Estimate(0.8, 0.7, 0.9))
    apart = (Estimate(-0.1, -0.2, 0.0),)
    rows = [Compared("auroc", "all", both, apart), Compared("auroc", "benign", both, apart),
            Compared("auroc", "malignant", other, apart)]  # fmt: skip
    table = comparison_table(Comparison(("a", "b"), tuple(rows), "auroc", 9, {}), rows)
    assert [row[1] for row in table.rows] == ["all", "malignant"]
