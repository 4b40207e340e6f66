"""The truth of a case: from the masks that people drew to the target of training and to the label map of scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import DatasetError
from isocenter.tasks.segmentation.readers import CONSENSUS, agreement, masks_of
from isocenter.tasks.segmentation.target_codes import Codes, codes_of, labels_held
from isocenter.tasks.shared import label_values
from isocenter.values import Array, Case, DrawnMap, Image

# Along the axis across slices that were drawn apart no more of what is drawn goes on in the next one.
GOES_ON = 0.1


@dataclass(frozen=True)
class Truth:
    """The settings of a segmentation that decide how masks are read.

    values:       of the labels; the place of each, counted from 1, is the label's number
    structures:   the values of each structure that is scored, of which the first marks it; names: of these
    divided:      of how many people the share is taught; 1 where a single map is
    combinations: of structures, other than all of them, that cases know
    """

    values: tuple[int, ...]
    structures: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    ignore: int | None
    background: int
    sparse: Literal["voxels", "slices"] | None
    readers: str
    divided: int = 1
    combinations: tuple[frozenset[str], ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether masks leave voxels out."""
        return self.ignore is not None or self.sparse is not None

    @property
    def outside(self) -> int | None:
        """Value of a target where nothing is known; None where everything is."""
        return self.codes.unknown if self.is_partial else None

    @property
    def is_divided(self) -> bool:
        """Whether the share of the readers is taught."""
        return self.divided > 1

    @property
    def codes(self) -> Codes:
        """The meaning of the values of targets."""
        return codes_of(
            len(self.values),
            self.divided,
            tuple(labels_held(self.values, self._structures, known) for known in self.combinations),
        )

    @property
    def known(self) -> NDArray[np.bool_]:
        """(codes, structures) whether a voxel of this code says anything of a structure."""
        known = [[True] * len(self.names), *([name in own for name in self.names] for own in self.combinations)]
        return np.array(known)[self.codes.combinations]

    def sides_changed(self, mirrored: Sequence[int]) -> tuple[int, ...]:
        """The code that each becomes where left and right change sides; what was known on one side is on the other.

        mirrored: the same of label numbers, the background first
        """
        names = {name: self.names[place - 1] for name, place in zip(self.names, mirrored[1:], strict=True)}
        others = [frozenset(names[name] for name in own) for own in self.combinations]
        places = [0, *(1 + self.combinations.index(other) for other in others)]
        rows = zip(self.codes.combinations.tolist(), self.codes.rows.tolist(), strict=True)
        return tuple(int(self.codes.within(places[own])[mirrored[row]]) for own, row in rows)

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """The label numbers of each structure."""
        return [tuple(self.values.index(value) + 1 for value in values) for values in self.structures]

    @property
    def sought(self) -> tuple[tuple[int, ...], ...] | None:
        """Groups of target values about which patches are centred; where little is known, also the known background.

        None where every label is a structure and every voxel is known.
        """
        plain = self.groups == [(n + 1,) for n in range(len(self.values))] and not self.combinations
        if plain and not self.is_divided and self.sparse is None:
            return None
        shares = self.codes.shares
        labels_sought = [
            tuple(np.flatnonzero(shares[:, list(group)].sum(axis=1) >= 0.5).tolist()) for group in self.groups
        ]
        return (*labels_sought, (0,)) if self.sparse is not None else tuple(labels_sought)

    def coded(self, case: Case) -> NDArray[np.uint8]:
        """(*spatial) what is taught, as `codes` explains.

        Raises DatasetError for a value without a label, for voxels of a structure that is unknown in the case, and
        where the case knows other structures than those of any case that was planned for.
        """
        masks = self._taught(case)
        for mask in masks:
            self._refuse_unknown(mask, case.id)
        maps = [self._numbered(mask, case) for mask in masks]
        consensus = self._consensus(maps)
        taught = self.codes.of(maps) if self.is_divided else consensus
        if self.combinations or self._known_structures(case) is not None:
            taught = self.codes.within(self._combination(case))[taught]
        return np.where(self._known(consensus), taught, self.codes.unknown).astype(np.uint8)

    def of(self, case: Case) -> DrawnMap:
        """Map on which predictions are scored; values that the model does not know are background.

        Raises DatasetError for voxels of a structure that is unknown in the case.
        """
        masks = self._taught(case)
        numbers = self._consensus([self._numbered(mask, case) for mask in masks])
        everywhere = self.sparse is None and not any(self._silent(mask) for mask in masks)
        voxels = None if everywhere else self._known(numbers)
        return DrawnMap(self._valued(numbers), voxels, self._known_structures(case))

    def reader_agreement(self, predicted: Array, case: Case, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """{structure: {figure: Dice}} where several people drew the case, over the voxels that all of them labelled.

        names: of the structures
        """
        masks = masks_of(case)
        if len(masks) < 2:
            return {}
        numbers = {name: self._numbered(mask, case) for name, mask in masks.items()}
        known_to_all = np.all([self._known(one) for one in numbers.values()], axis=0)
        masks_of_readers = {name: self._valued(np.where(known_to_all, one, 0)) for name, one in numbers.items()}
        structures = dict(zip(names, self.structures, strict=True))
        return agreement(np.where(known_to_all, predicted, 0), masks_of_readers, structures)

    def _taught(self, case: Case) -> list[Image]:
        return [case.references["mask"]] if self.readers == "first" else list(masks_of(case).values())

    def _consensus(self, maps: Sequence[Array]) -> Array:
        return CONSENSUS[self.readers](maps, len(self.values))

    @property
    def _structures(self) -> dict[str, tuple[int, ...]]:
        return dict(zip(self.names, self.structures, strict=True))

    def _known_structures(self, case: Case) -> tuple[bool, ...] | None:
        """Whether each structure is known in a case; None where all are."""
        known_flags = tuple(case.knows(name) for name in self.names)
        return None if all(known_flags) else known_flags

    def _combination(self, case: Case) -> int:
        """The place among `combinations` of the structures that a case knows, counted from 1; 0 where it knows all."""
        names = frozenset(filter(case.knows, self.names))
        if len(names) == len(self.names):
            return 0
        if names not in self.combinations:
            problem = f"knows {', '.join(sorted(names)) or 'none'} of the structures, as no case that was planned for"
            raise DatasetError(problem, case.id, "Plan again with this case, or correct what it knows")
        return 1 + self.combinations.index(names)

    def _numbered(self, mask: Image, case: Case) -> Array:
        """(*spatial) label numbers: 0 the background, one more than there are where the voxel is unknown."""
        values = label_values(mask.data, case.id)
        numbers = np.zeros(values.shape, dtype=np.uint8)
        labels = labels_held(self.values, self._structures, set(filter(case.knows, self.names)))
        for number, value in enumerate(self.values, start=1):
            marked = values == value
            if number not in labels and marked.any():
                names = [name for name, inside in zip(self.names, self.structures, strict=True) if value in inside]
                problem = f"the mask holds voxels of {', '.join(names)}, which is unknown in this case"
                raise DatasetError(problem, case.id, "Correct what the case knows, or remove these voxels")
            numbers[marked] = number
        for value in self._silent(mask):
            numbers[values == value] = len(self.values) + 1
        return numbers

    def _silent(self, mask: Image) -> set[int]:
        """The values of unknown voxels, by the settings or as the mask declares."""
        declared = {label.value for label in mask.labels if label.is_ignored}
        return declared if self.ignore is None else declared | {self.ignore}

    def _refuse_unknown(self, mask: Image, where: str) -> None:
        values_known = {0, self.background, *self.values, *self._silent(mask)}
        if unknown := sorted(set(np.unique(label_values(mask.data, where)).tolist()) - values_known):
            raise DatasetError(
                f"the mask holds {unknown}, which have no label", where, "Declare them with --labels, or correct it"
            )

    def _known(self, numbers: Array) -> NDArray[np.bool_]:
        """(*spatial) where a voxel is known: it has a label or is background, in a slice that was drawn."""
        numbered = numbers <= len(self.values)
        return numbered & drawn_slices(numbered & (numbers > 0)) if self.sparse == "slices" else numbered

    def _valued(self, numbers: Array) -> Array:
        """Label numbers as label values, 0 where nothing is known."""
        values = [0, *self.values, 0]
        return np.array(values, dtype=np.min_scalar_type(max(values)))[numbers]


def drawn_slices(drawn: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(*spatial) the slices in which something is drawn.

    They lie across the axis along which what is drawn ends after a voxel, as where every fifth slice was drawn: a small
    structure reaches through fewer rows and columns than slices. Where none or several are such, across the one along
    which fewest slices are.
    """
    others = [tuple(axis for axis in range(drawn.ndim) if axis != one) for one in range(drawn.ndim)]
    slices = [drawn.any(axis=rest) for rest in others]
    across = [axis for axis in range(drawn.ndim) if _goes_on(drawn, axis) < GOES_ON]
    axis = min(across or range(drawn.ndim), key=lambda candidate: (float(slices[candidate].mean()), -candidate))
    return np.broadcast_to(np.expand_dims(slices[axis], others[axis]), drawn.shape)


def _goes_on(drawn: NDArray[np.bool_], axis: int) -> float:
    """Share of the drawn voxels whose next one along an axis is drawn too."""
    along = np.moveaxis(drawn, axis, 0)
    return int(np.count_nonzero(along[1:] & along[:-1])) / max(1, int(np.count_nonzero(drawn)))
