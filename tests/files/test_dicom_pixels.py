"""DICOM pixels: every way of storing them gives the numbers that were stored, or a refusal that names the fault."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pydicom.pixels import apply_color_lut

import real_data
from dicom_objects import picture
from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.files.dicom import header_reading
from hilum.files.dicom.reading import pixel_decoding, pixel_layout, single_frame
from matrices import rarely
from written_dicom import write_slice

Pixels = np.ndarray[Any, Any]
RNG = np.random.default_rng(4)


def load(path: Path) -> pydicom.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus is odd on purpose
        return pydicom.dcmread(path, force="broken" in path.parts)


# -- real data -------------------------------------------------------------------------------------------------------

# pydicom has no free decoder for these; they are compared with their uncompressed twins below.
BEYOND_PYDICOM = {
    "pydicom_JPEG-lossy.dcm",
    "wg04_RG2_JPLY.dcm",
    "pydicomdata_liver_deflate.dcm",
    "pydicomdata_liver_nonbyte_aligned_rle.dcm",
}


@pytest.mark.parametrize(
    ("folder", "every", "fewest"),
    [
        (real_data.SHIPPED, 1, 130),
        pytest.param(real_data.CORPUS, 20, 15, marks=pytest.mark.corpus),
        rarely(pytest.param(real_data.CORPUS, 1, 200, marks=pytest.mark.corpus)),
    ],
)
def test_every_file_decodes_to_what_pydicom_decodes(folder: Path, every: int, fewest: int):
    """Of the slices of a series a few say as much as all."""
    seen = 0
    of_series = sorted((folder / "dicom/series").glob("*/*.dcm"))[::every]
    for path in [*sorted((folder / "dicom/files").glob("*.dcm")), *of_series]:
        dataset = load(path)
        if not pixel_decoding.has_pixels(dataset):
            continue
        layout, ours = (
            pixel_layout.layout_from_header(dataset, path.name),
            pixel_decoding.decode_frames(dataset, str(path)),
        )
        assert (layout.shape, layout.dtype) == (ours.shape, ours.dtype), path.name  # known before anything is decoded
        if path.name in BEYOND_PYDICOM:
            continue
        theirs = dataset.pixel_array
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            theirs = apply_color_lut(theirs, dataset)
        assert ours.dtype == theirs.dtype, path.name
        # Two JPEG decoders may round a colour apart by one.
        off = np.abs(ours.astype(float) - theirs.reshape(ours.shape)).max()
        assert off <= (1 if path.name == "fodicom_jpeg_baseline_ybr.dcm" else 0), path.name
        seen += 1
    assert seen > fewest


# Objects compressed without loss, and others with the same pixels; both are shipped or neither is.
TWINS = {
    "cs_ect_jpegls_fragmented.dcm": "pydicomdata_eCT_Supplemental.dcm",
    "cs_ect_jpeg_lossless_fragmented.dcm": "pydicomdata_eCT_Supplemental.dcm",
    "wg04_CT2_JLSL.dcm": "wg04_CT2_RLE.dcm",
    "wg04_MR4_JPLL.dcm": "wg04_MR4_JLSL.dcm",
    "pydicomdata_emri_small_jpeg_2k_lossless.dcm": "pydicomdata_emri_small.dcm",
    "pydicom_MR_small_RLE.dcm": "pydicom_MR_small.dcm",
    "pydicom_MR_small_jp2klossless.dcm": "pydicom_MR_small.dcm",
    "pydicom_MR_small_padded.dcm": "pydicom_MR_small.dcm",
    "pydicomdata_liver_j2k.dcm": "dcmqi_seg_liver.dcm",
    "pydicomdata_liver_deflate.dcm": "dcmqi_seg_liver.dcm",
}


def decoded(name: str) -> Pixels:
    """The pixels of a real object."""
    return pixel_decoding.decode_frames(load(real_data.find(f"dicom/files/{name}")), name)


@pytest.mark.parametrize("twin", real_data.parameters("dicom/files", TWINS))
def test_lossless_compression_changes_no_pixel(twin: str):
    assert_array_equal(decoded(twin), decoded(TWINS[twin]))


def test_run_length_and_lossless_jpeg_series_hold_the_same_pixels(corpus: Path):
    paths = sorted((corpus / "dicom/series/mr_compressed_rle").glob("*.dcm"))
    assert paths
    for path in paths:
        twin = corpus / "dicom/series/mr_compressed_jpeg_lossless" / path.name
        assert_array_equal(pixel_decoding.decode_frames(load(path), ""), pixel_decoding.decode_frames(load(twin), ""))


def test_one_bit_run_length_frames_are_unpacked_where_they_end_inside_a_byte(data: Path):
    whole = pixel_decoding.decode_frames(load(data / "dicom/files/dcmqi_seg_liver.dcm"), "")
    cropped = pixel_decoding.decode_frames(load(data / "dicom/files/pydicomdata_liver_nonbyte_aligned_rle.dcm"), "")
    assert cropped.sum() == whole.sum()
    assert_array_equal(cropped, whole[:, :510, :510])


# Means of blocks of 64 x 64 pixels of its lossless twin wg04_NM1_RLE.dcm, rounded.
LOSSLESS_MEANS = [
    *([0, 0, 0, 0], [0, 8, 13, 0], [0, 22, 43, 1], [13, 50, 65, 22], [15, 39, 53, 18], [12, 27, 44, 15]),
    *([10, 39, 70, 14], [9, 29, 32, 14], [1, 22, 19, 2], [1, 24, 27, 0], [0, 17, 18, 0], [0, 14, 12, 0]),
    *([0, 19, 16, 0], [0, 3, 3, 0], [0, 0, 0, 0], [0, 0, 0, 0]),
]


def means_of_blocks(pixels: Pixels) -> Pixels:
    return pixels[0].astype(float).reshape(16, 64, 4, 64).mean(axis=(1, 3))


def test_twelve_bit_lossy_jpeg_has_the_means_of_its_lossless_twin():
    means = means_of_blocks(decoded("pydicom_JPEG-lossy.dcm"))
    assert np.abs(means - LOSSLESS_MEANS).max() < 2  # of 70


def test_twelve_bit_lossy_jpeg_comes_close_to_its_lossless_twin(corpus: Path):
    lossy = decoded("pydicom_JPEG-lossy.dcm").astype(float)
    lossless = pixel_decoding.decode_frames(load(corpus / "dicom/files/wg04_NM1_RLE.dcm"), "").astype(float)
    assert_array_equal(np.rint(means_of_blocks(lossless)), LOSSLESS_MEANS)
    assert np.abs(lossy - lossless).mean() < 3  # of 278
    assert np.corrcoef(lossy.ravel(), lossless.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(
    "name",
    real_data.parameters(
        "dicom/files",
        (
            "pydicom_examples_ybr_color.dcm",
            "pydicomdata_emri_small.dcm",
            "dcmqi_seg_liver.dcm",
            "cs_ect_jpegls_fragmented.dcm",
        ),
    ),
)
def test_one_frame_is_that_frame_of_all(name: str):
    dataset = load(real_data.find(f"dicom/files/{name}"))
    everything = pixel_decoding.decode_frames(dataset, name)
    assert_array_equal(pixel_decoding.decode_frames(dataset, name, [1])[0], everything[1])
    assert_array_equal(pixel_decoding.decode_frames(dataset, name, [1, 0]), everything[[1, 0]])
    assert_array_equal(np.stack(list(pixel_decoding.iterate_frames(dataset, name))), everything)


BROKEN = {
    "dcm4che_3gb_truncated.dcm": "BitsAllocated is not a number",
    "dwv_no_rows.dcm": "Rows is missing",
    "fodicom_mr_no_pixels.dcm": "0 bytes of pixels where the header needs 524288",
    "fodicom_unreadable_GH340.dcm": "BitsStored 12, BitsAllocated 12 and HighBit 11",
    "pydicom_MR_truncated.dcm": "8130 bytes of pixels where the header needs 8192",
    "pydicom_badVR.dcm": "NumberOfFrames is not a number",
    "pydicom_meta_missing_tsyntax.dcm": "BitsAllocated is missing",
    "pydicomdata_emri_j2k_too_short.dcm": "holds no picture",
}


@pytest.mark.parametrize("name", real_data.parameters("dicom/broken", BROKEN))
def test_a_damaged_file_is_refused_by_its_fault(name: str):
    path = real_data.find(f"dicom/broken/{name}")
    with pytest.raises(FormatError, match=BROKEN[name]) as refusal:
        pixel_decoding.decode_frames(load(path), str(path))
    assert refusal.value.where == str(path)
    assert refusal.value.remedy


def test_a_compressed_stream_of_another_signedness_takes_the_headers_word(data: Path):
    pixels = pixel_decoding.decode_frames(load(data / "dicom/broken/pydicom_J2K_pixelrep_mismatch.dcm"), "")
    assert pixels.dtype == np.int16
    assert pixels.min() == -2000  # padding outside the scanner's circle, not 6192


def test_an_object_without_file_meta_is_read_in_the_syntax_it_was_parsed_with(tmp_path: Path):
    pixels = RNG.integers(0, 4000, (6, 8), dtype=np.uint16)
    dataset = picture(pixels)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.save_as(tmp_path / "bare.dcm", implicit_vr=False, little_endian=True, enforce_file_format=False)
    bare = pydicom.dcmread(tmp_path / "bare.dcm", force=True)
    assert not bare.file_meta
    assert_array_equal(pixel_decoding.decode_frames(bare, ""), pixels[None])


def test_a_real_object_without_file_meta_is_read(corpus: Path):
    path = corpus / "dicom/broken/pydicomdata_OT-PAL-8-face_no_preamble.dcm"
    assert pixel_decoding.decode_frames(load(path), "").shape == (1, 480, 640, 3)


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
    assert_array_equal(pixel_decoding.decode_frames(dataset, "")[0], truth)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_one_bit_frames_follow_each_other_without_a_gap(frames: int, rows: int, columns: int, seed: int):
    truth = np.random.default_rng(seed).integers(0, 2, (frames, rows, columns)).astype(np.uint8)
    packed = np.packbits(truth, axis=None, bitorder="little").tobytes()
    dataset = picture(truth, frames=frames, BitsAllocated=1, BitsStored=1, HighBit=0)
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    assert_array_equal(pixel_decoding.decode_frames(dataset, ""), truth)
    assert_array_equal(pixel_decoding.decode_frames(dataset, "", [frames - 1])[0], truth[-1])


def test_bytes_in_big_endian_words_are_swapped_back():
    truth = np.arange(12, dtype=np.uint8).reshape(3, 4)
    dataset = picture(truth, syntax=pydicom.uid.ExplicitVRBigEndian)
    dataset.PixelData = truth.reshape(-1, 2)[:, ::-1].tobytes()
    dataset["PixelData"].VR = "OW"
    assert_array_equal(pixel_decoding.decode_frames(dataset, "")[0], truth)


def test_float_pixels_stay_floats():
    truth = RNG.normal(size=(3, 4))
    dataset = picture(truth, DoubleFloatPixelData=truth.tobytes())
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit
    assert_array_equal(pixel_decoding.decode_frames(dataset, "")[0], truth)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_pixels_for_one_frame_more_than_the_header_says_are_refused():
    dataset = picture(np.zeros((2, 4, 4), np.uint16), frames=2, NumberOfFrames=1)
    with pytest.raises(FormatError, match="64 bytes of pixels where the header states 32"):
        pixel_decoding.decode_frames(dataset, "")


@pytest.mark.parametrize("frames", [None, 3])
@pytest.mark.parametrize("wrong", [{"Columns": 9}, {"Rows": 7}])
def test_fewer_rows_or_columns_than_there_are_pixels_for_are_refused(
    tmp_path: Path, frames: int | None, wrong: dict[str, int]
):
    shape = (8, 10) if frames is None else (frames, 8, 10)
    pixels = np.arange(1, np.prod(shape) + 1, dtype=np.uint16).reshape(shape)
    path = write_slice(tmp_path / "a.dcm", pixels, position=None, orientation=None, Modality="OT", **wrong)
    with pytest.raises(FormatError, match=r"a\.dcm: .* bytes of pixels where the header states"):
        np.asarray(file_formats.read(path).data)
    with pytest.raises(FormatError, match=r"a\.dcm: .* bytes of pixels where the header states"):
        single_frame.displayed_frame(header_reading.read_header(path), 0)


@pytest.mark.parametrize("surplus", [bytes(128), bytes(range(1, 15))])
def test_bytes_behind_the_pixels_that_are_no_row_or_column_are_left_out_with_a_note(tmp_path: Path, surplus: bytes):
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) + 1
    stored = pixels.astype("<u2").tobytes() + surplus[: 2 * 63]
    path = write_slice(tmp_path / "a.dcm", pixels, SliceThickness=1, PixelData=stored)
    image = file_formats.read(path)
    assert_array_equal(np.asarray(image.data)[0, :, :, 0].T, pixels)
    assert f"up to {len(stored) - 128} bytes behind the pixels of a file were left out as padding" in image.notes
    assert single_frame.displayed_frame(header_reading.read_header(path), 0).shape == (8, 8)


def test_one_byte_that_makes_the_length_even_gets_no_note(tmp_path: Path):
    path = write_slice(
        tmp_path / "a.dcm", np.zeros((3, 3), np.uint8), SliceThickness=1, PixelData=bytes(10), BitsAllocated=8,
        BitsStored=8, HighBit=7,
    )  # fmt: skip
    assert not any("padding" in note for note in file_formats.read(path).notes)


def test_a_frame_that_is_called_subsampled_and_is_not_is_shown_whole(tmp_path: Path):
    grey = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    pixels = np.stack([grey, np.full_like(grey, 128), np.full_like(grey, 128)], axis=-1)
    dataset = picture(pixels, frames=2, PhotometricInterpretation="YBR_FULL_422")
    dataset.SOPInstanceUID, path = "1.2.3", tmp_path / "a.dcm"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    assert_array_equal(
        single_frame.displayed_frame(header_reading.read_header(path), 1), np.repeat(grey[1][..., None], 3, axis=-1)
    )


@pytest.mark.parametrize("photometric", ["CMYK", "HSV", "", "RGB"])
def test_a_colour_model_that_does_not_fit_the_samples_is_refused(photometric: str):
    dataset = picture(np.zeros((4, 4), np.uint8), PhotometricInterpretation=photometric)
    with pytest.raises(FormatError, match="not a known colour model"):
        pixel_decoding.decode_frames(dataset, "")


def test_text_of_a_person_in_place_of_a_colour_model_is_not_repeated():
    dataset = picture(np.zeros((4, 4), np.uint8), PhotometricInterpretation="DOE JANE")
    with pytest.raises(FormatError, match="1 samples of an unknown photometric interpretation") as refusal:
        pixel_decoding.decode_frames(dataset, "")
    assert "DOE" not in str(refusal.value)
