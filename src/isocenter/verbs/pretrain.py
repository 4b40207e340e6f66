"""`pretrain`: from images without references to a network that later trainings start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from isocenter.errors import UsageError
from isocenter.keywords import named_keywords
from isocenter.objectives import objective_kind
from isocenter.reading import ReadingKeywords, ReadingOptions
from isocenter.runs import PlanRequest, in_all_processes
from isocenter.values import Dataset
from isocenter.verbs.train import Run, absolute, run_for

TASK, TERMS = "representation", "objectives.terms"


@named_keywords(ReadingKeywords)
@in_all_processes
def pretrain(
    data: str | Path | Dataset | None = None,
    *further: str | Path,
    objective: str | None = None,
    minutes: float | None = None,
    leave_out: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: str | Path | None = None,
    start: str | Path | None = None,
    pretrained: str | Path | None = None,
    everything: bool = False,
    deterministic: bool = False,
    device: str | None = None,
    threads: int | None = None,
    seed: int | None = None,
    assignments: Mapping[str, Any] | None = None,
    **reading: Unpack[ReadingKeywords],
) -> Run:
    """Train a network on images whatever is known of them, within `minutes` from now (60 unless a plan says otherwise).

    The folder is that of a run of the kind of problem "representation": `train(start=...)` begins from its weights, and
    `embed` writes what its network sees. References of the data are never read.
    further:   more data sets; the images of all of them are learnt from together
    objective: what teaches the network: "masked", by default where it gives an output for every voxel, "contrast",
               by default elsewhere, "rotation", or one of another package
    leave_out: a run whose validation, calibration and test patients are left out, so that it can start from this one
    reading:   the fields of `ReadingOptions`: layout, patient, column, modality and so on
    All else is as in `train`. Raises what `train` raises; PlanError for an objective that cannot teach these images;
    IsocenterError where the features collapse.
    """
    by_hand = {
        **({"training.deterministic": True} if deterministic else {}),
        **({"network.pretrained": absolute(pretrained)} if pretrained is not None else {}),
        **(assignments or {}),
    }
    if objective is not None:
        objective_kind(objective)  # refused before anything is read
        if TERMS in by_hand:
            raise UsageError(f"conflicts with --set {TERMS}", "--objective", "Give one of the two")
        by_hand[TERMS] = [objective]
    request = PlanRequest(
        minutes,
        device,
        threads,
        seed,
        None if data is None else TASK,
        everything,
        None,
        by_hand,
        ReadingOptions.of(**reading),
        further=tuple(str(Path(place).resolve()) for place in further),
        leave_out=None if leave_out is None else str(Path(leave_out).resolve()),
    )
    return run_for(data, request, start=start, out=out, overwrite=overwrite, resume=resume)
