"""Pairs of images: a table with the columns fixed and moving, or x_fixed_image beside x_moving_image in a folder.

What is known of both goes with them: label maps, of which one value is one structure in both, and points in mm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from hilum.errors import DatasetError
from hilum.files import modality_words
from hilum.files.format_options import ReadOptions
from hilum.files.storage import csv_text
from hilum.layouts import layout
from hilum.layouts.cases import cell_loading, class_labels, dataset_folder, table_join, table_reading, text_names
from hilum.layouts.cases.column_names import FIXED, MOVING, PAIR_COLUMNS, SIDE_COLUMNS, SIDES
from hilum.layouts.cases.dataset_folder import Folder
from hilum.layouts.cases.names import SIDE
from hilum.layouts.cases.table_reading import DataTable
from hilum.layouts.layout import BY_NAMES, DatasetOptions, Example, Labels, Layout, Reading, References
from hilum.values import CaseRow, Cell, Floats, Problem, spatial_transform
from hilum.values.spatial_transform import Correspondence

COORDINATES = ("x", "y", "z")
# {side: {"image", "mask" or "points": its file}}
Sides = Mapping[str, Mapping[str, Path]]


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A table with both columns, or at least one name that both sides have."""
    return _table_of(folder) is not None or any(_is_whole(one) for one in _pairs_by_name(folder).values())


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Each pair as a case of two images; pairs that name a missing file are left out."""
    table, labels, modality = _table_of(folder), class_labels.mask_labels(folder, options), options.modality
    of_values = list[Problem]()
    if table is not None:
        table, of_values = table_reading.convert_values(table, PAIR_COLUMNS)
    rows = _rows(table, modality) if table is not None else _of_names(folder, modality)
    each = [(row, [path.name for path in row.paths if not path.exists()]) for row in rows]
    missing = [f"{row.name} ({', '.join(lost)})" for row, lost in each if lost]
    how = f"table {table.path.name} with a row for each pair" if table is not None else "x_fixed_image, x_moving_image"
    what, remedy = ("pair names", "pairs name", "files that are not there"), "Correct the paths, which are relative to "
    return Reading(
        tuple(row for row, lost in each if not lost),
        how=how,
        classes={"field": labels},
        patients="" if table is None else f"column patient of {table.path.name}, else each image stands for itself",
        channels=SIDES,
        tables=() if table is None else (table.path,),
        problems=(*layout.left_out_problem(missing, what, f"{remedy}the table"), *of_values),
    )


def _table_of(folder: Folder) -> DataTable | None:
    """The table with the columns of both images; None without one, and where it is damaged."""
    members = folder.members[:1] if folder.is_file and folder.members[0].suffix in (".csv", ".tsv") else folder.tables
    heads = {member.path: table_reading.try_table(member.path, most=1) for member in members}
    own = (path for path, head in heads.items() if head is not None and {*SIDES} <= {*head.columns})
    return next(map(table_reading.read_table, own), None)


def _rows(table: DataTable, modality: str | None) -> Iterator[CaseRow]:
    for number, row in enumerate(table.rows, start=1):
        sides = {
            side: {what: table.path.parent / str(row[name]) for what, name in own.items() if row.get(name) is not None}
            for side, own in SIDE_COLUMNS.items()
        }
        if not _is_whole(sides):
            raise table.refusal(f"row {number} lacks one of the images", "Name both images in each row")
        patient, name = row.get("patient"), row.get("id")
        fixed, moving = (dataset_folder.stem_of(sides[side]["image"].name) for side in SIDES)
        yield CaseRow(
            text_names.dashed_name(name) if name is not None else f"{moving}_on_{fixed}",
            *_cells(sides, modality),
            split=table_join.split_of(row.get("split")),
            patient=spatial_transform.patients_of_pair(fixed, moving) if patient is None else str(patient),
            covariates=table_reading.covariates_of_row(row, set(PAIR_COLUMNS)),
        )


def _cells(sides: Sides, modality: str | None) -> tuple[dict[str, Cell], References]:
    """The images of a pair, and what is known of both."""
    word = modality_words.modality_word(modality)
    known = {f"{side}_{what}": path for side in SIDES for what, path in sides[side].items() if what != "image"}
    images = {side: cell_loading.image_cell(sides[side]["image"], word) for side in SIDES}
    return images, {"field": Cell(tuple(known.values()), "field", names=tuple(known))}


def _pairs_by_name(folder: Folder) -> dict[str, dict[str, dict[str, Path]]]:
    """{name of a pair: its files} by the names of files."""
    made: dict[str, dict[str, dict[str, Path]]] = defaultdict(lambda: {side: {} for side in SIDES})
    for member in folder.members:
        if fit := SIDE.match(member.stem):
            what = {"label": "mask", "labels": "mask"}.get(fit["what"].lower(), fit["what"].lower())
            made["/".join((*member.folders, fit["case"]))][fit["side"].lower()][what] = member.path
    return made


def _is_whole(sides: Sides) -> bool:
    return all("image" in own for own in sides.values())


def _of_names(folder: Folder, modality: str | None) -> Iterator[CaseRow]:
    splits = {member.path: member.split for member in folder.members}
    for name, sides in _pairs_by_name(folder).items():
        if _is_whole(sides):
            yield CaseRow(name, *_cells(sides, modality), split=splits[sides[FIXED]["image"]])


def load_correspondence(cell: Cell, labels: Labels, options: ReadOptions) -> Correspondence:
    """What is known of both images of a pair: the label maps and points that a cell names."""
    sides: dict[str, dict[str, Path]] = {side: {} for side in SIDES}
    for name, path in zip(cell.names, cell.paths, strict=True):
        side, _, what = name.partition("_")
        sides[side][what] = path
    mask_paths = {side: (own["mask"],) for side, own in sides.items() if "mask" in own}
    masks = {side: cell_loading.load_mask(paths, labels, options) for side, paths in mask_paths.items()}
    points = _points(sides) if any("points" in own for own in sides.values()) else (None, None)
    return Correspondence(masks.get(FIXED), masks.get(MOVING), *points)


def _points(sides: Sides) -> tuple[Floats, Floats]:
    """The points of both images in one order, by their names; DatasetError for one that only one image has."""
    tables = {}
    for side in SIDES:
        own = sides[side]
        if "points" not in own:
            where = str(next(one["points"] for one in sides.values() if "points" in one))
            raise DatasetError(f"the {side} image has no points", where, f"Give {side}_points too")
        table = csv_text.read_given_table(own["points"])
        axes = [name for name in COORDINATES if name in table.columns]
        if "name" not in table.columns or len(axes) < 2:
            raise DatasetError("has no columns name, x, y", str(own["points"]), "Give name, x, y, z in RAS+ mm")
        try:
            places = table[axes].astype(float).to_numpy()
        except ValueError as error:
            raise DatasetError(f"holds what is no number ({error})", str(own["points"]), "Give mm") from error
        # A picture's world is (row, column), and x is the column.
        tables[side] = dict(zip(table["name"], places if len(axes) > 2 else places[:, ::-1], strict=True))
    fixed, moving = (tables[side] for side in SIDES)
    if strange := sorted({*fixed} ^ {*moving}):
        where = str(sides[MOVING]["points"])
        raise DatasetError(f"the point {strange[0]} is known of one image only", where, "Name the same points in both")
    return np.array([fixed[name] for name in fixed]), np.array([moving[name] for name in fixed])


EXAMPLE: Example = {
    f"{side}{n}{what}.nii.gz": n for side in ("fixed", "moving") for n in range(2) for what in ("", "_map")
} | {
    "pairs.csv": "fixed,moving,fixed_mask,moving_mask\n"
    "fixed0.nii.gz,moving0.nii.gz,fixed0_map.nii.gz,moving0_map.nii.gz\n"
    "fixed1.nii.gz,moving1.nii.gz,fixed1_map.nii.gz,moving1_map.nii.gz\n"
}
WHAT = "pairs of images: a table with the columns fixed and moving, or x_fixed_image beside x_moving_image"
LAYOUT = Layout(
    "image_pairs", WHAT, fits, read, BY_NAMES | {"dicom_folder", "manifest", "nnunet", "object_masks"}, EXAMPLE
)
