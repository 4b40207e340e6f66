"""Arrays are images of pixels; nothing in a file is executed."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal

from hilum.errors import FormatError, HilumError
from hilum.files import file_formats
from hilum.values import Geometry, Image


@given(
    dtype=st.sampled_from(["int16", "uint16", "int64", "float32", "float64"]),
    shape=array_shapes(min_dims=2, max_dims=3),
    draw=st.data(),
)
def test_what_is_written_as_npy_is_read_again(tmp_path_factory, dtype, shape, draw):
    pixels = draw.draw(arrays(dtype, (1, *shape)))
    path = tmp_path_factory.mktemp("npy") / "image.npy"
    file_formats.write(Image(pixels, Geometry.of_pixels(shape)), path)
    found = file_formats.read(path)
    assert_array_equal(found.data, pixels)
    assert found.dtype == pixels.dtype
    assert found.geometry.equals(Geometry.of_pixels(shape))


def test_bytes_with_a_last_axis_of_three_are_colours_and_said_so(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    np.save(tmp_path / "colour.npy", colour)
    image = file_formats.read(tmp_path / "colour.npy")
    assert image.channels == ("R", "G", "B")
    assert image.notes
    file_formats.write(image, tmp_path / "again.npy")
    assert_array_equal(np.load(tmp_path / "again.npy"), colour)


def test_an_array_that_a_full_disk_cuts_is_an_error_and_no_file(tmp_path):
    resource = pytest.importorskip("resource", reason="this system has no limits on the size of files")
    image = Image(np.zeros((1, 40, 50), np.float32), Geometry.of_pixels((40, 50)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))  # the last bytes of 8128 stay in a buffer
    try:
        with pytest.raises(HilumError, match="File too large"):
            file_formats.write(image, tmp_path / "image.npy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_the_arrays_of_an_archive_are_volumes_by_name(tmp_path):
    np.savez_compressed(tmp_path / "two.npz", image=np.zeros((4, 5)), mask=np.ones((4, 5), np.uint8))
    volumes = file_formats.read_volumes(tmp_path / "two.npz")
    assert list(volumes) == ["image", "mask"]
    with pytest.raises(FormatError, match="--volume"):
        file_formats.read(tmp_path / "two.npz")
    assert file_formats.read(tmp_path / "two.npz", volume="mask").data.sum() == 20


def test_what_is_no_picture_beside_one_is_left_out_and_said_so(tmp_path):
    np.savez(tmp_path / "scan.npz", image=np.ones((4, 5)), spacing=np.array([1.0, 2.0]), names=np.array(["a", "b"]))
    image = file_formats.read(tmp_path / "scan.npz")
    assert_array_equal(image.data[0], np.ones((4, 5)))
    assert image.notes == ("left out, because they are not images: spacing, names",)


def test_objects_beside_an_image_are_refused(tmp_path):
    np.savez(tmp_path / "scan.npz", image=np.ones((4, 5)), more=np.array([Payload()], dtype=object))
    with pytest.raises(FormatError, match="executed"):
        file_formats.read_volumes(tmp_path / "scan.npz")


def test_big_endian_arrays_are_read(tmp_path):
    np.save(tmp_path / "big.npy", np.arange(6, dtype=">i2").reshape(2, 3))
    assert_array_equal(file_formats.read(tmp_path / "big.npy").data[0], [[0, 1, 2], [3, 4, 5]])


class Payload:
    """What an attacker would put into a file."""

    def __reduce__(self):
        return (pytest.fail, ("code in a file was executed",))


@pytest.mark.parametrize("name", ["objects.npy", "objects.npz"])
def test_objects_are_refused_and_never_executed(tmp_path, name):
    objects = np.array([Payload()], dtype=object)
    (np.save if name.endswith("npy") else np.savez)(tmp_path / name, objects, allow_pickle=True)
    with pytest.raises(FormatError, match="executed"):
        file_formats.read_volumes(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.array([["a", "b"]]), "not common numbers"),
        (np.zeros(()), "not an image"),
        (np.zeros((0, 5)), "not an image"),
        (np.zeros((2, 2, 2, 2, 2)), "not an image"),
        (np.zeros((4, 5), np.complex64), "--part"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path, array, problem):
    np.save(tmp_path / "odd.npy", array)
    with pytest.raises(FormatError, match=problem):
        file_formats.read(tmp_path / "odd.npy")


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="this machine has no longer floats")
def test_numbers_longer_than_64_bits_are_refused(tmp_path):
    np.save(tmp_path / "long.npy", np.zeros((4, 5), np.longdouble))
    with pytest.raises(FormatError, match="not common numbers"):
        file_formats.read(tmp_path / "long.npy")


@pytest.mark.parametrize("name", ["bomb.npy", "bomb.npz"])
def test_a_header_that_claims_more_than_there_is_is_refused(tmp_path, name):
    np.save(tmp_path / "small.npy", np.zeros((10, 10)))
    claimed = (tmp_path / "small.npy").read_bytes().replace(b"(10, 10), }" + b" " * 12, b"(9999999, 9999999), }  ")
    if name.endswith("npy"):
        (tmp_path / name).write_bytes(claimed)
    else:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("image.npy", claimed)
    with pytest.raises(FormatError, match="claims"):
        file_formats.read(tmp_path / name)


@pytest.mark.parametrize("name", ["cut.npy", "cut.npz"])
def test_files_that_are_cut_short_are_refused(tmp_path, name):
    path = tmp_path / name
    (np.save if name.endswith("npy") else np.savez)(path, np.random.default_rng(0).random((40, 40)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(FormatError, match="cut"):
        file_formats.read(path)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (Image(np.zeros((1, 2, 2)), Geometry.of_spacing((2, 2), (1, 1))), "mm"),
        (Image(np.zeros((1, 2, 2, 2)), Geometry.of_pixels((2, 2))), "frames"),
        (Image(np.zeros((2, 2, 2)), Geometry.of_pixels((2, 2))), "channels"),
        (Image(np.zeros((1, 8, 8, 3), np.uint8), Geometry.of_pixels((8, 8, 3))), "colours"),
    ],
)
def test_what_an_array_cannot_hold_is_refused(tmp_path, image, problem):
    with pytest.raises(FormatError, match=problem):
        file_formats.write(image, tmp_path / "refused.npy")
    assert list(tmp_path.iterdir()) == []
