"""NRRD: its spaces, kinds, units and segments, compared with ITK's reader, and a round trip that moves nothing."""

from __future__ import annotations

import bz2
import gzip
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
from hilum.values import Code, Geometry, Image, Label
from strategies import geometries, images, unknown_geometries

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def nrrd(path: Path, voxels: np.ndarray, *lines: str, encoding: str = "raw") -> Path:
    """A file with this header; voxels with the first axis fastest."""
    kind = {"int16": "short", "uint8": "uchar", "float32": "float"}[str(voxels.dtype)]
    plain = voxels.tobytes(order="F")
    packed = {
        "raw": lambda: plain,
        "gzip": lambda: gzip.compress(plain),
        "bzip2": lambda: bz2.compress(plain),
        "hex": lambda: plain.hex(sep="\n", bytes_per_sep=7).encode(),
        "ascii": lambda: " ".join(str(n) for n in voxels.ravel(order="F")).encode(),
    }[encoding]()
    head = [f"type: {kind}", f"dimension: {voxels.ndim}", f"sizes: {' '.join(map(str, voxels.shape))}"]
    head += ["endian: little", f"encoding: {encoding}", *lines]
    path.write_bytes(("NRRD0004\n# a comment\n" + "\n".join(head) + "\n\n").encode() + packed)
    return path


def itk_affine(image: SimpleITK.Image) -> np.ndarray:
    """Index to RAS mm, as ITK understood the file."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return LPS @ affine


@pytest.fixture
def ramp() -> np.ndarray:
    return np.arange(24, dtype=np.int16).reshape(2, 3, 4)


# -- the law ---------------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(images(st.one_of(geometries(), unknown_geometries())))
def test_what_is_written_comes_back_with_the_same_values_in_the_same_place(image: Image) -> None:
    with tempfile.TemporaryDirectory() as folder:
        back = written_and_read(image, Path(folder) / "image.nrrd")
        assert back.geometry.equals(image.geometry, 1e-9)
        assert back.shape == image.shape
        assert_array_equal(back.data, image.data)
        assert back.times == (image.times if image.times is None else pytest.approx(image.times))


@given(geometries(sheared=False))
def test_itk_finds_the_voxels_in_the_same_place(geometry: Geometry) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.nrrd"
        values = np.arange(np.prod(geometry.shape), dtype=np.int16).reshape(1, *geometry.shape)
        file_formats.write(Image(values, geometry), path)
        found = SimpleITK.ReadImage(path)
        assert_allclose(itk_affine(found), geometry.affine, atol=1e-6)
        assert_array_equal(SimpleITK.GetArrayFromImage(found).T, values[0])


@given(geometries(sheared=False))
def test_what_itk_writes_is_read_in_the_same_place(geometry: Geometry) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.nrrd"
        written_by_itk(geometry, path)
        assert_allclose(file_formats.read(path).geometry.affine, geometry.affine, atol=1e-6)


@pytest.mark.parametrize(("channels", "frames"), [(3, ()), (1, (2,))])
def test_itk_reads_channels_or_frames_as_components(tmp_path: Path, channels: int, frames: tuple[int, ...]) -> None:
    voxels = np.arange(channels * max(1, *frames, 1) * 24, dtype=np.int16).reshape(channels, *frames, 2, 3, 4)
    file_formats.write(Image(voxels, Geometry((2, 3, 4), np.diag([2, 3, 4, 1.0]))), tmp_path / "a.nrrd")
    found = SimpleITK.ReadImage(tmp_path / "a.nrrd")
    assert_allclose(itk_affine(found), np.diag([2, 3, 4, 1.0]))
    assert_array_equal(
        np.moveaxis(SimpleITK.GetArrayFromImage(found), -1, 0).T, np.moveaxis(voxels.reshape(-1, 2, 3, 4), 0, -1)
    )


def written_by_itk(geometry: Geometry, path: Path) -> None:
    image = SimpleITK.GetImageFromArray(np.zeros(geometry.shape[::-1], np.uint8))
    affine = LPS @ geometry.affine
    image.SetDirection((affine[:3, :3] / np.array(geometry.steps)).ravel().tolist())
    image.SetSpacing(geometry.steps)
    image.SetOrigin(affine[:3, 3].tolist())
    SimpleITK.WriteImage(image, path)


def written_and_read(image: Image, path: Path) -> Image:
    file_formats.write(image, path)
    return file_formats.read(path)


# -- real files ------------------------------------------------------------------------------------------------------


def test_one_picture_in_two_formats_lies_in_one_place(corpus: Path) -> None:
    one, other = (
        file_formats.read(corpus / "nifti" / "niivue_FLAIR.nrrd"),
        file_formats.read(corpus / "mri/single_cases/brain_flair_image.nii.gz"),
    )
    assert one.geometry.is_oblique
    assert one.geometry.equals(other.geometry, 1e-3)
    assert_array_equal(one.data, other.data)


def test_a_head_that_itk_wrote_anew_lies_where_its_nifti_lies(data: Path, tmp_path: Path) -> None:
    nifti = data / "nifti" / "niivue_space_ASR.nii.gz"
    SimpleITK.WriteImage(SimpleITK.ReadImage(nifti), tmp_path / "head.nrrd", True)
    check_against_itk(tmp_path / "head.nrrd")
    head, other = file_formats.read(tmp_path / "head.nrrd"), file_formats.read(nifti)
    assert head.geometry.equals(other.geometry, 1e-3)
    assert_allclose(head.data, other.data, rtol=1e-6)


def test_a_real_volume_agrees_with_itk(corpus: Path) -> None:
    check_against_itk(corpus / "nifti" / "niivue_FLAIR.nrrd")


def check_against_itk(path: Path) -> None:
    """A volume has the grid and the values that ITK finds, and a part of it is that part of the whole."""
    found = SimpleITK.ReadImage(path)
    image = file_formats.read(path)
    assert_allclose(image.geometry.affine, itk_affine(found), atol=1e-9)
    assert_array_equal(image.data[0], SimpleITK.GetArrayFromImage(found).T)
    part = (slice(0, 1), slice(3, 9), slice(None), slice(30, 32))
    assert_array_equal(file_formats.read(path).pixels[part], image.data[part])


# -- spaces and units ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("LAS", (-1, 1, 1)),
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
    ],
)
def test_every_patient_space_becomes_ras(tmp_path: Path, ramp: np.ndarray, space: str, signs: tuple[int, ...]) -> None:
    path = nrrd(
        tmp_path / "a.nrrd", ramp, f"space: {space}", "space directions: (2,0,0) (0,3,0) (0,0,4)",
        "space origin: (10,20,30)",
    )  # fmt: skip
    affine = file_formats.read(path).geometry.affine
    assert_allclose(np.diag(affine)[:3], np.array(signs) * (2, 3, 4))
    assert_allclose(affine[:3, 3], np.array(signs) * (10, 20, 30))
    assert_allclose(affine, itk_affine(SimpleITK.ReadImage(path)))


def test_a_space_that_is_not_the_patient_leaves_sides_unknown(tmp_path: Path, ramp: np.ndarray) -> None:
    lines = ("space directions: (2,0,0) (0,3,0) (0,0,4)", "space origin: (0,0,0)")
    for space in ("space: scanner-xyz", "space: 3D-left-handed", "space dimension: 3"):
        geometry = file_formats.read(nrrd(tmp_path / "a.nrrd", ramp, space, *lines)).geometry
        assert (geometry.oriented, geometry.spacing) == (False, (2.0, 3.0, 4.0))


def test_a_position_that_is_not_stated_is_unknown(tmp_path: Path, ramp: np.ndarray) -> None:
    path = nrrd(tmp_path / "a.nrrd", ramp, "space: RAS", "space directions: (2,0,0) (0,3,0) (0,0,4)")
    assert not file_formats.read(path).geometry.oriented
    assert any("no origin" in note for note in file_formats.read(path).notes)


def test_spacings_alone_give_a_size_without_sides(tmp_path: Path, ramp: np.ndarray) -> None:
    image = file_formats.read(nrrd(tmp_path / "a.nrrd", ramp, "spacings: 2 3 4"))
    assert (image.spacing, image.geometry.oriented) == ((2.0, 3.0, 4.0), False)
    assert any("no unit" in note for note in image.notes)


def test_spacings_that_are_nan_are_no_size(tmp_path: Path, ramp: np.ndarray) -> None:
    assert file_formats.read(nrrd(tmp_path / "a.nrrd", ramp, "spacings: 2 3 nan")).spacing is None
    assert file_formats.read(nrrd(tmp_path / "b.nrrd", ramp)).spacing is None


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1.0), ("cm", 10.0), ("um", 1e-3), ("µm", 1e-3)])
def test_units_of_length_become_mm(tmp_path: Path, ramp: np.ndarray, unit: str, mm: float) -> None:
    units = " ".join([f'"{unit}"'] * 3)
    by_axis = file_formats.read(nrrd(tmp_path / "a.nrrd", ramp, "spacings: 2 3 4", f"units: {units}"))
    in_space = file_formats.read(
        nrrd(tmp_path / "b.nrrd", ramp, "space: RAS", "space directions: (2,0,0) (0,3,0) (0,0,4)",
             "space origin: (1,1,1)", f"space units: {units}")
    )  # fmt: skip
    for image in (by_axis, in_space):
        assert_allclose(image.spacing, np.array([2, 3, 4]) * mm)
    assert_allclose(in_space.geometry.affine[:3, 3], mm)


def test_a_unit_that_is_no_length_gives_no_size(tmp_path: Path, ramp: np.ndarray) -> None:
    assert (
        file_formats.read(nrrd(tmp_path / "a.nrrd", ramp, "spacings: 1 1 1", 'units: "px" "px" "px"')).spacing is None
    )


def test_directions_that_span_no_volume_are_refused(tmp_path: Path, ramp: np.ndarray) -> None:
    path = nrrd(tmp_path / "a.nrrd", ramp, "space: RAS", "space directions: (1,0,0) (1,0,0) (0,0,1)",
                "space origin: (0,0,0)")  # fmt: skip
    with pytest.raises(GeometryError, match=r"a\.nrrd: the affine is not a grid"):
        file_formats.read(path)


# -- axes ------------------------------------------------------------------------------------------------------------


def test_an_axis_of_vectors_becomes_channels_and_one_of_time_frames(tmp_path: Path) -> None:
    voxels = np.arange(2 * 3 * 4 * 5 * 2, dtype=np.int16).reshape(2, 3, 4, 5, 2)
    path = nrrd(
        tmp_path / "a.nrrd", voxels, "space: LPS", "space directions: none (1,0,0) (0,1,0) (0,0,1) none",
        "space origin: (0,0,0)", "kinds: vector domain domain domain time", "spacings: nan nan nan nan 250",
        'units: "" "" "" "" "ms"',
    )  # fmt: skip
    image = file_formats.read(path)
    assert image.shape == (2, 2, 3, 4, 5) and image.times == (0.0, 0.25)
    assert_array_equal(image.data, voxels.transpose(0, 4, 1, 2, 3))


def test_a_list_of_diffusion_volumes_is_frames_with_their_weighting(tmp_path: Path) -> None:
    path = nrrd(
        tmp_path / "a.nrrd", np.zeros((3, 2, 2, 2), np.int16), "kinds: list domain domain domain",
        "modality:=DWMRI", "DWMRI_b-value:=1000", "DWMRI_gradient_0000:=0 0 0", "DWMRI_gradient_0001:=0.5 0 0",
        "DWMRI_gradient_0002:=0 0.6 0.8",
    )  # fmt: skip
    assert file_formats.read(path).frames == 3
    assert file_formats.read(path).facts["b_values"] == pytest.approx((0, 250, 1000))


def test_a_space_with_time_has_frames(tmp_path: Path) -> None:
    path = nrrd(
        tmp_path / "a.nrrd", np.zeros((2, 3, 4, 5), np.uint8), "space: right-anterior-superior-time",
        "space directions: (1,0,0,0) (0,1,0,0) (0,0,1,0) (0,0,0,2)", "space origin: (0,0,0,0)",
    )  # fmt: skip
    assert file_formats.read(path).shape == (1, 5, 2, 3, 4)
    assert file_formats.read(path).geometry.orientation == "RAS"


def test_colours_are_named(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "a.nrrd", np.zeros((3, 2, 2, 2), np.uint8), "kinds: RGB-color domain domain domain")
    assert file_formats.read(path).channels == ("R", "G", "B")
    assert written_and_read(file_formats.read(path), tmp_path / "b.nrrd").channels == ("R", "G", "B")


def test_complex_voxels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="complex numbers"):
        file_formats.read(
            nrrd(tmp_path / "a.nrrd", np.zeros((2, 2, 2, 2), np.float32), "kinds: complex domain domain domain")
        )


def test_four_axes_without_a_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"4 axes of space.*kinds"):
        file_formats.read(nrrd(tmp_path / "a.nrrd", np.zeros((2, 2, 2, 2), np.uint8)))


def test_a_flat_file_is_a_picture_of_rows_and_columns(tmp_path: Path) -> None:
    voxels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    image = file_formats.read(nrrd(tmp_path / "a.nrrd", voxels, "spacings: 0.5 2", 'units: "mm" "mm"'))
    assert image.geometry.shape == (3, 2) and image.spacing == (2.0, 0.5)
    assert_array_equal(image.data[0], voxels.T)
    back = written_and_read(image, tmp_path / "b.nrrd")
    assert back.geometry.equals(image.geometry, 1e-4)
    assert_array_equal(back.data, image.data)


def test_a_slice_in_space_is_a_volume_of_one_slice(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "a.nrrd", np.zeros((2, 3), np.uint8), "space: LPS",
                "space directions: (0,2,0) (0,0,-3)", "space origin: (1,2,3)")  # fmt: skip
    geometry = file_formats.read(path).geometry
    assert geometry.shape == (2, 3, 1)
    assert_allclose(geometry.to_world((1, 1, 0)), (-1, -4, 0))


# -- encodings and files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "hex", "ascii"])
def test_every_encoding_gives_the_same_voxels(tmp_path: Path, ramp: np.ndarray, encoding: str) -> None:
    image = file_formats.read(nrrd(tmp_path / "a.nrrd", ramp, encoding=encoding))
    assert_array_equal(image.data[0], ramp)
    assert_array_equal(image.pixels[(slice(0, 1), slice(1, 2), slice(0, 3), slice(2, 4))], ramp[None, 1:2, :, 2:4])


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "hex", "ascii"])
def test_a_file_cut_short_is_refused(tmp_path: Path, encoding: str) -> None:
    noise = np.random.default_rng(0).integers(0, 99, (10, 10, 10)).astype(np.int16)
    whole = nrrd(tmp_path / "a.nrrd", noise, encoding=encoding).read_bytes()
    (tmp_path / "b.nrrd").write_bytes(whole[:-60])
    with pytest.raises(FormatError, match=r"b\.nrrd"):
        _ = file_formats.read(tmp_path / "b.nrrd").data


def test_voxels_that_are_no_hexadecimal_digits_are_refused(tmp_path: Path, ramp: np.ndarray) -> None:
    whole = nrrd(tmp_path / "a.nrrd", ramp, encoding="hex").read_bytes()
    (tmp_path / "b.nrrd").write_bytes(whole[:-1] + b"g")
    with pytest.raises(FormatError, match=r"b\.nrrd: .*hexadecimal"):
        _ = file_formats.read(tmp_path / "b.nrrd").data


def test_the_voxels_may_stand_in_a_file_beside_the_header(tmp_path: Path, ramp: np.ndarray) -> None:
    whole = nrrd(tmp_path / "a.nrrd", ramp, "data file: sub/a.raw").read_bytes()
    head, _, voxels = whole.partition(b"\n\n")
    (tmp_path / "a.nhdr").write_bytes(head)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.raw").write_bytes(voxels)
    assert_array_equal(file_formats.read(tmp_path / "a.nhdr").data[0], ramp)
    (tmp_path / "sub" / "a.raw").unlink()
    with pytest.raises(FormatError, match="is missing"):
        file_formats.read(tmp_path / "a.nhdr")


@pytest.mark.parametrize("stated", ["LIST", "LIST 2"])
def test_voxels_in_a_list_of_files_are_refused_as_what_they_are(tmp_path: Path, ramp: np.ndarray, stated: str) -> None:
    head, _, _ = nrrd(tmp_path / "a.nhdr", ramp, f"data file: {stated}").read_bytes().partition(b"\n\n")
    (tmp_path / "a.nhdr").write_bytes(head + b"\na.raw\nb.raw\n")
    with pytest.raises(FormatError, match="spread over several files"):
        file_formats.read(tmp_path / "a.nhdr")


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.raw", "C:\\a.raw", "sub/../../a.raw", "LIST", "a%03d.raw 1 3 1"])
def test_a_header_cannot_point_out_of_its_folder(tmp_path: Path, ramp: np.ndarray, name: str) -> None:
    (tmp_path / "a.raw").write_bytes(b"\0" * 100)
    (tmp_path / "in").mkdir()
    with pytest.raises(FormatError, match=r"a\.nhdr: (the header|the voxels|.* link)"):
        file_formats.read(nrrd(tmp_path / "in" / "a.nhdr", ramp, f"data file: {name}"))


def test_bytes_and_lines_before_the_voxels_are_passed_over(tmp_path: Path, ramp: np.ndarray) -> None:
    whole = nrrd(tmp_path / "a.nrrd", ramp, "byte skip: 5", "line skip: 1").read_bytes()
    head, _, voxels = whole.partition(b"\n\n")
    (tmp_path / "b.nrrd").write_bytes(head + b"\n\na line\n12345" + voxels)
    assert_array_equal(file_formats.read(tmp_path / "b.nrrd").data[0], ramp)
    (tmp_path / "c.nrrd").write_bytes(head.replace(b"line skip: 1", b"").replace(b": 5", b": -1") + b"\n\nxy" + voxels)
    assert_array_equal(file_formats.read(tmp_path / "c.nrrd").data[0], ramp)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("skip", ["352", "-1", None, "0"])
def test_a_detached_nifti_needs_a_byte_skip_and_surplus_bytes_are_stated(tmp_path, ramp, encoding, skip):
    lines = [f"data file: a.{encoding}", *([] if skip is None else [f"byte skip: {skip}"])]
    whole = (
        nrrd(tmp_path / "a.nhdr", ramp, *lines).read_bytes().replace(b"encoding: raw", f"encoding: {encoding}".encode())
    )
    head, _, voxels = whole.partition(b"\n\n")
    (tmp_path / "a.nhdr").write_bytes(head + b"\n\n")
    stored = bytes(range(256)) + bytes(96) + voxels
    (tmp_path / f"a.{encoding}").write_bytes(gzip.compress(stored) if encoding == "gzip" else stored)
    if skip is None:
        with pytest.raises(FormatError, match=r"352 bytes more than the header describes.*`byte skip: -1`"):
            file_formats.read(tmp_path / "a.nhdr")
        return
    image = file_formats.read(tmp_path / "a.nhdr")
    assert np.array_equal(image.data[0], ramp) is (skip != "0")
    assert ("352 bytes behind the voxels were left out." in image.notes) is (skip == "0")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"type: short", b"type: block", "voxels of type 'block'"),
        (b"encoding: raw", b"encoding: zrl", "the encoding 'zrl'"),
        (b"sizes: 2 3 4", b"sizes: 2 3", "sizes 2 3 in 3 dimensions"),
        (b"sizes: 2 3 4", b"sizes: 2 -3 4", "sizes 2 -3 4"),
        (b"sizes: 2 3 4", b"sizes: 2 x 4", "'sizes' is '2 x 4'"),
        (b"type: short\n", b"", "no 'type'"),
        (b"endian: little", b"no colon here", "the header line"),
        (b"endian: little", b"endian: middle", "byte order"),
        (b"\n\n", b"\n", "no end|the header line"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, ramp: np.ndarray, old: bytes, new: bytes, reason: str) -> None:
    whole = nrrd(tmp_path / "a.nrrd", ramp).read_bytes()
    (tmp_path / "b.nrrd").write_bytes(whole.replace(old, new))
    with pytest.raises(FormatError, match=rf"b\.nrrd: .*({reason})"):
        file_formats.read(tmp_path / "b.nrrd")


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_voxels_of_several_bytes_in_an_order_that_nobody_states_are_refused(
    tmp_path: Path, ramp: np.ndarray, encoding: str
) -> None:
    whole = nrrd(tmp_path / "a.nrrd", ramp, encoding=encoding).read_bytes()
    (tmp_path / "a.nrrd").write_bytes(whole.replace(b"endian: little\n", b""))
    with pytest.raises(FormatError, match=r"a\.nrrd: .*no 'endian'"):
        file_formats.read(tmp_path / "a.nrrd")


@pytest.mark.parametrize(("kind", "encoding"), [(np.uint8, "raw"), (np.int16, "ascii")])
def test_bytes_and_text_need_no_byte_order(tmp_path: Path, kind: type, encoding: str) -> None:
    path = nrrd(tmp_path / "a.nrrd", np.arange(8).reshape(2, 2, 2).astype(kind), encoding=encoding)
    path.write_bytes(path.read_bytes().replace(b"endian: little\n", b""))
    assert_array_equal(file_formats.read(path).data[0], np.arange(8).reshape(2, 2, 2))


def test_a_field_that_is_stated_twice_is_refused(tmp_path: Path, ramp: np.ndarray) -> None:
    lines = ["space: RAS", "space directions: (1,0,0) (0,1,0) (0,0,1)", "space origin: (0,0,0)"]
    with pytest.raises(FormatError, match=r"a\.nrrd: .*'space origin' twice"):
        file_formats.read(nrrd(tmp_path / "a.nrrd", ramp, *lines, "space origin: (9,9,9)"))


def test_a_detached_header_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="single file"):
        file_formats.write(Image(np.zeros((1, 2, 2, 2), np.uint8), Geometry((2, 2, 2), np.eye(4))), tmp_path / "a.nhdr")


# -- segments --------------------------------------------------------------------------------------------------------

SEGMENTS = (
    "Segment0_ID:=Segment_1", "Segment0_Name:=left lung", "Segment0_LabelValue:=3", "Segment0_Layer:=0",
    "Segment0_Color:=1 0.5 0",
    "Segment0_Tags:=TerminologyEntry:Lists~SCT^123037004^Anatomical Structure~SCT^39607008^Lung~SCT^7771000^Left~~^^|",
    "Segment1_ID:=Segment_2", "Segment1_Name:=tumour", "Segment1_LabelValue:=1", "Segment1_Layer:={layer}",
)  # fmt: skip


def test_slicer_segments_become_labels(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "a.seg.nrrd", np.zeros((2, 2, 2), np.uint8), *(s.format(layer=0) for s in SEGMENTS))
    lung, tumour = file_formats.read(path).labels
    assert lung == Label(3, "left lung", (255, 128, 0), Code("SCT", "39607008", "Lung"))
    assert tumour == Label(1, "tumour")


def test_overlapping_segments_become_one_channel_each(tmp_path: Path) -> None:
    layers = np.zeros((2, 2, 1, 1), np.uint8)  # two layers of two voxels
    layers[0, 0], layers[1, :] = 3, 1
    path = nrrd(
        tmp_path / "a.seg.nrrd", layers, "kinds: list domain domain domain", *(s.format(layer=1) for s in SEGMENTS)
    )
    image = file_formats.read(path)
    assert image.channels == ("left lung", "tumour")
    assert_array_equal(image.data[:, :, 0, 0], [[1, 0], [1, 1]])


def test_segments_of_early_slicer_have_a_layer_each_that_no_line_names(tmp_path: Path) -> None:
    # Until version 4.10: neither Layer nor LabelValue, and 1 in the layer with the segment's number.
    layers = np.random.default_rng(0).integers(0, 2, (3, 2, 3, 4)).astype(np.uint8)
    lines = [line for n, name in enumerate("abc") for line in (f"Segment{n}_ID:=S{n}", f"Segment{n}_Name:={name}")]
    path = nrrd(tmp_path / "a.seg.nrrd", layers, "kinds: list domain domain domain", *lines)
    image = file_formats.read(path)
    assert image.channels == ("a", "b", "c")
    assert_array_equal(image.data, layers)


def test_segments_of_one_layer_without_values_are_refused(tmp_path: Path) -> None:
    lines = [line for line in (s.format(layer=0) for s in SEGMENTS) if "LabelValue" not in line]
    with pytest.raises(FormatError, match="the value 1 is both"):
        file_formats.read(nrrd(tmp_path / "a.seg.nrrd", np.ones((2, 2, 2), np.uint8), *lines))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_segment_in_a_layer_that_is_not_there_is_refused(tmp_path: Path, layers: int) -> None:
    voxels, lines = np.ones((layers, 2, 2, 2), np.uint8), [s.format(layer=2) for s in SEGMENTS]
    with pytest.raises(FormatError, match="a layer that is not there"):
        file_formats.read(nrrd(tmp_path / "a.seg.nrrd", voxels, "kinds: list domain domain domain", *lines))


def test_the_only_segment_of_several_layers_keeps_its_name(tmp_path: Path) -> None:
    layers = np.zeros((2, 2, 1, 1), np.uint8)
    layers[1, 0] = 3
    lines = [s.format(layer=0).replace("Layer:=0", "Layer:=1") for s in SEGMENTS[:4]]
    image = file_formats.read(nrrd(tmp_path / "a.seg.nrrd", layers, "kinds: list domain domain domain", *lines))
    assert image.labels == (Label(1, "left lung"),)
    assert_array_equal(image.data[0, :, 0, 0], [1, 0])


def test_labels_survive_as_segments(tmp_path: Path) -> None:
    labels = (Label(1, "lung", (10, 20, 30), Code("SCT", "39607008", "Lung")), Label(4, "heart"))
    image = Image(np.ones((1, 2, 2, 2), np.uint8), Geometry((2, 2, 2), np.eye(4)), labels=labels)
    assert written_and_read(image, tmp_path / "a.seg.nrrd").labels == labels


def test_a_value_of_two_segments_is_refused(tmp_path: Path) -> None:
    lines = [s.format(layer=0).replace("Value:=1", "Value:=3") for s in SEGMENTS]
    with pytest.raises(FormatError, match="the value 3 is both"):
        file_formats.read(nrrd(tmp_path / "a.seg.nrrd", np.zeros((2, 2, 2), np.uint8), *lines))
