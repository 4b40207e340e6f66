"""A parametric map lies on the voxels of its source, number for number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import real_data
from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.files.dicom.writing.dicom_answers import ANSWERS, Result
from hilum.values import Deferred, Map
from matrices import thinned

SOURCES = (
    "series/mr_hippocampus_001",
    "files/dcmqi_legacy_enhanced_ct_23x38x3.dcm",
    "series/mr_siemens_mosaic",
    "series/enh_mr_siemens_xa10",
)


@pytest.mark.parametrize("name", thinned(2, real_data.parameters("dicom", SOURCES)))
def test_a_map_is_read_again_voxel_by_voxel(name: str, tmp_path: Path):
    volumes = file_formats.read_volumes(real_data.find(f"dicom/{name}"))
    source = next(iter(volumes.values()))
    numbers = np.random.default_rng(0).normal(size=(2, *source.geometry.shape)).astype(np.float32)
    maps = {"total": Map(numbers[0], "nats"), "covering": Map(numbers, names=("a", "b"))}
    paths = list(ANSWERS["pm"].write(Result(source, "test", maps=maps), tmp_path / "case"))
    assert [path.name for path in paths] == ["case_total_pm.dcm", "case_covering_pm.dcm"]
    for path, truth in zip(paths, (numbers[0], numbers), strict=True):
        again = file_formats.read(path)
        assert_allclose(again.geometry.affine, source.geometry.affine, atol=1e-4)
        assert_array_equal(again.data[0], truth)
    frames = pydicom.dcmread(paths[1]).PerFrameFunctionalGroupsSequence
    assert list(dict.fromkeys(one.RealWorldValueMappingSequence[0].LUTExplanation for one in frames)) == ["a", "b"]
    [unit] = pydicom.dcmread(paths[0]).SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert unit.MeasurementUnitsCodeSequence[0].CodeValue == "{nat}"


def test_a_map_that_no_object_can_hold_is_refused_before_it_is_read(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/series/mr_hippocampus_001")
    names, shape = tuple(f"n{n}" for n in range(20_000)), (20_000, *source.geometry.shape)
    maps = {"probabilities": Map(Deferred(shape, np.dtype(np.float32), lambda: np.zeros(0)), names=names)}
    with pytest.raises(FormatError, match="holds at most 4"):
        list(ANSWERS["pm"].write(Result(source, "test", maps=maps), tmp_path / "case"))


def test_numbers_that_are_not_finite_are_refused(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/series/mr_hippocampus_001")
    maps = {"total": Map(np.full(source.geometry.shape, np.nan))}
    with pytest.raises(FormatError, match="not finite"):
        list(ANSWERS["pm"].write(Result(source, "test", maps=maps), tmp_path / "case"))
