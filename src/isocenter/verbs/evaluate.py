"""`evaluate`: how good a model is on labelled cases, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isocenter.errors import DatasetError, PlanError, UsageError, counted
from isocenter.evaluation import rows_to_json
from isocenter.files import dataset_hash
from isocenter.planning import read_plan
from isocenter.runtime import Model, environment, load
from isocenter.values import Dataset, Row, Split
from isocenter.verbs.dataset import READING, open_dataset, with_references
from isocenter.verbs.device import announced_device
from isocenter.verbs.output import refuse_taken, result_folder
from isocenter.verbs.run_report import report
from isocenter.verbs.scoring import Scored, read_split, score

MARKS = ("cases.csv", "summary.json")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured; prints the primary metric with its interval."""

    scored: Scored
    primary: str
    which: str
    notes: tuple[str, ...] = ()
    out: Path | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(self.scored.rows)

    def as_record(self) -> dict[str, Any]:
        """For `--json`."""
        found = {"scored": self.which, "notes": list(self.notes), "out": str(self.out) if self.out else None}
        return {**rows_to_json(self.rows), **found}

    def __repr__(self) -> str:
        lines = [f"scored {self.which}"]
        lines += [f"{row.metric} {row.label}: {row.estimate}" for row in self.rows if row.metric == self.primary]
        lines += [*self.notes, *(f"{problem.severity}: {problem.what}" for problem in self.scored.problems)]
        return "\n".join([*lines, *([str(self.out / "report.html")] if self.out is not None else [])])


def evaluate(
    model: str | Path | Model,
    data: str | Path | Dataset,
    *,
    split: Literal["train", "val", "test", "all"] | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    **given: Any,
) -> Evaluation:
    """Predict the cases of `data` and score them on their references' own grids.

    split: where `data` are the model's own (by content), the run's test cases unless told otherwise; of other data
           the set's own test part, or else all cases
    out:   a folder for cases.csv, summary.json, report.html and the viewers' pages
    Raises DatasetError where the data are not of the model's kind.
    """
    if out is not None:
        refuse_taken(Path(out), overwrite, MARKS)
    loaded = model if isinstance(model, Model) else load(model, announced_device(device, threads).value)
    run = None if isinstance(model, Model) else Path(model)
    dataset = open_dataset(data, {**_as_trained(run, data), **given})
    if not loaded.task.needs <= dataset.kinds:
        raise DatasetError(
            f"has no references of the kind {', '.join(sorted(loaded.task.needs))}",
            str(dataset.root or dataset.name),
            f"Give data labelled for {loaded.task.name}",
        )
    dataset = with_references(dataset, loaded.task.needs)
    parts, which, notes = _chosen(loaded, dataset, run, split)
    cases = [case for case in dataset if case.id in parts]
    scored = score(loaded, cases, parts, seed=seed, patients_known=dataset.patients_known)
    primary = str(loaded.record.get("primary", scored.rows[0].metric))
    result = Evaluation(scored, primary, which, notes, Path(out) if out is not None else None)
    if result.out is not None:
        with result_folder(result.out, overwrite, MARKS) as partial:
            scored.write(partial)
            (partial / "report.html").write_text(_report(result, loaded, dataset), encoding="utf-8")
    return result


def _as_trained(run: Path | None, data: str | Path | Dataset) -> dict[str, Any]:
    """The flags with which a run read its own data; nothing for other data, whose flags may be others."""
    if run is None or isinstance(data, Dataset) or not (run / "plan.yaml").is_file():
        return {}
    try:
        plan = read_plan(run / "plan.yaml")
    except PlanError:  # of another version: the model can still be used, and the flags be given
        return {}
    own = bool(plan.data) and (run / plan.data).resolve() == Path(data).resolve()
    return {key: value for key, value in plan.options.items() if own and key in READING}


def _chosen(
    model: Model, dataset: Dataset, run: Path | None, split: str | None
) -> tuple[dict[str, Split], str, tuple[str, ...]]:
    """{case id: part} of the cases to score, in words which they are, and what speaks against their figures."""
    table = run / "split.csv" if run is not None else None
    known: dict[str, Split] = {}
    if table is not None and table.is_file():
        known = {row.case: row.split for row in read_split(table).itertuples()}  # type: ignore[misc]
        ours = dataset.only(set(known))
        if len(ours) == len(known) and dataset_hash(ours) == model.record.get("data_hash"):
            wanted = split or "test"
            words = f"{'' if wanted == 'all' else 'the '}{wanted} cases of the run's own data"
            return _part(known, wanted, str(run)), words, tuple(_own_notes(model, wanted))
    own: dict[str, Split] = {case.id: dataset.splits.get(case.id, "test") for case in dataset}
    if "test" in dataset.splits.values() and split is None:
        parts, words = _part(own, "test", str(dataset.root)), "the set's own test part"
    else:
        wanted = split or "all"
        parts, words = _part(own, wanted, str(dataset.root)), f"{wanted} cases of other data than the run's"
    namesakes = sum(known.get(case, "test") != "test" for case in parts)
    note = (
        f"{counted(namesakes, 'case has the name', 'cases have the names')} of cases that trained this model: "
        "if they are the same, the figures say nothing about new patients."
    )
    return parts, words, (note,) if namesakes else ()


def _own_notes(model: Model, wanted: str) -> Iterator[str]:
    if not model.record.get("patients_known", False):
        yield "Patients unknown, split by case: leakage cannot be excluded."
    if wanted != "test":
        some = "Some of these" if wanted == "all" else "These"
        yield f"{some} cases were used in training: the figures say nothing about new patients."


def _part(parts: dict[str, Split], wanted: str, where: str) -> dict[str, Split]:
    if wanted not in ("train", "val", "test", "all"):
        raise UsageError(f"there is no split {wanted!r}", "--split", "Choose train, val, test or all")
    chosen = {case: part for case, part in parts.items() if wanted in ("all", part)}
    if not chosen:
        raise UsageError(f"there is no {wanted} case", where, "Choose another --split")
    return chosen


def _report(result: Evaluation, model: Model, dataset: Dataset) -> str:
    facts = {
        "scored": result.which,
        "read as": dataset.layout,
        "model data hash": model.record.get("data_hash", "not recorded"),
        "weights": model.record.get("weights_sha256", "not recorded"),
    }
    return report(
        f"Evaluation on {dataset.name}",
        f"{counted(result.scored.table['case'].nunique(), 'case')}: {result.which}.",
        primary=result.primary,
        scored=result.scored,
        notes=result.notes,
        facts=facts,
        views="",
        problems=(*dataset.problems, *result.scored.problems),
        environment=environment(),
    )
