"""The truth of a case: from people's masks to the target of training and to the label map of scoring."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property, partial
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DatasetError, GeometryError, PlanError
from hilum.evaluation import mask_overlap
from hilum.tasks.shared import reference_labels
from hilum.transforms import label_maps
from hilum.values import Array, Case, Deferred, Floats, Image, Region, slabs
from hilum.values.voxel_images import Reader, ReferenceMap

# Along the axis across slices that were contoured apart no more of a structure goes on in the next one.
GOES_ON = 0.1
# Masks of so many voxels are not held as a whole.
IN_PARTS_VOXELS = 2**26


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
        return codes_for_readers(
            len(self.values),
            self.divided,
            tuple(labels_held(self.values, self._structures, known) for known in self.combinations),
        )

    @property
    def known_by_code(self) -> NDArray[np.bool_]:
        """(codes, structures) whether a voxel of this code says anything of a structure."""
        rows = [[True] * len(self.names), *([name in own for name in self.names] for own in self.combinations)]
        return np.array(rows)[self.codes.combinations]

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

    def encode_case(self, case: Case) -> NDArray[np.uint8] | Deferred:
        """(*spatial) what is taught, as `codes` explains; of large masks in parts, where a voxel stands for itself.

        Raises DatasetError for a value without a label, for voxels of a structure that is unknown in the case, and
        where the case knows other structures than those of any case that was planned for.
        """
        masks = self._taught(case)
        shape = masks[0].geometry.shape
        if self.sparse == "slices" or self.readers == "staple" or math.prod(shape) < IN_PARTS_VOXELS:
            return self._coded(case, masks)
        whole = partial(self._coded, case, masks)
        return Deferred(shape, np.dtype(np.uint8), whole, None, partial(self._coded_parts, case, masks))

    def _coded_parts(self, case: Case, masks: Sequence[Image]) -> Reader:
        """A reader of what is taught."""
        readers = [mask.reader() for mask in masks]

        def read(region: Region) -> Array:
            """(*region) codes."""
            grid = masks[0].geometry.crop(region)
            parts = [one((slice(None), *region)) for one in readers]
            return self._coded(case, [one.with_pixels(part, grid) for one, part in zip(masks, parts, strict=True)])

        return read

    def _coded(self, case: Case, masks: Sequence[Image]) -> NDArray[np.uint8]:
        for mask in masks:
            self._refuse_unknown(mask, case.id)
        maps = [self._number_labels(mask, case) for mask in masks]
        consensus = self._consensus(maps)
        taught = self.codes.encode(maps) if self.is_divided else consensus
        if self.combinations or self._known_structures(case) is not None:
            taught = self.codes.within(self._combination(case))[taught]
        return np.where(self._is_known(consensus), taught, self.codes.unknown).astype(np.uint8)

    def reference_map(self, case: Case) -> ReferenceMap:
        """Map on which predictions are scored; values that the model does not know are background.

        Raises DatasetError for voxels of a structure that is unknown in the case.
        """
        masks = self._taught(case)
        numbers = self._consensus([self._number_labels(mask, case) for mask in masks])
        everywhere = self.sparse is None and not any(self._silent(mask) for mask in masks)
        voxels = None if everywhere else self._is_known(numbers)
        return ReferenceMap(self._label_values(numbers), voxels, self._known_structures(case))

    def reader_agreement(self, predicted: Array, case: Case, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """{structure: {figure: Dice}} where several people contoured the case, over voxels that all of them labelled.

        names: of the structures
        """
        masks = reader_masks(case)
        if len(masks) < 2:
            return {}
        numbers = {name: self._number_labels(mask, case) for name, mask in masks.items()}
        known_to_all = np.all([self._is_known(one) for one in numbers.values()], axis=0)
        masks_of_readers = {name: self._label_values(np.where(known_to_all, one, 0)) for name, one in numbers.items()}
        structures = dict(zip(names, self.structures, strict=True))
        return reader_agreement(np.where(known_to_all, predicted, 0), masks_of_readers, structures)

    def _taught(self, case: Case) -> list[Image]:
        return [case.references["mask"]] if self.readers == "first" else list(reader_masks(case).values())

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

    def _number_labels(self, mask: Image, case: Case) -> Array:
        """(*spatial) label numbers: 0 the background, one more than there are where the voxel is unknown."""
        values = reference_labels.label_values(mask.data, case.id)
        labels = labels_held(self.values, self._structures, set(filter(case.knows, self.names)))
        is_counted = len(labels) < len(self.values) or not slabs.is_tabled(values.dtype)
        present = slabs.label_voxels(values) if is_counted else {}
        numbers_of = dict[int, int]()
        for number, value in enumerate(self.values, start=1):
            if number not in labels and value in present:
                names = [name for name, inside in zip(self.names, self.structures, strict=True) if value in inside]
                problem = f"the mask holds voxels of {', '.join(names)}, which is unknown in this case"
                raise DatasetError(problem, case.id, "Correct what the case knows, or remove these voxels")
            numbers_of[value] = number
        numbers_of |= dict.fromkeys(self._silent(mask), len(self.values) + 1)
        if slabs.is_tabled(values.dtype):  # one look at each voxel, however many labels there are
            table = np.array(
                [numbers_of.get(value, 0) for value in slabs.table_values(values.dtype).tolist()], np.uint8
            )
            return cast("Array", table[values.astype(np.intp) - slabs.table_values(values.dtype)[0]])
        numbers = np.zeros(values.shape, dtype=np.uint8)
        for value in numbers_of.keys() & present.keys():
            numbers[values == value] = numbers_of[int(value)]
        return numbers

    def _silent(self, mask: Image) -> set[int]:
        """The values of unknown voxels, by the settings or as the mask declares."""
        declared = {label.value for label in mask.labels if label.is_ignored}
        return declared if self.ignore is None else declared | {self.ignore}

    def _refuse_unknown(self, mask: Image, where: str) -> None:
        values_known = {0, self.background, *self.values, *self._silent(mask)}
        if unknown := sorted(slabs.label_voxels(reference_labels.label_values(mask.data, where)).keys() - values_known):
            raise DatasetError(
                f"the mask holds {unknown}, which have no label", where, "Declare them with --labels, or correct it"
            )

    def _is_known(self, numbers: Array) -> NDArray[np.bool_]:
        """(*spatial) where a voxel is known: it has a label or is background, in a contoured slice."""
        numbered = numbers <= len(self.values)
        return numbered & contoured_slices(numbered & (numbers > 0)) if self.sparse == "slices" else numbered

    def _label_values(self, numbers: Array) -> Array:
        """Label numbers as label values, 0 where nothing is known."""
        values = [0, *self.values, 0]
        return np.array(values, dtype=np.min_scalar_type(max(values)))[numbers]


def contoured_slices(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(*spatial) the slices in which something is contoured.

    They lie across the axis along which structures end after a voxel, as where every fifth slice was contoured: a small
    structure reaches through fewer rows and columns than slices. Where none or several are such, across the one along
    which fewest slices are.
    """
    others = [tuple(axis for axis in range(mask.ndim) if axis != one) for one in range(mask.ndim)]
    slices = [mask.any(axis=rest) for rest in others]
    across = [axis for axis in range(mask.ndim) if _goes_on(mask, axis) < GOES_ON]
    axis = min(across or range(mask.ndim), key=lambda candidate: (float(slices[candidate].mean()), -candidate))
    return np.broadcast_to(np.expand_dims(slices[axis], others[axis]), mask.shape)


def _goes_on(mask: NDArray[np.bool_], axis: int) -> float:
    """Share of the marked voxels whose next one along an axis is marked too."""
    along = np.moveaxis(mask, axis, 0)
    return int(np.count_nonzero(along[1:] & along[:-1])) / max(1, int(np.count_nonzero(mask)))


# Several maps of label numbers, and how many labels there are, to one map.
Consensus = Callable[[Sequence[Array], int], Array]


def first_map(maps: Sequence[Array], labels: int) -> Array:
    """The map of the first; the others only show how far people agree."""
    return maps[0]


# For "soft" it is what a prediction is scored on; what is taught is the share of the readers.
CONSENSUS: Mapping[str, Consensus] = {
    "first": first_map,
    "majority": label_maps.majority_vote,
    "staple": label_maps.staple,
    "soft": label_maps.majority_vote,
}


def reader_masks(case: Case) -> dict[str, Image]:
    """{reader: what they contoured}, the case's own mask first; GeometryError where two lie on different grids."""
    mask = case.references["mask"]
    masks = {str(mask.facts.get("reader", "")): mask}
    for kind in case.references:
        if kind.startswith("mask:") and (other := case.references[kind]).facts.get("reader"):
            if not other.geometry.equals(mask.geometry):
                raise GeometryError(f"{kind} lies on another grid than the mask", case.id, "Contour both on one grid")
            masks[str(other.facts["reader"])] = other
    return masks


def reader_agreement(
    predicted: Array, masks: Mapping[str, Array], structures: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, float]]:
    """{structure: {figure: Dice}} of the model against each reader, and of each reader against the others.

    predicted, readers: label maps (*spatial), those of the readers by name
    structures:       {name: its values}
    """
    marked = reference_labels.structure_voxels(structures, predicted)
    readers = {name: reference_labels.structure_voxels(structures, values) for name, values in masks.items()}
    return {structure: _agreement(structure, own, readers) for structure, own in marked.items()}


def _agreement(structure: str, masks: Array, readers: Mapping[str, Mapping[str, Array]]) -> dict[str, float]:
    theirs = {name: maps[structure] for name, maps in readers.items()}
    model = {name: mask_overlap.overlap_of_masks(masks, own).dice for name, own in theirs.items()}
    pairs = {
        (one, other): mask_overlap.overlap_of_masks(theirs[one], theirs[other]).dice
        for one, other in itertools.combinations(theirs, 2)
    }
    others = {name: _mean([dice for pair, dice in pairs.items() if name in pair]) for name in theirs}
    return {
        "dice_to_readers": _mean(list(model.values())),
        "dice_between_readers": _mean(list(pairs.values())),
        **{f"dice_to_{name}": dice for name, dice in model.items()},
        **{f"dice_of_{name}_to_others": dice for name, dice in others.items()},
    }


def _mean(values: Sequence[float]) -> float:
    """NaN where one of them is not defined: no mean over pairs that differ from case to case."""
    return float(np.mean(values)) if values else float("nan")


# The codes of a segmentation's target: what each value stands for.
#
# Every voxel of a target is one number, so that it follows its image as label maps do: 0 is the background, 1 and on
# are the labels, above them lie the ways in which readers can be divided. Where cases know some structures only, the
# same follows for each combination of them: a voxel of such a case says which structures are known there. The last code
# says that nothing is known.

# Targets are bytes, and the last value is taken.
MOST = 254


@dataclass(frozen=True)
class Codes:
    """The codes of so many labels (without the background) and readers (1 where they are not divided).

    partial: for each combination of structures that cases know, the numbers of the labels that their masks can hold
    """

    labels: int
    readers: int = 1
    partial: tuple[tuple[int, ...], ...] = ()

    @property
    def unknown(self) -> int:
        """The code of a voxel of which nothing is known: the last."""
        return len(self.rows)

    @cached_property
    def shares(self) -> Floats:
        """(codes, 1 + labels) share of the readers who contoured the background and each label."""
        return np.array([[float(share) for share in row] for row in self._rows])[self.rows]

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        """(codes,) the code that says the same where everything is known: a label's number, of undivided readers."""
        return np.concatenate(self._blocks)

    @cached_property
    def combinations(self) -> NDArray[np.intp]:
        """(codes,) the place in `partial` of what is known, counted from 1; 0 where everything is."""
        return np.repeat(np.arange(len(self._blocks)), [len(block) for block in self._blocks])

    def within(self, combination: int) -> NDArray[np.uint8]:
        """(rows + 1,) the code, in cases of a combination, of each code of where everything is known, and of none."""
        codes = np.full(len(self._rows) + 1, self.unknown, dtype=np.uint8)
        chosen = np.flatnonzero(self.combinations == combination)
        codes[self.rows[chosen]] = chosen
        return codes

    def encode(self, maps: Sequence[Array]) -> NDArray[np.uint8]:
        """(*spatial) codes of what readers contoured, each as label numbers, with labels + 1 where a voxel is unknown.

        As where every structure is known; `within` makes them those of a case that knows some only.
        """
        keys = np.zeros(maps[0].shape, dtype=np.intp)
        for voxel, count in enumerate(label_maps.count_votes(maps, self.labels)):
            keys += count.astype(np.intp) * (self.readers + 1) ** voxel
        found, places = np.unique(keys, return_inverse=True)
        codes = [self._by_votes.get(key, len(self._rows)) for key in found.tolist()]
        return np.array(codes, dtype=np.uint8)[places].reshape(keys.shape)

    @cached_property
    def _rows(self) -> list[tuple[Fraction, ...]]:
        """Every share that can be, the undivided ones first."""
        undivided = [
            tuple(Fraction(int(n == label)) for n in range(self.labels + 1)) for label in range(self.labels + 1)
        ]
        if self.readers == 1:
            return undivided
        problem = f"{self.readers} readers of {self.labels} labels can be divided in more than {MOST} ways"
        refused = PlanError(problem, "task.readers", "Choose majority or staple")
        if math.comb(self.readers + self.labels, self.labels) > MOST:  # already where all of them say something
            raise refused
        rows = list(dict.fromkeys([*undivided, *(_share(one) for one in self._vote_combinations)]))
        if len(rows) > MOST:
            raise refused
        return rows

    @cached_property
    def _blocks(self) -> list[NDArray[np.intp]]:
        """The rows that voxels can have, of cases that know everything and of those of each combination."""
        present = np.array([[share > 0 for share in row] for row in self._rows])
        blocks = [np.arange(len(present))]
        for labels in self.partial:
            others = [number for number in range(1, self.labels + 1) if number not in labels]
            blocks.append(np.flatnonzero(~present[:, others].any(axis=1)))
        count = sum(len(block) for block in blocks)
        if self.partial and count > MOST:
            problem = f"{len(self.partial)} combinations of known structures need {count} codes, and there are {MOST}"
            raise PlanError(
                problem, "task.partial", "Leave structures out with --labels, or contour what few cases lack"
            )
        return blocks

    @property
    def _vote_combinations(self) -> list[tuple[int, ...]]:
        """Votes for each label, of up to all readers, at least one."""
        chosen = (
            itertools.combinations_with_replacement(range(self.labels + 1), count)
            for count in range(1, self.readers + 1)
        )
        return [tuple(votes.count(label) for label in range(self.labels + 1)) for each in chosen for votes in each]

    @cached_property
    def _by_votes(self) -> dict[int, int]:
        """{combination of votes, which count in powers of readers + 1: its code}, of those that say something."""
        places = {row: place for place, row in enumerate(self._rows)}
        powers = [(self.readers + 1) ** place for place in range(self.labels + 1)]
        return {
            sum(n * power for n, power in zip(counts, powers, strict=True)): places[_share(counts)]
            for counts in self._vote_combinations
        }


@cache
def codes_for_readers(labels: int, readers: int, partial: tuple[tuple[int, ...], ...] = ()) -> Codes:
    """The same each time: a task asks at every step."""
    return Codes(labels, readers, partial)


def labels_held(
    values: Sequence[int], structures: Mapping[str, Sequence[int]], stated_names: AbstractSet[str]
) -> tuple[int, ...]:
    """The numbers of the labels that masks can hold in which these structures are known.

    Such a label marks one of them; one that marks no structure lies in one of them, or in none at all.
    values: of the labels; structures: {name: its values, first the one that marks it}
    """
    marks = {own[0]: name for name, own in structures.items()}
    lies_in = {value: [name for name, own in structures.items() if value in own] for value in values}
    names = {value: [marks[value]] if value in marks else lies_in[value] for value in values}
    return tuple(
        n for n, value in enumerate(values, start=1) if not names[value] or not stated_names.isdisjoint(names[value])
    )


def _share(counts: Sequence[int]) -> tuple[Fraction, ...]:
    return tuple(Fraction(n, sum(counts)) for n in counts)
