"""Maps against what experts marked, and measures of a map: the place and the spread of its evidence.

The pointing game, and the evidence inside against the share of area.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import GeometryError
from isocenter.tasks import Task, leaves
from isocenter.tasks.shared import label_values
from isocenter.values import BoundingBoxes, Case, Image, Label

Singles = NDArray[np.float32]
# Kinds of reference that say where something is.
DRAWN_HERE = "Give references that were drawn on these images"
PLACED = ("mask", "instances", "boxes")


def marked_in(case: Case, image: Image, target: str, task: Task) -> NDArray[np.bool_] | None:
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


def values_of(target: str, task: Task, labels: Sequence[Label]) -> list[int] | None:
    """The values by which a label map marks a target, of a region those of all its parts; None where it has none.

    labels: of the map; its values may be others than the model's
    """
    name = target.rpartition(":")[2]
    values = next((part.marks[name] for part in leaves(task).values() if name in part.marks), ())
    names = {label.name for label in placed_labels(task) if label.value in values} or {name}
    return [label.value for label in labels if label.name in names] or None


def against(data: Singles, inside: NDArray[np.bool_]) -> dict[str, float]:
    """Whether the peak lies inside (`pointing`), and the shares of evidence (`energy`) and of voxels (`area`) there.

    data: (*spatial), of a clip (frames, *spatial), of which each frame is compared with the same marks
    """
    evidence = evidence_of(data)
    peak = np.unravel_index(int(evidence.argmax()), evidence.shape)[evidence.ndim - inside.ndim :]
    pointing = float(inside[peak]) if evidence.any() else 0.0
    return {"pointing": pointing, "energy": float(evidence[..., inside].sum()), "area": float(inside.mean())}


def _of_mask(mask: Image, image: Image, target: str, task: Task | None, where: str) -> NDArray[np.bool_]:
    if not mask.geometry.equals(image.geometry):
        raise GeometryError(
            f"its mask lies on another grid than the image: {mask.geometry.difference(image.geometry)}",
            where,
            DRAWN_HERE,
        )
    each = [mask.data] if mask.frames is None else np.moveaxis(mask.data, 1, 0)
    frames = [np.asarray(label_values(one, where)) for one in each]
    # What came with the mask says what its values mean; a model's numbers are for masks that say nothing.
    own = None if task is None else values_of(target, task, mask.labels or placed_labels(task))
    silent = [label.value for label in mask.labels if label.is_ignored or label.is_background]
    marked = [np.isin(values, own) if own else (values > 0) & ~np.isin(values, silent) for values in frames]
    return np.any(marked, axis=0)


def _of_boxes(
    boxes: BoundingBoxes, image: Image, target: str, labels: tuple[Label, ...], where: str
) -> NDArray[np.bool_]:
    shape = image.geometry.shape
    if boxes.corners.shape[1] != 2 * len(shape) or (boxes.corners[:, len(shape) :] > np.array(shape) + 1).any():
        raise GeometryError("its boxes reach beyond the image", where, DRAWN_HERE)
    inside = np.zeros(shape, dtype=bool)
    name, names = target.rpartition(":")[2], {label.name for label in labels}
    # Boxes under the names of the model's classes, of which this is one, say where there is none of it.
    named = boxes.of(name) if name in boxes.names or (name in names and names & set(boxes.names)) else boxes
    for corners in named.corners:
        low, high = np.floor(corners[: len(shape)]).astype(int), np.ceil(corners[len(shape) :]).astype(int)
        inside[tuple(slice(max(start, 0), stop) for start, stop in zip(low, high, strict=True))] = True
    return inside


# Of each axis, half at either end.
OUTER = 0.2


def evidence_of(data: Singles) -> Singles:
    """The map's evidence for the target, in sum 1; all zeros where it has none."""
    evidence = np.clip(np.nan_to_num(data), 0, None)
    total = float(evidence.sum(dtype=np.float64))
    return evidence / total if total > 0 else evidence


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


def map_measures(data: Singles, ndim: int | None = None) -> dict[str, Any]:
    """`border_share`: the share of the evidence in the image's outer fifth; of a clip in all its frames."""
    evidence = evidence_of(data)
    spatial = data.shape if ndim is None else data.shape[-ndim:]
    outer = outer_fifth(spatial)
    return {"border_share": round(float(evidence[..., outer].sum()), 6) if evidence.any() else None}
