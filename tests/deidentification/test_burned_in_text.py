"""Text in pixels: found in every colour and syntax, blacked, and nothing else touched."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

import hilum
from hilum import installation
from hilum.deidentification import burned_in_text, keyed_names
from hilum.deidentification.burned_in_text import TextPlace
from written_dicom import write_slice

WORDS = "QUITTENBAUM 1937"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(keyed_names.VARIABLE, "0f" * 32)


def smooth(side: int = 256) -> np.ndarray:
    """A picture of blobs, as anatomy is, from 40 to 120."""
    noise = cv2.GaussianBlur(np.random.default_rng(1).random((side, side)), (0, 0), 9)
    return (40 + 80 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)


def stamp(picture: np.ndarray, colour: int | tuple[int, ...]) -> np.ndarray:
    return cv2.putText(picture.copy(), WORDS, (30, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, 1, cv2.LINE_AA)


def write_picture(path: Path, frames: np.ndarray, photometric: str = "MONOCHROME2", **tags: object) -> Path:
    """A secondary capture of 8 bits, (rows, columns), (frames, rows, columns) or (rows, columns, 3)."""
    write_slice(path, np.zeros((2, 2), np.int16), sop_class="1.2.840.10008.5.1.4.1.1.7", **tags)
    dataset = pydicom.dcmread(path)
    colour = photometric in ("RGB", "YBR_FULL_422")
    if frames.ndim == 3 and not colour:
        dataset.NumberOfFrames = len(frames)
    dataset.Rows, dataset.Columns = frames.shape[-3:-1] if colour else frames.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3 if colour else 1), photometric
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = frames.astype(np.uint8).tobytes()
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path)
    return path


def cleaned(path: Path, tmp_path: Path, **options: object) -> tuple[pydicom.Dataset | None, hilum.deidentify]:
    result = hilum.deidentify(path, out=tmp_path / "out", options=["clean-pixels"], **options)
    [row] = result.rows
    return (None if row.output is None else pydicom.dcmread(tmp_path / "out" / row.output)), row


def strokes() -> np.ndarray:
    """(rows, columns) where the words stand."""
    return stamp(np.zeros((256, 256), np.uint8), 255) > 0


@pytest.mark.parametrize("grey", [255, 180, 0])
def test_white_grey_and_dark_text_is_blacked_and_other_pixels_stay(tmp_path, grey):
    plain = smooth()
    picture = stamp(plain if grey else plain + 100, grey)
    dataset, row = cleaned(write_picture(tmp_path / "a.dcm", picture, BurnedInAnnotation="NO"), tmp_path)
    assert (row.text >= 1, row.review, dataset.BurnedInAnnotation) == (True, None, "NO")
    after = dataset.pixel_array
    changed = after != picture
    assert (after[strokes()] == picture.min()).mean() > 0.99
    assert set(np.unique(after[changed])) == {picture.min()}
    assert changed[60:].sum() == 0


def test_a_picture_without_text_keeps_its_pixel_bytes(tmp_path):
    path = write_picture(tmp_path / "a.dcm", smooth())
    dataset, row = cleaned(path, tmp_path)
    assert (row.text, row.review) == (0, None)
    assert dataset.PixelData == pydicom.dcmread(path).PixelData


def test_text_in_a_palette_becomes_its_darkest_entry(tmp_path):
    path = write_picture(tmp_path / "a.dcm", stamp(smooth(), 255), "PALETTE COLOR")
    dataset = pydicom.dcmread(path)
    greys = np.roll(np.arange(256, dtype=np.uint16) * 257, 7)  # the darkest entry is number 7
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        dataset[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
        setattr(dataset, f"{colour}PaletteColorLookupTableData", greys.tobytes())
    dataset.PixelData = (
        np.where(stamp(np.zeros((256, 256), np.uint8), 255) > 128, 6, smooth()).astype(np.uint8).tobytes()
    )
    dataset.save_as(path)
    after, row = cleaned(path, tmp_path)
    assert row.text >= 1
    changed = after.pixel_array != dataset.pixel_array
    assert changed.sum() > 500
    assert set(np.unique(after.pixel_array[changed])) == {7}


def test_text_in_a_jpeg_is_blacked_and_the_rest_decodes_to_the_same_values(tmp_path):
    picture = np.repeat(smooth()[..., None], 3, axis=2)
    picture = stamp(picture, (255, 200, 0))
    path = write_picture(tmp_path / "a.dcm", picture, "YBR_FULL_422", PatientName="Quittenbaum^Ottilie")
    dataset = pydicom.dcmread(path)
    coded = imagecodecs.jpeg8_encode(picture, level=95)
    note = b"of Quittenbaum, Ottilie"
    coded = coded[:2] + b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note + coded[2:]
    dataset.PixelData = encapsulate([coded])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.save_as(path)
    after, row = cleaned(path, tmp_path)
    before = imagecodecs.jpeg8_decode(coded)
    assert row.text >= 1
    assert (after.PhotometricInterpretation, after.file_meta.TransferSyntaxUID.is_compressed) == ("RGB", False)
    assert np.array_equal(after.pixel_array[60:], before[60:])
    assert after.pixel_array[strokes()].max() == 0
    # A name in a comment of the stream alone makes it be written anew too.
    bare = hilum.deidentify(path, out=tmp_path / "bare").rows[0]
    assert b"Quittenbaum" not in (tmp_path / "bare" / bare.output).read_bytes()


def test_a_box_that_is_found_in_one_frame_of_a_clip_is_black_in_all(tmp_path):
    frames = np.stack([smooth()] * 12)
    frames[10] = stamp(frames[10], 255)
    dataset, row = cleaned(write_picture(tmp_path / "a.dcm", frames), tmp_path)
    assert row.text >= 1
    hidden = dataset.pixel_array != frames
    assert hidden[0].sum() > 1000
    assert (hidden[1:10] == hidden[0]).all()


def test_text_of_one_slice_of_a_series_is_blacked_there_alone(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(4):
        values = smooth().astype(np.int16) * 8
        write_slice(
            folder / f"{n}.dcm",
            np.where(stamp(np.zeros((256, 256), np.uint8), 255) > 90, 2000, values) if n == 2 else values,
            position=(0, 0, n),
            StudyInstanceUID="1.2.3",
            SeriesInstanceUID="1.2.4",
        )
    rows = hilum.deidentify(folder, out=tmp_path / "out", options=["clean-pixels"]).rows
    assert [row.text > 0 for row in rows] == [False, False, True, False]


def test_outside_the_regions_of_an_ultrasound_image_all_is_black_where_there_is_text(tmp_path):
    picture = stamp(np.full((256, 256), 60, np.uint8), 255)
    region = pydicom.Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 20, 100
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 200, 250
    path = write_picture(tmp_path / "a.dcm", picture, SequenceOfUltrasoundRegions=[region])
    dataset, _ = cleaned(path, tmp_path)
    after = dataset.pixel_array
    assert (after[100:251, 20:201] == 60).all()
    assert after[:60].max() == picture.min()


def test_what_is_unsure_waits_for_a_person_and_is_written_when_accepted(tmp_path, monkeypatch):
    place = TextPlace((10, 40, 20, 120), burned_in_text.UNSURE)
    monkeypatch.setattr(burned_in_text, "find_text", lambda view: [place])
    path = write_picture(tmp_path / "a.dcm", smooth())
    dataset, row = cleaned(path, tmp_path)
    assert (dataset, row.output, "1 place" in row.review) == (None, None, True)
    page = (tmp_path / "out.private" / "review.html").read_text()
    assert page.count("data:image/png") == 1
    assert "a.dcm" in page
    dataset, row = cleaned(path, tmp_path, accept_review=True)
    assert dataset.pixel_array[10:40, 20:120].max() == smooth().min()


def test_nothing_is_downloaded_and_a_missing_detector_is_named(tmp_path, monkeypatch):
    def refuse(*given: object) -> None:
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    burned_in_text._session.cache_clear()
    assert burned_in_text.find_text(stamp(smooth(), 255))
    burned_in_text._session.cache_clear()
    monkeypatch.setattr(burned_in_text, "find_spec", lambda name: None)
    with pytest.raises(hilum.HilumError, match=re.escape(installation.install_line("deidentify"))):
        cleaned(write_picture(tmp_path / "a.dcm", smooth()), tmp_path)
    burned_in_text._session.cache_clear()


def test_an_overlay_with_text_goes_and_one_without_stays(tmp_path):
    kept = []
    for n, words in enumerate(("", WORDS)):
        bits = np.zeros((256, 256), np.uint8)
        cv2.circle(bits, (128, 160), 40, 1, 2)
        bits = cv2.putText(bits, words, (30, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1, 1)
        path = write_picture(tmp_path / f"{n}.dcm", smooth())
        dataset = pydicom.dcmread(path)
        dataset.add_new(0x60000010, "US", 256)
        dataset.add_new(0x60000011, "US", 256)
        dataset.add_new(0x60000040, "CS", "G")
        dataset.add_new(0x60000050, "SS", [1, 1])
        dataset.add_new(0x60000100, "US", 1)
        dataset.add_new(0x60000102, "US", 0)
        dataset.add_new(0x60003000, "OW", np.packbits(bits, bitorder="little").tobytes())
        dataset.save_as(path)
        row = hilum.deidentify(path, out=tmp_path / f"out{n}", options=["clean-graphics"]).rows[0]
        kept.append(0x60003000 in pydicom.dcmread(tmp_path / f"out{n}" / row.output))
    assert kept == [True, False]


def test_the_extremes_of_a_picture_do_not_hide_text_in_its_usual_range():
    picture = stamp(smooth(), 255).astype(np.uint16)
    picture[200, 200] = 65535
    assert burned_in_text._places_in(picture)
