"""People's scores of the same cases beside the models': studies of several readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from isocenter.errors import DatasetError, counted, listed
from isocenter.evaluation import CaseValues, Table, Test, mrmc
from isocenter.files import read_given_table
from isocenter.lazy import pandas as pd
from isocenter.values import Floats
from isocenter.verbs.evaluation import MRMC, READERS

KEYS = ("reader", "case", "score")
# (metric, label, first, second, name of the test, test)
ReaderTest = tuple[str, str, str, str, str, Test]


def reader_tests(
    path: Path, names: Sequence[str], values: Sequence[Mapping[tuple[str, str], CaseValues]]
) -> Iterator[ReaderTest]:
    """The AUROC of people, who read every case, against each model's, or of reading with one model against another.

    path: a table with reader, case and score; where people read with a model, its name under `model`; where a case has
          several labels, which one is scored under `label`
    Raises DatasetError where readers read other cases, or a score is no number.
    """
    table = _read(path)
    labels = list(dict.fromkeys(table["label"])) if "label" in table else ["all"]
    for label in labels:
        areas = [own.get(("auroc", label)) for own in values]
        truth = areas[0]
        if truth is None or truth.positive is None or any(one is None for one in areas):
            known = sorted({name for metric, name in values[0] if metric == "auroc"})
            remedy = f"Name one of {listed(known)} in the column label" if known else "Compare models that state AUROCs"
            raise DatasetError(f"there is no AUROC of {label}", str(path), remedy)
        own = table[table["label"] == label] if "label" in table else table
        read = _cubes(path, own, truth.cases, names)
        for first, second, scores in _pairs(names, read, [one.values for one in areas if one is not None]):
            yield "auroc", label, first, second, MRMC, mrmc(scores, truth.positive, _several(truth.patients))


def _pairs(
    names: Sequence[str], read: Mapping[str, Floats], scores: Sequence[Floats]
) -> Iterator[tuple[str, str, Floats]]:
    if READERS in read:  # a model reads as each of them would with it
        people = read[READERS]
        for name, own in zip(names, scores, strict=True):
            yield READERS, name, np.stack([people, np.broadcast_to(own, people.shape)])
        return
    for name in names[1:]:
        yield names[0], name, np.stack([read[names[0]], read[name]])


def _read(path: Path) -> Table:
    if not path.is_file():
        raise DatasetError("there is no such table", str(path), "Give a CSV with reader, case and score")
    table = read_given_table(path).rename(columns={"rating": "score"})
    if absent := [name for name in KEYS if name not in table]:
        raise DatasetError(f"has no column {absent[0]}", str(path), "Give reader, case and score")
    scores = pd.to_numeric(table["score"].str.replace(",", "."), errors="coerce")  # 0,75 where commas are decimal
    if scores.isna().any():
        row = table[scores.isna()].iloc[0]
        problem = f"score {row['score']!r} of reader {row['reader']}, case {row['case']}, is not a number"
        raise DatasetError(problem, str(path), "Give a number for every reader and case")
    return table.assign(score=scores)


def _cubes(path: Path, table: Table, cases: np.ndarray, names: Sequence[str]) -> dict[str, Floats]:
    """{model they read with: (readers, cases) scores}, in the order of these cases."""
    with_model = table["model"] if "model" in table else pd.Series(READERS, index=table.index)
    wanted = [READERS] if "model" not in table else list(names)
    if others := sorted(set(with_model) ^ set(wanted)):
        problem = f"readers with {others[0]!r}, models {listed(names)}"
        raise DatasetError(problem, str(path), "Name in the column model each of the models, or leave it out")
    cubes, people = {}, sorted(set(table["reader"]))
    for model in wanted:
        own = table[with_model == model]
        if own.duplicated(["reader", "case"]).any():
            twice = own[own.duplicated(["reader", "case"])].iloc[0]
            problem = f"reader {twice['reader']} scores case {twice['case']} twice"
            raise DatasetError(problem, str(path), "Give one score of each reader and case")
        wide = own.pivot(index="reader", columns="case", values="score").reindex(index=people)
        for reader, row in wide.iterrows():
            read = set(row.dropna().index)
            if apart := sorted(read ^ set(cases.tolist())):
                where = "not scored by the models" if apart[0] in read else "not read"
                problem = f"reader {reader} read other cases: {counted(len(apart), 'case')}, {apart[0]} {where}"
                raise DatasetError(problem, str(path), "Give every reader's score of every case that was scored")
        cubes[model] = wide[cases.tolist()].to_numpy(dtype=np.float64)
    return cubes


def _several(patients: np.ndarray) -> np.ndarray | None:
    """Whose cases they are, where some patient has several."""
    return patients if len(np.unique(patients)) < len(patients) else None
