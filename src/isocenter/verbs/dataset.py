"""Opening a data set and looking through it, as every verb that takes one does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from isocenter.errors import DatasetError, UsageError
from isocenter.files import DatasetOptions, ReadOptions, read_dataset
from isocenter.quality import Examination, examine
from isocenter.transforms import aligned
from isocenter.values import Case, Dataset, Image, LazyMapping
from isocenter.verbs.progress import tracked

# The flags that say how data are read; a plan keeps them, so that training from it reads the data in the same way.
READING = ("layout", "labels", "patient", "column", "modality", "part", "prefer", "fill_missing", "align")


def open_dataset(data: str | Path | Dataset, given: Mapping[str, Any], *, references: bool = True) -> Dataset:
    """A data set as it is, or read from its path as the flags in `READING` say.

    Raises UsageError for a flag that is none, and what reading raises.
    """
    unknown = sorted(set(given) - set(READING))
    if unknown:
        raise UsageError(
            f"{', '.join(unknown)} says nothing about reading", "options", f"Choose of {', '.join(READING)}"
        )
    dataset = data if isinstance(data, Dataset) else read_dataset(data, _options(given, references))
    if not given.get("align"):
        return dataset
    cases = [
        replace(case, images=LazyMapping({n: partial(_aligned, case, n) for n in case.images})) for case in dataset
    ]
    return replace(dataset, cases=tuple(cases))


def _options(given: Mapping[str, Any], references: bool) -> DatasetOptions:
    reading = {key: given[key] for key in ("part", "prefer", "fill_missing") if given.get(key)}
    named = {key: given[key] for key in ("layout", "labels", "patient", "modality") if given.get(key)}
    return DatasetOptions(
        **named, column=dict(given.get("column") or {}), read=ReadOptions(**reading), references=references
    )


def _aligned(case: Case, name: str) -> Image:
    """One image of a case on the grid of the case's first."""
    first = next(iter(case.images.values()))
    return aligned(case.images[name], first.geometry, f"{case.id}, {name}")


def looked_through(dataset: Dataset, threads: int) -> Examination:
    """Every case read once, with progress."""
    with tracked("reading cases") as tracker:
        return examine(dataset, threads=threads, progress=tracker)


def refuse_unfit(examination: Examination) -> None:
    """DatasetError where training on these data should not go on."""
    fatal = examination.fatal
    if fatal:
        raise DatasetError(
            "; ".join(problem.what for problem in fatal),
            str(examination.dataset.root or examination.dataset.name),
            fatal[0].remedy or "Look at `isocenter check`",
        )
