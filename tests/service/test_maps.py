"""Maps beside the answers of a node: of what they rest on, and of the probabilities of structures."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pydicom
import pytest

import hilum
from hilum.runtime import model_files
from hilum.scoring.explaining import kept_tests
from hilum.service.records import tables
from service.small_node import LEVEL, SmallNode
from service.thresholds import class_model, threshold_model

PASSED = {"passed": True, "because": "as tested", "deletion_over_random": {"value": 0.2}}


@pytest.mark.parametrize("tested", [pytest.param(True, marks=pytest.mark.whole), False])
def test_the_map_of_a_method_that_passed_stands_beside_the_answer_and_where_none_did_every_record_says_so(
    tmp_path, mr, tested
):
    model = class_model(tmp_path / "model")
    judged = {"rise": {**PASSED, "passed": False}, **({"occlusion": PASSED} if tested else {})}
    kept_tests.keep_records(model, model_files.load(model), judged, {})
    node = SmallNode(tmp_path / "node", model, answers=("pm", "sc", "sr"), explain="auto")
    node.receive(*mr)
    node.work()
    [job] = node.rows(tables.JOBS)
    node.store.close()
    node.database.close()
    folder = node.settings.folder / "results" / job.job
    report = pydicom.dcmread(folder / "answer_report.dcm").to_json()
    assert (folder / "answer_sc.dcm").exists() and job.outcome == "answered"
    if tested:
        made = pydicom.dcmread(folder / "answer_explanation_pm.dcm")
        assert made.SeriesDescription.startswith("explanation: occlusion of odd")
        assert np.isfinite(made.pixel_array).all() and not job.reason
    else:
        assert not (folder / "answer_explanation_pm.dcm").exists()
        words = "no map explains the answer: no method of explanation passed its tests on this model (rise)"
        assert words in job.reason and words in report


def test_the_probabilities_of_the_structures_are_one_parametric_map_on_the_voxels_of_the_answer(tmp_path, mr):
    node = SmallNode(tmp_path / "node", threshold_model(tmp_path / "model", LEVEL), answers=("pm", "seg"))
    node.receive(*mr)
    node.work()
    node.store.close()
    node.database.close()
    made = hilum.read(node.result("answer_probabilities_pm.dcm"))
    marked = hilum.read(node.result("answer.nii.gz"))
    assert np.allclose(made.geometry.affine, marked.geometry.affine, atol=1e-4)
    assert ((made.data > 0.5) == (marked.data == 1)).all() and (marked.data == 1).any()


def test_without_maps_nothing_that_explains_is_loaded():
    words = "import sys, hilum.service.work.warm_models as warm; warm.WarmModels({}, 8).maps_of('m', 'h')"
    code = f"{words}; print([name for name in sys.modules if name in ('torch', 'captum', 'hilum.explanation')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
