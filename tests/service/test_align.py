"""Series of a study on unlike grids, brought onto the first as the settings of the model say."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.service.work import job_answers
from hilum.service.work.job_answers import JobInputs
from hilum.transforms import spatial_transforms
from hilum.values import Geometry, Image, SpatialTransform
from simulated_pairs import blobs, turn_and_shift

GRID = Geometry((24, 22, 20), np.array([[1.0, 0, 0, -12], [0, 1, 0, -11], [0, 0, 1.2, -12], [0, 0, 0, 1]]))


@pytest.mark.whole
def test_series_of_two_frames_of_reference_are_registered_where_the_model_says_so(tmp_path):
    scene = blobs(GRID.pad((12, 11, 10), (12, 11, 10)))
    moves = {
        "first": SpatialTransform((), GRID),
        "second": SpatialTransform((turn_and_shift((5, 0, 0), (2, 1, 0), GRID),)),
    }
    for name, one in moves.items():
        pixels = np.rint(
            spatial_transforms.carry_image(scene, spatial_transforms.invert_transform(one), GRID).data
        ).astype(np.int16)
        series_writing.write_series(Image(pixels, GRID, modality="MR"), SeriesNames("p", name, "s"), tmp_path / name)
    inputs = JobInputs({name: sorted((tmp_path / name).iterdir()) for name in moves})
    with job_answers._cases(SimpleNamespace(study="study"), inputs, "register") as [case]:
        first, second = case.images["first"], case.images["second"]
        assert second.geometry.equals(first.geometry)
        assert np.corrcoef(first.data[second.valid], second.data[second.valid])[0, 1] > 0.99
        assert second.facts["onto"]["image"] == "first"
