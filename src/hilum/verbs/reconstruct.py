"""`reconstruct`: images from what scanners measured, with the way that led to them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hilum import errors, keywords
from hilum.errors import HilumError, UsageError
from hilum.files import file_formats, measurement_file
from hilum.lazy import pandas as pd
from hilum.options.images import ReconstructOptions
from hilum.prediction import model_reconstruction, predictors
from hilum.reading import verb_results
from hilum.report import Figure, InNotebook, ReportPage, Section, Table, page_blocks, progress_tracking, wording
from hilum.report.figures import enhancement_figures, slice_figures
from hilum.report.page_blocks import Problems
from hilum.runtime import Model, record_files
from hilum.transforms.operators import reconstruction_methods
from hilum.transforms.operators.reconstruction_methods import METHODS, ReconstructedImage
from hilum.values import Array, Geometry, Image, Measurement, Problem
from hilum.values.record_schema import FailedCase, RecordHead, RecordSchema
from hilum.values.table_cells import TableRow

MARKS = ("reconstruction.json", "report.html")
ENDING, ERROR = "_reconstruction.nii.gz", "_error.nii.gz"
# Cases of which the report has a picture: the first ones.
MOST_SHOWN = 12
UNPROVEN = "A small residual says that an image explains the measurement, not that it is the only one that does."


class ReconstructionRecord(RecordHead):
    """The measurements of which images were made, how, and those that failed."""

    cases: list[TableRow]
    failed: list[FailedCase]


SCHEMA = RecordSchema("hilum.reconstruction", ReconstructionRecord)


@dataclass(frozen=True, eq=False)
class ReconstructionResult(InNotebook):
    """The images of measurements.

    cases:    a row each: case, kind, file, method and why, weight and how it was found, iterations, noise, residual,
              seconds
    images:   {case: image}; empty where they were written
    problems: errors are measurements without an image
    """

    cases: Sequence[dict[str, Any]]
    images: Mapping[str, Image]
    problems: Sequence[Problem]
    out: Path | None = None

    @property
    def table(self) -> pd.DataFrame:
        """A row a case."""
        return pd.DataFrame(self.cases)

    @property
    def failures(self) -> list[Problem]:
        """An error for each measurement without an image."""
        return verb_results.failures_among(self.problems)

    def as_record(self) -> ReconstructionRecord:
        """The record for `--json`, and reconstruction.json."""
        return SCHEMA.record_of(self, failed=verb_results.failed_rows(self.failures))

    def __repr__(self) -> str:
        lines = [
            f"{row['case']}: {_words(row['method'])} ({row['method_because']})"
            + ("" if row["residual"] is None else f", residual {wording.number_text(row['residual'])}")
            for row in self.cases
        ]
        lines += [f"{one.severity}: {one.what}. {one.remedy}".strip() for one in self.problems]
        return "\n".join([*lines, *([] if self.out is None else [str(self.out / MARKS[1])])])


@keywords.takes(ReconstructOptions)
def reconstruct(options: ReconstructOptions) -> ReconstructionResult:
    """Make an image of each measurement, on the grid that its acquisition states.

    method: a name, or a run or package of --task reconstruction
    out:    a folder for `<case>_reconstruction.nii.gz` (magnitude; axes as in the acquisition's `image`), a model's
            `<case>_error.nii.gz`, reconstruction.json and report.html; without it images are returned alone
    A measurement that fails is reported and the rest goes on; DatasetError where every one fails, UsageError for an
    unknown method or a file that is not there.
    """
    inputs = keywords.as_tuple(options.inputs)
    if not inputs:
        raise UsageError("nothing to reconstruct", "reconstruct", "Give files or folders")
    for one in (*inputs, *filter(None, [options.acquisition])):
        verb_results.refuse_missing(Path(one))
    model = None if options.method in (reconstruction_methods.AUTO, *METHODS) else _load_model(options.method)
    files = [file for one in inputs for file in measurement_file.list_measurements(Path(one))]
    if options.out is None:
        return _reconstruct_files(options, files, None, model)[0]
    out = Path(options.out)
    with verb_results.result_folder(out, options.overwrite, MARKS) as folder:
        result, pictures = _reconstruct_files(options, files, folder, model)
        record_files.write_json(folder / MARKS[0], SCHEMA, result.as_record())
        (folder / MARKS[1]).write_text(page_blocks.render_page(_page(result, pictures)), encoding="utf-8")
    return replace(result, out=out)


def _load_model(method: str) -> Model:
    """The model that a method names. UsageError where it is none, or answers no measurements."""
    if not Path(method).exists():
        remedy = f"Choose one of {', '.join([reconstruction_methods.AUTO, *METHODS])}, or a run"
        raise UsageError(f"there is no method {method!r}", "--method", remedy)
    model = predictors.load_model(method, "auto")
    if not model.task.answers_measurements:
        remedy = "Train one with --task reconstruction; images are what predict takes"
        raise UsageError(f"is a model for {model.task.name}, which takes images", method, remedy)
    return model


def _reconstruct_files(
    options: ReconstructOptions, files: Sequence[Path], folder: Path | None, model: Model | None
) -> tuple[ReconstructionResult, list[Figure]]:
    """Every measurement, its image written where there is a folder; pictures of the first ones."""
    acquisition = None if options.acquisition is None else Path(options.acquisition)
    rows, images, problems, pictures = (list[dict[str, Any]](), dict[str, Image](), list[Problem](), list[Figure]())
    with progress_tracking.track_progress("reconstructing") as tracker:
        for file in tracker.over(files):
            started = time.perf_counter()
            try:
                measurement = measurement_file.read_measurement(file, acquisition)
                if measurement.case in {row["case"] for row in rows}:
                    raise UsageError("is a second file of this name", str(file), "Give it another name")
                if model is not None:
                    found = model_reconstruction.reconstruct_by_model(model, measurement, options.method)
                else:
                    found = reconstruction_methods.reconstruct_measurement(
                        measurement, options.method, weight=options.weight, iterations=options.iterations
                    )
                problems += [
                    Problem.warning(
                        f"{measurement.case}: {words}", (measurement.case,), remedy="Look at the acquisition"
                    )
                    for words in reconstruction_methods.geometry_warnings(measurement, found)
                ]
                image = image_of(measurement, found.data)
                if folder is None:
                    images[measurement.case] = image
                else:
                    file_formats.write(image, folder / f"{measurement.case}{ENDING}")
                    if found.error is not None:
                        file_formats.write(image_of(measurement, found.error), folder / f"{measurement.case}{ERROR}")
                    if len(pictures) < MOST_SHOWN:
                        pictures.append(_picture(measurement, found, image))
                names = {"case": measurement.case, "kind": measurement.acquisition.kind, "measurement": file.name}
                rows.append({**names, **found.as_record(), "seconds": round(time.perf_counter() - started, 3)})
            except HilumError as error:
                problems.append(Problem.of_case(file.name.removesuffix(file.suffix), error))
    if not rows:
        raise verb_results.no_result_error("reconstruct", "reconstructed", problems)
    return ReconstructionResult(rows, images, problems), pictures


def image_of(measurement: Measurement, data: Array) -> Image:
    """The image of (slices, *shape), in mm, of unknown sides; slices are its last axis, 1 mm apart where not stated."""
    scan, pixels = measurement.acquisition, np.moveaxis(data, 0, -1)
    grid = Geometry.of_spacing(pixels.shape, (*scan.spacing, scan.slice_mm or 1.0))
    return Image(pixels[None].astype(np.float32), grid, modality="CT" if scan.is_ray_sum else "MR")


def _picture(measurement: Measurement, found: ReconstructedImage, image: Image) -> Figure:
    """The image; beside it the plain inverse and what the method changed, where it is another one."""
    title, words = measurement.case, _words(found.method.value)
    if found.plain is None:
        return slice_figures.contours(image, None, None, (), title=f"{title}: {words}")
    return enhancement_figures.stages_with_residual(
        [("plain inverse", image_of(measurement, found.plain)), (words, image)], title
    )


def _page(result: ReconstructionResult, pictures: Sequence[Figure]) -> ReportPage:
    columns = ("case", "method", "because", "weight", "weight found", "steps", "noise", "residual", "seconds")
    keys = (
        "case",
        "method",
        "method_because",
        "weight",
        "weight_because",
        "iterations",
        "noise",
        "residual",
        "seconds",
    )
    rows = [tuple(row.get(key) for key in keys) for row in result.cases]
    used = {row["method"]: METHODS[row["method"]] for row in result.cases if row["method"] in METHODS}
    return ReportPage(
        title="Reconstruction",
        lead=f"{errors.count_phrase(len(result.cases), 'measurement')} made into images.",
        sections=[
            Section("Images", list(pictures)),
            Section("Ways", [Table(columns, rows)]),
            *([Section("Problems", [Problems(list(result.problems))])] if result.problems else []),
        ],
        facts={name: f"{one.words} ({one.source})" for name, one in used.items()},
        notes=[UNPROVEN],
    )


def _words(method: str) -> str:
    """The words of a method, or of a model."""
    return METHODS[method].words if method in METHODS else f"the model {Path(method).name}"
