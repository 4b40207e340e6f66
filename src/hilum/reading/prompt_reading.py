"""Prompts as a person gives them: flags, a JSON file of a cohort, or the boxes of a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hilum.errors import DatasetError, UsageError
from hilum.files import file_formats
from hilum.files.storage import csv_text
from hilum.reading import verb_results
from hilum.runtime import record_files
from hilum.values import Prompts, bounding_boxes, grouping

SCHEMA = "hilum.prompts"


def prompts_of_flags(boxes: Sequence[str], points: Sequence[str], scribble: str | Path | None, unit: str) -> Prompts:
    """What flags point at, as the command line spells it; UsageError for what are no numbers."""
    return Prompts(
        [_numbers(box, "--box", "x0,y0[,z0],x1,y1[,z1]") for box in boxes],
        [_numbers(point.replace(":", ","), "--point", "x,y[,z]:1") for point in points],
        None if scribble is None else file_formats.read(scribble),
        unit=unit,  # type: ignore[arg-type]  # it is looked at there
    )


def _numbers(text: str, where: str, form: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r} holds no numbers", where, f"Give {form}") from error


def read_prompt_file(path: Path) -> Mapping[str, Sequence[Prompts]]:
    """{case: prompts, one a label} of a JSON file, or of the `predictions.csv` of a detector.

    A scribble is a path beside the file. Raises DatasetError for a file without prompts, UsageError for wrong ones.
    """
    verb_results.refuse_missing(path)
    by_case = grouping.by_key(_rows_of_table(path) if path.suffix.lower() == ".csv" else _rows_of_json(path))
    if not by_case:
        raise DatasetError("holds no prompt", str(path), "Give a box or a point for each case")
    return by_case


def _rows_of_json(path: Path) -> list[tuple[str, Prompts]]:
    rows = []
    for number, content in enumerate(record_files.read_json(path, SCHEMA).get("rows") or (), start=1):
        try:
            given = dict(content)
            case, scribble = str(given.pop("case")), given.pop("scribble", None)
            scribble_image = None if scribble is None else file_formats.read(path.parent / scribble)
            rows.append((case, Prompts(scribble=scribble_image, **given)))
        except (KeyError, TypeError, ValueError) as error:
            problem, remedy = f"row {number} holds no prompts ({error})", "Give case, label, boxes, points or scribble"
            raise DatasetError(problem, str(path), remedy) from error
    return rows


def _rows_of_table(path: Path) -> list[tuple[str, Prompts]]:
    """The boxes of a detector: those of one label of a case together."""
    rows: list[dict[Any, Any]] = csv_text.read_text_table(path).to_dict("records")
    named = set(rows[0]) if rows else set()
    columns = next((one for one in map(bounding_boxes.table_columns, (3, 2)) if named.issuperset(one)), ())
    if not columns or not named.issuperset({"case", "label"}):
        raise DatasetError("is no table of boxes", str(path), "Give the predictions.csv of a detection")
    boxes: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for row in rows:
        cells = [row[column] for column in columns]
        if all(cells):  # a case in which nothing was found has blanks
            boxes.setdefault((row["case"], row["label"]), []).append(_numbers(",".join(cells), str(path), "numbers"))
    return [(case, Prompts(own, label=label)) for (case, label), own in boxes.items()]
