"""Targets of several parts as one: each is cut, moved and batched as its own kind is, and some may be missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from isocenter.runtime import Preprocessing, Trace
from isocenter.transforms import Following, Warp
from isocenter.values import KNOWN, Array, Region, Target

if TYPE_CHECKING:
    from torch import Tensor

    from isocenter.training.data.targets import Drawn, Kind, Positions

# Between the names of several kinds that are stored as one: part:kind+part:kind.
OF, AND = ":", "+"


@dataclass(frozen=True)
class Together:
    """{part: its target}, without the parts of which nothing is known about the case.

    In a batch every part has a target of every sample, and `KNOWN`, (batch, parts), says which of them are one.
    """

    kinds: Mapping[str, Kind]
    mixes: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return AND.join(f"{part}{OF}{kind.name}" for part, kind in self.kinds.items())

    @property
    def large(self) -> bool:
        return any(kind.large for kind in self.kinds.values())

    def prepared(self, target: Target, preprocessing: Preprocessing, trace: Trace) -> Any:
        return {part: self.kinds[part].prepared(one, preprocessing, trace) for part, one in target.data.items()}

    def stored(self, data: Any) -> Mapping[str, tuple[bool, Array]]:
        return {part: self.kinds[part].stored(one)[""] for part, one in data.items()}

    def opened(self, arrays: Mapping[str, Any]) -> Any:
        return {part: arrays[part] for part in self.kinds if part in arrays}

    def positions(self, target: Target, data: Any, shape: Sequence[int]) -> Positions:
        """Of all parts that are known, one after the other."""
        each = [self.kinds[part].positions(own, data[part], shape) for part, own in target.data.items()]
        return dict(enumerate((where for one in each for where in one.values()), start=1))

    def cut(self, data: Any, region: Region) -> Any:
        return {part: self.kinds[part].cut(one, region) for part, one in data.items()}

    def blank(self, targets: Sequence[Any], patch: Sequence[int]) -> Any:
        known = {part: [one[part] for one in targets if part in one] for part in self.kinds}
        return {part: kind.blank(known[part], patch) for part, kind in self.kinds.items() if known[part]}

    def alike(self, targets: Sequence[Any], blank: Any) -> Sequence[Any]:
        filled = {
            part: self.kinds[part].alike([one.get(part, nothing) for one in targets], nothing)
            for part, nothing in blank.items()
        }
        known = [np.array([part in one for part in self.kinds]) for one in targets]
        return [{**{part: each[n] for part, each in filled.items()}, KNOWN: one} for n, one in enumerate(known)]

    def following(self, targets: Any, spatial: tuple[int, ...], drawn: Drawn) -> Following:
        parts = {
            part: self.kinds[part].following(one, spatial, drawn.parts[part])
            for part, one in targets.items()
            if part != KNOWN
        }
        return AllOf(parts, {part: drawn.parts[part].mirrored for part in parts}, targets[KNOWN])

    def coarse(self, targets: Any, spatial: Sequence[int], wanted: Sequence[int]) -> Any:
        made = {part: self.kinds[part].coarse(one, spatial, wanted) for part, one in targets.items() if part != KNOWN}
        return {**made, KNOWN: targets[KNOWN]}


@dataclass(frozen=True, eq=False)
class AllOf:
    """The targets of several parts, each of which follows the images in its own way.

    mirrored: {part: what its labels become when left and right change sides}
    """

    parts: Mapping[str, Following]
    mirrored: Mapping[str, Sequence[int] | None]
    known: Tensor

    @property
    def targets(self) -> Any:
        return {**{part: one.targets for part, one in self.parts.items()}, KNOWN: self.known}

    def flipped(self, mirrored: NDArray[np.bool_]) -> AllOf:
        return self._each(lambda part, one: one.flipped(mirrored))

    def sides_changed(self, crossed: Tensor, mirrored: Sequence[int]) -> AllOf:
        return self._each(lambda part, one: one.sides_changed(crossed, self.mirrored[part] or ()))

    def turned(self, turns: NDArray[np.intp]) -> AllOf:
        return self._each(lambda part, one: one.turned(turns))

    def warped(self, warp: Warp) -> AllOf:
        return self._each(lambda part, one: one.warped(warp))

    def _each(self, change: Callable[[str, Following], Following]) -> AllOf:
        return replace(self, parts={part: change(part, one) for part, one in self.parts.items()})
