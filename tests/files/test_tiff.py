"""TIFF keeps type, pages and stated physical size, and nothing that it does not state."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_allclose, assert_array_equal

from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.values import Geometry, Image
from jpeg_streams import AS_RGB, AS_YCBCR, JFIF, SQUARE, adobe, stream

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
sizes = st.floats(0.01, 20)


def tiffs() -> st.SearchStrategy[Image]:
    """Everything that a TIFF can hold: 2D and 3D, frames, channels, with and without size in mm."""

    @st.composite
    def image(draw: st.DrawFn) -> Image:
        shape = draw(array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6))
        shape = (*draw(st.sampled_from([(), (1,), (3,)])), *shape)
        colour = draw(st.booleans())
        channels = 3 if colour else draw(st.integers(1, 2))
        frames = (draw(st.integers(2, 4)),) if draw(st.booleans()) else ()
        elements = st.integers(0, 100).map(float)
        pixels = draw(arrays(np.float64, (channels, *frames, *shape), elements=elements)).astype(
            draw(st.sampled_from(DTYPES))
        )
        spacing = [draw(sizes) for _ in shape]
        geometry = Geometry.of_spacing(shape, spacing) if draw(st.booleans()) else Geometry.of_pixels(shape)
        names = ("R", "G", "B") if colour else ("T1", "T2") if channels == 2 else ("0",)
        return Image(pixels, geometry, channels=names)

    return image()


@settings(max_examples=60)
@given(image=tiffs())
def test_what_is_written_as_tiff_is_read_again(tmp_path_factory, image):
    path = tmp_path_factory.mktemp("tiff") / "image.tif"
    file_formats.write(image, path)
    found = file_formats.read(path)
    assert found.dtype == image.dtype
    assert_array_equal(found.data, image.data)
    assert found.geometry.equals(image.geometry, tolerance=1e-6)
    assert found.channels == image.channels


def test_pages_are_channels_where_they_are_bands(tmp_path):
    pages = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    for name, metadata in (("plain", None), ("described", {"axes": "TYX"})):
        tifffile.imwrite(tmp_path / f"{name}.tif", pages, photometric="minisblack", metadata=metadata)
        image = file_formats.read(tmp_path / f"{name}.tif", pages="bands")
        assert_array_equal(image.data, pages)
        assert image.frames is None and image.geometry.shape == (4, 5)
    tifffile.imwrite(tmp_path / "one.tif", pages[0], photometric="minisblack")
    assert file_formats.read(tmp_path / "one.tif", pages="bands").data.shape == (1, 4, 5)


def test_bands_of_unlike_size_and_pages_of_colours_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "unlike.tif") as file:
        for size in (4, 5):
            file.write(np.zeros((size, 5), np.uint8), photometric="minisblack", contiguous=False)
    with pytest.raises(FormatError, match=r"4 x 5 and 5 x 5|4 x 5, 5 x 5 are no bands of one picture"):
        file_formats.read(tmp_path / "unlike.tif", pages="bands")
    tifffile.imwrite(tmp_path / "colours.tif", np.zeros((2, 4, 5, 3), np.uint8), photometric="rgb")
    with pytest.raises(FormatError, match="channels besides the pages"):
        file_formats.read(tmp_path / "colours.tif", pages="bands")


def test_pages_are_frames(tmp_path):
    pages = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack", metadata=None)
    image = file_formats.read(tmp_path / "pages.tif")
    assert image.frames == 3
    assert_array_equal(image.data[0], pages)


def test_pages_of_different_shapes_are_volumes(tmp_path):
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        file.write(np.zeros((4, 5), np.uint8), metadata=None)
        file.write(np.ones((6, 7), np.uint8), metadata=None)
    volumes = file_formats.read_volumes(tmp_path / "mixed.tif")
    assert [volume.geometry.shape for volume in volumes.values()] == [(4, 5), (6, 7)]
    assert list(volumes) == ["mixed_1", "mixed_2"]


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours_are_read_however_they_are_stored(tmp_path, planar):
    colour = np.random.default_rng(0).integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    stored = colour if planar == "contig" else np.moveaxis(colour, -1, 0)
    tifffile.imwrite(tmp_path / "colour.tif", stored, photometric="rgb", planarconfig=planar, metadata=None)
    image = file_formats.read(tmp_path / "colour.tif")
    assert image.channels == ("R", "G", "B")
    assert_array_equal(np.moveaxis(image.data, 0, -1), colour)


def test_the_resolution_tags_are_no_physical_size(tmp_path):
    tifffile.imwrite(tmp_path / "scan.tif", np.zeros((4, 5), np.uint8), resolution=(300, 300), resolutionunit="INCH")
    assert file_formats.read(tmp_path / "scan.tif").spacing is None


def test_resolution_tags_finer_than_any_paper_are_a_physical_size(tmp_path):
    path = tmp_path / "microscope.tif"
    tifffile.imwrite(path, np.zeros((32, 32), np.uint8), tile=(16, 16), resolution=(20000, 10000), resolutionunit=3)
    assert_allclose(file_formats.read(path).spacing, (1e-3, 5e-4))


def write_as_imagej(path, stack, resolution=(0.1, 0.1), **header):
    """A stack (planes, rows, columns) with the description that ImageJ writes; 10 units a pixel where none is given."""
    lines = {"ImageJ": "1.53t", "images": len(stack), "slices": len(stack)} | header
    description = "".join(f"{key}={value}\n" for key, value in lines.items())
    pages = {"resolution": resolution, "resolutionunit": 1, "photometric": "minisblack", "metadata": None}
    tifffile.imwrite(path, stack, description=description, byteorder=">", **pages)


@pytest.mark.parametrize(
    ("unit", "mm"),
    [("micron", 1e-3), ("\\u00B5m", 1e-3), ("\\u03BCm", 1e-3), ("nm", 1e-6), ("mm", 1.0), ("cm", 10.0), ("inch", 25.4)],
)
def test_the_voxel_size_that_imagej_writes_is_read_in_its_unit(tmp_path, unit, mm):
    write_as_imagej(tmp_path / "s.tif", np.zeros((3, 4, 5), np.uint16), (0.1, 0.2), unit=unit, spacing=-20.0)
    image = file_formats.read(tmp_path / "s.tif")
    assert image.geometry.shape == (3, 4, 5)
    assert_allclose(image.spacing, (20 * mm, 5 * mm, 10 * mm))
    assert image.notes == ()


def test_a_stack_that_imagej_did_not_calibrate_has_no_physical_size(tmp_path):
    write_as_imagej(tmp_path / "s.tif", np.zeros((3, 4, 5), np.uint16), unit="pixel", spacing=2.0)
    image = file_formats.read(tmp_path / "s.tif")
    assert image.spacing is None
    assert image.notes == ()


@pytest.mark.parametrize(
    ("header", "note"),
    [
        ({"unit": "furlong", "spacing": 2.0}, "unit 'furlong'"),
        ({"unit": "mm"}, "not along Z: its spacing is not known"),
    ],
)
def test_a_size_of_imagej_that_cannot_be_read_is_named(tmp_path, header, note):
    write_as_imagej(tmp_path / "s.tif", np.zeros((3, 4, 5), np.uint16), **header)
    image = file_formats.read(tmp_path / "s.tif")
    assert image.spacing is None
    assert note in " ".join(image.notes)


@pytest.mark.parametrize("header", [{"finterval": 0.5}, {"finterval": 500, "tunit": "ms"}, {"fps": 2.0}])
def test_the_times_of_frames_that_imagej_writes_are_read(tmp_path, header):
    write_as_imagej(tmp_path / "s.tif", np.zeros((3, 4, 5), np.uint16), slices=1, frames=3, unit="mm", **header)
    image = file_formats.read(tmp_path / "s.tif")
    assert_allclose(image.times, (0.0, 0.5, 1.0))
    assert_allclose(image.spacing, (10, 10))


@pytest.mark.parametrize(
    ("c0", "c1", "values"),
    [(-1024.0, 1.0, [-1024, -1014, 31744]), (-32768, 1, [-32768, -32758, 0]), (0.5, 0.25, [0.5, 3, 8192.5])],
)
def test_values_are_those_that_imagej_shows(tmp_path, c0, c1, values):
    stack = np.array([0, 10, 32768], np.uint16).reshape(1, 1, 3)
    write_as_imagej(tmp_path / "s.tif", stack, cf=0, c0=c0, c1=c1, vunit="HU")
    image = file_formats.read(tmp_path / "s.tif")
    assert_array_equal(image.data.ravel(), values)
    assert "calibrated as ImageJ shows them" in " ".join(image.notes)


def test_a_calibration_of_imagej_that_is_no_line_is_named(tmp_path):
    write_as_imagej(tmp_path / "s.tif", np.ones((1, 4, 5), np.uint16), cf=21, c0=0, c1=1, vunit="optical density")
    image = file_formats.read(tmp_path / "s.tif")
    assert (image.data == 1).all()
    assert "calibration of its values in optical density is no straight line" in " ".join(image.notes)


def test_micrometres_of_an_ome_header_become_mm(tmp_path):
    stack = np.zeros((2, 4, 5), np.uint8)
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    units = {f"PhysicalSize{axis}Unit": "µm" for axis in "XYZ"}
    tifffile.imwrite(tmp_path / "stack.ome.tif", stack, ome=True, metadata=metadata | units, photometric="minisblack")
    image = file_formats.read(tmp_path / "stack.ome.tif")
    assert image.geometry.shape == (2, 4, 5)
    assert_allclose(image.spacing, (2e-3, 0.5e-3, 0.25e-3))


def test_a_size_in_pixels_is_no_physical_size(tmp_path):
    metadata = {"axes": "YX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0}
    units = {"PhysicalSizeXUnit": "pixel", "PhysicalSizeYUnit": "pixel"}
    tifffile.imwrite(tmp_path / "plain.ome.tif", np.zeros((4, 5), np.uint8), ome=True, metadata=metadata | units)
    assert file_formats.read(tmp_path / "plain.ome.tif").spacing is None


def test_times_are_kept(tmp_path):
    image = Image(np.zeros((1, 3, 4, 5), np.uint8), Geometry.of_pixels((4, 5)), times=(0.0, 0.25, 0.5))
    file_formats.write(image, tmp_path / "clip.tif")
    assert_allclose(file_formats.read(tmp_path / "clip.tif").times, image.times)


def test_where_0_is_white_the_values_are_turned_round(tmp_path):
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    tifffile.imwrite(tmp_path / "white.tif", grey, photometric="miniswhite", metadata=None)
    image = file_formats.read(tmp_path / "white.tif")
    assert_array_equal(image.data[0], 255 - grey)
    assert "white" in image.notes[0]


def test_one_bit_where_0_is_white_is_turned_round_too(tmp_path):
    black = np.eye(4, dtype=bool)
    tifffile.imwrite(tmp_path / "fax.tif", black, photometric="miniswhite", metadata=None)
    assert_array_equal(file_formats.read(tmp_path / "fax.tif").data[0], 1 - black.astype(np.uint8))


def test_luminance_and_chrominance_are_not_taken_for_red_green_blue(tmp_path):
    path = tmp_path / "video.tif"
    stored = np.full((16, 16, 3), (100, 128, 128), np.uint8)
    tifffile.imwrite(path, stored, photometric="ycbcr", subsampling=(1, 1))
    with pytest.raises(FormatError, match="YCBCR are not read"):
        file_formats.read(path)
    tifffile.imwrite(path, stored, photometric="ycbcr", subsampling=(1, 1), compression="jpeg")
    assert (
        np.abs(file_formats.read(path).data.astype(int) - 100).max() < 3
    )  # a JPEG stream says how it is to be made RGB


def test_four_bands_without_colour_stay_four_bands(tmp_path):
    bands = np.zeros((5, 6, 4), np.uint16)
    bands[..., 3] = 65535
    tifffile.imwrite(tmp_path / "bands.tif", bands, photometric="minisblack", planarconfig="contig")
    image = file_formats.read(tmp_path / "bands.tif")
    assert image.channels == ("0", "1", "2", "3")
    assert_array_equal(np.moveaxis(image.data, 0, -1), bands)


def test_a_palette_that_was_written_in_steps_of_256_has_8_bits(tmp_path):
    picture = PIL.Image.fromarray(np.eye(4, dtype=np.uint8))
    picture.putpalette([0, 0, 0, 255, 1, 7])
    picture.save(tmp_path / "palette.tif")
    image = file_formats.read(tmp_path / "palette.tif")
    assert image.dtype == np.uint8
    assert_array_equal(image.data[:, 0, 0], (255, 1, 7))


def test_a_palette_becomes_its_colours(tmp_path):
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 1] = (65535, 0, 257)
    tifffile.imwrite(tmp_path / "palette.tif", np.eye(4, dtype=np.uint8), photometric="palette", colormap=colours)
    image = file_formats.read(tmp_path / "palette.tif")
    assert image.dtype == np.uint8
    assert_array_equal(image.data[:, 0, 0], (255, 0, 1))


def test_complex_values_are_refused_until_a_part_is_chosen(tmp_path):
    values = np.full((4, 5), 3 + 4j, np.complex64)
    tifffile.imwrite(tmp_path / "complex.tif", values, metadata=None)
    with pytest.raises(FormatError, match="--part"):
        file_formats.read(tmp_path / "complex.tif")
    assert file_formats.read(tmp_path / "complex.tif", part="magnitude").data[0, 0, 0] == 5


@settings(max_examples=15)
@given(kept=st.floats(0.01, 0.99))
def test_a_tiff_that_is_cut_short_is_refused(tmp_path_factory, kept):
    path = tmp_path_factory.mktemp("cut") / "cut.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 256, (50, 50), dtype=np.uint8), metadata=None)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(FormatError, match=r"cut\.tif"):
        file_formats.read(path)


def test_a_small_file_that_claims_a_huge_picture_is_refused(tmp_path):
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[tag].overwrite(60_000)
    with pytest.raises(FormatError, match="attack"):
        file_formats.read(path)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (Image(np.zeros((1, 2, 2, 2), np.uint8), Geometry((2, 2, 2), np.eye(4))), "patient"),
        (Image(np.zeros((1, 2, 2), np.complex64), Geometry.of_pixels((2, 2))), "complex64"),
        (Image(np.zeros((2, 2, 2), np.int64), Geometry.of_pixels((2, 2))), "int64"),
        (Image(np.zeros((1, 3, 2, 2), np.uint8), Geometry.of_pixels((2, 2)), times=(0, 1, 5)), "uneven"),
    ],
)
def test_what_a_tiff_cannot_hold_is_refused_and_nothing_is_left(tmp_path, image, problem):
    with pytest.raises(FormatError, match=problem):
        file_formats.write(image, tmp_path / "refused.tif")
    assert list(tmp_path.iterdir()) == []


def test_real_label_maps_are_read(data):
    image = file_formats.read(data / "dsb2018" / "labels" / "01d44a26f6680c42.tif")
    assert image.dtype == np.uint16
    assert image.data.max() == 7  # index.csv: n_nuclei


@pytest.mark.parametrize("kind", ["minisblack", "miniswhite", "rgb", "planes"])
@pytest.mark.parametrize(
    ("compression", "predictor"), [("zlib", False), ("zlib", True), ("lzw", False), ("packbits", False)]
)
def test_a_page_of_one_strip_is_what_the_library_reads(tmp_path, kind, compression, predictor):
    shape = {"rgb": (9, 7, 3), "planes": (3, 9, 7)}.get(kind, (9, 7))
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    how = {"photometric": "rgb", "planarconfig": "separate"} if kind == "planes" else {"photometric": kind}
    options = {"compression": compression, "predictor": predictor, "rowsperstrip": 9, "metadata": None, **how}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    image, stored = file_formats.read(tmp_path / "a.tif"), tifffile.imread(tmp_path / "a.tif")
    channels = np.moveaxis(stored, -1, 0) if kind == "rgb" else stored if kind == "planes" else stored[None]
    assert_array_equal(image.data, 255 - channels if kind == "miniswhite" else channels)


def test_a_page_that_lacks_strips_is_refused_before_all_that_it_claims_are_looked_for(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((40, 33), np.uint8), compression="zlib", rowsperstrip=40, metadata=None
    )
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        rows, strip = (file.pages[0].tags[name].valueoffset for name in ("ImageLength", "RowsPerStrip"))
    content[rows : rows + 4] = (20_000_000).to_bytes(4, "little")  # some minutes, strip by strip
    content[strip : strip + 2] = (1).to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(FormatError, match="lacks 19999999 of 20000000 strips"):
        file_formats.read(tmp_path / "a.tif")


def test_a_damaged_file_is_refused_and_the_library_says_nothing_beside_it(tmp_path, caplog):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + b"x" * 9)
    with pytest.raises(FormatError, match="holds no picture"):
        file_formats.read(tmp_path / "a.tif")
    assert not caplog.records


@pytest.mark.parametrize(
    ("coded", "tag", "colours", "believed"),
    [
        (stream(), "RGB", AS_RGB, ""),
        (stream(), "YCBCR", AS_YCBCR, ""),
        (stream(JFIF), "YCBCR", AS_YCBCR, ""),
        (stream(JFIF), "RGB", AS_YCBCR, "luminance with chrominance (JFIF): the stream"),
        (stream(coarser=True), "RGB", AS_YCBCR, "luminance with chrominance (its coarser chrominance): the stream"),
        (stream(adobe(1)), "RGB", AS_RGB, "luminance with chrominance (Adobe's marker): the tag"),
        (stream(adobe(0)), "YCBCR", AS_RGB, "red, green and blue (Adobe's marker): the stream"),
    ],
)
def test_where_tag_and_jpeg_stream_state_different_colours_a_note_says_which_is_believed(
    tmp_path, coded, tag, colours, believed
):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, iter([coded]), shape=SQUARE.shape, dtype="uint8", photometric="rgb", compression="jpeg")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["PhotometricInterpretation"].overwrite(int(tifffile.PHOTOMETRIC[tag]))
    image = file_formats.read(path)
    assert_allclose(image.data[:, 8, 8], colours, atol=2)
    expected = f"its tag states {tag} and its JPEG stream {believed} is believed"
    assert [note for note in image.notes if "believed" in note] == ([expected] if believed else [])
