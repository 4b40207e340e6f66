"""Small files stay small: what a header claims is known or limited before it is decoded, and little is held twice."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import imagecodecs
import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
import tifffile
from scipy.io import netcdf_file

from fuzzing import peak_of
from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.files.dicom.reading import colour_spaces
from hilum.files.pictures import tiff
from hilum.files.storage import packed_files as packed_streams
from hilum.values import Geometry, Image
from matrices import thinned
from written_dicom import write_slice

MIB = 1 << 20
# Of the promise, 1.5 times the image and 64 MiB, for images that are smaller than what it allows besides.
RATIO, SLACK = 1.5, 12 * MIB
SHAPE = (128, 128, 400)
NRRD = "NRRD0005\ntype: {}\ndimension: 3\nsizes: {}\nencoding: {}\nendian: big\n\n"
MHA = "NDims = 3\nDimSize = {}\nCompressedData = True\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"


def nrrd(path: Path, sizes: str, encoding: str, packed: bytes, kind: str = "uchar") -> Path:
    path.write_bytes(NRRD.format(kind, sizes, encoding).encode() + packed)
    return path


def mha(path: Path, sizes: str, packed: bytes, more: str = "") -> Path:
    path.write_bytes((more + MHA.format(sizes)).encode() + packed)
    return path


def mgz(path: Path, sizes: tuple[int, ...], packed: bytes) -> Path:
    head = struct.pack(">7i", 1, *sizes, 1, 0, 0).ljust(284, b"\0")
    stream = gzip.compress(head + packed, 1)
    claimed = (284 + int(np.prod(sizes))) % 2**32
    path.write_bytes(stream[:-4] + struct.pack("<I", claimed))  # the trailer lies too
    return path


def noise(size: int) -> bytes:
    return np.random.default_rng(0).bytes(size)


BOMBS: dict[str, Callable[[Path], Path]] = {
    "bzip2, 2.9 GiB": lambda p: nrrd(p / "a.nrrd", "1500 1500 1400", "bzip2", bz2.compress(bytes(4 * MIB))),
    "bzip2, cut short": lambda p: nrrd(p / "a.nrrd", "1000 1000 900", "bzip2", bz2.compress(bytes(4 * MIB))),
    "gzip in NRRD": lambda p: nrrd(p / "a.nrrd", "1000 1000 900", "gzip", gzip.compress(noise(MIB))),
    "zlib, 3 GB": lambda p: mha(p / "a.mha", "1500 1500 1400", zlib.compress(noise(3 * MIB + MIB // 8))),
    "zlib, cut short": lambda p: mha(p / "a.mha", "1000 1000 900", zlib.compress(noise(MIB))),
    "channels": lambda p: mha(p / "a.mha", "1 1 1", zlib.compress(bytes(MIB)), "ElementNumberOfChannels = 100000000\n"),
    "mgz, 3 GB": lambda p: mgz(p / "a.mgz", (1500, 1500, 1400), noise(3 * MIB + MIB // 8)),
    "mgz, cut short": lambda p: mgz(p / "a.mgz", (1000, 1000, 900), noise(MIB)),
    "frames in time": lambda p: nrrd(
        p / "a.nrrd", "1 1 2000000000\nkinds: domain domain time\nspacings: 1 1 1\nunits: mm mm s", "raw", b""
    ),
    "text": lambda p: nrrd(p / "a.nrrd", "1000 1000 900", "ascii", b"1 " * 1000),
    "a long word": lambda p: nrrd(p / "a.nrrd", "10 10 10", "ascii", b"1" * 8 * MIB),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_claim_that_the_file_cannot_keep_is_refused_before_memory_is_taken(tmp_path: Path, bomb: Callable) -> None:
    path = bomb(tmp_path)

    def refused() -> None:
        with pytest.raises(FormatError):
            _ = file_formats.read(path).data

    peak, _ = peak_of(refused)
    assert peak < 40 * MIB


def test_the_arrays_of_an_archive_are_named_without_reading_them(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, one=np.zeros((256, 256, 512), np.uint8), two=np.zeros((256, 512, 256), np.uint8))

    def named() -> None:
        with pytest.raises(FormatError, match=r"holds 2 volumes on different grids: one, two"):
            file_formats.read(path)

    peak, _ = peak_of(named)
    assert peak < 8 * MIB


def test_an_archive_that_numpy_does_not_write_is_refused(tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.zeros((64, 64, 512)))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("one.npy", array.getvalue())
    with pytest.raises(FormatError, match="compressed in a way that is not read"):
        file_formats.read(tmp_path / "a.npz")


def test_a_gzipped_minc_file_is_unpacked_no_further_than_voxels_pack(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (data / "nifti" / "nib_minc2.mnc").read_bytes()
    path = tmp_path / "a.mnc.gz"
    path.write_bytes(gzip.compress(whole + bytes(32 * MIB)))
    assert file_formats.read(path).data.any()
    monkeypatch.setattr(packed_streams, "FREE_BYTES", 8 * MIB)
    monkeypatch.setattr(packed_streams, "LARGEST_RATIO", 10)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(FormatError, match="may be an attack"):
        file_formats.read(path)
    assert list(tmp_path.iterdir()) == [path]


def test_hdf5_that_stores_nothing_of_what_it_claims_is_refused(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "a.mnc"
    path.write_bytes((data / "nifti" / "nib_minc2.mnc").read_bytes())
    with h5py.File(path, "r+") as file:
        place = file["minc-2.0/image/0"]
        attributes, dtype = dict(place["image"].attrs), place["image"].dtype
        del place["image"]
        place.create_dataset("image", (1500, 1500, 1500), dtype, chunks=True)
        place["image"].attrs.update(attributes)
    with pytest.raises(FormatError, match="may be an attack"):
        file_formats.read(path)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "jpegxl", "webp", "png"])
def test_a_tile_that_is_a_larger_picture_than_its_page_says_is_refused(
    tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff, "USUAL_TILE", 1 << 14)
    encode = getattr(imagecodecs, {"jpeg": "jpeg8", "jpeg2000": "jpeg2k"}.get(compression, compression) + "_encode")
    small = np.zeros((64, 64, 3), np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, small, photometric="rgb", compression=compression)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        at, count = page.tags["StripOffsets"], page.tags["StripByteCounts"]
        places = [at.valueoffset, count.valueoffset], [at.dtype, count.dtype]
    large = encode(np.zeros((600, 500, 3), np.uint8))
    content = bytearray(path.read_bytes())
    for place, kind, value in zip(*places, (len(content), len(large)), strict=True):
        content[place : place + 4] = struct.pack("<I" if kind == 4 else "<H2x", value)
    path.write_bytes(content + large)
    with pytest.raises(FormatError, match="claims 600 x 500 pixels"):
        file_formats.read(path)


def test_a_compression_whose_size_nobody_states_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint16), compression="lerc")
    with pytest.raises(FormatError, match="LERC is not read"):
        file_formats.read(path)


def test_frames_of_a_few_bytes_each_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.gif"
    still = PIL.Image.new("P", (600, 500))
    still.save(path, save_all=True, append_images=[PIL.Image.new("P", (600, 500), n % 2) for n in range(30)])
    assert file_formats.read(path).frames
    monkeypatch.setattr(packed_streams, "FREE_BYTES", MIB)
    monkeypatch.setattr(packed_streams, "LARGEST_RATIO", 10)
    with pytest.raises(FormatError, match="may be an attack"):
        file_formats.read(path)


def test_a_segmented_colour_table_ends() -> None:
    words = np.array([0, 1, 7, *([1, 65535, 9] * 1000)], np.uint16)
    with pytest.raises(ValueError, match="longer than any"):
        colour_spaces.expand_segments(words)


def test_many_tiny_tiles_of_jpeg_2000_are_refused(tmp_path: Path) -> None:
    stream = bytearray(imagecodecs.jpeg2k_encode(np.zeros((256, 255), np.uint8), codecformat="j2k"))
    struct.pack_into(">II", stream, 24, 1, 1)
    jp2 = imagecodecs.jpeg2k_encode(np.zeros((256, 255), np.uint8), codecformat="jp2")
    plain = imagecodecs.jpeg2k_encode(np.zeros((256, 255), np.uint8), codecformat="j2k")
    (tmp_path / "a.jp2").write_bytes(jp2[: jp2.index(plain[:4])] + stream)
    with pytest.raises(FormatError, match="claims 65280 tiles"):
        file_formats.read(tmp_path / "a.jp2")


def volume(kind: str) -> np.ndarray:
    voxels = np.zeros(SHAPE, kind)
    voxels[::16, ::16] = np.arange(SHAPE[-1]) % 4
    return voxels


def scaled(path: Path, voxels: np.ndarray) -> None:
    plain = io.BytesIO()
    image = nibabel.Nifti1Image(voxels, np.eye(4))
    image.to_file_map({"image": nibabel.FileHolder(fileobj=plain)})
    content = bytearray(plain.getvalue())
    struct.pack_into("<ff", content, 112, 2.5, 1.0)
    path.write_bytes(gzip.compress(bytes(content), 1) if path.suffix == ".gz" else bytes(content))


def minc1(path: Path) -> None:
    voxels = volume("int8")
    with netcdf_file(path, "w") as file:
        for name, size in zip(("zspace", "yspace", "xspace"), voxels.shape, strict=True):
            file.createDimension(name, size)
            axis = file.createVariable(name, "i", ())
            axis.spacing, axis.step, axis.start = b"regular__", 1.0, 0.0
        image = file.createVariable("image", "b", ("zspace", "yspace", "xspace"))
        image.signtype, image.valid_range = b"unsigned", np.array([0.0, 255.0])
        image[:] = voxels
        for name, value in (("image-max", 9.0), ("image-min", 0.0)):
            file.createVariable(name, "d", ())[...] = value


def clip(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 512, 512, 3)).astype(np.uint8)
    write_slice(path, pixels[..., 0].astype(np.uint16), position=None, orientation=None, spacing=None, Modality="US")
    dataset = pydicom.dcmread(path)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path)


def grid(path: Path) -> None:
    file_formats.write(Image(volume("float32")[None], Geometry(SHAPE, np.eye(4))), path)


WHOLE: dict[str, Callable[[Path], None]] = {
    "a.nii": lambda p: scaled(p, volume("float32")),
    "a.nii.gz": lambda p: scaled(p, volume("float32")),
    "a.mgz": lambda p: nibabel.save(nibabel.freesurfer.MGHImage(volume("float32"), np.eye(4)), p),
    "a.mha": grid,
    "a.nrrd": lambda p: nrrd(
        p, "128 128 400", "bzip2", bz2.compress(volume(">f4").tobytes(order="F"), 1), "float"
    ) and None,
    "a.mnc": minc1,
    "a.npy": lambda p: np.save(p, volume(">f4")),
    "a.npz": lambda p: np.savez_compressed(p, one=volume("float32"), two=np.zeros((4, 5))),
    "a.dcm": clip,
    "a.png": lambda p: p.write_bytes(imagecodecs.png_encode(np.zeros((4000, 3000, 3), np.uint8))),
    "a.jpg": lambda p: p.write_bytes(imagecodecs.jpeg8_encode(np.zeros((4000, 3000, 3), np.uint8))),
    "a.bmp": lambda p: PIL.Image.fromarray(np.zeros((4000, 3000, 3), np.uint8)).save(p),
    "a.tif": lambda p: tifffile.imwrite(p, np.zeros((4000, 3000, 3), np.uint8), photometric="rgb", compression="zlib"),
    "one strip.tif": lambda p: tifffile.imwrite(
        p, np.zeros((4000, 3000, 3), np.uint8), photometric="rgb", compression="zlib", rowsperstrip=4000
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", thinned(5, WHOLE))
def test_hardly_more_than_the_image_is_held_while_it_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WHOLE[name](path)
    file_formats.load_format(file_formats.format_of(path) or "")  # what it imports is not the file's
    peak, sizes = peak_of(lambda: [image.data.nbytes for image in file_formats.read_volumes(path).values()])
    assert peak <= RATIO * max(sizes) + SLACK


def pillow(pixels: np.ndarray, mode: str) -> bytes:
    stream = io.BytesIO()
    PIL.Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes()).save(stream, "JPEG")
    return stream.getvalue()


# What libraries hold beside the result, as docs/formats.md has it: libwebp four bytes a pixel, OpenJPEG four bytes a
# sample, Pillow four bytes a pixel of CMYK. Of zeros the system gives some pages to nobody, unless a heap hands out
# what it had before: then all of them count.
MORE: dict[str, tuple[float, Callable[[np.ndarray], bytes]]] = {
    "a.webp": (2.5, lambda pixels: imagecodecs.webp_encode(pixels, lossless=True)),
    "cmyk.jpg": (2.5, lambda pixels: pillow(np.dstack([pixels, pixels[..., :1]]), "CMYK")),
    "a.jp2": (5.1, lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="jp2", level=40)),
    "16.jp2": (3.1, lambda pixels: imagecodecs.jpeg2k_encode(pixels.astype(np.uint16), codecformat="jp2", level=40)),
}


@pytest.mark.parametrize("name", thinned(1, MORE))
def test_what_decoders_of_pictures_hold_besides_is_no_more_than_documented(tmp_path: Path, name: str) -> None:
    ratio, encode = MORE[name]
    (tmp_path / name).write_bytes(encode(np.zeros((2000, 3000, 3), np.uint8)))
    file_formats.load_format(file_formats.format_of(tmp_path / name) or "")
    # Twice, because another thread of these tests may take memory meanwhile.
    (first, nbytes), (second, _) = (peak_of(lambda: file_formats.read(tmp_path / name).data.nbytes) for _ in range(2))
    assert min(first, second) <= ratio * nbytes + SLACK
