"""What calls are worth: `decision.csv` and its curve."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.testing import assert_allclose

from hilum.evaluation.significance import probability_tests
from hilum.scoring.auditing import decision_audits
from hilum.scoring.case_scoring import AuditInput, ScoredCases
from hilum.tasks.classification.question import Classification
from hilum.tasks.findings.question import Findings
from hilum.tasks.regression.question import Regression

CASES, RANDOM = 60, np.random.default_rng(0)
COLUMNS = ["threshold", "net_benefit", "treat_all", "treat_none", "low", "high", "label"]


def audited(task, **columns):
    ids = [f"c{n}" for n in range(CASES)]
    table = pd.DataFrame({"case": ids, "patient": ids, "split": "test", "label": "all", **columns})
    scored = ScoredCases(table, (), task=task)
    return decision_audits.audit_decisions(AuditInput(scored, predictor=None, cases=(), seed=0, patients_known=True))


def classes(*names):
    chances = RANDOM.dirichlet(np.ones(len(names)), CASES)
    truth = np.array([RANDOM.choice(len(names), p=row) for row in chances])
    given = {f"probability_{name}": chances[:, n] for n, name in enumerate(names)}
    named = {"reference": np.array(names)[truth], "predicted": np.array(names)[chances.argmax(axis=1)]}
    return audited(Classification(names), **named, brier=0.0, **given), chances, truth


def test_of_two_classes_the_positive_one_is_called_and_the_table_has_its_net_benefit():
    found, chances, truth = classes("well", "ill")
    table = found.tables["decision.csv"]
    assert list(table) == COLUMNS and set(table["label"]) == {"ill"} and set(table["treat_none"]) == {0.0}
    assert_allclose(table["net_benefit"], probability_tests.net_benefit(chances[:, 1], truth == 1, table["threshold"]))
    known = table.dropna()
    assert (
        len(known) > 50 and (known["low"] < known["net_benefit"]).all() and (known["net_benefit"] < known["high"]).all()
    )
    [section] = found.sections
    assert "Calling ill by the model is worth more" in section.blocks[0].text
    assert len(section.blocks[1].figures) == 1


def test_of_several_classes_and_findings_each_label_has_its_curve():
    found, *_ = classes("a", "b", "c")
    assert list(dict.fromkeys(found.tables["decision.csv"]["label"])) == ["a", "b", "c"]
    chance = RANDOM.random(CASES)
    words = {"reference": np.where(RANDOM.random(CASES) < chance, "present", "absent"), "predicted": "absent"}
    found = audited(Findings(("nodule",)), label="nodule", probability=chance, brier=0.0, **words)
    assert set(found.tables["decision.csv"]["label"]) == {"nodule"}


def test_a_model_without_probabilities_has_no_decision_curve():
    values = {"reference": RANDOM.random(CASES), "predicted": RANDOM.random(CASES)}
    task = Regression(("volume",), {"volume": "ml"}, {"volume": 0.0}, {"volume": 1.0})
    assert audited(task, label="volume", difference=0.0, standardised_difference=0.0, **values) is None


def test_a_run_has_the_table_beside_its_cases_and_the_curve_in_its_report(classified):
    table = pd.read_csv(classified.out / "evaluation" / "decision.csv")
    assert list(table) == COLUMNS
    crossed = pd.read_csv(classified.out / "evaluation" / "confusion.csv")
    assert crossed["cases"].sum() == len(pd.read_csv(classified.out / "evaluation" / "cases.csv"))
    assert "What calls are worth" in (classified.out / "report.html").read_text(encoding="utf-8")
