"""A simulated patient: a curved structure of two compartments in noisy, uneven, MR-like surroundings.

It stands in for real images where there are none. What a model scores on it says that the machinery works, and
nothing about patients.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from hilum.transforms import random_draws
from hilum.values import Geometry, Image, Label

LABELS = (Label(1, "front", (230, 160, 40)), Label(2, "back", (70, 150, 220)))
# mm around the structure, about what a hippocampus needs.
FIELD = (48.0, 56.0, 40.0)
# mm: half the length of each axis of the structure, left-right, front-back, up-down.
HALF_AXES = (7.0, 16.0, 7.0)
# Which patient axis each image axis runs along, and its sign: sagittal, coronal and axial, always right-handed, so
# that slices come back from DICOM in the order in which they were written.
PLANES = (((1, 2, 0), (-1, -1, 1)), ((0, 2, 1), (-1, -1, -1)), ((0, 1, 2), (-1, -1, 1)))
# The parts of the seeds: what belongs to a person, and what to one examination.
PERSON = 0
VISIT = 1

Points = NDArray[np.floating]


def make_phantom(seed: int, patient: int, visit: int = 0) -> tuple[Image, Image]:
    """An image and its label map, the same for the same numbers.

    Anatomy belongs to the patient; spacing, orientation, position, unevenness and noise to the visit.
    """
    geometry = _geometry(random_draws.sample_generator(seed, VISIT, patient, visit))
    index = np.stack(np.meshgrid(*(np.arange(size) for size in geometry.shape), indexing="ij"), axis=-1)
    points = geometry.to_world(index)
    radius, side, tissue = _anatomy(points, random_draws.sample_generator(seed, PERSON, patient))
    labels = np.where(radius < 1, np.where(side > 0, 1, 2), 0).astype(np.uint8)
    signal = _scan(
        _signal(radius, side, tissue), points, random_draws.sample_generator(seed, VISIT + 1, patient, visit)
    )
    image = Image(signal[None], geometry, modality="MR")
    return image, Image(labels[None], geometry, modality="SEG", channels=("label",), labels=LABELS)


def _geometry(rng: np.random.Generator) -> Geometry:
    """Thick slices in one of three planes, tilted, around a point somewhere in the patient."""
    axes, signs = PLANES[int(rng.integers(len(PLANES)))]
    in_plane = rng.uniform(0.9, 1.3)
    thickness = rng.uniform(1.4, 2.2)
    steps = np.array([in_plane, in_plane, thickness])
    shape = tuple(round(FIELD[axis] / step) for axis, step in zip(axes, steps, strict=True))
    directions = _rotation(rng.normal(0, 8, 3)) @ (np.eye(3)[:, list(axes)] * np.array(signs))
    affine = np.eye(4)
    affine[:3, :3] = directions * steps
    centre = rng.normal(0, 1.5, 3)  # mm: the field is never quite centred
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Geometry(shape, affine)


def _rotation(degrees: Points) -> Points:
    """About the three patient axes, one after another."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second] = -np.sin(angle)
        turn[second, first] = np.sin(angle)
        matrix = matrix @ turn
    return matrix


def _anatomy(points: Points, rng: np.random.Generator) -> tuple[Points, Points, Points]:
    """(*spatial) each: distance from the structure's axis (1 at its surface), side (above 0 in front), background.

    A bent and tapered ellipsoid in a space that is smoothly deformed: no two patients have the same shape.
    """
    half = np.array(HALF_AXES) * rng.normal(1, 0.1, 3)
    bend = rng.normal(0.012, 0.004)
    taper = rng.normal(0.012, 0.006)
    cut = rng.normal(0, 1.5)
    moved = _deform(points, rng) @ _rotation(rng.normal(0, 10, 3))
    x, y, z = np.moveaxis(moved, -1, 0)
    z = z + bend * y**2 - 1.5  # mm: bends downwards at both ends, about its middle
    width = 1 + taper * y
    radius = np.sqrt((x / (half[0] * width)) ** 2 + (y / half[1]) ** 2 + (z / (half[2] * width)) ** 2)
    tissue = _waves(points, rng, length=30.0) + 0.5 * _waves(points, rng, length=14.0)
    return radius, y - cut + 0.2 * z, tissue


def _deform(points: Points, rng: np.random.Generator) -> Points:
    """Points moved by about 1 mm, smoothly."""
    return points + np.stack([_waves(points, rng, length=35.0) for _ in range(3)], axis=-1)


def _waves(points: Points, rng: np.random.Generator, *, length: float, count: int = 6) -> Points:
    """(*spatial) a smooth random field of variance 1: plane waves of about `length` mm."""
    directions = rng.normal(size=(count, 3))
    directions *= 2 * np.pi / length / np.linalg.norm(directions, axis=1, keepdims=True)
    phases = rng.uniform(0, 2 * np.pi, count)
    return cast("Points", np.sqrt(2 / count) * np.cos(points @ directions.T + phases).sum(axis=-1))


def _signal(radius: Points, side: Points, tissue: Points) -> Points:
    """Two tissues that run into each other, the structure a little darker in front than behind, dark fluid beside."""
    around = np.where(tissue > 0.3, 620.0, 480.0) + 25 * tissue
    inside = np.where(side > 0, 300.0, 380.0)
    # Partial volume: the surface is half a millimetre or so of both.
    share = 1 / (1 + np.exp((radius - 1) * 14))
    fluid = np.exp(-(((radius - 1.35) / 0.12) ** 2)) * (tissue < -0.4)
    return cast("Points", (around * (1 - share) + inside * share) * (1 - 0.8 * fluid))


def _scan(signal: Points, points: Points, rng: np.random.Generator) -> NDArray[np.uint16]:
    """The image as a scanner shows it: uneven sensitivity, a scale of its own, Rician noise.

    Gudbjartsson and Patz, Magn Reson Med 1995, doi:10.1002/mrm.1910340618
    """
    uneven = np.exp(0.15 * _waves(points, rng, length=120.0, count=3))
    real, imaginary = rng.normal(0, 28, (2, *signal.shape))
    measured = np.hypot(signal * uneven + real, imaginary) * rng.uniform(0.5, 2.0)
    return cast("NDArray[np.uint16]", np.clip(np.rint(measured), 0, 4095).astype(np.uint16))  # 12 bits
