"""Clips: every frame and its own time, or a refusal; the same bit streams inside DICOM."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset

from dicom_objects import picture
from hilum.errors import FormatError
from hilum.files import file_formats, video
from hilum.files.dicom.reading import pixel_decoding

Clip = np.ndarray[Any, Any]


@pytest.fixture
def clip() -> Clip:
    """(frames, rows, columns, 3): a bright square that moves over a coloured ramp, no two frames alike."""
    ramp = np.indices((48, 64)).sum(axis=0) * 2
    made = np.stack([np.stack([ramp, 255 - ramp, np.full_like(ramp, 15 * n)], axis=-1) for n in range(15)])
    for n in range(15):
        made[n, 8:24, 2 * n : 2 * n + 16] = 250
    return made.astype(np.uint8)


def save(path: Path, clip: Clip, codec: str = "FFV1", rate: float = 10) -> Path:
    """FFV1 is lossless."""
    rows, columns = clip.shape[1:3]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), rate, (columns, rows))
    for frame in clip:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.mark.parametrize("suffix", ["avi", "mkv"])
def test_every_frame_of_a_lossless_clip_comes_back_in_order(tmp_path: Path, clip: Clip, suffix: str):
    image = file_formats.read(save(tmp_path / f"clip.{suffix}", clip))
    assert image.channels == ("R", "G", "B")
    assert image.geometry.shape == (48, 64)
    assert not image.geometry.physical
    # FFV1 stores YUV 4:2:0 here, so that colour edges blur a little.
    assert np.abs(np.moveaxis(image.data, 0, -1).astype(int) - clip).mean() < 4
    assert_allclose(image.times, np.arange(15) / 10)


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mp4v"), ("mov", "mp4v"), ("avi", "MJPG")])
def test_lossy_clips_come_close(tmp_path: Path, clip: Clip, suffix: str, codec: str):
    image = file_formats.read(save(tmp_path / f"clip.{suffix}", clip, codec, rate=25))
    assert image.frames == 15
    assert np.abs(np.moveaxis(image.data, 0, -1).astype(int) - clip).mean() < 8
    assert_allclose(image.times, np.arange(15) / 25, atol=1e-5)


def test_a_part_of_a_clip_is_that_part_of_the_whole(tmp_path: Path, clip: Clip):
    image = file_formats.read(save(tmp_path / "clip.avi", clip))
    whole = image.data
    for region in (np.s_[:, 3:9:2, 5:20, 30:], np.s_[1:2, 14:15], np.s_[:, 4:4], np.s_[:, ::-1]):
        assert_array_equal(image.pixels[region], whole[region])


def test_a_clip_crosses_processes_without_its_frames(tmp_path: Path, clip: Clip):
    image = file_formats.read(save(tmp_path / "clip.avi", clip))
    packed = pickle.dumps(image)
    assert len(packed) < clip.nbytes / 10
    assert_array_equal(pickle.loads(packed).data, image.data)  # noqa: S301


def test_frames_keep_their_own_times_where_the_rate_varies(tmp_path: Path, clip: Clip):
    path = save(tmp_path / "clip.mp4", clip, "mp4v")
    lengths = [1, 3, 1, 1, 5, 1, 1, 1, 2, 1, 1, 4, 1, 1, 1]
    path.write_bytes(with_frame_lengths(path.read_bytes(), lengths))
    truth = np.concatenate([[0], np.cumsum(lengths)[:-1]]) / 10
    assert_allclose(file_formats.read(path).times, truth, atol=1e-5)


def with_frame_lengths(clip: bytes, lengths: list[int]) -> bytes:
    """An MP4 clip whose frames last these multiples of their length: its time table written anew (ISO 14496-12)."""

    def of(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body) + 8) + kind + body

    def rewritten(data: bytes) -> bytes:
        out, at = b"", 0
        while at < len(data):
            size, kind = struct.unpack_from(">I4s", data, at)
            body = data[at + 8 : at + size]
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
                body = rewritten(body)
            elif kind == b"stts":
                [step] = struct.unpack_from(">I", body, 12)
                body = struct.pack(">II", 0, len(lengths)) + b"".join(struct.pack(">II", 1, step * n) for n in lengths)
            elif kind == b"edts":  # it would end the clip at its old length
                body, kind = b"", b"free"
            out += of(kind, body)
            at += size
        return out

    return rewritten(clip)


def test_clips_are_known_by_their_content(tmp_path: Path, clip: Clip):
    for suffix, codec in (("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "FFV1")):
        save(tmp_path / f"clip.{suffix}", clip, codec).rename(tmp_path / "clip")
        assert file_formats.format_of(tmp_path / "clip") == "video"


CUTS: dict[str, Callable[[bytes], bytes]] = {
    "half of it": lambda clip: clip[: len(clip) // 2],
    "nothing": lambda clip: clip[:0],
    "only its head": lambda clip: clip[:64],
    "noise": lambda clip: clip[:32] + bytes(255 - b for b in clip[32:]),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "FFV1"), ("mov", "mp4v")])
def test_a_clip_cut_short_is_refused(tmp_path: Path, clip: Clip, suffix: str, codec: str, cut: str):
    path = save(tmp_path / f"clip.{suffix}", clip, codec)
    path.write_bytes(CUTS[cut](path.read_bytes()))
    with pytest.raises(FormatError) as refusal:
        file_formats.read(path)
    assert refusal.value.where == str(path)


def trim(path: Path, start: int, frames: int) -> Path:
    """The same clip with an edit list that shows so many frames from one on; nothing else is changed."""
    content = bytearray(path.read_bytes())
    at = content.index(b"elst")
    film_scale, duration = struct.unpack_from(">II", content, content.index(b"mvhd") + 16)
    (media_scale,) = struct.unpack_from(">I", content, content.index(b"mdhd") + 16)
    # 15 frames, all of one length.
    edit = frames * duration // 15, start * duration * media_scale // film_scale // 15
    struct.pack_into(">II", content, at + 12, *edit)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("start", "frames"), [(5, 10), (0, 6), (4, 7)])
def test_of_a_film_that_was_trimmed_the_frames_that_its_edit_list_shows_are_read(tmp_path, clip, start, frames):
    whole = file_formats.read(save(tmp_path / "whole.mov", clip, "MJPG"))
    image = file_formats.read(trim(save(tmp_path / "trimmed.mov", clip, "MJPG"), start, frames))
    assert_array_equal(image.data, whole.data[:, start : start + frames])
    assert_allclose(image.times, np.arange(frames) / 10)
    assert image.notes == (f"15 frames are stored, of which the clip's edit list shows {frames}",)
    assert whole.notes == ()


def test_a_trimmed_film_that_is_cut_short_is_refused(tmp_path, clip):
    path = trim(save(tmp_path / "trimmed.mov", clip, "MJPG"), 2, 13)
    content = bytearray(path.read_bytes())
    # The pictures of the second half are gone, and the tables at the end are there.
    middle, tables = (
        content.index(b"mdat") + (content.index(b"moov") - content.index(b"mdat")) // 2,
        content.index(b"moov"),
    )
    content[middle : tables - 4] = bytes(tables - 4 - middle)
    path.write_bytes(content)
    with pytest.raises(FormatError, match="It is cut short"):
        file_formats.read(path)


def test_pixels_of_a_film_that_are_not_square_are_named(tmp_path, clip):
    path = save(tmp_path / "clip.mov", clip, "MJPG")
    content = bytearray(path.read_bytes())
    aspect = struct.pack(">I4sII", 16, b"pasp", 2, 1)
    entry = content.index(b"stsd") + 12
    (entry_size,) = struct.unpack_from(">I", content, entry)
    outer = [content.index(name) - 4 for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")]
    for at in (*outer, entry):
        struct.pack_into(">I", content, at, struct.unpack_from(">I", content, at)[0] + len(aspect))
    content[entry + entry_size : entry + entry_size] = aspect
    path.write_bytes(content)
    image = file_formats.read(path)
    assert image.shape == (3, 15, 48, 64)
    assert image.notes == ("its pixels are not square (2 : 1, width to height): rows and columns are as stored",)


def test_only_our_error_is_said_about_a_damaged_clip(tmp_path: Path, clip: Clip):
    path = save(tmp_path / "clip.mp4", clip, "mp4v")
    path.write_bytes(path.read_bytes()[:600])
    script = f"from hilum.files import file_formats\ntry: file_formats.read({str(path)!r})\n"
    script += "except Exception as error: print(error)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: no clip can be read from it.")
    assert done.stderr == ""


# -- in DICOM ---------------------------------------------------------------------------------------------------------


def in_dicom(stream: bytes, clip: Clip, syntax: str, **tags: Any) -> Dataset:
    return picture(
        clip, frames=len(clip), syntax=syntax, encoded=[stream], PhotometricInterpretation="YBR_PARTIAL_420", **tags
    )


@pytest.mark.parametrize("suffix", ["m2v", "mpg", "ts"])
def test_mpeg2_inside_dicom_is_decoded_to_its_frames(tmp_path: Path, clip: Clip, suffix: str):
    stream = save(tmp_path / f"clip.{suffix}", clip, "MPG2", rate=25).read_bytes()
    dataset = in_dicom(stream, clip, "1.2.840.10008.1.2.4.100")
    decoded = pixel_decoding.decode_frames(dataset, "clip.dcm")
    assert decoded.shape == clip.shape
    assert np.abs(decoded.astype(int) - clip).mean() < 8
    assert_array_equal(pixel_decoding.decode_frames(dataset, "clip.dcm", [3, 1]), decoded[[3, 1]])


def test_h264_inside_dicom_is_decoded_to_its_frames():
    levels = [40, 90, 140, 200]
    grey = np.stack([np.full((32, 48, 3), level, np.uint8) for level in levels])
    dataset = in_dicom(h264(levels, 32, 48), grey, "1.2.840.10008.1.2.4.102")
    decoded = pixel_decoding.decode_frames(dataset, "clip.dcm")
    # Luminance 16..235 of video is stretched to 0..255.
    assert np.abs(decoded.astype(float) - [[[[(level - 16) * 255 / 219]]] for level in levels]).max() <= 2


def h264(levels: list[int], rows: int, columns: int) -> bytes:
    """Grey frames as uncompressed (I_PCM) macroblocks: the plainest H.264 stream there is (ITU-T H.264, 7.3)."""
    wide, high = columns // 16, rows // 16

    def unsigned(value: int) -> str:
        bits = f"{value + 1:b}"
        return "0" * (len(bits) - 1) + bits

    def unit(header: int, bits: str) -> bytes:
        bits += "1" + "0" * (-(len(bits) + 1) % 8)
        body = bytes(int(bits[n : n + 8], 2) for n in range(0, len(bits), 8))
        escaped = bytearray()
        for byte in body:
            if len(escaped) >= 2 and escaped[-2:] == b"\0\0" and byte <= 3:
                escaped.append(3)
            escaped.append(byte)
        return b"\0\0\0\1" + bytes([header]) + bytes(escaped)

    # Baseline profile, level 4; order of pictures is order of decoding (type 2); one reference frame.
    sequence = "01000010" + "11000000" + "00101000" + unsigned(0) + unsigned(0) + unsigned(2) + unsigned(1) + "0"
    sequence += unsigned(wide - 1) + unsigned(high - 1) + "1" + "1" + "0" + "0"
    picture_set = unsigned(0) + unsigned(0) + "0" + "0" + unsigned(0) + unsigned(0) + unsigned(0)
    picture_set += "0" + "00" + unsigned(0) + unsigned(0) + unsigned(0) + "1" + "0" + "0"
    stream = unit(0x67, sequence) + unit(0x68, picture_set)
    for n, level in enumerate(levels):
        bits = (
            unsigned(0) + unsigned(7) + unsigned(0) + "0000" + unsigned(n % 2) + "0" + "0" + unsigned(0) + unsigned(1)
        )
        for _ in range(wide * high):
            bits += unsigned(25)  # I_PCM
            bits += "0" * (-len(bits) % 8) + f"{level:08b}" * 256 + f"{128:08b}" * 128
        stream += unit(0x65, bits)
    return stream


def test_a_clip_with_another_number_of_frames_than_its_header_is_refused(tmp_path: Path, clip: Clip):
    stream = save(tmp_path / "clip.m2v", clip, "MPG2", rate=25).read_bytes()
    with pytest.raises(FormatError, match="has 15 frames of 48 x 64, the header states 20 of 48 x 64"):
        pixel_decoding.decode_frames(in_dicom(stream, clip, "1.2.840.10008.1.2.4.100", NumberOfFrames=20), "clip.dcm")


def test_a_broken_stream_inside_dicom_is_refused(clip: Clip):
    with pytest.raises(FormatError, match="clip") as refusal:
        pixel_decoding.decode_frames(
            in_dicom(b"\0\0\1" + b"nothing of the kind" * 40, clip, "1.2.840.10008.1.2.4.100"), "clip.dcm"
        )
    assert refusal.value.where == "clip.dcm"


def test_frames_come_one_by_one(tmp_path: Path, clip: Clip):
    path = save(tmp_path / "clip.avi", clip)
    first = next(iter(video.iterate_clip(path, str(path))))
    assert_array_equal(first, np.moveaxis(file_formats.read(path).data[:, 0], 0, -1))
