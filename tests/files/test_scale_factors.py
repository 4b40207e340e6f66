"""Factors that turn stored numbers into values: what is no number, or makes none of float32, is refused everywhere."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.spm99analyze import Spm99AnalyzeImage
from numpy.testing import assert_array_equal
from scipy.io import netcdf_file

from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.files.storage.block import VoxelBlock
from written_dicom import sequence, write_slice

RAMP = np.arange(24, dtype="<i2").reshape(2, 3, 4)
MIF = "mrtrix image\ndim: 2,3,4\nvox: 1,1,1\nlayout: +0,+1,+2\ndatatype: int16le\nscaling: {1},{0}\nfile: . 200\nEND\n"
MHA = (
    "NDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\nElementToIntensityFunctionSlope = {0}\n"
    "ElementToIntensityFunctionOffset = {1}\nElementDataFile = LOCAL\n"
)


def nifti(folder: Path, slope: float, intercept: float) -> Path:
    """A NIfTI file with these factors in its header, which nibabel would not write."""
    nibabel.save(nibabel.Nifti1Image(RAMP, np.eye(4)), path := folder / "a.nii")
    raw = bytearray(path.read_bytes())
    struct.pack_into("<2f", raw, 112, slope, intercept)
    path.write_bytes(raw)
    return path


def analyze(folder: Path, slope: float) -> Path:
    """An Analyze pair with SPM's factor."""
    nibabel.save(Spm99AnalyzeImage(RAMP, np.eye(4)), folder / "a.img")
    head = folder / "a.hdr"
    raw = bytearray(head.read_bytes())
    struct.pack_into("<f", raw, 112, slope)
    head.write_bytes(raw)
    return folder / "a.img"


def mif(folder: Path, slope: float, intercept: float) -> Path:
    (folder / "a.mif").write_bytes(MIF.format(slope, intercept).encode().ljust(200, b"\0") + RAMP.tobytes())
    return folder / "a.mif"


def metaimage(folder: Path, slope: float, intercept: float) -> Path:
    (folder / "a.mha").write_bytes(MHA.format(slope, intercept).encode() + RAMP.tobytes())
    return folder / "a.mha"


def minc(folder: Path, slope: float, intercept: float) -> Path:
    """Of MINC the values of the lowest and the highest stored number are stated."""
    names = ("zspace", "yspace", "xspace")
    with netcdf_file(folder / "a.mnc", "w") as file:
        for name, size in zip(names, RAMP.shape, strict=True):
            file.createDimension(name, size)
            axis = file.createVariable(name, "i", ())
            axis.spacing, axis.start, axis.step = b"regular__", 0.0, 1.0
        image = file.createVariable("image", "b", names)
        image.signtype, image.valid_range = b"unsigned", np.array([0.0, 255.0])
        image[:] = RAMP.astype(np.int8)
        for name, value in (("image-max", intercept + 255 * slope), ("image-min", intercept)):
            file.createVariable(name, "d", ())[...] = value
    return folder / "a.mnc"


def edf(folder: Path, slope: float, intercept: float) -> Path:
    """Of EDF too; eight letters hold each."""
    low, high = (f"{intercept + slope * end:.1e}" for end in (-100, 100))
    fields = [("0", 8), ("", 160), ("01.01.2608.00.00", 16), (512, 8), ("", 44), (1, 8), (1, 8), (1, 4)]
    fields += [("a", 16), ("", 80), ("uV", 8), (low, 8), (high, 8), (-100, 8), (100, 8), ("", 80), (4, 8), ("", 32)]
    (folder / "a.edf").write_bytes("".join(str(text).ljust(width) for text, width in fields).encode() + b"\1\0" * 4)
    return folder / "a.edf"


def dicom(folder: Path, slope: float, intercept: float) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return write_slice(folder / "a.dcm", RAMP[0], RescaleSlope=f"{slope:g}", RescaleIntercept=f"{intercept:g}")


FORMATS = [nifti, mif, metaimage, minc, edf, dicom]


@pytest.mark.parametrize("file", FORMATS, ids=lambda file: file.__name__)
def test_usual_factors_are_taken(file: Callable[[Path, float, float], Path], tmp_path: Path) -> None:
    values = file_formats.read(file(tmp_path, 0.5, -3.0)).data
    assert np.isfinite(values).all() and -53 <= values.min() < 0 < values.max() + 5


@pytest.mark.parametrize(
    ("slope", "intercept"), [(3e38, 0), (-3e38, 0), (1e30, 0), (1, 3e38), (1e-35, 0), (1, np.nan), (1, -np.inf)]
)
@pytest.mark.parametrize("file", FORMATS, ids=lambda file: file.__name__)
def test_factors_that_give_no_numbers_are_refused(
    file: Callable[[Path, float, float], Path], slope: float, intercept: float, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=r"usable|finite|not a number|empty"):
        file_formats.read(file(tmp_path, slope, intercept))


@pytest.mark.parametrize("slope", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("file", FORMATS[1:], ids=lambda file: file.__name__)
def test_a_slope_that_is_no_number_or_zero_is_refused(
    file: Callable[[Path, float, float], Path], slope: float, tmp_path: Path
) -> None:
    if file is minc and slope == 0:
        assert (file_formats.read(minc(tmp_path, 0.0, 7.0)).data == 7).all()  # a blank slice, which MINC states so
        return
    with pytest.raises(FormatError, match=r"usable|finite|not a number|empty"):
        file_formats.read(file(tmp_path, slope, 0.0))


@pytest.mark.parametrize("slope", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("file", [lambda folder, slope: nifti(folder, slope, 7.0), analyze], ids=["nifti", "analyze"])
def test_nifti_without_a_number_for_its_slope_is_not_scaled_and_says_so(
    file: Callable[[Path, float], Path], slope: float, tmp_path: Path
) -> None:
    image = file_formats.read(file(tmp_path, slope))
    assert_array_equal(image.data[0], RAMP)
    assert any("scl_slope" in note for note in image.notes)


def test_a_slope_of_zero_means_no_scaling_in_nifti(tmp_path: Path) -> None:
    image = file_formats.read(nifti(tmp_path, 0.0, np.nan))
    assert_array_equal(image.data[0], RAMP)
    assert not any("scl_slope" in note for note in image.notes)


def test_a_factor_of_spm_that_overflows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="slope 3e"):
        file_formats.read(analyze(tmp_path, 3e38))


def test_floats_that_are_stored_have_a_bound_for_their_factors_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(32))
    VoxelBlock(tmp_path / "a", np.dtype("f4"), (8,), (0,), slope=1e20)
    with pytest.raises(FormatError, match="usable"):
        VoxelBlock(tmp_path / "a", np.dtype("f4"), (8,), (0,), slope=3e38)


@pytest.mark.parametrize("slope", [np.nan, 3e38, 0.0])
def test_a_real_world_mapping_has_the_same_bound(slope: float, tmp_path: Path) -> None:
    mapping = sequence(
        RealWorldValueSlope=slope, RealWorldValueIntercept=0.0,
        RealWorldValueFirstValueMapped=0, RealWorldValueLastValueMapped=100,
    )  # fmt: skip
    path = write_slice(tmp_path / "a.dcm", RAMP[0], RealWorldValueMappingSequence=mapping)
    with pytest.raises(FormatError, match=r"usable|finite"):
        _ = file_formats.read(path, real_world=True).data


def test_no_dose_at_all_may_have_a_scaling_of_zero(tmp_path: Path) -> None:
    tags = {"Modality": "RTDOSE", "DoseUnits": "GY", "PixelRepresentation": 0}
    dose = RAMP[0].astype(np.uint16)
    assert not file_formats.read(write_slice(tmp_path / "a.dcm", dose, DoseGridScaling="0", **tags)).data.any()
    with pytest.raises(FormatError, match="usable"):
        file_formats.read(write_slice(tmp_path / "b.dcm", dose, DoseGridScaling="3e38", **tags))


@pytest.mark.parametrize("column", [11, 12])  # rescale intercept, rescale slope
def test_a_philips_pair_with_a_slice_that_is_scaled_beyond_all_bounds_is_refused(
    data: Path, column: int, tmp_path: Path
) -> None:
    source = data / "nifti" / "nib_phantom_EPI.PAR"
    lines = source.read_text().splitlines()
    at = max(n for n, line in enumerate(lines) if line.strip() and line.split()[0].isdigit())
    words = lines[at].split()
    words[column] = "3e38"
    lines[at] = " " + " ".join(words)
    (tmp_path / "p.PAR").write_text("\n".join(lines) + "\n")
    (tmp_path / "p.REC").write_bytes(source.with_suffix(".REC").read_bytes())
    with pytest.raises(FormatError, match="rescale slope and rescale intercept give no usable values"):
        file_formats.read(tmp_path / "p.PAR")
