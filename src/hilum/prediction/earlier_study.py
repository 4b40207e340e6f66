"""What changed since an earlier study: structures measured in both by one model, and lesions followed one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import HilumError
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.reading import series_survey
from hilum.files.dicom.writing.dicom_answers import EarlierObjects
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.prediction import lesion_follow_up
from hilum.prediction.lesion_follow_up import YEAR, FollowUp, LesionCourse
from hilum.registration import engine
from hilum.registration.engine import LEAST_CORRELATION, ImageRegistration
from hilum.runtime import Model
from hilum.runtime.guard import image_observation
from hilum.runtime.guard.image_observation import MODALITY, REGION
from hilum.transforms import spatial_transforms
from hilum.values import Array, Case, Finding, Image, Label, Prediction, SpatialTransform
from hilum.values.finding import CHANGE
from hilum.work_state import log

COLUMNS = ("label", "before", "now", "difference", "percent", "days", "percent_a_year")
TABLE = "change.csv"
VOLUME = "ml"
# Of a structure's voxels, the share that has to lie in the other image: else a part of it may be cut off there.
LEAST_SEEN = 0.98
# Similarities that differ by less are those of images that lay on one another before.
AS_GOOD = 0.01
# A part of a label map: its values on the grid of the image, and their labels.
NamedMap = tuple[Array, tuple[Label, ...]]


@dataclass(frozen=True, eq=False)
class EarlierStudy:
    """An earlier study of a patient with what the same model answered of it.

    label_maps: {part of the task: (values on the image's grid, their labels)}; "" of its first part
    findings:   of the answer
    body_part:  that the header states
    lesions:    names of the structures of which each piece is a lesion
    days:       from it to the new study; None: by the dates in the headers
    without:    why there is no answer of it; empty where there is one
    objects:    that reports name; of a DICOM image at least its files
    """

    image: Image
    label_maps: Mapping[str, NamedMap] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    body_part: str = ""
    lesions: tuple[str, ...] = ()
    days: float | None = None
    without: str = ""
    objects: EarlierObjects | None = None

    @classmethod
    def from_prediction(
        cls, prediction: Prediction | None, findings: Sequence[Finding], image: Image, case: Case, abstained: str | None
    ) -> EarlierStudy:
        """The earlier study as a model has just answered it; abstained: why it did not."""
        if prediction is None or abstained is not None:
            return cls(image, without=f"the model abstains from the earlier study ({abstained})")
        maps = {name: (np.asarray(values), labels) for name, values, labels in prediction.label_maps}
        is_dicom = image.source is not None and image.source.is_dicom
        objects = EarlierObjects([Path(one) for one in image.source.paths]) if image.source and is_dicom else None
        return cls(image, maps, findings, str(case.covariates.get("body_part") or ""), objects=objects)


@dataclass(frozen=True, eq=False)
class StudyChange:
    """What changed since an earlier study.

    table:        a row a structure, as in `change.csv`; empty where no change is stated
    days:         between the studies; None where unknown
    findings:     "change" of each structure in percent, with the limits within which it is no change
    follow_up:    lesions of both, and the response
    refusal:      why no change is stated; empty where it is
    registration: from the earlier image to the new one
    objects:      of the earlier study, which reports name
    """

    table: pd.DataFrame
    days: float | None = None
    findings: tuple[Finding, ...] = ()
    follow_up: FollowUp | None = None
    refusal: str = ""
    notes: tuple[str, ...] = ()
    registration: ImageRegistration | None = None
    objects: EarlierObjects | None = None

    @property
    def warnings(self) -> list[str]:
        """What a reader has to know: why there is no change, or what of it is not known."""
        return [f"no change since the earlier study is stated: {self.refusal}"] if self.refusal else [*self.notes]

    def __repr__(self) -> str:
        limits = {one.group: one for one in self.findings}
        rows = [
            f"change of {row['label']}: {_words(row, limits[row['label']])}" for row in self.table.to_dict("records")
        ]
        lesion_lines = [] if self.follow_up is None else [repr(self.follow_up)]
        return "\n".join([*rows, *lesion_lines])

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        lesions = {} if self.follow_up is None else {"lesions": self.follow_up.as_record()}
        rows = self.table.replace({math.nan: None}).to_dict("records")
        return {"rows": rows, "refusal": self.refusal, "notes": [*self.notes], **lesions}

    def write(self, folder: Path) -> Iterator[Path]:
        """Write change.csv and, where lesions are followed, lesions.csv and response.json; nothing of a refusal."""
        if self.refusal:
            return
        csv_text.write_table(self.table, folder / TABLE)
        yield folder / TABLE
        if self.follow_up is not None:
            yield from self.follow_up.write(folder)


def _words(row: Mapping[Any, Any], change: Finding) -> str:
    """A row in words: volumes, percent, and whether the model's own repeat measurements differ by as much."""
    words = f"{row['before']:.4g} to {row['now']:.4g} ml ({row['percent']:+.1f} %"
    words += f" in {row['days']:.0f} days" if math.isfinite(row["days"]) else ""
    if change.low is None or change.high is None:
        return f"{words}), no limit of repeated measurements is known"
    where = "within" if change.low <= 0 <= change.high else "beyond"
    return f"{words}), {where} the limits of repeated measurements ({(change.high - change.low) / 2:.1f} %)"


def compare_studies(
    model: Model, image: Image, prediction: Prediction, findings: Sequence[Finding], earlier: EarlierStudy, part: str
) -> StudyChange:
    """What changed since an earlier study. part: of the body, as the header of the new image states it

    No change is stated of images of two people, of other parts of the body or another contrast, nor where the
    registration did not help; the refusal says why. Whatever fails here does not cost the answer.
    """
    try:
        return _compare(model, image, prediction, findings, earlier, part)
    except HilumError as error:
        return _refused(error.problem)
    except Exception as error:
        log.error("comparing with the earlier study failed: %s", errors.describe_fault(error))
        return _refused(f"comparing failed: {type(error).__name__}")


def with_changes(findings: Sequence[Finding], changes: Sequence[Finding]) -> list[Finding]:
    """The findings, the change of each structure behind its size and its measurements."""
    last = {one.group: place for place, one in enumerate(findings)}
    places = {last[one.group]: one for one in changes}
    return [row for place, one in enumerate(findings) for row in (one, *filter(None, [places.get(place)]))]


def _refused(refusal: str, registration: ImageRegistration | None = None, days: float | None = None) -> StudyChange:
    return StudyChange(pd.DataFrame(columns=list(COLUMNS)), days, refusal=refusal, registration=registration)


def _compare(
    model: Model, image: Image, prediction: Prediction, findings: Sequence[Finding], earlier: EarlierStudy, part: str
) -> StudyChange:
    new_maps = {name: (np.asarray(values), labels) for name, values, labels in prediction.label_maps}
    refusal = earlier.without or _why_unlike(image, earlier, part) or ("" if new_maps else "the model marks nothing")
    if refusal:
        return _refused(refusal)
    days, notes = lesion_follow_up.elapsed_days((earlier.image, image), earlier.days)
    # Two studies have frames of reference of their own, in which the patient need not lie alike.
    before, now = (
        replace(one, geometry=replace(one.geometry, frame_of_reference=None)) for one in (earlier.image, image)
    )
    registration = engine.register_images(before, now, where="the earlier study and the new one")
    if unhelpful := _why_unhelpful(registration):
        return _refused(unhelpful, registration, days)
    transforms = registration.transform, registration.inverse
    cut = set(_cut_structures(transforms, (before, now), (earlier.label_maps, new_maps)))
    sizes = [_sizes(model, rows) for rows in (earlier.findings, findings)]
    limits = model.record.get("repeatability") or {}
    rows = list[list[Any]]()
    changes = list[Finding]()
    for group, last in sizes[1].items():
        first = sizes[0].get(group)
        if first is None or not first.value or group in cut:
            words = "an image does not show all of it" if group in cut else "the earlier study has none of it"
            notes += (f"no change of {group} is stated: {words}",)
            continue
        rows.append(_row(group, float(first.value), float(last.value), days))
        changes.append(_finding(last, float(first.value), limits.get(group)))
    follow_up = _follow_lesions(earlier, (before, now), new_maps, registration, days)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    objects = earlier.objects and replace(earlier.objects, days=days)
    return StudyChange(table, days, tuple(changes), follow_up, "", notes, registration, objects)


def _why_unlike(image: Image, earlier: EarlierStudy, part: str) -> str:
    """Why two images are not compared at all; empty where they may be."""
    people = {series_survey.stated_patient_pseudonym(one) for one in (earlier.image, image)} - {None}
    if len(people) > 1:
        return "the earlier study is of another patient"
    if any(
        one.frames is not None or not one.geometry.is_volume or not one.geometry.physical
        for one in (earlier.image, image)
    ):
        return "change is measured in volumes of one point in time with a size in mm"
    facts = [
        image_observation.header_facts(one, {"body_part": stated}).words
        for one, stated in ((earlier.image, earlier.body_part), (image, part))
    ]
    for fact in (REGION, MODALITY):
        both = [words.get(fact) for words in facts]
        if None not in both and both[0] != both[1]:
            return f"the earlier study is of another {fact} ({both[0]}, not {both[1]})"
    agents = [_has_contrast_agent(one) for one in (earlier.image, image)]
    if None not in agents and agents[0] != agents[1]:
        return f"only the {'earlier' if agents[0] else 'new'} study was taken with a contrast agent"
    return ""


def _has_contrast_agent(image: Image) -> bool | None:
    """Whether the header of a DICOM image names a contrast agent; None of another image."""
    if image.source is None or not image.source.is_dicom:
        return None
    return bool(tags.text(header_reading.read_header(Path(image.source.paths[0])).dataset, "ContrastBolusAgent"))


def _why_unhelpful(registration: ImageRegistration) -> str:
    """Why a registration says nothing of two studies; empty where it helps, or the images lay right before."""
    if not registration.applied:
        return "; ".join(registration.notes)
    if registration.decisions["similarity"].value == engine.ACROSS:
        return f"the images have other contrasts ({registration.decisions['similarity'].because})"
    if registration.similarity == "lncc" and registration.after < LEAST_CORRELATION:
        return "the images hardly agree after registration"
    if not registration.gains and not math.isclose(registration.after, registration.before, rel_tol=AS_GOOD):
        return "the images agree no better after registration than before"
    return ""


def _cut_structures(
    transforms: tuple[SpatialTransform, SpatialTransform],
    images: tuple[Image, Image],
    maps: tuple[Mapping[str, NamedMap], Mapping[str, NamedMap]],
) -> Iterator[str]:
    """The structures of which a part lies outside the other image."""
    for own, other, transform, named in zip(images, images[::-1], transforms, maps, strict=True):
        top = np.array(other.geometry.shape) - 0.5
        for part, (values, labels) in named.items():
            for label in labels:
                points = own.geometry.to_world(np.argwhere(values == label.value))
                if not len(points):
                    continue
                places = other.geometry.to_index(spatial_transforms.carry_points(transform, points))
                if ((places >= -0.5) & (places <= top)).all(axis=1).mean() < LEAST_SEEN:
                    yield f"{part}: {label.name}" if part else label.name


def _sizes(model: Model, findings: Sequence[Finding]) -> dict[str, Finding]:
    """{structure: its size in ml} of an answer; single objects are none: in another study their numbers mean others."""
    names = set(model.task.valued_findings)
    return {
        one.group: one
        for one in findings
        if one.unit == VOLUME and one.concept in names and one.group.rpartition(": ")[2] == one.concept
    }


def _row(group: str, before: float, now: float, days: float | None) -> list[Any]:
    percent = 100 * (now - before) / before
    figures = (before, now, now - before, percent, days, percent / days * YEAR if days else None)
    return [group, *(math.nan if one is None else round(one, 6) for one in figures)]


def _finding(size: Finding, before: float, limit: float | None) -> Finding:
    """The change of a structure in percent. limit: in percent of the mean of both, beyond which it is a change"""
    now = float(size.value)
    percent = 100 * (now - before) / before
    reach = None if limit is None else limit * (before + now) / (2 * before)
    return replace(
        size,
        concept=CHANGE,
        value=round(percent, 6),
        unit="%",
        codes=(),
        low=None if reach is None else round(percent - reach, 6),
        high=None if reach is None else round(percent + reach, 6),
    )


def _follow_lesions(
    earlier: EarlierStudy,
    images: tuple[Image, Image],
    new_maps: Mapping[str, NamedMap],
    registration: ImageRegistration,
    days: float | None,
) -> FollowUp | None:
    """The lesions of both studies, linked and judged; None where no structure is said to be one."""
    if not earlier.lesions:
        return None
    masks = list[Image]()
    organs = None
    for image, maps in zip(images, (earlier.label_maps, new_maps), strict=True):
        inside, others = (_chosen(maps, image, earlier.lesions, has=has) for has in (True, False))
        masks.append(inside)
        organs = organs or others
    course = LesionCourse.from_examinations(images, masks, organs, days, ())
    determinant: NDArray[np.float32] = spatial_transforms.jacobian_determinants(
        registration.transform, images[0].geometry
    )
    return lesion_follow_up.follow_up(course, registration, determinant)


def _chosen(maps: Mapping[str, NamedMap], image: Image, names: Sequence[str], *, has: bool) -> Image:
    """The first label map with a structure of these names, with these alone; has=False: with all others."""
    values, labels = next(
        (one for one in maps.values() if any(label.name in names for label in one[1])), next(iter(maps.values()))
    )
    kept = [label for label in labels if (label.name in names) is has]
    return image.with_label_map(np.where(np.isin(values, [label.value for label in kept]), values, 0), kept)
