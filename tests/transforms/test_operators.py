"""Operators of scanners: exact transposes, against analytic projections of disks and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from skimage.transform import iradon, radon

import hilum
from hilum.errors import FormatError, GeometryError
from hilum.transforms.operators import cartesian
from hilum.transforms.operators.operator_kinds import OPERATORS

RNG = np.random.default_rng(0)
SHAPE, AROUND, HALF = (16, 17), np.arange(0, 360, 11), np.arange(0, 180, 10)


def acquisition(kind: str, shape=SHAPE, spacing=(1.0, 1.3), angles=AROUND, **more):
    image = {"shape": shape, "spacing_mm": spacing}
    rays = {"angles_deg": angles, "bins": 25, "bin_mm": 1.1} if kind != "cartesian" else {}
    return {"kind": kind, "image": image, **rays, **more}


def complex_noise(*shape):
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


SCANS = {
    "parallel": acquisition("parallel"),
    "parallel with fine bins": acquisition("parallel", bin_mm=0.3),
    "parallel with a short detector": acquisition("parallel", bins=9),
    "cartesian": acquisition("cartesian", mask=RNG.random(SHAPE) > 0.5),
    "three coils": acquisition("cartesian", sensitivities=complex_noise(3, *SHAPE)),
}


def test_every_kind_of_operator_is_tried_here():
    assert {scan["kind"] for scan in SCANS.values()} == set(OPERATORS)


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_the_adjoint_is_the_transpose(scan, precision):
    operator = hilum.operator(scan)
    image, measured = complex_noise(2, *operator.domain), complex_noise(2, *operator.codomain)
    kind = np.result_type(precision, np.complex64) if operator.is_complex else precision
    image, measured = (one.astype(kind) if operator.is_complex else one.real.astype(kind) for one in (image, measured))
    there, back = operator.forward(image), operator.adjoint(measured)
    assert there.dtype == back.dtype == kind
    limit = (1e-5 if precision == np.float32 else 1e-13) * np.linalg.norm(there) * np.linalg.norm(measured)
    assert abs(np.vdot(measured, there) - np.vdot(back, image)) < limit


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
def test_the_gradient_of_half_a_squared_residual_is_the_adjoint_of_the_residual(scan):
    operator = hilum.operator(scan)
    image = torch.as_tensor(RNG.normal(size=operator.domain)).requires_grad_()
    (operator.forward(image).abs() ** 2 / 2).sum().backward()
    assert_allclose(image.grad, operator.normal(image.detach()).real, atol=1e-9)


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
def test_a_batch_is_measured_as_its_images_are_and_numpy_as_torch(scan):
    operator = hilum.operator(scan)
    images = RNG.normal(size=(2, 3, *operator.domain))
    measured = operator.forward(images)
    assert measured.shape == (2, 3, *operator.codomain)
    assert_allclose(measured[1, 2], operator.forward(images[1, 2]), atol=1e-12)
    assert_allclose(measured, operator.forward(torch.as_tensor(images)).numpy(), atol=1e-12)


def disk(shape, spacing, centre, radius, parts=6):
    """A disk of value 1, by the share of each pixel that it covers."""
    axes = [((np.arange(n * parts) + 0.5) / parts - n / 2) * step for n, step in zip(shape, spacing, strict=True)]
    inside = np.hypot(axes[0][:, None] - centre[0], axes[1] - centre[1]) < radius
    return inside.reshape(shape[0], parts, shape[1], parts).mean(axis=(1, 3))


def test_rays_through_a_disk_are_its_chords_in_mm():
    centre, radius, angles = np.array([9.0, -14.0]), 20.0, (0, 20, 45, 77, 90, 200, 300)
    scan = acquisition("parallel", (64, 100), (1.5, 1.0), angles, bins=140, bin_mm=1.0)
    sums = hilum.operator(scan).forward(disk((64, 100), (1.5, 1.0), centre, radius))
    bins = np.arange(140) - 69.5
    for angle, profile in zip(np.deg2rad(angles), sums, strict=True):
        apart = bins - np.array([np.cos(angle), np.sin(angle)]) @ centre
        chords = 2 * np.sqrt(np.maximum(0, radius**2 - apart**2))
        assert np.sqrt(np.mean((profile - chords) ** 2)) < 0.45  # of 40 mm; nearly all of it at the edge
        inner = np.abs(apart) < 0.8 * radius
        assert_allclose(profile[inner], chords[inner], atol=1.2)


def test_filtered_backprojection_restores_the_values_of_a_disk():
    scan = acquisition("parallel", (40, 40), (1.5, 1.5), np.arange(0, 180, 2), bins=120, bin_mm=1.0)
    operator, image = hilum.operator(scan), 3 * disk((40, 40), (1.5, 1.5), (5.0, 3.0), 15.0)
    found = operator.plain_inverse(operator.forward(image))
    inner = disk((40, 40), (1.5, 1.5), (5.0, 3.0), 12.0) == 1
    assert abs(found[inner].mean() - 3) < 0.03
    assert np.sqrt(np.mean((found[inner] - 3) ** 2)) < 0.15


def test_views_of_a_full_turn_count_as_those_of_half_a_turn_twice():
    image = disk(SHAPE, (1, 1), (1.0, -2.0), 5.0)
    found = []
    for angles in (HALF, np.concatenate([HALF, HALF + 180])):
        operator = hilum.operator(acquisition("parallel", SHAPE, (1, 1), angles))
        found.append(operator.plain_inverse(operator.forward(image)))
    assert_allclose(found[0], found[1], atol=0.01)


def test_projections_and_their_inverse_are_those_of_scikit_image():
    """Whose first axis is our second, and whose angles go the other way round."""
    size, angles = 63, np.arange(0, 180, 3)
    image = disk((size, size), (1, 1), (6.0, -9.0), 12.0) + disk((size, size), (1, 1), (-8.0, 4.0), 7.0)
    operator = hilum.operator(acquisition("parallel", (size, size), (1, 1), angles, bins=size, bin_mm=1.0))
    theirs = radon(image.T[::-1], angles, circle=True)
    assert np.sqrt(np.mean((operator.forward(image) - theirs.T) ** 2)) < 0.3  # of chords up to 24
    back = iradon(theirs, angles, circle=True, filter_name="ramp")[::-1].T
    ours = operator.plain_inverse(theirs.T.astype(np.float32))
    circle = disk((size, size), (1, 1), (0, 0), 30.0) == 1
    assert np.sqrt(np.mean((ours - back)[circle] ** 2)) < 0.01
    assert np.mean((ours - image)[circle] ** 2) < 1.02 * np.mean((back - image)[circle] ** 2)


def test_k_space_is_the_centred_transform_that_the_format_states():
    image = complex_noise(*SHAPE)
    mask = np.ones(SHAPE)
    mask[:, ::3] = 0
    operator = hilum.operator(acquisition("cartesian", mask=mask))
    expected = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="ortho")) * mask
    assert_allclose(operator.forward(image), expected, atol=1e-12)
    assert_allclose(hilum.operator(acquisition("cartesian")).normal(image), image, atol=1e-12)


def test_the_plain_inverse_of_several_coils_is_the_image_wherever_one_of_them_sees():
    maps, image = complex_noise(3, *SHAPE), complex_noise(*SHAPE)
    operator = hilum.operator(acquisition("cartesian", sensitivities=maps))
    assert_allclose(operator.plain_inverse(operator.forward(image)), image, atol=1e-9)


def test_sensitivities_are_found_from_the_centre_of_k_space():
    row, column = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32), indexing="ij")
    maps = np.stack(
        [np.exp(-((row - a) ** 2 + (column - b) ** 2) / 3) * np.exp(1j * a * column) for a, b in ((1, 0), (-1, 0))]
    )
    maps /= np.sqrt((np.abs(maps) ** 2).sum(axis=0))
    image = disk((32, 32), (1, 1), (0, 0), 11.0)
    kspace = hilum.operator(acquisition("cartesian", (32, 32), sensitivities=maps)).forward(image)
    mask = np.zeros((32, 32))
    mask[:, ::4] = mask[:, 12:21] = 1
    found = cartesian.estimate_sensitivities(kspace * mask, mask, "here")
    inside = disk((32, 32), (1, 1), (0, 0), 9.0) == 1
    ratios = [one[1][inside] / one[0][inside] for one in (found, maps)]  # each up to one phase and factor a pixel
    assert np.abs(ratios[0] / ratios[1] - 1).mean() < 0.1
    with pytest.raises(FormatError, match="fewer than 4 lines of its centre"):
        cartesian.estimate_sensitivities(kspace, np.arange(32) % 4 * np.ones((32, 1)) == 0, "here")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": "spiral"}, "no kind of acquisition"),
        ({"image": {}}, "does not state the image"),
        ({"angels_deg": [1]}, "angels_deg, which parallel does not take"),
        ({"bins": 0}, "lacks bins"),
        ({"bin_mm": "wide"}, "no number"),
        ({"bin_mm": float("nan")}, "length or an angle that cannot be"),
        ({"angles_deg": np.linspace(0, np.pi, 60)}, "60 views, none above 7 degrees"),
        ({"counts": True}, "no photons that were sent"),
    ],
)
def test_an_acquisition_that_cannot_be_is_refused(change, problem):
    with pytest.raises(FormatError, match=problem):
        hilum.operator(acquisition("parallel") | change)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"mask": np.full(SHAPE, 2)}, "other values than 0 and 1"),
        ({"mask": np.zeros(SHAPE)}, "samples nothing"),
        ({"mask": np.ones((3, 3))}, r"has a mask of \(3, 3\) for an image of"),
        ({"sensitivities": np.ones(SHAPE)}, "not \\(\\[slices,\\] coils, 16, 17\\)"),
    ],
)
def test_arrays_that_are_none_of_the_acquisition_are_refused(more, problem):
    with pytest.raises(FormatError, match=problem):
        hilum.operator(acquisition("cartesian", **more))


def test_an_image_of_another_shape_and_complex_rays_are_refused():
    operator = hilum.operator(acquisition("parallel"))
    with pytest.raises(GeometryError, match="last axes are \\(16, 17\\)"):
        operator.forward(np.ones((17, 16)))
    with pytest.raises(GeometryError, match="complex"):
        operator.forward(np.ones(SHAPE, complex))


def test_the_record_of_an_operator_makes_it_again():
    operator = hilum.operator(acquisition("parallel", counts=True, i0=1e5))
    again = hilum.operator(operator.record)
    image = RNG.random(SHAPE)
    assert_allclose(again.forward(image), operator.forward(image))
    assert again.record == operator.record
