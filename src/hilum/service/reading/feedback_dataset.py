"""Judgements of people on a node's results as a data set: images, and masks, boxes, classes or findings.

Images and masks are NIfTI, of pictures TIFF or PNG: no header of a patient goes along. A patient is a pseudonym.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from sqlalchemy import Row, func, select

from hilum.errors import DatasetError, HilumError, UsageError
from hilum.files import file_formats, label_table
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.service.reading import judged_results, volume_slices
from hilum.service.reading.judged_results import MASK, JudgedResult
from hilum.service.reading.sliced_volumes import VolumeCache
from hilum.service.reading.volume_slices import SeriesImages
from hilum.service.records.record_database import Database
from hilum.service.records.study_index import StudyIndex
from hilum.service.records.tables import FEEDBACK, STUDIES
from hilum.service.routing import routing_rules
from hilum.values import Image, Label, bounding_boxes
from hilum.values.advice_lines import ADVICE
from hilum.values.finding_records import FindingRow
from hilum.values.table_cells import PlainCell

TABLE, VERDICTS, CLASSES = "dataset.csv", "verdicts.csv", "classes.csv"
REJECTED = "rejected"
AT_ONCE = 1.0  # bytes of voxels that stay in memory: of one image, because each is looked at once


def case_name(key: str) -> str:
    """The name in data sets of a result, or of a segmentation of another product."""
    return f"case_{key[:16]}"


@dataclass(frozen=True)
class Opinion:
    """The last verdict on a result, and what it was given on. patient: pseudonym"""

    judged: JudgedResult
    verdict: Row[*tuple[Any, ...]]
    patient: str

    @property
    def source(self) -> str:
        """The rule that made the result, or the product that sent it."""
        return str(self.judged.columns["rule"]) or self.judged.model[0]

    @property
    def name(self) -> str:
        """Name of its case."""
        return case_name(self.judged.key)

    @property
    def result_at_verdict(self) -> JudgedResult:
        """The result as it stood when the verdict was given."""
        keys = [one.key for one in self.judged.corrections]
        count = keys.index(self.verdict.correction) + 1 if self.verdict.correction in keys else 0
        return replace(self.judged, corrections=self.judged.corrections[:count])


def last_opinions(database: Database, folder: Path, since: float | None = None) -> list[Opinion]:
    """The last verdict on each result, in the order in which they were given. since: s since 1970"""
    newest = select(func.max(FEEDBACK.c.feedback)).group_by(FEEDBACK.c.judged)
    both = FEEDBACK.join(STUDIES, FEEDBACK.c.study == STUDIES.c.study)
    query = select(FEEDBACK, STUDIES.c.patient).select_from(both).where(FEEDBACK.c.feedback.in_(newest))
    if since is not None:
        query = query.where(FEEDBACK.c.at >= since)
    rows = database.rows(query.order_by(FEEDBACK.c.feedback))
    found = [(row, judged_results.find_judged(database, folder, row.judged)) for row in rows]
    return [Opinion(judged, row, row.patient or row.study) for row, judged in found if judged is not None]


def opinions_of_one_source(opinions: Sequence[Opinion], rule: str | None, where: str) -> list[Opinion]:
    """The verdicts on results of one rule, or of one other product: a data set asks one question.

    Raises UsageError where there are several and none is named, or none of that name.
    """
    sources = list(dict.fromkeys(one.source for one in opinions))
    if rule is None and len(sources) > 1:
        problem = f"people judged results of {len(sources)} rules or products: {', '.join(sources)}"
        raise UsageError(problem, where, "Choose one with --rule NAME (rule=NAME in Python)")
    of_rule = [one for one in opinions if rule in (None, one.source)]
    if not of_rule:
        named = f" of {rule!r}" if rule is not None else ""
        choice = f"Name one of {', '.join(sources)}" if sources else "Results are judged on the node's page"
        raise UsageError(f"nobody has judged a result{named}", where, choice)
    return of_rule


@dataclass(frozen=True)
class WrittenDataset:
    """A data set. cases: in it; left_out: {case: why it is not in it}"""

    cases: int
    left_out: Mapping[str, str]


def write_data_set(opinions_given: Sequence[Opinion], database: Database, node: Path, folder: Path) -> WrittenDataset:
    """Write verdicts as a data set into an empty folder. node: its folder

    Rejected results are rows of the table of verdicts alone: nobody said what is right in their place.
    Raises DatasetError where no result is left.
    """
    left_out, rows, labels = dict[str, str](), list[dict[str, PlainCell]](), dict[int, Label]()
    for opinion in opinions_given:
        if opinion.verdict.verdict == REJECTED:
            left_out[opinion.name] = "rejected"
            continue
        try:
            rows += _case(opinion, SeriesImages(database, node, VolumeCache(AT_ONCE)), folder, labels)
        except HilumError as error:
            left_out[opinion.name] = error.problem
    csv_text.write_table(
        pd.DataFrame([_verdict(one, left_out.get(one.name, "")) for one in opinions_given]), folder / VERDICTS
    )
    if not rows:
        why = "; ".join(dict.fromkeys(left_out.values()))
        raise DatasetError(f"no judged result can be used: {why}", str(node), "Have results accepted or corrected")
    csv_text.write_table(pd.DataFrame(rows), folder / TABLE)
    if labels:
        label_table.write_labels([labels[value] for value in sorted(labels)], folder / CLASSES)
    return WrittenDataset(len(opinions_given) - len(left_out), left_out)


def _verdict(one: Opinion, left_out: str) -> dict[str, PlainCell]:
    row = one.verdict
    case_columns = {"case": one.name, "patient": one.patient, "job": one.judged.key, "instance": row.instance or ""}
    opinion = {name: getattr(row, name) for name in ("account", "verdict", "reason", "text", "seconds")}
    at = pd.Timestamp(row.at, unit="s", tz="UTC").isoformat(timespec="seconds")
    name, release = one.judged.model
    model_columns = {"model": name, "version": release, "corrected": row.correction is not None, "left_out": left_out}
    return {**case_columns, "at": at, **opinion, **model_columns}


def _case(opinion: Opinion, series: SeriesImages, folder: Path, labels: dict[int, Label]) -> list[dict[str, PlainCell]]:
    """The rows of a result: one for each image, of boxes one for each box. labels: of masks, which it completes

    Raises HilumError for a result that no data set can hold.
    """
    judged = opinion.result_at_verdict
    if len(judged.series) != 1:
        problem = "its images are not here" if not judged.series else "its model takes several images"
        raise DatasetError(problem, opinion.name, "Have the images sent")
    _check_current(judged, series.database)
    images = series.images_of_row(series.rows(judged.series[0], judged.study)[0])
    rows = list[dict[str, PlainCell]]()
    for number, volume in enumerate(images):
        name = opinion.name if len(images) == 1 else f"{opinion.name}_{number + 1}"
        image = replace(volume.image, pixels=volume.voxels)
        instance = volume_slices.named_image(images, number)
        findings = [row for row in judged.standing if row.get("instance") in (None, instance)]
        path = judged.maps(instance).get(MASK)
        columns = {"case": name, "patient": opinion.patient, "image": f"images/{name}{_suffix(image)}"}
        if path is not None:
            references = [_mask(judged.read_map(path, image), image, folder, name, labels)]
        else:
            references = _stated_answers(findings, image.geometry.ndim)
        (folder / "images").mkdir(exist_ok=True)
        file_formats.write(replace(image, labels=()), folder / columns["image"])
        rows += [{**columns, "modality": image.modality, **own} for own in references]
    return rows


def _check_current(judged: JudgedResult, database: Database) -> None:
    """Raises DatasetError where the images of a job are not those that it answered."""
    inputs = judged.columns.get("inputs")
    if inputs is None:
        return
    contents = {row.series: row.inputs_hash for row in StudyIndex(database).series_of(judged.study)}
    series_now = inputs["series"]
    is_whole = all(contents.get(key) for key in series_now.values())
    if not is_whole or routing_rules.inputs_hash(inputs, contents) != inputs["hash"]:
        raise DatasetError("its images have changed since", judged.key, "Judge the result on the images as they are")


def _mask(mask: Image, image: Image, folder: Path, name: str, labels: dict[int, Label]) -> dict[str, PlainCell]:
    if mask.shape[0] > 1:
        raise DatasetError("its segments overlap", name, "Export it where it was made")
    for label in mask.labels:
        earlier = labels.setdefault(label.value, label)
        if earlier.name != label.name:
            problem = f"label {label.value} is {label.name!r}, and in another case {earlier.name!r}"
            raise DatasetError(problem, name, "Name the rule, or the product")
    path = f"masks/{name}{_suffix(image)}"
    (folder / "masks").mkdir(exist_ok=True)
    # The names of all masks stand in one table.
    file_formats.write(replace(image.with_label_map(mask.data[0], ()), labels=()), folder / path)
    return {"mask": path}


def _stated_answers(findings: Sequence[FindingRow], axes: int) -> list[dict[str, PlainCell]]:
    """Boxes, the class or the findings that a result states. Raises DatasetError for one that states none of these."""
    boxes = [row for row in findings if row.get("box") is not None]
    if boxes:
        return [
            {"label": row["concept"], **{column: corners[column] for column in bounding_boxes.table_columns(axes)}}
            for row in boxes
            for corners in [
                dict(zip(bounding_boxes.corner_columns(axes), cast("list[float]", row["value"]), strict=True))
            ]
        ]
    called = [row["concept"] for row in findings if row.get("called") and row.get("group") != ADVICE]
    if len(called) == 1:
        return [{"label": called[0]}]
    asked = [row for row in findings if isinstance(row.get("value"), bool)]
    if asked:
        present = [row["concept"] for row in asked if row["value"]]
        return [{"finding_labels": "|".join(present) or "No Finding"}]
    raise DatasetError("it states neither mask, box, class nor finding", "the result", "Nothing to learn from")


def _suffix(image: Image) -> str:
    if image.geometry.is_volume:
        return ".nii.gz"
    fits = image.dtype in (np.uint8, np.uint16) and image.frames is None and not image.geometry.physical
    return ".png" if fits else ".tiff"
