"""Slides: levels, regions, sizes of a pixel, and what is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.encaps import encapsulate

import simulated_slides
from hilum import installation
from hilum.errors import FormatError, GeometryError, ResourceError, UsageError
from hilum.files import file_formats
from hilum.files.format_options import ReadOptions
from hilum.files.slides import openslide_reading, slide_writing, tiled_levels
from hilum.values import Label
from jpeg_streams import AS_RGB, AS_YCBCR, JFIF, SQUARE, adobe, stream

PIXELS = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)


def read(path: Path, **options):
    return file_formats.read_image(path, ReadOptions(**options))


@pytest.mark.parametrize("in_pages", [False, True], ids=["SubIFDs", "reduced pages"])
def test_a_tiled_tiff_with_levels_is_a_slide_that_is_read_region_by_region(tmp_path, in_pages):
    levels = simulated_slides.levels_of(PIXELS, 3)
    image = read(simulated_slides.write_tiff(tmp_path / "a.tif", levels, in_pages=in_pages))
    assert image.is_slide
    assert [level.shape for level in image.levels] == [(700, 900), (350, 450), (175, 225)]
    assert_allclose(image.downsamples, [1, 2, 4])
    assert image.spacing == pytest.approx((0.0005, 0.0005))
    for number, pixels in enumerate(levels):
        assert_array_equal(image.level(number).data, np.moveaxis(pixels, -1, 0))
    part = image.pixels[:, 250:520, 255:257]
    assert_array_equal(part, np.moveaxis(PIXELS, -1, 0)[:, 250:520, 255:257])


def test_the_level_at_a_size_of_a_pixel_is_the_coarsest_that_shows_it(tmp_path):
    image = read(simulated_slides.write_tiff(tmp_path / "a.tif", simulated_slides.levels_of(PIXELS, 3)))
    assert [image.at(mm).shape[1] for mm in (0.0001, 0.0005, 0.0009, 0.001, 0.0019, 0.1)] == [
        700, 700, 700, 350, 350, 175,
    ]  # fmt: skip
    assert_allclose(image.at(0.001).spacing, 0.001)
    assert not image.level(1).is_slide


def test_a_slide_without_size_of_a_pixel_is_no_answer_in_mm_until_somebody_states_it(tmp_path):
    path = simulated_slides.write_tiff(tmp_path / "a.tif", simulated_slides.levels_of(PIXELS, 2), mm=None)
    with pytest.raises(GeometryError, match="--mm-per-pixel"):
        read(path).at(0.001)
    assert read(path, mm_per_pixel=0.00025).at(0.0005).shape == (3, 350, 450)
    with pytest.raises(UsageError, match="above 0"):
        ReadOptions(mm_per_pixel=0.0)


def test_resolution_tags_of_paper_are_no_size_of_a_pixel(tmp_path):
    paper = simulated_slides.write_tiff(tmp_path / "a.tif", simulated_slides.levels_of(PIXELS, 2), mm=25.4 / 300)
    assert read(paper).spacing is None


def test_levels_that_disagree_are_refused(tmp_path):
    wrong = [PIXELS, simulated_slides.halve(PIXELS)[:200]]
    with pytest.raises(FormatError, match="200 x 450 pixels is no reduction of 700 x 900"):
        read(simulated_slides.write_tiff(tmp_path / "a.tif", wrong))


def test_a_slide_that_is_cut_short_is_refused(tmp_path):
    path = simulated_slides.write_tiff(tmp_path / "a.tif", simulated_slides.levels_of(PIXELS, 2))
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(FormatError, match=r"cut short|not a complete TIFF"):
        read(path)


def test_a_tile_that_claims_more_pixels_than_the_page_is_refused_before_it_is_decoded(tmp_path):
    path = simulated_slides.write_tiff(tmp_path / "a.tif", simulated_slides.levels_of(PIXELS, 2), compression="jpeg")
    with tifffile.TiffFile(path) as file:
        at, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    content = path.read_bytes()
    tile = content[at : at + count]
    start = tile.index(b"\xff\xc0") + 5  # rows and columns of the frame header
    path.write_bytes(content[: at + start] + b"\xff\xff\xff\xff" + content[at + start + 4 :])
    with pytest.raises(FormatError, match="tile 0, 0 of level 0 cannot be decoded"):
        read(path).pixels[:, :10, :10]


def test_the_cache_of_tiles_stays_within_its_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(tiled_levels, "CACHED_BYTES", 3 * 256 * 256 * 2)
    image = read(simulated_slides.write_tiff(tmp_path / "a.tif", [PIXELS, simulated_slides.halve(PIXELS)]))
    assert_array_equal(image.data, np.moveaxis(PIXELS, -1, 0))
    assert tiled_levels._held <= 3 * 256 * 256 * 2


def test_openslide_reads_the_same_pixels_of_a_scanners_file(tmp_path):
    pytest.importorskip("openslide")
    levels = simulated_slides.levels_of(PIXELS, 2)
    ours = read(simulated_slides.write_tiff(tmp_path / "a.tif", levels, in_pages=True))
    theirs = read(simulated_slides.write_tiff(tmp_path / "a.svs", levels, in_pages=True))
    assert theirs.source.format == ours.source.format == "slide"
    assert [one.shape for one in theirs.levels] == [one.shape for one in ours.levels]
    assert_array_equal(theirs.pixels[:, 400:700, 500:900], ours.pixels[:, 400:700, 500:900])
    assert theirs.spacing == pytest.approx(ours.spacing)


def test_a_dicom_slide_is_read_by_its_tiles(data):
    image = read(data / "dicom" / "files" / "highdicom_sm_image.dcm")
    assert image.is_slide
    assert image.shape == (3, 50, 50)
    assert_allclose(image.spacing, 0.000499)
    assert_array_equal(image.pixels[:, 5:25, 12:40], image.data[:, 5:25, 12:40])


def test_levels_of_dicom_and_of_tiff_are_alike(tmp_path, data):
    levels = simulated_slides.levels_of(PIXELS, 3)
    template = data / "dicom" / "files" / "highdicom_sm_image.dcm"
    dicom = read(simulated_slides.write_dicom(tmp_path / "dicom", levels, template))
    tiff = read(simulated_slides.write_tiff(tmp_path / "a.tif", levels))
    assert dicom.spacing == pytest.approx(tiff.spacing)
    assert dicom.downsamples == tiff.downsamples
    for number in range(3):
        assert_array_equal(dicom.level(number).data, tiff.level(number).data)
    assert_array_equal(dicom.pixels[:, 120:140, 700:900], tiff.pixels[:, 120:140, 700:900])


def test_a_jpeg_2000_slide_that_states_subsampled_colours_is_refused(tmp_path, data):
    template = data / "dicom" / "files" / "highdicom_sm_image.dcm"
    dicom = simulated_slides.write_dicom(tmp_path / "dicom", simulated_slides.levels_of(PIXELS, 1), template)
    [path] = dicom.iterdir()
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51"] * int(dataset.NumberOfFrames))
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(FormatError, match="no JPEG 2000 stream holds"):
        read(dicom)


@pytest.mark.parametrize(
    ("coded", "photometric", "colours", "is_alike"),
    [
        (stream(coarser=True), "RGB", AS_YCBCR, False),
        (stream(JFIF), "RGB", AS_YCBCR, False),
        (stream(adobe(0)), "YBR_FULL_422", AS_RGB, False),
        (stream(), "RGB", AS_RGB, True),
        (stream(), "YBR_FULL_422", AS_YCBCR, True),
    ],
)
def test_tiles_have_the_colours_that_any_other_dicom_picture_would_have(
    tmp_path, data, coded, photometric, colours, is_alike
):
    template = data / "dicom" / "files" / "highdicom_sm_image.dcm"
    [path] = simulated_slides.write_dicom(tmp_path / "slide", [SQUARE], template, tile=len(SQUARE)).iterdir()
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    dataset.PhotometricInterpretation = photometric
    dataset.PixelData = encapsulate([coded])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    image = read(path.parent)
    assert_allclose(image.pixels[:, 8:9, 8:9].ravel(), colours, atol=2)
    assert any("is believed" in note for note in image.notes) != is_alike


SMALL = PIXELS[:300, :400]  # twelve tiles of 128 pixels, in three rows


def slide_in_parts(folder, template, *numbers, total=True, places=False, **fields):
    """A slide whose tiles `numbers` lie in one object each; places: as TILED_SPARSE, else a concatenation's parts."""
    [path] = simulated_slides.write_dicom(folder, [SMALL], template).iterdir()
    whole = pydicom.dcmread(path)
    path.unlink()
    frames = whole.pixel_array
    before = 0
    for part, own in enumerate(numbers, start=1):
        dataset = pydicom.dcmread(template)
        dataset.update(whole)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        dataset.NumberOfFrames, dataset.PixelData = len(own), frames[list(own)].tobytes()
        if len(numbers) > 1 or fields.get("InConcatenationNumber"):
            dataset.ConcatenationUID, dataset.InConcatenationNumber = "1.2.3", part
            dataset.ConcatenationFrameOffsetNumber = before
            if total:
                dataset.InConcatenationTotalNumber = len(numbers)
        if places:
            dataset.DimensionOrganizationType = "TILED_SPARSE"
            dataset.PerFrameFunctionalGroupsSequence = [tile_group(number) for number in own]
        for name, value in fields.items():
            setattr(dataset, name, value)
        dataset.save_as(folder / f"part_{part}.dcm")
        before += len(own)
    return folder


def tile_group(number):
    place, content, group = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    place.RowPositionInTotalImagePixelMatrix = number // 4 * 128 + 1
    place.ColumnPositionInTotalImagePixelMatrix = number % 4 * 128 + 1
    place.XOffsetInSlideCoordinateSystem = place.YOffsetInSlideCoordinateSystem = 0
    place.ZOffsetInSlideCoordinateSystem = 0
    content.DimensionIndexValues = [number % 4 * 128 + 1, number // 4 * 128 + 1]
    group.PlanePositionSlideSequence, group.FrameContentSequence = [place], [content]
    return group


@pytest.fixture
def template(data):
    return data / "dicom" / "files" / "highdicom_sm_image.dcm"


@pytest.mark.parametrize("total", [True, False])
def test_the_parts_of_a_concatenation_are_one_slide(tmp_path, template, total):
    slide_in_parts(tmp_path / "s", template, range(5), range(5, 6), range(6, 12), total=total)
    image = read(tmp_path / "s")
    assert_array_equal(image.data, np.moveaxis(SMALL, -1, 0))
    assert len(image.source.paths) == 3
    assert image.notes == ()


@pytest.mark.parametrize(
    ("total", "lost", "problem"),
    [
        (True, 1, "part 2 of a concatenation of 2 parts"),
        (True, 2, "part 1 of a concatenation of 2 parts"),
        (False, 1, "part 2 of a concatenation begins at frame 8, and 0 are before it"),
        (False, 2, "part 1 of a concatenation, and holds 7 of the 12 tiles"),
    ],
)
def test_a_part_of_a_concatenation_alone_is_refused(tmp_path, template, total, lost, problem):
    folder = slide_in_parts(tmp_path / "s", template, range(7), range(7, 12), total=total)
    (folder / f"part_{lost}.dcm").unlink()
    with pytest.raises(FormatError, match=problem) as refusal:
        read(folder)
    assert "Give all parts" in refusal.value.remedy


def test_a_slide_tiled_in_full_with_fewer_frames_than_tiles_is_refused(tmp_path, template):
    with pytest.raises(FormatError, match="holds 7 of the 12 tiles of its pixel matrix"):
        read(slide_in_parts(tmp_path / "s", template, range(7)))


@pytest.mark.parametrize(("lab", "colour"), [(None, 255), ([0xFFFF * 50 // 100, 0x8080, 0x8080], 119)])
def test_tiles_that_a_sparse_slide_leaves_out_are_glass(tmp_path, template, lab, colour):
    fields = {} if lab is None else {"RecommendedAbsentPixelCIELabValue": lab}
    there = [11, 0, 1, 2, 3, 4, 7, 8, 9, 10]  # in any order
    image = read(slide_in_parts(tmp_path / "s", template, there, places=True, **fields))
    expected = SMALL.copy()
    expected[128:256, 128:384] = colour  # tiles 5 and 6
    assert_array_equal(image.data, np.moveaxis(expected, -1, 0))
    assert image.notes == ("16.7% of the slide was never scanned, and is taken for glass",)


def test_a_sparse_slide_with_two_frames_of_one_tile_is_refused(tmp_path, template):
    with pytest.raises(FormatError, match="holds 12 frames for 11 tiles"):
        read(slide_in_parts(tmp_path / "s", template, [0, *range(11)], places=True))


@pytest.mark.skipif(shutil.which("OrthancWSIDicomizer") is None, reason="the dicomizer of orthanc-wsi is not installed")
def test_a_slide_of_orthancs_dicomizer_has_the_pixels_of_its_tiff(tmp_path):
    levels = simulated_slides.levels_of(PIXELS[:640, :896], 3)
    tiff = simulated_slides.write_tiff(tmp_path / "a.tif", levels, in_pages=True, compression="none")
    library = next(Path(pytest.importorskip("openslide_bin").__file__).parent.glob("*.so*"))
    (tmp_path / "dicom").mkdir()
    asked = [
        "--compression",
        "none",
        "--reencode",
        "1",
        "--max-size",
        "0",
        "--tile-width",
        "128",
        "--tile-height",
        "128",
    ]
    command = ["OrthancWSIDicomizer", tiff, "--openslide", library, "--folder", tmp_path / "dicom", *asked]
    subprocess.run(command, check=True, capture_output=True)
    assert_array_equal(read(tmp_path / "dicom").pixels[:, :640, :896], read(tiff).data)


def test_a_label_map_of_a_slide_is_a_pyramid_that_reads_back_with_its_names(tmp_path):
    image = read(
        simulated_slides.write_tiff(tmp_path / "a.tif", simulated_slides.levels_of(np.tile(PIXELS, (2, 2, 1)), 2))
    )
    values = np.zeros((1400, 1800), np.uint8)
    values[300:800, 500:900] = 2
    file_formats.write(image.with_label_map(values, [Label(2, "nucleus")]), tmp_path / "map.tif")
    back = read(tmp_path / "map.tif")
    assert [level.shape for level in back.levels] == [(1400, 1800), (350, 450)]
    assert_array_equal(back.data[0], values)
    assert_array_equal(back.level(1).data[0], values[::4, ::4])
    assert back.spacing == pytest.approx(image.spacing)
    assert [label.name for label in back.labels] == ["nucleus"]
    with tifffile.TiffFile(tmp_path / "map.tif") as file:
        assert file.is_bigtiff
        assert [level.shape for level in file.series[0].levels] == [(1400, 1800), (350, 450)]


def test_a_missing_openslide_is_an_error_with_the_line_that_installs_it(tmp_path, monkeypatch):
    path = simulated_slides.write_tiff(tmp_path / "a.svs", simulated_slides.levels_of(PIXELS, 2))
    monkeypatch.setattr(openslide_reading, "find_spec", lambda name: None)
    openslide_reading._opened.cache_clear()
    with pytest.raises(UsageError, match=re.escape(installation.install_line("wsi"))):
        read(path)


def test_a_slide_that_claims_far_more_pixels_than_its_file_holds_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=True) as file:
        file.write(
            iter([b""] * 63 * 63),
            shape=(64_000, 64_000, 3),
            dtype=np.uint8,
            tile=(1024, 1024),
            photometric="rgb",
            compression="zlib",
            metadata=None,
        )
    with pytest.raises(FormatError, match=r"may be an attack"):
        read(tmp_path / "a.tif")


def test_a_full_disk_leaves_no_half_label_map(tmp_path, monkeypatch):
    image = read(simulated_slides.write_tiff(tmp_path / "a.tif", simulated_slides.levels_of(PIXELS, 2)))
    strips = slide_writing._tiles

    def failing(pixels):
        yield from list(strips(pixels))[:3]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(slide_writing, "_tiles", failing)
    with pytest.raises(ResourceError):
        file_formats.write(image.with_label_map(np.ones((700, 900), np.uint8), []), tmp_path / "map.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_a_part_that_was_never_scanned_is_glass_and_is_stated(tmp_path):
    tiles = [zlib.compress(np.full((256, 256, 3), 90, np.uint8).tobytes()), b"", b"", b""]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        shared = {"dtype": np.uint8, "tile": (256, 256), "photometric": "rgb", "metadata": None, "compression": "zlib"}
        file.write(iter(tiles), shape=(512, 512, 3), subifds=1, **shared)
        file.write(iter(tiles[:1]), shape=(256, 256, 3), subfiletype=1, **shared)
    slide = read(tmp_path / "a.tif")
    assert slide.notes == ("75.0% of the slide was never scanned, and is taken for glass",)
    assert set(np.unique(slide.pixels[:, 256:, :])) == {255}
    whole = read(simulated_slides.write_tiff(tmp_path / "b.tif", simulated_slides.levels_of(PIXELS, 2)))
    assert not whole.notes
