"""MetaImage: compared with ITK, which made the format, and a round trip that moves nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.errors import FormatError, GeometryError
from hilum.files import file_formats
from hilum.values import Geometry, Image
from strategies import geometries, images, unknown_geometries

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
HEAD = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\nElementSpacing = 2 3 4\nDimSize = 2 3 4\n"
    "ElementType = MET_SHORT\n"
)
RAMP = np.arange(24, dtype="<i2").reshape(2, 3, 4)
VOXELS = RAMP.tobytes(order="F")


def itk_affine(image: SimpleITK.Image) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return LPS @ affine


def saved(path: Path, head: str = HEAD, data: str = "LOCAL", voxels: bytes = VOXELS) -> Path:
    path.write_bytes(f"{head}ElementDataFile = {data}\n".encode() + voxels)
    return path


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(images(st.one_of(geometries(), unknown_geometries())))
def test_what_is_written_comes_back_with_the_same_values_in_the_same_place(image: Image) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.mha"
        file_formats.write(image, path)
        back = file_formats.read(path)
        assert back.geometry.equals(image.geometry, 1e-8)
        assert back.shape == image.shape
        assert_array_equal(back.data, image.data)


@given(geometries(sheared=False))
def test_itk_finds_the_voxels_in_the_same_place_and_we_find_its_own(geometry: Geometry) -> None:
    values = np.arange(np.prod(geometry.shape), dtype=np.int16).reshape(1, *geometry.shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ours.mha"
        file_formats.write(Image(values, geometry), path)
        found = SimpleITK.ReadImage(path)
        assert_allclose(itk_affine(found), geometry.affine, atol=1e-6)
        assert_array_equal(SimpleITK.GetArrayFromImage(found).T, values[0])
        for name, packed in (("plain.mha", False), ("packed.mha", True), ("two.mhd", True)):
            SimpleITK.WriteImage(found, Path(folder) / name, packed)
            again = file_formats.read(Path(folder) / name)
            assert_allclose(again.geometry.affine, geometry.affine, atol=1e-6)
            assert_array_equal(again.data, values)


def test_a_real_file_agrees_with_itk(data: Path) -> None:
    path = data / "nifti" / "niivue_mha.mha"
    image, found = file_formats.read(path), SimpleITK.ReadImage(path)
    assert image.geometry.orientation == "LAS"
    assert_allclose(image.geometry.affine, itk_affine(found), atol=1e-9)
    assert_array_equal(image.data[0], SimpleITK.GetArrayFromImage(found).T)
    part = (slice(0, 1), slice(3, 9), slice(None), slice(30, 32))
    assert_array_equal(image.pixels[part], image.data[part])


def test_a_shear_survives(tmp_path: Path) -> None:
    sheared = np.array([[1, 0, 0.3, 5], [0, 2, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    file_formats.write(Image(np.zeros((1, 2, 3, 4), np.uint8), Geometry((2, 3, 4), sheared)), tmp_path / "a.mha")
    assert file_formats.read(tmp_path / "a.mha").geometry.is_sheared
    assert_allclose(file_formats.read(tmp_path / "a.mha").geometry.affine, sheared, atol=1e-9)


def test_a_picture_that_itk_wrote_has_rows_and_columns(tmp_path: Path) -> None:
    picture = SimpleITK.GetImageFromArray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    picture.SetSpacing((0.5, 2.0))
    SimpleITK.WriteImage(picture, tmp_path / "a.mha")
    image = file_formats.read(tmp_path / "a.mha")
    assert image.geometry.shape == (2, 3) and image.spacing == (2.0, 0.5)
    assert_array_equal(image.data[0], [[0, 1, 2], [3, 4, 5]])
    file_formats.write(image, tmp_path / "b.mha")
    assert file_formats.read(tmp_path / "b.mha").geometry.equals(image.geometry, 1e-4)


def test_colours_and_frames_of_itk_become_channels_and_frames(tmp_path: Path) -> None:
    voxels = np.arange(2 * 4 * 3 * 2 * 3, dtype=np.uint8).reshape(2, 4, 3, 2, 3)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels, isVector=True), tmp_path / "a.mha")
    image = file_formats.read(tmp_path / "a.mha")
    assert image.shape == (3, 2, 2, 3, 4)
    assert_array_equal(image.data, voxels.transpose(4, 0, 3, 2, 1))


def test_what_the_header_does_not_say_is_unknown(tmp_path: Path) -> None:
    unturned = HEAD.replace("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", "")
    geometry = file_formats.read(saved(tmp_path / "a.mha", unturned)).geometry
    assert (geometry.oriented, geometry.spacing) == (False, (2.0, 3.0, 4.0))
    assert (
        file_formats.read(saved(tmp_path / "b.mha", unturned.replace("ElementSpacing = 2 3 4\n", ""))).spacing is None
    )


def test_the_voxels_may_stand_in_a_file_beside_the_header(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"skipped" + VOXELS)
    for skip in ("7", "-1"):
        path = saved(tmp_path / "a.mhd", HEAD + f"HeaderSize = {skip}\n", "a.raw", b"")
        assert_array_equal(file_formats.read(path).data[0], RAMP)
    for name in ("/etc/passwd", "../a.raw", "LIST", "slice%03d.raw 1 4 1", "gone.raw"):
        with pytest.raises(FormatError, match=r"b\.mhd"):
            file_formats.read(saved(tmp_path / "b.mhd", HEAD, name, b""))


@pytest.mark.parametrize(("line", "after"), [("HeaderSize = -1\n", ()), ("HeaderSize = 0\n", None), ("", None)])
def test_a_header_of_the_raw_file_that_nobody_stated_is_refused(tmp_path: Path, line: str, after: object) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(100) + VOXELS)
    path = saved(tmp_path / "a.mhd", HEAD + line, "a.raw", b"")
    if not line:
        with pytest.raises(FormatError, match=r"a\.raw holds 100 bytes more than the header describes"):
            file_formats.read(path)
        return
    image = file_formats.read(path)
    assert image.notes == (() if after == () else ("100 bytes behind the voxels were left out.",))
    assert np.array_equal(image.data[0], RAMP) is (after == ())


def test_text_and_big_endian_voxels_are_read(tmp_path: Path) -> None:
    text = " ".join(str(n) for n in RAMP.ravel(order="F")).encode()
    assert_array_equal(
        file_formats.read(saved(tmp_path / "a.mha", HEAD.replace("True", "False"), voxels=text)).data[0], RAMP
    )
    big = HEAD.replace("MSB = False", "MSB = True")
    swapped = saved(tmp_path / "b.mha", big, voxels=RAMP.astype(">i2").tobytes(order="F"))
    assert_array_equal(file_formats.read(swapped).data[0], RAMP)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("MET_SHORT", "MET_BLOB", "voxels of type 'MET_BLOB'"),
        ("DimSize = 2 3 4", "DimSize = 2 3", "axes of"),
        ("DimSize = 2 3 4", "DimSize = 2 3 40", "cut short"),
        ("DimSize = 2 3 4", "DimSize = 2 three 4", "DimSize is"),
        ("Offset = 1 2 3", "Offset = 1 2", "Offset is"),
        ("ElementType", "Nothing here\nElementType", "no ElementDataFile"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    with pytest.raises(FormatError, match=rf"a\.mha: .*{reason}"):
        file_formats.read(saved(tmp_path / "a.mha", HEAD.replace(old, new)))


@pytest.mark.parametrize(("unit", "mm"), [("um", 1e-3), ("mm", 1.0), ("cm", 10.0), ("?", 1.0)])
def test_distances_in_another_unit_become_mm(tmp_path: Path, unit: str, mm: float) -> None:
    image = file_formats.read(saved(tmp_path / "a.mha", f"{HEAD}DistanceUnits = {unit}\n"))
    assert image.spacing == pytest.approx((2 * mm, 3 * mm, 4 * mm))
    assert_allclose(image.geometry.to_world((0, 0, 0)), (-1 * mm, -2 * mm, 3 * mm))


def test_an_unknown_unit_of_distance_leaves_the_size_unknown(tmp_path: Path) -> None:
    image = file_formats.read(saved(tmp_path / "a.mha", f"{HEAD}DistanceUnits = furlong\n"))
    assert image.spacing is None and "furlong" in image.notes[0]


@pytest.mark.parametrize("word", ["True", "true", "T", "1"])
def test_a_truth_is_known_by_its_first_letter(tmp_path: Path, word: str) -> None:
    head = HEAD.replace("MSB = False", f"MSB = {word}")
    path = saved(tmp_path / "a.mha", head, voxels=RAMP.astype(">i2").tobytes(order="F"))
    assert_array_equal(file_formats.read(path).data[0], RAMP)
    assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)).T, RAMP)


@pytest.mark.parametrize(
    ("line", "reason"),
    [("CompressedData = Yes", "CompressedData is 'Yes'"), ("ElementByteOrderMSB = True", "ElementByteOrderMSB")],
)
def test_truths_that_nobody_knows_or_that_contradict_each_other_are_refused(
    tmp_path: Path, line: str, reason: str
) -> None:
    with pytest.raises(FormatError, match=rf"a\.mha: .*{reason}"):
        file_formats.read(saved(tmp_path / "a.mha", f"{HEAD}{line}\n"))


def test_a_flat_direction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"a\.mha: the affine is not a grid"):
        file_formats.read(saved(tmp_path / "a.mha", HEAD.replace("0 0 0 1\n", "0 0 0 0\n")))


def test_a_compressed_file_cut_short_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 99, (1, 9, 9, 9)).astype(np.int16)
    file_formats.write(Image(noise, Geometry((9, 9, 9), np.eye(4))), tmp_path / "a.mha")
    (tmp_path / "b.mha").write_bytes((tmp_path / "a.mha").read_bytes()[:-50])
    with pytest.raises(FormatError, match=r"b\.mha: the compressed voxels end too early"):
        _ = file_formats.read(tmp_path / "b.mha").data


def test_what_metaimage_cannot_hold_is_refused(tmp_path: Path) -> None:
    voxels = np.zeros((1, 2, 2, 2), np.uint8)
    unknown = Geometry((2, 2, 2), np.diag([2, 2, 2, 1.0]), physical=False, oriented=False)
    turned = Geometry((2, 2, 2), np.diag([-2, 2, 2, 1.0]), oriented=False)
    for geometry in (unknown, turned, Geometry((2, 2, 2), np.eye(4), physical=False)):
        with pytest.raises(FormatError, match="Write it as NRRD"):
            file_formats.write(Image(voxels, geometry), tmp_path / "a.mha")
    with pytest.raises(FormatError, match="single file"):
        file_formats.write(Image(voxels, Geometry((2, 2, 2), np.eye(4))), tmp_path / "a.mhd")
    assert list(tmp_path.iterdir()) == []
