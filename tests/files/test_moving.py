from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.testing import assert_array_equal

import hilum
from hilum.errors import FormatError


def clip(path: Path, durations: list[int] | int, frames: int = 3) -> list[np.ndarray]:
    """A bright square that moves over grey, a column a frame."""
    pictures = []
    for n in range(frames):
        pixels = np.full((20, 30), 90, np.uint8)
        pixels[5:10, 3 * n : 3 * n + 4] = 200
        pictures.append(pixels)
    first, *rest = (PIL.Image.fromarray(pixels) for pixels in pictures)
    first.save(path, save_all=True, append_images=rest, duration=durations)
    return pictures


def test_a_moving_gif_is_a_clip_with_the_times_of_its_frames(tmp_path):
    pictures = clip(tmp_path / "beat.gif", [40, 100, 60])
    image = hilum.read(tmp_path / "beat.gif")
    assert (image.shape, image.channels) == ((3, 3, 20, 30), ("R", "G", "B"))
    assert image.times == (0.0, 0.04, 0.14)
    for channel in image.data:
        assert_array_equal(channel, pictures)
    part = (slice(1, 2), slice(1, 3), slice(4, 9), slice(0, 12))
    assert_array_equal(image.pixels[part], image.data[part])


def test_a_gif_that_states_no_times_has_none(tmp_path):
    clip(tmp_path / "beat.gif", 0)
    image = hilum.read(tmp_path / "beat.gif")
    assert (image.times, image.frames) == (None, 3)
    assert "no frame times" in image.notes[0]


@pytest.mark.parametrize("kept", [0.4, 0.8, 0.999])
def test_a_gif_that_was_cut_short_is_refused_by_name(tmp_path, kept):
    path = tmp_path / "beat.gif"
    clip(path, 40, frames=6)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(FormatError, match=r"beat\.gif"):
        _ = hilum.read(path).data
