"""The record of findings of predicted images, and its file: the same for the node and for `predict`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hilum.prediction import result_files
from hilum.prediction.case_prediction import PredictionOutcome
from hilum.runtime import Model, record_files
from hilum.values import ANSWERED, Finding
from hilum.values.advice_lines import ADVICE
from hilum.values.case_outcome import ABSTAINED
from hilum.values.finding import MOST_FRAMES, FindingsRecord
from hilum.values.finding_records import FINDINGS_SCHEMA

FINDINGS = "findings.json"
NOTHING_FOUND = "the model has found nothing"


@dataclass(frozen=True)
class ExaminedImage:
    """An image that was predicted, as one of several.

    name: stands before what is said of it; empty for the only one
    place: what its findings state beside the result: its case, and in DICOM its SOP Instance UID
    """

    done: PredictionOutcome
    name: str = ""
    place: Mapping[str, str] = field(default_factory=dict)


def findings_record(images: Sequence[ExaminedImage], model: Model) -> FindingsRecord:
    """The findings of all images, with one outcome: answered where one of them has an answer.

    The reason says of which images the model abstains, and which parts of results could not be written.
    """
    has_result = any(one.done.found for one in images)
    abstained = [
        f"{one.name}{one.done.abstained}{_advised(one.done)}" for one in images if one.done.abstained is not None
    ]
    lacking = [f"{one.name}{words}" for one in images for words in _lacking(one.done)]
    if len(abstained) == len(images) and not has_result:
        return FindingsRecord((), ABSTAINED, "; ".join(abstained), result_files.model_identity(model))
    placed = [one for one in images if len(_frames(one.done)) <= MOST_FRAMES]
    rows = [(_finite(finding), one.place) for one in placed for finding in one.done.findings]
    findings = [finding for one in placed for finding in one.done.findings]
    unstated = [f"{own.concept} is not a number" for own, (made, _) in zip(findings, rows, strict=True) if made != own]
    unstated += [
        f"{one.name}{len(_frames(one.done))} frames have findings, and those of more than {MOST_FRAMES} are stated in "
        "predictions.csv alone"
        for one in images
        if one not in placed
    ]
    reasons = [*([] if has_result else [NOTHING_FOUND]), *abstained, *lacking, *unstated]
    return FindingsRecord(
        tuple(finding for finding, _ in rows),
        ABSTAINED if abstained and not has_result else ANSWERED,
        "; ".join(reasons),
        result_files.model_identity(model),
        tuple(place for _, place in rows) if any(place for _, place in rows) else (),
        is_empty=not has_result and not abstained,
    )


def _advised(done: PredictionOutcome) -> str:
    """What is advised where there is no answer, behind the reason."""
    advised = [str(row[ADVICE]) for row in done.rows if ADVICE in row]
    return f"; {ADVICE}: {advised[0]}" if advised and not done.findings else ""


def _frames(done: PredictionOutcome) -> set[int]:
    """The frames of a clip that have findings."""
    return {one.frame for one in done.findings if one.frame is not None}


def _finite(finding: Finding) -> Finding:
    """A finding without numbers that are none."""
    names = ("value", "probability", "low", "high")
    numbers = {name: getattr(finding, name) for name in names}
    odd: dict[str, Any] = {
        name: None for name, own in numbers.items() if isinstance(own, float) and not math.isfinite(own)
    }
    return replace(finding, **odd) if odd else finding


def _lacking(done: PredictionOutcome) -> Iterator[str]:
    """The warnings on an image without its name, and without that of its refusal."""
    for problem in done.lacking:
        words = problem.what.removeprefix(f"{next(iter(problem.cases), '')}: ")
        if done.abstained is None or words != f"refused: {done.abstained}":
            yield words


def write_findings(findings: FindingsRecord, folder: Path) -> None:
    """Write `findings.json`, in one line: a cohort has hundreds of thousands of findings."""
    record_files.write_json(folder / FINDINGS, FINDINGS_SCHEMA, findings.record, indent=None)
