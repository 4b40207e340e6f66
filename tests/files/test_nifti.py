"""NIfTI: the header's forms, units and scaling as NIfTI-1 means them, and a round trip that moves nothing."""

from __future__ import annotations

import gzip
import pickle
import shutil
import struct
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from nibabel.nifti1 import Nifti1Extension
from numpy.testing import assert_allclose, assert_array_equal

import real_data
from hilum.errors import FormatError, GeometryError, UsageError
from hilum.files import file_formats
from hilum.files.nifti import nifti_reading
from hilum.values import Geometry, Image, Label
from strategies import geometries, images, unknown_geometries

OBLIQUE = np.array([[1.9, 0.3, 0.0, -20], [-0.3, 1.9, 0.0, 5], [0.0, 0.0, 3.0, 7], [0, 0, 0, 1.0]])


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = OBLIQUE, **fields: object) -> Path:
    """A file as nibabel writes it, with some fields of the header set by hand."""
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm", "sec")
    codes = {name: fields.pop(name) for name in ("sform_code", "qform_code") if name in fields}
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    if codes:
        raw = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
        struct.pack_into("<h", raw, 252, codes.get("qform_code", struct.unpack_from("<h", raw, 252)[0]))
        struct.pack_into("<h", raw, 254, codes.get("sform_code", struct.unpack_from("<h", raw, 254)[0]))
        path.write_bytes(gzip.compress(bytes(raw)) if path.suffix == ".gz" else bytes(raw))
    return path


def patched(source: Path, target: Path, form: str, offset: int, *values: float) -> Path:
    """A copy of an uncompressed file with some bytes of the header changed."""
    raw = bytearray(source.read_bytes())
    struct.pack_into("<" + form, raw, offset, *values)
    target.write_bytes(bytes(raw))
    return target


@pytest.fixture
def ramp() -> np.ndarray:
    return np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


# -- the law ---------------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(images(geometries()))
def test_what_is_written_comes_back_with_the_same_values_in_the_same_place(image: Image) -> None:
    with tempfile.TemporaryDirectory() as folder:
        back = written_and_read(image, Path(folder) / "image.nii")
        assert back.geometry.equals(image.geometry, 1e-4)
        assert_array_equal(back.data, image.data)
        assert back.times == (image.times if image.times is None else pytest.approx(image.times))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(images(unknown_geometries()))
def test_what_was_unknown_is_unknown_again(image: Image) -> None:
    with tempfile.TemporaryDirectory() as folder:
        back = written_and_read(image, Path(folder) / "image.nii.gz")
        assert (back.geometry.physical, back.geometry.oriented) == (image.geometry.physical, False)
        assert_allclose(back.geometry.steps, image.geometry.steps, rtol=1e-6)
        assert_array_equal(back.data, image.data)


@example(Geometry((4, 5, 1), np.array([[1, 0, 0, 0], [0, 1, 0.5, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])))
@given(geometries())
def test_a_second_reader_finds_the_voxels_in_the_same_place(geometry: Geometry) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.nii"
        file_formats.write(Image(np.zeros((1, *geometry.shape), np.uint8), geometry), path)
        header = nibabel.load(path).header
        assert_allclose(nibabel.load(path).affine, geometry.affine, atol=1e-4)
        qform, code = header.get_qform(coded=True)
        if geometry.is_sheared:
            assert code == 0
        elif code:
            assert_allclose(qform, geometry.affine, atol=2e-3 * max(geometry.steps) * max(geometry.shape))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(images(geometries() | unknown_geometries()))
def test_a_new_header_is_the_one_that_nibabel_makes_of_the_same_fields(image: Image) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file_formats.write(image, Path(folder) / "image.nii")
        raw = (Path(folder) / "image.nii").read_bytes()
    kind = nibabel.Nifti1Header if raw[0] == 348 - 256 else nibabel.Nifti2Header
    ours, theirs = kind(raw[: kind.sizeof_hdr]), kind(endianness="<")
    theirs.set_data_shape(ours.get_data_shape())
    theirs.set_data_dtype(ours.get_data_dtype())
    theirs.set_xyzt_units(*ours.get_xyzt_units())
    theirs.set_intent(int(ours["intent_code"]))
    if image.geometry.oriented:
        theirs.set_sform(image.geometry.affine, 1)
    if ours["qform_code"]:
        theirs.set_qform(image.geometry.affine, 1)
    theirs["pixdim"][1 : 1 + image.geometry.ndim] = image.geometry.steps
    theirs["pixdim"][4], theirs["vox_offset"] = ours["pixdim"][4], kind.single_vox_offset
    for name in theirs.keys():  # noqa: SIM118 - a header is no mapping
        close = {"rtol": 0, "atol": 1e-3} if name.startswith("quatern") else {"rtol": 1e-6}
        if ours[name].dtype.kind == "f":
            assert_allclose(ours[name], theirs[name], **close, err_msg=name)
        else:
            assert_array_equal(ours[name], theirs[name], err_msg=name)


def written_and_read(image: Image, path: Path) -> Image:
    file_formats.write(image, path)
    return file_formats.read(path)


# -- real files ------------------------------------------------------------------------------------------------------


def nifti_files(folder: Path) -> list[Path]:
    """Every file of NIfTI and Analyze in a folder of real data."""
    suffixes = (".nii", ".nii.gz", ".hdr", ".img")
    paths = [path for path in sorted((folder / "nifti").iterdir()) if path.name.endswith(suffixes)]
    assert len(paths) > 10
    return paths


REFUSED = {
    "nib_analyze_header_only.hdr": (FormatError, r"nib_analyze_header_only\.img is missing"),
    "niivue_complex64.nii.gz": (FormatError, "complex numbers.*--part"),
    "niivue_shear_qform_sform_disagree.nii.gz": (GeometryError, "both have code 2.*44.*--prefer"),
}


@pytest.mark.parametrize("folder", real_data.FOLDERS)
def test_every_file_agrees_with_nibabel_or_is_refused_with_a_reason(folder: Path) -> None:
    for path in nifti_files(folder):
        if path.name in REFUSED:
            kind, reason = REFUSED[path.name]
            with pytest.raises(kind, match=reason):
                file_formats.read(path)
            continue
        image, other = file_formats.read(path), nibabel.load(path)
        assert image.geometry.shape == other.shape[:3]
        if image.geometry.oriented:
            assert_allclose(image.geometry.affine, other.affine, atol=1e-5)
            assert image.geometry.orientation == "".join(nibabel.aff2axcodes(other.affine))
        if image.geometry.physical:
            assert_allclose(image.spacing, other.header.get_zooms()[:3], rtol=1e-3)
        if len(other.shape) == 4:
            assert image.frames == other.shape[3]
            assert_allclose(np.moveaxis(image.data[0], 0, -1), other.get_fdata(), rtol=1e-6)
        elif image.channels != ("R", "G", "B"):
            assert_allclose(image.data[0], other.get_fdata(), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("folder", real_data.FOLDERS)
def test_every_file_survives_a_round_trip(folder: Path, tmp_path: Path) -> None:
    for path in nifti_files(folder):
        if path.name in REFUSED:
            continue
        image = file_formats.read(path)
        back = written_and_read(image, tmp_path / f"{path.name}.nii.gz")
        assert back.geometry.equals(image.geometry, 1e-4), path.name
        assert back.dtype == image.dtype and back.channels == image.channels
        assert_array_equal(back.data, image.data)


@pytest.mark.parametrize(
    ("folder", "count"), [(real_data.SHIPPED, 3), pytest.param(real_data.CORPUS, 8, marks=pytest.mark.corpus)]
)
def test_one_head_in_several_voxel_orders_shows_the_same_anatomy(folder: Path, count: int) -> None:
    heads = []
    for path in sorted((folder / "nifti").glob("niivue_space_*.nii.gz")):
        image = file_formats.read(path)
        axes, flips = image.geometry.to_canonical
        voxels = image.data[0].transpose(axes)
        voxels = np.flip(voxels, [axis for axis, flip in enumerate(flips) if flip])
        heads.append((image.geometry.canonical, voxels))
    first, anatomy = heads[0]
    assert len(heads) == count and first.orientation == "RAS"
    for geometry, voxels in heads[1:]:
        assert geometry.equals(first, 1e-3)
        assert_array_equal(voxels, anatomy)


@pytest.fixture(params=["simulated", pytest.param("niivue", marks=pytest.mark.corpus)])
def sheared_file(request: pytest.FixtureRequest, tmp_path: Path, ramp: np.ndarray) -> Path:
    """A file whose sform is sheared and whose qform is not, both with code 2."""
    if request.param == "niivue":
        return real_data.CORPUS / "nifti" / "niivue_shear_qform_sform_disagree.nii.gz"
    sheared = np.array(OBLIQUE)
    sheared[:3, 2] += (1.5, 0.0, 0.0)
    image = nibabel.Nifti1Image(ramp, sheared)
    image.set_sform(sheared, code=2)
    image.set_qform(OBLIQUE, code=2)
    nibabel.save(image, tmp_path / "sheared_sform.nii")
    return tmp_path / "sheared_sform.nii"


def test_a_shear_is_read_as_a_shear_when_the_sform_is_preferred(sheared_file: Path) -> None:
    with pytest.raises(GeometryError, match="both have code 2"):
        file_formats.read(sheared_file)
    sheared = file_formats.read(sheared_file, prefer="sform")
    turned = file_formats.read(sheared_file, prefer="qform")
    assert sheared.geometry.is_sheared and not turned.geometry.is_sheared
    assert_allclose(sheared.geometry.affine, nibabel.load(sheared_file).get_sform(), atol=1e-6)
    assert_allclose(turned.geometry.affine, nibabel.load(sheared_file).get_qform(), atol=1e-6)
    assert any("sform was asked for" in note for note in sheared.notes)


def test_a_shear_is_written_with_the_sform_only(sheared_file: Path, tmp_path: Path) -> None:
    image = file_formats.read(sheared_file, prefer="sform")
    file_formats.write(image, tmp_path / "sheared.nii.gz")
    header = nibabel.load(tmp_path / "sheared.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    assert file_formats.read(tmp_path / "sheared.nii.gz").geometry.equals(image.geometry, 1e-4)


def test_either_half_of_a_pair_opens_both(data: Path) -> None:
    head, voxels = (
        file_formats.read(data / "nifti" / "niivue_ras.hdr"),
        file_formats.read(data / "nifti" / "niivue_ras.img"),
    )
    assert head.geometry.equals(voxels.geometry)
    assert_array_equal(head.data, voxels.data)


def test_colours_become_channels(tmp_path: Path) -> None:
    voxels = np.arange(4 * 5 * 6 * 3, dtype=np.uint8).view([("R", "u1"), ("G", "u1"), ("B", "u1")]).reshape(4, 5, 6)
    image = file_formats.read(save(tmp_path / "colours.nii", voxels))
    assert image.channels == ("R", "G", "B")
    assert_array_equal(image.data, [voxels["R"], voxels["G"], voxels["B"]])


def test_colours_of_a_perfusion_become_channels(corpus: Path) -> None:
    path = corpus / "nifti" / "niivue_ct_perfusion_rgb.nii.gz"
    image = file_formats.read(path)
    assert image.channels == ("R", "G", "B")
    assert_array_equal(image.data[1], np.asarray(nibabel.load(path).dataobj)["G"])


@pytest.mark.parametrize("part", ["magnitude", "real", "imaginary", "phase"])
def test_a_part_of_complex_voxels_is_read_on_request(data: Path, part: str) -> None:
    path = data / "nifti" / "niivue_complex64.nii.gz"
    values = np.asarray(nibabel.load(path).dataobj)
    expected = {"magnitude": np.abs, "real": np.real, "imaginary": np.imag, "phase": np.angle}[part](values)
    assert file_formats.read(path, part=part).dtype == np.float32
    assert_allclose(file_formats.read(path, part=part).data[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("nifti/niivue_minimal_no_form.nii.gz", (3.0, 3.0, 3.0)),
        pytest.param("mri/lgg_flair/images/TCGA_CS_4941_19960909.nii.gz", (2.0, 2.0, 1.0), marks=pytest.mark.corpus),
    ],
)
def test_scans_without_sides_keep_them_unknown(name: str, steps: tuple[float, ...]) -> None:
    geometry = file_formats.read(real_data.find(name)).geometry
    assert (geometry.oriented, geometry.physical, geometry.spacing) == (False, False, None)
    assert geometry.steps == steps


# -- forms, units, axes ----------------------------------------------------------------------------------------------


def test_forms_of_one_code_a_tenth_of_a_voxel_apart_are_refused(tmp_path: Path, ramp: np.ndarray) -> None:
    path = save(tmp_path / "near.nii", ramp, OBLIQUE, sform_code=1, qform_code=1)
    x = struct.unpack_from("<f", path.read_bytes(), 268)[0]
    step = float(np.linalg.norm(OBLIQUE[:3, 0]))
    near = patched(path, tmp_path / "kept.nii", "f", 268, x + 0.09 * step)
    assert_allclose(file_formats.read(near).geometry.affine, OBLIQUE, atol=1e-5)
    far = patched(path, tmp_path / "refused.nii", "f", 268, x + 0.12 * step)
    with pytest.raises(GeometryError, match=r"refused\.nii: sform and qform both have code 1"):
        file_formats.read(far)


def test_of_forms_with_two_codes_the_sform_is_used_and_the_image_says_so(tmp_path: Path, ramp: np.ndarray) -> None:
    path = save(tmp_path / "a.nii", ramp, OBLIQUE, sform_code=4, qform_code=1)
    path = patched(path, tmp_path / "b.nii", "f", 268, 100.0)
    image = file_formats.read(path)
    assert_allclose(image.geometry.affine, OBLIQUE, atol=1e-5)
    assert any("sform (code 4) and qform (code 1)" in note for note in image.notes)
    assert_allclose(file_formats.read(path, prefer="qform").geometry.affine[0, 3], 100.0)


def test_the_only_form_is_used(tmp_path: Path, ramp: np.ndarray) -> None:
    path = save(tmp_path / "q.nii", ramp, OBLIQUE, sform_code=0, qform_code=1)
    assert_allclose(file_formats.read(path).geometry.affine, OBLIQUE, atol=1e-4)


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1.0), ("meter", 1000.0), ("micron", 0.001)])
def test_every_unit_becomes_mm(tmp_path: Path, ramp: np.ndarray, unit: str, mm: float) -> None:
    image = nibabel.Nifti1Image(ramp, OBLIQUE)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "unit.nii")
    found = file_formats.read(tmp_path / "unit.nii")
    assert_allclose(found.geometry.affine[:3], OBLIQUE[:3] * mm, rtol=1e-6)
    back = written_and_read(found, tmp_path / "back.nii")
    assert back.geometry.equals(found.geometry, 1e-4)
    assert nibabel.load(tmp_path / "back.nii").header.get_xyzt_units()[0] == unit  # the header is the source's own


def test_without_forms_only_a_stated_unit_gives_a_size(tmp_path: Path, ramp: np.ndarray) -> None:
    stated = save(tmp_path / "mm.nii", ramp, np.diag([2, 3, 4, 1.0]), sform_code=0, qform_code=0)
    assert file_formats.read(stated).spacing == (2.0, 3.0, 4.0) and not file_formats.read(stated).geometry.oriented
    silent = patched(stated, tmp_path / "none.nii", "B", 123, 0)
    assert file_formats.read(silent).spacing is None and file_formats.read(silent).geometry.steps == (2.0, 3.0, 4.0)
    broken = patched(stated, tmp_path / "zero.nii", "f", 84, 0.0)
    assert file_formats.read(broken).spacing is None


def test_a_qform_that_needs_a_voxel_size_the_header_lacks_is_refused(tmp_path: Path, ramp: np.ndarray) -> None:
    path = save(tmp_path / "q.nii", ramp, OBLIQUE, sform_code=0, qform_code=1)
    with pytest.raises(GeometryError, match=r"z\.nii"):
        file_formats.read(patched(path, tmp_path / "z.nii", "f", 88, 0.0))


def test_a_flat_sform_is_refused_and_the_qform_can_be_preferred(tmp_path: Path, ramp: np.ndarray) -> None:
    path = save(tmp_path / "a.nii", ramp, OBLIQUE, sform_code=2, qform_code=1)
    path = patched(path, tmp_path / "flat.nii", "4f", 280, 0, 0, 0, 0)
    with pytest.raises(GeometryError, match=r"flat\.nii: the affine is not a grid"):
        file_formats.read(path)
    assert_allclose(file_formats.read(path, prefer="qform").geometry.affine, OBLIQUE, atol=1e-4)


@pytest.mark.parametrize(("unit", "step"), [("sec", 2.0), ("msec", 2000.0), ("usec", 2e6)])
def test_a_fourth_axis_is_frames_with_times_in_seconds(tmp_path: Path, unit: str, step: float) -> None:
    series = nibabel.Nifti1Image(np.arange(120, dtype=np.float32).reshape(3, 4, 5, 2), OBLIQUE)
    series.header.set_xyzt_units("mm", unit)
    series.header["pixdim"][4] = step
    nibabel.save(series, tmp_path / "series.nii.gz")
    image = file_formats.read(tmp_path / "series.nii.gz")
    assert image.shape == (1, 2, 3, 4, 5) and image.times == pytest.approx((0.0, 2.0))
    assert_array_equal(image.data[0, 1], series.get_fdata()[..., 1])


def test_frames_without_a_time_unit_have_no_times(tmp_path: Path) -> None:
    series = nibabel.Nifti1Image(np.zeros((3, 4, 5, 2), np.uint8), OBLIQUE)
    series.header["pixdim"][4] = 2.0
    nibabel.save(series, tmp_path / "series.nii")
    assert file_formats.read(tmp_path / "series.nii").times is None


def test_a_fifth_axis_is_channels_and_longer_ones_are_refused(tmp_path: Path) -> None:
    vectors = np.arange(360, dtype=np.float32).reshape(3, 4, 5, 2, 3)
    nibabel.save(nibabel.Nifti1Image(vectors, OBLIQUE), tmp_path / "v.nii")
    assert_array_equal(file_formats.read(tmp_path / "v.nii").data, vectors.transpose(4, 3, 0, 1, 2))
    nibabel.save(nibabel.Nifti1Image(vectors[:, :, :, :, None], OBLIQUE), tmp_path / "six.nii")
    with pytest.raises(FormatError, match="Up to five axes"):
        file_formats.read(tmp_path / "six.nii")


def test_axes_of_length_one_at_the_end_are_dropped(tmp_path: Path, ramp: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(ramp[..., None, None], OBLIQUE), tmp_path / "a.nii")
    assert file_formats.read(tmp_path / "a.nii").shape == (1, 4, 5, 6)


def test_a_flat_image_is_one_slice(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.arange(12, dtype=np.uint8).reshape(3, 4), OBLIQUE), tmp_path / "flat.nii")
    image = file_formats.read(tmp_path / "flat.nii")
    assert image.geometry.shape == (3, 4, 1)
    assert_allclose(image.geometry.affine, OBLIQUE, atol=1e-5)


def test_a_picture_is_written_as_one_slice_without_sides(tmp_path: Path) -> None:
    picture = Image(np.arange(12, dtype=np.uint8).reshape(1, 3, 4), Geometry.of_pixels((3, 4)))
    back = written_and_read(picture, tmp_path / "picture.nii")
    assert (back.geometry.shape, back.geometry.physical, back.geometry.oriented) == ((4, 3, 1), False, False)
    assert_array_equal(back.data[0, :, :, 0], picture.data[0].T)


def test_a_clip_is_written_as_frames_of_one_slice(tmp_path: Path) -> None:
    voxels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(1, 2, 3, 4)
    clip = Image(voxels, Geometry.of_spacing((3, 4), (0.5, 2.0)), times=(0.0, 0.04))
    back = written_and_read(clip, tmp_path / "clip.nii")
    assert back.spacing == (2.0, 0.5, 1.0) and back.times == pytest.approx((0.0, 0.04))
    assert_array_equal(back.data[..., 0], voxels.swapaxes(-1, -2))


def test_asking_for_a_form_that_is_not_there_is_noted(tmp_path: Path, ramp: np.ndarray) -> None:
    image = file_formats.read(save(tmp_path / "a.nii", ramp, OBLIQUE, sform_code=1, qform_code=0), prefer="qform")
    assert_allclose(image.geometry.affine, OBLIQUE, atol=1e-5)
    assert "There is no qform, though it was asked for." in image.notes


# -- values ----------------------------------------------------------------------------------------------------------


def test_scaled_values_are_floats_that_are_exact_enough(tmp_path: Path) -> None:
    stored = np.array([-32768, 0, 1, 32767], np.int16).reshape(4, 1, 1)
    path = save(tmp_path / "a.nii", stored)
    scaled = file_formats.read(patched(path, tmp_path / "b.nii", "2f", 112, 0.5, 10.0))
    assert scaled.dtype == np.float32
    assert_array_equal(scaled.data.ravel(), [-16374, 10, 10.5, 16393.5])
    fine = file_formats.read(
        patched(path, tmp_path / "c.nii", "2f", 112, 2.0**-10, 4096.0)
    )  # float32 would round the steps away
    assert fine.dtype == np.float64 and len(set(fine.data.ravel().tolist())) == 4


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_a_slope_of_zero_or_nan_scales_nothing(tmp_path: Path, ramp: np.ndarray, slope: float) -> None:
    path = patched(save(tmp_path / "a.nii", ramp), tmp_path / "b.nii", "2f", 112, slope, 7.0)
    assert file_formats.read(path).dtype == np.int16
    assert_array_equal(file_formats.read(path).data[0], ramp)


def test_a_scaling_that_is_no_number_is_refused(tmp_path: Path, ramp: np.ndarray) -> None:
    path = patched(save(tmp_path / "a.nii", ramp), tmp_path / "b.nii", "2f", 112, 1.0, np.inf)
    with pytest.raises(FormatError, match=r"b\.nii: its scale factors give no usable values"):
        file_formats.read(path)


def test_voxels_that_are_no_number_stay_so(tmp_path: Path) -> None:
    voxels = np.array([np.nan, np.inf, -np.inf, 1], np.float32).reshape(1, 4, 1, 1)
    back = written_and_read(Image(voxels, Geometry((4, 1, 1), OBLIQUE)), tmp_path / "a.nii.gz")
    assert_array_equal(back.data, voxels)
    assert back.valid.sum() == 1


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_region_is_the_same_part_of_the_whole(tmp_path: Path, name: str) -> None:
    voxels = np.arange(4 * 5 * 6 * 3 * 2, dtype=np.int32).reshape(4, 5, 6, 3, 2)
    nibabel.save(nibabel.Nifti1Image(voxels, OBLIQUE), tmp_path / name)
    image = pickle.loads(pickle.dumps(file_formats.read(tmp_path / name)))  # noqa: S301
    for region in (
        (slice(0, 1), slice(1, 2), slice(1, 3), slice(None), slice(2, 4)),
        (slice(1, 2), slice(2, 3), slice(None), slice(0, 1), slice(5, 6)),
        (slice(None), slice(0, 2), slice(None), slice(None), slice(3, 3)),
        (slice(1, 2),),
        (slice(0, 2), slice(None), slice(None, None, -1)),
    ):
        assert_array_equal(image.pixels[region], image.data[region])


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path, ramp: np.ndarray) -> None:
    path = save(tmp_path / "a.nii", ramp)
    image = file_formats.read(path)
    save(path, ramp + 1)
    assert_array_equal(image.data[0], ramp + 1)


@pytest.mark.parametrize(
    ("values", "stored"),
    [([0, 3], "u1"), ([-1, 3], "i2"), ([0, 60000], "u2"), ([-1, 60000], "i4"), ([-1, 2**40], "i8"), ([2**63], "u8")],
)
def test_long_integers_are_written_in_the_smallest_type_that_holds_them(
    tmp_path: Path, values: list[int], stored: str
) -> None:
    voxels = np.array(values, np.uint64 if max(values) > 2**62 else np.int64).reshape(1, -1, 1, 1)
    back = written_and_read(Image(voxels, Geometry((len(values), 1, 1), OBLIQUE)), tmp_path / "a.nii")
    assert back.dtype == np.dtype(stored)
    assert_array_equal(back.data, voxels)


def test_colour_is_written_as_colour(tmp_path: Path) -> None:
    for name, frames in (("rgb.nii", ()), ("clip.nii", (4,))):
        voxels = np.arange(np.prod((3, *frames, 8)), dtype=np.uint8).reshape(3, *frames, 2, 2, 2)
        file_formats.write(Image(voxels, Geometry((2, 2, 2), OBLIQUE), channels=("R", "G", "B")), tmp_path / name)
        found = nibabel.load(tmp_path / name)
        assert found.get_data_dtype().names == ("R", "G", "B")
        assert_array_equal(np.asarray(found.dataobj)["G"], np.moveaxis(voxels[1], 0, -1) if frames else voxels[1])
        assert_array_equal(file_formats.read(tmp_path / name).data, voxels)


# -- headers ---------------------------------------------------------------------------------------------------------


def test_a_result_on_the_source_grid_keeps_the_source_header(tmp_path: Path, ramp: np.ndarray) -> None:
    source = nibabel.Nifti1Image(ramp, OBLIQUE)
    source.set_sform(OBLIQUE, 4)
    source.set_qform(OBLIQUE, 1)
    source.header["descrip"] = b"a head"
    source.header.extensions.append(Nifti1Extension("comment", b"kept"))
    nibabel.save(source, tmp_path / "source.nii.gz")
    image = file_formats.read(tmp_path / "source.nii.gz")
    file_formats.write(image, tmp_path / "same.nii.gz")
    same = nibabel.load(tmp_path / "same.nii.gz").header
    assert (int(same["sform_code"]), int(same["qform_code"]), bytes(same["descrip"])[:6]) == (4, 1, b"a head")
    assert [(e.get_code(), e.get_sizeondisk()) for e in same.extensions] == [(6, 16)]
    mask = image.with_pixels((image.data > 3).astype(np.uint8))
    file_formats.write(mask, tmp_path / "mask.nii.gz")
    other = nibabel.load(tmp_path / "mask.nii.gz").header
    assert (int(other["sform_code"]), int(other["qform_code"]), len(other.extensions)) == (4, 1, 0)
    assert_array_equal(same.get_sform(), other.get_sform())


@pytest.mark.parametrize(("unit", "start", "each"), [("msec", 1.5, 0.05), ("sec", 1500.0, 50.0), ("unknown", 0, 0)])
def test_all_times_of_a_copied_header_are_in_the_unit_that_it_states(
    tmp_path: Path, unit: str, start: float, each: float
) -> None:
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4, 5), np.int16), OBLIQUE)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = 2.0
    image.header["toffset"], image.header["slice_duration"] = 1500.0, 50.0
    nibabel.save(image, tmp_path / "a.nii")
    scan = file_formats.read(tmp_path / "a.nii")
    file_formats.write(
        scan if unit != "unknown" else replace(scan, times=(0.0, 2.0, 4.0, 6.0, 8.0)), tmp_path / "b.nii"
    )
    header = nibabel.load(tmp_path / "b.nii").header
    assert header.get_xyzt_units() == ("mm", "sec")
    assert (header["toffset"], header["slice_duration"]) == pytest.approx((start, each))


def test_the_old_scaling_is_not_applied_to_a_result(data: Path, tmp_path: Path) -> None:
    image = file_formats.read(data / "nifti" / "nib_functional_20vol.nii")
    back = written_and_read(image.with_pixels(np.ones_like(image.data)), tmp_path / "ones.nii")
    assert (back.data == 1).all()


def test_a_result_on_another_grid_gets_a_header_of_its_own(tmp_path: Path, ramp: np.ndarray) -> None:
    image = file_formats.read(save(tmp_path / "a.nii", ramp, OBLIQUE, sform_code=4))
    region = (slice(1, 3), slice(0, 5), slice(2, 6))
    part = image.with_pixels(image.data[(slice(None), *region)], image.geometry.crop(region))
    back = written_and_read(part, tmp_path / "part.nii")
    assert back.geometry.equals(part.geometry, 1e-4)
    assert int(nibabel.load(tmp_path / "part.nii").header["sform_code"]) == 1


def test_a_label_map_says_that_it_is_one(tmp_path: Path) -> None:
    labels = (Label(1, "anterior"), Label(2, "posterior"))
    image = Image(np.ones((1, 2, 2, 2), np.uint8), Geometry((2, 2, 2), OBLIQUE), labels=labels)
    file_formats.write(image, tmp_path / "labels.nii")
    assert nibabel.load(tmp_path / "labels.nii").header.get_intent()[0] == "label"


def test_the_same_image_gives_the_same_bytes(tmp_path: Path) -> None:
    image = Image(np.ones((1, 2, 2, 2), np.uint8), Geometry((2, 2, 2), OBLIQUE))
    file_formats.write(image, tmp_path / "a.nii.gz")
    file_formats.write(image, tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_grid_too_far_for_float32_is_written_as_nifti_2(tmp_path: Path) -> None:
    affine = OBLIQUE.copy()
    affine[:3, 3] = 123456.789
    image = Image(np.zeros((1, 2, 2, 2), np.uint8), Geometry((2, 2, 2), affine))
    back = written_and_read(image, tmp_path / "far.nii")
    assert back.geometry.equals(image.geometry, 1e-4)
    assert type(nibabel.load(tmp_path / "far.nii")).__name__ == "Nifti2Image"


def test_a_longer_axis_than_nifti_1_counts_is_written_as_nifti_2(tmp_path: Path) -> None:
    image = Image(np.ones((1, 40000, 1, 1), np.uint8), Geometry((40000, 1, 1), np.eye(4)))
    assert written_and_read(image, tmp_path / "long.nii").shape == (1, 40000, 1, 1)


# -- refusals --------------------------------------------------------------------------------------------------------


def test_a_truncated_file_is_refused_when_it_is_read(tmp_path: Path, ramp: np.ndarray) -> None:
    whole = save(tmp_path / "a.nii", ramp).read_bytes()
    (tmp_path / "short.nii").write_bytes(whole[:-7])
    with pytest.raises(FormatError, match=r"short\.nii: the voxels are cut short: the header promises 592 .* 585"):
        file_formats.read(tmp_path / "short.nii")
    (tmp_path / "head.nii").write_bytes(whole[:100])
    with pytest.raises(FormatError, match=r"head\.nii: a header of 100 bytes"):
        file_formats.read(tmp_path / "head.nii")


def test_a_truncated_gzip_is_refused_when_it_is_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 20), dtype=np.uint8)
    whole = save(tmp_path / "a.nii.gz", noise).read_bytes()
    for length in (12, 200, len(whole) // 2, len(whole) - 9, len(whole) - 3):
        (tmp_path / "short.nii.gz").write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"short\.nii\.gz"):
            file_formats.read(tmp_path / "short.nii.gz")


def test_a_damaged_gzip_is_refused_when_its_voxels_are_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 20), dtype=np.uint8)
    whole = bytearray(save(tmp_path / "a.nii.gz", noise).read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    (tmp_path / "bad.nii.gz").write_bytes(bytes(whole))
    image = file_formats.read(tmp_path / "bad.nii.gz")
    with pytest.raises(FormatError, match=r"bad\.nii\.gz: the compressed voxels"):
        _ = image.data


def test_a_gzip_of_several_members_is_whole(tmp_path: Path, ramp: np.ndarray) -> None:
    plain = save(tmp_path / "a.nii", ramp).read_bytes()
    (tmp_path / "two.nii.gz").write_bytes(gzip.compress(plain[:400]) + gzip.compress(plain[400:] + b"trailing"))
    assert_array_equal(file_formats.read(tmp_path / "two.nii.gz").data[0], ramp)


def test_the_name_does_not_decide_whether_a_file_is_compressed(tmp_path: Path, ramp: np.ndarray) -> None:
    shutil.copy(save(tmp_path / "a.nii.gz", ramp), tmp_path / "b.nii")
    assert_array_equal(file_formats.read(tmp_path / "b.nii").data[0], ramp)


def test_a_header_that_promises_terabytes_is_refused_at_once(tmp_path: Path, ramp: np.ndarray) -> None:
    plain = patched(save(tmp_path / "a.nii", ramp), tmp_path / "b.nii", "3h", 42, 32000, 32000, 32000)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(plain.read_bytes()))
    for name in ("b.nii", "b.nii.gz"):
        with pytest.raises(FormatError, match=name.replace(".", r"\.")):
            file_formats.read(tmp_path / name)


@pytest.mark.parametrize(
    ("form", "offset", "value", "reason"),
    [("h", 70, 1, "not supported.*Convert"), ("h", 70, 999, "damaged"), ("h", 42, -4, "axes of"),
     ("h", 40, 9, "damaged"), ("h", 68, 3001, "CIFTI"), ("h", 68, 1009, "triangles of a surface")],
)  # fmt: skip
def test_what_is_no_volume_is_refused_by_name(
    tmp_path: Path, ramp: np.ndarray, form: str, offset: int, value: int, reason: str
) -> None:
    path = patched(save(tmp_path / "a.nii", ramp), tmp_path / "b.nii", form, offset, value)
    with pytest.raises(FormatError, match=rf"b\.nii: .*{reason}"):
        file_formats.read(path)


def test_a_single_file_without_a_magic_number_is_refused(tmp_path: Path, ramp: np.ndarray) -> None:
    path = patched(save(tmp_path / "a.nii", ramp), tmp_path / "b.nii", "i", 344, 0)
    with pytest.raises(FormatError, match=r"b\.nii: .*no magic number"):  # as Analyze it would lose its sides
        file_formats.read(path)


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_voxels_that_would_begin_within_the_header_are_refused(tmp_path: Path, ramp: np.ndarray, offset: float) -> None:
    path = patched(save(tmp_path / "a.nii", ramp), tmp_path / "b.nii", "f", 108, offset)
    raw = bytearray(path.read_bytes())
    raw[344:348] = b"ni1\0"  # that of the header of a pair
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=r"b\.nii: .*within the header"):
        file_formats.read(path)


def test_no_single_byte_of_a_header_makes_reading_crash(tmp_path: Path, ramp: np.ndarray) -> None:
    whole = save(tmp_path / "a.nii", ramp).read_bytes()
    path = tmp_path / "b.nii"
    for offset in range(0, 348, 3):
        for byte in (0x00, 0xFF):
            path.write_bytes(whole[:offset] + bytes([byte]) + whole[offset + 1 :])
            try:
                assert np.isfinite(file_formats.read(path).geometry.affine).all()
            except (FormatError, GeometryError) as error:
                assert error.remedy and "b.nii" in str(error)


def test_an_analyze_pair_has_a_size_but_no_sides(tmp_path: Path, ramp: np.ndarray) -> None:
    nibabel.save(nibabel.AnalyzeImage(ramp, np.diag([2, 3, 4, 1.0])), tmp_path / "old.img")
    image = file_formats.read(tmp_path / "old.hdr")
    assert (image.spacing, image.geometry.oriented) == ((2.0, 3.0, 4.0), False)
    assert_array_equal(image.data[0], ramp)


def test_what_nifti_cannot_hold_is_refused(tmp_path: Path) -> None:
    voxels = np.zeros((1, 2, 2, 2), np.uint8)
    turned = Geometry((2, 2, 2), OBLIQUE, oriented=False)
    with pytest.raises(FormatError, match="rotated axes whose orientation is unknown"):
        file_formats.write(Image(voxels, turned), tmp_path / "a.nii")
    with pytest.raises(FormatError, match="an orientation only for three axes in mm"):
        file_formats.write(Image(voxels, Geometry((2, 2, 2), OBLIQUE, physical=False)), tmp_path / "a.nii")
    with pytest.raises(FormatError, match="complex"):
        file_formats.write(Image(voxels.astype(np.complex64), Geometry((2, 2, 2), OBLIQUE)), tmp_path / "a.nii")
    with pytest.raises(FormatError, match="single file"):
        file_formats.write(Image(voxels, Geometry((2, 2, 2), OBLIQUE)), tmp_path / "a.img")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    image = Image(np.zeros((1, 2, 2, 2), np.uint8), Geometry((2, 2, 2), OBLIQUE))
    (tmp_path / "a.nii").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        file_formats.write(image, tmp_path / "a.nii")
    file_formats.write(image, tmp_path / "a.nii", overwrite=True)
    assert file_formats.read(tmp_path / "a.nii").shape == image.shape


@pytest.mark.parametrize(
    ("record", "modality"),
    [
        (b'{"Modality": "MR", "MagneticFieldStrength": 3}', "MR"),
        (b'{"Modality": "PT"}', "PT"),
        (b'{"Modality": "my own word"}', "unknown"),
        (b'{"Modality": ["MR"]}', "unknown"),
        (b'["Modality", "MR"]', "unknown"),
        (b'{"Modality": "MR"', "unknown"),
        (b"\xff\xfe\x00", "unknown"),
        (b"[" * 100_000, "unknown"),
        (b'{"Modality": "MR", "more": "' + b"x" * (1 << 20) + b'"}', "unknown"),
    ],
    ids=["MR", "PT", "no code", "a list", "no object", "cut short", "no text", "deep", "too large"],
)
def test_the_record_in_an_images_folder_states_its_modality(
    record: bytes, modality: str, ramp: np.ndarray, tmp_path: Path
) -> None:
    path = save(tmp_path / "head.nii.gz", ramp)
    (tmp_path / "head.json").write_bytes(record)
    image = file_formats.read(path)
    assert image.modality == modality
    assert any("head.json" in note for note in image.notes) == (modality != "unknown")


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
@pytest.mark.parametrize(
    "series", real_data.parameters("dicom/series", ["mr_hitachi_oblique", "mr_ge_epi_interleaved_3vol"])
)
def test_what_dcm2niix_writes_has_the_modality_of_its_series(series: str, tmp_path: Path) -> None:
    folder = real_data.find(f"dicom/series/{series}")
    subprocess.run(["dcm2niix", "-z", "y", "-f", "x", "-o", tmp_path, folder], check=True, capture_output=True)
    assert file_formats.read(tmp_path / "x.nii.gz").modality == file_formats.read(folder).modality == "MR"


@pytest.mark.parametrize("name", ["head.nii.gz", "head.nii", "head.HDR", "head.img", "head.img.gz", "head"])
def test_a_volume_is_named_after_its_file(name: str) -> None:
    assert nifti_reading.stem_of_nifti(Path("/somewhere") / name) == "head"


def test_voxels_beside_a_header_that_begin_with_a_header_of_their_own_are_refused(tmp_path: Path) -> None:
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nibabel.save(nibabel.Nifti1Pair(voxels, np.eye(4)), tmp_path / "a.hdr")
    plain = (tmp_path / "a.img").read_bytes()
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "whole.nii")
    (tmp_path / "a.img").write_bytes((tmp_path / "whole.nii").read_bytes())
    with pytest.raises(FormatError, match=r"a\.img holds 352 bytes more than the header describes.*vox_offset"):
        file_formats.read(tmp_path / "a.hdr")
    (tmp_path / "a.img").write_bytes(plain + bytes(range(1, 11)))
    image = file_formats.read(tmp_path / "a.hdr")
    assert_array_equal(image.data[0], voxels)
    assert "10 bytes behind the voxels were left out." in image.notes
