"""A model's calls against the references: their worth by the probability of action, and endpoints of screening."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import replace

from hilum import errors
from hilum.errors import DatasetError
from hilum.evaluation import ALL, Table, case_tables, screening
from hilum.evaluation.case_tables import COVARIATE
from hilum.evaluation.significance import probability_tests
from hilum.evaluation.significance.probability_tests import DecisionCurve
from hilum.lazy import pandas as pd
from hilum.report import Block, Details, Figure, Paragraph, Section, wording
from hilum.report import Table as PageTable
from hilum.report.figures import discrimination_figures
from hilum.report.page_blocks import Gallery
from hilum.scoring.case_scoring import AuditInput, AuditOutcome
from hilum.tasks import Task
from hilum.values import Row
from hilum.values.advice_lines import ADVICE
from hilum.values.table_cells import PlainCell

DECISION, TITLE = "decision.csv", "What calls are worth"
CONFUSION = "confusion.csv"
# Where the method of a figure says from which probability on a label is called.
THRESHOLD = re.compile(r"; ([^;]* from [^;]*)")
# Of more labels curves would fill pages; the table has them all.
SHOWN = 4
HOW = (
    "Net benefit: the share of true positives, less the share of false positives times the odds of the threshold. At a "
    "threshold of 0.1 nine needless calls cost as much as one right call gains. Intervals take patients as clusters, "
    "each threshold by itself."
)


def audit_decisions(audit: AuditInput) -> AuditOutcome | None:
    """The net benefit of each label that is called by a probability; nothing for a model that states none."""
    curves: dict[str, DecisionCurve] = {}
    for part, (task, table) in audit.scored.parts.items():
        for name, curve in _decision_curves(task, table):
            curves[f"{part}: {name}" if part else name] = curve
    if not curves:
        return None
    rows = pd.concat([_rows(label, curve) for label, curve in curves.items()], ignore_index=True)
    figures = [_figure(label, curve) for label, curve in curves.items()]
    blocks: list[Block] = [Paragraph(" ".join(_sentences(curves))), Gallery(figures[:SHOWN])]
    if figures[SHOWN:]:
        blocks.append(Details("Further labels", [Gallery(figures[SHOWN:])]))
    return AuditOutcome({DECISION: rows}, sections=[Section(TITLE, [*blocks, Paragraph(HOW)])])


def audit_confusion(audit: AuditInput) -> AuditOutcome | None:
    """The cross tabulation that STARD asks for: references against calls, at each operating point.

    A row a cell: operating_point, label, reference, predicted, cases, patients; of several classes all against all as
    the model calls them, and each label against the rest at its own point.
    """
    crossed = [_cross_tabulate(audit, part, task, table) for part, (task, table) in audit.scored.parts.items()]
    rows = pd.DataFrame([row for part in crossed for row in part])
    return None if rows.empty else AuditOutcome({CONFUSION: rows})


def calls_by_label(task: Task, table: Table) -> dict[str, Table]:
    """{label: a row a case with patient, reference and called} of each label that is called or not."""
    values = {(one.metric, one.label): one for one in task.case_values(table)}
    calls = {}
    asked = {case_tables.figure_label(name) for name in task.positives}
    for label in dict.fromkeys(label for metric, label in values if metric == "sensitivity"):
        if asked and label not in asked:
            continue
        sides = [values[metric, label] for metric in ("sensitivity", "specificity") if (metric, label) in values]
        if len(sides) == 2 and all(one.kind == "share" for one in sides):
            frames = [
                pd.DataFrame(
                    {"patient": one.patients, "reference": truth, "called": (one.values == 1) == truth}, one.cases
                )
                for one, truth in zip(sides, (True, False), strict=True)
            ]
            calls[label] = pd.concat(frames)
    return calls


def _cross_tabulate(audit: AuditInput, part: str, task: Task, table: Table) -> Iterator[dict[str, PlainCell]]:
    labels = calls_by_label(task, table)
    before = f"{part}: " if part else ""
    overall = table[table["label"] == ALL]
    if labels and {"reference", "predicted"} <= set(table) and overall["reference"].nunique() > 2:
        yield from _cells(overall, overall["reference"], overall["predicted"], f"{before}{ALL}", "as the model calls")
    methods = {row.label: row.estimate.method for row in audit.scored.rows if row.metric == "sensitivity"}
    for label, calls in labels.items():
        found = THRESHOLD.search(methods.get(f"{before}{label}", methods.get(label, "")))
        words = {True: label.partition(": ")[2] or label, False: f"not {label.partition(': ')[2] or label}"}
        reference, called = calls["reference"].map(words), calls["called"].map(words)
        yield from _cells(calls, reference, called, f"{before}{label}", found[1] if found else "as the model calls")


def _cells(
    rows: Table, reference: pd.Series, called: pd.Series, label: str, point: str
) -> Iterator[dict[str, PlainCell]]:
    for truth in dict.fromkeys(reference):
        for call in dict.fromkeys([*reference, *called]):
            here = ((reference == truth) & (called == call)).to_numpy()
            people = rows["patient"].to_numpy()[here]
            cell = {"reference": truth, "predicted": call, "cases": int(here.sum()), "patients": len(set(people))}
            yield {"operating_point": point, "label": label, **cell}


def _decision_curves(task: Task, table: Table) -> Iterator[tuple[str, DecisionCurve]]:
    """(label, its curve), of classes those of the positive ones."""
    areas = {one.label: one for one in task.case_values(table) if one.metric == "auroc"}
    areas.pop(ALL, None)
    asked = {case_tables.figure_label(name) for name in task.positives} or set(areas)
    for label, area in areas.items():
        is_stated = bool(((area.values >= 0) & (area.values <= 1)).all())
        if area.positive is not None and is_stated and label in asked:
            yield label, probability_tests.decision_curve(area.values, area.positive, area.patients)


def _rows(label: str, curve: DecisionCurve) -> Table:
    columns = {"threshold": curve.thresholds, "net_benefit": curve.value, "treat_all": curve.treat_all}
    return pd.DataFrame({**columns, "treat_none": 0.0, "low": curve.low, "high": curve.high, "label": label})


def _figure(label: str, curve: DecisionCurve) -> Figure:
    band = (curve.low, curve.high)
    title = f"Net benefit of calling {_in_words(label)}"
    return discrimination_figures.decision_curve_plot(curve.thresholds, curve.value, band, curve.treat_all, title)


def _sentences(curves: dict[str, DecisionCurve]) -> Iterator[str]:
    for label, curve in curves.items():
        if (gains := curve.gains) is not None:
            ends = f"from {gains[0]:.2f} to {gains[1]:.2f}" if gains[0] < gains[1] else f"of {gains[0]:.2f}"
            what = f"Calling {_in_words(label)} by the model"
            yield f"{what} is worth more than calling all or nobody at thresholds {ends}."
    if none := [_in_words(label) for label, curve in curves.items() if curve.gains is None]:
        what = f"Calling {errors.list_phrase(none)} by the model"
        yield f"{what} is shown at no threshold to be worth more than calling all or nobody."


def _in_words(label: str) -> str:
    """ "benign (classification)" of one of several tasks."""
    part, _, name = label.rpartition(": ")
    return f"{name} ({part})" if part else name


SCREENING = "screening.csv"
OUTCOME, RECALLED, READ_BY = (f"{COVARIATE}{name}" for name in ("outcome", "recalled", "read_by"))
READ = "people"  # the label of what people recalled
YES = {"1", "1.0", "true", "yes"}


def refuse_no_outcome(covariates: Collection[str], where: str) -> None:
    """DatasetError for data that state no outcome of screening."""
    if OUTCOME.removeprefix(COVARIATE) not in covariates:
        remedy = "Give a column outcome by --group-table: normal, benign, advised, cancer or interval"
        raise DatasetError("has no column outcome, which --screening needs", where, remedy)


def audit_screening(audit: AuditInput) -> AuditOutcome | None:
    """`screening.csv`; nothing where it was not asked for."""
    if not audit.options.screening:
        return None
    rows = list(_endpoint_rows(audit))
    cells = [[row.metric, row.label, *_endpoint_cells(row)] for row in rows]
    table = PageTable(("Endpoint", "Recalled by", "Value", "95 % interval"), cells, "Intervals are over persons.")
    return AuditOutcome(
        {SCREENING: pd.DataFrame(case_tables.rows_to_json(rows)["rows"])}, sections=[Section("Screening", [table])]
    )


def without_outcomes(audit: AuditInput) -> AuditInput:
    """The audit without the columns of screening and of advice, which are no groups of people."""
    asked = [OUTCOME, RECALLED, READ_BY] if audit.options.screening else []
    asked += [f"{COVARIATE}{ADVICE}"] if audit.options.advice is not None else []
    left = [name for name in asked if name in audit.scored.table]
    return replace(audit, scored=replace(audit.scored, table=audit.scored.table.drop(columns=left)))


def _endpoint_rows(audit: AuditInput) -> Iterator[Row]:
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
    return screening.screening_rows(called.to_numpy(bool)[is_known], outcome, people, read_by, seed=seed, label=label)


def _endpoint_cells(row: Row) -> tuple[str, str]:
    estimate, ends = row.estimate, "none"
    if estimate.low is not None and estimate.high is not None:
        ends = f"{wording.number_text(estimate.low)} to {wording.number_text(estimate.high)}"
    return f"{wording.number_text(estimate.value)} {estimate.unit}".strip(), ends
