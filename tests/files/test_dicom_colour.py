"""DICOM colours: luminance, palettes and CIELab become the RGB that the standard means."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from highdicom.color import CIELabColor
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from dicom_objects import picture
from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.files.dicom.reading import colour_spaces, pixel_decoding
from jpeg_streams import AS_RGB, AS_YCBCR, JFIF, SQUARE, adobe, stream

Pixels = np.ndarray[Any, Any]
RNG = np.random.default_rng(4)


def test_luminance_and_chrominance_become_the_colours_of_the_standard():
    ybr = np.array(
        [[[76, 85, 255], [150, 44, 21], [29, 255, 107], [128, 128, 128]]], np.uint8
    )  # red, green, blue, grey
    rgb = pixel_decoding.decode_frames(picture(ybr, PhotometricInterpretation="YBR_FULL"), "")[0, 0]
    assert np.abs(rgb.astype(int) - [[254, 0, 0], [0, 255, 1], [0, 0, 254], [128, 128, 128]]).max() <= 1


def test_two_pixels_share_their_chrominance_in_422():
    dataset = picture(np.zeros((1, 4, 3), np.uint8), PhotometricInterpretation="YBR_FULL_422")
    dataset.PixelData = bytes([10, 20, 128, 128, 30, 40, 128, 128])
    assert pixel_decoding.decode_frames(dataset, "")[0, 0, :, 1].tolist() == [10, 20, 30, 40]


def test_pixels_called_422_that_are_not_subsampled_are_known_by_their_length():
    grey = np.full((2, 4, 3), 128, np.uint8)
    grey[..., 0] = np.arange(8).reshape(2, 4) * 10
    dataset = picture(grey, PhotometricInterpretation="YBR_FULL_422")
    assert_array_equal(pixel_decoding.decode_frames(dataset, "")[0, ..., 2], grey[..., 0])


def test_colours_by_plane_and_by_pixel_are_the_same():
    truth = RNG.integers(0, 256, (3, 4, 3)).astype(np.uint8)
    by_plane = picture(truth, PlanarConfiguration=1)
    by_plane.PixelData = np.moveaxis(truth, -1, 0).tobytes()
    assert_array_equal(pixel_decoding.decode_frames(by_plane, "")[0], truth)


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
    assert pixel_decoding.decode_frames(dataset, "")[0, 0, :, 0].tolist() == [5, 5, 5, 6, 7, 7]
    assert pixel_decoding.decode_frames(dataset, "", indices=True)[0, 0].tolist() == index[0].tolist()


def test_a_palette_of_sixteen_bit_numbers_and_packed_bytes_is_not_cut_to_eight_bits():
    index = np.array([[0, 255, 256, 299]], np.uint16)
    dataset = palette(index, [300, 0, 8], AnyPaletteColorLookupTableData=(np.arange(300) % 251).astype("u1").tobytes())
    assert pixel_decoding.decode_frames(dataset, "")[0, 0, :, 0].tolist() == [0, 4, 5, 48]


def test_a_segmented_palette_is_written_out():
    words = np.array([0, 2, 10, 20, 1, 4, 60, 0, 1, 7], "<u2")  # two discrete, a line of four to 60, one discrete
    dataset = palette(
        np.arange(7, dtype=np.uint8)[None], [7, 0, 16], SegmentedAnyPaletteColorLookupTableData=words.tobytes()
    )
    assert pixel_decoding.decode_frames(dataset, "")[0, 0, :, 1].tolist() == [10, 20, 30, 40, 50, 60, 7]


def test_a_palette_shorter_than_it_says_is_refused():
    dataset = palette(np.zeros((1, 2), np.uint8), [9, 0, 16], AnyPaletteColorLookupTableData=b"\0" * 8)
    with pytest.raises(FormatError, match="8 entries instead of 9"):
        pixel_decoding.decode_frames(dataset, "")


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_any_colour_survives_the_way_through_cielab(colour: tuple[int, int, int]):
    stored = CIELabColor.from_rgb(*colour)
    assert_allclose(colour_spaces.rgb_of_cielab(stored.value), colour, atol=1)
    assert_allclose(colour_spaces.rgb_of_cielab(stored.value), stored.to_rgb(clip=True), atol=1)


@pytest.mark.parametrize(
    ("transforms", "photometric", "doubt"),
    [
        (True, "YBR_RCT", ""),
        (False, "RGB", ""),
        (True, "RGB", ""),
        (False, "YBR_FULL", ""),
        (False, "YBR_RCT", "YBR_RCT and its JPEG 2000 stream no colour transform: taken for RGB"),
        (True, "YBR_FULL", "YBR_FULL and its JPEG 2000 stream a colour transform: both are undone"),
    ],
)
@pytest.mark.parametrize("container", ["j2k", "jp2"])
def test_a_note_says_where_a_jpeg_2000_stream_and_its_header_disagree_on_colours(
    tmp_path, transforms, photometric, doubt, container
):
    pixels = RNG.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    stream = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat=container, mct=transforms)
    dataset = picture(pixels, syntax="1.2.840.10008.1.2.4.90", encoded=[stream], PhotometricInterpretation=photometric)
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.4"
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    image = file_formats.read(tmp_path / "a.dcm")
    assert [note for note in image.notes if "JPEG 2000" in note] == (
        [f"the header states {doubt}, a guess"] if doubt else []
    )
    if photometric != "YBR_FULL":
        assert_array_equal(image.data, np.moveaxis(pixels, -1, 0))


def image_of_stream(folder, syntax, coded, photometric):
    dataset = picture(SQUARE, syntax=syntax, encoded=[coded], PhotometricInterpretation=photometric)
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.4"
    pydicom.dcmwrite(folder / "a.dcm", dataset, enforce_file_format=True)
    return file_formats.read(folder / "a.dcm")


LOSSY, LOSSLESS, LOSSLESS_2000 = (f"1.2.840.10008.1.2.4.{number}" for number in (50, 70, 90))
YCBCR, RED_GREEN_BLUE = "luminance with chrominance", "red, green and blue"
NAMES = "the names of its components"


@pytest.mark.parametrize(
    ("coded", "photometric", "colours", "stated"),
    [
        # A stream that says nothing is what its header says.
        (stream(), "RGB", AS_RGB, ""),
        (stream(), "YBR_FULL_422", AS_YCBCR, ""),
        # One that does is believed, by the order of libjpeg: JFIF, Adobe, names of components, their sizes.
        (stream(JFIF), "RGB", AS_YCBCR, f"{YCBCR} (JFIF)"),
        (stream(JFIF, adobe(0)), "RGB", AS_YCBCR, f"{YCBCR} (JFIF)"),
        (stream(JFIF, names=b"RGB"), "YBR_FULL_422", AS_YCBCR, ""),
        (stream(adobe(0)), "YBR_FULL_422", AS_RGB, f"{RED_GREEN_BLUE} (Adobe's marker)"),
        (stream(adobe(1)), "RGB", AS_YCBCR, f"{YCBCR} (Adobe's marker)"),
        (stream(adobe(2)), "RGB", AS_YCBCR, f"{YCBCR} (Adobe's marker)"),
        (stream(adobe(1), names=b"RGB"), "YBR_FULL_422", AS_YCBCR, ""),
        (stream(names=b"RGB"), "YBR_FULL_422", AS_RGB, f"{RED_GREEN_BLUE} ({NAMES})"),
        (stream(coarser=True), "RGB", AS_YCBCR, f"{YCBCR} (its coarser chrominance)"),
    ],
)
def test_a_lossy_jpeg_stream_that_states_its_colours_is_believed(tmp_path, coded, photometric, colours, stated):
    image = image_of_stream(tmp_path, LOSSY, coded, photometric)
    assert_allclose(image.data[:, 8, 8], colours, atol=2)
    expected = f"the header states {photometric} and its JPEG stream {stated}: the stream is believed"
    assert [note for note in image.notes if "believed" in note] == ([expected] if stated else [])


@pytest.mark.parametrize(
    ("coded", "photometric", "colours", "believed"),
    [
        (stream(lossless=True), "RGB", AS_RGB, ""),
        (stream(lossless=True), "YBR_FULL", AS_YCBCR, ""),
        (stream(JFIF, lossless=True), "RGB", AS_RGB, f"{YCBCR} (JFIF): the header"),
        (stream(JFIF, lossless=True), "YBR_FULL", AS_YCBCR, ""),
        (stream(adobe(1), lossless=True), "RGB", AS_RGB, f"{YCBCR} (Adobe's marker): the header"),
        (stream(lossless=True, names=b"RGB"), "YBR_FULL_422", AS_RGB, f"{RED_GREEN_BLUE} ({NAMES}): the stream"),
    ],
)
def test_a_lossless_jpeg_stream_is_what_its_header_says_but_for_names_of_colours(
    tmp_path, coded, photometric, colours, believed
):
    image = image_of_stream(tmp_path, LOSSLESS, coded, photometric)
    assert_allclose(image.data[:, 8, 8], colours, atol=1)
    expected = f"the header states {photometric} and its JPEG stream {believed} is believed"
    assert [note for note in image.notes if "believed" in note] == ([expected] if believed else [])


@pytest.mark.parametrize("photometric", ["YBR_FULL", "RGB"])
def test_the_colours_of_a_jp2_file_are_undone_once(tmp_path, photometric):
    coded = imagecodecs.jpeg2k_encode(SQUARE, level=0, codecformat="jp2", mct=False, colorspace="SYCC")
    image = image_of_stream(tmp_path, LOSSLESS_2000, coded, photometric)
    assert_allclose(image.data[:, 8, 8], AS_YCBCR, atol=2)
    assert any("sYCC: that file is believed" in note for note in image.notes) == (photometric == "RGB")
