"""Lesions of a baseline and a follow-up compared, and the response by measurement alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DatasetError, FormatError, GeometryError, UsageError
from hilum.evaluation import biomarkers, lesions
from hilum.evaluation.lesions import Lesion, LesionLink, Lesions, Response
from hilum.files.dicom.reading import series_survey, suv_scaling
from hilum.files.dicom.reading.suv_scaling import SUV_BW
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.registration.engine import ImageRegistration
from hilum.report import Block, Paragraph, Section, Table
from hilum.runtime import record_files
from hilum.values import Floats, Image, PlainValue

COLUMNS = (
    "lesion", "state", "before_ml", "after_ml", "change_percent", "before_mm", "after_mm", "organ", "days", "ml_a_year",
    "doubling_days", "growth_percent",
)  # fmt: skip
TABLE = "lesions.csv"
RESPONSE = "response.json"
YEAR = 365.25
CAVEAT = "By measurement alone: the contoured lesions were measured, and nobody judged them. This is no diagnosis."
# PERCIST: a lesion can be judged from 1.5 times the mean of the liver and two of its deviations on.
LIVER = "liver"
LIVER_FACTOR = 1.5
LIVER_DEVIATIONS = 2.0


@dataclass(frozen=True, eq=False)
class FollowUp:
    """Lesions of two examinations after registration.

    table:     a row a lesion, as in `lesions.csv`
    responses: {criteria: verdict}, "recist" and of PET in SUV "percist"
    days:      between the examinations; None where unknown
    notes:     what keeps a figure from being known
    """

    table: pd.DataFrame
    responses: dict[str, Response]
    days: float | None
    notes: tuple[str, ...] = ()

    def as_record(self) -> Mapping[str, PlainValue]:
        """The record in response.json."""
        verdicts = {name: one.as_record() for name, one in self.responses.items()}
        return {"days": self.days, **verdicts, "notes": [CAVEAT, *self.notes]}

    def __repr__(self) -> str:
        counts = Counter(self.table["state"])
        lines = [f"lesions: {', '.join(f'{count} {state}' for state, count in counts.items()) or 'none'}"]
        lines += [
            f"{name}: {one.verdict}, by measurement alone ({one.because})" for name, one in self.responses.items()
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def write(self, folder: Path) -> Iterator[Path]:
        """Write lesions.csv and response.json."""
        csv_text.write_table(self.table, folder / TABLE)
        record_files.write_json(folder / RESPONSE, "hilum.response", self.as_record())
        yield from (folder / TABLE, folder / RESPONSE)

    @property
    def section(self) -> Section:
        """Lesions and verdicts for the page."""
        rows = [[None if _is_blank(cell) else cell for cell in row] for row in self.table.to_numpy().tolist()]
        blocks: list[Block] = [Paragraph(CAVEAT), *(Paragraph(note) for note in self.notes)]
        verdicts = [(name.upper(), one.verdict, one.because) for name, one in self.responses.items()]
        blocks.append(Table(("criteria", "response", "rule that decided"), verdicts))
        return Section("Lesions", [*blocks, Table(COLUMNS, rows)])


def _is_blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


@dataclass(frozen=True, eq=False)
class LesionCourse:
    """A baseline and its follow-up, read and checked before they are registered.

    images, lesions: of both
    organs:  structures of the baseline
    days:    between them; None where unknown, and notes say why
    earlier: sums (mm) of the targets at follow-ups before this one
    """

    images: tuple[Image, Image]
    lesions: tuple[Lesions, Lesions]
    organs: Image | None
    days: float | None
    notes: tuple[str, ...]
    earlier: Sequence[float]

    @classmethod
    def from_examinations(
        cls,
        images: tuple[Image, Image],
        masks: Sequence[Image],
        organs: Image | None,
        days: float | None,
        records: Sequence[str | Path],
    ) -> LesionCourse:
        """The course that masks, days (else the dates of headers) and response.json of earlier follow-ups make.

        Raises UsageError for a follow-up that is older, GeometryError for images without a size in mm, DatasetError
        for a record of another baseline.
        """
        if not all(image.geometry.is_volume and image.geometry.physical for image in images):
            raise GeometryError("lesions are measured in ml", "--lesions", "Give volumes with a size in mm")
        elapsed, notes = elapsed_days(images, days)
        found_lesions = lesions.find_lesions(masks[0], organs), lesions.find_lesions(masks[1])
        return cls(images, found_lesions, organs, elapsed, notes, _earlier_sums(records, found_lesions[0]))


def elapsed_days(images: tuple[Image, Image], given: float | None) -> tuple[float | None, tuple[str, ...]]:
    """(days from baseline to follow-up, why they are not known). Raises UsageError where the follow-up is older."""
    if given is not None:
        return given, ()
    first, last = (series_survey.acquisition_day(image) for image in images)
    if first is None or last is None:
        return None, ("Days between are not known: the headers state no date. Give them as --days.",)
    if last < first:
        problem = f"the follow-up ({last}) is older than the baseline ({first})"
        raise UsageError(problem, "register", "Exchange them, or state --days if the headers are wrong")
    days = (last - first).days
    return (float(days), ()) if days else (None, ("Both were taken on one day: there is no growth a year.",))


def follow_up(course: LesionCourse, registration: ImageRegistration, determinant: NDArray[np.float32]) -> FollowUp:
    """The lesions of a registered baseline and follow-up, compared and judged."""
    before, after = course.lesions
    notes = course.notes
    links = lesions.link_lesions(before, after, registration.transform, registration.inverse)
    notes += tuple(lesions.speck_notes(before, after, links))
    rows = [_row(link, before, after, course.days, determinant) for link in links]
    responses = {"recist": lesions.recist(before, after, links, course.earlier)}
    if SUV_BW in {image.facts_of(0).get("unit") for image in course.images}:
        verdict = _uptake(course, links)
        if isinstance(verdict, Response):
            responses["percist"] = verdict
        else:
            notes += (verdict,)
    return FollowUp(pd.DataFrame(rows, columns=list(COLUMNS)), responses, course.days, notes)


def _row(
    link: LesionLink, before: Lesions, after: Lesions, days: float | None, determinant: NDArray[np.float32]
) -> list[Any]:
    ours, theirs = ([side.each[n - 1] for n in own] for side, own in ((before, link.before), (after, link.after)))
    first, last = (sum(one.ml for one in side) for side in (ours, theirs))
    last = math.nan if link.state == "unseen" else last
    name = "+".join(map(str, link.before)) if ours else f"{link.state} {link.after[0]}"
    growth = math.nan
    if ours:
        growth = 100 * (float(determinant[np.isin(before.numbers, link.before)].mean()) - 1)
    both = bool(ours and theirs) and first != last
    return [
        name,
        link.state,
        first if ours else math.nan,
        last if theirs or ours else math.nan,
        100 * (last - first) / first if ours else math.nan,
        sum(one.extent for one in ours) if ours else math.nan,
        sum(_extent(one, ours) for one in theirs) if theirs else math.nan,
        next((one.organ or one.kind for one in (*ours, *theirs) if one.organ or one.kind), None),
        days if days is not None else math.nan,
        (last - first) / days * YEAR if days else math.nan,
        days * math.log(2) / math.log(last / first) if days and both else math.nan,
        growth,
    ]


def _extent(lesion: Lesion, before: Sequence[Lesion]) -> float:
    """mm: of a node where it was one at baseline."""
    return replace(lesion, is_node=all(one.is_node for one in before) if before else lesion.is_node).extent


def _earlier_sums(records: Sequence[str | Path], baseline: Lesions) -> list[float]:
    """Sums of the same targets, from response.json of follow-ups before."""
    targets = list(lesions.choose_targets(baseline))
    first = round(sum(baseline.each[number - 1].extent for number in targets), 3)
    sums = []
    for path in map(Path, records):
        held = record_files.read_json(path, "hilum.response").get("recist", {})
        if held.get("targets") != targets or abs(held.get("sum_before_mm", math.nan) - first) > 1e-3:
            problem = "is of another baseline, or of other lesions"
            raise DatasetError(problem, str(path), "Give the same baseline to all")
        sums += [held["sum_after_mm"]] if "sum_after_mm" in held else []
    return sums


def _uptake(course: LesionCourse, links: Sequence[LesionLink]) -> Response | str:
    """PERCIST of the hottest lesions, or why there is none."""
    images = course.images
    sides = course.lesions
    if {image.facts_of(0).get("unit") for image in images} != {SUV_BW}:
        return "PERCIST needs SUV in both images."
    try:
        shares = [suv_scaling.lean_body_share(image) for image in images]
    except FormatError as error:
        return f"No PERCIST: {error.problem} ({error.where})."
    specks = [link for link in links if link.state == "speck"]
    left_out = [number for link in specks for number in link.before], [n for link in specks for n in link.after]
    first, last = (
        share * _peak(image, side, specks)
        for share, image, side, specks in zip(shares, images, sides, left_out, strict=True)
    )
    if not first > 0:
        return "No PERCIST: no lesion of the baseline takes up anything."
    new = sum(link.state == "new" for link in links)
    return lesions.percist(first, last, new, _least(images[0].data[0] * shares[0], course.organs))


def _peak(image: Image, side: Lesions, specks: Sequence[int]) -> float:
    """SUVpeak of the hottest lesion; 0 without one."""
    inside = (side.numbers > 0) & ~np.isin(side.numbers, specks)
    return biomarkers.suv_peak(image.data[0], inside, image.geometry.steps) if inside.any() else 0.0


def _least(uptake: Floats, organs: Image | None) -> float | None:
    """SULpeak from which on a lesion can be judged, by the liver where it is among the structures."""
    livers = [] if organs is None else [label.value for label in organs.labels if label.name.lower() == LIVER]
    if organs is None or not livers:
        return None
    inside = uptake[organs.data[0] == livers[0]]
    return LIVER_FACTOR * float(inside.mean()) + LIVER_DEVIATIONS * float(inside.std()) if inside.size else None
