"""One job done: its inputs read, predicted, written as files that are the same whenever they are made again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.errors import DatasetError, FormatError, GeometryError, IntegrityError
from isocenter.files import DatasetOptions, file_hash, read, read_dataset, write_table
from isocenter.files.dicom import Stamp, stamped
from isocenter.lazy import pandas as pd
from isocenter.prediction import Asked, Done, computed, image_of
from isocenter.runtime import Model, write_json
from isocenter.service.records import ABSTAINED, NOTHING, REFUSED, RESULT, Answer, Job, Outcome
from isocenter.service.routing import IMAGE
from isocenter.values import Case, Geometry, Image

# What a model says no to: an input that it is not for. All else is a fault of the node.
REFUSALS = (DatasetError, FormatError, GeometryError, IntegrityError)
NAME = "answer"
ROUNDING = 1e-3  # of a voxel: a box that ends at the border of two does not reach into the second
KINDS = {".nii.gz": "nifti", ".csv": "table", ".json": "findings", ".png": "picture", ".tiff": "picture"}


@dataclass(frozen=True)
class Within:
    """Where alone is predicted: the box around a value of an earlier answer, a label map, with a margin.

    frames: frames of reference of the series that the answer is on; None where it is on that of the job itself
    """

    path: Path
    value: int
    margin_mm: float
    frames: Set[str | None] | None = None


@dataclass(frozen=True)
class Inputs:
    """Files of a job.

    series: {role: paths of its objects}
    within: None for the whole image
    """

    series: Mapping[str, Sequence[Path]]
    within: Within | None = None


def answered(job: Job, model: Model, inputs: Inputs, room: Path, root: str, text: str, send: Sequence[str]) -> Outcome:
    """Predict a job's inputs into the folder `room`, and say what it came to.

    root: of UIDs; text: that DICOM results bear; send: peers that results go to
    An input that the model is not for is refused with the reason of reading or predicting. Any other error is raised.
    """
    seconds: dict[str, float] = {}
    began = time.monotonic()
    try:
        with _case(job, inputs) as case:
            image = image_of(case)
            region = None if inputs.within is None else _region(inputs.within, image.geometry)
            asked = Asked(folder=room, findings=True, region=region)
            seconds["read"] = time.monotonic() - began
            write = computed(model, case, image, asked)
            seconds["predict"] = time.monotonic() - began - seconds["read"]
            done = write()
            covariates = sorted(name for name, value in case.covariates.items() if value is not None)
    except REFUSALS as error:
        return Outcome(REFUSED, f"{error.problem}. {error.remedy}", seconds=seconds)
    versions = {"isocenter": version("isocenter"), "model": job.model_hash}
    gate_p = done.rows[0].get("gate_p") if done.rows else None
    if done.abstained is not None:
        return Outcome(ABSTAINED, done.abstained, seconds=seconds, gate_p=gate_p, versions=versions)
    answers = _answers(job, done, room, root, text)
    seconds["write"] = time.monotonic() - began - seconds["read"] - seconds["predict"]
    findings = [asdict(one) for one in done.findings]
    reasons = [problem.what.partition(": ")[2] for problem in done.lacking]
    if send and done.found and not any(one.sop_instance_uid for one in answers):
        reasons.append("nothing of the result is a DICOM object, so nothing is sent to a peer")
    reason = "; ".join([*([] if done.found else ["the model has found nothing"]), *reasons])
    outcome = RESULT if done.found else NOTHING
    return Outcome(outcome, reason, answers, findings, send, seconds, gate_p, versions, covariates)


@contextmanager
def _case(job: Job, inputs: Inputs) -> Iterator[Case]:
    """The case of a job, its series behind links of exactly their objects: what comes later is another job's."""
    with tempfile.TemporaryDirectory(prefix="isocenter-job-") as links:
        images, covariates, patients = dict[str, Image](), dict[str, Any](), set[str]()
        for role, paths in inputs.series.items():
            folder = Path(links) / f"series-{len(images)}"
            folder.mkdir()
            for path in paths:
                (folder / path.name).symlink_to(path.absolute())
            cases = list(read_dataset(folder, DatasetOptions(references=False, channels=1)))
            if len(cases) != 1:
                problem = f"the series holds {len(cases)} images, and a job takes one"
                raise FormatError(problem, role, "Let a rule take a series of one volume")
            [image] = cases[0].images.values()
            images[role] = image
            patients.add(cases[0].patient)
            covariates = {**cases[0].covariates, **covariates}
        if len(patients) > 1:
            problem = f"the series are of {len(patients)} patients under one StudyInstanceUID (0020,000D)"
            raise FormatError(problem, NAME, "Send each patient's study under a UID of its own")
        only = next(iter(images.values()))
        images = {IMAGE: only} if len(images) == 1 else images
        yield Case(NAME, job.study, images, covariates=covariates)


def _region(within: Within, geometry: Geometry) -> str:
    """The box of an image that holds a label of an earlier answer, with its margin, as `predict --region` writes it.

    That answer may be on another series of the study: its voxels are looked for where they lie in the patient.
    """
    mask = read(within.path)
    places = np.argwhere(np.asarray(mask.data)[0] == within.value)
    if not len(places):
        raise DatasetError("the answer of the rule in `inside` marks nothing", NAME, "There is nothing to predict")
    beyond = within.margin_mm / np.asarray(mask.geometry.steps)
    ends = zip(places.min(axis=0) - 0.5 - beyond, places.max(axis=0) + 0.5 + beyond, strict=True)
    corners = np.array(list(product(*ends)))
    if within.frames is not None:
        if geometry.frame_of_reference is None or within.frames != {geometry.frame_of_reference}:
            problem = "the answer of the rule in `inside` has another frame of reference"
            raise GeometryError(problem, NAME, "Let both rules take series of one frame of reference")
        corners = geometry.to_index(mask.geometry.to_world(corners))
    firsts = np.floor(corners.min(axis=0) + 0.5 + ROUNDING).clip(0).astype(int)
    lasts = np.ceil(corners.max(axis=0) + 0.5 - ROUNDING).clip(max=geometry.shape).astype(int)
    if (firsts >= lasts).any():
        problem = "the answer of the rule in `inside` lies outside the image"
        raise DatasetError(problem, NAME, "There is nothing to predict")
    return ",".join(f"{first}:{last}" for first, last in zip(firsts, lasts, strict=True))


def _answers(job: Job, done: Done, room: Path, root: str, text: str) -> list[Answer]:
    """The files of a result, its DICOM objects stamped by the job; beside them findings and tables."""
    rows = [{name: value for name, value in row.items() if name not in ("case", "image")} for row in done.rows]
    write_table(pd.DataFrame(rows), room / "predictions.csv")
    if done.measured:
        write_table(pd.DataFrame([{**row, "case": NAME} for row in done.measured]), room / "measurements.csv")
    write_json(room / "findings.json", "isocenter.findings", {"rows": [asdict(one) for one in done.findings]})
    answers = []
    for path in sorted(path for path in room.iterdir() if path.is_file()):
        suffix = next((one for one in KINDS if path.name.endswith(one)), "")
        answer = Answer(path.name, KINDS.get(suffix, "file"), 0, "")
        if path.suffix == ".dcm":
            written = stamped(path, Stamp(root, f"{job.job} {path.name}", job.stamp, text))
            kind = "seg" if written.Modality == "SEG" else "sr" if written.Modality == "SR" else "dicom"
            answer = replace(answer, kind=kind, sop_class=str(written.SOPClassUID))
            answer = replace(answer, sop_instance_uid=str(written.SOPInstanceUID))
        answers.append(replace(answer, bytes=path.stat().st_size, sha256=file_hash(path)))
    return answers
