"""Voxels that are larger than memory: they stay in their file, or go through a temporary one."""

from __future__ import annotations

import os
import pickle
import resource

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import hilum
from hilum.files.storage import spool
from hilum.values import Geometry, Image

GRID = Geometry((5, 6, 7), np.diag([-0.8, -0.8, 1.5, 1.0]))
VOXELS = np.random.default_rng(0).integers(-1000, 1000, (1, *GRID.shape)).astype(np.int16)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for temporary files, where every volume counts as large."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(spool, "MAPPED_BYTES", 1)
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


def written(path):
    grid = Geometry.of_spacing(GRID.shape, (0.8, 0.8, 1.5)) if path.suffix == ".tif" else GRID
    hilum.write(Image(VOXELS, grid), path)
    return path


def lies_on_disk(array) -> bool:
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array is not None


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.nii.gz", "a.tif", "a.mha"])
def test_a_large_volume_of_any_format_is_not_held_in_memory(place, name):
    image = hilum.read(written(place / name))
    assert lies_on_disk(image.data)
    assert_array_equal(image.data, VOXELS)
    assert not list((place / "temporary").iterdir())


def test_a_compressed_volume_is_unpacked_once_and_that_is_said(place, caplog):
    caplog.set_level("INFO", "hilum")
    image = hilum.read(written(place / "a.nii.gz"))
    read = image.reader()
    for rows in (slice(4, 7), slice(0, 3), slice(2, 5)):
        assert_array_equal(read((slice(None), slice(0, 5), slice(1, 4), rows)), VOXELS[:, :, 1:4, rows])
    assert [line for line in caplog.messages if "through a temporary file" in line] == caplog.messages[-1:]
    assert_array_equal(pickle.loads(pickle.dumps(image)).data, VOXELS)  # noqa: S301 - our own bytes


def test_what_is_done_with_a_large_volume_leaves_its_file_alone(place):
    path = written(place / "a.nii")
    before = path.read_bytes()
    hilum.read(path).data[...] = 7
    assert path.read_bytes() == before


def test_a_file_that_is_cut_after_its_header_was_read_is_refused(place):
    image = hilum.read(written(place / "a.nii"))
    os.truncate(place / "a.nii", 500)
    with pytest.raises(hilum.HilumError, match=r"a\.nii: the voxels are cut short.*promises \d+ bytes"):
        _ = image.data
    with pytest.raises(hilum.HilumError, match=r"a\.nii: the voxels are cut short"):
        image.reader()((slice(None), slice(1, 3), slice(0, 6), slice(0, 7)))


def test_a_temporary_disk_that_is_full_is_named_and_nothing_is_left(place):
    image = hilum.read(written(place / "a.nii.gz"))
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, allowed[1]))
    try:
        with pytest.raises(hilum.HilumError, match=r"a\.nii\.gz: needs .* GiB for a temporary file in .*TMPDIR"):
            _ = image.data
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert not list((place / "temporary").iterdir())
