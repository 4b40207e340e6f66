"""Studies of readers: people against models, with and without them, and the time that they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from isocenter.errors import DatasetError, counted, listed
from isocenter.evaluation import CaseValues, Table, Test, mean_over_raters, mrmc
from isocenter.files import read_given_table
from isocenter.lazy import pandas as pd
from isocenter.scoring import MRMC, READERS, ReadingEffect
from isocenter.values import Floats

READER_COLUMNS = ("reader", "case", "score")
YES, NO = ("1", "1.0", "yes", "true"), ("0", "0.0", "no", "false")
HALF = 0.5  # from which on a score of 0 to 1 is a call
# (metric, label, first, second, name of the test, test)
ReaderTest = tuple[str, str, str, str, str, Test]


def reader_tests(
    path: Path, names: Sequence[str], values: Sequence[Mapping[tuple[str, str], CaseValues]]
) -> Iterator[ReaderTest]:
    """The AUROC of people, who read every case, against each model's, or of reading in one manner against another.

    path: a table with reader, case and score; where people read with a model, its name under `model`, which is blank
          where they read without; where a case has several labels, which one is scored under `label`
    Raises DatasetError where readers read other cases, or a score is no number.
    """
    table = _read(path)
    for label, own, truth, positive in _by_label(path, table, values):
        read = _cubes(path, own, truth.cases, names, "score")
        scores = [one[("auroc", label)].values for one in values]
        for first, second, pair in _pairs(names, read, scores):
            yield "auroc", label, first, second, MRMC, mrmc(pair, positive, _shared(truth))


def reading_effects(
    path: Path, names: Sequence[str], values: Sequence[Mapping[tuple[str, str], CaseValues]]
) -> Iterator[ReadingEffect]:
    """Time that reading with a model takes beside reading without, or with another, and how often each is wrong.

    path: as in `reader_tests`, with the column `seconds`; nothing without it, or where all read in one manner
    A reading is wrong by the column `call` (yes or no), else by a score from 0 to 1 on the other side of 0.5.
    """
    table = _read(path)
    if "seconds" not in table or "model" not in table:
        return
    for label, own, truth, positive in _by_label(path, table, values):
        seconds = _cubes(path, own, truth.cases, names, "seconds")
        calls = _cubes(path, own, truth.cases, names, "call") if own["call"].notna().all() else {}
        wrong = {name: (cube >= HALF) != positive for name, cube in calls.items()}
        first, *others = seconds
        for second in others:
            change = np.log(seconds[second]) - np.log(seconds[first])
            ratio = mean_over_raters(change, _shared(truth))
            errors = [float(wrong[name].mean()) for name in (first, second)] if wrong else []
            more = wrong[second].astype(float) - wrong[first] if wrong else None
            apart = None if more is None else mean_over_raters(more, _shared(truth))
            yield ReadingEffect(first, second, label, change.shape, ratio, tuple(errors), apart)


def _by_label(
    path: Path, table: Table, values: Sequence[Mapping[tuple[str, str], CaseValues]]
) -> Iterator[tuple[str, Table, CaseValues, np.ndarray]]:
    """(label, its readings, the values of its cases, their truths)."""
    for label in dict.fromkeys(table["label"]) if "label" in table else ["all"]:
        areas = [own.get(("auroc", label)) for own in values]
        truth = areas[0]
        if truth is None or truth.positive is None or any(one is None for one in areas):
            known = sorted({name for metric, name in values[0] if metric == "auroc"})
            remedy = f"Name one of {listed(known)} in the column label" if known else "Compare models that state AUROCs"
            raise DatasetError(f"there is no AUROC of {label}", str(path), remedy)
        own = table[table["label"] == label] if "label" in table else table
        yield label, own, truth, truth.positive


def _shared(truth: CaseValues) -> np.ndarray | None:
    """(cases,) their patients, where some have several cases."""
    return truth.patients if len(np.unique(truth.patients)) < len(truth.patients) else None


def _pairs(
    names: Sequence[str], read: Mapping[str, Floats], scores: Sequence[Floats]
) -> Iterator[tuple[str, str, Floats]]:
    if len(read) > 1 and READERS in read:  # people read with and without
        for name in [one for one in read if one != READERS]:
            yield READERS, f"{READERS} with {name}", np.stack([read[READERS], read[name]])
        return
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
    if absent := [name for name in READER_COLUMNS if name not in table]:
        raise DatasetError(f"has no column {absent[0]}", str(path), "Give reader, case and score")
    for name in [one for one in ("score", "seconds") if one in table]:
        numbers = pd.to_numeric(table[name].str.replace(",", "."), errors="coerce")  # 0,75 where commas are decimal
        wrong = numbers.isna() if name == "score" else ~(numbers > 0)
        if wrong.any():
            row, kind = table[wrong].iloc[0], "a number" if name == "score" else "a time above 0"
            problem = f"{name} {row[name]!r} of reader {row['reader']}, case {row['case']}, is not {kind}"
            raise DatasetError(problem, str(path), "Give a number for every reader and case")
        table = table.assign(**{name: numbers})
    if "call" in table:
        table["call"] = table["call"].str.lower().map(dict.fromkeys(YES, 1.0) | dict.fromkeys(NO, 0.0))
    else:
        table["call"] = table["score"] if table["score"].between(0, 1).all() else None
    if "model" in table:
        table["model"] = table["model"].fillna("").replace("", READERS)
    return table


def _cubes(path: Path, table: Table, cases: np.ndarray, names: Sequence[str], column: str) -> dict[str, Floats]:
    """{model they read with: (readers, cases) a column}, without any first, in the order of these cases."""
    with_model = table["model"] if "model" in table else pd.Series(READERS, index=table.index)
    wanted = [READERS] if "model" not in table else list(names)
    if "model" in table and READERS in set(with_model):
        wanted = [READERS, *(name for name in names if name in set(with_model))]
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
        wide = own.pivot(index="reader", columns="case", values=column).reindex(index=people)
        for reader, row in wide.iterrows():
            read = set(row.dropna().index)
            if apart := sorted(read ^ set(cases.tolist())):
                where = "not scored by the models" if apart[0] in read else "not read"
                problem = f"reader {reader} read other cases: {counted(len(apart), 'case')}, {apart[0]} {where}"
                raise DatasetError(problem, str(path), "Give every reader's score of every case that was scored")
        cubes[model] = wide[cases.tolist()].to_numpy(dtype=np.float64)
    return cubes
