"""`register`: one image laid on another, in mm, with the transform, its inverse and figures of how well it fits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, cast, get_args

import numpy as np
from numpy.typing import NDArray

from hilum import errors, keywords
from hilum.errors import UsageError
from hilum.evaluation import distance, mask_overlap
from hilum.files import file_formats, point_list, result_images, transform_file
from hilum.files.dicom.reading import series_survey
from hilum.files.format_options import ReadOptions
from hilum.files.point_list import COORDINATES
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.options.images import RegisterOptions
from hilum.prediction import lesion_follow_up, predictors, result_files
from hilum.prediction.lesion_follow_up import FollowUp, LesionCourse
from hilum.reading import image_pairs, input_cases, verb_results
from hilum.registration import engine
from hilum.registration.engine import ImageRegistration, RegistrationSettings, TransformKind
from hilum.registration.linear import Initial
from hilum.registration.similarity_measures import SimilarityName
from hilum.report import Block, InNotebook, ReportPage, Section, Table, page_blocks, wording
from hilum.report.figures import registration_figures, slice_figures
from hilum.report.page_blocks import Decisions, Problems
from hilum.runtime import Model, record_files
from hilum.tasks import task_settings
from hilum.transforms import spatial_transforms
from hilum.values import (
    Array,
    Decision,
    Displacement,
    Floats,
    Geometry,
    Image,
    Label,
    Problem,
    SpatialTransform,
)
from hilum.values.plain_values import PlainValue
from hilum.values.record_schema import RecordHead, RecordSchema, StatedDecision
from hilum.values.spatial_transform import ONTO
from hilum.values.table_cells import TableRow

MARKS = ("registration.json", "report.html")
# Label values whose scores are listed: more are no structures that somebody named.
MOST_LABELS = 256
# Points that a sentence has by name.
MOST_NAMED = 5


class RegistrationRecord(RecordHead):
    """How two images were laid on each other; applied: whether the transform is the one that was found."""

    decisions: dict[str, StatedDecision]
    applied: bool | str
    rows: list[TableRow]
    notes: list[str]
    follow_up: NotRequired[Mapping[str, PlainValue]]


REGISTRATION_SCHEMA = RecordSchema("hilum.registration", RegistrationRecord)


@dataclass(frozen=True, eq=False)
class RegistrationResult(InNotebook):
    """Two images after registration.

    moved:         the moving image on the fixed grid; NaN where it does not reach
    determinant:   (*spatial) of the Jacobian on the fixed grid
    moved_labels:  the moving image's labels on the fixed grid
    moved_points:  columns name, x, y, z: the fixed image's points in the moving image
    table:         rows metric, label, value
    follow_up:     lesions of both images compared, and the response
    """

    registration: ImageRegistration
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

    def as_record(self) -> RegistrationRecord:
        """The record for `--json`, and registration.json."""
        found, rows = self.registration, self.table.to_dict("records")
        own = {"decisions": found.decisions, "applied": found.applied, "notes": found.notes}
        return REGISTRATION_SCHEMA.record_of(self, rows=rows, **own)

    def __repr__(self) -> str:
        lines = [
            f"{row['metric']} {row['label']}".strip() + f" {_text(float(row['value']))}"
            for row in self.table.to_dict("records")
        ]
        lines += [f"note: {note}" for note in self.registration.notes]
        lines += [] if self.follow_up is None else [repr(self.follow_up)]
        return "\n".join([*lines, *([] if self.out is None else [str(self.out / MARKS[1])])])


@keywords.takes(RegisterOptions)
def register(options: RegisterOptions) -> RegistrationResult:
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
    settings = _settings(options)
    out = None if options.out is None else Path(options.out)
    if out is not None:
        verb_results.refuse_taken(out, options.overwrite, MARKS)
    pair = _Pair.open(options)
    registration = _registration(pair, options, settings)
    grid, transform = pair.fixed.geometry, registration.transform
    field = None if transform.is_linear else spatial_transforms.to_single_field(transform, grid)
    determinant = (
        spatial_transforms.jacobian_determinants(transform, grid)
        if field is None
        else spatial_transforms.field_determinants(field)
    )
    outcome = _outcome(pair, registration, determinant, out)
    if out is not None:
        with verb_results.result_folder(out, options.overwrite, MARKS) as folder:
            _write(outcome, field, pair.fixed, pair.moving, folder)
            names = {
                "fixed": input_cases.name_of_source(options.fixed),
                "moving": input_cases.name_of_source(options.moving),
            }
            page = _page(outcome, pair.fixed, pair.fixed_labels, names)
            (folder / MARKS[1]).write_text(page_blocks.render_page(page), encoding="utf-8")
    return outcome


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two images with their label maps, read and checked before they are registered.

    mask:         (*spatial) the part of the fixed image that counts
    labels:       of the moving image, carried along
    fixed_labels: of the fixed image
    course:       lesions of both
    points:       columns name, x, y[, z] in the fixed image
    """

    fixed: Image
    moving: Image
    where: str
    mask: NDArray[np.bool_] | None
    labels: Image | None
    fixed_labels: Image | None
    course: LesionCourse | None
    points: pd.DataFrame | None

    @classmethod
    def open(cls, options: RegisterOptions) -> _Pair:
        """The images and label maps that are asked for."""
        reading = keywords.narrow_options(options, ReadOptions)
        fixed, moving = (
            _still(input_cases.open_image(source, reading), str(source)) for source in (options.fixed, options.moving)
        )
        where = f"{input_cases.name_of_source(options.fixed)}, {input_cases.name_of_source(options.moving)}"
        if not options.across_patients:
            _refuse_two_patients(fixed, moving, where)
        lesions = [
            input_cases.labels_on_grid(mask, image, reading)
            for mask, image in zip(options.lesions, (fixed, moving), strict=False)
        ]
        mask, labels, fixed_labels = (
            None if source is None else input_cases.labels_on_grid(source, image, reading)
            for source, image in ((options.fixed_mask, fixed), (options.labels, moving), (options.fixed_labels, fixed))
        )
        course = None
        if lesions:
            course = LesionCourse.from_examinations(
                (fixed, moving), lesions, fixed_labels, options.days, options.earlier
            )
        points = None
        if options.points is not None:
            points = point_list.read_points(Path(options.points), fixed.geometry.ndim)
        inside = None if mask is None else mask.data[0] != 0
        return cls(fixed, moving, where, inside, labels, fixed_labels, course, points)


def _registration(pair: _Pair, options: RegisterOptions, settings: RegistrationSettings) -> ImageRegistration:
    """The registration by optimisation, or by the model that is asked for."""
    if options.model is None:
        return engine.register_images(pair.fixed, pair.moving, settings, pair.mask, pair.where)
    patients = {series_survey.stated_patient_pseudonym(image) for image in (pair.fixed, pair.moving)}
    is_one = len(patients) == 1 and None not in patients
    one_world = options.initial == "world" or (options.initial == "auto" and is_one)
    return register_by_model(options.model, pair.fixed, pair.moving, pair.where, one_world=one_world)


def _outcome(
    pair: _Pair, registration: ImageRegistration, determinant: NDArray[np.float32], out: Path | None
) -> RegistrationResult:
    """What the transform makes of the moving image and of its label maps."""
    fixed, moving, transform, grid = pair.fixed, pair.moving, registration.transform, pair.fixed.geometry
    spatial_transforms.refuse_unreached(transform, moving, grid, pair.where)
    moved_labels = None if pair.labels is None else _moved_labels(pair.labels, moving, fixed, transform)
    if pair.points is not None and (outside := _points_outside(pair.points, grid)):
        registration = replace(registration, notes=(*registration.notes, outside))
    rows = list(_rows(registration, determinant, pair.mask, grid))
    if pair.labels is not None and pair.fixed_labels is not None and moved_labels is not None:
        before = spatial_transforms.carry_labels(pair.labels.data[0], moving.geometry, registration.first_guess, grid)
        names = _shared_names(pair.labels, pair.fixed_labels)
        rows += _label_rows(before, moved_labels.data[0], pair.fixed_labels, names)
    return RegistrationResult(
        registration,
        spatial_transforms.carry_image(moving, transform, grid),
        determinant,
        pd.DataFrame(rows, columns=["metric", "label", "value"]),
        moved_labels,
        None if pair.points is None else _moved_points(pair.points, transform, grid),
        None if pair.course is None else lesion_follow_up.follow_up(pair.course, registration, determinant),
        out,
    )


def _shared_names(moving: Image, fixed: Image) -> dict[int, str]:
    """{value: name} of the structures that both label maps have."""
    names = {label.value: label.name for label in moving.labels or fixed.labels}
    both = sorted(int(value) for value in np.intersect1d(moving.data, fixed.data) if value)
    return {value: names.get(value, str(value)) for value in both}


def _settings(options: RegisterOptions) -> RegistrationSettings:
    """The choices of a registration; UsageError for what does not go together."""
    choices = {
        "transform": (options.transform, get_args(TransformKind)),
        "similarity": (options.similarity, ("auto", *get_args(SimilarityName))),
        "initial": (options.initial, ("auto", *get_args(Initial))),
    }
    for name, (choice, names) in choices.items():
        if choice not in names:
            raise UsageError(f"there is no {choice!r}", f"--{name}", f"Choose {', '.join(names[:-1])} or {names[-1]}")
    if options.seconds is not None and options.transform != "deformable":
        raise UsageError(f"is not for {options.transform} registration", "--seconds", "Leave it out, or --transform")
    if len(options.lesions) not in (0, 2) or (not options.lesions and (options.days is not None or options.earlier)):
        raise UsageError(f"{len(options.lesions)} masks of lesions", "--lesions", "Give that of each image")
    settings = RegistrationSettings(
        cast("Any", options.transform),  # words, which the settings judge
        cast("Any", options.similarity),
        cast("Any", options.initial),
        options.seconds,
    )
    is_own = replace(settings, initial="auto") != RegistrationSettings() or options.fixed_mask is not None
    if options.model is not None and (is_own or options.initial == "moments"):
        remedy = "Leave out --transform, --similarity, --seconds, --fixed-mask and --initial moments"
        raise UsageError("a trained model has settings of its own", "--model", remedy)
    return settings


def _still(image: Image, where: str) -> Image:
    if image.frames is not None and image.frames > 1:
        raise UsageError(f"a series of {image.frames} frames", where, "Give one frame, as a file of its own")
    return image.frame(0) if image.frames is not None else image


def _refuse_two_patients(ours: Image, theirs: Image, where: str) -> None:
    patients = {series_survey.stated_patient_pseudonym(one) for one in (ours, theirs)} - {None}
    if len(patients) > 1:
        remedy = "Give two images of one patient, or --across-patients"
        raise UsageError("the images are of two patients", where, remedy)


def _points_outside(table: pd.DataFrame, grid: Geometry) -> str:
    """How many points lie outside the fixed image, and which; empty where none does."""
    places = _world_places(table, grid)
    index = grid.to_index(places)
    is_outside = ((index < -0.5) | (index > np.array(grid.shape) - 0.5)).any(axis=1)
    if not is_outside.any():
        return ""
    names = errors.list_phrase(map(str, np.asarray(table["name"])[is_outside]), MOST_NAMED)
    count = f"{np.count_nonzero(is_outside)} of {errors.count_phrase(len(table), 'point')}"
    return f"{count} outside the fixed image ({names}): what is found for the images says nothing of these places"


def _world_places(table: pd.DataFrame, grid: Geometry) -> Floats:
    """(points, axes) places in the image's world; that of a picture is (row, column), and x is the column."""
    places = table[list(COORDINATES[: grid.ndim])].to_numpy(dtype=float)
    return places if grid.ndim > 2 else places[:, ::-1]


def _moved_points(table: pd.DataFrame, transform: SpatialTransform, grid: Geometry) -> pd.DataFrame:
    columns = list(COORDINATES[: grid.ndim])
    places = spatial_transforms.carry_points(transform, _world_places(table, grid))
    return table.assign(**dict(zip(columns, (places if grid.ndim > 2 else places[:, ::-1]).T, strict=True)))


def _moved_labels(labels: Image, moving: Image, fixed: Image, transform: SpatialTransform) -> Image:
    values = spatial_transforms.carry_labels(labels.data[0], moving.geometry, transform, fixed.geometry)
    return fixed.with_label_map(values, labels.labels or _number_labels(values))


def _number_labels(values: Array) -> tuple[Label, ...]:
    return tuple(Label(int(value), str(int(value))) for value in np.unique(values)[:MOST_LABELS] if value)


def _rows(
    registration: ImageRegistration, determinant: NDArray[np.float32], mask: NDArray[np.bool_] | None, grid: Geometry
) -> Iterator[tuple[str, str, float]]:
    yield "similarity_before", registration.similarity, registration.before
    yield "similarity_after", registration.similarity, registration.after
    yield "folded_percent", "", spatial_transforms.folded_percent(determinant, mask)
    yield "sd_log_jacobian", "", spatial_transforms.sd_log_jacobian(determinant, mask)
    slabs = spatial_transforms.inverse_errors(registration.transform, registration.inverse, grid)
    slab_figures = [(float(one.sum()), one.size, float(one.max())) for one in slabs if one.size]
    sums, counts, largest = zip(*slab_figures, strict=True) if slab_figures else ((), (), ())
    yield "inverse_error_mm", "mean", math.fsum(sums) / sum(counts) if counts else math.nan
    yield "inverse_error_mm", "largest", max(largest, default=math.nan)


def _label_rows(
    before: Array, after: Array, reference: Image, names: Mapping[int, str]
) -> list[tuple[str, str, float]]:
    """Dice before and after, and HD95, of each structure that both images have. names: {value: its name}"""
    true = reference.data[0]
    first, last = (mask_overlap.overlap_by_label(one, true, list(names)) for one in (before, after))
    spacing = reference.geometry.affine[:-1, :-1]
    rows = []
    for value, name in names.items():
        surfaces = distance.surface_distance(
            after == value, true == value, spacing if reference.geometry.physical else None
        )
        rows += [
            ("dice_before", name, first[value].dice),
            ("dice", name, last[value].dice),
            ("hd95", name, surfaces.hd95),
        ]
    return rows


def _write(result: RegistrationResult, field: Displacement | None, fixed: Image, moving: Image, folder: Path) -> None:
    """Every file but the page."""
    moved = replace(result.moved, source=fixed.source if _is_nifti(fixed) else None)
    file_formats.write(moved, folder / "moved.nii.gz")
    transform_file.write_transform(result.transform, folder / "transform.h5")
    transform_file.write_transform(result.inverse, folder / "inverse.h5")
    grid = fixed.geometry
    if field is not None and grid.has_sides and not grid.is_sheared:
        transform_file.write_transform(SpatialTransform((field,)), folder / "field.nii.gz")
    image = replace(moved, pixels=result.determinant[None], channels=("jacobian",), modality="unknown")
    file_formats.write(image, folder / "jacobian.nii.gz")
    if result.moved_labels is not None:
        labels = result.moved_labels
        result_images.write_label_map(
            labels.data[0], labels.labels, moved, folder / "moved_labels.nii.gz", algorithm="register"
        )
    if result.moved_points is not None:
        csv_text.write_table(result.moved_points, folder / "moved_points.csv")
    if result.follow_up is not None:
        list(result.follow_up.write(folder))
    list(result_files.write_dicom_pair(result.transform, result.moved, fixed, moving, folder))
    record_files.write_json(folder / MARKS[0], REGISTRATION_SCHEMA, result.as_record())


def _is_nifti(image: Image) -> bool:
    return image.source is not None and image.source.format == "nifti"


def _page(
    outcome: RegistrationResult, fixed: Image, fixed_labels: Image | None, names: Mapping[str, str]
) -> ReportPage:
    registration = outcome.registration
    rows = [(row.metric, row.label, row.value) for row in outcome.table.itertuples()]
    problems = Problems([Problem.warning(note) for note in registration.notes], none="Nothing speaks against it.")
    return ReportPage(
        title="Registration",
        lead=f"{Path(names['moving']).name} laid on {Path(names['fixed']).name}.",
        sections=[
            Section("Figures", [Table(("figure", "of", "value"), rows), problems]),
            *([] if outcome.follow_up is None else [outcome.follow_up.section]),
            Section("Pictures", _pictures(outcome, fixed, fixed_labels)),
            Section("Decisions", [Decisions(registration.decisions.items())]),
        ],
        facts={**names, "transform": _words(registration.transform)},
        notes=["Similarity proves no alignment: look at the pictures, or score labels."],
    )


def _pictures(outcome: RegistrationResult, fixed: Image, fixed_labels: Image | None) -> list[Block]:
    near = None if fixed_labels is None else fixed_labels.data[0]
    labels, transform = outcome.moved_labels, outcome.transform
    pictures: list[Block] = [registration_figures.checkerboard(fixed, outcome.moved, "Checkerboard", near=near)]
    if labels is not None:
        caption = "Dashed: labels of the moving image, carried along."
        if near is not None:
            caption = "Solid: the fixed image's labels. Dashed: those of the moving image, carried along."
        owners = ("fixed", "moved")
        pictures.append(
            slice_figures.contours(
                fixed, near, labels.data[0], labels.labels, "Contours", caption=caption, owners=owners
            )
        )
    if not transform.is_linear:
        pictures.append(registration_figures.bent_grid(fixed, transform, "Deformed grid", near=near))
        pictures.append(registration_figures.jacobian_map(fixed, outcome.determinant, "Jacobian", near=near))
    return pictures


def _words(transform: SpatialTransform) -> str:
    return ", then ".join("a field" if isinstance(part, Displacement) else "an affine map" for part in transform.parts)


def _text(value: float) -> str:
    return "not defined" if math.isnan(value) else wording.number_text(value)


# Figures of a result that is not known.
UNKNOWN = float("nan")


def register_by_model(
    model: str | Path | Model, fixed: Image, moving: Image, where: str, *, one_world: bool
) -> ImageRegistration:
    """The answer of a trained model for two images, as a registration by optimisation states its own.

    one_world: whether both images are of one patient, whose headers may share a world
    Raises UsageError for a model of another kind, GeometryError for images that cannot lie on one another.
    """
    loaded = predictors.load_model(model, "auto")
    if not loaded.task.answers_pairs:
        remedy = "Train one with --task registration, or register without --model"
        raise UsageError(f"is a model for {loaded.task.name}", str(model), remedy)
    case = image_pairs.pair_of_images(fixed, moving, where, one_world=one_world)
    prediction = loaded.predict(case)
    transform, values = prediction.transform, prediction.values or {}
    assert transform is not None  # noqa: S101 - as its task decodes
    settings = task_settings.settings_of(loaded.task)
    decisions = {
        "transform": Decision("deformable", "a trained model answers with a field"),
        "similarity": Decision(settings["similarity"], "results are refined by it; figures are 1 less the loss"),
        "steps": Decision(settings["refine"], "of optimisation after the network"),
    }
    before, after = (values.get(one, UNKNOWN) for one in ("similarity_before", "similarity_after"))
    notes = tuple(filter(None, (prediction.abstained, *prediction.notes)))
    guess = case.images["moving"].facts[ONTO]
    return ImageRegistration(
        transform,
        spatial_transforms.invert_transform(transform),
        guess,
        decisions,
        settings["similarity"],
        before,
        after,
        notes,
    )
