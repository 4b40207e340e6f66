"""Inputs of a verb: files, series, cohorts and images as cases with their covariates, and label maps on their grids."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from hilum import errors
from hilum.errors import FormatError, GeometryError
from hilum.files import file_formats
from hilum.files.format_options import ReadOptions
from hilum.layouts.cases import table_join
from hilum.reading import alignment, dataset_reading, image_targets, imputation
from hilum.reading.image_targets import TARGET
from hilum.reading.reading_options import Covariates, Input, ReadingOptions
from hilum.runtime import Model
from hilum.runtime.covariate_encoding import Number
from hilum.tasks import task_settings
from hilum.transforms import COLOUR
from hilum.values import Case, Image, LazyMapping, Problem

if TYPE_CHECKING:
    from hilum.values.covariate_values import CovariateValues

# Between the name of a patient and what a file's name says of the image.
SEPARATORS = ("_", "-", ".", " ")


def open_inputs(inputs: Sequence[Input], reading: ReadingOptions, model: Model) -> tuple[list[Case], list[Problem]]:
    """The cases of all inputs, what could not be read of them, and as warnings what was left out."""
    alignment.refuse_dense(model.task, reading.align)
    channels = model.preprocessing.channels
    count, absent = 1 if channels == COLOUR else len(channels), bool(model.preprocessing.settings.get("absent"))
    absent = absent or reading.impute is not None
    needs = model.task.needs if model.task.answers_pairs else ()
    opened = [_open_input(one, reading, count, absent, needs) for one in inputs]
    opened = [
        ([imputation.in_order(_with_names(case, channels), channels) for case in cases], of_data)
        for cases, of_data in opened
    ]
    settings = task_settings.settings_of(model.task) if TARGET in model.task.needs else {}
    problems = [_in_full(problem) for _, of_data in opened for problem in of_data if problem.severity != "note"]
    return image_targets.with_finer_images([case for cases, _ in opened for case in cases], settings), problems


def _with_names(case: Case, channels: Sequence[str]) -> Case:
    """The case with the model's names of its images, where these only begin with one more word: t1 of x_t1.

    So files of one patient alone are called, whose names nothing parts from that of the patient.
    """
    ends = {name: max((own for own in channels if name.endswith(own)), key=len, default="") for name in case.images}
    begun = {name.removesuffix(end) for name, end in ends.items()}
    is_begun = len(begun) == 1 and begun.pop()[-1:] in SEPARATORS
    if not is_begun or len(ends) < 2 or len(set(ends.values())) < len(ends) or "" in ends.values():
        return case
    named = {end: partial(case.images.__getitem__, name) for name, end in ends.items()}
    return replace(case, images=LazyMapping({own: named[own] for own in channels if own in named}))


def _in_full(problem: Problem) -> Problem:
    """A warning that names in its words what it is about, as errors do."""
    if problem.severity == "error" or not problem.cases:
        return problem
    parts = (f"{problem.what}: {errors.list_phrase(problem.cases)}", problem.why)
    return replace(problem, what="; ".join(filter(None, parts)))


def with_given_covariates(
    cases: Sequence[Case], covariates: Covariates, model: Model
) -> tuple[list[Case], list[Problem]]:
    """The cases with these covariates in place of those of their own tables, and what was understood of these.

    Raises DatasetError for a cell that is no number where the model has one.
    """
    match covariates:
        case None:
            tables: Sequence[str | Path] = ()
        case Mapping():
            given = cast("CovariateValues", covariates)  # pairs are readings that a column takes as they are
            return [replace(case, covariates=given) for case in cases], []
        case str() | Path():
            tables = [covariates]
        case _:
            tables = covariates
    merged, notes = list(cases), list[Problem]()
    firsts = [case.files[0] for case in cases if case.files]
    numbers = [one.name for one in model.networks.context.columns if isinstance(one, Number)]
    for table in tables:
        rows, read = table_join.covariates_of_cases(
            Path(table), [(case.id, case.patient) for case in cases], firsts, numbers
        )
        notes += (one for one in read if not one.column)
        merged = [replace(case, covariates={**case.covariates, **row}) for case, row in zip(merged, rows, strict=True)]
    return merged, notes


def _open_input(
    given_input: Input, reading: ReadingOptions, channels: int, absent: bool, needs: Collection[str]
) -> tuple[list[Case], list[Problem]]:
    """The cases of one input, and what could not be read of it."""
    match given_input:
        case Image():
            paths = given_input.source.paths if given_input.source else ()
            name = Path(paths[0]).name.split(".")[0] if paths else "image"
            return [Case(name, name, {"image": reading.state_missing(given_input)})], []
        case _:
            dataset = dataset_reading.open_dataset(
                given_input, reading, references=False, channels=channels, absent=absent, needs=needs
            )
            return list(dataset), list(dataset.problems)


def open_image(source: str | Path | Image, options: ReadOptions) -> Image:
    """The image itself, or that of a path."""
    return source if isinstance(source, Image) else file_formats.read_image(source, options)


def name_of_source(source: str | Path | Image) -> str:
    """The path that it came from."""
    if not isinstance(source, Image):
        return str(source)
    return source.source.paths[0] if source.source is not None and source.source.paths else "image"


def labels_on_grid(source: str | Path | Image, image: Image, options: ReadOptions) -> Image:
    """A label map or mask on an image's own grid, its axes turned where only these differ."""
    label_map = open_image(source, options).on_axes_of(image.geometry)
    where = name_of_source(source)
    if label_map.shape[1:] != image.geometry.shape or not label_map.geometry.equals(image.geometry):
        problem = f"lies on another grid than its image: {label_map.geometry.difference(image.geometry)}"
        raise GeometryError(problem, where, "Give one that was contoured on the image")
    if not np.array_equal(label_map.data, np.rint(label_map.data)):
        raise FormatError("holds numbers that are no labels", where, "Give whole numbers, one a structure")
    values = label_map.data[:1]
    kind = np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max()))
    return label_map.with_pixels(values.astype(kind if kind.kind in "iu" else np.int32))
