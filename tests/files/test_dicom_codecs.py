"""Compressed DICOM frames: what a codec stored comes back, and what is cut short is refused before it is filled up."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from dicom_objects import picture
from hilum.errors import FormatError
from hilum.files.dicom.reading import pixel_decoding
from matrices import only

Pixels = np.ndarray[Any, Any]
RNG = np.random.default_rng(4)

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
@pytest.mark.parametrize("fragments", only([2], [1, 2]))
@pytest.mark.parametrize("kind", only(["16 bit", "colour"], ["8 bit", "16 bit", "colour"]))
def test_what_a_lossless_codec_stored_comes_back(codec: str, fragments: int, kind: str):
    shape = (2, 24, 17, 3) if kind == "colour" else (2, 24, 17)
    ramp = np.indices(shape).sum(axis=0) * 7 + RNG.integers(0, 30, shape)
    truth = ramp.astype(np.uint16 if kind == "16 bit" else np.uint8)
    syntax, encode = LOSSLESS[codec]
    frames = [encode(frame) for frame in truth]
    dataset = picture(truth, frames=2, syntax=syntax, encoded=frames, fragments=fragments)
    assert_array_equal(pixel_decoding.decode_frames(dataset, ""), truth)


@given(st.integers(1, 300), st.integers(1, 40), st.sampled_from([8, 16]), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_run_lengths_written_by_pydicom_come_back(rows: int, columns: int, bits: int, seed: int):
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, 1 << bits, (rows, 1)), columns, axis=1).astype(f"u{bits // 8}")
    dataset = picture(truth)
    dataset.compress(pydicom.uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    assert_array_equal(pixel_decoding.decode_frames(dataset, "")[0], truth)


def test_an_adobe_marker_knows_a_jpegs_colours_better_than_the_header():
    truth = np.zeros((32, 32, 3), np.uint8)
    truth[..., 0] = 200
    plain = imagecodecs.jpeg8_encode(truth, level=100, colorspace="RGB", outcolorspace="RGB")
    assert b"Adobe" in plain
    dataset = picture(truth, syntax="1.2.840.10008.1.2.4.50", encoded=[plain], PhotometricInterpretation="YBR_FULL")
    assert np.abs(pixel_decoding.decode_frames(dataset, "")[0].astype(int) - truth).max() <= 2


def test_a_jfif_stream_called_rgb_is_ycbcr_as_jfif_says():
    truth = np.zeros((32, 32, 3), np.uint8)
    truth[..., 0] = 200
    jfif = imagecodecs.jpeg8_encode(truth, level=100, colorspace="RGB", outcolorspace="YCBCR")
    assert b"JFIF" in jfif
    dataset = picture(truth, syntax="1.2.840.10008.1.2.4.50", encoded=[jfif])
    assert np.abs(pixel_decoding.decode_frames(dataset, "")[0].astype(int) - truth).max() <= 3


def test_a_lossy_stream_called_lossless_is_known_by_itself():
    truth = np.zeros((32, 32, 3), np.uint8)
    truth[..., 0] = 200
    lossy = imagecodecs.jpeg8_encode(truth, level=100, colorspace="RGB", outcolorspace="YCBCR")
    dataset = picture(truth, syntax="1.2.840.10008.1.2.4.70", encoded=[lossy], PhotometricInterpretation="YBR_FULL")
    assert np.abs(pixel_decoding.decode_frames(dataset, "")[0].astype(int) - truth).max() <= 3


def test_luminance_and_chrominance_kept_by_a_lossless_codec_become_rgb():
    ybr = np.full((8, 8, 3), (76, 85, 255), np.uint8)  # red
    dataset = picture(
        ybr,
        syntax="1.2.840.10008.1.2.4.80",
        encoded=[imagecodecs.jpegls_encode(ybr)],
        PhotometricInterpretation="YBR_FULL",
    )
    assert np.abs(pixel_decoding.decode_frames(dataset, "")[0].astype(int) - [254, 0, 0]).max() <= 1


@pytest.mark.parametrize("codec", ["JPEG lossless", "JPEG-LS", "JPEG 2000", "HTJ2K", "JPEG XL"])
def test_a_stream_of_another_size_than_the_header_is_refused_before_it_is_decoded(codec: str):
    syntax, encode = LOSSLESS[codec]
    truth = np.zeros((16, 16), np.uint8)
    dataset = picture(truth, syntax=syntax, encoded=[encode(truth)], Rows=32)
    with pytest.raises(FormatError, match="16 x 16, the header states 32 x 16"):
        pixel_decoding.decode_frames(dataset, "")


@pytest.mark.parametrize("codec", LOSSLESS)
def test_a_compressed_frame_cut_short_is_refused(codec: str):
    syntax, encode = LOSSLESS[codec]
    truth = RNG.integers(0, 256, (64, 64)).astype(np.uint8)
    dataset = picture(truth, syntax=syntax, encoded=[encode(truth)[:1500]])
    with pytest.raises(FormatError, match="frame 1 cannot be decompressed"):
        pixel_decoding.decode_frames(dataset, "")


def test_fewer_compressed_frames_than_the_header_says_are_refused():
    truth = np.zeros((2, 8, 8), np.uint8)
    frames = [imagecodecs.jpegls_encode(frame) for frame in truth]
    dataset = picture(truth, frames=3, syntax="1.2.840.10008.1.2.4.80", encoded=frames)
    with pytest.raises(FormatError, match="2 compressed frames, the header states 3"):
        pixel_decoding.decode_frames(dataset, "")


def test_a_header_that_asks_for_far_more_memory_than_its_data_can_fill_is_refused():
    blank = imagecodecs.jpegls_encode(np.zeros((8, 8), np.uint8))
    dataset = picture(np.zeros((8, 8), np.uint8), syntax="1.2.840.10008.1.2.4.80", encoded=[blank])
    dataset.Rows = dataset.Columns = 65535
    with pytest.raises(FormatError, match="claims 4294836225 bytes"):
        pixel_decoding.decode_frames(dataset, "")


def test_a_syntax_without_a_free_decoder_is_refused_by_its_name():
    dataset = picture(np.zeros((8, 8), np.uint8), syntax=pydicom.uid.JPIPHTJ2KReferenced)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.92")
    with pytest.raises(FormatError, match=r"JPEG 2000 Part 2 .* \(1\.2\.840\.10008\.1\.2\.4\.92\)"):
        pixel_decoding.decode_frames(dataset, "")


@pytest.mark.parametrize(
    ("syntax", "stated"),
    [("1.2.3", "1.2.3"), ("1.2.840.10008.1.2.4.94", r"JPIP Referenced \(1.2.840.10008.1.2.4.94\)")],
)
def test_a_syntax_without_decoder_is_named_once(syntax: str, stated: str):
    dataset = picture(np.zeros((4, 4), np.uint8), syntax="1.2.840.10008.1.2.4.70", encoded=[b"\0\0"])
    dataset.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(FormatError, match=rf"no decoder for transfer syntax {stated}\. ") as refusal:
        pixel_decoding.decode_frames(dataset, "x.dcm")
    assert refusal.value.problem.count(syntax) == 1


def test_text_of_a_person_in_place_of_a_syntax_is_not_repeated():
    dataset = picture(np.zeros((4, 4), np.uint8), syntax="1.2.840.10008.1.2.4.70", encoded=[b"\0\0"])
    dataset.file_meta["TransferSyntaxUID"]._value = pydicom.uid.UID("DOE JANE", validation_mode=0)
    with pytest.raises(FormatError, match="no decoder for a transfer syntax that is no UID") as refusal:
        pixel_decoding.decode_frames(dataset, "x.dcm")
    assert "DOE" not in str(refusal.value)
