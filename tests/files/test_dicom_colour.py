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
