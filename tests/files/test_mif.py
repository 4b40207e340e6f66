"""MRtrix images: strides, scaling and transform worked out by hand."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hilum.errors import FormatError
from hilum.files import file_formats

RAMP = np.arange(24, dtype="<i2").reshape(2, 3, 4)
LINES = (
    "mrtrix image", "dim: 2,3,4", "vox: 2,3,4", "layout: +0,+1,+2", "datatype: Int16LE",
    "transform: 1,0,0,10", "transform: 0,1,0,20", "transform: 0,0,1,30",
)  # fmt: skip


def saved(path: Path, *changed: str, voxels: bytes = RAMP.tobytes(order="F"), where: str = ". 1000") -> Path:
    """A file with these lines in place of those of the same key."""
    keys = {line.partition(":")[0] for line in changed}
    lines = [line for line in LINES if line.partition(":")[0] not in keys] + [*changed, f"file: {where}", "END"]
    content = "\n".join(lines).encode().ljust(1000, b"\0") + voxels
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["a.mif", "a.mif.gz"])
def test_a_plain_volume_lies_where_the_transform_says(tmp_path: Path, name: str) -> None:
    image = file_formats.read(saved(tmp_path / name))
    assert_allclose(image.geometry.affine, [[2, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
    assert_array_equal(image.data[0], RAMP)


def test_each_voxel_keeps_its_place_whatever_the_strides(tmp_path: Path) -> None:
    plain = file_formats.read(saved(tmp_path / "a.mif"))
    # The second axis is the fastest, the first one the slowest and stored backwards.
    stored = RAMP[::-1].transpose(1, 2, 0).tobytes(order="F")
    turned = file_formats.read(saved(tmp_path / "b.mif", "layout: -2,+0,+1", voxels=stored))
    for index in np.ndindex(2, 3, 4):
        world = plain.geometry.to_world(index)
        found = tuple(np.rint(turned.geometry.to_index(world)).astype(int))
        assert turned.data[(0, *found)] == plain.data[(0, *index)]


def test_the_first_axis_can_be_stored_backwards_though_it_is_called_minus_zero(tmp_path: Path) -> None:
    image = file_formats.read(saved(tmp_path / "a.mif", "layout: -0,+1,+2"))
    assert image.geometry.orientation == "LAS"
    assert_allclose(image.geometry.to_world((0, 0, 0)), (12, 20, 30))


def test_a_fourth_axis_is_frames_even_where_it_is_the_fastest(tmp_path: Path) -> None:
    series = np.arange(120, dtype="<i2").reshape(2, 3, 4, 5)
    path = saved(tmp_path / "a.mif", "dim: 2,3,4,5", "vox: 2,3,4,1", "layout: +1,+2,+3,+0",
                 voxels=series.transpose(3, 0, 1, 2).tobytes(order="F"))  # fmt: skip
    assert_array_equal(file_formats.read(path).data[0], np.moveaxis(series, -1, 0))


def test_values_are_scaled(tmp_path: Path) -> None:
    assert_allclose(file_formats.read(saved(tmp_path / "a.mif", "scaling: 100,0.5")).data[0], RAMP * 0.5 + 100)


def test_what_the_header_does_not_say_is_unknown(tmp_path: Path) -> None:
    lines = [line for line in LINES if not line.startswith("transform")]
    content = "\n".join([*lines, "file: . 200", "END"]).encode().ljust(200, b"\0") + RAMP.tobytes(order="F")
    (tmp_path / "a.mif").write_bytes(content)
    geometry = file_formats.read(tmp_path / "a.mif").geometry
    assert (geometry.oriented, geometry.spacing) == (False, (2.0, 3.0, 4.0))
    assert file_formats.read(saved(tmp_path / "b.mif", "vox: nan,3,4")).spacing is None


def test_complex_voxels_need_a_part(tmp_path: Path) -> None:
    voxels = (RAMP * (1 + 2j)).astype("<c8").tobytes(order="F")
    path = saved(tmp_path / "a.mif", "datatype: CFloat32LE", voxels=voxels)
    with pytest.raises(FormatError, match="--part"):
        file_formats.read(path)
    assert_allclose(file_formats.read(path, part="imaginary").data[0], RAMP * 2)


@pytest.mark.parametrize(
    ("line", "reason"),
    [("layout: +0,+1,+1", "layout is"), ("datatype: Bit", "voxels of type 'Bit'"), ("dim: 2,3", "axes of"),
     ("dim: 2,3,4000", "cut short"), ("vox: 2,three,4", "vox is"), ("transform: 1,0,0,0", "transform is incomplete")],
)  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(FormatError, match=rf"a\.mif: .*{reason}"):
        file_formats.read(saved(tmp_path / "a.mif", line))


@pytest.mark.parametrize(("where", "is_refused"), [("a.dat", True), ("a.dat 100", False)])
def test_a_header_of_the_voxels_file_that_nobody_stated_is_refused(
    tmp_path: Path, where: str, is_refused: bool
) -> None:
    (tmp_path / "a.dat").write_bytes(bytes(100) + RAMP.tobytes(order="F"))
    path = saved(tmp_path / "a.mih", where=where, voxels=b"")
    if is_refused:
        with pytest.raises(FormatError, match=r"a\.dat holds 100 bytes more than the header describes"):
            file_formats.read(path)
    else:
        assert_array_equal(file_formats.read(path).data[0], RAMP)


def test_a_header_cannot_point_out_of_its_folder(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="outside its folder"):
        file_formats.read(saved(tmp_path / "a.mih", where="../a.dat 0"))
    (tmp_path / "a.dat").write_bytes(RAMP.tobytes(order="F"))
    assert_array_equal(file_formats.read(saved(tmp_path / "b.mih", where="a.dat")).data[0], RAMP)
