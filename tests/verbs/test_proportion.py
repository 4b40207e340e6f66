"""One case out of all proportion never stops the others."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import hilum
from hilum.errors import DatasetError
from hilum.prediction import case_prediction, predictors
from hilum.prediction.case_prediction import CaseRequest
from hilum.runs import gate
from hilum.runs._case_costs import SecondsPerCase
from hilum.runs._run_minutes import Minutes
from hilum.runtime import ModelRequest
from hilum.service.work import job_answers
from hilum.service.work.job_answers import JobInputs, ObjectMarks
from hilum.values import Case, Geometry, Image
from situations import LPS, SHAPE, noisy_scan, sided_network, write_scan
from written_dicom import write_slice


def one_scan_too_large(folder: Path) -> Path:
    """Twelve scans with their masks, of which p03 is ten times as large as the others."""
    for n in range(12):
        image, mask = noisy_scan(n)
        affine = LPS @ np.diag([10, 10, 10, 1]) if n == 3 else LPS
        write_scan(folder / "images" / f"p{n:02d}.nii.gz", image, affine)
        write_scan(folder / "labels" / f"p{n:02d}.nii.gz", mask, affine)
    return folder


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Path:
    """A model of another program, a series of 30 mm a pixel in place of 1 mm, and one like those that it knows."""
    folder = tmp_path_factory.mktemp("node")
    sided_network(folder / "model")
    stack = np.full(SHAPE[::-1], 100, np.int16)
    stack[8:12, 12:15, 16:19] = 200
    stack[8:12, 9:12, 5:8] = 200
    for name, spacing, step, study in (("bad", 30, 40, 2), ("good", 1, 2, 3)):
        (folder / name).mkdir()
        uids = {"StudyInstanceUID": f"1.2.{study}", "SeriesInstanceUID": f"1.2.{study}.1", "PatientID": f"P{study}"}
        for n, pixels in enumerate(stack):
            place = {"position": (0, 0, n * step), "spacing": (spacing, spacing)}
            write_slice(folder / name / f"{n:03d}.dcm", pixels, **place, **uids)
    return folder


@pytest.fixture(scope="module")
def model(node) -> hilum.Model:
    return hilum.load(node / "model" / "network.onnx", "cpu")


def test_a_case_of_a_wrong_spacing_is_left_out_of_a_training_by_name(tmp_path):
    cases = one_scan_too_large(tmp_path)
    plan = hilum.plan(cases, labels="1=a,2=b", modality="CT", minutes=3, device="cpu")
    [problem] = [one for one in plan.examination.problems if one.severity == "error"]
    assert problem.cases == ("p03",)
    assert "spacing 10 x 10 x 20 mm where the others have 1 x 1 x 2" in problem.what
    assert "--allow-large" in repr(plan)
    assert "p03" not in plan.parts
    assert len(plan.parts) == 11
    assert max(plan.examination.fingerprint.largest["steps"]) == 2.0
    kept = hilum.plan(cases, labels="1=a,2=b", modality="CT", minutes=3, device="cpu", allow_large=True)
    assert len(kept.parts) == 12
    assert kept.plan.options["allow_large"] is True


def test_a_series_of_a_wrong_spacing_is_refused_and_the_next_one_has_its_result(node, model):
    begun = time.monotonic()
    result = hilum.predict(model, [node / "bad", node / "good"], device="cpu")
    assert result.cases == 1
    [problem] = result.failures
    assert "spacing 30 x 30 x 40 mm where the model works at 1 x 1 x 2" in problem.what
    assert time.monotonic() - begun < 30  # all of it would take a quarter of an hour


def test_a_node_answers_that_it_refuses_such_a_series(node, model, tmp_path):
    job = SimpleNamespace(job="1", study="s", model_hash="m", stamp="20260101")
    series = {role: JobInputs({role: sorted((node / role).glob("*.dcm"))}) for role in ("bad", "good")}
    (tmp_path / "bad").mkdir()
    refused = job_answers.answer_job(job, model, series["bad"], tmp_path / "bad", ObjectMarks("1.2.3", ""), [])
    assert refused.outcome == "refused"
    assert "spacing 30 x 30 x 40 mm" in refused.reason
    assert not list((tmp_path / "bad").iterdir())


def test_an_evaluation_names_such_a_case_and_scores_the_others(model, tmp_path):
    cases = one_scan_too_large(tmp_path)
    for path in [*cases.glob("*/p*.nii.gz")]:
        if path.name not in ("p02.nii.gz", "p03.nii.gz"):
            path.unlink()
    result = hilum.evaluate(model, cases, labels="1=left_kidney,2=right_kidney", device="cpu")
    assert [problem.cases for problem in result.failures] == [("p03",)]
    assert set(result.scored.table["case"]) == {"p02"}


def test_allow_large_predicts_it_all_the_same_unless_it_takes_longer_than_is_allowed(model):
    """A limit of seconds stops it after its first windows; without one it would be predicted."""
    voxels = np.zeros((1, 24, 26, 20), np.int16)
    image = Image(voxels, Geometry((24, 26, 20), np.diag([20.0, 20.0, 10.0, 1.0])), "CT", ("CT",))
    case = Case("large", "p", {"image": image})
    with pytest.raises(DatasetError, match="windows"):
        case_prediction.compute_case(model, case, predictors.image_of_case(case), CaseRequest())
    with pytest.raises(DatasetError, match=r"windows would take about .* s, and 0 s are allowed"):
        case_prediction.compute_case(
            model,
            case,
            predictors.image_of_case(case),
            CaseRequest(request=ModelRequest(allow_large=True, at_most=1e-9)),
        )()


def test_a_gate_stops_at_its_longest_time_however_few_cases_it_has_seen():
    model = SimpleNamespace(observe=lambda case, layers: (case, None), preprocessing=None)
    assert len(gate._training_observations(model, range(20), None, seconds=-1.0, most=-1.0)) == 1
    costs = SecondsPerCase(predict=60.0, score=0.0, tune=0.0)
    after = Minutes(10.0, None, 0, [], looking=(200,))
    assert after.seconds(costs) - replace(after, looking=()).seconds(costs) == pytest.approx(300.0)  # half of 10 min
