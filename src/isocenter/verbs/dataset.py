"""Opening a data set and looking through it, as every verb that takes one does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isocenter.errors import DatasetError
from isocenter.files import DatasetOptions, ReadOptions, read_dataset
from isocenter.quality import Examination, examine
from isocenter.values import Dataset
from isocenter.verbs.progress import tracked


def dataset_options(given: Mapping[str, Any], *, references: bool = True) -> DatasetOptions:
    """From the flags that all verbs share: layout, labels, patient, column, modality, part, prefer."""
    reading = {key: given[key] for key in ("part", "prefer") if given.get(key) is not None}
    named = {key: given[key] for key in ("layout", "labels", "patient", "modality") if given.get(key) is not None}
    return DatasetOptions(
        **named, column=dict(given.get("column") or {}), read=ReadOptions(**reading), references=references
    )


def open_dataset(data: str | Path | Dataset, given: Mapping[str, Any], *, references: bool = True) -> Dataset:
    """A data set as it is, or read from its path."""
    return data if isinstance(data, Dataset) else read_dataset(data, dataset_options(given, references=references))


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
