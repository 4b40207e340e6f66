"""Masks of one case by several people: their names, their consensus, and how far they agree."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from isocenter.errors import GeometryError
from isocenter.evaluation import overlap
from isocenter.tasks.shared import places_of
from isocenter.transforms import majority, staple
from isocenter.values import Array, Case, Image

# Several maps of label numbers, and how many labels there are, to one map.
Consensus = Callable[[Sequence[Array], int], Array]


def first(maps: Sequence[Array], labels: int) -> Array:
    """The map of the first; the others only show how far people agree."""
    return maps[0]


# For "soft" it is what a prediction is scored on; what is taught is the share of the readers.
CONSENSUS: Mapping[str, Consensus] = {"first": first, "majority": majority, "staple": staple, "soft": majority}


def masks_of(case: Case) -> dict[str, Image]:
    """{reader: what they drew}, the case's own mask first; GeometryError where two lie on different grids."""
    mask = case.references["mask"]
    masks = {str(mask.facts.get("reader", "")): mask}
    for kind in case.references:
        if kind.startswith("mask:") and (other := case.references[kind]).facts.get("reader"):
            if not other.geometry.equals(mask.geometry):
                raise GeometryError(f"{kind} lies on another grid than the mask", case.id, "Draw both on one grid")
            masks[str(other.facts["reader"])] = other
    return masks


def agreement(
    predicted: Array, drawn: Mapping[str, Array], structures: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, float]]:
    """{structure: {figure: Dice}} of the model against each reader, and of each reader against the others.

    predicted, drawn: label maps (*spatial), those of the readers by name
    structures:       {name: its values}
    """
    marked = places_of(structures, predicted)
    readers = {name: places_of(structures, values) for name, values in drawn.items()}
    return {structure: _agreement(structure, own, readers) for structure, own in marked.items()}


def _agreement(structure: str, masks: Array, readers: Mapping[str, Mapping[str, Array]]) -> dict[str, float]:
    theirs = {name: drawn[structure] for name, drawn in readers.items()}
    model = {name: overlap(masks, drawn).dice for name, drawn in theirs.items()}
    pairs = {(one, other): overlap(theirs[one], theirs[other]).dice for one, other in itertools.combinations(theirs, 2)}
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
