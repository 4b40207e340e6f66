"""Motion between the frames of a series: each frame laid on one of them, or on their mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np

from isocenter.errors import UsageError
from isocenter.registration import _pyramid, engine, linear
from isocenter.registration.engine import LEVELS, MOST_LINEAR, RegistrationSettings
from isocenter.registration.linear import FirstGuess
from isocenter.registration.similarity_measures import OF_MOTION
from isocenter.transforms import spatial_transforms
from isocenter.values import Floats, Image, SpatialTransform

FrameTarget = Literal["first", "mean"]
# Steps on each level; a frame begins where the one before it came to lie.
STEPS = 60


def frame_transforms(
    series: Image, settings: RegistrationSettings, target: FrameTarget, where: str
) -> list[SpatialTransform]:
    """The transform from the first frame, or the mean of all corrected ones, to each frame.

    Raises UsageError for an image that has no frames.
    """
    if series.frames is None or series.frames < 2:
        raise UsageError("there is one frame only", where, "Give a series of several frames")
    first = series.frame(0)
    transforms = list(_follow_frames(first, series, settings, where))
    if target == "mean":
        corrected = [
            spatial_transforms.carry_image(frame, one, first.geometry).data
            for frame, one in zip(series.still_frames(), transforms, strict=True)
        ]
        with np.errstate(invalid="ignore"):
            mean = np.nanmean(np.stack(corrected), axis=0)
        transforms = list(_follow_frames(first.with_pixels(mean.astype(np.float32)), series, settings, where))
    return transforms


def _follow_frames(
    reference: Image, series: Image, settings: RegistrationSettings, where: str
) -> Iterator[SpatialTransform]:
    """The transform to each frame, frame after frame."""
    if settings.transform == "deformable":
        in_world = replace(settings, initial="world")
        yield from (
            engine.register_images(reference, frame, in_world, where=where).transform for frame in series.still_frames()
        )
        return
    grid = reference.geometry
    name = engine.choose_similarity(reference, reference, settings).value
    before = FirstGuess("the frame before", np.eye(grid.ndim), np.zeros(grid.ndim))
    for frame in series.still_frames():
        pair = _pyramid.prepare_pair(reference, frame, None, one_scale=True)
        for spacing in _pyramid.level_spacings(grid, LEVELS, MOST_LINEAR)[1:]:
            level = pair.level(spacing).smoothed_level
            before = linear.descend_from_guess(level, before, OF_MOTION[name], rigid=True, steps=STEPS)
        yield SpatialTransform((before.affine(pair),), grid, grid)


def rotation_angles(matrix: Floats) -> Floats:
    """(3,) degrees about x, y and z of a rotation, as `rotation` applies them: about z, then y, then x."""
    about_y = np.arcsin(np.clip(matrix[0, 2], -1, 1))
    about_x = np.arctan2(-matrix[1, 2], matrix[2, 2])
    about_z = np.arctan2(-matrix[0, 1], matrix[0, 0])
    return np.degrees([about_x, about_y, about_z])
