"""Prompts as a person gives them: flags, a JSON file of a cohort, or the boxes of a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, ValidationError

from isocenter.errors import DatasetError, UsageError
from isocenter.files import file_formats
from isocenter.files.storage import csv_text
from isocenter.reading import verb_results
from isocenter.runtime import record_files
from isocenter.values import Prompts, bounding_boxes

SCHEMA = "isocenter.prompts"
FLAGS = "--box, --point or --scribble"


class PromptOptions(Protocol):
    """The options of a verb that takes prompts."""

    @property
    def box(self) -> Sequence[str]: ...
    @property
    def point(self) -> Sequence[str]: ...
    @property
    def scribble(self) -> str | Path | None: ...
    @property
    def unit(self) -> str: ...
    @property
    def prompts(self) -> str | Path | Prompts | Sequence[Prompts] | None: ...


def given_prompts(options: PromptOptions) -> tuple[tuple[Prompts, ...], Mapping[str, tuple[Prompts, ...]]]:
    """The prompts for every image, and {case: its own}.

    Raises UsageError for what are no prompts, and for flags beside a file; DatasetError for a file that holds none.
    """
    has_flags = bool(options.box or options.point or options.scribble is not None)
    if has_flags and options.prompts is not None:
        raise UsageError(f"a file of prompts and {FLAGS} are given", "--prompts", "Give one of them")
    match options.prompts:
        case None:
            return ((_of_flags(options),) if has_flags else ()), {}
        case str() | Path():
            return (), read_prompt_file(Path(options.prompts))
        case Prompts():
            return (options.prompts,), {}
        case _:
            return tuple(options.prompts), {}


def _of_flags(options: PromptOptions) -> Prompts:
    boxes = tuple(_numbers(box, "--box", "x0,y0[,z0],x1,y1[,z1]") for box in options.box)
    points = []
    for point in options.point:
        place, colon, inside = point.rpartition(":")
        if not colon or inside.strip() not in ("0", "1"):
            raise UsageError(f"{point!r} is no point", "--point", "Give x,y[,z]:1 inside, :0 outside")
        points.append((*_numbers(place, "--point", "x,y[,z]:1"), float(inside)))
    scribble = None if options.scribble is None else file_formats.read(options.scribble)
    return Prompts(boxes, tuple(points), scribble, unit=options.unit)  # type: ignore[arg-type]


def _numbers(text: str, where: str, form: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r} holds no numbers", where, f"Give {form}") from error


class _PromptRow(BaseModel):
    """A row of a JSON file."""

    model_config = ConfigDict(extra="forbid")
    case: str
    label: Annotated[str, Len(1)] = "object"
    boxes: list[list[float]] = []
    points: list[list[float]] = []
    scribble: str | None = None
    unit: Literal["voxel", "mm"] = "voxel"


def read_prompt_file(path: Path) -> dict[str, tuple[Prompts, ...]]:
    """{case: prompts, one a label} of a JSON file, or of the `predictions.csv` of a detector.

    A scribble is a path beside the file. Raises DatasetError for a file without prompts, UsageError for a wrong one.
    """
    verb_results.refuse_missing(path)
    by_case = _of_table(path) if path.suffix.lower() == ".csv" else _of_json(path)
    if not by_case:
        raise DatasetError("holds no prompt", str(path), "Give a box or a point for each case")
    return {case: tuple(prompts) for case, prompts in by_case.items()}


def _of_json(path: Path) -> dict[str, list[Prompts]]:
    by_case: dict[str, list[Prompts]] = {}
    for number, content in enumerate(record_files.read_json(path, SCHEMA).get("rows") or (), start=1):
        try:
            row = _PromptRow.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"row {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise DatasetError(problem, str(path), "Give case, label, boxes, points or scribble") from error
        scribble = None if row.scribble is None else file_formats.read(path.parent / row.scribble)
        boxes, points = tuple(map(tuple, row.boxes)), tuple(map(tuple, row.points))
        by_case.setdefault(row.case, []).append(Prompts(boxes, points, scribble, row.label, row.unit))
    return by_case


def _of_table(path: Path) -> dict[str, list[Prompts]]:
    """The boxes of a detector: those of one label of a case together."""
    rows: list[dict[str, Any]] = csv_text.read_text_table(path).to_dict("records")
    columns = next(
        (one for one in map(bounding_boxes.table_columns, (3, 2)) if rows and set(one) <= set(rows[0])), None
    )
    if columns is None or not {"case", "label"} <= set(rows[0]):
        raise DatasetError("is no table of boxes", str(path), "Give the predictions.csv of a detection")
    boxes: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for row in rows:
        cells = [str(row[column]) for column in columns]
        if all(cells):  # a case in which nothing was found has blanks
            boxes.setdefault((row["case"], row["label"]), []).append(_numbers(",".join(cells), str(path), "numbers"))
    by_case: dict[str, list[Prompts]] = {}
    for (case, label), own in boxes.items():
        by_case.setdefault(case, []).append(Prompts(tuple(own), label=label))
    return by_case
