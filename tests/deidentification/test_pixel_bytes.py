"""Text behind the last pixel, beside coded frames and in bits that hold no pixel, and what an object says of itself."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

import hilum
from hilum.deidentification import coded_images, keyed_names
from written_dicom import write_slice

# Of nobody whom an attribute names: nothing but the place where it stands gives it away.
WHO = b"Quittenbaum^Ottilie 19370422"
PIXELS = np.arange(256, dtype=np.uint16).reshape(16, 16)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(keyed_names.VARIABLE, "0f" * 32)


def hand_on(path: Path, *options: str, **more: object) -> tuple[bytes, hilum.deidentify]:
    """(what is written, the row)."""
    out = path.with_name(f"{path.stem}-out")
    [row] = hilum.deidentify(path, out=out, options=list(options), **more).rows
    return (b"" if row.output is None else (out / row.output).read_bytes()), row


def change(path: Path, **values: object) -> Path:
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("behind", [b"", b"\0\0", WHO[:20]])
def test_bytes_behind_the_last_pixel_are_cut_off(tmp_path, behind):
    path = change(write_slice(tmp_path / "a.dcm", PIXELS), PixelData=PIXELS.tobytes() + behind)
    content, row = hand_on(path)
    assert row.refused is None
    assert content.endswith(PIXELS.tobytes())
    assert WHO[:20] not in content


def test_so_many_bytes_behind_the_pixels_that_the_header_may_be_wrong_are_refused(tmp_path):
    behind = WHO.ljust(32)  # a row
    path = change(write_slice(tmp_path / "a.dcm", PIXELS), PixelData=PIXELS.tobytes() + behind)
    content, row = hand_on(path)
    assert (content, row.refused) == (b"", "544 bytes of pixels where the header states 512")


def noted_jpeg(picture: np.ndarray, encode: object) -> bytes:
    stream = encode(picture)
    note = b"\xff\xfe" + (len(WHO) + 2).to_bytes(2, "big") + WHO
    thumbnail = b"\xff\xe0" + (10 + len(WHO)).to_bytes(2, "big") + b"JFXX\0\x10\0\0" + WHO
    return stream[:2] + thumbnail + note + stream[2:] + WHO


def noted_jpeg_2000(picture: np.ndarray, encode: object) -> bytes:
    stream = encode(picture)
    at = 2 + 2 + int.from_bytes(stream[4:6], "big")  # behind SIZ
    note = b"\xff\x64" + (len(WHO) + 4).to_bytes(2, "big") + b"\0\1" + WHO
    return stream[:at] + note + stream[at:] + WHO


@pytest.mark.parametrize(
    ("syntax", "write", "encode", "decode"),
    [
        (JPEGBaseline8Bit, noted_jpeg, imagecodecs.jpeg8_encode, imagecodecs.jpeg8_decode),
        (JPEGLSLossless, noted_jpeg, imagecodecs.jpegls_encode, imagecodecs.jpegls_decode),
        (
            JPEG2000Lossless,
            noted_jpeg_2000,
            lambda picture: imagecodecs.jpeg2k_encode(picture, codecformat="J2K", reversible=True),
            imagecodecs.jpeg2k_decode,
        ),
    ],
)
def test_text_beside_and_behind_coded_frames_goes_and_the_pixels_stay(tmp_path, syntax, write, encode, decode):
    frames = np.stack([PIXELS, PIXELS[::-1]]).astype(np.uint8)
    path = write_slice(tmp_path / "a.dcm", frames.astype(np.uint16), sop_class="1.2.840.10008.5.1.4.1.1.7.2")
    change(path, BitsAllocated=8, BitsStored=8, HighBit=7)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([write(frame, encode) for frame in frames])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    content, row = hand_on(path)
    assert (row.refused, WHO in content) == (None, False)
    written = pydicom.dcmread(path.with_name("a-out") / row.output)
    assert written.file_meta.TransferSyntaxUID == syntax
    kept = list(generate_frames(written.PixelData, number_of_frames=2))
    assert all(np.array_equal(decode(one), decode(encode(frame))) for one, frame in zip(kept, frames, strict=True))


def test_what_run_lengths_make_beyond_a_frame_goes(tmp_path):
    path = change(write_slice(tmp_path / "a.dcm", PIXELS), PixelData=PIXELS.tobytes())
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    [frame] = generate_frames(dataset.PixelData, number_of_frames=1)
    plain = encapsulate([frame])
    dataset.save_as(path)
    content, _ = hand_on(path)
    assert frame in content
    dataset.PixelData = encapsulate([frame.rstrip(b"\0") + bytes([len(WHO) - 1]) + WHO])
    assert dataset.PixelData != plain
    dataset.save_as(tmp_path / "b.dcm")
    content, row = hand_on(tmp_path / "b.dcm")
    assert WHO not in content
    assert np.array_equal(pydicom.dcmread(tmp_path / "b-out" / row.output).pixel_array, PIXELS)


def test_bits_that_hold_no_pixel_are_emptied_and_copies_of_a_sign_stay(tmp_path):
    twelve = {"BitsStored": 12, "HighBit": 11}
    with_overlay = PIXELS | (np.eye(16, dtype=np.uint16) << 14)
    path = change(write_slice(tmp_path / "a.dcm", with_overlay, **twelve), PixelData=with_overlay.tobytes())
    assert hand_on(path)[0].endswith(PIXELS.tobytes())
    signed = (PIXELS.astype(np.int16) - 100).astype("<i2")
    path = write_slice(tmp_path / "b.dcm", signed, **twelve)
    assert hand_on(path)[0].endswith(signed.tobytes())
    padded = PIXELS.copy()
    padded[0] = 63536
    path = write_slice(tmp_path / "c.dcm", padded, **twelve)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 63536)
    dataset.save_as(path)
    assert hand_on(path)[0].endswith(padded.tobytes())


def test_other_elements_in_the_group_of_the_pixels_go(tmp_path):
    path = write_slice(tmp_path / "a.dcm", PIXELS)
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x7FE00020, "OW", WHO)  # coefficients, retired
    dataset.save_as(path)
    content, row = hand_on(path)
    assert (row.refused, WHO in content) == (None, False)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned into its pixels"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}, "label of a slide"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"]}, "photograph of a slide"),
        ({"SpecimenLabelInImage": "YES"}, "label of a slide"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "copy of a screen"),
        ({"ConversionType": "SD"}, "scanned document"),
        ({"RecognizableVisualFeatures": "YES"}, "can be recognised"),
    ],
)
def test_what_says_itself_that_it_shows_somebody_is_held_back_without_clean_pixels(tmp_path, tags, words):
    path = write_slice(tmp_path / "a.dcm", PIXELS, **tags)
    content, row = hand_on(path)
    assert content == b""
    assert words in row.refused
    assert "clean-pixels" in row.remedy


def test_the_label_of_a_slide_waits_for_a_person_even_where_no_text_is_found(tmp_path):
    path = write_slice(tmp_path / "a.dcm", PIXELS, ImageType=["ORIGINAL", "PRIMARY", "LABEL", "NONE"])
    content, row = hand_on(path, "clean-pixels")
    assert (content, "bar codes" in row.review) == (b"", True)
    assert "data:image/png" in (tmp_path / "a-out.private" / "review.html").read_text()
    content, row = hand_on(path, "clean-pixels", accept_review=True)
    assert content


def test_a_jpeg_keeps_no_thumbnail(tmp_path):
    stream = imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint8))
    head, rest = stream[:20], stream[20:]
    assert head[6:11] == b"JFIF\0"
    small = bytes((1, 9)) + WHO[:27]
    noted = head[:4] + (16 + 27).to_bytes(2, "big") + head[6:18] + small + rest
    assert coded_images.strip_jpeg(noted, "a.jpg") == stream
