"""`study`: how large a study has to be."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hilum import errors, installation, keywords
from hilum.errors import DatasetError, UsageError
from hilum.evaluation.significance import auroc_tests
from hilum.evaluation.significance.auroc_tests import ReaderVariances
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.options.records import StudySizeOptions
from hilum.studies import model_studies, sizing
from hilum.studies.sizing import StudySize
from hilum.values import table_cells

PILOT_COLUMNS = ("reader", "case", "score", "model", "positive")


@keywords.takes(StudySizeOptions)
def study_size(options: StudySizeOptions) -> StudySize:
    """Number of participants, clusters or events that a study needs; or its power, or the effect that it finds.

    assignments: its inputs, such as {"expected": 0.9, "at_least": 0.8}; of n, power and the effect one is left out;
                 of mrmc `pilot`, a table of reader, case, score, model (two) and positive (0 or 1), gives the variances
    Raises UsageError for an unknown design or input, a value out of bounds, and an effect of 0.
    """
    if find_spec("statsmodels") is None:
        raise UsageError("statsmodels is not installed", "study size", installation.install_line("documents"))
    if options.simulate < 0:
        raise UsageError(f"simulate is {options.simulate}", "--simulate", "Give a number of studies, such as 1000")
    settings = dict(options.assignments or {})
    if options.design == "mrmc" and "pilot" in settings:
        settings = {**model_studies.pilot_inputs(_pilot(Path(str(settings.pop("pilot"))))), **settings}
    return sizing.size_study(options.design, settings, simulate=options.simulate, seed=options.seed)


def _pilot(path: Path) -> ReaderVariances:
    """The variances of a pilot's table. Raises DatasetError where it is no complete study of two modalities."""
    if not path.is_file():
        raise DatasetError("there is no such table", str(path), f"Give a CSV with {errors.list_phrase(PILOT_COLUMNS)}")
    table = csv_text.read_given_table(path)
    if absent := [name for name in PILOT_COLUMNS if name not in table]:
        raise DatasetError(f"has no column {absent[0]}", str(path), f"Give {errors.list_phrase(PILOT_COLUMNS)}")
    scores = table_cells.numbers_in(csv_text.text_column(table, "score", str(path)), strictly=True)
    truths = table_cells.truths_in(csv_text.text_column(table, "positive", str(path)))
    for found, kind in ((scores, "a number"), (truths, "1 or 0, or yes or no,")):
        for index in np.flatnonzero(~np.isfinite(found.values))[:1].tolist():
            cell, reading = f"{found.column.name} {found.column.cells[index]!r}", _reading(table.iloc[index].to_dict())
            problem = f"{cell} of {reading}, {found.column.place(index)}, {found.odd.get(index, 'is missing')}"
            raise DatasetError(problem, str(path), f"Give {kind} for every reader and case")
    table = table.assign(score=scores.values, positive=truths.values)
    if (twice := table[table.duplicated(["reader", "case", "model"])]).size:
        problem = f"there are two scores of {_reading(twice.iloc[0].to_dict())}"
        raise DatasetError(problem, str(path), "Give one of each reader, case and model")
    models = list(dict.fromkeys(table["model"]))
    wide = table.pivot_table(index=["model", "reader"], columns="case", values="score")
    truth = table.groupby("case")["positive"].agg(["first", "nunique"]).reindex(wide.columns)
    readers = table["reader"].nunique()
    if len(models) != 2 or readers < 2:
        problem = f"has {len(models)} models and {readers} readers"
        raise DatasetError(problem, str(path), "Give two models, or with and without one, and two readers or more")
    if both := list(truth.index[truth["nunique"] > 1]):
        raise DatasetError(f"case {both[0]} is positive and negative", str(path), "Give one truth of each case")
    wide = wide.reindex(pd.MultiIndex.from_product([models, sorted(set(table["reader"]))]))
    for place, case in np.argwhere(wide.isna().to_numpy())[:1]:
        lacking = dict(zip(("model", "reader"), wide.index[place], strict=True)) | {"case": wide.columns[case]}
        problem = f"there is no score of {_reading(lacking)}"
        raise DatasetError(problem, str(path), "Give every reader's score of every case with both models")
    positives = int((truth["first"] == 1).sum())
    negatives = len(truth) - positives
    if min(positives, negatives) < model_studies.FEWEST_OF_CLASS:
        problem = f"has {errors.count_phrase(positives, 'positive case')} and {negatives} negative"
        raise DatasetError(problem, str(path), "The pilot needs two cases of each class")
    cube = wide.to_numpy(dtype=float).reshape(2, readers, -1)
    return auroc_tests.reader_variances(cube, (truth["first"] == 1).to_numpy())


def _reading(row: Mapping[Any, Any]) -> str:
    model = f"model {row['model']}" if row["model"] else "no model"
    return f"reader {row['reader']}, case {row['case']}, {model}"
