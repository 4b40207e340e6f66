"""`register`: one image laid on another, in mm, with the transform, its inverse and figures of how well it fits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import DatasetError, UsageError
from isocenter.evaluation import overlaps, surface_distance
from isocenter.files import (
    ReadOptions,
    read_given_table,
    stated_patient,
    write,
    write_label_map,
    write_table,
    write_transform,
)
from isocenter.keywords import narrowed, takes
from isocenter.lazy import pandas as pd
from isocenter.options import RegisterOptions
from isocenter.prediction import loaded_model, write_dicom_pair
from isocenter.reading import drawn_on_grid, name_of_source, opened_image, pair_of_images, refuse_taken, result_folder
from isocenter.registration import (
    Initial,
    Registration,
    RegistrationSettings,
    SimilarityName,
    TransformKind,
    registered,
)
from isocenter.report import Block, Decisions, InNotebook, Page, Problems, Section, Table, figures, number, render
from isocenter.runtime import Model, write_json
from isocenter.tasks import settings_of
from isocenter.transforms import (
    carried,
    carried_labels,
    carried_points,
    determinants,
    folded_percent,
    inverse_errors,
    inverted,
    jacobian,
    sd_log_jacobian,
    whole_field,
)
from isocenter.values import ONTO, Array, Decision, Displacement, Geometry, Image, Label, Problem, SpatialTransform
from isocenter.verbs.registering.lesions import Course, FollowUp, follow_up

MARKS = ("registration.json", "report.html")
COORDINATES = ("x", "y", "z")
# Label values whose scores are listed: more are no structures that somebody named.
MOST_LABELS = 256


@dataclass(frozen=True, eq=False)
class Registered(InNotebook):
    """Two images after registration.

    moved:         the moving image on the fixed grid; NaN where it does not reach
    determinant:   (*spatial) of the Jacobian on the fixed grid
    moved_labels:  the moving image's labels on the fixed grid
    moved_points:  columns name, x, y, z: the fixed image's points in the moving image
    table:         rows metric, label, value
    follow_up:     lesions of both images compared, and the response
    """

    registration: Registration
    moved: Image
    determinant: NDArray[np.float32]
    table: pd.DataFrame
    moved_labels: Image | None = None
    moved_points: pd.DataFrame | None = None
    follow_up: FollowUp | None = None
    out: Path | None = None

    @property
    def transform(self) -> SpatialTransform:
        """Transform from points of the fixed image to points of the moving one, RAS+ mm."""
        return self.registration.transform

    @property
    def inverse(self) -> SpatialTransform:
        """Transform from points of the moving image to points of the fixed one."""
        return self.registration.inverse

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`, and registration.json."""
        return {
            "schema": "isocenter.registration",
            "version": 1,
            "decisions": {name: asdict(one) for name, one in self.registration.decisions.items()},
            "rows": self.table.to_dict("records"),
            "notes": list(self.registration.notes),
            **({} if self.follow_up is None else {"follow_up": self.follow_up.as_record()}),
        }

    def __repr__(self) -> str:
        lines = [
            f"{row['metric']} {row['label']}".strip() + f" {_text(float(row['value']))}"
            for row in self.table.to_dict("records")
        ]
        lines += [f"note: {note}" for note in self.registration.notes]
        lines += [] if self.follow_up is None else [repr(self.follow_up)]
        return "\n".join([*lines, *([] if self.out is None else [str(self.out / MARKS[1])])])


@takes(RegisterOptions)
def register(options: RegisterOptions) -> Registered:
    """Lay the moving image on the fixed one; nothing has to be trained, and the same images give the same bits.

    out:             a folder for the moved image, the transform, its inverse, the whole field, the Jacobian, what was
                     carried along, registration.json and report.html; nothing is written without it
    labels:          a label map of the moving image, carried along; fixed_labels: one of the fixed image, only scored
    points:          CSV of name, x, y, z (RAS+ mm; of pictures without a size pixels, x the column) in the fixed image
    lesions:         masks of the lesions of the fixed image, the baseline, and of the moving one, the follow-up; organs
                     are those of fixed_labels
    seconds:         at most so long for the deformable part; the result then depends on the machine
    Raises GeometryError for images or label maps that do not fit one another, UsageError for what holds nothing.
    """
    reading = narrowed(options, ReadOptions)
    settings = _settings(options.transform, options.similarity, options.initial, options.seconds)
    if len(options.lesions) not in (0, 2) or (not options.lesions and (options.days is not None or options.earlier)):
        raise UsageError(f"{len(options.lesions)} masks of lesions", "--lesions", "Give that of each image")
    if options.model is not None and (
        replace(settings, initial="auto") != RegistrationSettings() or options.fixed_mask is not None
    ):
        remedy = "Leave out --transform, --similarity, --seconds and --fixed-mask"
        raise UsageError("a trained model has settings of its own", "--model", remedy)
    target = None if options.out is None else Path(options.out)
    if target is not None:
        refuse_taken(target, options.overwrite, MARKS)
    ours, theirs = (_still(opened_image(one, reading), str(one)) for one in (options.fixed, options.moving))
    where = f"{name_of_source(options.fixed)}, {name_of_source(options.moving)}"
    if not options.across_patients:
        _refuse_two_patients(ours, theirs, where)
    drawn = [drawn_on_grid(one, image, reading) for one, image in zip(options.lesions, (ours, theirs), strict=False)]
    mask = None if options.fixed_mask is None else drawn_on_grid(options.fixed_mask, ours, reading).data[0] != 0
    of_moving = None if options.labels is None else drawn_on_grid(options.labels, theirs, reading)
    of_fixed = None if options.fixed_labels is None else drawn_on_grid(options.fixed_labels, ours, reading)
    course = Course.of((ours, theirs), drawn, of_fixed, options.days, options.earlier) if drawn else None
    table = None if options.points is None else _points(Path(options.points), ours.geometry.ndim)
    if options.model is None:
        made = registered(ours, theirs, settings, mask, where)
    else:
        patients = {stated_patient(one) for one in (ours, theirs)}
        is_one = options.initial == "world" or (
            options.initial == "auto" and len(patients - {None}) == 1 and None not in patients
        )
        made = registered_by(options.model, ours, theirs, where, one_world=is_one)
    moved_labels = None if of_moving is None else _moved_labels(of_moving, theirs, ours, made.transform)
    field = None if made.transform.is_linear else whole_field(made.transform, ours.geometry)
    determinant = jacobian(made.transform, ours.geometry) if field is None else determinants(field)
    rows = list(_rows(made, determinant, mask, ours.geometry))
    if of_moving is not None and of_fixed is not None and moved_labels is not None:
        before = carried_labels(of_moving.data[0], theirs.geometry, made.first_guess, ours.geometry)
        both = sorted(int(one) for one in np.intersect1d(of_moving.data, of_fixed.data) if one)
        names = {label.value: label.name for label in of_moving.labels or of_fixed.labels}
        rows += _label_rows(before, moved_labels.data[0], of_fixed, {one: names.get(one, str(one)) for one in both})
    result = Registered(
        made,
        carried(theirs, made.transform, ours.geometry),
        determinant,
        pd.DataFrame(rows, columns=["metric", "label", "value"]),
        moved_labels,
        None if table is None else _moved_points(table, made.transform, ours.geometry),
        None if course is None else follow_up(course, made, determinant),
        target,
    )
    if target is not None:
        with result_folder(target, options.overwrite, MARKS) as folder:
            _write(result, field, ours, theirs, folder)
            page = _page(
                result,
                ours,
                of_fixed,
                {"fixed": name_of_source(options.fixed), "moving": name_of_source(options.moving)},
            )
            (folder / MARKS[1]).write_text(render(page), encoding="utf-8")
    return result


def _settings(transform: str, similarity: str, initial: str, seconds: float | None) -> RegistrationSettings:
    chosen = {
        "transform": (transform, get_args(TransformKind)),
        "similarity": (similarity, ("auto", *get_args(SimilarityName))),
        "initial": (initial, ("auto", *get_args(Initial))),
    }
    for name, (value, known) in chosen.items():
        if value not in known:
            raise UsageError(f"there is no {value!r}", f"--{name}", f"Choose {', '.join(known[:-1])} or {known[-1]}")
    if seconds is not None and not seconds > 0:
        raise UsageError(f"{seconds:g} s", "--seconds", "Give a number above 0")
    return RegistrationSettings(transform, similarity, initial, seconds)  # type: ignore[arg-type]


def _still(image: Image, where: str) -> Image:
    if image.frames is not None and image.frames > 1:
        raise UsageError(f"a series of {image.frames} frames", where, "Give one frame, as a file of its own")
    return image.frame(0) if image.frames is not None else image


def _refuse_two_patients(ours: Image, theirs: Image, where: str) -> None:
    patients = {stated_patient(one) for one in (ours, theirs)} - {None}
    if len(patients) > 1:
        remedy = "Give two images of one patient, or --across-patients"
        raise UsageError("the images are of two patients", where, remedy)


def _points(path: Path, ndim: int) -> pd.DataFrame:
    """The columns name, x, y[, z] of a table, coordinates as numbers."""
    if not path.is_file():
        raise UsageError("there is no such file", str(path), "Check the path")
    table, needed = read_given_table(path), ["name", *COORDINATES[:ndim]]
    missing = [column for column in needed if column not in table.columns]
    if missing:
        problem = f"has no column {' and '.join(missing)}"
        raise DatasetError(problem, str(path), f"Give the columns {', '.join(needed)}, in RAS+ mm of the fixed image")
    numbers = table[needed[1:]].apply(pd.to_numeric, errors="coerce")
    if not np.isfinite(numbers.to_numpy(dtype=float)).all():
        line = int(np.flatnonzero(~np.isfinite(numbers.to_numpy(dtype=float)).all(axis=1))[0]) + 2
        raise DatasetError(f"has a coordinate in line {line} that is no number", str(path), "Give mm in each column")
    return pd.concat([table[["name"]], numbers], axis=1)


def _moved_points(table: pd.DataFrame, transform: SpatialTransform, grid: Geometry) -> pd.DataFrame:
    columns = list(COORDINATES[: grid.ndim])
    places = table[columns].to_numpy(dtype=float)
    # A picture's world is (row, column), and x is the column.
    places = carried_points(transform, places if grid.ndim > 2 else places[:, ::-1])
    return table.assign(**dict(zip(columns, (places if grid.ndim > 2 else places[:, ::-1]).T, strict=True)))


def _moved_labels(drawn: Image, moving: Image, fixed: Image, transform: SpatialTransform) -> Image:
    values = carried_labels(drawn.data[0], moving.geometry, transform, fixed.geometry)
    return fixed.with_label_map(values, drawn.labels or _named(values))


def _named(values: Array) -> tuple[Label, ...]:
    return tuple(Label(int(value), str(int(value))) for value in np.unique(values)[:MOST_LABELS] if value)


def _rows(
    made: Registration, determinant: NDArray[np.float32], mask: NDArray[np.bool_] | None, grid: Geometry
) -> Iterator[tuple[str, str, float]]:
    yield "similarity_before", made.similarity, made.before
    yield "similarity_after", made.similarity, made.after
    yield "folded_percent", "", folded_percent(determinant, mask)
    yield "sd_log_jacobian", "", sd_log_jacobian(determinant, mask)
    parts = [one.ravel() for one in inverse_errors(made.transform, made.inverse, grid)]
    errors = np.concatenate(parts)
    yield "inverse_error_mm", "mean", float(errors.mean()) if errors.size else math.nan
    yield "inverse_error_mm", "largest", float(errors.max()) if errors.size else math.nan


def _label_rows(
    before: Array, after: Array, reference: Image, names: Mapping[int, str]
) -> list[tuple[str, str, float]]:
    """Dice before and after, and HD95, of each structure that both images have. names: {value: its name}"""
    true = reference.data[0]
    first, last = (overlaps(one, true, list(names)) for one in (before, after))
    spacing = reference.geometry.affine[:-1, :-1]
    rows = []
    for value, name in names.items():
        distance = surface_distance(after == value, true == value, spacing if reference.geometry.physical else None)
        rows += [
            ("dice_before", name, first[value].dice),
            ("dice", name, last[value].dice),
            ("hd95", name, distance.hd95),
        ]
    return rows


def _write(result: Registered, field: Displacement | None, fixed: Image, moving: Image, folder: Path) -> None:
    """Every file but the page."""
    moved = replace(result.moved, source=fixed.source if _is_nifti(fixed) else None)
    write(moved, folder / "moved.nii.gz")
    write_transform(result.transform, folder / "transform.h5")
    write_transform(result.inverse, folder / "inverse.h5")
    grid = fixed.geometry
    if field is not None and grid.has_sides and not grid.is_sheared:
        write_transform(SpatialTransform((field,)), folder / "field.nii.gz")
    image = replace(moved, pixels=result.determinant[None], channels=("jacobian",), modality="unknown")
    write(image, folder / "jacobian.nii.gz")
    if result.moved_labels is not None:
        drawn = result.moved_labels
        write_label_map(drawn.data[0], drawn.labels, moved, folder / "moved_labels.nii.gz", algorithm="register")
    if result.moved_points is not None:
        write_table(result.moved_points, folder / "moved_points.csv")
    if result.follow_up is not None:
        result.follow_up.write(folder)
    list(write_dicom_pair(result.transform, result.moved, fixed, moving, folder))
    write_json(folder / MARKS[0], "isocenter.registration", result.as_record())


def _is_nifti(image: Image) -> bool:
    return image.source is not None and image.source.format == "nifti"


def _page(result: Registered, fixed: Image, of_fixed: Image | None, facts: Mapping[str, str]) -> Page:
    made = result.registration
    near = None if of_fixed is None else of_fixed.data[0]
    drawn = result.moved_labels
    rows = [(row.metric, row.label, row.value) for row in result.table.itertuples()]
    blocks: list[Block] = [figures.checkerboard(fixed, result.moved, "Checkerboard", near=near)]
    if drawn is not None:
        caption = "Solid: the fixed image's labels. Dashed: those of the moving image, carried along."
        blocks.append(
            figures.contours(
                fixed,
                near,
                drawn.data[0],
                drawn.labels,
                "Contours",
                caption=caption if near is not None else "Dashed: labels of the moving image, carried along.",
                owners=("fixed", "moved"),
            )
        )
    if not made.transform.is_linear:
        blocks.append(figures.bent_grid(fixed, made.transform, "Deformed grid", near=near))
        blocks.append(figures.jacobian_map(fixed, result.determinant, "Jacobian", near=near))
    notes = [Problem("warning", note) for note in made.notes]
    return Page(
        title="Registration",
        lead=f"{Path(facts['moving']).name} laid on {Path(facts['fixed']).name}.",
        sections=[
            Section(
                "Figures", [Table(("figure", "of", "value"), rows), Problems(notes, none="Nothing speaks against it.")]
            ),
            *([] if result.follow_up is None else [result.follow_up.section]),
            Section("Pictures", blocks),
            Section("Decisions", [Decisions(made.decisions.items())]),
        ],
        facts={**facts, "transform": _words(made.transform)},
        notes=["Similarity proves no alignment: look at the pictures, or score labels."],
    )


def _words(transform: SpatialTransform) -> str:
    return ", then ".join("a field" if isinstance(part, Displacement) else "an affine map" for part in transform.parts)


def _text(value: float) -> str:
    return "not defined" if math.isnan(value) else number(value)


# Figures of a result that is not known.
UNKNOWN = float("nan")


def registered_by(
    model: str | Path | Model, fixed: Image, moving: Image, where: str, *, one_world: bool
) -> Registration:
    """The answer of a trained model for two images, as a registration by optimisation states its own.

    one_world: whether both images are of one patient, whose headers may share a world
    Raises UsageError for a model of another kind, GeometryError for images that cannot lie on one another.
    """
    loaded = loaded_model(model, "auto")
    if not loaded.task.sees_images:
        remedy = "Train one with --task registration, or register without --model"
        raise UsageError(f"is a model for {loaded.task.name}", str(model), remedy)
    case = pair_of_images(fixed, moving, where, one_world=one_world)
    prediction = loaded.predict(case)
    transform, values = prediction.transform, prediction.values or {}
    assert transform is not None  # noqa: S101 - as its task decodes
    own = settings_of(loaded.task)
    decisions = {
        "transform": Decision("deformable", "a trained model answers with a field"),
        "similarity": Decision(own["similarity"], "the model learnt by it; figures are 1 less the loss"),
        "steps": Decision(own["refine"], "of optimisation after the network"),
    }
    before, after = (values.get(one, UNKNOWN) for one in ("similarity_before", "similarity_after"))
    notes = tuple(filter(None, (prediction.abstained, *prediction.notes)))
    guess = case.images["moving"].facts[ONTO]
    return Registration(transform, inverted(transform), guess, decisions, own["similarity"], before, after, notes)
