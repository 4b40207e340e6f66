"""The diffusion coefficient of signals that are known."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import hilum
from hilum.errors import FormatError, GeometryError
from hilum.transforms import adc as transforms_adc
from hilum.values import Geometry, Image

WATER = 3.0e-3  # mm²/s of free water at body temperature


def decaying(adc: np.ndarray, b: tuple[float, ...], s0: float = 1000.0) -> Image:
    signal = s0 * np.exp(-np.reshape(b, (-1, 1, 1, 1)) * adc)[None]
    return Image(signal, Geometry(adc.shape, np.eye(4)), facts={"b_values": b})


@given(st.lists(st.floats(0, WATER), min_size=4, max_size=4), st.floats(10, 1e4))
def test_the_coefficient_of_a_decay_without_noise_is_found_exactly(values, s0):
    adc = np.reshape(values, (2, 2, 1))
    found = transforms_adc.apparent_diffusion(decaying(adc, (0, 500, 500, 1000), s0), "x")
    assert_allclose(found.data[0], adc, rtol=1e-5, atol=1e-8)
    assert (found.facts["unit"], found.frames, found.channels) == ("mm2/s", None, ("ADC",))


def test_coefficients_have_no_window_of_the_signals():
    signals = decaying(np.full((2, 2, 1), 1e-3), (0, 500))
    stated = {**signals.facts, "window": (500.0, 1000.0, "LINEAR"), "rescale_type": "US", "description": "DWI"}
    assert transforms_adc.apparent_diffusion(replace(signals, facts=stated), "x").facts == {
        "description": "DWI",
        "unit": "mm2/s",
    }


def test_weights_by_the_squared_signal_err_less_than_none():
    rng, truth, b = np.random.default_rng(0), 1.5e-3, np.array([0, 500, 1000, 2000.0])
    signal = 100 * np.exp(-b * truth) + rng.normal(0, 1.5, (4000, 4))
    signal = signal[(signal > 0).all(axis=1)]
    grid = Geometry((len(signal), 1, 1), np.eye(4))
    image = Image(signal.T[None, :, :, None, None], grid, facts={"b_values": tuple(b)})
    weighted = transforms_adc.apparent_diffusion(image, "x").data.ravel()
    plain = -np.polyfit(b, np.log(signal.T), 1)[0]
    assert np.std(weighted) < 0.8 * np.std(plain)
    assert np.mean(weighted) == pytest.approx(truth, rel=0.01)


def test_where_there_is_no_signal_there_is_no_coefficient():
    image = decaying(np.full((2, 1, 1), 1e-3), (0, 800))
    dark = image.with_pixels(np.where(np.arange(2).reshape(1, 1, 2, 1, 1) == 1, 0, image.data))
    assert np.isnan(transforms_adc.apparent_diffusion(dark, "x").data).ravel().tolist() == [False, True]


@pytest.mark.parametrize("facts", [{}, {"b_values": (800, 800)}, {"b_values": (0, None)}, {"b_values": (0, 1, 2)}])
def test_unknown_or_equal_b_values_are_refused(facts):
    image = Image(np.ones((1, 2, 3, 3, 3)), Geometry((3, 3, 3), np.eye(4)), facts=facts)
    with pytest.raises(GeometryError, match="b"):
        transforms_adc.apparent_diffusion(image, "x")


def test_one_image_has_no_frames_at_several_b_values_and_the_remedy_fits_a_dicom_series_too():
    image = Image(np.ones((1, 3, 3, 3)), Geometry((3, 3, 3), np.eye(4)))
    with pytest.raises(GeometryError, match="one image, not frames at several b-values") as refused:
        transforms_adc.apparent_diffusion(image, "x")
    assert "DICOM states" in refused.value.remedy


def test_b_values_lie_beside_a_nifti_and_convert_makes_the_map(tmp_path):
    adc, b = np.full((3, 4, 2), 0.8e-3), (0, 400, 800)
    signal = np.moveaxis(decaying(adc, b).data[0], 0, -1).astype(np.float32)
    nibabel.Nifti1Image(signal, np.eye(4)).to_filename(tmp_path / "dwi.nii.gz")
    (tmp_path / "dwi.bval").write_text("0 400 800\n")
    hilum.convert(tmp_path / "dwi.nii.gz", tmp_path / "adc.nii.gz", adc=True)
    assert_allclose(hilum.read(tmp_path / "adc.nii.gz").data[0], adc, rtol=1e-4)
    (tmp_path / "dwi.bval").write_text("0 400\n")
    with pytest.raises(FormatError, match="2 b-values for 3 frames"):
        hilum.read(tmp_path / "dwi.nii.gz")


def test_what_was_written_is_said_in_words(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.diag([1.0, 1, 2, 1])), tmp_path / "scan.nii.gz")
    written = hilum.convert(tmp_path / "scan.nii.gz", tmp_path / "scan.nrrd")
    assert "scan.nrrd: 3 x 4 x 5 voxels of 1 x 1 x 2 mm, RAS, int16" in str(written)
