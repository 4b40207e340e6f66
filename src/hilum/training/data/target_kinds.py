"""Kinds of target: each is prepared, cut, batched and moved as its image is. A new kind is one class here.

No other part of the training asks of which kind a target is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import torch
from hilum.runtime import Preprocessing
from hilum.runtime.cascade import LabelSource
from hilum.runtime.preprocessing.protocol import GridTrace
from hilum.transforms import augment_spatial, orient, random_draws
from hilum.transforms.augment import Augmentation, Painter
from hilum.transforms.augment_following import Corners, Following, LabelMap, NumberMap, ObjectMap, Warp
from hilum.values import Array, Deferred, Dense, DenseImage, Head, Region, Target, Vector, slabs
from hilum.values.prediction import KNOWN, Boxes, Instances

if TYPE_CHECKING:
    from torch import Tensor

    from hilum.transforms.intensity import ChannelScale


# Positions of each structure that are kept for centring patches; nnU-Net keeps as many. Of a thousand the same few
# places of a large organ would be learnt.
POSITIONS = 10_000
# Voxels of a target that are looked through together.
SLAB_VOXELS = 2**24
# Images and targets of a batch.
Moved = tuple["Tensor", Any]
Positions = Mapping[int | str, NDArray[np.signedinteger[Any]]]


class TargetKind(Protocol):
    """A kind of target: its steps on the way into a batch."""

    @property
    def name(self) -> str:
        """The name under which it is stored."""

    @property
    def large(self) -> bool:
        """Whether it is stored in chunks, of which a part is read without the rest."""

    @property
    def mixes(self) -> bool:
        """Whether images can be mixed in pairs, with losses of both targets."""

    @property
    def parts(self) -> Mapping[str, TargetKind]:
        """The kinds that it joins, by the name of their part; empty for a single kind."""

    def prepare(self, target: Target, preprocessing: Preprocessing, trace: GridTrace) -> Any:
        """The target on the network's grid."""

    def to_arrays(self, data: Any) -> Mapping[str, tuple[bool, Array]]:
        """{name: (whether it is large, array)} of what was prepared; a target that is one array has no name."""

    def from_arrays(self, arrays: Mapping[str, Any]) -> Any:
        """The inverse of `to_arrays`."""

    def positions(self, target: Target, data: Any, shape: Sequence[int]) -> Positions:
        """{class from 1: (up to POSITIONS, axes) voxels where it is}, for centring patches; (0, axes) where nowhere.

        Of a target of several parts the keys are <part>_<class>.
        """

    def lost(self, target: Target, data: Any) -> tuple[str, ...]:
        """The classes, named as by `positions`, that the target shows and what was prepared of it does not."""

    def cut_region(self, data: Any, region: Region) -> Any:
        """The part of the target in a region of the network's grid."""

    def blank(self, targets: Sequence[Any], patch: Sequence[int]) -> Any:
        """A target for what is not known, in the shape that all have in a batch. targets: of all cases"""

    def alike(self, targets: Sequence[Any], blank: Any) -> Sequence[Any]:
        """Targets of one shape, so that they can be stacked."""

    def following(self, targets: Any, spatial: tuple[int, ...], movement: SampledMovement) -> Following:
        """A batch of targets as what follows its images."""

    def coarse(self, targets: Any, spatial: Sequence[int], wanted: Sequence[int]) -> Any:
        """Targets of images of one size, for outputs of another."""


@dataclass(frozen=True)
class SampledMovement:
    """The movement of a batch that was sampled for its augmentation.

    generators: one a sample
    steps:      mm of a voxel per axis
    mirrored:   what labels become in a mirror
    outside:    the value of a label map beyond the image; None where its edge goes on
    parts:      the same of each part of a task that is made of tasks
    """

    generators: Sequence[np.random.Generator]
    steps: Sequence[float]
    mirrored: Sequence[int] | None
    outside: int | None = None
    parts: Mapping[str, SampledMovement] = field(default_factory=dict)


def move_batch(
    kind: TargetKind,
    augmentation: Augmentation,
    images: Tensor,
    targets: Any,
    movement: SampledMovement,
    *,
    marked: bool = False,
    taught: NumberMap | None = None,
    others: Tensor | None = None,
    painter: Painter | None = None,
    scales: Sequence[ChannelScale] | None = None,
) -> Moved:
    """(batch, channels, *patch) images and their targets, changed alike.

    marked: whether the last channel holds numbers of labels from a stage before: they move as labels do, their
            intensities stay as they are, and now and then they are made worse
    taught: answers of another model, which follow too: the targets are then a pair with these
    others, painter, scales: as in `Augmentation.augment_with_target`
    """
    following: Following = kind.following(targets, tuple(images.shape[2:]), movement)
    if taught is not None:
        following = JointFollowing({"first": following, "second": taught})
    if marked:
        marks = LabelMap(images[:, -1].to(torch.uint8))
        images = images[:, :-1]
        following = JointFollowing({"first": following, "second": marks})
    images, followed, _ = augmentation.augment_with_target(
        images,
        following,
        movement.generators,
        movement.steps,
        mirrored=movement.mirrored,
        others=others,
        painter=painter,
        scales=scales,
    )
    assert followed is not None  # noqa: S101 - it was given
    if marked:
        assert isinstance(followed, JointFollowing)  # noqa: S101 - they were given so
        numbers = augmentation.mistaken(followed.parts["second"].targets, movement.generators)
        images = torch.cat([images, numbers[:, None].to(images.dtype)], dim=1)
        followed = followed.parts["first"]
    return images, followed.targets


class OneArray:
    """A target that is stored as the array that it is."""

    large: ClassVar[bool] = False
    parts: ClassVar[Mapping[str, TargetKind]] = MappingProxyType({})

    def to_arrays(self, data: Array) -> Mapping[str, tuple[bool, Array]]:
        """The arrays by name, with whether each is large."""
        return {"": (self.large, data)}

    def from_arrays(self, arrays: Mapping[str, Any]) -> Any:
        """The inverse of `to_arrays`."""
        return arrays[""]

    def positions(self, target: Target, data: Any, shape: Sequence[int]) -> Positions:
        """Positions on which patches are centred: none, as every place teaches."""
        return {}

    def alike(self, targets: Sequence[Any], blank: Any) -> Sequence[Any]:
        """Targets of one shape, as they are."""
        return targets

    def lost(self, target: Target, data: Any) -> tuple[str, ...]:
        """The classes that are not there any more: none, as numbers and boxes are never too small for a grid."""
        return ()


@dataclass(frozen=True)
class VectorTargets(OneArray):
    """() or (size,) numbers that hold for the whole image."""

    name: ClassVar[str] = "vector"
    mixes: ClassVar[bool] = True

    def prepare(self, target: Target, preprocessing: Preprocessing, trace: GridTrace) -> Array:
        """The target on the network's grid."""
        return cast("Array", target.data)

    def cut_region(self, data: Array, region: Region) -> Array:
        """The part of the target in a region."""
        return np.asarray(data)

    def blank(self, targets: Sequence[Array], patch: Sequence[int]) -> Array:
        """An empty target in the shape of a batch."""
        return np.zeros_like(np.asarray(targets[0]))

    def following(self, targets: Tensor, spatial: tuple[int, ...], movement: SampledMovement) -> Following:
        """The targets as what moves with the images."""
        return Unmoved(targets)

    def coarse(self, targets: Tensor, spatial: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """Targets for outputs of another size."""
        return targets


@dataclass(frozen=True)
class NoTargets(VectorTargets):
    """A zero in place of a target: the case has none, or nobody may see it."""

    name: ClassVar[str] = "none"
    mixes: ClassVar[bool] = False


@dataclass(frozen=True, eq=False)
class Unmoved:
    """(batch,) or (batch, size) targets of whole images: only left and right can change in them."""

    targets: Tensor

    def flip(self, mirrored: NDArray[np.bool_]) -> Unmoved:
        """After the images were flipped."""
        return self

    def sides_changed(self, crossed: Tensor, mirrored: Sequence[int]) -> Unmoved:
        """After left and right changed in the images."""
        return Unmoved(change_vector_sides(self.targets, crossed, mirrored))

    def turn(self, turns: NDArray[np.intp]) -> Unmoved:
        """After the images were turned."""
        return self

    def warp(self, warp: Warp) -> Unmoved:
        """After the images were warped."""
        return self


@dataclass(frozen=True)
class LabelTargets(OneArray):
    """(*spatial) label values."""

    name: ClassVar[str] = "dense"
    large: ClassVar[bool] = True
    mixes: ClassVar[bool] = False

    def prepare(self, target: Target, preprocessing: Preprocessing, trace: GridTrace) -> Array | LabelSource:
        """The target on the network's grid."""
        if isinstance(target.data, Deferred):
            return LabelSource(target.data, trace, target.outside)
        return preprocessing.labels(target.data, trace, target.outside)

    def positions(self, target: Target, data: Array, shape: Sequence[int]) -> Positions:
        """Positions on which patches are centred."""
        return {n: _some(data, values, n) for n, values in enumerate(_groups(target), start=1)}

    def lost(self, target: Target, data: Array) -> tuple[str, ...]:
        """The classes without a voxel on the network's grid, though they have some on the image's."""
        before, after = (slabs.label_voxels(one).keys() for one in (target.data, data))
        every = enumerate(_groups(target), start=1)
        return tuple(str(n) for n, values in every if not before.isdisjoint(values) and after.isdisjoint(values))

    def cut_region(self, data: Array, region: Region) -> Array:
        """The part of the target in a region."""
        return np.asarray(data[region] if region else data)

    def blank(self, targets: Sequence[Array], patch: Sequence[int]) -> Array:
        """An empty target in the shape of a batch."""
        return np.zeros(tuple(patch), dtype=targets[0].dtype)

    def following(self, targets: Tensor, spatial: tuple[int, ...], movement: SampledMovement) -> Following:
        """The targets as what moves with the images."""
        return LabelMap(targets, movement.outside)

    def coarse(self, targets: Tensor, spatial: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """Voxel by voxel, so that labels stay labels."""
        if tuple(targets.shape[1:]) == tuple(wanted):
            return targets
        coarser = torch.nn.functional.interpolate(targets[:, None].float(), size=tuple(wanted), mode="nearest-exact")
        return coarser[:, 0].to(targets.dtype)


@dataclass(frozen=True)
class ImageTargets(OneArray):
    """(channels, *spatial) float32 numbers of an image on its input's grid, NaN where nothing was measured."""

    name: ClassVar[str] = "image"
    large: ClassVar[bool] = True
    mixes: ClassVar[bool] = False

    def prepare(self, target: Target, preprocessing: Preprocessing, trace: GridTrace) -> Array:
        """The target on the network's grid, on the scale that its head has of the input."""
        head = cast(DenseImage, target.head)
        return np.asarray(head.turn_from_axes(preprocessing.numbers(target.data, trace), trace))

    def cut_region(self, data: Array, region: Region) -> Array:
        """The part of the target in a region."""
        return np.asarray(data[(slice(None), *region)] if region else data)

    def blank(self, targets: Sequence[Array], patch: Sequence[int]) -> Array:
        """An empty target in the shape of a batch: nothing is known."""
        return np.full((targets[0].shape[0], *patch), np.nan, dtype=np.float32)

    def following(self, targets: Tensor, spatial: tuple[int, ...], movement: SampledMovement) -> Following:
        """The targets as what moves with the images."""
        return NumberMap(targets, tuple(range(targets.shape[1])))

    def coarse(self, targets: Tensor, spatial: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """The mean of what each coarser voxel holds; NaN where any of it is."""
        if tuple(targets.shape[2:]) == tuple(wanted):
            return targets
        return torch.nn.functional.interpolate(targets, size=tuple(wanted), mode="area")


@dataclass(frozen=True)
class InstanceTargets(LabelTargets):
    """(*spatial) int32 numbers of objects, 0 where there is none.

    What a network learns of them is made of the numbers after they have moved: a distance would not stay one.
    """

    name: ClassVar[str] = "instances"

    def prepare(self, target: Target, preprocessing: Preprocessing, trace: GridTrace) -> Array:
        """The target on the network's grid."""
        return preprocessing.labels(target.data, trace).astype(np.int32)

    def positions(self, target: Target, data: Array, shape: Sequence[int]) -> Positions:
        """Positions on which patches are centred."""
        return {1: _some(data, None, 1)}

    def lost(self, target: Target, data: Array) -> tuple[str, ...]:
        """The one class where no object is left."""
        return ("1",) if np.any(target.data) and not np.any(data) else ()

    def following(self, targets: Tensor, spatial: tuple[int, ...], movement: SampledMovement) -> Following:
        """The targets as what moves with the images."""
        return ObjectMap(targets)


@dataclass(frozen=True)
class BoxTargets(OneArray):
    """(n, 1 + 2 * axes) float32: class, where it begins on every axis, where it ends; edges in voxels.

    In a batch all have the same number of rows; those of class -1 are none, and those of class -2 regions to be
    ignored. A box belongs to a patch that holds its centre, and keeps what of it lies outside, so that its size stays
    known; a region belongs to every patch that it reaches into.
    """

    name: ClassVar[str] = "boxes"
    mixes: ClassVar[bool] = False

    def prepare(self, target: Target, preprocessing: Preprocessing, trace: GridTrace) -> Array:
        """The target on the network's grid."""
        rows = np.asarray(target.data, dtype=np.float64)
        return np.concatenate([rows[:, :1], trace.boxes(rows[:, 1:])], axis=1).astype(np.float32)

    def positions(self, target: Target, data: Array, shape: Sequence[int]) -> Positions:
        """Positions on which patches are centred."""
        centres = np.clip(np.floor(_centres(data)), 0, np.asarray(shape) - 1).astype(np.int32)
        return {one + 1: _sample_positions(centres[data[:, 0] == one], one + 1) for one in range(target.head.count)}

    def cut_region(self, data: Array, region: Region) -> Array:
        """The part of the target in a region."""
        if not region:
            return np.asarray(data)
        low, high = (np.array([getattr(part, end) for part in region]) for end in ("start", "stop"))
        centres = _centres(data)
        axes = len(region)
        is_held = ((centres >= low) & (centres < high)).all(axis=1)
        is_reached = ((data[:, 1 : 1 + axes] < high) & (data[:, 1 + axes :] > low)).all(axis=1)
        inside = np.asarray(data)[np.where(data[:, 0] == -2, is_reached, is_held)]
        return cast("Array", inside - np.array([0, *low, *low], dtype=inside.dtype))

    def blank(self, targets: Sequence[Array], patch: Sequence[int]) -> Array:
        """An empty target in the shape of a batch."""
        most = max(one.shape[0] for one in targets)
        return np.full((most, targets[0].shape[1]), -1, dtype=targets[0].dtype)

    def alike(self, targets: Sequence[Array], blank: Array) -> Sequence[Array]:
        """Targets of one shape."""
        return [np.concatenate([one, blank[len(one) :]]) for one in targets]

    def following(self, targets: Tensor, spatial: tuple[int, ...], movement: SampledMovement) -> Following:
        """The targets as what moves with the images."""
        return Corners(targets, spatial)

    def coarse(self, targets: Tensor, spatial: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """Targets for outputs of another size."""
        factors = [new / old for new, old in zip(wanted, spatial, strict=True)]
        return targets * targets.new_tensor([1.0, *factors, *factors])


def _groups(target: Target) -> tuple[tuple[int, ...], ...]:
    """The values of each structure of a label map."""
    return target.structures or tuple((channel,) for channel in range(1, target.head.count))


KINDS: Mapping[type, TargetKind] = {
    Vector: VectorTargets(),
    Dense: LabelTargets(),
    DenseImage: ImageTargets(),
    Boxes: BoxTargets(),
    Instances: InstanceTargets(),
    type(None): NoTargets(),
}


def kind_for_axes(ndim: int, axes: int) -> TargetKind:
    """The kind of an unnamed target of `ndim` axes: a value for every voxel of an image of `axes`, or for the whole."""
    return KINDS[Dense] if ndim == axes else KINDS[Vector]


def change_vector_sides(targets: Tensor, crossed: Tensor, mirrored: Sequence[int] | None) -> Tensor:
    """(batch,) or (batch, size) targets, where left and right have changed sides in the image.

    mirrored: by channel of the head, which may have more of them than the target, behind its own
    """
    if mirrored is None or not orient.names_sides(mirrored) or not bool(crossed.any()):
        return targets
    if not targets.shape[1:]:
        return augment_spatial.permute_sides(targets, crossed, mirrored)
    return torch.where(crossed[:, None], targets[:, list(mirrored)[: targets.shape[1]]], targets)


def _some(data: Array, values: Sequence[int] | None, channel: int) -> NDArray[np.signedinteger[Any]]:
    """(up to POSITIONS, axes) of the places of these values, of None all above 0.

    A few planes at a time are looked through: of a large organ only those kept become coordinates.
    """
    step = max(1, SLAB_VOXELS // math.prod(data.shape[1:]))

    def inside(start: int) -> NDArray[np.bool_]:
        """(planes, *rest) where it is, from this plane on."""
        part = np.asarray(data[start : start + step])
        return np.asarray(part > 0 if values is None else np.isin(part, values))

    starts = range(0, data.shape[0], step)
    ends = np.cumsum([np.count_nonzero(inside(start)) for start in starts])
    ranks = np.arange(ends[-1]) if ends[-1] <= POSITIONS else _kept_indices(int(ends[-1]), channel)
    places = np.empty(len(ranks), np.int64)
    for start, first, end in zip(starts, [0, *ends], ends, strict=False):
        if (here := (ranks >= first) & (ranks < end)).any():
            places[here] = np.flatnonzero(inside(start))[ranks[here] - first] + start * math.prod(data.shape[1:])
    return _small(np.stack(np.unravel_index(places, data.shape), axis=1))


def _sample_positions(positions: NDArray[Any], channel: int) -> NDArray[np.signedinteger[Any]]:
    """(up to POSITIONS, axes) of all positions."""
    return _small(positions[_kept_indices(len(positions), channel)])


def _kept_indices(count: int, channel: int) -> Any:
    """Indices of the positions that are kept: all, or as many as may be."""
    if count <= POSITIONS:
        return slice(None)
    return random_draws.sample_generator(0, 0, count, channel).choice(count, POSITIONS, replace=False)


def _small(where: NDArray[Any]) -> NDArray[np.signedinteger[Any]]:
    """Positions in two bytes where they fit: those of all cases are held."""
    fits = np.abs(where).max(initial=0) < np.iinfo(np.int16).max
    return where.astype(np.int16) if fits else where.astype(np.int32)


def _centres(data: Array) -> NDArray[Any]:
    axes = (data.shape[1] - 1) // 2
    return np.asarray((data[:, 1 : 1 + axes] + data[:, 1 + axes :]) / 2)


@dataclass(frozen=True)
class JointTargets:
    """{part: its target}, without the parts of which nothing is known about the case.

    In a batch every part has a target of every sample, and `KNOWN`, (batch, parts), says which of them are one.
    """

    parts: Mapping[str, TargetKind]
    name: ClassVar[str] = "joint"
    mixes: ClassVar[bool] = False

    @property
    def large(self) -> bool:
        """Whether any part is."""
        return any(kind.large for kind in self.parts.values())

    def prepare(self, target: Target, preprocessing: Preprocessing, trace: GridTrace) -> Any:
        """The target on the network's grid."""
        return {part: self.parts[part].prepare(one, preprocessing, trace) for part, one in target.data.items()}

    def to_arrays(self, data: Any) -> Mapping[str, tuple[bool, Array]]:
        """The arrays by name, with whether each is large."""
        return {part: self.parts[part].to_arrays(one)[""] for part, one in data.items()}

    def from_arrays(self, arrays: Mapping[str, Any]) -> Any:
        """The inverse of `to_arrays`."""
        return {part: arrays[part] for part in self.parts if part in arrays}

    def positions(self, target: Target, data: Any, shape: Sequence[int]) -> Positions:
        """Positions of all known parts, by names that are the same in cases with other known parts."""
        by_part = {part: self.parts[part].positions(own, data[part], shape) for part, own in target.data.items()}
        return {f"{part}_{name}": where for part, own in by_part.items() for name, where in own.items()}

    def lost(self, target: Target, data: Any) -> tuple[str, ...]:
        """The lost classes of all known parts."""
        by_part = {part: self.parts[part].lost(own, data[part]) for part, own in target.data.items()}
        return tuple(f"{part}_{name}" for part, own in by_part.items() for name in own)

    def cut_region(self, data: Any, region: Region) -> Any:
        """The part of the target in a region."""
        return {part: self.parts[part].cut_region(one, region) for part, one in data.items()}

    def blank(self, targets: Sequence[Any], patch: Sequence[int]) -> Any:
        """An empty target in the shape of a batch."""
        by_part = {part: [one[part] for one in targets if part in one] for part in self.parts}
        return {part: kind.blank(by_part[part], patch) for part, kind in self.parts.items() if by_part[part]}

    def alike(self, targets: Sequence[Any], blank: Any) -> Sequence[Any]:
        """Targets of one shape."""
        filled = {
            part: self.parts[part].alike([one.get(part, nothing) for one in targets], nothing)
            for part, nothing in blank.items()
        }
        present = [np.array([part in one for part in self.parts]) for one in targets]
        return [{**{part: each[n] for part, each in filled.items()}, KNOWN: one} for n, one in enumerate(present)]

    def following(self, targets: Any, spatial: tuple[int, ...], movement: SampledMovement) -> Following:
        """The targets as what moves with the images."""
        parts = {
            part: self.parts[part].following(one, spatial, movement.parts[part])
            for part, one in targets.items()
            if part != KNOWN
        }
        return JointFollowing(parts, {part: movement.parts[part].mirrored for part in parts}, targets[KNOWN])

    def coarse(self, targets: Any, spatial: Sequence[int], wanted: Sequence[int]) -> Any:
        """Targets for outputs of another size."""
        coarser = {
            part: self.parts[part].coarse(one, spatial, wanted) for part, one in targets.items() if part != KNOWN
        }
        return {**coarser, KNOWN: targets[KNOWN]}


@dataclass(frozen=True, eq=False)
class JointFollowing:
    """Batches of targets, each of which follows the same images in its own way: of the parts of a task, or any other.

    mirrored: {part: what its labels become when left and right change sides}; None: as in the images
    known:    (batch, parts); None where they are the parts of no task
    """

    parts: Mapping[str, Following]
    mirrored: Mapping[str, Sequence[int] | None] | None = None
    known: Tensor | None = None

    @property
    def targets(self) -> Any:
        """The batches as they are now: one after the other, of the parts of a task by their names."""
        targets = {part: one.targets for part, one in self.parts.items()}
        return tuple(targets.values()) if self.known is None else {**targets, KNOWN: self.known}

    def flip(self, mirrored: NDArray[np.bool_]) -> JointFollowing:
        """After the images were flipped."""
        return self._change_parts(lambda part, following: following.flip(mirrored))

    def sides_changed(self, crossed: Tensor, mirrored: Sequence[int]) -> JointFollowing:
        """After left and right changed in the images."""
        own = dict.fromkeys(self.parts, mirrored) if self.mirrored is None else self.mirrored
        return self._change_parts(lambda part, following: following.sides_changed(crossed, own[part] or ()))

    def turn(self, turns: NDArray[np.intp]) -> JointFollowing:
        """After the images were turned."""
        return self._change_parts(lambda part, following: following.turn(turns))

    def warp(self, warp: Warp) -> JointFollowing:
        """After the images were warped."""
        return self._change_parts(lambda part, following: following.warp(warp))

    def _change_parts(self, change: Callable[[str, Following], Following]) -> JointFollowing:
        return replace(self, parts={part: change(part, one) for part, one in self.parts.items()})


def target_kind(head: Head) -> TargetKind:
    """The kind of a target for this head; a head from elsewhere has that of the one that it is derived from."""
    if head.parts:
        return JointTargets({part: target_kind(own) for part, own in head.parts.items()})
    return next(KINDS[own] for own in type(head).__mro__ if own in KINDS)


def common_kind(kinds: Sequence[TargetKind]) -> TargetKind:
    """The kind of all cases: each knows of several parts only the kinds that it has."""
    parts = {part: own for kind in kinds for part, own in kind.parts.items()}
    return JointTargets(dict(sorted(parts.items()))) if parts else kinds[0]


def kind_names(kind: TargetKind) -> dict[str, str]:
    """{part: the name of its kind} under which a target is stored; the part of a single kind has no name."""
    return {part: own.name for part, own in kind.parts.items()} or {"": kind.name}


def kind_from_names(names: Mapping[str, str]) -> TargetKind:
    """The inverse of `kind_names`."""
    parts = {part: next(kind for kind in KINDS.values() if kind.name == name) for part, name in names.items()}
    return parts[""] if "" in parts else JointTargets(parts)
