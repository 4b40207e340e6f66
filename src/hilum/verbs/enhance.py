"""`enhance`: cleaner images by a filter or a model, and what it changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from typing_extensions import TypedDict

from hilum import errors, keywords
from hilum.errors import DatasetError, HilumError, UsageError
from hilum.files import file_formats
from hilum.lazy import pandas as pd
from hilum.options.images import EnhanceOptions
from hilum.prediction import predictors, result_files
from hilum.reading import dataset_reading, input_cases, verb_results
from hilum.report import Figure, InNotebook, ReportPage, Section, Table, page_blocks, progress_tracking, wording
from hilum.report.figures import enhancement_figures
from hilum.report.page_blocks import Problems
from hilum.runtime import Model, record_files
from hilum.transforms import image_filters
from hilum.transforms.image_filters import FILTERS
from hilum.values import Case, Image, Problem
from hilum.values.record_schema import FailedCase, RecordHead, RecordSchema

MARKS = ("enhancement.json", "report.html")
ENHANCED, ERROR = "enhanced", "error"
# Cases of which the report has a picture.
MOST_SHOWN = 12
# The row of an image, the image, and the enhanced image.
UNPROVEN = "Nothing here proves that an image is better: a structure can be removed as well as noise, or invented."


class EnhancedRow(TypedDict):
    """An enhanced image; settings: of each channel, by a filter."""

    case: str
    image: str
    file: str
    settings: NotRequired[list[dict[str, float]]]
    change: NotRequired[float]


Enhanced = tuple[EnhancedRow, Image, Image]


class EnhancementRecord(RecordHead):
    """The images that a method has changed, by how much (RMS), and the cases that failed."""

    method: str
    words: str
    cases: list[EnhancedRow]
    failed: list[FailedCase]


ENHANCEMENT_SCHEMA = RecordSchema("hilum.enhancement", EnhancementRecord)


@dataclass(frozen=True, eq=False)
class EnhancementResult(InNotebook):
    """The enhanced images.

    cases:    a row an image: case, image, file, change (RMS in its unit), and settings of each channel by a filter
    images:   {file name: enhanced image}; empty where they were written, so that a cohort of any size fits
    problems: errors are cases without a result
    words:    the method in words, with its source
    """

    method: str
    words: str
    cases: Sequence[EnhancedRow]
    images: dict[str, Image]
    problems: Sequence[Problem]
    out: Path | None = None

    @property
    def table(self) -> pd.DataFrame:
        """A row an image: case, image, file, change."""
        return pd.DataFrame(self.cases)[["case", "image", "file", "change"]]

    @property
    def failures(self) -> list[Problem]:
        """An error for each case without a result."""
        return verb_results.failures_among(self.problems)

    def as_record(self) -> EnhancementRecord:
        """The record for `--json`, and enhancement.json."""
        failed = verb_results.failed_rows(self.failures)
        return ENHANCEMENT_SCHEMA.record_of(self, failed=failed)

    def __repr__(self) -> str:
        lines = [f"{row['file']}: changed by {wording.number_text(row['change'])} (RMS)" for row in self.cases]
        lines += [f"{one.severity}: {one.what}. {one.remedy}".strip() for one in self.problems]
        return "\n".join([*lines, *([] if self.out is None else [str(self.out / MARKS[1])])])


@keywords.takes(EnhanceOptions)
def enhance(options: EnhanceOptions) -> EnhancementResult:
    """Enhance every image of the inputs, on its own grid: each channel and frame by a filter, or the case by a model.

    method: one of `FILTERS`, or a run or package that answers with an image
    out:    a folder for `<case>_enhanced.nii.gz`, of several images `<case>_<image>_enhanced.nii.gz`, with
            enhancement.json and report.html; without it images are returned alone
    A case that fails is reported and the rest goes on; DatasetError where every one fails, UsageError for an unknown
    method.
    """
    inputs, method = keywords.as_tuple(options.inputs), _method(options)
    if not inputs:
        raise UsageError("nothing to enhance", "enhance", "Give files or folders")
    if options.out is None:
        return _enhance_cases(options, inputs, method, None)[0]
    out = Path(options.out)
    with verb_results.result_folder(out, options.overwrite, MARKS) as folder:
        result, pictures = _enhance_cases(options, inputs, method, folder)
        record_files.write_json(folder / MARKS[0], ENHANCEMENT_SCHEMA, result.as_record())
        (folder / MARKS[1]).write_text(page_blocks.render_page(_page(result, pictures)), encoding="utf-8")
    return replace(result, out=out)


def _method(options: EnhanceOptions) -> str | Model:
    """The filter's name, or the model; UsageError for what is neither, or answers with no image."""
    method = options.method
    if str(method) in FILTERS:
        return str(method)
    if not isinstance(method, Model) and not Path(method).exists():
        raise UsageError(f"there is no {str(method)!r}", "--method", f"Choose one of {', '.join(FILTERS)}, or a model")
    model = predictors.load_model(method, options.device)
    if not any(head.holds_intensities for head in model.task.heads.values()):
        raise UsageError(f"is a model for {model.task.name}", str(method), "Give one that answers with an image")
    return model


def _enhance_cases(
    options: EnhanceOptions, inputs: Sequence[Any], method: str | Model, folder: Path | None
) -> tuple[EnhancementResult, list[Figure]]:
    """Every image enhanced, and written where there is a folder; pictures of the first cases."""
    if isinstance(method, Model):
        opened, problems = input_cases.open_inputs(inputs, options.reading, method)
        each: Callable[[Case], Iterator[Enhanced]] = partial(_by_model, method, folder)
        words = f"a model for {method.task.name}"
    else:
        opened, problems = _open(options, inputs)
        each, words = partial(_by_filter, method), f"{FILTERS[method].words} ({FILTERS[method].source})"
    names = sorted({name for case in opened for name in case.images})
    ends = [ENHANCED, ERROR, *(f"{name}_{ENHANCED}" for name in names)]
    cases = result_files.with_unique_names(opened, ends)
    rows, images, pictures = list[EnhancedRow](), dict[str, Image](), list[Figure]()
    with progress_tracking.track_progress("enhancing") as tracker:
        for case, source in zip(tracker.over(cases), opened, strict=True):
            try:
                for row, before, after in each(case):
                    if folder is None:
                        images[row["file"]] = after
                    else:
                        file_formats.write(after, folder / row["file"])
                    rows.append({**row, "change": _change(before, after)})
                    if folder is not None and len(pictures) < MOST_SHOWN:
                        title = row["file"].removesuffix(f"_{ENHANCED}.nii.gz")
                        pictures.append(
                            enhancement_figures.stages_with_residual([("before", before), ("after", after)], title)
                        )
            except HilumError as error:
                problems.append(Problem.of_case(source.id, error))
    if not rows:
        raise verb_results.no_result_error("enhance", "enhanced", problems)
    return EnhancementResult(str(options.method), words, rows, images, problems), pictures


def _open(options: EnhanceOptions, inputs: Sequence[Any]) -> tuple[list[Case], list[Problem]]:
    """The cases of all inputs, and what could not be read of them."""
    cases, problems = list[Case](), list[Problem]()
    for one in inputs:
        if isinstance(one, Image):
            cases.append(Case("image", "image", {"image": one}))
            continue
        dataset = dataset_reading.open_dataset(one, options.reading, references=False)
        cases += dataset
        problems += (problem for problem in dataset.problems if problem.severity != "note")
    return cases, problems


def _by_filter(method: str, case: Case) -> Iterator[Enhanced]:
    """The row of each image of a case, the image, and the enhanced image."""
    for name in case.images:
        image = case.images[name]
        image = image.with_pixels(image.data)  # read once
        after, settings = image_filters.filter_image(image, method, case.id)
        stem = case.id if len(case.images) == 1 else f"{case.id}_{name}"
        yield {"case": case.id, "image": name, "file": f"{stem}_{ENHANCED}.nii.gz", "settings": settings}, image, after


def _by_model(model: Model, folder: Path | None, case: Case) -> Iterator[Enhanced]:
    """The same of the image that a model makes of a case, whose error bars are written beside it."""
    name, prediction = next(iter(case.images)), model.predict(case)
    if (made := prediction.maps.get(ENHANCED)) is None:
        raise DatasetError(prediction.abstained or "the model has no answer", case.id, "Give images like its own")
    image, data = case.images[name], np.asarray(made.data)
    channels = made.names or image.channels[:1]
    after = replace(image, pixels=data.reshape(-1, *data.shape[-prediction.geometry.ndim :]), channels=channels)
    others = {kind: one for kind, one in prediction.maps.items() if kind != ENHANCED and folder is not None}
    list(result_files.write_maps(others, image, folder or Path(), case.id, "nii.gz"))
    yield {"case": case.id, "image": name, "file": f"{case.id}_{ENHANCED}.nii.gz"}, image, after


def _change(before: Image, after: Image) -> float:
    """Root of the mean squared difference of the channels that both have, where both are numbers; else NaN."""
    count = min(len(before.data), len(after.data))
    pairs = np.stack([before.data[:count], after.data[:count]]).astype(np.float64)
    is_known = np.broadcast_to(before.valid, before.shape)[:count] & np.isfinite(pairs).all(axis=0)
    apart = np.diff(pairs[:, is_known], axis=0)
    return float(np.sqrt(np.mean(apart**2))) if apart.size else math.nan


def _page(result: EnhancementResult, pictures: Sequence[Figure]) -> ReportPage:
    rows = [(row["file"], row["change"]) for row in result.cases]
    return ReportPage(
        title="Enhancement",
        lead=f"{errors.count_phrase(len(result.cases), 'image')} by {result.words}.",
        sections=[
            Section("Before, after, residual", pictures),
            Section("Changes", [Table(("file", "change (RMS, unit of the image)"), rows)]),
            *([Section("Problems", [Problems(list(result.problems))])] if result.problems else []),
        ],
        notes=[UNPROVEN],
    )
