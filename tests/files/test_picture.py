"""Pictures keep their pixels, and are refused where they would not."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

import real_data
from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.values import Geometry, Image

PIXELS = Geometry.of_pixels((4, 6))
GREY = np.arange(24, dtype=np.uint8).reshape(4, 6)
COLOUR = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def save(picture: PIL.Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)
    return path


@given(
    dtype=st.sampled_from([np.uint8, np.uint16]),
    channels=st.sampled_from([1, 3, 4]),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    draw=st.data(),
)
def test_what_is_written_as_png_is_read_again(tmp_path_factory, dtype, channels, shape, draw):
    pixels = draw.draw(arrays(dtype, (channels, *shape)))
    if channels == 4:
        pixels[3, 0, 0] = 0  # an alpha channel that is opaque everywhere is left out on purpose
    names = ("R", "G", "B", "A")[:channels] if channels > 1 else ("0",)
    path = tmp_path_factory.mktemp("png") / "picture.png"
    file_formats.write(Image(pixels, Geometry.of_pixels(shape), channels=names), path)
    found = file_formats.read(path)
    assert_array_equal(found.data, pixels)
    assert (found.dtype, found.channels) == (pixels.dtype, names)
    assert found.geometry.equals(Geometry.of_pixels(shape))


def test_rows_come_before_columns(tmp_path):
    image = file_formats.read(save(PIL.Image.fromarray(GREY), tmp_path / "grey.png"))
    assert_array_equal(image.data[0], GREY)
    assert image.geometry.shape == (4, 6)
    assert image.spacing is None
    assert image.geometry.orientation is None


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".jp2"])
def test_lossless_pictures_keep_their_colours(tmp_path, suffix):
    options = {".webp": {"lossless": True}, ".jp2": {"irreversible": False}}.get(suffix, {})
    image = file_formats.read(save(PIL.Image.fromarray(COLOUR), tmp_path / f"colour{suffix}", **options))
    assert image.channels == ("R", "G", "B")
    assert_array_equal(np.moveaxis(image.data, 0, -1), COLOUR)


def test_dots_per_inch_are_no_physical_size(tmp_path):
    image = file_formats.read(save(PIL.Image.fromarray(GREY), tmp_path / "printed.png", dpi=(300, 300)))
    assert image.spacing is None


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_pixels_that_are_not_square_are_named(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    PIL.Image.new("L", (4, 3)).save(path, dpi=(300, 150))  # 150 pixels an inch down: each is twice as high as wide
    assert "its pixels are not square (1 : 2, width to height)" in " ".join(file_formats.read(path).notes)
    PIL.Image.new("L", (4, 3)).save(path, dpi=(300, 300))
    assert file_formats.read(path).notes == ()


def test_sixteen_bit_colours_are_not_cut_to_eight(tmp_path):
    deep = COLOUR.astype(np.uint16) * 200 + 7
    path = tmp_path / "deep.png"
    path.write_bytes(imagecodecs.png_encode(deep))
    assert_array_equal(np.moveaxis(file_formats.read(path).data, 0, -1), deep)


def test_sixteen_bit_grey_is_kept(tmp_path):
    deep = GREY.astype(np.uint16) * 2000
    image = file_formats.read(save(PIL.Image.fromarray(deep), tmp_path / "deep.png"))
    assert image.dtype == np.uint16
    assert_array_equal(image.data[0], deep)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: a.T),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).T),
        (8, np.rot90),
    ],
)
def test_a_picture_stands_upright_as_exif_says(tmp_path, orientation, turn):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    image = file_formats.read(save(PIL.Image.fromarray(GREY), tmp_path / "turned.png", exif=exif))
    assert_array_equal(image.data[0], turn(GREY))
    assert bool(image.notes) == (orientation != 1)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("samples", [1, 3])
def test_a_colour_that_a_png_calls_transparent_is_so_and_the_others_keep_all_bits(
    tmp_path: Path, kind: type, samples: int
) -> None:
    colours = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (4, 5, samples)).astype(kind)
    plain = imagecodecs.png_encode(colours[..., 0] if samples == 1 else colours)
    body = b"tRNS" + colours[1, 2].astype(">u2").tobytes()  # PNG (ISO 15948), 11.3.2.1: behind the header of 33 bytes
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "a.png").write_bytes(plain[:33] + chunk + plain[33:])
    data = file_formats.read(tmp_path / "a.png").data
    assert_array_equal(data[:-1], np.moveaxis(colours, -1, 0))
    assert_array_equal(data[-1] == 0, (colours == colours[1, 2]).all(axis=-1))


def test_an_opaque_alpha_channel_is_left_out_and_said_so(tmp_path):
    opaque = np.dstack([COLOUR, np.full((4, 6), 255, np.uint8)])
    image = file_formats.read(save(PIL.Image.fromarray(opaque), tmp_path / "opaque.png"))
    assert image.channels == ("R", "G", "B")
    assert "alpha" in image.notes[0]


def test_a_gif_of_one_frame_is_a_picture(tmp_path):
    vessels = np.eye(8, dtype=np.uint8) * 255
    assert_array_equal(file_formats.read(save(PIL.Image.fromarray(vessels), tmp_path / "vessels.gif")).data[0], vessels)
    few = PIL.Image.fromarray(COLOUR).quantize(16)
    image = file_formats.read(save(few, tmp_path / "few.gif"))
    assert_array_equal(np.moveaxis(image.data, 0, -1), np.asarray(few.convert("RGB")))


def test_a_real_alpha_channel_is_kept(tmp_path):
    clear = np.dstack([COLOUR, np.arange(24, dtype=np.uint8).reshape(4, 6)])
    image = file_formats.read(save(PIL.Image.fromarray(clear), tmp_path / "clear.png"))
    assert image.channels == ("R", "G", "B", "A")
    assert_array_equal(np.moveaxis(image.data, 0, -1), clear)


def test_grey_with_opaque_alpha_is_grey(tmp_path):
    image = file_formats.read(save(PIL.Image.fromarray(GREY).convert("LA"), tmp_path / "la.png"))
    assert_array_equal(image.data, GREY[None])


def test_one_bit_a_pixel_is_0_and_1(tmp_path):
    bits = GREY > 11
    image = file_formats.read(save(PIL.Image.fromarray(bits), tmp_path / "bits.png"))
    assert image.dtype == np.uint8
    assert_array_equal(image.data[0], bits)


def test_a_palette_becomes_its_colours(tmp_path):
    palette = PIL.Image.fromarray((GREY % 3).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image = file_formats.read(save(palette, tmp_path / "palette.png"))
    assert image.channels == ("R", "G", "B")
    assert_array_equal(image.data[:, 0, 1], (255, 0, 0))


def test_cmyk_is_converted_and_said_so(tmp_path):
    image = file_formats.read(
        save(PIL.Image.new("CMYK", (6, 4), (0, 255, 255, 0)), tmp_path / "print.jpg", quality=100)
    )
    assert image.channels == ("R", "G", "B")
    assert any("CMYK" in note for note in image.notes)
    assert image.data[0].min() > 250
    assert image.data[1:].max() < 5


def test_three_equal_channels_are_marked(tmp_path):
    same = file_formats.read(save(PIL.Image.fromarray(GREY).convert("RGB"), tmp_path / "same.png"))
    other = file_formats.read(save(PIL.Image.fromarray(COLOUR), tmp_path / "other.png"))
    assert same.facts["equal_channels"]
    assert not other.facts.get("equal_channels")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif"])
@settings(max_examples=10)
@given(kept=st.floats(0.3, 0.97))
def test_a_picture_that_is_cut_short_is_refused(tmp_path_factory, suffix, kept):
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = save(PIL.Image.fromarray(noise), tmp_path_factory.mktemp("cut") / f"cut{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(FormatError, match="cut"):
        file_formats.read(path)


@pytest.mark.parametrize("content", [b"", b"some text", imagecodecs.ljpeg_encode(GREY.astype(np.uint16))])
def test_what_is_no_known_kind_of_picture_is_not_called_damaged(tmp_path, content):
    (tmp_path / "other.jpg").write_bytes(content)
    with pytest.raises(FormatError, match="kind that is not read"):
        file_formats.read(tmp_path / "other.jpg")


def test_a_small_file_that_claims_a_huge_picture_is_refused(tmp_path, monkeypatch):
    path = save(PIL.Image.new("1", (20_000, 20_000)), tmp_path / "bomb.png")
    assert path.stat().st_size < 100_000
    with pytest.raises(FormatError, match="attack"):
        file_formats.read(path)


def test_a_moving_picture_that_is_no_gif_is_refused(tmp_path):
    frames = [PIL.Image.fromarray(GREY), PIL.Image.fromarray(GREY[::-1])]
    path = save(frames[0], tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    with pytest.raises(FormatError, match="2 frames"):
        file_formats.read(path)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (Image(np.zeros((1, 4, 6), np.float32), PIXELS), "float32"),
        (Image(np.full((1, 4, 6), -1, np.int16), PIXELS), "-1"),
        (Image(np.full((1, 4, 6), 70_000, np.int32), PIXELS), "70000"),
        (Image(np.zeros((1, 2, 4, 6), np.uint8), PIXELS), "frames"),
        (Image(np.zeros((5, 4, 6), np.uint8), PIXELS), "5 channels"),
        (Image(np.zeros((1, 4, 6, 1), np.uint8), Geometry.of_pixels((4, 6, 1))), "volume"),
        (Image(np.zeros((1, 4, 6), np.uint8), Geometry.of_spacing((4, 6), (1, 1))), "mm"),
    ],
)
def test_what_a_png_cannot_hold_is_refused_and_nothing_is_left(tmp_path, image, problem):
    with pytest.raises(FormatError, match=problem):
        file_formats.write(image, tmp_path / "refused.png")
    assert list(tmp_path.iterdir()) == []


def test_formats_that_change_values_are_not_written(tmp_path):
    with pytest.raises(FormatError, match=r"\.jpg is not written"):
        file_formats.write(Image(GREY[None], PIXELS), tmp_path / "lossy.jpg")


def test_whole_numbers_of_any_type_are_written_as_they_are(tmp_path):
    file_formats.write(Image(GREY[None].astype(np.int64), PIXELS), tmp_path / "labels.png")
    assert_array_equal(file_formats.read(tmp_path / "labels.png").data, GREY[None])


def test_a_real_radiograph_is_read_in_grey(data):
    path = sorted((data / "chest_xray" / "NORMAL").glob("*.jpeg"))[0]
    with PIL.Image.open(path) as other:
        assert_array_equal(file_formats.read(path).data, np.asarray(other)[None])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("bccd/JPEGImages/BloodImage_00000.jpg", (3, 480, 640)),
        pytest.param("chasedb1/Image_01L.jpg", (3, 960, 999), marks=pytest.mark.corpus),
    ],
)
def test_real_pictures_in_colour_are_read(name, shape):
    colour = file_formats.read(real_data.find(name))
    assert colour.shape == shape
    with PIL.Image.open(real_data.find(name)) as other:
        assert_array_equal(np.moveaxis(colour.data, 0, -1), np.asarray(other))


@pytest.mark.parametrize("downwards", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (300, 7), (513, 4)])
def test_the_colours_of_a_bmp_are_those_of_the_library_whichever_way_its_rows_run(tmp_path, shape, downwards):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.bmp")
    if downwards:
        content = bytearray((tmp_path / "a.bmp").read_bytes())
        content[22:26] = (-shape[0]).to_bytes(4, "little", signed=True)
        (tmp_path / "a.bmp").write_bytes(content)
        pixels = pixels[::-1]
    assert_array_equal(np.moveaxis(file_formats.read(tmp_path / "a.bmp").data, 0, -1), pixels)
    assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "a.bmp")), pixels)
    (tmp_path / "cut.bmp").write_bytes((tmp_path / "a.bmp").read_bytes()[:-20])
    with pytest.raises(FormatError, match="not a complete picture"):
        _ = file_formats.read(tmp_path / "cut.bmp").data
