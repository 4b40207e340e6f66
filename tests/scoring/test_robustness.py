"""What becomes of a model's figures when images get worse."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import hilum
import trained
from hilum.errors import UsageError
from hilum.report import wording
from hilum.scoring.auditing import robustness_audit
from hilum.scoring.auditing.audit_options import AuditOptions
from hilum.scoring.auditing.robustness_audit import RobustnessLine
from hilum.values import Estimate

FILE = "robustness.csv"
BESIDE = ["calibration", "abstention", "gate"]
COLUMNS = ["corruption", "severity", "metric", "label", "value", "low", "high", "n", "patients", *BESIDE]


@pytest.fixture(scope="module")
def worse(gated, tmp_path_factory):
    """An evaluation of pictures with noise and blur; tests only read it."""
    out = tmp_path_factory.mktemp("worse") / "evaluation"
    flags = {"corruptions": "noise,blur", "severities": "1,5"}
    return hilum.evaluate(gated.out, gated.data, out=out, device="cpu", **flags)


def test_every_figure_is_there_as_it_is_at_each_severity_and_without_each_input(worse):
    table = pd.read_csv(worse.out / FILE)
    assert list(table) == COLUMNS
    tried = list(zip(*(table.drop_duplicates(["corruption", "severity"])[name] for name in COLUMNS[:2]), strict=True))
    conditions = [("noise", 1), ("noise", 5), ("blur", 1), ("blur", 5)]
    assert tried[:-1] == [("none", 0), *conditions]
    assert tried[-1][0].startswith("without ")
    for condition, own in table[table["metric"] == "auroc"].groupby("corruption", sort=False):
        assert set(own.groupby("label").size()) == {1 if condition.startswith(("none", "without")) else 2}


def test_with_images_as_they_are_the_figures_are_those_of_the_summary(worse):
    table = pd.read_csv(worse.out / FILE)
    first = table[table["corruption"] == "none"].set_index(["metric", "label"])
    rows = json.loads((worse.out / "summary.json").read_text())["rows"]
    assert len(first) == len(rows)
    for row in rows:
        own = first.loc[(row["metric"], row["label"])]
        assert own["value"] == pytest.approx(np.nan if row["value"] is None else row["value"], nan_ok=True)


def test_calibration_abstention_and_gate_stand_beside_each_metric(worse):
    table = pd.read_csv(worse.out / FILE)
    for _, own in table.groupby(["corruption", "severity"], dropna=False):
        assert own[BESIDE].notna().all().all()
        over_all = own[own["label"] == "all"]
        [ece] = over_all[over_all["metric"] == "ece"]["value"]
        assert (over_all["calibration"] == ece).all()
        assert (own["gate"] <= own["abstention"]).all()


def test_the_gate_refuses_pictures_that_are_blurred_out(worse):
    """These pictures are noise on a grey of their class, so that more of it is nothing new."""
    gate = pd.read_csv(worse.out / FILE).groupby(["corruption", "severity"])["gate"].first()
    assert gate["none", 0] < 0.1 and gate["blur", 5] > 0.9


def test_the_report_names_the_worst_corruption_and_the_cases_stay_as_they_are(gated, worse):
    page = (worse.out / "report.html").read_text()
    assert "The corruption that does most harm is" in page or "No corruption" in page
    assert "missing input" not in page  # without its only image it knows nothing, which says nothing of it
    plain = hilum.evaluate(gated.out, gated.data, device="cpu")
    pd.testing.assert_frame_equal(plain.scored.table, worse.scored.table)
    assert not any(FILE in audit.tables for audit in plain.scored.audits)


def test_harm_is_stated_only_where_the_interval_of_the_loss_shows_it():
    line = RobustnessLine("jpeg", 2, "auroc", "all", 0.947, None, None, 136, 70, None, 0.0, 0.0)

    def words(low: float | None, high: float | None, method: str = "", tried: int = 1) -> str:
        loss = Estimate(-0.001, low, high, n=136, patients=70, method=method)
        return robustness_audit.harm_sentence("corruption", line, "AUROC", 0.948, 1, lambda _: loss, tried)

    of_many = words(-0.002, -0.0002, tried=45)
    assert of_many.startswith("No corruption is shown to do harm") and "widened for the 45 that were tried" in of_many
    assert words(-0.0012, -0.0008, tried=45).startswith("The corruption that does most harm is JPEG")
    assert words(-0.002, -0.0005).startswith("The corruption that does most harm is JPEG at severity 2: AUROC is 0.947")
    unsure = words(-0.01, 0.01)
    assert unsure.startswith("No corruption is shown to do harm; the worst is JPEG at severity 2: AUROC is 0.947")
    assert "95 % interval −0.010 to +0.010; no difference shown" in unsure
    without = words(None, None, "none: one patient")
    assert without.startswith("No corruption is shown to do harm; the worst is JPEG")
    assert "(no interval: one patient)" in without


def test_the_loss_by_a_corruption_is_stated_with_its_interval_from_the_same_patients(worse):
    page = (worse.out / "report.html").read_text()
    table = pd.read_csv(worse.out / FILE).query("label == 'all' and metric == 'auroc' and severity >= 0")
    before, least = table["value"].iloc[0], table["value"].min()
    assert least == before or f"a paired difference of {wording.number_text(least - before, signed=True)} (" in page


@pytest.mark.whole
def test_volumes_and_structures_have_their_figures_too(segmented, tmp_path):
    flags = {"corruptions": "motion,metal", "severities": "5", "labels": trained.LABELS, "device": "cpu"}
    result = hilum.evaluate(segmented.out, segmented.data, out=tmp_path / "out", **flags)
    table = pd.read_csv(tmp_path / "out" / FILE)
    assert set(table["corruption"]) == {"none", "motion", "without image"}
    assert {"all", "shell", "core"} <= set(table["label"])
    assert any("metal" in note and "does not occur in" in note for note in result.notes)


def test_an_unknown_corruption_is_refused_with_the_list_and_a_severity_that_is_none_too():
    with pytest.raises(UsageError, match="noise, blur, motion, ghosts, bias_field, gamma, contrast"):
        AuditOptions(corruptions="noise,fog")
    for severities in ("0-3", "6", "much", "3-1"):
        with pytest.raises(UsageError, match="1-5"):
            AuditOptions(corruptions="all", severities=severities)
    with pytest.raises(UsageError, match="--corruptions all"):
        AuditOptions(severities="1-5")
    assert AuditOptions(corruptions="all", severities="1-3,5").chosen_severities == (1, 2, 3, 5)
