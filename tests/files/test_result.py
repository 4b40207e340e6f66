from __future__ import annotations

import resource
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose, assert_array_equal

from hilum.errors import ResourceError
from hilum.files import file_formats, label_table
from hilum.files.result_images import TakenProbabilities
from hilum.values import Geometry, Image, Label

LABELS = (Label(3, "liver"), Label(9, "tumour, or cyst"))
OBLIQUE = Geometry((6, 5, 4), [[0, 1.5, 0, 7], [-0.9, 0, 0.4, 3], [0, 0, -3, 40], [0, 0, 0, 1]])
NO_PLACE = Geometry.of_pixels((6, 5))


def written_probabilities(path: Path, geometry: Geometry = OBLIQUE, channels: int = 3) -> np.ndarray:
    """Random probabilities, row by row of the first axis, but none for its last row."""
    source = Image(np.zeros((1, *geometry.shape), np.int16), geometry)
    given = np.random.default_rng(0).dirichlet(np.ones(channels), geometry.shape).astype(np.float32)
    given = np.moveaxis(given, -1, 0)
    taken = TakenProbabilities(LABELS, source, path.parent)
    for row in range(geometry.shape[0] - 1):
        region = (slice(row, row + 1), *(slice(0, n) for n in geometry.shape[1:]))
        taken(region, given[(slice(None), *region)])
    assert taken.write(path)
    given[:, -1] = 0
    given[0, -1] = channels > len(LABELS)
    return given


@pytest.mark.parametrize("name", ["case.nii.gz", "case.nii"])
def test_probabilities_are_a_volume_a_label_on_the_grid_of_the_source(tmp_path, name):
    given = written_probabilities(tmp_path / name)
    found = nibabel.load(tmp_path / name)
    assert found.shape == (*OBLIQUE.shape, 3)
    assert_allclose(found.affine, OBLIQUE.affine, atol=1e-5)
    assert_allclose(np.moveaxis(found.get_fdata(), -1, 0), given, rtol=2**-11, atol=2**-25)
    names = [(label.value, label.name) for label in label_table.read_labels(tmp_path / "case.labels.csv")]
    assert names == [(0, "background"), (1, "liver"), (2, "tumour, or cyst")]


def test_other_programs_find_the_channels_of_an_nrrd(tmp_path):
    given = written_probabilities(tmp_path / "case.nrrd")
    found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "case.nrrd"))
    assert_allclose(np.transpose(found, (3, 2, 1, 0)), given, rtol=2**-11, atol=2**-25)


def test_those_of_a_picture_are_the_named_channels_of_a_tiff(tmp_path):
    given = written_probabilities(tmp_path / "case.tiff", NO_PLACE)
    found = file_formats.read(tmp_path / "case.tiff")
    assert found.channels == ("background", "liver", "tumour, or cyst")
    assert_allclose(found.data, given, rtol=2**-11, atol=2**-25)


def test_labels_that_do_not_exclude_each_other_have_no_background(tmp_path):
    given = written_probabilities(tmp_path / "case.nii.gz", channels=2)
    assert_array_equal(given[:, -1], 0)
    assert_allclose(np.moveaxis(nibabel.load(tmp_path / "case.nii.gz").get_fdata(), -1, 0), given, rtol=2**-11)
    assert [label.name for label in label_table.read_labels(tmp_path / "case.labels.csv")] == [
        "liver",
        "tumour, or cyst",
    ]


def test_until_they_are_written_no_file_lies_there_and_a_result_that_is_not_dense_has_none(tmp_path):
    source = Image(np.zeros((1, *OBLIQUE.shape), np.int16), OBLIQUE)
    taken = TakenProbabilities(LABELS, source, tmp_path)
    assert not taken.write(tmp_path / "none.nii.gz") and taken.of_labels is None
    taken((slice(0, 6), slice(0, 5), slice(0, 1)), np.full((3, 6, 5, 1), 1 / 3))
    assert not list(tmp_path.iterdir())
    assert taken.of_labels.names == ("liver", "tumour, or cyst") and taken.of_labels.data.shape == (2, 6, 5, 4)


def test_a_disk_that_is_full_is_said_when_the_first_part_is_told(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    source = Image(np.zeros((1, 32, 32, 32), np.int16), Geometry((32, 32, 32), np.eye(4)))
    written_probabilities = np.full((2, 32, 32, 4), 0.5, np.float32)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, before[1]))
    try:
        taken = TakenProbabilities((Label(1, "lesion"),), source, tmp_path)
        with pytest.raises(ResourceError, match="Free some space"):
            taken((slice(0, 32), slice(0, 32), slice(0, 4)), written_probabilities)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_slices_are_written_one_by_one_in_the_order_of_the_file(tmp_path):
    pixels = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.float32).reshape(2, 3, 4, 5, 6)
    file_formats.write(Image(pixels, Geometry((4, 5, 6), np.eye(4))), tmp_path / "many.nii")
    assert_array_equal(nibabel.load(tmp_path / "many.nii").get_fdata(), pixels.transpose(2, 3, 4, 1, 0))
