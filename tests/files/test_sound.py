from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.io import wavfile

import isocenter
from isocenter.errors import FormatError


def sound(path: Path, samples: np.ndarray, rate: int) -> Path:
    """Of 16 bits, (samples, channels), by Python's own writer."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


@given(st.integers(1, 50), st.integers(1, 3), st.integers(1, 48_000))
def test_samples_are_kept_and_lie_a_period_apart(tmp_path_factory, length, channels, rate):
    samples = np.random.default_rng(length).integers(-32768, 32767, (length, channels))
    image = isocenter.read(sound(tmp_path_factory.mktemp("wav") / "x.wav", samples, rate))
    assert_array_equal(image.data, samples.T)
    assert (image.geometry.unit, image.frames) == ("s", None)
    assert image.spacing == pytest.approx((1 / rate,))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_of_every_width_are_the_stored_numbers(tmp_path, width):
    first = 0 if width == 1 else -3  # samples of one byte have no sign
    numbers = range(first, first + 6)
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(width)
        file.setframerate(1000)
        file.writeframes(b"".join(number.to_bytes(width, "little", signed=width > 1) for number in numbers))
    assert_array_equal(isocenter.read(tmp_path / "x.wav").data, np.reshape(numbers, (3, 2)).T)


def test_samples_in_floating_point_are_read(tmp_path):
    samples = np.linspace(-1, 1, 9, dtype=np.float32)
    wavfile.write(tmp_path / "x.wav", 4000, samples)
    assert_array_equal(isocenter.read(tmp_path / "x.wav").data, samples[None])


@pytest.mark.parametrize("kept", [10, 30, 44, 60])
def test_a_sound_cut_short_is_refused_by_name(tmp_path, kept):
    path = sound(tmp_path / "x.wav", np.ones((40, 1)), 1000)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FormatError, match=r"x\.wav"):
        isocenter.read(path)
