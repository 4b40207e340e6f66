"""Calls against references, and the endpoints of screening, of scored cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hilum.errors import DatasetError
from hilum.scoring.auditing import decision_audits
from hilum.scoring.auditing.audit_options import AuditOptions
from hilum.scoring.case_scoring import AuditInput, ScoredCases
from hilum.tasks.classification.question import Classification
from hilum.tasks.regression.question import Regression

CHANCES = np.array([0.9, 0.8, 0.3, 0.6, 0.2, 0.1])
TRUTH = ["ill", "ill", "ill", "well", "well", "well"]


def audit(task, screens=False, **columns):
    ids = [f"c{n}" for n in range(6)]
    table = pd.DataFrame({"case": ids, "patient": [*ids[:5], "c4"], "split": "test", "label": "all", **columns})
    scored = ScoredCases(table, task.summary(table, seed=0) if isinstance(task, Classification) else (), task=task)
    return AuditInput(scored, None, (), 0, True, options=AuditOptions(screening=screens))


def two_classes(**columns):
    called = np.where(CHANCES >= 0.5, "ill", "well")
    given = {"reference": TRUTH, "predicted": called, "probability_well": 1 - CHANCES, "probability_ill": CHANCES}
    return audit(Classification(("well", "ill")), **given, brier=0.0, **columns)


def test_references_and_calls_are_crossed_at_the_operating_point():
    table = decision_audits.audit_confusion(two_classes()).tables["confusion.csv"]
    cells = {(row.reference, row.predicted): (row.cases, row.patients) for row in table.itertuples()}
    assert cells == {
        ("ill", "ill"): (2, 2), ("ill", "not ill"): (1, 1), ("not ill", "ill"): (1, 1), ("not ill", "not ill"): (2, 1),
    }  # fmt: skip
    assert set(table["label"]) == {"ill"} and table["operating_point"].str.contains("0.5").all()


def test_several_classes_are_crossed_with_each_other_and_values_are_not():
    shares = np.eye(3)[[0, 1, 2, 0, 1, 1]]
    names = np.array(["a", "b", "c"])
    given = {f"probability_{name}": shares[:, n] for n, name in enumerate(names)}
    called = {"reference": names[[0, 1, 2, 0, 1, 2]], "predicted": names[[0, 1, 2, 0, 1, 1]], "brier": 0.0}
    table = decision_audits.audit_confusion(audit(Classification(tuple(names)), **called, **given)).tables[
        "confusion.csv"
    ]
    whole = table[table["label"] == "all"].set_index(["reference", "predicted"])["cases"]
    assert (len(whole), whole["c", "b"], whole["a", "a"]) == (9, 1, 2)
    values = {"reference": CHANCES, "predicted": CHANCES, "difference": 0.0, "standardised_difference": 0.0}
    task = Regression(("volume",), {"volume": "ml"}, {"volume": 0.0}, {"volume": 1.0})
    assert decision_audits.audit_confusion(audit(task, **{**values, "label": "volume"})) is None


def test_a_model_is_judged_by_the_endpoints_of_screening_beside_people():
    outcome = ["cancer", "interval", "benign", "normal", "normal", None]
    seen = {"covariate_outcome": outcome, "covariate_recalled": [1, 0, 1, 0, 0, 0], "covariate_read_by": "a+b"}
    given = two_classes(screens=True, **seen)
    table = decision_audits.audit_screening(given).tables["screening.csv"].set_index(["label", "metric"])["value"]
    assert table["ill", "recall_rate"] == pytest.approx(3 / 5) and table["people", "recall_rate"] == pytest.approx(
        2 / 5
    )
    assert (table["ill", "detection_per_1000"], table["ill", "interval_cancers"]) == (400, 0)
    assert (table["people", "ppv3"], table["people", "workload_saved"]) == (0.5, 0)
    assert "covariate_outcome" not in decision_audits.without_outcomes(given).scored.table
    assert decision_audits.audit_screening(two_classes(**seen)) is None
    with pytest.raises(DatasetError, match="has no column outcome"):
        decision_audits.refuse_no_outcome({"age": [1]}, "data")


def test_an_evaluation_makes_the_endpoints_where_a_table_states_outcomes(classified, cli, tmp_path):
    cases = pd.read_csv(classified.out / "evaluation" / "cases.csv", dtype=str)
    outcome = np.where(np.arange(len(cases)) % 3 == 0, "cancer", "normal")
    pd.DataFrame({"case": cases["case"], "outcome": outcome}).to_csv(tmp_path / "table.csv", index=False)
    asked = ("evaluate", classified.out, classified.data, "--screening", "--out", tmp_path / "out")
    assert cli(*asked, "--group-table", tmp_path / "table.csv").code == 0
    table = pd.read_csv(tmp_path / "out" / "screening.csv").set_index("metric")
    assert {"recall_rate", "ppv1", "interval_cancers"} <= set(table.index) and table.loc["recall_rate", "n"] == len(
        cases
    )
    assert "Screening" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    refused = cli(*asked, "--overwrite")
    assert refused.code == 1 and "has no column outcome" in refused.last
