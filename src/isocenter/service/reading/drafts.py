"""Drawings of a person on a result that are not saved yet: strokes, each kept on the node as it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, delete, insert, select

from isocenter.errors import DatasetError
from isocenter.service.records.database import Clock, Database
from isocenter.service.records.tables import drafts
from isocenter.values import Array, Label

MOST_RUNS = 200_000  # of a stroke; a brush over a whole slice of 512 rows has 512
ERASED = 0


@dataclass(frozen=True)
class Stroke:
    """A stroke, by the name that the page gives it: voxels of the source's array, or a box.

    label: that the voxels get, 0 for none
    runs:  (start, length) of neighbours in C order
    box:   {"corners", "label"} of a new box, with "box" in place of that one; without a label there is no such box
    image: of a series of several
    """

    stroke: str
    label: int = ERASED
    runs: tuple[tuple[int, int], ...] = ()
    box: Mapping[str, Any] | None = None
    image: int = 0

    @property
    def mark(self) -> dict[str, Any]:
        """Entry in the records."""
        mark = {"label": self.label, "runs": self.runs} if self.box is None else {"box": dict(self.box)}
        return {**mark, **({"image": self.image} if self.image else {})}

    @classmethod
    def of(cls, stroke: str, mark: Mapping[str, Any]) -> Stroke:
        """Read a draft from the records."""
        runs = tuple((int(start), int(length)) for start, length in mark.get("runs", ()))
        return cls(stroke, mark.get("label", ERASED), runs, mark.get("box"), mark.get("image", 0))


@dataclass(frozen=True, eq=False)
class Drafts:
    """The table of strokes; each account has its own of each result."""

    database: Database

    def of(self, judged: str, account: str) -> list[Stroke]:
        """The strokes of an account on a result, in their order."""
        with self.database.read() as connection:
            return strokes_of(connection, judged, account)

    def add(self, judged: str, account: str, stroke: Stroke) -> None:
        """Keep a stroke; one of the same name is there already, as where an answer was lost on its way."""
        here = (drafts.c.judged == judged, drafts.c.account == account, drafts.c.stroke == stroke.stroke)
        with self.database.write() as connection:
            if connection.execute(select(drafts.c.draft).where(*here)).first() is None:
                columns = {"judged": judged, "account": account, "stroke": stroke.stroke, "mark": stroke.mark}
                connection.execute(insert(drafts).values(at=Clock(), **columns))

    def undo(self, judged: str, account: str, stroke: str) -> bool:
        """Forget a stroke; False where there is none."""
        here = (drafts.c.judged == judged, drafts.c.account == account, drafts.c.stroke == stroke)
        with self.database.write() as connection:
            return connection.execute(delete(drafts).where(*here)).rowcount == 1


def strokes_of(connection: Connection, judged: str, account: str) -> list[Stroke]:
    """The strokes of an account on a result, in their order."""
    mine = (drafts.c.judged == judged, drafts.c.account == account)
    rows = connection.execute(select(drafts.c.stroke, drafts.c.mark).where(*mine).order_by(drafts.c.draft))
    return [Stroke.of(row.stroke, row.mark) for row in rows]


def forget(connection: Connection, judged: str, account: str, strokes: Sequence[Stroke]) -> None:
    """Forget strokes that a correction holds."""
    names = [one.stroke for one in strokes]
    mine = (drafts.c.judged == judged, drafts.c.account == account, drafts.c.stroke.in_(names))
    connection.execute(delete(drafts).where(*mine))


def check_voxels(stroke: Stroke, shape: Sequence[int], labels: Sequence[Label]) -> None:
    """Refuse voxels outside a grid, and a label that its map does not have. Raises DatasetError."""
    size = int(np.prod(shape, dtype=np.int64))
    if any(start < 0 or length < 1 or start + length > size for start, length in stroke.runs):
        words = " x ".join(map(str, shape))
        raise DatasetError(f"a stroke lies outside the grid of {words} voxels", "runs", "Draw on the result's own grid")
    if stroke.label != ERASED and stroke.label not in {one.value for one in labels}:
        names = ", ".join(f"{one.value} {one.name}" for one in labels)
        raise DatasetError(f"the label map has no label {stroke.label}", "label", f"Draw one of {names or 'none'}")


def drawn(mask: Array, strokes: Sequence[Stroke]) -> Array:
    """A copy of a label map, (*source), with strokes one after the other."""
    flat = np.array(mask, order="C").reshape(-1)
    for stroke in strokes:
        for start, length in stroke.runs:
            flat[start : start + length] = stroke.label
    return flat.reshape(mask.shape)


def boxed(rows: Sequence[Mapping[str, Any]], strokes: Sequence[Stroke]) -> list[dict[str, Any]]:
    """Rows of findings with boxes as strokes add, change and remove them, numbered anew."""
    boxes: dict[Any, dict[str, Any]] = {row["box"]: dict(row) for row in rows if row.get("box") is not None}
    for stroke in strokes:
        if stroke.box is None:
            continue
        key, label = stroke.box.get("box"), stroke.box.get("label")
        if not label:
            boxes.pop(key, None)
            continue
        finding = {"concept": str(label), "value": list(stroke.box["corners"]), "unit": "voxels"}
        before = boxes.get(key) if key is not None else None
        same = before is not None and before["concept"] == str(label)
        codes = {"codes": before["codes"]} if before is not None and same and before.get("codes") else {}
        # A probability was that of the model's box.
        boxes[stroke.stroke if key is None else key] = {**codes, **finding}
    others = [dict(row) for row in rows if row.get("box") is None]
    return [*others, *({**row, "box": number} for number, row in enumerate(boxes.values()))]


def check_box(stroke: Stroke, shape: Sequence[int]) -> None:
    """Refuse a box that does not lie on the grid, or has no extent. Raises DatasetError."""
    box = stroke.box or {}
    if not box.get("label"):
        if box.get("box") is None:
            raise DatasetError("the box has no label", "box", "Give its label, or the box that is to go")
        return
    corners = np.asarray(box.get("corners", ()), dtype=np.float64)
    axes = len(shape)
    if corners.shape != (2 * axes,) or not np.isfinite(corners).all():
        raise DatasetError(f"a box of {corners.size} corners", "box", f"Give its {axes} starts, then its {axes} ends")
    start, end = corners[:axes], corners[axes:]
    if (start < 0).any() or (end > np.asarray(shape)).any() or (start >= end).any():
        words = " x ".join(map(str, shape))
        raise DatasetError(f"the box lies outside the grid of {words} voxels", "box", "Draw on the result's own grid")
