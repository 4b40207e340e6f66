"""Maps of what answers of a node rest on: by a method that passed its tests on the model, or with the reason."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from isocenter.runtime import load
from isocenter.scoring.explaining.kept_tests import keep
from isocenter.service.records.tables import jobs
from service.small_node import SmallNode
from service.thresholds import class_model

PASSED = {"passed": True, "because": "as tested", "deletion_over_random": {"value": 0.2}}


@pytest.mark.parametrize("tested", [pytest.param(True, marks=pytest.mark.whole), False])
def test_the_map_of_a_method_that_passed_stands_beside_the_answer_and_where_none_did_every_record_says_so(
    tmp_path, mr, tested
):
    model = class_model(tmp_path / "model")
    judged = {"rise": {**PASSED, "passed": False}, **({"occlusion": PASSED} if tested else {})}
    keep(model, load(model), judged, {})
    node = SmallNode(tmp_path / "node", model, answers=("pm", "sc", "sr"), explain="auto")
    node.receive(*mr)
    node.work()
    [job] = node.rows(jobs)
    node.store.close()
    node.database.close()
    folder = node.settings.folder / "results" / job.job
    report = pydicom.dcmread(folder / "answer_report.dcm").to_json()
    assert (folder / "answer_sc.dcm").exists() and job.outcome == "result"
    if tested:
        made = pydicom.dcmread(folder / "answer_explanation_pm.dcm")
        assert made.SeriesDescription.startswith("explanation: occlusion of odd")
        assert np.isfinite(made.pixel_array).all() and not job.reason
    else:
        assert not (folder / "answer_explanation_pm.dcm").exists()
        words = "no map explains the answer: no method of explanation passed its tests on this model (rise)"
        assert words in job.reason and words in report
