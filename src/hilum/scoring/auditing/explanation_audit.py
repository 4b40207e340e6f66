"""Maps of what the answers to the best and worst cases rest on, beside their pictures.

Their parts are named by `explaining`, which imports them when they are first used: they bring torch and captum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hilum.errors import HilumError
from hilum.explanation import explanation_methods, faithfulness
from hilum.lazy import pandas as pd
from hilum.report import Paragraph, Section
from hilum.runtime.package.package_contents import EXPLANATIONS
from hilum.scoring.case_scoring import WRONG, AuditInput, AuditOutcome
from hilum.scoring.explaining import cohort_explanation, explanation_report
from hilum.values import Case
from hilum.values.explanation_records import EXPLANATIONS_SCHEMA, ExplanationsRecord

TABLE, TITLE = "explanations.csv", "What answers rest on"
# Of the cases that the report shows; the worst of classes are wrong calls.
BEST = "best"
WORST: tuple[str, ...] = (WRONG, "worst")
# Maps beside a case: of more nobody looks at any.
MOST_METHODS = 3


def audit_explanations(audit: AuditInput) -> AuditOutcome | None:
    """Maps of the report's best and worst cases by the methods that pass their tests on this model."""
    if not audit.options.explain:
        return None
    by_id = {case.id: case for case in audit.cases if case.images}
    shown = [(word, by_id[case]) for word, case, _, _ in audit.scored.shown if case in by_id]
    best = [case for word, case in shown if word == BEST]
    chosen = [*best, *[case for word, case in shown if word in WORST][: max(len(best), 1)]]
    if not chosen:
        return AuditOutcome(notes=("No answer was explained: there is no image.",))
    explained_cases, tested, notes = _explain_cases(audit, chosen, list(by_id.values()))
    rows = [row for one in explained_cases for row in one.rows]
    records = cohort_explanation.method_records_with_pointing(
        tested.tested.records, rows, {case.id: case.patient for case in chosen}, seed=audit.seed
    )
    refused, verdict = dict(tested.tested.refused), explanation_report.verdict_sentence(records)
    # That a method passed speaks against nothing: it stands with the maps, and not under the headline.
    failed = [] if any(one.get("passed") for one in records.values()) else [verdict]
    return AuditOutcome(
        {TABLE: pd.DataFrame(rows, columns=list(cohort_explanation.COLUMNS))},
        {EXPLANATIONS: (EXPLANATIONS_SCHEMA, ExplanationsRecord(methods=records, refused=refused, findings=[]))},
        [Section(TITLE, [Paragraph(verdict), *explanation_report.method_blocks(records, refused)])],
        [*notes, *failed],
        {
            one.case: [replace(own, caption=f"{own.title}: {own.caption}") for own in one.figures]
            for one in explained_cases
        },
    )


def _explain_cases(
    audit: AuditInput, chosen: Sequence[Case], cases: Sequence[Case]
) -> tuple[list[cohort_explanation.CaseExplanation], cohort_explanation.Explainer, list[str]]:
    """Each of the chosen cases by the network that scored it; the methods were tested on those of the first."""
    model, methods = audit.predictor.model_of(chosen[0].id), explanation_methods.named_methods(explanation_methods.ALL)
    tested = cohort_explanation.Explainer.from_methods(model, methods, by_name=False)
    of_model = [case for case in cases if audit.predictor.model_of(case.id) is model]
    tested = cohort_explanation.with_tests(
        tested, of_model, None if audit.folds else audit.path, faithfulness.TESTED, seed=audit.seed
    )
    believed = tested.believed_methods[:MOST_METHODS]
    results = list[cohort_explanation.CaseExplanation]()
    notes = list[str]()
    for case in chosen:
        explainer = cohort_explanation.Explainer.from_methods(
            audit.predictor.model_of(case.id), believed, by_name=False, tested=tested.tested
        )
        try:
            results.append(replace(explainer, references={case.id: case}, keeps=False)(case))
        except HilumError as error:
            notes.append(f"{case.id} was not explained: {error.problem}.")
    return results, tested, notes
