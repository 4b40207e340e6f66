"""Augmentation of a whole batch on the training device.

What moves voxels comes first: mirroring and quarter turns to the bit, then rotation, scale, shift and bend composed
into one sampling grid, through which image and label are read once. What changes intensities follows, in the order in
which it would befall a scan.

A sample's generator gives two things: a chance for every kind of change, and a key. Each kind has its numbers from a
generator of its own, made of that key and the kind's place in the table. So a sample is changed alike in any batch,
and the strength of one kind never changes the numbers of another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Le, Lt
from numpy.typing import NDArray

from hilum.errors import PlanError
from hilum.lazy import torch
from hilum.transforms import (
    _augment_artefacts,
    _augment_intensity,
    _augment_style,
    augment_following,
    augment_spatial,
    orient,
    pasting,
    random_draws,
)
from hilum.transforms.augment_following import F, LabelMap, Warp
from hilum.transforms.augment_spatial import POINTS
from hilum.transforms.intensity import ChannelScale
from hilum.transforms.random_draws import BatchDraws
from hilum.values import Setting

if TYPE_CHECKING:
    from torch import Tensor

Strength = Annotated[float, Ge(0), Lt(math.inf)]
Share = Annotated[float, Ge(0), Le(1)]
# Of images of at most three.
Axis = Annotated[int, Ge(0), Lt(3)]
Change = Callable[..., "Tensor"]
# Images, label maps, a generator of each: images painted from the maps, as `painting.LabelPainter` gives them.
Painter = Callable[["Tensor", "Tensor", Sequence[np.random.Generator]], "Tensor"]
Floats = NDArray[np.float64]

SPATIAL = ("flips", "quarter_turns", "rotation", "scale", "shear", "shift", "elastic")
# As they befall a scan: the object, the acquisition, the detector, the reconstruction, the display.
INTENSITY: Mapping[str, Change] = {
    "metal": _augment_artefacts.metal,
    "motion": _augment_artefacts.motion,
    "ghosting": _augment_artefacts.ghosting,
    "bias_field": _augment_artefacts.bias_field,
    "spikes": _augment_artefacts.spikes,
    "blur": _augment_intensity.gaussian_blur,
    "low_resolution": _augment_intensity.low_resolution,
    "dose_noise": _augment_artefacts.dose_noise,
    "sharpen": _augment_intensity.sharpen,
    "contrast": _augment_intensity.contrast,
    "brightness": _augment_intensity.brightness,
    "gamma": _augment_intensity.gamma,
    "equalise": _augment_intensity.equalise,
    "noise": _augment_intensity.noise,
    "cutout": _augment_intensity.cutout,
    "style": _augment_style.style,
    "speckle": _augment_style.speckle,
    "colour": _augment_style.colour,
    "stain": _augment_style.stain,
}
# A kind's place here is a part of its draws: new ones go to the end.
NEWER = ("shear", "sharpen", "equalise", "style", "speckle", "colour", "paste", "painting", "stain")
KINDS = (*(kind for kind in (*SPATIAL, *INTENSITY) if kind not in NEWER), *NEWER)
# What goes wrong now and then, unlike what differs from scan to scan.
ACCIDENTS = ("metal", "motion", "ghosting", "spikes")
# Largest side of the box that is covered in a strong view: Sohn et al., arXiv:2001.07685, appendix B.
COVERED = 0.5
# Voxels by which a label grows or shrinks at the most, and how much rarer it is that it is forgotten as a whole.
MOST_VOXELS = 3
RARER = 4


@contextmanager
def exact_products() -> Iterator[None]:
    """Matrix products in all of float32 while inside, whatever a network is allowed.

    The ten bits of TensorFloat-32 move a place at the edge of a picture of 1024 pixels by up to a quarter of a pixel.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass(frozen=True)
class Augmentation:
    """The strength of each kind of change to a sample; 0 turns it off.

    rotation:    degrees, about each axis (about the one axis in 2D)
    scale:       1 +- this, for all axes together
    shear:       by how much of their length one axis is moved along the others
    shift:       share of the patch, per axis
    elastic:     standard deviation of the control points' displacement, as a share of the patch; 0.02 is much
                 All of these leave slices that lie far apart in their planes: see `thick_axes`.
    flips:       axes that may be mirrored, each with a chance of one half
    probability: of each other kind of change; of accidents (motion, ghosting, spikes, metal) `accidents`
    contrast, brightness: factor 1 +- this, and standard deviations added
    gamma:       exponent in [1 / (1 + g), 1 + g] on the intensity range of the sample
    noise, dose_noise: largest standard deviation of Gaussian noise, and of noise as in CT of a low dose
    blur:        largest standard deviation of a Gaussian, in voxels
    sharpen:     largest multiple of the fine detail that is added again
    equalise:    largest share of an image with equally frequent greys, of limited contrast
    low_resolution: voxels up to 1 + this times as long
    bias_field:  largest standard deviation, over the image, of the logarithm of the coil's sensitivity
    motion:      largest turn in degrees, and largest shift in sides of a voxel, the shortest, between parts of the
                 acquisition
    ghosting:    how much weaker every n-th line of k-space is at the most, 1 being all
    spikes, metal: largest amplitude of stripes and of streaks, in deviations of the image
    cutout, cutout_count: largest side of a covered box, as a share of the image's, and number of the boxes
    style:       how far a random smooth curve of intensities may bend away from a straight line, inverted with half
                 this chance; in every second sample low frequencies of the amplitude of another image, where given
    speckle:     largest standard deviation of the grainy factor of the signal
    colour:      saturation 1 +- this, and hue by up to this share of 60 degrees
    stain:       haematoxylin, eosin and DAB times 1 +- this, and by up to this in optical density
    paste:       chance of each sample to get a structure, with its mask, of another image of the batch
    painting:  chance of each sample to be painted from its label map, of any contrast, in place of its image
    mixup, cutmix: alpha of the Beta distribution of shares, for every batch (half of them each where both are on)
    left_right:  axis of the network's grid that runs from left to right; None where that is not known
    marks:       chance of each label that a network before has marked to be marked too large or too small, and a fourth
                 of it to be forgotten
    quarter_turns: pictures without an up, turned by any number of quarter turns in the plane of the first two axes
    """

    rotation: Strength = 15.0
    scale: Annotated[float, Ge(0), Lt(1)] = 0.15
    shift: Share = 0.0
    shear: Annotated[float, Ge(0), Lt(1)] = 0.0
    elastic: Share = 0.0
    flips: Annotated[tuple[Axis, ...], Setting(always=True)] = ()
    probability: Share = 0.3
    contrast: Strength = 0.25
    brightness: Strength = 0.15
    gamma: Strength = 0.4
    noise: Strength = 0.1
    blur: Strength = 0.0
    low_resolution: Strength = 0.0
    sharpen: Strength = 0.0
    equalise: Share = 0.0
    bias_field: Strength = 0.0
    motion: Strength = 0.0
    ghosting: Share = 0.0
    spikes: Strength = 0.0
    dose_noise: Strength = 0.0
    metal: Strength = 0.0
    cutout: Share = 0.0
    cutout_count: Annotated[int, Ge(1), Setting(only_with=("augmentation.cutout",))] = 1
    style: Share = 0.0
    speckle: Strength = 0.0
    colour: Share = 0.0
    stain: Share = 0.0
    paste: Share = 0.0
    painting: Share = 0.0
    mixup: Strength = 0.0
    cutmix: Strength = 0.0
    left_right: Annotated[Axis | None, Setting(zero_counts=True)] = None
    quarter_turns: bool = False
    accidents: Annotated[
        Share,
        Setting(
            only_with=("augmentation.motion", "augmentation.ghosting", "augmentation.spikes", "augmentation.metal")
        ),
    ] = 0.1
    marks: Share = 0.0

    def __call__(
        self,
        images: Tensor,
        labels: Tensor | None,
        generators: Sequence[np.random.Generator],
        steps: Sequence[float],
        *,
        mirrored: Sequence[int] | None = (),
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """(batch, channels, *spatial) images and (batch, *spatial) labels, changed alike.

        steps:    length of a voxel per axis, so that a rotation is one in mm also where voxels are no cubes
        mirrored: value that a label takes where left and right change sides; None where they must not
        The third of the results, (batch,), says whose left and right have changed sides.
        Raises PlanError where an axis may be mirrored that must not be.
        """
        followed = None if labels is None else LabelMap(labels)
        images, followed, crossed = self.augment_with_target(images, followed, generators, steps, mirrored=mirrored)
        return images, None if followed is None else followed.labels, crossed

    def augment_with_target(
        self,
        images: Tensor,
        target: F | None,
        generators: Sequence[np.random.Generator],
        steps: Sequence[float],
        *,
        mirrored: Sequence[int] | None = (),
        others: Tensor | None = None,
        painter: Painter | None = None,
        scales: Sequence[ChannelScale] | None = None,
    ) -> tuple[Tensor, F | None, Tensor]:
        """The same with a target of any kind that follows the images.

        others:  (images, channels, *spatial) of which `style` takes amplitudes
        scales:  of each channel, by which `stain` knows the colours of a normalised image
        painter: paints the samples that `painting` chooses; without one they keep their images
        """
        self.check(mirrored, images.ndim - 2)
        draws = BatchDraws.from_generators(generators, len(KINDS))
        sizes = np.asarray(images.shape[2:]) * np.asarray(steps)
        with exact_products():
            images, target, crossed = self._turn(images, target, draws, sizes, mirrored or ())
            images, target = self._warp(images, target, draws, sizes)
            images, target = self._paste(images, target, draws)
            images = self._paint(images, target, draws, painter)
            options: dict[str, dict[str, Any]]
            options = {"motion": {"steps": np.asarray(steps) / min(steps)}, "cutout": {"count": self.cutout_count}}
            options["style"] = {"others": others}
            options["stain"] = {"scales": scales}
            for name, change in INTENSITY.items():
                befallen = list(self._befallen(name, draws))
                if befallen:
                    chosen, generators_chosen = zip(*befallen, strict=True)
                    some = images[list(chosen)]
                    strength = getattr(self, name)
                    changed = change(some, strength, generators_chosen, **options.get(name, {}))
                    images = augment_following.replace_samples(images, chosen, changed)
        return images, target, crossed

    def mistaken(self, numbers: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """(batch, *spatial) numbers of labels that a network before has marked, as it may mark unlike cases.

        After `augment_with_target`: what is sampled here changes no other draw.
        """
        if not self.marks:
            return numbers
        draws = [random_draws.child_generator(int(rng.integers(2**63)), len(KINDS)) for rng in generators]
        return torch.stack([mismark_labels(one, self.marks, rng) for one, rng in zip(numbers, draws, strict=True)])

    def mix(self, images: Tensor, generators: Sequence[np.random.Generator]) -> tuple[Tensor, Tensor | None, float]:
        """Whole images mixed in pairs: the images, whom each was mixed with, and the share that stays its own.

        The loss is share * loss(targets) + (1 - share) * loss(targets[partner]); the partner is None where nothing is
        mixed. The draws are the first sample's: a batch is mixed as one.
        """
        mixes = [
            (mix, alpha)
            for mix, alpha in ((_augment_intensity.mixup, self.mixup), (_augment_intensity.cutmix, self.cutmix))
            if alpha > 0
        ]
        if not mixes or len(images) < 2:
            return images, None, 1.0
        rng = random_draws.child_generator(int(generators[0].integers(2**63)), len(KINDS))
        mix, alpha = mixes[int(rng.integers(len(mixes)))]
        partner = _augment_intensity.mixing_partners(len(images), rng, images)
        changed, share = mix(images, partner, alpha, rng)
        return changed, partner, share

    @property
    def mixes(self) -> bool:
        """Whether whole images are mixed in pairs."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def parts(self) -> tuple[Augmentation, Augmentation]:
        """The changes that move voxels, and those of intensities, apart."""
        of_labels = ("paste", "painting")
        still: dict[str, Any] = {**dict.fromkeys((*SPATIAL, *of_labels), 0.0), "flips": (), "quarter_turns": False}
        plain: dict[str, Any] = dict.fromkeys((*INTENSITY, *of_labels), 0.0)
        return replace(self, **plain), replace(self, **still)

    @property
    def strong(self) -> Augmentation:
        """Its changes of intensities, all of which befall every sample but accidents; and a covered box in each."""
        _, changing = self.parts
        return replace(changing, probability=1.0, cutout=max(self.cutout, COVERED))

    def check(self, mirrored: Sequence[int] | None, ndim: int) -> None:
        """Raises PlanError where an axis does not exist, or `flips` would, or may, put a label on the wrong side."""
        orient.check_flips("augmentation", self.flips, self.left_right, mirrored=mirrored, ndim=ndim)

    def _befallen(self, name: str, draws: BatchDraws) -> Iterator[tuple[int, np.random.Generator]]:
        """The samples that a kind of change befalls, each with the generator for it."""
        if getattr(self, name) > 0:
            kind = KINDS.index(name)
            chosen = draws.chosen_samples(kind, self.accidents if name in ACCIDENTS else self.probability)
            yield from zip(chosen.tolist(), draws.generators(kind, chosen), strict=True)

    def _turn(
        self, images: Tensor, target: F | None, draws: BatchDraws, sizes: Floats, mirrored: Sequence[int]
    ) -> tuple[Tensor, F | None, Tensor]:
        """Mirrored and turned by quarters: nothing is read in between."""
        ndim = images.ndim - 2
        everyone = range(len(images))
        sides = np.zeros((len(images), ndim), dtype=bool)
        if self.flips:
            sides |= np.stack([rng.random(ndim) < 0.5 for rng in draws.generators(KINDS.index("flips"), everyone)])
            sides &= np.isin(np.arange(ndim), self.flips)
        across = sides[:, self.left_right] if self.left_right is not None else np.zeros(len(images), dtype=bool)
        crossed = torch.as_tensor(across, device=images.device)
        images = augment_spatial.flip_samples(images, sides)
        target = None if target is None else target.flip(sides)
        if target is not None and across.any() and mirrored:
            target = target.sides_changed(crossed, mirrored)
        if self.quarter_turns:
            turns = np.array([rng.integers(4) for rng in draws.generators(KINDS.index("quarter_turns"), everyone)])
            # A plane that is no square fits onto itself only by half turns.
            square = images.shape[2] == images.shape[3] and math.isclose(sizes[0], sizes[1], rel_tol=0.01)
            turns = turns if square else turns // 2 * 2
            images = augment_spatial.turn_samples(images, turns, ndim)
            target = None if target is None else target.turn(turns)
        return images, target, crossed

    def _warp(self, images: Tensor, target: F | None, draws: BatchDraws, sizes: Floats) -> tuple[Tensor, F | None]:
        """Read once through the grid of all that reads between voxels; samples without it stay to the bit."""
        maps, shifts, points = self._sample_placement(draws, sizes / np.asarray(images.shape[2:]))
        moved = (
            (maps != np.eye(len(sizes))).any(axis=(1, 2))
            | shifts.any(axis=1)
            | points.any(axis=tuple(range(1, points.ndim)))
        )
        chosen = np.flatnonzero(moved).tolist()
        if not chosen:
            return images, target
        grid = augment_spatial.sampling_grid(maps[chosen], shifts[chosen], sizes, images)
        if points[chosen].any():
            grid = augment_spatial.bend_grid(grid, points[chosen])
        images = augment_following.replace_samples(
            images, chosen, augment_spatial.sample_intensities(images[chosen], grid)
        )
        if target is not None:
            target = target.warp(Warp(chosen, grid, maps[chosen], shifts[chosen], points[chosen], sizes))
        return images, target

    def _paste(self, images: Tensor, target: F | None, draws: BatchDraws) -> tuple[Tensor, F | None]:
        """A structure of the next image of the batch that has one, with a random margin, and its labels."""
        if not self.paste or len(images) < 2:
            return images, target
        if type(target) is not LabelMap:
            problem = "a structure is pasted with its mask, and this kind of problem has other references"
            raise PlanError(problem, "augmentation.paste", "Give 0")
        kind = KINDS.index("paste")
        labels = target.labels
        chosen = draws.chosen_samples(kind, self.paste)
        regions = torch.zeros_like(labels, dtype=torch.bool)
        partner = list(range(len(images)))
        for n, rng in zip(chosen.tolist(), draws.generators(kind, chosen), strict=True):
            partner[n] = int(rng.integers(1, len(images)) + n) % len(images)
            own = labels[partner[n]]
            values = torch.unique(own[own > 0]).tolist()
            if values:
                value = values[int(rng.integers(len(values)))]
                size = int(rng.integers(MOST_VOXELS + 1))
                regions[n] = grow_mask(own == value, size) if size else own == value
        source = torch.as_tensor(partner, device=images.device)
        moved = pasting.paste_voxels(labels[:, None], labels[source][:, None], regions)[:, 0]
        return pasting.paste_voxels(images, images[source], regions), replace(target, labels=moved)

    def _paint(self, images: Tensor, target: F | None, draws: BatchDraws, painter: Painter | None) -> Tensor:
        """Samples painted from their labels, where these have come to lie."""
        kind = KINDS.index("painting")
        chosen = draws.chosen_samples(kind, self.painting).tolist()
        if painter is None or not chosen:
            return images
        if type(target) is not LabelMap:
            problem = "images are painted from label maps, and this kind of problem has other references"
            raise PlanError(problem, "augmentation.painting", "Give 0")
        painted = painter(images[chosen], target.labels[chosen], draws.generators(kind, chosen))
        return augment_following.replace_samples(images, chosen, painted.to(images.dtype))

    def _sample_placement(self, draws: BatchDraws, steps: Floats) -> tuple[Floats, Floats, Floats]:
        """Linear map, shift and control points of each sample."""
        count = len(draws.keys)
        ndim = len(steps)
        maps = np.tile(np.eye(ndim), (count, 1, 1))
        shifts = np.zeros((count, ndim))
        points = np.zeros((count, ndim, *[POINTS] * ndim))
        still = augment_spatial.thick_axes(steps)
        for n, rng in self._befallen("rotation", draws):
            angles = np.deg2rad(self.rotation) * rng.uniform(-1, 1, size=3)
            turned = np.where(augment_spatial.out_of_plane_turns(still), 0, angles)
            maps[n] = augment_spatial.rotation_matrix(turned, ndim)
        for n, rng in self._befallen("scale", draws):
            maps[n] = maps[n] @ np.diag(np.where(still, 1, 1 + self.scale * rng.uniform(-1, 1)))
        for n, rng in self._befallen("shear", draws):
            maps[n] = maps[n] @ augment_spatial.shear_matrix(self.shear, still, rng)
        for n, rng in self._befallen("shift", draws):
            shifts[n] = np.where(still, 0, self.shift * rng.uniform(-1, 1, size=ndim))
        for n, rng in self._befallen("elastic", draws):
            points[n] = augment_spatial.weaken_folds(rng.normal(scale=self.elastic, size=points.shape[1:]))
            points[n, still] = 0
        return maps, shifts, points


def mismark_labels(numbers: Tensor, chance: float, rng: np.random.Generator) -> Tensor:
    """(*spatial) numbers of labels, each of which may have grown, shrunk or gone.

    What shrinks leaves background; what grows does so over background alone, so that no other label is lost. A stage
    that is trained so does not trust the stage before it blindly, as in the cascade of nnU-Net: Isensee et al., Nature
    Methods 2021, doi:10.1038/s41592-020-01008-z.
    """
    changed = numbers.clone()
    for number in torch.unique(numbers[numbers > 0]).tolist():
        change = rng.random()
        size = int(rng.integers(1, MOST_VOXELS + 1))
        forgotten = rng.random()
        grows = rng.random()
        if forgotten < chance / RARER:
            changed[numbers == number] = 0
        elif change < chance and grows < 0.5:
            changed[grow_mask(numbers == number, size) & (numbers == 0) & (changed == 0)] = number
        elif change < chance:
            changed[(numbers == number) & grow_mask(numbers != number, size)] = 0
    return changed


def grow_mask(mask: Tensor, voxels: int) -> Tensor:
    """(*spatial) a structure with all that lies within so many voxels of it along each axis."""
    pools = {1: torch.nn.functional.max_pool1d, 2: torch.nn.functional.max_pool2d, 3: torch.nn.functional.max_pool3d}
    pooled: Tensor = pools[mask.ndim](mask[None, None].float(), 2 * voxels + 1, stride=1, padding=voxels)
    return pooled[0, 0] > 0.5
