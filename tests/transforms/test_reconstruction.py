"""Solvers: against closed forms, and what each promises of every step."""

from __future__ import annotations

import numpy as np
import torch
from numpy.testing import assert_allclose
from skimage.restoration import denoise_tv_chambolle

import hilum
from hilum.transforms.operators import iterative_solvers

SIZE = 16
RNG = np.random.default_rng(0)
IMAGE = {"shape": (SIZE, SIZE), "spacing_mm": (1, 1)}
PARALLEL = {"kind": "parallel", "angles_deg": np.arange(0, 180, 12), "bins": 25, "bin_mm": 1.0, "image": IMAGE}


def total_variation_of(image):
    return float(np.hypot(np.diff(image, axis=0, append=image[-1:]), np.diff(image, append=image[:, -1:])).sum())


def test_conjugate_gradients_solve_the_normal_equations():
    operator = hilum.operator(PARALLEL)
    measured = torch.as_tensor(RNG.normal(size=operator.codomain))
    found = iterative_solvers.conjugate_gradients(operator, measured, iterations=200, weight=3.0)
    assert_allclose(operator.normal(found) + 3 * found, operator.adjoint(measured), atol=1e-7)


def test_conjugate_gradients_stop_where_nothing_is_left():
    operator = hilum.operator({"kind": "cartesian", "image": IMAGE})
    image = torch.as_tensor(RNG.normal(size=(SIZE, SIZE)), dtype=torch.complex64)
    found = iterative_solvers.conjugate_gradients(operator, operator.forward(image), iterations=50)
    assert_allclose(found, image, atol=1e-5)


def test_total_variation_of_full_k_space_is_that_of_the_image():
    operator = hilum.operator({"kind": "cartesian", "image": IMAGE})
    noisy = RNG.normal(size=(SIZE, SIZE)) + 3 * (np.arange(SIZE) > 8)
    measured = torch.as_tensor(operator.forward(noisy))
    found = iterative_solvers.total_variation(operator, measured, weight=1.5, iterations=200).real.numpy()
    theirs = denoise_tv_chambolle(noisy, weight=1.5, eps=1e-9, max_num_iter=2000)
    ours, other = (np.sum((one - noisy) ** 2) / 2 + 1.5 * total_variation_of(one) for one in (found, theirs))
    assert_allclose(found, theirs, atol=0.02)
    assert ours < 1.0005 * other


def test_noise_is_measured_beside_an_object():
    operator = hilum.operator(PARALLEL)
    profiles = operator.forward(np.hypot(*np.meshgrid(*[np.arange(SIZE) - 7.5] * 2)) < 6)
    noisy = profiles + RNG.normal(0, 0.7, profiles.shape)
    assert 0.55 < iterative_solvers.noise_deviation(operator, noisy) < 0.95
    fourier = hilum.operator({"kind": "cartesian", "image": IMAGE})
    noise = 0.7 * (RNG.normal(size=(SIZE, SIZE)) + 1j * RNG.normal(size=(SIZE, SIZE)))
    assert 0.45 < iterative_solvers.noise_deviation(fourier, noise) < 0.95
