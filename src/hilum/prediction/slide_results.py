"""The results of a slide: one row with areas and counts, a table of its cells, and both as QuPath shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hilum.evaluation.positive_percent import POSITIVE_PERCENT
from hilum.files.storage.csv_text import CsvWriter
from hilum.lazy import ndimage
from hilum.report import Figure
from hilum.report.display import PALETTE
from hilum.report.figures import sheets, slice_figures
from hilum.runtime.preprocessing import coarse_mask
from hilum.tasks import Task
from hilum.transforms import label_outlines
from hilum.values import Finding, Floats, Geometry, Image, Label, PlainValue, Prediction, voxel_images
from hilum.values.prediction import AttendedTiles
from hilum.values.table_cells import PlainCell
from hilum.work_state import log

CELLS = "cells"
OUTLINES = ".geojson"
UM2 = 1e6  # in a mm²
# Pixels along the longer side of a slide in a picture, at the least.
SHOWN = 1024
COLUMNS = ("x", "y", "label", "score", "area_um2")
ATTENTION = "attention"
TILES = ("x0", "y0", "x1", "y1", "attention")
# Tiles that counted most, in a picture.
ATTENDED = 8


@dataclass(frozen=True, eq=False)
class Cells:
    """What a detection or an instance segmentation found on a slide, in pixels of its finest level.

    corners: (n, 4) first row and column, and those behind the last
    names:   (n,) classes; areas: (n,) pixels; scores: (n,), NaN where none is known
    """

    corners: Floats
    names: tuple[str, ...]
    areas: Floats
    scores: Floats

    @property
    def centres(self) -> Floats:
        """(n, 2) rows and columns; the centre of pixel i is i."""
        return (self.corners[:, :2] + self.corners[:, 2:] - 1) / 2


def cells_of(prediction: Prediction, task: Task) -> Cells | None:
    """The cells of a result; None of a task that tells none apart. One that windows share is there once."""
    if (boxes := prediction.called_boxes) is not None:
        scores = np.full(len(boxes), np.nan) if boxes.scores is None else np.asarray(boxes.scores)
        return Cells(np.asarray(boxes.corners), boxes.names, np.prod(boxes.lengths, axis=1), scores)
    if prediction.data is None or not any(head.tells_objects for head in task.heads.values()):
        return None
    numbers = np.asarray(prediction.data)
    areas = np.bincount(numbers.ravel(), minlength=len(prediction.labels) + 1)
    rows = [
        (label, box, areas[label.value])
        for label, box in zip(prediction.labels, ndimage.find_objects(numbers.astype(np.int32)), strict=False)
        if box is not None
    ]
    corners = [[one.start for one in box] + [one.stop for one in box] for _, box, _ in rows]
    certain = prediction.confidence.scores
    kinds = [label.kind or task.labels[0].name for label, *_ in rows]
    return Cells(
        np.array(corners, float).reshape(-1, 4),
        tuple(kinds),
        np.array([area for *_, area in rows], float),
        np.array([certain.get(label.name, math.nan) for label, *_ in rows], float),
    )


def slide_columns(
    prediction: Prediction, task: Task, image: Image, findings: Sequence[Finding], tiles: int
) -> dict[str, PlainCell]:
    """`tiles`, and of each label its area (mm²), its cells and their number on a mm² of tissue; then the score.

    tiles: windows that the network saw
    Areas need the size of a pixel. Without any cell of a class its number is 0.
    """
    columns: dict[str, PlainCell] = {"tiles": tiles}
    side = None if image.spacing is None else math.prod(image.spacing)
    cells = cells_of(prediction, task)
    if cells is None:
        columns |= {} if side is None else _areas(prediction, side)
    else:
        mask = coarse_mask.tissue_of(image)
        tissue = None if side is None or mask is None else mask.shown * math.prod(image.geometry.shape) * side
        for name in dict.fromkeys([*(label.name for label in task.labels), *cells.names]):
            count = cells.names.count(name)
            columns[f"cells_{name}"] = count
            columns |= {f"per_mm2_{name}": round(count / tissue, 4)} if tissue else {}
    for finding in findings:
        if finding.concept == POSITIVE_PERCENT:
            columns |= {"score": finding.value, "score_low": finding.low, "score_high": finding.high}
    return columns


def _areas(prediction: Prediction, side: float) -> dict[str, float]:
    """{area_<label>_mm2} of a label map."""
    if prediction.data is None:
        return {}
    most = max((label.value for label in prediction.labels), default=0) + 1
    pixels = np.zeros(most, np.int64)
    for _, part in voxel_images.walk_blocks(prediction.data):
        pixels += np.bincount(part.ravel(), minlength=most)[:most]
    return {f"area_{one.name}_mm2": round(float(pixels[one.value]) * side, 6) for one in prediction.labels}


def write_slide_files(prediction: Prediction, task: Task, image: Image, folder: Path, name: str) -> list[Path]:
    """`<case>.geojson` of cells or a label map, `<case>_cells.csv`, and of a bag of tiles `<case>_attention.csv`."""
    if prediction.tiles is not None:
        return [_write_attention(prediction.tiles, folder / f"{name}_{ATTENTION}.csv")]
    table = folder / f"{name}_{CELLS}.csv"
    outlines = folder / f"{name}{OUTLINES}"
    if (cells := cells_of(prediction, task)) is None:
        return _write_outlines(_region_features(prediction), outlines) if prediction.labels else []
    side = None if image.spacing is None else math.prod(image.spacing) * UM2
    with table.open("x", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file, COLUMNS)
        for (row, column), label, score, area in zip(
            cells.centres.tolist(), cells.names, cells.scores.tolist(), cells.areas.tolist(), strict=True
        ):
            size = "" if side is None else round(area * side, 3)
            writer.add([round(column, 2), round(row, 2), label, round(score, 6), size])
    return [table, *_write_outlines(_cell_features(cells), outlines)]


def _write_attention(tiles: AttendedTiles, path: Path) -> Path:
    """A row a tile: its corners in pixels of the finest level, those behind the last, and its share in the answer."""
    with path.open("x", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file, TILES)
        for (top, left, bottom, right), share in zip(tiles.corners.tolist(), tiles.attention.tolist(), strict=True):
            writer.add([left, top, right, bottom, f"{share:.6g}"])
    return path


def attended_figures(prediction: Prediction, image: Image, name: str) -> list[Figure]:
    """One picture of the tiles that counted most in the answer for a slide; none of a result without tiles."""
    if (tiles := prediction.tiles) is None:
        return []
    shown = dict[str, Image]()
    for number in np.argsort(-tiles.attention, kind="stable")[:ATTENDED].tolist():
        top, left, bottom, right = tiles.corners[number].tolist()
        pixels = np.asarray(image.pixels[(slice(None), slice(top, bottom), slice(left, right))])
        tile = Image(pixels, Geometry.of_pixels(pixels.shape[1:]), channels=image.channels)
        shown[f"{tiles.attention[number]:.3f} at {left}, {top}"] = tile
    caption = f"Of {len(tiles.attention)} tiles of tissue those of most attention, with its share and the corner (x, y)"
    return [sheets.contact_sheet(shown, f"{name}: tiles", caption=caption, columns=ATTENDED // 2)]


def _write_outlines(features: Iterable[Mapping[str, PlainValue]], path: Path) -> list[Path]:
    """A collection of features, written one by one."""
    with path.open("x", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(features):
            file.write(f"{',' if number else ''}\n{json.dumps(feature)}")
        file.write("\n]}\n")
    return [path]


def tissue_figures(image: Image, name: str) -> list[Figure]:
    """A picture of a slide in colour with the outline of its tissue; none of any other image."""
    if (mask := coarse_mask.tissue_of(image)) is None:
        return []
    picture = image.level(image.level_within(max(image.geometry.shape) / SHOWN))
    places = [
        (np.arange(n) * (size / n / block)).astype(int)
        for n, size, block in zip(picture.geometry.shape, image.geometry.shape, mask.block, strict=True)
    ]
    inside = mask.inside[np.ix_(*places)].astype(np.uint8)
    caption = f"{mask.shown:.1%} is tissue. What lies outside of the outline, a margin around it, is not predicted"
    whole = picture.with_pixels(picture.data)
    label = Label(1, "tissue")
    title = f"{name}: tissue"
    owners = ("", "told by its dye")
    return [slice_figures.contours(whole, None, inside, [label], title, caption=caption, owners=owners)]


def shown_coarsely(prediction: Prediction, image: Image) -> tuple[Prediction, Image]:
    """A result and its slide on a level that fits into a picture: what a label map has at every nth pixel."""
    whole = image.geometry.shape
    picture = image.level(image.level_within(max(image.geometry.shape) / SHOWN))
    factors = [size / small for size, small in zip(whole, picture.geometry.shape, strict=True)]
    data = prediction.data
    boxes = prediction.boxes
    if data is not None:
        lines, columns = (np.arange(n) * size // n for n, size in zip(picture.geometry.shape, whole, strict=True))
        read = voxel_images.reader_of(data)
        data = np.concatenate(
            [read((slice(line, line + 1), slice(0, whole[1])))[:, columns] for line in lines.tolist()]
        )
    if boxes is not None:
        boxes = replace(boxes, corners=boxes.corners / np.tile(factors, 2))
    return replace(prediction, geometry=picture.geometry, data=data, boxes=boxes), picture.with_pixels(picture.data)


def _cell_features(cells: Cells) -> Iterator[Mapping[str, PlainValue]]:
    colours = _colours(cells.names)
    for box, label, score in zip(cells.corners.tolist(), cells.names, cells.scores.tolist(), strict=True):
        top, left, bottom, right = (round(edge, 2) for edge in box)
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        measured = {} if math.isnan(score) else {"score": round(score, 6)}
        yield _feature([ring], "detection", label, colours[label], measured)


def _region_features(prediction: Prediction) -> Iterator[Mapping[str, PlainValue]]:
    """Each piece of each label along the edges of its pixels, with its holes; the map is read once, strip by strip."""
    names = {one.value: one.name for one in prediction.labels}
    data = prediction.data
    if data is None:
        return
    strips = (part for _, part in voxel_images.walk_blocks(data))
    colours = _colours(names.values())
    found = label_outlines.find_corners(strips, data.shape[1], list(names))
    for value, corners in found.items():
        if corners is None:
            log.warning("%s: so many edges that no outlines are written", names[value])
            continue
        for rings in label_outlines.trace_pieces(corners):
            closed = [np.concatenate([ring, ring[:1]])[:, ::-1].tolist() for ring in rings]
            yield _feature(closed, "annotation", names[value], colours[names[value]], {})


def _colours(names: Iterable[str]) -> dict[str, tuple[int, int, int]]:
    return {label: PALETTE[n % len(PALETTE)] for n, label in enumerate(dict.fromkeys(names))}


def _feature(
    rings: Sequence[Sequence[Sequence[float]]],
    kind: str,
    label: str,
    colour: tuple[int, int, int],
    measured: Mapping[str, float],
) -> Mapping[str, PlainValue]:
    """A polygon in (x, y) of the finest level, holes behind its outline, as QuPath writes an object of a class."""
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": kind,
            "classification": {"name": label, "color": list(colour)},
            "measurements": measured,
        },
    }
