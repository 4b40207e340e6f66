from __future__ import annotations

import numpy as np
import pytest
from skimage import metrics as skimage_metrics

from hilum.evaluation import image_fidelity
from hilum.values import Geometry

RNG = np.random.default_rng(0)


def pair(shape) -> tuple[np.ndarray, np.ndarray]:
    """A smooth image, and the same with noise."""
    clean = sum(np.sin(g / 4 + n) for n, g in enumerate(np.indices(shape))) * 50 + 200
    return clean + RNG.normal(0, 10, shape), clean


@pytest.mark.parametrize("shape", [(40,), (32, 37), (16, 20, 18)])
def test_the_figures_are_those_of_scikit_image(shape, monkeypatch):
    monkeypatch.setattr(image_fidelity, "SLAB", 16**3)  # slabs change nothing
    noisy, clean = pair(shape)
    width = np.ptp(clean)
    assert image_fidelity.psnr(noisy, clean) == pytest.approx(
        skimage_metrics.peak_signal_noise_ratio(clean, noisy, data_range=width), rel=1e-12
    )
    assert image_fidelity.nrmse(noisy, clean) == pytest.approx(
        skimage_metrics.normalized_root_mse(clean, noisy), rel=1e-12
    )
    likeness = skimage_metrics.structural_similarity(
        clean, noisy, data_range=width, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert image_fidelity.ssim(noisy, clean) == pytest.approx(likeness, rel=1e-10)


def test_ssim_of_few_slices_is_the_mean_of_theirs():
    noisy, clean = pair((30, 32, 3))
    slices = [
        skimage_metrics.structural_similarity(
            clean[..., n],
            noisy[..., n],
            data_range=np.ptp(clean),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for n in range(3)
    ]
    assert image_fidelity.ssim(noisy, clean) == pytest.approx(np.mean(slices), rel=1e-10)


def test_equal_images_are_alike_without_end_and_a_constant_reference_is_no_measure():
    _, clean = pair((20, 20))
    assert image_fidelity.psnr(clean, clean) == np.inf
    assert image_fidelity.ssim(clean, clean) == pytest.approx(1)
    assert image_fidelity.nrmse(clean, clean) == 0
    flat = np.full((20, 20), 5.0)
    assert np.isnan([image_fidelity.psnr(clean, flat), image_fidelity.ssim(clean, flat)]).all()


def test_what_was_not_measured_does_not_count():
    noisy, clean = pair((30, 30))
    inside = np.ones(clean.shape, bool)
    inside[:, 25:] = False
    wild, lost = noisy.copy(), clean.copy()
    wild[:, 25:], lost[:, 25:] = 1e6, np.nan
    assert image_fidelity.psnr(wild, lost) == pytest.approx(image_fidelity.psnr(noisy[:, :25], clean[:, :25]))
    assert image_fidelity.ssim(wild, lost, inside) == pytest.approx(image_fidelity.ssim(noisy, clean, inside))


def test_coverage_of_normal_errors_is_that_of_the_normal_distribution():
    clean = np.zeros((200, 200))
    noisy = RNG.normal(0, 2, clean.shape)
    assert image_fidelity.covered_share(noisy, clean, np.full(clean.shape, 2.0)) == pytest.approx(0.6827, abs=0.01)


def test_regions_that_exceed_the_noise_are_counted_once_each_and_a_hole_is_not_invented():
    clean, noise = np.zeros((20, 20, 20)), 1.0
    result = clean.copy()
    result[2:4, 2:4, 2:4] = 3.5
    result[4, 4, 4] = 3.5  # touches the first in a corner
    result[10, 10, 10] = 3.5
    result[15, 15, 15] = -9  # lost
    result[5, 15, 15] = 2.9
    assert image_fidelity.count_invented(result, clean, noise) == 2


def test_regions_are_stated_by_litre_of_volumes_and_by_megapixel_of_pictures():
    clean = np.zeros((10, 10, 10))
    clean[0, 0, 0] = 100
    source = clean + np.where(np.indices(clean.shape).sum(axis=0) % 2, 1.0, -1.0)
    result = clean.copy()
    result[5, 5, 5] = 4
    volume = Geometry.of_spacing(clean.shape, (1, 1, 2))
    figures = image_fidelity.fidelity_figures(result[None], clean[None], volume, source=source[None])
    assert figures["invented_per_litre"] == pytest.approx(1 / 0.002)
    assert figures["invented_per_litre_input"] == 0
    grid, error = Geometry.of_pixels((10, 10)), np.ones((1, 10, 10))
    flat = image_fidelity.fidelity_figures(result[5:6], clean[5:6], grid, source=source[5:6], error=error)
    assert flat["invented_per_megapixel"] == pytest.approx(1e6 / 100)
    assert flat["coverage"] == 0.99
    assert figures["psnr_input"] == pytest.approx(40)


def test_white_noise_alone_exceeds_three_deviations_as_often_as_the_normal_distribution_says():
    clean, noisy = np.zeros((60, 60, 60)), RNG.normal(0, 1, (60, 60, 60))
    regions = image_fidelity.count_invented(noisy, clean, image_fidelity.noise_of_input(noisy, clean))
    assert regions == pytest.approx(0.00135 * 60**3, rel=0.2)
