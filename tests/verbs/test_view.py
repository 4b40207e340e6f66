"""Looking at one image, with what lies over it."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

import hilum
from hilum.errors import GeometryError


def test_a_mask_with_the_header_of_its_image_is_read_by_the_form_that_was_chosen_for_both(tmp_path):
    files = tmp_path / "image.nii", tmp_path / "mask.nii"
    for file, voxels in zip(files, (np.zeros((4, 5, 6), np.float32), np.ones((4, 5, 6), np.uint8)), strict=True):
        nifti = nibabel.Nifti1Image(voxels, np.eye(4))
        nifti.set_sform(np.eye(4), 1)
        nifti.set_qform(np.diag([1.0, 1.0, 1.5, 1.0]), 1)
        nifti.to_filename(file)
    with pytest.raises(GeometryError, match="--prefer"):
        hilum.view(*files)
    assert '"overlays": [{' in hilum.view(*files, prefer="sform").html
