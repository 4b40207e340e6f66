"""`enhance`: cleaner images by a filter that was not trained, and what it changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from isocenter import keywords
from isocenter.errors import IsocenterError, UsageError
from isocenter.files import file_formats
from isocenter.lazy import pandas as pd
from isocenter.options.images import EnhanceOptions
from isocenter.prediction import result_files
from isocenter.reading import dataset_reading, verb_results
from isocenter.report import Figure, InNotebook, ReportPage, Section, Table, page_blocks, progress_tracking, wording
from isocenter.report.figures import enhancement_figures
from isocenter.report.page_blocks import Problems
from isocenter.runtime import record_files
from isocenter.transforms import image_filters
from isocenter.transforms.image_filters import FILTERS
from isocenter.values import Case, Image, Problem

MARKS = ("enhancement.json", "report.html")
ENHANCED = "enhanced"
# Cases of which the report has a picture.
MOST_SHOWN = 12
UNPROVEN = "Nothing here proves that an image is better: a filter can remove a structure as well as noise."


@dataclass(frozen=True, eq=False)
class EnhancementResult(InNotebook):
    """The enhanced images.

    cases:    a row an image: case, image, file, change (RMS in the unit of the image), settings of each channel
    images:   {file name: enhanced image}; empty where they were written, so that a cohort of any size fits
    problems: errors are cases without a result
    """

    method: str
    cases: Sequence[dict[str, Any]]
    images: dict[str, Image]
    problems: Sequence[Problem]
    out: Path | None = None

    @property
    def table(self) -> pd.DataFrame:
        """A row an image: case, image, file, change."""
        return pd.DataFrame(self.cases).drop(columns="settings")

    @property
    def failures(self) -> list[Problem]:
        """An error for each case without a result."""
        return verb_results.failures_among(self.problems)

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`, and enhancement.json."""
        return {
            "schema": "isocenter.enhancement",
            "version": 1,
            "method": self.method,
            "words": FILTERS[self.method].words,
            "source": FILTERS[self.method].source,
            "cases": list(self.cases),
            "failed": verb_results.failed_rows(self.failures),
        }

    def __repr__(self) -> str:
        lines = [f"{row['file']}: changed by {wording.number_text(row['change'])} (RMS)" for row in self.cases]
        lines += [f"{one.severity}: {one.what}. {one.remedy}".strip() for one in self.problems]
        return "\n".join([*lines, *([] if self.out is None else [str(self.out / MARKS[1])])])


@keywords.takes(EnhanceOptions)
def enhance(options: EnhanceOptions) -> EnhancementResult:
    """Enhance every image of the inputs, each channel and frame by itself, on its own grid.

    out: a folder for `<case>_enhanced.nii.gz`, of several images `<case>_<image>_enhanced.nii.gz`, with
         enhancement.json and report.html; without it images are returned alone
    A case that fails is reported and the rest goes on; DatasetError where every one fails, UsageError for an unknown
    method.
    """
    inputs = keywords.as_tuple(options.inputs)
    if not inputs:
        raise UsageError("nothing to enhance", "enhance", "Give files or folders")
    if options.method not in FILTERS:
        problem = f"there is no method {options.method!r}"
        raise UsageError(problem, "--method", f"Choose one of {', '.join(FILTERS)}")
    if options.out is None:
        return _enhance_cases(options, inputs, None)[0]
    out = Path(options.out)
    with verb_results.result_folder(out, options.overwrite, MARKS) as folder:
        result, pictures = _enhance_cases(options, inputs, folder)
        record_files.write_json(folder / MARKS[0], "isocenter.enhancement", result.as_record())
        page = _page(result, pictures)
        (folder / MARKS[1]).write_text(page_blocks.render_page(page), encoding="utf-8")
    return replace(result, out=out)


def _enhance_cases(
    options: EnhanceOptions, inputs: Sequence[Any], folder: Path | None
) -> tuple[EnhancementResult, list[Figure]]:
    """Every image enhanced, and written where there is a folder; pictures of the first cases."""
    opened, problems = _open(options, inputs)
    names = sorted({name for case in opened for name in case.images})
    cases = result_files.with_unique_names(opened, [ENHANCED, *(f"{name}_{ENHANCED}" for name in names)])
    rows, images, pictures = list[dict[str, Any]](), dict[str, Image](), list[Figure]()
    with progress_tracking.track_progress("enhancing") as tracker:
        for done, (case, source) in enumerate(zip(cases, opened, strict=True), start=1):
            try:
                for row, before, after in _enhance_images(case, options.method):
                    if folder is None:
                        images[row["file"]] = after
                    else:
                        file_formats.write(after, folder / row["file"])
                    rows.append(row)
                    if folder is not None and len(pictures) < MOST_SHOWN:
                        title = row["file"].removesuffix(f"_{ENHANCED}.nii.gz")
                        pictures.append(enhancement_figures.image_stages([("before", before), ("after", after)], title))
            except IsocenterError as error:
                problems.append(Problem.of_case(source.id, error))
            tracker(done, len(cases))
    if not rows:
        raise verb_results.no_result_error("enhance", "enhanced", problems)
    return EnhancementResult(options.method, rows, images, problems), pictures


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


def _enhance_images(case: Case, method: str) -> Iterator[tuple[dict[str, Any], Image, Image]]:
    """The row of each image of a case, the image, and the enhanced image."""
    for name in case.images:
        image = case.images[name]
        image = image.with_pixels(image.data)  # read once
        after, settings = image_filters.filter_image(image, method, case.id)
        stem = case.id if len(case.images) == 1 else f"{case.id}_{name}"
        measured = np.broadcast_to(image.valid, image.shape)
        change = float(np.sqrt(np.mean((after.data[measured].astype(np.float64) - image.data[measured]) ** 2)))
        row = {"case": case.id, "image": name, "file": f"{stem}_{ENHANCED}.nii.gz", "change": change}
        yield {**row, "settings": settings}, image, after


def _page(result: EnhancementResult, pictures: Sequence[Figure]) -> ReportPage:
    kind = FILTERS[result.method]
    rows = [(row["file"], row["change"], _settings_words(row["settings"])) for row in result.cases]
    more = len(result.cases) - len(pictures)
    text = [f"{more} more images have no picture here."] * bool(more)
    return ReportPage(
        title="Enhancement",
        lead=f"{len(result.cases)} images by {kind.words}.",
        sections=[
            Section("Before, after, residual", [*pictures, *map(page_blocks.Paragraph, text)]),
            Section("Changes", [Table(("image", "change (RMS, unit of the image)", "settings"), rows)]),
            *([Section("Problems", [Problems(list(result.problems))])] if result.problems else []),
        ],
        facts={"method": kind.words, "source": kind.source},
        notes=[UNPROVEN],
    )


def _settings_words(settings: Sequence[dict[str, Any]]) -> str:
    """The settings of each channel, its name only where there are several."""
    texts = []
    for one in settings:
        words = ", ".join(f"{name} {wording.number_text(one[name])}" for name in one if name != "channel")
        texts.append(words if len(settings) == 1 else f"{one['channel']}: {words}")
    return "; ".join(texts)
