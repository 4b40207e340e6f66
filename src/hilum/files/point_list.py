"""Lists of points: tables of name, x, y and z in RAS+ mm, and those that 3D Slicer writes; others are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilum.errors import DatasetError, FormatError, UsageError
from hilum.files.storage import csv_text, structured_text
from hilum.lazy import pandas as pd
from hilum.values import table_cells

COORDINATES = ("x", "y", "z")
# Slicer's columns where a file names none, https://slicer.readthedocs.io/en/latest/user_guide/modules/markups.html
FCSV_COLUMNS = ("id", "x", "y", "z", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label", "desc", "associatedNodeID")
# How a file of Slicer names its axes: the signs that turn x, y and z into RAS+.
SIGNS = {"RAS": (1.0, 1.0, 1.0), "0": (1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0), "1": (-1.0, -1.0, 1.0)}
# How lists of other programs begin, what they are, and the way out.
OTHERS: Mapping[str, tuple[str, str]] = {
    "point\n": ("points of elastix", "Change the signs of x and y, which are LPS, and write name,x,y,z as CSV"),
    "index\n": ("indices of elastix", "Turn them into mm, and write name,x,y,z as CSV"),
    "MNI Tag Point File": ("tags of MINC", "Write the first three numbers of each as name,x,y,z in a CSV"),
    "#!ascii label": ("a label of FreeSurfer", "Write its columns 2 to 4 in scanner RAS as name,x,y,z in a CSV"),
}
HEAD_BYTES = 1 << 12


def read_points(path: Path, ndim: int) -> pd.DataFrame:
    """The columns name, x, y[, z] of a list of points, coordinates as numbers in RAS+ mm.

    ndim: axes of the image that they are of
    Raises UsageError for a missing file, FormatError for a list of another program, with the way out, DatasetError for
    a cell that is no coordinate.
    """
    if not path.is_file():
        raise UsageError("there is no such file", str(path), "Check the path")
    name = path.name.lower()
    if name.endswith((".fcsv", ".mrk.json")):
        if ndim != len(COORDINATES):
            raise FormatError(
                "holds points of a volume, and the image is a picture", str(path), "Give a CSV of name,x,y"
            )
        return _read_fcsv(path) if name.endswith(".fcsv") else _read_markups(path)
    _refuse_others(path)
    table, needed = csv_text.read_given_table(path), ["name", *COORDINATES[:ndim]]
    missing = [column for column in needed if column not in table.columns]
    if missing:
        problem = f"has no column {' and '.join(missing)}"
        raise DatasetError(problem, str(path), f"Give the columns {', '.join(needed)}, in RAS+ mm of the fixed image")
    return _with_numbers(table[needed], str(path))


def _refuse_others(path: Path) -> None:
    """Raise FormatError for a list that another program has written."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES).decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    for beginning, (what, remedy) in OTHERS.items():
        if head.startswith(beginning):
            raise FormatError(f"holds {what}, which are not read", str(path), remedy)


def _read_fcsv(path: Path) -> pd.DataFrame:
    """The points of Slicer's list with a header of comments."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    stated = [line[1:].partition("=") for line in lines if line.startswith("#")]
    facts = {key.strip().casefold(): value.strip() for key, _, value in stated}
    columns = facts["columns"].split(",") if "columns" in facts else list(FCSV_COLUMNS)
    cells = [line.split(",") for line in lines if line.strip() and not line.startswith("#")]
    rows = [dict(zip(columns, own, strict=False)) for own in cells]
    # Before version 4.11 the axes stood as a number, 0 of RAS.
    signs = _signs(facts.get("coordinatesystem", "RAS"), path)
    points = list[dict[str, str]]()
    for row in rows:
        name = row.get("label") or row.get("id", "")
        points.append({"name": name, **{one: row.get(one, "") for one in COORDINATES}})
    return _in_ras(pd.DataFrame(points, columns=["name", *COORDINATES]), signs, path)


def _read_markups(path: Path) -> pd.DataFrame:
    """The control points of Slicer's markups in JSON."""
    frames = list[pd.DataFrame]()
    try:
        markups: Sequence[Mapping[str, Any]] = structured_text.load_json(path)["markups"]
        for markup in markups:
            signs = _signs(str(markup.get("coordinateSystem", "LPS")), path)
            frames.append(_in_ras(_control_points(markup), signs, path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        remedy = "Save it with Slicer again"
        raise FormatError("is no list of markups as Slicer writes it", str(path), remedy) from error
    if not frames:
        raise FormatError("holds no points", str(path), "Give a list with points")
    return pd.concat(frames, ignore_index=True)


def _control_points(markup: Mapping[str, Any]) -> pd.DataFrame:
    rows = list[dict[str, str]]()
    for point in markup["controlPoints"]:
        places = dict(zip(COORDINATES, map(str, point["position"]), strict=True))
        rows.append({"name": str(point.get("label") or point.get("id") or ""), **places})
    return pd.DataFrame(rows, columns=["name", *COORDINATES])


def _signs(axes: str, path: Path) -> tuple[float, float, float]:
    """Signs of coordinates in these axes; FormatError for others, such as indices."""
    if axes not in SIGNS:
        raise FormatError(f"states points in {axes!r}", str(path), "Save them in RAS or LPS")
    return SIGNS[axes]


def _in_ras(table: pd.DataFrame, signs: Sequence[float], path: Path) -> pd.DataFrame:
    numbers = _with_numbers(table, str(path))
    return numbers.assign(**{one: numbers[one] * sign for one, sign in zip(COORDINATES, signs, strict=True)})


def _with_numbers(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """The table with its coordinates as numbers. Raises DatasetError for a cell that is none."""
    texts = [csv_text.text_column(table, name, where) for name in table.columns if name != "name"]
    columns = [table_cells.numbers_in(one, strictly=True, has_codes=False).refuse_odd() for one in texts]
    for one in columns:
        for index in np.flatnonzero(np.isnan(one.values))[:1].tolist():
            problem = f"{one.column.name} in {one.column.place(index)} is blank"
            raise DatasetError(problem, where, "Give mm in each column")
    return table[["name"]].assign(**{one.column.name: one.values for one in columns})
