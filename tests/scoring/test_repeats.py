"""Repeatability of a model's own measurements, from patients who were imaged twice without any change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom import examples

import hilum
from hilum.errors import UsageError
from hilum.evaluation import case_tables
from hilum.scoring.auditing import repeat_audit
from hilum.scoring.case_scoring import AuditInput, ScoredCases
from hilum.tasks.segmentation.question import Segmentation
from hilum.values import Case, Geometry, Image, Label

LABELS = ("liver", "cyst")


def repeats(deviation: float, *, patients: int, column: bool = True, known: bool = True) -> ScoredCases:
    """Two measurements each of patients whose livers differ, with errors of a standard deviation in percent."""
    rng, cases, rows = np.random.default_rng(3), [], []
    image = Image(np.zeros((1, 2, 2, 2), np.uint8), Geometry((2, 2, 2), np.eye(4)))
    for number in range(patients):
        size = rng.uniform(800, 2000)
        for again in "ab":
            name = f"p{number}{again}"
            told = {"repeat": f"visit of {number}"} if column else {}
            cases.append(Case(name, f"p{number}", {"image": image}, {}, told))
            volumes = size * (1 + deviation / 100 * rng.normal()), 0.0
            rows += [
                {"case": name, "patient": f"p{number}", "label": label, "dice": 0.9, "volume_predicted": volume}
                for label, volume in zip(LABELS, volumes, strict=True)
            ]
    task = Segmentation((Label(1, "liver"), Label(2, "cyst")))
    scored = ScoredCases(pd.DataFrame(rows), (), task=task)
    return repeat_audit.with_repeatability(AuditInput(scored, None, cases, 0, known))


def test_simulated_repeats_give_the_coefficient_of_their_known_deviation():
    scored = repeats(2.0, patients=400)
    [row] = scored.rows
    assert (row.metric, row.label, row.estimate.unit, row.estimate.patients) == ("repeatability", "liver", "%", 400)
    assert row.estimate.low < 1.96 * np.sqrt(2) * 2.0 < row.estimate.high
    assert row.estimate.value == pytest.approx(1.96 * np.sqrt(2) * 2.0, rel=0.1)
    assert "cyst is not stated" in scored.notes[0], "a volume of zero has no percent"
    assert len(scored.audits[0].tables["repeatability.csv"]) == 2 * 400


def test_cases_that_nobody_calls_repeats_and_few_patients_give_none():
    assert not repeats(2.0, patients=20, column=False).audits
    assert not repeats(2.0, patients=20, known=False).audits
    assert not repeats(2.0, patients=4).rows


def scan(folder: Path, name: str, day: str, protocol: str) -> Case:
    """A case of one patient from DICOM, taken on a day by a protocol."""
    dataset = pydicom.dcmread(examples.get_path("ct"))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.SeriesInstanceUID = pydicom.uid.generate_uid()
    dataset.AcquisitionDate, dataset.ProtocolName, dataset.SeriesDescription = day, protocol, "axial"
    (folder / name).mkdir()
    dataset.save_as(folder / name / "1.dcm")
    return Case(name, "p", {"image": hilum.read(folder / name)})


def test_without_a_column_repeats_are_images_of_one_day_and_protocol(tmp_path):
    told = [
        ("a", "20240105", "liver"),
        ("b", "20240105", "head"),
        ("c", "20240212", "liver"),
        ("d", "20240105", "liver"),
    ]
    cases = [scan(tmp_path, *one) for one in told]
    [pair], how = repeat_audit.repeated_pairs(cases)
    assert [one.id for one in pair] == ["a", "d"]
    assert "one day" in how


def write_retest(folder: Path, **facts: str) -> Path:
    """What `evaluate` writes of ten patients who were imaged twice."""
    folder.mkdir()
    summary = {**case_tables.rows_to_json(repeats(2.0, patients=10).rows), **facts}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_repeats_of_another_model_are_refused_by_its_package(segmented, tmp_path):
    with pytest.raises(UsageError, match="another model"):
        hilum.package(segmented.out, out=tmp_path / "model", repeats=write_retest(tmp_path / "retest"))
    with pytest.raises(UsageError, match="network alone"):
        hilum.package(segmented.out, out=tmp_path / "model", format="triton", repeats=tmp_path / "retest")


@pytest.mark.whole
def test_a_package_carries_what_an_evaluation_of_its_run_found(segmented, tmp_path):
    own = json.loads((segmented.out / "evaluation" / "summary.json").read_text())
    retest = write_retest(tmp_path / "retest", recipe=own["recipe"])
    hilum.package(segmented.out, out=tmp_path / "model", backends=(), repeats=retest)
    [row] = json.loads((retest / "summary.json").read_text())["rows"]
    assert hilum.load(tmp_path / "model").record["repeatability"] == {"liver": row["value"]}
