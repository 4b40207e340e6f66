"""One job done: its inputs read, predicted, written as files that are the same whenever they are made again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
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
from isocenter.values import Case, Finding, Image

# What a model says no to: an input that it is not for. All else is a fault of the node.
REFUSALS = (DatasetError, FormatError, GeometryError, IntegrityError)
NAME = "answer"
KINDS = {".nii.gz": "nifti", ".csv": "table", ".json": "findings", ".png": "picture", ".tiff": "picture"}


@dataclass(frozen=True)
class Inputs:
    """Files of a job.

    series: {role: paths of its objects}
    within: a label map, a value in it and a margin (mm), in whose box alone is predicted; None for the whole image
    """

    series: Mapping[str, Sequence[Path]]
    within: tuple[Path, int, float] | None = None


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
            region = None if inputs.within is None else _region(inputs.within)
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
    has_result = any(_says_something(one) for one in done.findings)
    reasons = [problem.what.partition(": ")[2] for problem in done.lacking]
    reason = "; ".join([*([] if has_result else ["the model has found nothing"]), *reasons])
    outcome = RESULT if has_result else NOTHING
    return Outcome(outcome, reason, answers, findings, send, seconds, gate_p, versions, covariates)


@contextmanager
def _case(job: Job, inputs: Inputs) -> Iterator[Case]:
    """The case of a job, its series behind links of exactly their objects: what comes later is another job's."""
    with tempfile.TemporaryDirectory(prefix="isocenter-job-") as links:
        images, covariates = dict[str, Image](), dict[str, Any]()
        for role, paths in inputs.series.items():
            folder = Path(links) / f"series-{len(images)}"
            folder.mkdir()
            for path in paths:
                (folder / path.name).symlink_to(path.absolute())
            cases = list(read_dataset(folder, DatasetOptions(references=False, channels=1)))
            if len(cases) != 1:
                problem = f"the series holds {len(cases)} volumes on different grids"
                raise FormatError(problem, role, "Let a rule take a series of one volume")
            [image] = cases[0].images.values()
            images[role] = image
            covariates = {**cases[0].covariates, **covariates}
        only = next(iter(images.values()))
        images = {IMAGE: only} if len(images) == 1 else images
        yield Case(NAME, job.study, images, covariates=covariates)


def _region(within: tuple[Path, int, float]) -> str:
    """The box that holds a label of an earlier answer, with its margin, as `predict --region` writes it."""
    path, value, margin = within
    mask = read(path)
    marked = np.asarray(mask.data)[0] == value
    if not marked.any():
        raise DatasetError("the answer that it is to look within marks nothing", NAME, "There is nothing to predict")
    spacing = mask.geometry.spacing or (1.0,) * marked.ndim
    parts = []
    for axis, (size, step) in enumerate(zip(marked.shape, spacing, strict=True)):
        other = tuple(one for one in range(marked.ndim) if one != axis)
        places = np.flatnonzero(marked.any(axis=other))
        beyond = int(np.ceil(margin / step))
        parts.append(f"{max(0, places[0] - beyond)}:{min(size, places[-1] + 1 + beyond)}")
    return ",".join(parts)


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


def _says_something(finding: Finding) -> bool:
    """Whether a finding is there: a measure that is not 0, or a probability, whatever it is."""
    return finding.probability is not None or bool(finding.value)
