"""`evaluate --advice`: what lines say of cases, beside what is right; and what a case's results state of it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import packages
from hilum.errors import DatasetError, UsageError
from hilum.prediction import case_prediction, findings_file, model_advice
from hilum.prediction.case_prediction import CaseRequest
from hilum.prediction.findings_file import ExaminedImage
from hilum.reading import ReadingOptions, dataset_reading
from hilum.scoring.auditing import advice_audit
from hilum.scoring.auditing.audit_options import AuditOptions
from hilum.scoring.case_scoring import AuditInput, ScoredCases
from hilum.tasks import task_catalogue
from hilum.values import Case, Geometry, Image

LINES = """advice = [
  {{ when = "abstained", say = "repeat the image" }},
  {{ when = "{when}", say = "refer" }},
  {{ say = "rescreen" }},
]
"""
COLUMN = {"image": "image", "label": "label", "id": "id"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A table of ten pictures of two classes with the model's own answers, of which it has one wrong."""
    root, rows = tmp_path_factory.mktemp("advised"), []
    for n in range(10):
        pixels = np.random.default_rng(n).integers(0, 255, (32, 32), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(root / f"p{n}.png")
        rows.append([f"p{n}", f"p{n}.png", "malignant" if n % 2 else "benign"])
    table = pd.DataFrame(rows, columns=["id", "image", "label"])
    table.to_csv(root / "table.csv", index=False)
    return root / "table.csv"


def write_lines(folder, when: str = "called malignant"):
    path = folder / "advice.toml"
    path.write_text(LINES.format(when=when))
    return path


def test_what_is_right_too_little_and_too_much_is_counted_with_intervals(pictures, tmp_path):
    model, cases = packages.classifying(), list(dataset_reading.open_dataset(pictures, ReadingOptions(column=COLUMN)))
    called = pd.Series([model.task.called_class(model.predict(case)) for case in cases])
    truth = pd.read_csv(pictures)["label"]
    missed = ((truth == "malignant") & (called != truth)).sum()
    overcalled = ((truth == "benign") & (called != truth)).sum()
    options = AuditOptions(advice=write_lines(tmp_path))
    audit = AuditInput(ScoredCases(pd.DataFrame(), []), model, cases, 0, True, options=options)
    scored = advice_audit.with_advice(audit)
    rows = {row.metric: row.estimate for row in scored.rows if row.metric.startswith("advice_")}
    assert rows["advice_too_little"].value == pytest.approx(missed / 10)
    assert rows["advice_too_much"].value == pytest.approx(overcalled / 10)
    assert rows["advice_right"].value == pytest.approx(1 - (missed + overcalled) / 10)
    assert rows["advice_right"].low < rows["advice_right"].value < rows["advice_right"].high
    [outcome] = [audit for audit in scored.audits if "advice.csv" in audit.tables]
    assert list(outcome.tables["advice.csv"]["advice"] == "refer") == list(called == "malignant")
    assert [section.title for section in outcome.sections] == ["Advice"]


def test_a_column_of_what_is_right_goes_before_the_references(pictures, tmp_path):
    table = pd.read_csv(pictures).assign(
        advice="rescreen", image=[str(pictures.parent / f"p{n}.png") for n in range(10)]
    )
    cases = list(dataset_reading.open_dataset(table, ReadingOptions(column=COLUMN)))
    model, lines = packages.classifying(), model_advice.read_lines(write_lines(tmp_path))
    row = advice_audit._advice_row(model, cases[1], lines)
    assert row["reference"] == "rescreen"
    assert row["verdict"] == ("right" if row["advice"] == "rescreen" else "too much")
    with pytest.raises(DatasetError, match="the column advice says 'rescreen', and no line does"):
        (tmp_path / "advice.toml").write_text(LINES.format(when="called malignant").replace("rescreen", "wait"))
        advice_audit.lines_for(tmp_path / "advice.toml", model, cases)


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("grade >= severe", "it states no grade 'severe'"),
        ("called benin", "states no called 'benin'"),
        ("change tumour >= 20 %", "states no change 'tumour'"),
        ("sometimes", "line 1 when: .*is no condition"),
    ],
)
def test_lines_that_do_not_fit_the_model_are_refused_with_the_file(when, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        advice_audit.lines_for(write_lines(tmp_path, when), packages.classifying(), ())
    (tmp_path / "advice.toml").write_text("lines = []")
    with pytest.raises(UsageError, match="is no file with a list `advice`"):
        model_advice.read_lines(tmp_path / "advice.toml")


def test_references_are_stated_as_a_sure_answer_states_them():
    task = task_catalogue.build_task({"name": "segmentation", "labels": packages.SIDED, "loss": "dice+ce"})
    first, *others = [label for label in task.labels if label.value]
    voxels = np.full((1, 10, 10, 10), first.value, np.uint8)
    mask = Image(voxels, Geometry.of_spacing((10, 10, 10), (2, 1, 1)))
    found = {one.concept: one for one in advice_audit.reference_findings(task, Case("a", "p", {}, {"mask": mask}))}
    assert (found[first.name].value, found[first.name].unit) == (2.0, "ml")
    assert all(found[one.name].value == 0 for one in others)


def test_what_is_said_stands_in_rows_and_findings_and_of_an_abstained_case_in_the_reason(pictures, tmp_path):
    lines, model = model_advice.read_lines(write_lines(tmp_path)), packages.classifying()
    [case, *_] = dataset_reading.open_dataset(pictures, ReadingOptions(column=COLUMN), references=False)
    done = case_prediction.compute_case(model, case, case.images["image"], CaseRequest(advice=lines))()
    record = findings_file.findings_record([ExaminedImage(done)], model).record
    said = done.rows[0]["advice"]
    assert [row["concept"] for row in record["rows"] if row["group"] == "advice"] == [said]
    blank = case.images["image"].with_pixels(np.zeros((1, 32, 32), np.uint8))
    refused = case_prediction.compute_case(model, case, blank, CaseRequest(advice=lines))()
    assert refused.rows[0]["advice"] == "repeat the image"
    reason = findings_file.findings_record([ExaminedImage(refused)], model).reason
    assert reason.endswith("; advice: repeat the image")
    assert json.dumps(record)
