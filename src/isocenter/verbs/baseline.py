"""What covariates tell without the images, on the same test cases: stated beside every model that is given both."""

from __future__ import annotations

from collections.abc import Sequence

from isocenter.evaluation import case_table, rows_to_json
from isocenter.planning import settings
from isocenter.runtime import Context, write_json
from isocenter.training import Alone, covariates_alone
from isocenter.values import Case, Row, Split
from isocenter.verbs.finish import EVALUATION
from isocenter.verbs.run_folder import Begun

RECORD = "covariates.json"
SCHEMA = "isocenter.covariates"


def covariates_stated(run: Begun, folder: str = EVALUATION) -> dict[str, str]:
    """The primary metric of the covariates alone, and all of them into a file beside those of the model.

    Nothing where the network is told none, where nothing is tested, or where the task asks for more than a vector.
    """
    folds = range(len(run.made.folds)) if run.made.folds else (None,)
    rows = _rows(run, [pair for fold in folds if (pair := _fitted(run, fold)) is not None])
    if not rows:
        return {}
    write_json(run.out / folder / RECORD, SCHEMA, {"rows": rows_to_json(rows)["rows"]})
    primary = str(run.plan["evaluation.primary"])
    said = next((row for row in rows if row.metric == primary), rows[0])
    return {f"{said.metric} of the covariates alone, without images": str(said.estimate)}


def _fitted(run: Begun, fold: int | None) -> tuple[Alone, list[Case]] | None:
    """A model without images, by the training cases, and the cases that test it."""
    chosen = settings(run.plan if fold is None else run.made.of_fold(fold).plan)
    parts: tuple[Split, Split] = ("train", "val")
    train, val = (run.cases(part, fold) for part in parts)
    test = run.cases("test", fold)
    found = covariates_alone(chosen.task, Context.of(chosen.network.context).of_patients, train, val) if test else None
    return None if found is None else (found, test)


def _rows(run: Begun, fitted: Sequence[tuple[Alone, Sequence[Case]]]) -> list[Row]:
    tables = [model.task.score([model.predict(case) for case in cases], cases) for model, cases in fitted]
    if not tables:
        return []
    records = [row for one in tables for row in one.assign(split="test").to_dict("records")]
    table = case_table({str(name): value for name, value in row.items()} for row in records)
    return fitted[0][0].task.summary(table, seed=int(run.plan["training.seed"]))
