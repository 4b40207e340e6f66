"""Targets of several parts, joined: each is cut, moved and batched as its own kind is, and some may be missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from isocenter.runtime import Preprocessing, Trace
from isocenter.training.data.targets import KINDS, Drawn, Kind, Positions
from isocenter.transforms import Following, Warp
from isocenter.values import KNOWN, Array, Head, Region, Target

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class JointTargets:
    """{part: its target}, without the parts of which nothing is known about the case.

    In a batch every part has a target of every sample, and `KNOWN`, (batch, parts), says which of them are one.
    """

    parts: Mapping[str, Kind]
    name: ClassVar[str] = "joint"
    mixes: ClassVar[bool] = False

    @property
    def large(self) -> bool:
        """Whether any part is."""
        return any(kind.large for kind in self.parts.values())

    def prepared(self, target: Target, preprocessing: Preprocessing, trace: Trace) -> Any:
        """The target on the network's grid."""
        return {part: self.parts[part].prepared(one, preprocessing, trace) for part, one in target.data.items()}

    def stored(self, data: Any) -> Mapping[str, tuple[bool, Array]]:
        """The arrays by name, with whether each is large."""
        return {part: self.parts[part].stored(one)[""] for part, one in data.items()}

    def opened(self, arrays: Mapping[str, Any]) -> Any:
        """The inverse of `stored`."""
        return {part: arrays[part] for part in self.parts if part in arrays}

    def positions(self, target: Target, data: Any, shape: Sequence[int]) -> Positions:
        """Positions of all known parts, by names that are the same in cases with other known parts."""
        by_part = {part: self.parts[part].positions(own, data[part], shape) for part, own in target.data.items()}
        return {f"{part}_{name}": where for part, own in by_part.items() for name, where in own.items()}

    def lost(self, target: Target, data: Any) -> tuple[str, ...]:
        """The lost classes of all known parts."""
        by_part = {part: self.parts[part].lost(own, data[part]) for part, own in target.data.items()}
        return tuple(f"{part}_{name}" for part, own in by_part.items() for name in own)

    def cut(self, data: Any, region: Region) -> Any:
        """The part of the target in a region."""
        return {part: self.parts[part].cut(one, region) for part, one in data.items()}

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

    def following(self, targets: Any, spatial: tuple[int, ...], drawn: Drawn) -> Following:
        """The targets as what moves with the images."""
        parts = {
            part: self.parts[part].following(one, spatial, drawn.parts[part])
            for part, one in targets.items()
            if part != KNOWN
        }
        return JointFollowing(parts, {part: drawn.parts[part].mirrored for part in parts}, targets[KNOWN])

    def coarse(self, targets: Any, spatial: Sequence[int], wanted: Sequence[int]) -> Any:
        """Targets for outputs of another size."""
        coarser = {
            part: self.parts[part].coarse(one, spatial, wanted) for part, one in targets.items() if part != KNOWN
        }
        return {**coarser, KNOWN: targets[KNOWN]}


@dataclass(frozen=True, eq=False)
class JointFollowing:
    """The targets of several parts, each of which follows the images in its own way.

    mirrored: {part: what its labels become when left and right change sides}
    """

    parts: Mapping[str, Following]
    mirrored: Mapping[str, Sequence[int] | None]
    known: Tensor

    @property
    def targets(self) -> Any:
        """The batch as it is now."""
        return {**{part: one.targets for part, one in self.parts.items()}, KNOWN: self.known}

    def flipped(self, mirrored: NDArray[np.bool_]) -> JointFollowing:
        """After the images were flipped."""
        return self._each(lambda part, following: following.flipped(mirrored))

    def sides_changed(self, crossed: Tensor, mirrored: Sequence[int]) -> JointFollowing:
        """After left and right changed in the images."""
        return self._each(lambda part, following: following.sides_changed(crossed, self.mirrored[part] or ()))

    def turned(self, turns: NDArray[np.intp]) -> JointFollowing:
        """After the images were turned."""
        return self._each(lambda part, following: following.turned(turns))

    def warped(self, warp: Warp) -> JointFollowing:
        """After the images were warped."""
        return self._each(lambda part, following: following.warped(warp))

    def _each(self, change: Callable[[str, Following], Following]) -> JointFollowing:
        return replace(self, parts={part: change(part, one) for part, one in self.parts.items()})


def kind_of(head: Head) -> Kind:
    """The kind of a target for this head; a head from elsewhere has that of the one that it is derived from."""
    if head.parts:
        return JointTargets({part: kind_of(own) for part, own in head.parts.items()})
    return next(KINDS[own] for own in type(head).__mro__ if own in KINDS)


def kind_of_all(kinds: Sequence[Kind]) -> Kind:
    """The kind of all cases: each knows of several parts only the kinds that it has."""
    parts = {part: own for kind in kinds for part, own in kind.parts.items()}
    return JointTargets(dict(sorted(parts.items()))) if parts else kinds[0]


def kind_names(kind: Kind) -> dict[str, str]:
    """{part: the name of its kind} under which a target is stored; the part of a single kind has no name."""
    return {part: own.name for part, own in kind.parts.items()} or {"": kind.name}


def kind_named(names: Mapping[str, str]) -> Kind:
    """The inverse of `kind_names`."""
    parts = {part: next(kind for kind in KINDS.values() if kind.name == name) for part, name in names.items()}
    return parts[""] if "" in parts else JointTargets(parts)
