"""DICOM pixels: every way of storing them gives the numbers that were stored, or a refusal that names the fault."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pydicom.pixels import apply_color_lut

from files.dicom_objects import picture
from isocenter.errors import FormatError
from isocenter.files.dicom_pixels import decode, decode_frame, decoded, has_pixels, layout_of

Pixels = np.ndarray[Any, Any]
RNG = np.random.default_rng(4)


def load(path: Path) -> pydicom.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus is odd on purpose
        return pydicom.dcmread(path, force="broken" in path.parts)


# -- the corpus -------------------------------------------------------------------------------------------------------

# pydicom has no free decoder for these; they are compared with their uncompressed twins below.
BEYOND_PYDICOM = {
    "pydicom_JPEG-lossy.dcm",
    "wg04_RG2_JPLY.dcm",
    "pydicomdata_liver_deflate.dcm",
    "pydicomdata_liver_nonbyte_aligned_rle.dcm",
}


def test_every_file_of_the_corpus_decodes_to_what_pydicom_decodes(data: Path):
    seen = 0
    for path in [*sorted((data / "dicom/files").glob("*.dcm")), *sorted((data / "dicom/series").glob("*/*.dcm"))]:
        dataset = load(path)
        if not has_pixels(dataset) or path.name in BEYOND_PYDICOM:
            continue
        ours, theirs = decode(dataset, str(path)), dataset.pixel_array
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            theirs = apply_color_lut(theirs, dataset)
        assert ours.dtype == theirs.dtype, path.name
        # Two JPEG decoders may round a colour apart by one.
        off = np.abs(ours.astype(float) - theirs.reshape(ours.shape)).max()
        assert off <= (1 if path.name == "fodicom_jpeg_baseline_ybr.dcm" else 0), path.name
        seen += 1
    assert seen > 200


def test_layout_tells_shape_and_type_before_anything_is_decoded(data: Path):
    for path in sorted((data / "dicom/files").glob("*.dcm")):
        dataset = load(path)
        if has_pixels(dataset):
            layout, pixels = layout_of(dataset, path.name), decode(dataset, path.name)
            assert (layout.shape, layout.dtype) == (pixels.shape, pixels.dtype), path.name


SAME = {
    "enhanced CT": ("pydicomdata_eCT_Supplemental", "cs_ect_jpegls_fragmented", "cs_ect_jpeg_lossless_fragmented"),
    "WG-04 CT2": ("wg04_CT2_RLE", "wg04_CT2_JLSL"),
    "WG-04 MR4": ("wg04_MR4_JLSL", "wg04_MR4_JPLL"),
    "enhanced MR": ("pydicomdata_emri_small", "pydicomdata_emri_small_jpeg_2k_lossless"),
    "small MR": (
        "pydicom_MR_small",
        "pydicom_MR_small_RLE",
        "pydicom_MR_small_jp2klossless",
        "pydicom_MR_small_padded",
    ),
    "liver": ("dcmqi_seg_liver", "pydicomdata_liver_j2k", "pydicomdata_liver_deflate"),
}


@pytest.mark.parametrize("names", SAME.values(), ids=SAME.keys())
def test_lossless_compression_changes_no_pixel(data: Path, names: tuple[str, ...]):
    first, *others = [decode(load(data / "dicom/files" / f"{name}.dcm"), name) for name in names]
    for other in others:
        assert_array_equal(first, other)


def test_run_length_and_lossless_jpeg_series_hold_the_same_pixels(data: Path):
    for path in sorted((data / "dicom/series/mr_compressed_rle").glob("*.dcm")):
        twin = data / "dicom/series/mr_compressed_jpeg_lossless" / path.name
        assert_array_equal(decode(load(path), ""), decode(load(twin), ""))


def test_one_bit_run_length_frames_are_unpacked_where_they_end_inside_a_byte(data: Path):
    whole = decode(load(data / "dicom/files/dcmqi_seg_liver.dcm"), "")
    cropped = decode(load(data / "dicom/files/pydicomdata_liver_nonbyte_aligned_rle.dcm"), "")
    assert cropped.sum() == whole.sum()
    assert_array_equal(cropped, whole[:, :510, :510])


def test_twelve_bit_lossy_jpeg_comes_close_to_its_lossless_twin(data: Path):
    lossy = decode(load(data / "dicom/files/pydicom_JPEG-lossy.dcm"), "").astype(float)
    lossless = decode(load(data / "dicom/files/wg04_NM1_RLE.dcm"), "").astype(float)
    assert np.abs(lossy - lossless).mean() < 3  # of 278
    assert np.corrcoef(lossy.ravel(), lossless.ravel())[0, 1] > 0.98


def test_one_frame_is_that_frame_of_all(data: Path):
    for name in ("pydicom_examples_ybr_color", "cs_ect_jpegls_fragmented", "pydicomdata_emri_small", "dcmqi_seg_liver"):
        dataset = load(data / "dicom/files" / f"{name}.dcm")
        everything = decode(dataset, name)
        assert_array_equal(decode_frame(dataset, name, 1), everything[1])
        assert_array_equal(decode(dataset, name, [1, 0]), everything[[1, 0]])
        assert_array_equal(np.stack(list(decoded(dataset, name))), everything)


BROKEN = {
    "dcm4che_3gb_truncated": "BitsAllocated is no number",
    "dwv_no_rows": "Rows is missing",
    "fodicom_mr_no_pixels": "0 bytes of pixels where the header needs 524288",
    "fodicom_unreadable_GH340": "12 of 12 bits",
    "pydicom_MR_truncated": "8130 bytes of pixels where the header needs 8192",
    "pydicom_badVR": "NumberOfFrames is no number",
    "pydicom_meta_missing_tsyntax": "BitsAllocated is missing",
    "pydicomdata_emri_j2k_too_short": "holds no picture",
}


@pytest.mark.parametrize(("name", "fault"), BROKEN.items(), ids=BROKEN.keys())
def test_a_damaged_file_is_refused_by_its_fault(data: Path, name: str, fault: str):
    path = data / "dicom/broken" / f"{name}.dcm"
    with pytest.raises(FormatError, match=fault) as refusal:
        decode(load(path), str(path))
    assert refusal.value.where == str(path)
    assert refusal.value.remedy


def test_a_compressed_stream_of_another_signedness_takes_the_headers_word(data: Path):
    pixels = decode(load(data / "dicom/broken/pydicom_J2K_pixelrep_mismatch.dcm"), "")
    assert pixels.dtype == np.int16
    assert pixels.min() == -2000  # padding outside the scanner's circle, not 6192


def test_an_object_without_file_meta_is_read_in_the_syntax_it_was_parsed_with(data: Path):
    pixels = decode(load(data / "dicom/broken/pydicomdata_OT-PAL-8-face_no_preamble.dcm"), "")
    assert pixels.shape == (1, 480, 640, 3)


# -- bits -------------------------------------------------------------------------------------------------------------


@st.composite
def bit_layouts(draw: st.DrawFn) -> tuple[int, int, int, bool]:
    allocated = draw(st.sampled_from([8, 16, 32]))
    stored = draw(st.integers(1, allocated))
    return allocated, stored, draw(st.integers(stored - 1, allocated - 1)), draw(st.booleans())


@given(bit_layouts(), st.booleans(), st.integers(0, 2**32 - 1))
def test_only_the_stored_bits_count_wherever_they_lie_in_the_word(
    layout: tuple[int, int, int, bool], big: bool, seed: int
):
    allocated, stored, high, signed = layout
    rng = np.random.default_rng(seed)
    low, top = (-(1 << stored - 1), 1 << stored - 1) if signed else (0, 1 << stored)
    truth = rng.integers(low, top, (3, 4))
    shift = high - stored + 1
    overlay = rng.integers(0, 1 << allocated, truth.shape) & ~(((1 << stored) - 1) << shift)
    words = (((truth & ((1 << stored) - 1)) << shift) | overlay).astype(f"u{allocated // 8}")
    dataset = picture(words, BitsStored=stored, HighBit=high, PixelRepresentation=int(signed))
    if big and allocated > 8:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        dataset.PixelData = words.astype(f">u{allocated // 8}").tobytes()
    assert_array_equal(decode(dataset, "")[0], truth)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_one_bit_frames_follow_each_other_without_a_gap(frames: int, rows: int, columns: int, seed: int):
    truth = np.random.default_rng(seed).integers(0, 2, (frames, rows, columns)).astype(np.uint8)
    packed = np.packbits(truth, axis=None, bitorder="little").tobytes()
    dataset = picture(truth, frames=frames, BitsAllocated=1, BitsStored=1, HighBit=0)
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    assert_array_equal(decode(dataset, ""), truth)
    assert_array_equal(decode_frame(dataset, "", frames - 1), truth[-1])


def test_bytes_in_big_endian_words_are_swapped_back():
    truth = np.arange(12, dtype=np.uint8).reshape(3, 4)
    dataset = picture(truth, syntax=pydicom.uid.ExplicitVRBigEndian)
    dataset.PixelData = truth.reshape(-1, 2)[:, ::-1].tobytes()
    dataset["PixelData"].VR = "OW"
    assert_array_equal(decode(dataset, "")[0], truth)


def test_float_pixels_stay_floats():
    truth = RNG.normal(size=(3, 4))
    dataset = picture(truth, DoubleFloatPixelData=truth.tobytes())
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit
    assert_array_equal(decode(dataset, "")[0], truth)


# -- codecs -----------------------------------------------------------------------------------------------------------

LOSSLESS: dict[str, tuple[str, Callable[[Pixels], bytes]]] = {
    "JPEG lossless": ("1.2.840.10008.1.2.4.70", lambda a: imagecodecs.jpeg8_encode(a, lossless=True)),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode),
    "JPEG 2000": (
        "1.2.840.10008.1.2.4.90",
        lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="j2k", mct=False),
    ),
    "HTJ2K": ("1.2.840.10008.1.2.4.201", lambda a: imagecodecs.htj2k_encode(a, reversible=True)),
    "JPEG XL": ("1.2.840.10008.1.2.4.110", lambda a: imagecodecs.jpegxl_encode(a, lossless=True)),
    "deflated frame": (
        "1.2.840.10008.1.2.8.1",
        lambda a: zlib.compress(a.astype(a.dtype.newbyteorder("<")).tobytes(), wbits=-15),
    ),
}


@pytest.mark.parametrize("codec", LOSSLESS)
@pytest.mark.parametrize("fragments", [1, 2])
@pytest.mark.parametrize("kind", ["8 bit", "16 bit", "colour"])
def test_what_a_lossless_codec_stored_comes_back(codec: str, fragments: int, kind: str):
    shape = (2, 24, 17, 3) if kind == "colour" else (2, 24, 17)
    ramp = np.indices(shape).sum(axis=0) * 7 + RNG.integers(0, 30, shape)
    truth = ramp.astype(np.uint16 if kind == "16 bit" else np.uint8)
    syntax, encode = LOSSLESS[codec]
    frames = [encode(frame) for frame in truth]
    dataset = picture(truth, frames=2, syntax=syntax, encoded=frames, fragments=fragments)
    assert_array_equal(decode(dataset, ""), truth)


@given(st.integers(1, 300), st.integers(1, 40), st.sampled_from([8, 16]), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_run_lengths_written_by_pydicom_come_back(rows: int, columns: int, bits: int, seed: int):
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, 1 << bits, (rows, 1)), columns, axis=1).astype(f"u{bits // 8}")
    dataset = picture(truth)
    dataset.compress(pydicom.uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    assert_array_equal(decode(dataset, "")[0], truth)


def test_an_adobe_marker_knows_a_jpegs_colours_better_than_the_header():
    truth = np.zeros((32, 32, 3), np.uint8)
    truth[..., 0] = 200
    plain = imagecodecs.jpeg8_encode(truth, level=100, colorspace="RGB", outcolorspace="RGB")
    assert b"Adobe" in plain
    dataset = picture(truth, syntax="1.2.840.10008.1.2.4.50", encoded=[plain], PhotometricInterpretation="YBR_FULL")
    assert np.abs(decode(dataset, "")[0].astype(int) - truth).max() <= 2


def test_a_jfif_stream_called_rgb_is_ycbcr_as_jfif_says():
    truth = np.zeros((32, 32, 3), np.uint8)
    truth[..., 0] = 200
    jfif = imagecodecs.jpeg8_encode(truth, level=100, colorspace="RGB", outcolorspace="YCBCR")
    assert b"JFIF" in jfif
    dataset = picture(truth, syntax="1.2.840.10008.1.2.4.50", encoded=[jfif])
    assert np.abs(decode(dataset, "")[0].astype(int) - truth).max() <= 3


# -- colours ----------------------------------------------------------------------------------------------------------


def test_luminance_and_chrominance_become_the_colours_of_the_standard():
    ybr = np.array(
        [[[76, 85, 255], [150, 44, 21], [29, 255, 107], [128, 128, 128]]], np.uint8
    )  # red, green, blue, grey
    rgb = decode(picture(ybr, PhotometricInterpretation="YBR_FULL"), "")[0, 0]
    assert np.abs(rgb.astype(int) - [[254, 0, 0], [0, 255, 1], [0, 0, 254], [128, 128, 128]]).max() <= 1


def test_two_pixels_share_their_chrominance_in_422():
    dataset = picture(np.zeros((1, 4, 3), np.uint8), PhotometricInterpretation="YBR_FULL_422")
    dataset.PixelData = bytes([10, 20, 128, 128, 30, 40, 128, 128])
    assert decode(dataset, "")[0, 0, :, 1].tolist() == [10, 20, 30, 40]


def test_pixels_called_422_that_are_not_subsampled_are_known_by_their_length():
    grey = np.full((2, 4, 3), 128, np.uint8)
    grey[..., 0] = np.arange(8).reshape(2, 4) * 10
    dataset = picture(grey, PhotometricInterpretation="YBR_FULL_422")
    assert_array_equal(decode(dataset, "")[0, ..., 2], grey[..., 0])


def test_colours_by_plane_and_by_pixel_are_the_same():
    truth = RNG.integers(0, 256, (3, 4, 3)).astype(np.uint8)
    by_plane = picture(truth, PlanarConfiguration=1)
    by_plane.PixelData = np.moveaxis(truth, -1, 0).tobytes()
    assert_array_equal(decode(by_plane, "")[0], truth)


def palette(index: Pixels, descriptor: list[int], **tables: bytes) -> pydicom.Dataset:
    dataset = picture(index, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", descriptor)
    for keyword, table in tables.items():
        for colour in ("Red", "Green", "Blue"):
            setattr(dataset, keyword.replace("Any", colour), table)
    return dataset


def test_numbers_outside_a_palette_take_its_ends():
    index = np.array([[0, 9, 10, 11, 12, 255]], np.uint8)
    table = np.array([5, 6, 7], "<u2").tobytes()
    dataset = palette(index, [3, 10, 16], AnyPaletteColorLookupTableData=table)
    assert decode(dataset, "")[0, 0, :, 0].tolist() == [5, 5, 5, 6, 7, 7]
    assert decode(dataset, "", indices=True)[0, 0].tolist() == index[0].tolist()


def test_a_palette_of_sixteen_bit_numbers_and_packed_bytes_is_not_cut_to_eight_bits():
    index = np.array([[0, 255, 256, 299]], np.uint16)
    dataset = palette(index, [300, 0, 8], AnyPaletteColorLookupTableData=(np.arange(300) % 251).astype("u1").tobytes())
    assert decode(dataset, "")[0, 0, :, 0].tolist() == [0, 4, 5, 48]


def test_a_segmented_palette_is_written_out():
    words = np.array([0, 2, 10, 20, 1, 4, 60, 0, 1, 7], "<u2")  # two discrete, a line of four to 60, one discrete
    dataset = palette(
        np.arange(7, dtype=np.uint8)[None], [7, 0, 16], SegmentedAnyPaletteColorLookupTableData=words.tobytes()
    )
    assert decode(dataset, "")[0, 0, :, 1].tolist() == [10, 20, 30, 40, 50, 60, 7]


def test_a_palette_shorter_than_it_says_is_refused():
    dataset = palette(np.zeros((1, 2), np.uint8), [9, 0, 16], AnyPaletteColorLookupTableData=b"\0" * 8)
    with pytest.raises(FormatError, match="8 entries instead of 9"):
        decode(dataset, "")


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_pixels_for_one_frame_more_than_the_header_says_are_refused():
    dataset = picture(np.zeros((2, 4, 4), np.uint16), frames=2, NumberOfFrames=1)
    with pytest.raises(FormatError, match="64 bytes of pixels where the header says 32"):
        decode(dataset, "")


@pytest.mark.parametrize("codec", ["JPEG lossless", "JPEG-LS", "JPEG 2000", "HTJ2K"])
def test_a_stream_of_another_size_than_the_header_is_refused_before_it_is_decoded(codec: str):
    syntax, encode = LOSSLESS[codec]
    truth = np.zeros((16, 16), np.uint8)
    dataset = picture(truth, syntax=syntax, encoded=[encode(truth)], Rows=32)
    with pytest.raises(FormatError, match="16 x 16, the header says 32 x 16"):
        decode(dataset, "")


@pytest.mark.parametrize("codec", LOSSLESS)
def test_a_compressed_frame_cut_short_is_refused(codec: str):
    syntax, encode = LOSSLESS[codec]
    truth = RNG.integers(0, 256, (64, 64)).astype(np.uint8)
    dataset = picture(truth, syntax=syntax, encoded=[encode(truth)[:1500]])
    with pytest.raises(FormatError, match="frame 1 cannot be decompressed"):
        decode(dataset, "")


def test_fewer_compressed_frames_than_the_header_says_are_refused():
    truth = np.zeros((2, 8, 8), np.uint8)
    frames = [imagecodecs.jpegls_encode(frame) for frame in truth]
    dataset = picture(truth, frames=3, syntax="1.2.840.10008.1.2.4.80", encoded=frames)
    with pytest.raises(FormatError, match="2 compressed frames, the header says 3"):
        decode(dataset, "")


def test_a_header_that_asks_for_far_more_memory_than_its_data_can_fill_is_refused():
    blank = imagecodecs.jpegls_encode(np.zeros((8, 8), np.uint8))
    dataset = picture(np.zeros((8, 8), np.uint8), syntax="1.2.840.10008.1.2.4.80", encoded=[blank])
    dataset.Rows = dataset.Columns = 65535
    with pytest.raises(FormatError, match="claim to be 4294836225 bytes"):
        decode(dataset, "")


def test_a_syntax_without_a_free_decoder_is_refused_by_its_name():
    dataset = picture(np.zeros((8, 8), np.uint8), syntax=pydicom.uid.JPIPHTJ2KReferenced)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.92")
    with pytest.raises(FormatError, match=r"JPEG 2000 Part 2 .* \(1\.2\.840\.10008\.1\.2\.4\.92\)"):
        decode(dataset, "")


@pytest.mark.parametrize("photometric", ["CMYK", "HSV", "", "RGB"])
def test_a_colour_model_that_does_not_fit_the_samples_is_refused(photometric: str):
    dataset = picture(np.zeros((4, 4), np.uint8), PhotometricInterpretation=photometric)
    with pytest.raises(FormatError, match="no known colour model"):
        decode(dataset, "")
