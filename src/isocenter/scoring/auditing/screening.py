"""The endpoints of screening for a model's calls, and for the recalls of people where the data state them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from isocenter.errors import DatasetError
from isocenter.evaluation import COVARIATE, Table, rows_to_json, screening_rows
from isocenter.lazy import pandas as pd
from isocenter.report import Section, number
from isocenter.report import Table as Shown
from isocenter.scoring.audit_result import Audited
from isocenter.scoring.auditing.audit import Audit
from isocenter.scoring.auditing.decisions import calls_by_label
from isocenter.values import Row

SCREENING = "screening.csv"
OUTCOME, RECALLED, READ_BY = (f"{COVARIATE}{name}" for name in ("outcome", "recalled", "read_by"))
READ = "people"  # the label of what people recalled
YES = {"1", "1.0", "true", "yes"}


def refuse_no_outcome(covariates: Collection[str], where: str) -> None:
    """DatasetError for data that state no outcome of screening."""
    if OUTCOME.removeprefix(COVARIATE) not in covariates:
        remedy = "Give a column outcome by --group-table: normal, benign, advised, cancer or interval"
        raise DatasetError("has no column outcome, which --screening needs", where, remedy)


def screened(audit: Audit) -> Audited | None:
    """`screening.csv`; nothing where it was not asked for."""
    if not audit.options.screening:
        return None
    rows = list(_rows(audit))
    cells = [[row.metric, row.label, *_cells(row)] for row in rows]
    table = Shown(("Endpoint", "Recalled by", "Value", "95 % interval"), cells, "Intervals are over persons.")
    return Audited({SCREENING: pd.DataFrame(rows_to_json(rows)["rows"])}, sections=[Section("Screening", [table])])


def without_outcomes(audit: Audit) -> Audit:
    """The audit without the columns of screening, which are no groups of people."""
    left = [name for name in (OUTCOME, RECALLED, READ_BY) if audit.options.screening and name in audit.scored.table]
    return replace(audit, scored=replace(audit.scored, table=audit.scored.table.drop(columns=left)))


def _rows(audit: Audit) -> Iterator[Row]:
    who = audit.scored.table.drop_duplicates("case").set_index("case")
    for task, table in audit.scored.parts.values():
        for label, calls in calls_by_label(task, table).items():
            people = who.loc[calls.index]
            yield from _endpoints(people, calls["called"], label, audit.seed)
    if RECALLED in who:
        with_recall = who[who[RECALLED].notna()]
        called = with_recall[RECALLED].astype(str).str.lower().isin(YES)
        yield from _endpoints(with_recall, called, READ, audit.seed)


def _endpoints(who: Table, called: pd.Series, label: str, seed: int) -> list[Row]:
    is_known = who[OUTCOME].notna().to_numpy()
    read_by = who[READ_BY][is_known].astype(str) if READ_BY in who and label == READ else None
    outcome, people = who[OUTCOME][is_known].astype(str), who["patient"][is_known].astype(str)
    return screening_rows(called.to_numpy(bool)[is_known], outcome, people, read_by, seed=seed, label=label)


def _cells(row: Row) -> tuple[str, str]:
    estimate = row.estimate
    ends = (
        "none"
        if estimate.low is None or estimate.high is None
        else f"{number(estimate.low)} to {number(estimate.high)}"
    )
    return f"{number(estimate.value)} {estimate.unit}".strip(), ends
