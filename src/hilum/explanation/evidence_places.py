"""Places of evidence: maps against what experts marked, and what the maps of a cohort mark.

The pointing game, and the evidence inside against the share of area.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hilum.errors import GeometryError
from hilum.evaluation.significance import testing
from hilum.lazy import torch
from hilum.tasks import Task, properties
from hilum.tasks.shared import reference_labels
from hilum.values import BoundingBoxes, Case, Floats, Image, Label
from hilum.values.explanation_records import PlaceRow

Singles = NDArray[np.float32]
# Kinds of reference that say where something is.
OF_THESE_IMAGES = "Give references that lie on these images"
PLACED = ("mask", "instances", "boxes")


def reference_mask(case: Case, image: Image, target: str, task: Task) -> NDArray[np.bool_] | None:
    """(*spatial) where a case's references mark the target, or anything where they have no name for it.

    None for a case without mask and boxes, or whose references do not hold the target. Raises GeometryError for a mask
    on another grid.
    """
    placed = placed_labels(task)
    for kind in PLACED:
        match case.references.get(kind):
            case Image() as mask:
                # In a map of objects values are their numbers, and mean nothing.
                inside = _of_mask(mask, image, target, task if kind == "mask" else None, case.id)
            case BoundingBoxes() as boxes:
                inside = _of_boxes(boxes, image, target, placed, case.id)
            case _:
                continue
        return inside if inside.any() else None
    return None


def placed_labels(task: Task) -> tuple[Label, ...]:
    """The labels of places; classes of the whole image are numbered too, but no voxel bears their number."""
    return task.labels if any(not head.is_vector for head in task.heads.values()) else ()


def target_values(target: str, task: Task, labels: Sequence[Label]) -> list[int] | None:
    """The values by which a label map marks a target, of a region those of all its parts; None where it has none.

    labels: of the map; its values may be others than the model's
    """
    name = target.rpartition(":")[2]
    values = next((part.marks[name] for part in properties.leaf_tasks(task).values() if name in part.marks), ())
    names = {label.name for label in placed_labels(task) if label.value in values} or {name}
    return [label.value for label in labels if label.name in names] or None


def compare_with_region(data: Singles, inside: NDArray[np.bool_]) -> dict[str, float]:
    """Whether the peak lies inside (`pointing`), and the shares of evidence (`energy`) and of voxels (`area`) there.

    data: (*spatial), of a clip (frames, *spatial), of which each frame is compared with the same marks
    """
    evidence = normalise_evidence(data)
    peak = np.unravel_index(int(evidence.argmax()), evidence.shape)[evidence.ndim - inside.ndim :]
    pointing = float(inside[peak]) if evidence.any() else 0.0
    return {"pointing": pointing, "energy": float(evidence[..., inside].sum()), "area": float(inside.mean())}


def _of_mask(mask: Image, image: Image, target: str, task: Task | None, where: str) -> NDArray[np.bool_]:
    mask.geometry.refuse_other(image.geometry, "its mask lies on another grid than the image", where, OF_THESE_IMAGES)
    each = [mask.data] if mask.frames is None else np.moveaxis(mask.data, 1, 0)
    frames = [np.asarray(reference_labels.label_values(one, where)) for one in each]
    # What came with the mask says what its values mean; a model's numbers are for masks that say nothing.
    own = None if task is None else target_values(target, task, mask.labels or placed_labels(task))
    silent = [label.value for label in mask.labels if label.is_ignored or label.is_background]
    marked = [np.isin(values, own) if own else (values > 0) & ~np.isin(values, silent) for values in frames]
    return cast("NDArray[np.bool_]", np.any(marked, axis=0))


def _of_boxes(
    boxes: BoundingBoxes, image: Image, target: str, labels: tuple[Label, ...], where: str
) -> NDArray[np.bool_]:
    shape = image.geometry.shape
    if boxes.corners.shape[1] != 2 * len(shape) or (boxes.corners[:, len(shape) :] > np.array(shape) + 1).any():
        raise GeometryError("its boxes reach beyond the image", where, OF_THESE_IMAGES)
    inside = np.zeros(shape, dtype=bool)
    name, names = target.rpartition(":")[2], {label.name for label in labels}
    # Boxes under the names of the model's classes, of which this is one, say where there is none of it.
    named = boxes.of_class(name) if name in boxes.names or (name in names and names & set(boxes.names)) else boxes
    for corners in named.corners:
        low, high = np.floor(corners[: len(shape)]).astype(int), np.ceil(corners[len(shape) :]).astype(int)
        inside[tuple(slice(max(start, 0), stop) for start, stop in zip(low, high, strict=True))] = True
    return inside


# Of each axis, half at either end.
OUTER = 0.2


def normalise_evidence(data: Singles) -> Singles:
    """The map's evidence for the target, in sum 1; all zeros where it has none."""
    evidence = np.nan_to_num(data)  # a copy
    np.clip(evidence, 0, None, out=evidence)
    total = float(evidence.sum(dtype=np.float64))
    if total > 0:
        evidence /= total
    return evidence


def outer_fifth(spatial: tuple[int, ...]) -> NDArray[np.bool_]:
    """(*spatial) whether a voxel lies in the outer fifth along any axis longer than a few voxels."""
    outer = np.zeros(spatial, dtype=bool)
    for axis, size in enumerate(spatial):
        edge = round(size * OUTER / 2)
        ends = np.zeros(size, dtype=bool)
        if edge:
            ends[:edge] = ends[-edge:] = True
        outer |= ends.reshape([-1 if n == axis else 1 for n in range(len(spatial))])
    return outer


def map_measures(data: Singles, ndim: int | None = None) -> dict[str, float | None]:
    """`border_share`: the share of the evidence in the image's outer fifth; of a clip in all its frames."""
    evidence = normalise_evidence(data)
    spatial = data.shape if ndim is None else data.shape[-ndim:]
    outer = outer_fifth(spatial)
    return {"border_share": round(float(evidence[..., outer].sum()), 6) if evidence.any() else None}


# Cells along each axis of the small copies that are compared, by the number of axes.
CELLS = {1: 64, 2: 20, 3: 10}
# Cases from which a cohort is looked at; draws of the permutations; share of the cells that is a place of one answer.
FEWEST, DRAWS, PLACE = 5, 999, 0.05
# In place of an answer, where none has enough maps of its own.
EVERY = "all"


@dataclass(frozen=True, eq=False)
class SmallMap:
    """A map brought down to a few cells: what it holds in each, together 1.

    target:  that it is of
    letters: (*cells) the share of each cell in letters that are burned into the image; None where there are none
    """

    case: str
    target: str
    cells: Floats
    letters: Floats | None = None

    @classmethod
    def from_map(
        cls, case: str, target: str, data: NDArray[np.float32], ndim: int, letters: NDArray[np.bool_] | None = None
    ) -> SmallMap:
        """Bring down a map (*spatial), or (frames, *spatial) of a clip."""
        evidence = normalise_evidence(data).reshape(-1, *data.shape[-ndim:]).sum(axis=0)
        cells = _in_cells(evidence)
        total = cells.sum()
        return cls(case, target, cells / total if total > 0 else cells, None if letters is None else _in_cells(letters))


def place_findings(maps: Sequence[SmallMap], *, seed: int) -> list[PlaceRow]:
    """Rows of kind, target, share (of the evidence), area, p (adjusted after Holm), cases, the smallest p first.

    Places are looked for in the maps of each answer that has enough of them: a mark may stand for one answer alone.
    p is by permutation: maps are moved round at random within the image, and for places of one answer the answers are
    dealt out anew.
    """
    mapped = [one for one in maps if one.cells.any()]
    if len(mapped) < FEWEST:
        return []
    random = np.random.default_rng(seed)
    by_target = {
        target: [one for one in mapped if one.target == target] for target in sorted({one.target for one in mapped})
    }
    answers = {target: own for target, own in by_target.items() if len(own) >= FEWEST} or {EVERY: mapped}
    rows = [row for target, own in answers.items() for row in _by_place(target, own, random)]
    rows += _by_answer(mapped, random)
    for row, p in zip(rows, testing.holm([row["p"] for row in rows]), strict=True):
        row["p"] = float(p)
    return sorted(rows, key=lambda row: (row["p"], -row["share"]))


def _by_place(target: str, maps: Sequence[SmallMap], random: np.random.Generator) -> Iterator[PlaceRow]:
    shape = maps[0].cells.shape
    alike = [one for one in maps if one.cells.shape == shape]
    places = {"border": outer_fifth(shape).astype(float)}
    if len(shape) > 1:
        places["corner"] = _corners(shape).astype(float)
    for kind, inside in places.items():
        yield _test_place(kind, target, [(one.cells, inside) for one in alike], random)
    with_letters = [(one.cells, one.letters) for one in alike if one.letters is not None]
    if len(with_letters) >= FEWEST:
        yield _test_place("text", target, with_letters, random)


def _test_place(
    kind: str, target: str, pairs: Sequence[tuple[Floats, Floats]], random: np.random.Generator
) -> PlaceRow:
    """One row: the evidence in a place, against that of the same maps moved round."""
    axes = tuple(range(1, pairs[0][0].ndim + 1))
    cells, places = (np.stack(one) for one in zip(*pairs, strict=True))
    # All shifts of a map at once: the correlation of map and place.
    product = np.fft.fftn(cells, axes=axes).conj() * np.fft.fftn(places, axes=axes)
    shares = np.fft.ifftn(product, axes=axes).real.reshape(len(pairs), -1)
    mean = float(shares[:, 0].mean())
    sample = random.integers(shares.shape[1], size=(DRAWS, len(pairs)))
    chance = shares[np.arange(len(pairs)), sample].mean(axis=1)
    p = (1 + np.count_nonzero(chance >= mean - 1e-12)) / (1 + DRAWS)
    return PlaceRow(kind=kind, share=mean, area=float(places.mean()), p=p, cases=len(pairs), target=target)


def _by_answer(maps: Sequence[SmallMap], random: np.random.Generator) -> Iterator[PlaceRow]:
    """Cells that the maps of each answer hold most beyond those of others, against answers dealt out anew."""
    shape = maps[0].cells.shape
    alike = [one for one in maps if one.cells.shape == shape]
    cells, targets = np.stack([one.cells.ravel() for one in alike]), np.array([one.target for one in alike])
    count = max(1, round(PLACE * cells.shape[1]))
    for target in sorted(set(targets)):
        of_target = targets == target
        if of_target.sum() < FEWEST or (~of_target).sum() < FEWEST:
            continue

        def beyond(chosen: NDArray[np.bool_]) -> tuple[float, float]:
            """Excess of the hottest cells, and their share of the evidence."""
            mean = cells[chosen].mean(axis=0)
            excess = mean - cells[~chosen].mean(axis=0)
            hottest = np.argpartition(excess, -count)[-count:]
            return float(excess[hottest].sum()), float(mean[hottest].sum())

        excess, share = beyond(of_target)
        chance = np.array([beyond(random.permutation(of_target))[0] for _ in range(DRAWS)])
        p = (1 + np.count_nonzero(chance >= excess - 1e-12)) / (1 + DRAWS)
        area, cases = count / cells.shape[1], int(of_target.sum())
        yield PlaceRow(kind=f"cluster of {target}", share=share, area=area, p=p, cases=cases, target=target)


def _corners(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask of the corners: every axis is within a fifth of an end."""
    near: NDArray[np.int_] = np.zeros(shape, dtype=int)
    for axis, size in enumerate(shape):
        edge = max(1, round(size / 5))
        ends = np.zeros(size, dtype=int)
        ends[:edge] = ends[-edge:] = 1
        near = near + ends.reshape([-1 if n == axis else 1 for n in range(len(shape))])
    return near >= len(shape)


def _in_cells(values: NDArray[Any]) -> Floats:
    """(*spatial) to the mean over a few cells an axis; an image of fewer voxels has repeated ones."""
    pool: dict[int, Callable[..., Any]] = {
        1: torch.nn.functional.adaptive_avg_pool1d,
        2: torch.nn.functional.adaptive_avg_pool2d,
        3: torch.nn.functional.adaptive_avg_pool3d,
    }
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None, None]
    pooled = pool[values.ndim](tensor, (CELLS[values.ndim],) * values.ndim)
    return np.asarray(pooled[0, 0].numpy(), dtype=np.float64)
