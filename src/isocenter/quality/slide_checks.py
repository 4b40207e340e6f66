"""Checks of slides: tissue, sharpness, and the coarse picture at which all other checks look."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from isocenter import errors
from isocenter.files.slides.tiled_levels import MODALITY
from isocenter.runtime.preprocessing import coarse_mask
from isocenter.runtime.preprocessing.coarse_mask import CoarseMask
from isocenter.transforms import channel_stack
from isocenter.values import Array, Case, Fingerprint, Floats, Image, Problem

# Pixels along the longer side of the level at which a slide is looked at as a picture, at the least.
LOOKED_AT = 1024
# Squares of tissue of the finest level that are looked at, pixels along a side of one.
SQUARES, SIDE = 64, 128
# Pixels of one slide may be so many times as long as of the middle one.
UNLIKE_PIXELS = 1.5
# Second differences of a square over those of its half: .25 of what is smooth, 1 of noise. Of 54 tiles of tissue (Data
# Science Bowl 2018) it is .33 to .78; blurred by a Gaussian of 1 pixel .28 to .38, of 2 pixels .27 to .30.
LEAST_DETAIL = 0.31
# Share of a square that has to be tissue, and greys of which less is rounding.
DYED = 0.75
LEAST_ROUGHNESS = 0.1


def looked_at(image: Image) -> Image:
    """A slide as the picture of its coarsest level that is no smaller than `LOOKED_AT`; other images as they are."""
    if not image.is_slide:
        return image
    return image.level(image.level_within(max(image.geometry.shape) / LOOKED_AT))


def slide_problems(case: Case, image: Image) -> Iterator[Problem]:
    """A slide without tissue, one that is out of focus, and one that does not state the size of its pixels."""
    if not image.is_slide or (mask := coarse_mask.tissue_of(image)) is None:
        return
    if not mask.inside.any():
        yield Problem(
            "warning",
            "no tissue is found on the slide",
            (case.id,),
            "a model would see glass",
            "Look at it; --set preprocessing.tissue=none takes all of it",
        )
        return
    detail = finest_detail(image, mask)
    if detail is not None and detail < LEAST_DETAIL:
        yield Problem(
            "warning",
            f"the slide looks out of focus: the detail of its pixels is {detail:.2f} of that of pixels twice as long",
            (case.id,),
            "cells cannot be told",
            "Scan it again",
        )
    if image.spacing is None:
        yield Problem(
            "note",
            "the slide does not state the size of its pixels",
            (case.id,),
            "lengths and areas stay unknown",
            "Give it with --mm-per-pixel",
        )


def unlike_pixels(fingerprint: Fingerprint) -> Iterator[Problem]:
    """Slides whose pixels are far longer or shorter than those of the middle one."""
    sides = {case.id: max(case.steps) for case in fingerprint.cases if case.modality == MODALITY and case.physical}
    if not sides:
        return
    middle = float(np.median(list(sides.values())))
    unlike = [name for name, side in sides.items() if max(side / middle, middle / side) > UNLIKE_PIXELS]
    if unlike:
        listed = sorted({f"{sides[name]:.3g}" for name in unlike})
        yield Problem(
            "warning",
            f"pixels of {errors.list_phrase(listed)} mm where the middle slide has {middle:.3g} mm",
            tuple(unlike),
            "cells are of another size there",
            "Train with --set preprocessing.spacing, which brings all to one size, or correct the file",
        )


def finest_detail(image: Image, mask: CoarseMask) -> float | None:
    """The detail of pixels over that of pixels twice as long, the median of squares of tissue; None without one."""
    places = np.argwhere(mask.inside)
    step = max(1, len(places) // SQUARES)
    shares = []
    for place in places[step // 2 :: step]:
        corner = [int(index * n) for index, n in zip(place, mask.block, strict=True)]
        region = tuple(
            slice(start, min(start + SIDE, size)) for start, size in zip(corner, image.geometry.shape, strict=True)
        )
        colours = np.asarray(image.pixels[(slice(None), *region)])
        if colours.shape[1:] == (SIDE, SIDE) and (coarse_mask.saturation(colours) > coarse_mask.PALEST).mean() > DYED:
            square = channel_stack.luma(colours)[0]
            halves: Floats = square.reshape(SIDE // 2, 2, SIDE // 2, 2).mean(axis=(1, 3))
            shares.append(_roughness(square) / max(_roughness(halves), LEAST_ROUGHNESS))
    return float(np.median(shares)) if shares else None


def _roughness(square: Array) -> float:
    """The root mean square of the second differences, of greys from 0 to 255."""
    middle, *around = (
        square[1:-1, 1:-1], square[:-2, 1:-1], square[2:, 1:-1], square[1:-1, :-2], square[1:-1, 2:],
    )  # fmt: skip
    return float(np.sqrt(np.mean((4 * middle - sum(around)) ** 2)))
