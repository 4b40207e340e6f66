"""Tubes of known length and diameter, such as vessels, by rule from a seed: their masks, and the truth about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, spatial

VOLUME_SPACINGS = ((0.4, 0.4, 0.4), (0.7, 0.7, 0.7), (1.0, 1.0, 1.0), (0.4, 0.4, 0.8), (0.5, 0.5, 1.2), (0.7, 0.7, 1.5))
PICTURE_SPACINGS = ((0.4, 0.4), (0.5, 0.8), (1.0, 1.0))
# mm between two samples of the axis of a tube that is drawn.
STEP = 0.05


@dataclass(frozen=True, eq=False)
class Tube:
    """A mask and what is true of it.

    kind:           how it was drawn, in words
    spacing:        (axes,) mm
    length:         mm of all branches, within the image
    least_diameter: mm where it is narrowed; of a tube without a narrowing NaN
    percent:        by which its diameter there is less than that of the healthy tube; 0 without a narrowing
    place:          (axes,) voxels, of the narrowing
    axes:           (samples, axes) mm of each branch, the first voxel being 0
    """

    kind: str
    mask: np.ndarray
    spacing: tuple[float, ...]
    length: float
    least_diameter: float
    percent: float
    place: np.ndarray
    axes: list[np.ndarray]


def draw_tube(
    seed: int, *, narrowed: bool, axes: int = 3, radius: tuple[float, float] = (2.0, 9.0), rim: bool = True
) -> Tube:
    """A tube whose spacing, radius, direction, bend, ends, taper, rim, fork and narrowing follow from the seed.

    radius: from, to; in sides of a voxel (the geometric mean of the axes)
    rim:    whether voxels at the surface of every third tube are wrong
    """
    random = np.random.default_rng(seed)
    spacings = VOLUME_SPACINGS if axes == 3 else PICTURE_SPACINGS
    spacing = spacings[random.integers(len(spacings))]
    side = float(np.prod(spacing) ** (1 / axes))
    kinds = [("straight", "tilted", "bent", "wound")[seed % 4]]
    end = ("flat", "cut by the border", "rough rim")[random.integers(3)]
    is_forked = axes == 3 and random.random() < 0.25
    kinds += [end] + ["forked"] * is_forked
    wide = float(np.exp(random.uniform(*np.log(radius)))) * side
    length = max(random.uniform(30, 60), (18 if is_forked else 12) * wide)
    along = np.arange(0, length, STEP)
    line = _axis(random, along, kinds[0], wide)[:, :axes]
    if kinds[0] == "tilted":  # by few degrees from an axis of the image
        line = line + along[:, None] * np.tan(np.radians(random.uniform(-6, 6, axes))) * (np.arange(axes) > 0)
        line = np.roll(line, random.integers(axes), axis=1)
        line = line / np.linalg.norm(line[-1]) * along[-1]
    else:
        line = line @ np.linalg.qr(random.normal(size=(axes, axes)))[0].T
    radii = np.full(len(along), wide)
    if random.random() < 0.4:
        kinds.append("tapering")
        radii = radii * np.linspace(1, random.uniform(0.65, 0.85), len(along))
    depth = half = 0.0
    middle = length * random.uniform(0.35, 0.65)
    if narrowed:
        healthy = float(np.interp(middle, along, radii))
        most = min(0.7, 1 - side / healthy)
        least = 1 - 0.9 * float(radii.min()) / healthy  # nothing else is as narrow
        depth = random.uniform(max(0.2, least), max(most, 0.2, least))
        if random.random() < 0.5:
            kinds.append("long narrowing")
            half = random.uniform(0.1, 0.15) * length
        else:
            kinds.append("short narrowing")
            half = max(random.uniform(1.0, 2.5) * wide, 2 * side)
        radii = radii * (1 - depth * np.cos(np.clip((along - middle) / half, -1, 1) * np.pi / 2) ** 2)
    pieces = [(line, radii)]
    extra = 0.0
    if is_forked:
        child, child_radii = _child(random, line, radii, along, narrowed=narrowed, middle=middle)
        pieces.append((child, child_radii))
        extra = STEP * (len(child) - 1)
    mask, low = _painted(pieces, spacing, random)
    whole = STEP * (len(line) - 1) + extra
    if end == "cut by the border":
        reach = int((half + 2 * wide) / STEP)
        at = int(middle / STEP)
        shown = line[max(0, at - reach) : at + reach]
        mask, low, whole = _cut(mask, low, spacing, pieces, shown)
    if rim and end == "rough rim":
        mask = _roughened(mask, random, random.uniform(0.05, 0.2))
    at = int(np.abs(along - middle).argmin())
    return Tube(
        ", ".join(kinds),
        mask,
        spacing,
        whole,
        2 * float(radii[at]) if narrowed else float("nan"),
        100 * depth,
        (line[at] - low) / spacing,
        [samples - low for samples, _ in pieces],
    )


def _axis(random: np.random.Generator, along: np.ndarray, kind: str, radius: float) -> np.ndarray:
    """(samples, 3) mm: straight, an arc, or a screw; no bend is tighter than four radii."""
    if kind in ("straight", "tilted"):
        return np.stack([along, 0 * along, 0 * along], axis=1)
    bend = max(random.uniform(12, 40), 4 * radius)
    if kind == "bent":
        angle = np.clip((along - along[-1] / 2) / bend, -1.4, 1.4)
        further = along - along[-1] / 2 - angle * bend
        turned = np.stack([np.sin(angle), 1 - np.cos(angle), 0 * angle], axis=1) * bend
        return turned + further[:, None] * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    # A sine's tightest bend is 1 / (height k^2); it is sampled finely, then evenly.
    height = 1.2 * radius + random.uniform(0, 2)
    k = 1 / np.sqrt(height * bend)
    x = np.linspace(0, along[-1], 4 * len(along))
    fine = np.stack([x, height * np.sin(k * x), height * 0.5 * np.cos(0.7 * k * x)], axis=1)
    at = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    return np.stack([np.interp(along, at, column) for column in fine.T], axis=1)


def _child(
    random: np.random.Generator,
    line: np.ndarray,
    radii: np.ndarray,
    along: np.ndarray,
    *,
    narrowed: bool,
    middle: float,
) -> tuple[np.ndarray, np.ndarray]:
    """A straight branch that leaves the tube on its outer side, away from a narrowing."""
    share = 0.35 if not narrowed else (0.25 if middle > along[-1] / 2 else 0.75)
    at = int(share * (len(line) - 1))
    tangent = np.gradient(line, axis=0)[at] / STEP
    bend = np.gradient(np.gradient(line, axis=0), axis=0)[at]
    across = -bend if np.linalg.norm(bend) > 1e-9 else random.normal(size=3)
    across = across - (across @ tangent) * tangent
    across /= np.linalg.norm(across)
    angle = np.radians(random.uniform(45, 75))
    direction = np.cos(angle) * tangent + np.sin(angle) * across
    radius = max(random.uniform(0.6, 0.85) * radii[at], 1.1 * radii.min() if narrowed else 0)
    samples = np.arange(0, max(random.uniform(15, 25), 8 * radii[at]), STEP)
    return line[at] + samples[:, None] * direction, np.full(len(samples), radius)


def _painted(
    pieces: list[tuple[np.ndarray, np.ndarray]], spacing: tuple[float, ...], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The mask with flat ends, and the mm of its first voxel."""
    most = max(float(radii.max()) for _, radii in pieces)
    points = np.concatenate([line for line, _ in pieces])
    axes = len(spacing)
    low = points.min(axis=0) - most - 2 * np.array(spacing) + random.uniform(0, 1, axes) * spacing
    shape = np.ceil((points.max(axis=0) + most + 2 * np.array(spacing) - low) / spacing).astype(int)
    voxels = np.moveaxis(np.indices(shape), 0, -1).reshape(-1, axes) * np.array(spacing) + low
    mask = np.zeros(len(voxels), bool)
    for number, (line, radii) in enumerate(pieces):
        apart, nearest = spatial.KDTree(line).query(voxels, distance_upper_bound=float(radii.max()))
        nearest = np.minimum(nearest, len(line) - 1)
        # Ends are flat; a branch begins inside the tube that it leaves.
        mask |= (apart <= radii[nearest]) & ((nearest > 0) | (number > 0)) & (nearest < len(line) - 1)
    return mask.reshape(shape), low


def _cut(
    mask: np.ndarray,
    low: np.ndarray,
    spacing: tuple[float, ...],
    pieces: list[tuple[np.ndarray, np.ndarray]],
    shown: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, float]:
    """The same in a smaller image, whose border cuts the ends of the tube, and the mm of all axes within it.

    Whole where a border would run almost along the tube, or cut off what is to be shown.
    """
    line = pieces[0][0]
    axis = int(np.abs(line[-1] - line[0]).argmax())
    places = (line[:, axis] - low[axis]) / spacing[axis]
    from_end, to_end = np.sort(places[[0, -1]])
    gap = 0.12 * (to_end - from_end)
    first, last = int(from_end + gap), int(to_end - gap)
    steepness = np.abs(np.gradient(line[:, axis])) / STEP
    is_steep = all(steepness[np.abs(places - border).argmin()] >= 0.6 for border in (first, last))
    at = (shown[:, axis] - low[axis]) / spacing[axis]
    if not is_steep or at.min() < first or at.max() > last - 1:
        return mask, low, sum(STEP * (len(samples) - 1) for samples, _ in pieces)
    part = [slice(None)] * mask.ndim
    part[axis] = slice(first, last)
    start = low.copy()
    start[axis] += first * spacing[axis]
    length = 0.0
    for samples, _ in pieces:
        index = (samples[:, axis] - start[axis]) / spacing[axis]
        length += STEP * np.count_nonzero((index >= -0.5) & (index <= last - first - 0.5))
    return mask[tuple(part)], start, length


def _roughened(mask: np.ndarray, random: np.random.Generator, share: float) -> np.ndarray:
    """The mask in which this share of the voxels on either side of the surface is wrong."""
    rim = mask ^ ndimage.binary_erosion(mask)
    rim |= ndimage.binary_dilation(mask) ^ mask
    return mask ^ (rim & (random.random(mask.shape) < share))
