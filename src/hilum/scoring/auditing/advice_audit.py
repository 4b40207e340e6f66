"""Lines of advice on scored cases: how often what is said is right, and how often too little or too much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from hilum.errors import DatasetError, HilumError
from hilum.evaluation import ALL, intervals
from hilum.lazy import pandas as pd
from hilum.prediction import case_prediction, model_advice, predictors
from hilum.prediction.case_prediction import CaseRequest
from hilum.report import Paragraph, Section, progress_tracking
from hilum.report import Table as PageTable
from hilum.runtime import Model
from hilum.scoring.case_scoring import AuditInput, AuditOutcome, ScoredCases
from hilum.tasks import Task
from hilum.values import BoundingBoxes, Case, Finding, Image, Row, advice_lines, slabs
from hilum.values.advice_lines import ADVICE, AdviceLine, AdvisedAnswer
from hilum.values.table_cells import PlainCell

TABLE, NONE = "advice.csv", "none"
RIGHT, LITTLE, MUCH = "right", "too little", "too much"
VERDICTS = (RIGHT, LITTLE, MUCH)
HOW = "What lines of advice say of each case, beside what is right; too little is less urgent than that (advice.csv)."


def lines_for(path: str | Path, model: Model, cases: Sequence[Case]) -> tuple[AdviceLine, ...]:
    """The lines of a file. Raises UsageError for those that do not fit the model, or that no reference can meet."""
    lines, where = model_advice.read_lines(Path(path)), str(path)
    words = model_advice.words_of_model(model)
    stated = [str(case.covariates[ADVICE]) for case in cases if case.covariates.get(ADVICE) is not None]
    # What references state without a column is no change since an earlier study.
    advice_lines.refuse_lines(lines, replace(words, compares=bool(stated)), where)
    if strange := sorted(set(stated) - {line.say for line in lines}):
        remedy = f"Use what the lines say: {', '.join(line.say for line in lines)}"
        raise DatasetError(f"the column advice says {strange[0]!r}, and no line does", where, remedy)
    return lines


def with_advice(audit: AuditInput) -> ScoredCases:
    """The figures, with how often the advice on the cases is right; as they are where nobody asked for that."""
    if audit.options.advice is None:
        return audit.scored
    lines = lines_for(audit.options.advice, audit.predictor.model_of(audit.cases[0].id), audit.cases)
    rows, problems = list[dict[str, PlainCell]](), list[str]()
    with progress_tracking.track_progress("applying lines of advice") as tracker:
        for case in tracker.over(audit.cases):
            try:
                rows.append(_advice_row(audit.predictor.model_of(case.id), case, lines))
            except HilumError as error:
                problems.append(f"{case.id}: no advice is scored: {error.problem}.")
    if not rows:
        return audit.scored.with_audit(AuditOutcome(notes=problems))
    table = pd.DataFrame(rows)
    people = table["patient"].to_numpy()
    summary = [
        Row(
            f"{ADVICE}_{verdict.replace(' ', '_')}",
            ALL,
            intervals.proportion((table["verdict"] == verdict).to_numpy(), people, seed=audit.seed),
        )
        for verdict in VERDICTS
    ]
    shares = PageTable(
        ["advice", "share of cases"], [[one, row.estimate] for one, row in zip(VERDICTS, summary, strict=True)]
    )
    outcome = AuditOutcome({TABLE: table}, sections=[Section("Advice", [Paragraph(HOW), shares])], notes=problems)
    return audit.scored.with_audit(outcome, summary)


def _advice_row(model: Model, case: Case, lines: Sequence[AdviceLine]) -> dict[str, PlainCell]:
    """What is said of a case and of its reference. Where no line covers an answer it is too little, whatever is right.

    Raises DatasetError for a reference that no line covers.
    """
    image = predictors.image_of_case(case)
    answer = case_prediction.compute_case(model, case, image, CaseRequest(advice=lines))()
    advised, order = str(answer.rows[0].get(ADVICE, NONE)), [line.say for line in lines]
    right = case.covariates.get(ADVICE)
    if right is None:
        found = AdvisedAnswer(list(reference_findings(model.task, case)), model.task.grades)
        line = advice_lines.choose_line(lines, found)
        if line is None:
            raise DatasetError("no line of advice covers its reference", case.id, "Add a last line without `when`")
        right = line.say
    places = [order.index(one) if one in order else len(order) for one in (advised, str(right))]
    verdict = RIGHT if places[0] == places[1] else LITTLE if places[0] > places[1] else MUCH
    return {
        "case": case.id,
        "patient": case.patient,
        ADVICE: advised,
        "reference": cast("str", right),
        "verdict": verdict,
    }


def reference_findings(task: Task, case: Case) -> Iterator[Finding]:
    """The references of a case as an answer that is sure would state them."""
    units = task.valued_findings
    for kind in sorted(task.needs & set(case.references)):
        match case.references[kind]:
            case str() as name:
                yield Finding(name, probability=1.0, group="grade", called=True, possible=(name,))
            case Mapping() as named:
                for name, value in named.items():
                    if isinstance(value, bool):
                        sure = ("present" if value else "absent",)
                        yield Finding(name, value, probability=float(value), possible=sure)
                    elif value is not None:
                        yield Finding(name, float(value), units.get(name, ""))
            case BoundingBoxes() as boxes:
                yield from (Finding(name, True, probability=1.0) for name in dict.fromkeys(boxes.names))
            case Image() as mask:
                voxels, (size, unit) = slabs.label_voxels(mask.data), mask.geometry.voxel_size or (1.0, "voxels")
                for label in task.labels:
                    yield Finding(label.name, voxels.get(label.value, 0) * size, unit, label=label.value)
