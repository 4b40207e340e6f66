"""When windows in the air are passed over."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import pytest

import hilum
from fingerprints import LAPTOP, SAMPLED, cohort, facts
from hilum.errors import PlanError
from hilum.planning import plan_checks, planner
from hilum.planning.plan_inputs import Wishes
from hilum.values import BY_HAND, CaseFacts, Decision, Fingerprint, Plan


def planned(*cases: CaseFacts) -> Plan:
    wishes = Wishes(Decision("cpu", "for a test"), minutes=10)
    return planner.make_plan(cohort(cases), Fingerprint(cases), SAMPLED, LAPTOP, wishes)


def three(**changes: object) -> list[CaseFacts]:
    return [
        replace(facts(name=f"c{n}", modality="CT"), air=air, **changes)  # type: ignore[arg-type]
        for n, air in enumerate((0.1, 0.4, 0.5))
    ]


def test_windows_in_the_air_are_passed_over_where_the_training_images_have_air_and_no_label_in_it():
    decision = planned(*three()).decision("inference.skip")
    assert decision.value == "air"
    assert "40 % of the median training image is air" in decision.because
    assert plan_checks.checked_settings(planned(*three())).inference.skip == "air"


@pytest.mark.parametrize(
    ("cases", "reason"),
    [
        ([*three()[:2], replace(three()[2], marks_air=True)], "labels of 1 of 3 training cases lie in what"),
        (three(modality="US"), "only volumes of CT, MR and PET"),
        ([replace(one, air=0.0) for one in three()], "0 % of the median training image is air"),
        ([replace(one, references={"class": f"k{n % 2}"}) for n, one in enumerate(three())], "no map of classes"),
    ],
)
def test_every_window_is_predicted_where_that_could_lose_or_save_nothing(cases, reason):
    decision = planned(*cases).decision("inference.skip")
    assert decision.value is None
    assert reason in decision.because


def test_what_has_no_background_cannot_be_told_to_pass_over_windows():
    classes = [replace(one, references={"class": f"k{n % 2}"}) for n, one in enumerate(three())]
    with pytest.raises(PlanError, match="stand for background"):
        plan_checks.checked_settings(planned(*classes).with_decision("inference.skip", Decision("air", BY_HAND)))


def test_a_look_finds_the_air_of_a_case_and_labels_in_it_but_for_voxels_that_nobody_contoured(tmp_path):
    place = np.indices((50, 40, 30)) - np.reshape((12, 12, 12), (3, 1, 1, 1))
    ball = (place**2).sum(axis=0) < 80
    scan = np.where(ball, 40, -1000) + np.random.default_rng(0).integers(-20, 20, ball.shape)
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir()
    for number, corner in enumerate((0, 2, 1)):
        labels = ball.astype(np.uint8)
        labels[-3:, -3:, -3:] = corner
        for part, array in (("imagesTr", scan.astype(np.int16)), ("labelsTr", labels)):
            ending = "_0000" if part == "imagesTr" else ""
            nibabel.Nifti1Image(array, np.diag([4.0, 4, 4, 1])).to_filename(tmp_path / part / f"c_{number}{ending}.nii")
    (tmp_path / "dataset.json").write_text(
        '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1, "ignore": 2}, "numTraining": 3, '
        '"file_ending": ".nii"}'
    )
    found = hilum.check(tmp_path, out=tmp_path / "check").examination.fingerprint.cases
    assert [case.marks_air for case in found] == [False, False, True]
    assert all(0.5 < case.air < 0.9 for case in found)
