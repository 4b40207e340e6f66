"""`plan`: how a model for these data would be trained, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from isocenter.errors import UsageError
from isocenter.files import write_text
from isocenter.keywords import named_keywords
from isocenter.planning import Planned, plan_text, relative_to
from isocenter.reading import Data, ReadingKeywords, ReadingOptions, refuse_taken
from isocenter.runs import PLAN_SUFFIXES, PlanRequest, planned, positive_among


@named_keywords(ReadingKeywords)
def plan(
    data: Data,
    *,
    minutes: float | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    device_memory: float | None = None,
    threads: int | None = None,
    seed: int = 0,
    task: str | None = None,
    everything: bool = False,
    folds: int = 0,
    positive: str | None = None,
    assignments: Mapping[str, Any] | None = None,
    **reading: Unpack[ReadingKeywords],
) -> Planned:
    """Every choice that training on `data` would make, each with its reason.

    minutes:     from a command's start to the finished model; 60 where None
    out:         a .yaml file to edit and train from; nothing is written without it
    device_memory: GiB of a GPU, `device`, that need not be here: a plan on paper
    assignments: {"section.name": value} set by hand
    everything:  train on all cases but a set's own test part
    folds:       cross-validation in so many parts; 0 for one test part
    positive:    the class that sensitivity, predictive values and thresholds are of
    reading:     the fields of `ReadingOptions`: layout, labels, patient, column, modality and so on
    Raises what `check` raises, UsageError for an `out` of another suffix, DatasetError where the data should not be
    trained on, and PlanError for an impossible value.
    """
    options, chosen = ReadingOptions.of(**reading), positive_among(assignments or {}, positive)
    if out is not None:
        refuse_taken(Path(out), overwrite)
        if Path(out).suffix.lower() not in PLAN_SUFFIXES:
            raise UsageError("is not a file name for a plan", str(out), "Give one that ends in .yaml")
    request = PlanRequest(minutes, device, threads, seed, task, everything, folds, chosen, options, device_memory)
    made = planned(data, request)
    if out is None:
        return made
    write_text(Path(out), plan_text(relative_to(made.plan, Path(out).parent)), overwrite=overwrite)
    return replace(made, out=Path(out))
