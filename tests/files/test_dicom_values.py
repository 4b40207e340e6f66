"""DICOM values: what is stored becomes what it means, exactly, and says its unit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset
from pydicom.pixels import apply_rescale, apply_voi_lut

import real_data
from dicom_objects import picture
from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.files.dicom import header_reading
from hilum.files.dicom.reading import display_windows, pixel_decoding, pixel_values, single_frame, value_maps
from hilum.files.dicom.reading.display_windows import DisplayWindow
from hilum.files.dicom.reading.value_maps import ValueMeaning
from hilum.report import display
from written_dicom import write_enhanced, write_slice


def load(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus is odd on purpose
        return pydicom.dcmread(path)


def item(**tags: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def ct(**tags: Any) -> Dataset:
    return picture(np.zeros((2, 2), np.int16), Modality="CT", **tags)


# -- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", real_data.FOLDERS)
def test_rescaled_values_are_pydicoms(folder: Path):
    seen = 0
    medium = (folder / "dicom/series/dicomdir_fileset").glob("*/*/*")
    series = (folder / "dicom/series").glob("*/*1.dcm")
    for path in [*sorted((folder / "dicom/files").glob("*.dcm")), *sorted(medium), *sorted(series)]:
        dataset = load(path)
        if "RescaleSlope" not in dataset or "PixelData" not in dataset or "ModalityLUTSequence" in dataset:
            continue
        if dataset.PhotometricInterpretation != "MONOCHROME2":
            continue
        stored = pixel_decoding.decode_frames(dataset, path.name)
        values = pixel_values.rescale_stored(stored, dataset)
        assert_allclose(values, apply_rescale(stored, dataset), rtol=1e-6, atol=1e-3, err_msg=path.name)
        assert values.dtype == pixel_values.value_dtype(dataset, len(stored)), path.name
        seen += 1
    assert seen > 15


def check_rescaled_frames(dataset: Dataset) -> None:
    """Each frame has the values that its own slope and intercept give, read alone and among all."""
    stored = pixel_decoding.decode_frames(dataset, "")
    values = pixel_values.rescale_stored(stored, dataset)
    rescales = [groups.PixelValueTransformationSequence[0] for groups in dataset.PerFrameFunctionalGroupsSequence]
    assert len({float(rescale.RescaleSlope) for rescale in rescales}) > 1
    for n, rescale in enumerate(rescales):
        alone = pixel_decoding.decode_frames(dataset, "", [n])[0]
        truth = alone * float(rescale.RescaleSlope) + float(rescale.RescaleIntercept)
        assert_allclose(values[n], truth, rtol=1e-5, atol=1e-4)
        assert_array_equal(pixel_values.rescale_stored(alone, dataset, n), values[n].astype(values.dtype))


def test_frames_of_an_enhanced_object_are_rescaled_one_by_one(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 4000, (2, 5, 6), dtype=np.uint16)
    frames = [
        {"PixelValueTransformationSequence": [item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US")]}
        for slope, intercept in ((1.28, 0), (0.244, -500))
    ]
    check_rescaled_frames(load(write_enhanced(tmp_path / "a.dcm", pixels, frames)))


def test_magnitude_and_field_map_of_philips_are_rescaled_one_by_one(corpus: Path):
    check_rescaled_frames(load(next((corpus / "dicom/series/enh_mr_philips_fieldmap").glob("*.dcm"))))


def test_a_modality_table_and_monochrome1_make_dense_bright(corpus: Path):
    dataset = load(corpus / "dicom/files/fodicom_cr_mono1_modality_lut.dcm")
    stored = pixel_decoding.decode_frames(dataset, "")
    table = np.frombuffer(dataset.ModalityLUTSequence[0].LUTData, "<u2").astype(int)
    assert_array_equal(pixel_values.rescale_stored(stored, dataset), table.max() + table.min() - table[stored])
    assert "MONOCHROME1 was inverted: higher is brighter" in pixel_values.meaning_of_series([dataset]).notes


def test_a_monochrome1_radiograph_is_shown_as_its_window_says(data: Path):
    dataset = load(data / "dicom/files/highdicom_dx_image.dcm")
    stored = pixel_decoding.decode_frames(dataset, "")[0]
    turned = pixel_values.rescale_stored(stored, dataset)
    assert_array_equal(turned, 255 - stored)
    bright = display_windows.display_brightness(turned, dataset)
    # pydicom windows what is stored, where higher is darker.
    assert_allclose(bright, 1 - apply_voi_lut(stored, dataset) / 255, atol=1e-6)


def test_ct_values_are_hounsfield_units_and_padding_is_too(data: Path):
    dataset = load(data / "dicom/files/pydicom_CT_small.dcm")
    stored = pixel_decoding.decode_frames(dataset, "")
    assert_array_equal(pixel_values.rescale_stored(stored, dataset), stored.astype(int) - 1024)
    assert value_maps.unit_after_lut(dataset) == "HU"
    assert pixel_values.padding_range(dataset) == (-3024, -3024)


def test_padding_keeps_its_value_and_lies_below_air(corpus: Path):
    dataset = load(corpus / "dicom/files/fodicom_ct_rle_fragments.dcm")
    values = pixel_values.rescale_stored(pixel_decoding.decode_frames(dataset, ""), dataset)
    padding = pixel_values.padding_range(dataset)
    assert value_maps.unit_after_lut(dataset) == "HU"
    assert padding == (-3024, -3024)
    assert (values == -3024).any()
    assert values[values != -3024].min() >= -1024


def test_a_pet_series_becomes_suv(data: Path):
    dataset = load(data / "dicom/files/tcia_pet_1.dcm")
    found = pixel_values.meaning_of_series([dataset])
    # 15:23:16.921 - 14:17:00 = 3976.921 s after the injection of 178.34 MBq into 69.7344 kg
    truth = 69734.4 / (178340011.59668 * 0.5 ** (3976.921 / 6586.2))
    assert found.unit == "SUVbw"
    assert_allclose(found.suv, truth, rtol=1e-9)
    stored = pixel_decoding.decode_frames(dataset, "")
    assert_allclose(pixel_values.rescale_stored(stored, dataset, meaning=found), stored * 9.12329 * truth, rtol=1e-6)
    assert found.facts["suv_bw_factor"] == found.suv


def test_a_dose_grid_is_scaled(data: Path):
    dataset = load(data / "dicom/files/pydicom_rtdose.dcm")
    stored = pixel_decoding.decode_frames(dataset, "")
    assert_allclose(pixel_values.rescale_stored(stored, dataset), stored * 1e-6, rtol=1e-6)
    assert value_maps.unit_after_lut(dataset) == "relative dose"


def test_a_supplemental_palette_leaves_perfusion_values_without_hounsfield(corpus: Path):
    dataset = load(corpus / "dicom/files/pydicomdata_eCT_Supplemental.dcm")
    assert value_maps.unit_after_lut(dataset) == ""
    assert pixel_values.meaning_of_series([dataset], real_world=True).unit == "ml/100ml/s"


# -- lines and tables -------------------------------------------------------------------------------------------------


@given(st.integers(1, 16), st.booleans(), st.integers(-5, 5).filter(bool), st.integers(-70000, 70000))
def test_whole_slopes_keep_whole_numbers_exactly_in_the_smallest_type(
    bits: int, signed: bool, slope: int, intercept: int
):
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    stored = np.array([[low, high, (low + high) // 2]], np.int16 if signed else np.uint16)
    dataset = picture(
        stored, BitsStored=bits, HighBit=bits - 1, RescaleSlope=str(slope), RescaleIntercept=str(intercept)
    )
    values = pixel_values.rescale_stored(stored, dataset)
    truth = stored.astype(int) * slope + intercept
    assert_array_equal(values, truth)
    bounds = np.iinfo(values.dtype)
    assert bounds.min <= truth.min()
    assert truth.max() <= bounds.max
    smaller = [
        np.iinfo(t) for t in ("u1", "i1", "u2", "i2", "u4", "i4") if np.dtype(t).itemsize < values.dtype.itemsize
    ]
    assert not any(b.min <= truth.min() and truth.max() <= b.max for b in smaller)


@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.integers(-32768, 32767))
def test_padding_is_marked_where_the_padded_voxels_come_to_lie(slope: float, intercept: float, padding: int):
    stored = np.array([[padding, 0]], np.int16)
    dataset = picture(stored, RescaleSlope=f"{slope:.9g}", RescaleIntercept=f"{intercept:.9g}")
    dataset.add_new("PixelPaddingValue", "SS", padding)
    low, high = pixel_values.padding_range(dataset) or (np.nan, np.nan)
    assert low <= pixel_values.rescale_stored(stored, dataset)[0, 0] <= high


def test_a_padding_range_may_be_written_with_the_other_sign():
    dataset = ct(RescaleSlope="1", RescaleIntercept="-1024")
    dataset.add_new("PixelPaddingValue", "US", 63536)  # -2000 as a signed word
    dataset.add_new("PixelPaddingRangeLimit", "SS", -1990)
    assert pixel_values.padding_range(dataset) == (-3024, -3014)


def test_padding_follows_a_picture_that_is_turned_round():
    dataset = picture(np.zeros((2, 2), np.uint8), PhotometricInterpretation="MONOCHROME1")
    dataset.add_new("PixelPaddingValue", "US", 0)
    assert pixel_values.padding_range(dataset) == (255, 255)


def test_a_slope_of_zero_is_refused():
    with pytest.raises(FormatError, match="slope 0, intercept 0"):
        pixel_values.rescale_stored(np.zeros((2, 2), np.int16), ct(RescaleSlope="0", RescaleIntercept="0"))


@given(st.integers(-5, 300), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_a_modality_table_begins_at_its_first_value_and_ends_hold(first: int, entries: int, seed: int):
    table = np.random.default_rng(seed).integers(0, 65536, entries)
    lut = item(LUTData=[int(n) for n in table], ModalityLUTType="US")
    lut.add_new("LUTDescriptor", "SS" if first < 0 else "US", [entries, first, 16])
    stored = np.arange(-8, 400, dtype=np.int16)[None]
    dataset = picture(stored, ModalityLUTSequence=[lut])
    assert_array_equal(
        pixel_values.rescale_stored(stored, dataset)[0], table[np.clip(stored[0].astype(int) - first, 0, entries - 1)]
    )


def test_a_table_shorter_than_it_says_is_refused():
    dataset = ct(ModalityLUTSequence=[item(LUTDescriptor=[9, 0, 16], LUTData=[1, 2, 3])])
    with pytest.raises(FormatError, match="3 entries of 16 bits where 9 belong"):
        pixel_values.rescale_stored(np.zeros((2, 2), np.int16), dataset)


def test_monochrome1_with_a_unit_keeps_its_sense():
    stored = np.array([[1, 2]], np.int16)
    dataset = ct(PhotometricInterpretation="MONOCHROME1", RescaleSlope="1", RescaleIntercept="0")
    assert_array_equal(pixel_values.rescale_stored(stored, dataset), stored)
    assert pixel_values.meaning_of_series([dataset]).notes == ()


@pytest.mark.parametrize("bits", [32, 64])
def test_floating_point_pixels_keep_their_fractions_where_bits_stored_is_stated(tmp_path: Path, bits: int):
    truth = np.linspace(0, 1, 6).reshape(2, 3).astype(f"f{bits // 8}")
    keyword = "FloatPixelData" if bits == 32 else "DoubleFloatPixelData"
    stated: dict[str, Any] = {"BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1, keyword: truth.tobytes()}
    path = write_slice(tmp_path / "a.dcm", np.zeros((2, 3), np.uint16), PixelData=None, SliceThickness=1, **stated)
    image = file_formats.read(path)
    assert image.data.dtype == truth.dtype
    assert_array_equal(np.asarray(image.data)[0, :, :, 0].T, truth)


def test_integers_without_bits_stored_fill_their_words():
    stored = np.array([[-3, 7]], np.int16)
    dataset = ct(PixelRepresentation=1)
    del dataset.BitsStored, dataset.HighBit
    assert pixel_values.rescale_stored(stored, dataset).dtype == np.int16
    assert value_maps.value_map(dataset).ends == (-(2**15), 2**15 - 1)


def test_colours_are_not_rescaled():
    stored = np.full((1, 2, 2, 3), 7, np.uint8)
    assert pixel_values.rescale_stored(stored, picture(stored[0], RescaleSlope="2", RescaleIntercept="1")) is stored


def test_hounsfield_is_not_assumed_where_nothing_was_rescaled():
    assert value_maps.unit_after_lut(ct()) == ""
    assert value_maps.unit_after_lut(ct(RescaleSlope="1", RescaleIntercept="-1024")) == "HU"
    assert value_maps.unit_after_lut(ct(RescaleSlope="1", RescaleIntercept="-1024", RescaleType="US")) == ""


def test_presentation_intent_is_told():
    dataset = picture(np.zeros((2, 2), np.uint8), PresentationIntentType="FOR PROCESSING")
    assert pixel_values.meaning_of_series([dataset]).facts["presentation_intent"] == "for processing"


# -- real world values ------------------------------------------------------------------------------------------------


def mapped(**tags: Any) -> Dataset:
    mapping = item(MeasurementUnitsCodeSequence=[item(CodeValue="mm2/s")], **tags)
    return ct(RealWorldValueMappingSequence=[mapping], RescaleSlope="3", RescaleIntercept="1")


def test_real_world_values_are_given_on_request_only():
    dataset = mapped(
        RealWorldValueSlope=0.5,
        RealWorldValueIntercept=2.0,
        RealWorldValueFirstValueMapped=0,
        RealWorldValueLastValueMapped=10,
    )
    stored = np.array([[-1, 0], [10, 11]], np.int16)
    assert_array_equal(
        pixel_values.rescale_stored(stored, dataset, meaning=pixel_values.meaning_of_series([dataset])), stored * 3 + 1
    )
    found = pixel_values.meaning_of_series([dataset], real_world=True)
    assert found.unit == "mm2/s"
    assert_array_equal(pixel_values.rescale_stored(stored, dataset, meaning=found), [[np.nan, 2], [7, np.nan]])


def test_a_real_world_table_maps_from_its_first_value_on():
    dataset = mapped(
        RealWorldValueLUTData=[0.5, 1.5, 9.0], RealWorldValueFirstValueMapped=4, RealWorldValueLastValueMapped=6
    )
    found = pixel_values.meaning_of_series([dataset], real_world=True)
    values = pixel_values.rescale_stored(np.array([[3, 4, 5, 6, 7]], np.int16), dataset, meaning=found)
    assert_array_equal(values, [[np.nan, 0.5, 1.5, 9, np.nan]])


def test_integers_that_only_a_real_world_mapping_gives_a_meaning_to_have_a_note():
    """As those of a Parametric Map, PS3.3 A.75."""
    mapping = item(MeasurementUnitsCodeSequence=[item(CodeValue="mm2/s")], RealWorldValueSlope=1e-6)
    note = "values are as stored: a real world value mapping is there, which real_world=True applies"
    stored = picture(np.zeros((2, 2), np.int16), Modality="MR", RealWorldValueMappingSequence=[mapping])
    assert pixel_values.meaning_of_series([stored]).notes == (note,)
    assert (
        pixel_values.meaning_of_series([mapped(RealWorldValueSlope=1e-6)]).notes == ()
    )  # a modality LUT gives these one


def test_without_a_mapping_real_world_values_are_said_to_be_absent():
    found = pixel_values.meaning_of_series([ct()], real_world=True)
    assert not found.real_world
    assert found.notes == ("there is no real world value mapping",)


# -- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_are_those_of_the_standard(function: str):
    stored = np.arange(-200, 300, 7, dtype=np.int16)[None]
    dataset = picture(stored, WindowCenter="40", WindowWidth="350", VOILUTFunction=function)
    truth = apply_voi_lut(stored, dataset)
    low, high = -(2**15), 2**15 - 1
    assert_allclose(display_windows.display_brightness(stored, dataset), (truth - low) / (high - low), atol=1e-6)


@pytest.mark.parametrize("kind", ["picture", "with a unit"])
@pytest.mark.parametrize("asked", [True, False])
def test_monochrome1_is_shown_with_its_lowest_value_white_through_any_window(tmp_path: Path, kind: str, asked: bool):
    pixels = np.array([[0, 1000, 4095]], np.uint16)
    tags: dict[str, Any] = {"BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1"}
    tags |= {"Modality": "CR"} if kind == "picture" else {"RescaleSlope": "1", "RescaleIntercept": "0"}
    if not asked:
        tags |= {"WindowCenter": "1000.5", "WindowWidth": "401"}
    path = write_slice(tmp_path / "a.dcm", pixels, SliceThickness=1, **tags)
    shown = single_frame.displayed_frame(
        header_reading.read_header(path), 0, DisplayWindow(1000.5, 401) if asked else None
    )
    assert_array_equal(shown, [[255, 128, 0]])


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_window_of_an_inverted_picture_is_stated_in_its_inverted_values(function: str):
    stored = np.arange(0, 4096, 91, dtype=np.uint16)[None]
    dataset = picture(
        stored, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1", Modality="CR",
        WindowCenter="1000", WindowWidth="400", VOILUTFunction=function,
    )  # fmt: skip
    window, values = display_windows.display_window(dataset), pixel_values.rescale_stored(stored, dataset)
    assert window is not None
    assert_allclose(
        display_windows.apply_window(values, window), display_windows.display_brightness(values, dataset), atol=1e-6
    )


@pytest.mark.parametrize("damage", [{"WindowCenter": "4O"}, {"WindowWidth": "wide"}, {"WindowWidth": "1e999"}])
def test_an_image_with_a_damaged_window_is_read_without_it(tmp_path: Path, damage: dict[str, str]):
    stated = {"WindowCenter": "40", "WindowWidth": "80"} | damage
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_slice(tmp_path / "a.dcm", np.array([[1, 3]], np.uint16), SliceThickness=1)
        dataset = pydicom.dcmread(path)
        for keyword, value in stated.items():
            dataset.add_new(keyword, "LO", value)
        dataset.save_as(path)
    assert "window" not in file_formats.read(path).facts
    assert_array_equal(single_frame.displayed_frame(header_reading.read_header(path), 0), [[0, 255]])


def test_a_window_is_stated_in_the_values_of_the_image():
    dataset = picture(np.zeros((2, 2), np.int16), WindowCenter="1000", WindowWidth="500")
    window = display_windows.display_window(dataset, meaning=ValueMeaning(suv=0.01))
    assert window is not None
    stored = np.arange(600, 1400, 13, dtype=np.int16)[None]
    assert_allclose(
        display_windows.display_brightness(stored * 0.01, dataset, meaning=ValueMeaning(suv=0.01)),
        display_windows.display_brightness(stored, dataset),
        atol=1e-6,
    )


def test_a_voi_table_is_used_for_display_only():
    stored = np.array([[0, 1, 2, 3]], np.uint8)
    lut = item(LUTDescriptor=[4, 0, 8], LUTData=[0, 255, 51, 0])
    dataset = picture(stored, VOILUTSequence=[lut])
    assert_array_equal(pixel_values.rescale_stored(stored, dataset), stored)
    assert_allclose(display_windows.display_brightness(stored, dataset), [[0, 1, 0.2, 0]], atol=1e-6)


RISE = np.clip((np.arange(4096) - 500) / 500, 0, 1) * 4095
TABLES = {
    "rising": (RISE, 0, 750, 500),
    "falling": (RISE[::-1], 0, 4095 - 750, 500),
    "from 1000 on": (RISE, 1000, 1750, 500),
    "smooth": (4095 / (1 + np.exp(-(np.arange(4096) - 750) / 100)), 0, 750, 549),
    "one step": (np.where(np.arange(4096) < 800, 0, 4095), 0, 799.5, 1),
}


@pytest.mark.parametrize(("table", "first", "centre", "width"), TABLES.values(), ids=TABLES)
def test_a_voi_table_without_a_window_is_shown_where_it_rises(table, first, centre, width):
    lut = item(LUTDescriptor=[4096, first, 12], LUTData=table.astype(int).tolist())
    window = display_windows.display_window(picture(np.zeros((2, 2), np.uint16), VOILUTSequence=[lut]))
    assert window is not None and window.function == "LINEAR_EXACT"
    assert_allclose([window.centre, window.width], [centre, width], atol=1)
    stated = picture(np.zeros((2, 2), np.uint16), VOILUTSequence=[lut], WindowCenter="40", WindowWidth="80")
    assert display_windows.display_window(stated) == DisplayWindow(40, 80)


@pytest.mark.parametrize(
    "content", [{"LUTDescriptor": [4, 0, 8], "LUTData": [7, 7, 7, 7]}, {"LUTDescriptor": [4, 0, 8]}]
)
def test_a_voi_table_that_is_flat_or_damaged_is_no_window(content):
    assert (
        display_windows.display_window(picture(np.zeros((2, 2), np.uint16), VOILUTSequence=[item(**content)])) is None
    )


def table_of(bright: np.ndarray[Any, Any]) -> Dataset:
    """A VOI LUT of 12 bits for values from 0 on."""
    lut = item(LUTDescriptor=[len(bright), 0, 12])
    lut.add_new("LUTData", "US", np.rint(bright * 4095).astype(int).tolist())
    return lut


PLACES = np.arange(4096) / 4095
LINE = {"WindowCenter": "2000", "WindowWidth": "1000", "VOILUTFunction": "LINEAR_EXACT"}
BETWEEN = np.clip((np.arange(4096) - 1500) / 1000, 0, 1)
INVERTED = {"PhotometricInterpretation": "MONOCHROME1"}
# {what the file asks for: (its attributes, brightness of the stored values)}
BRIGHTNESS = {
    "falling table": ({"VOILUTSequence": [table_of(RISE[::-1] / 4095)]}, RISE[::-1] / 4095),
    "bent table": ({"VOILUTSequence": [table_of(PLACES**0.4)]}, PLACES**0.4),
    "hill": ({"VOILUTSequence": [table_of(np.sin(np.pi * PLACES))]}, np.sin(np.pi * PLACES)),
    "table before window": ({"VOILUTSequence": [table_of(PLACES**2)], **LINE}, PLACES**2),
    "sigmoid": (LINE | {"VOILUTFunction": "SIGMOID"}, 1 / (1 + np.exp(-4 * (np.arange(4096) - 2000) / 1000))),
    "line": (LINE, BETWEEN),
    "inverse line": (LINE | {"PresentationLUTShape": "INVERSE"}, 1 - BETWEEN),
    "inverse table": ({"VOILUTSequence": [table_of(PLACES**2)], "PresentationLUTShape": "INVERSE"}, 1 - PLACES**2),
    "both words for inverse": (LINE | INVERTED | {"PresentationLUTShape": "INVERSE", "Modality": "CT"}, 1 - BETWEEN),
    "inverted CT": (LINE | INVERTED | {"Modality": "CT"}, 1 - BETWEEN),
    "inverted radiograph": (LINE | INVERTED | {"Modality": "CR"}, 1 - BETWEEN),
    "table of an inverted radiograph": (
        INVERTED | {"VOILUTSequence": [table_of(PLACES**2)], "Modality": "CR"}, 1 - PLACES**2
    ),
}  # fmt: skip


@pytest.mark.parametrize(("stated", "brightness"), BRIGHTNESS.values(), ids=BRIGHTNESS)
def test_an_image_is_shown_as_bright_as_its_file_asks_and_as_dicomweb_renders_it(tmp_path, stated, brightness):
    stored = np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)
    dataset = picture(stored, BitsStored=12, HighBit=11, **stated)
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.4"
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    image = file_formats.read(tmp_path / "a.dcm")
    greys = display.view_of(image).greys(*display.screen_planes(image.geometry), 0)
    assert_allclose(greys, brightness[stored], atol=1 / 255)
    rendered = single_frame.displayed_frame(header_reading.read_header(tmp_path / "a.dcm"), 0)
    assert_allclose(rendered / 255, brightness[stored], atol=1 / 255)
    assert len(display.header_curve(image) or ()) <= 256


def test_a_table_of_noise_keeps_as_many_points_as_a_screen_has_levels():
    noise = np.random.default_rng(0).random(4096)
    meant = ValueMeaning()
    dataset = picture(np.zeros((2, 2), np.uint16), VOILUTSequence=[table_of(noise)])
    [*_, curve] = display_windows.window_fact(dataset, 0, meant, "") or ()
    assert len(curve) == 256


def test_the_map_of_a_frame_tells_its_range():
    found = value_maps.value_map(ct(RescaleSlope="-2", RescaleIntercept="5"))
    assert found.ends == (-2 * 32767 + 5, 2 * 32768 + 5)
    assert found.dtype == np.int32
