"""What a motion has to be before it is applied across contrasts."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.registration import harm_checks
from hilum.transforms import augment_spatial


def turn(degrees: float, ndim: int = 3) -> np.ndarray:
    return augment_spatial.rotation_matrix(np.radians([degrees, 0.0, 0.0]), ndim)


@pytest.mark.parametrize(
    ("matrix", "fault"),
    [
        (np.eye(3), ""),
        (turn(44), ""),
        (turn(46), "the moving image would be turned by 46 degrees, more than 45"),
        (turn(-60, ndim=2), "the moving image would be turned by 60 degrees, more than 45"),
        (np.diag([1.45, 1.0, 0.7]), ""),
        (np.diag([1.0, 1.6, 1.0]), "an axis would be 1 to 1.6 times as long, beyond 0.67 to 1.5"),
        (np.diag([0.6, 1.0]), "an axis would be 0.6 to 1 times as long, beyond 0.67 to 1.5"),
        (turn(30) @ np.diag([1.0, 1.6, 1.0]), "an axis would be 1 to 1.6 times as long, beyond 0.67 to 1.5"),
        (turn(50) @ np.diag([1.2, 1.0, 0.9]), "the moving image would be turned by 50 degrees, more than 45"),
    ],
)
def test_a_motion_that_no_patient_makes_is_named_whatever_its_stretch_or_turn(matrix, fault):
    assert harm_checks.unlikely_motion(matrix) == fault
