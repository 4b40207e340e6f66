"""Covariates without the images, and images without the covariates, scored on the test cases of the model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from typing_extensions import TypedDict

from hilum.evaluation import Table, case_tables
from hilum.evaluation.case_tables import FOLD
from hilum.evaluation.significance.paired_tests import ComparedFigure
from hilum.planning import plan_changes, plan_checks
from hilum.report import Paragraph, Section
from hilum.runs._run_trainings import IMAGE_ONLY
from hilum.runs.run_folder import RunFolder
from hilum.runtime import Context, record_files
from hilum.scoring import model_comparison, model_verdict
from hilum.scoring.case_scoring import CASES, EVALUATION, OUT_OF_FOLD
from hilum.scoring.model_comparison import Comparison
from hilum.scoring.model_verdict import Gain
from hilum.tasks import Task
from hilum.training import covariate_fitting
from hilum.training.covariate_fitting import CovariateModel
from hilum.values import Case, Estimate, Row, Split
from hilum.values.record_schema import FigureRow, RecordSchema

RECORD = "covariates.json"


# What the model adds to each half.
AddedRows = TypedDict("AddedRows", {"to the covariates": list[FigureRow], "to the images": list[FigureRow]})


class CovariatesRecord(TypedDict):
    """Figures of the covariates alone (`rows`), of the images alone, and what the model adds to each."""

    rows: list[FigureRow]
    images: list[FigureRow]
    added: AddedRows


SCHEMA = RecordSchema("hilum.covariates", CovariatesRecord)
# The two halves in the report, and what the model adds to each.
COVARIATES_ONLY = "the covariates alone, without images"
IMAGES = "the images alone, trained as long without the covariates"
MODEL = "the model"
HALVES = (
    "The same test cases, scored by the model and by what is left of it: each table ends with the paired difference."
)
ADDED = {COVARIATES_ONLY: "what the images add to the covariates", IMAGES: "what the covariates add to the images"}


@dataclass(frozen=True)
class CovariateShare:
    """The shares of images and of covariates in the model.

    facts:  in words, for the foot of a report
    halves: {what was left: the comparison of that with the model}
    """

    facts: Mapping[str, str] = field(default_factory=dict)
    halves: Mapping[str, Comparison] = field(default_factory=dict)

    def gains(self, primary: str) -> list[Gain]:
        """Gains of the model over each half in the primary metric."""
        return [
            gain for name, half in self.halves.items() for gain in model_verdict.comparison_gains(half, primary, name)
        ]

    @property
    def sections(self) -> list[Section]:
        """The figures of the model and of each half over all labels, as tables; none where nothing was compared."""
        tables = [
            model_comparison.comparison_table(half, [row for row in half.rows if row.label == "all"] or half.rows)
            for half in self.halves.values()
        ]
        return [Section("Images and covariates", [Paragraph(HALVES), *tables])] if tables else []


class BaselineFit(NamedTuple):
    """A model without images, the cases that test it, and the fold whose training cases it is fitted to.

    fold: None where the run has one training
    """

    model: CovariateModel
    tested: Sequence[Case]
    fold: int | None


def write_covariate_share(run: RunFolder) -> CovariateShare:
    """The primary metric of each half alone and how far the model is from it; all of them into a file of the run.

    Nothing where the network gets no covariates, or where nothing is tested.
    """
    if not run.plan["network.context"]:
        return CovariateShare()
    folder = OUT_OF_FOLD if run.own_test else EVALUATION
    model, halves = model_comparison.evaluated_cases(run.out / folder), dict[str, tuple[Table, Task]]()
    if fitted := [one for fold in run.folds if (one := _fit_baseline(run, fold)) is not None]:
        halves[COVARIATES_ONLY] = _table(fitted), fitted[0].model.task
    if (run.out / IMAGE_ONLY / EVALUATION / CASES).is_file():
        halves[IMAGES] = model_comparison.evaluated_cases(run.out / IMAGE_ONLY / EVALUATION)
    compared_halves = {name: _differences(run, name, half, model) for name, half in halves.items()}
    rows = {name: one.rows for name, one in compared_halves.items()}
    if rows:
        record_files.write_json(run.out / folder / RECORD, SCHEMA, _record(rows))
    facts = {"the covariates alone are fitted by": fitted[0].model.how} if fitted else {}
    for name, differences in rows.items():
        headline = next((row for row in differences if row.metric == run.plan["evaluation.primary"]), differences[0])
        facts[f"{headline.metric} of {name}"] = str(headline.estimates[0])
        facts[ADDED[name]] = model_comparison.signed_estimate(headline.differences[0])
    if IMAGES not in rows:
        facts[ADDED[IMAGES]] = f"not measured: {_why_not(run)}"
    return CovariateShare(facts, compared_halves)


def _fit_baseline(run: RunFolder, fold: int | None) -> BaselineFit | None:
    """A model without images, by the training cases, and the cases that test it."""
    plan = run.made.plan_of(fold)
    # It sees cases as they come: nothing of how the network samples them is to be taken out of its probabilities.
    chosen = plan_checks.checked_settings(plan_changes.with_settings(plan, {"training.sampling": "natural"}))
    parts: tuple[Split, Split] = ("train", "val")
    train, val = (run.cases(part, fold) for part in parts)
    test = run.cases("test", fold)
    if not test:
        return None
    model = covariate_fitting.fit_covariate_model(
        chosen.task, Context.from_settings(chosen.network.context).of_patients, train, val
    )
    return None if model is None else BaselineFit(model, test, fold)


def _table(fitted: Sequence[BaselineFit]) -> Table:
    """Their test cases, each with its fold, as the model's have it: scores of different folds have no common order."""
    records = list[dict[Hashable, Any]]()
    for model, cases, fold in fitted:
        of_fold = {} if fold is None else {FOLD: str(fold)}
        table = model.task.score([model.predict(case) for case in cases], cases)
        records += table.assign(split="test", **of_fold).to_dict("records")
    return case_tables.case_table({str(name): value for name, value in row.items()} for row in records)


def _differences(run: RunFolder, name: str, half: tuple[Table, Task], model: tuple[Table, Task]) -> Comparison:
    """Each figure of a half and of the model, of the cases that both could score, and how much more the model's is."""
    both = set(half[0]["case"]) & set(model[0]["case"])
    tables = {
        which: table[table["case"].isin(both)].reset_index(drop=True)
        for which, (table, _) in ((name, half), (MODEL, model))
    }
    seed, patients_known = int(run.plan["training.seed"]), run.dataset.patients_known
    return model_comparison.compare_tables(tables, (half[1], model[1]), seed=seed, patients_known=patients_known)


def _record(rows: Mapping[str, Sequence[ComparedFigure]]) -> CovariatesRecord:
    """`rows` of the covariates alone and `images` of the images, `added` of what the model adds to each."""

    def listed(name: str, pick: Callable[[ComparedFigure], Sequence[Estimate]]) -> list[FigureRow]:
        return case_tables.rows_to_json([Row(one.metric, one.label, pick(one)[0]) for one in rows.get(name, ())])[
            "rows"
        ]

    return {
        "rows": listed(COVARIATES_ONLY, lambda row: row.estimates),
        "images": listed(IMAGES, lambda row: row.estimates),
        "added": {
            "to the covariates": listed(COVARIATES_ONLY, lambda row: row.differences),
            "to the images": listed(IMAGES, lambda row: row.differences),
        },
    }


def _why_not(run: RunFolder) -> str:
    if run.plan["preprocessing.cascade"] is not None:
        return "the networks before it get the covariates too"
    return "evaluation.image_only is off"
