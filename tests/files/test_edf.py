"""Recordings in the European Data Format, written here byte by byte as the standard lays them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import hilum
from hilum.errors import FormatError, GeometryError
from hilum.files import file_formats

Signal = tuple[str, str, np.ndarray]


def edf(path: Path, signals: list[Signal], *, seconds: float = 1.0, kind: str = "", records: int | None = None) -> Path:
    """signals: (label, unit, (records, samples) stored numbers), of which 100 are one unit."""
    count = len(signals[0][2]) if records is None else records

    def text(value: object, width: int) -> bytes:
        return str(value).ljust(width).encode("ascii")

    fixed = [("0", 8), ("Doe Jane 4711", 80), ("hospital", 80), ("01.01.26", 8), ("08.00.00", 8)]
    fixed += [(256 * (1 + len(signals)), 8), (kind, 44), (count, 8), (seconds, 8), (len(signals), 4)]
    head = b"".join(text(*one) for one in fixed)
    fields = [
        [(label, 16) for label, _, _ in signals], [("", 80)] * len(signals), [(unit, 8) for _, unit, _ in signals],
        [("-327.68", 8)] * len(signals), [("327.67", 8)] * len(signals), [("-32768", 8)] * len(signals),
        [("32767", 8)] * len(signals), [("", 80)] * len(signals), [(s.shape[1], 8) for _, _, s in signals],
        [("", 32)] * len(signals),
    ]  # fmt: skip
    described = b"".join(text(*one) for field in fields for one in field)
    stored = np.concatenate([values for _, _, values in signals], axis=1).astype("<i2")
    path.write_bytes(head + described + stored.tobytes())
    return path


def numbers(seed: int, records: int, samples: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-32768, 32767, (records, samples))


@given(st.integers(1, 5), st.integers(1, 20), st.integers(1, 3), st.sampled_from([0.5, 1.0, 30.0]))
def test_signals_come_back_in_their_unit_and_in_time(tmp_path_factory, records, samples, count, seconds):
    signals = [(f"lead {n}", "uV", numbers(n, records, samples)) for n in range(count)]
    image = hilum.read(edf(tmp_path_factory.mktemp("edf") / "x.edf", signals, seconds=seconds))
    assert_allclose(image.data, [values.ravel() / 100 for _, _, values in signals], atol=1e-4)
    assert image.channels == tuple(f"lead {n}" for n in range(count))
    assert (image.geometry.unit, image.facts["units"]) == ("s", ("uV",) * count)
    assert image.spacing == pytest.approx((seconds / samples,))


def test_signals_of_other_rates_are_images_of_their_own_and_annotations_are_left_out(tmp_path):
    signals = [("EEG", "uV", numbers(0, 3, 8)), ("SpO2", "%", numbers(1, 3, 2)), ("EEG", "uV", numbers(2, 3, 8))]
    path = edf(tmp_path / "night.edf", [*signals, ("EDF Annotations", "", numbers(3, 3, 5))], kind="EDF+C")
    volumes = file_formats.read_volumes(path)
    assert list(volumes) == ["night_8Hz", "night_2Hz"]
    assert volumes["night_8Hz"].channels == ("EEG 1", "EEG 2")
    assert_allclose(volumes["night_8Hz"].data[1], signals[2][2].ravel() / 100, atol=1e-4)
    assert_allclose(volumes["night_2Hz"].data[0], signals[1][2].ravel() / 100, atol=1e-4)
    assert volumes["night_2Hz"].notes == ("annotations in the recording were left out",)
    stated = repr([(image.notes, dict(image.facts), image.channels) for image in volumes.values()])
    assert "Doe" not in stated


def test_a_recording_that_does_not_say_its_length_is_as_long_as_its_file(tmp_path):
    values = numbers(0, 4, 6)
    assert_array_equal(hilum.read(edf(tmp_path / "x.edf", [("a", "V", values)], records=-1)).shape, (1, 24))


@pytest.mark.parametrize("kept", [100, 300, 520, 1030])
def test_a_recording_cut_short_is_refused_by_name(tmp_path, kept):
    path = edf(tmp_path / "x.edf", [("a", "V", numbers(0, 40, 6)), ("b", "V", numbers(1, 40, 6))])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FormatError, match=r"x\.edf"):
        hilum.read(path)


def test_an_interrupted_recording_and_an_empty_range_are_refused(tmp_path):
    with pytest.raises(GeometryError, match="interrupted"):
        hilum.read(edf(tmp_path / "x.edf", [("a", "V", numbers(0, 2, 6))], kind="EDF+D"))
    path = edf(tmp_path / "y.edf", [("a", "V", numbers(0, 2, 6))])
    path.write_bytes(path.read_bytes().replace(b"327.67  ", b"-327.68 "))
    with pytest.raises(FormatError, match="range of signal 1 is empty"):
        hilum.read(path)
