"""Maps of what the answers to the best and worst cases rest on, beside their pictures.

Their parts are named by `explaining`, which imports them when they are first used: they bring torch and captum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from isocenter import explanation
from isocenter.errors import IsocenterError
from isocenter.lazy import pandas as pd
from isocenter.report import Paragraph, Section
from isocenter.runtime import EXPLANATIONS, EXPLANATIONS_SCHEMA
from isocenter.scoring import explaining
from isocenter.scoring.scores import WRONG, Audit, Audited
from isocenter.values import Case

TABLE, TITLE = "explanations.csv", "What answers rest on"
# Of the cases that the report shows; the worst of classes are wrong calls.
BEST = "best"
WORST: tuple[str, ...] = (WRONG, "worst")
# Maps beside a case: of more nobody looks at any.
MOST_METHODS = 3


def explanations(audit: Audit) -> Audited | None:
    """Maps of the report's best and worst cases by the methods that pass their tests on this model."""
    if not audit.options.explain:
        return None
    by_id = {case.id: case for case in audit.cases if case.images}
    shown = [(word, by_id[case]) for word, case, _, _ in audit.scored.shown if case in by_id]
    best = [case for word, case in shown if word == BEST]
    chosen = [*best, *[case for word, case in shown if word in WORST][: max(len(best), 1)]]
    if not chosen:
        return Audited(notes=("No answer was explained: there is no image.",))
    explained_cases, tested, notes = _made(audit, chosen, list(by_id.values()))
    rows = [row for one in explained_cases for row in one.rows]
    records = explaining.with_references(
        tested.tested.records, rows, {case.id: case.patient for case in chosen}, seed=audit.seed
    )
    refused, verdict = dict(tested.tested.refused), explaining.verdict_sentence(records)
    # That a method passed speaks against nothing: it stands with the maps, and not under the headline.
    failed = [] if any(one.get("passed") for one in records.values()) else [verdict]
    return Audited(
        {TABLE: pd.DataFrame(rows, columns=list(explaining.COLUMNS))},
        {EXPLANATIONS: (EXPLANATIONS_SCHEMA, {"methods": records, "refused": refused, "findings": []})},
        [Section(TITLE, [Paragraph(verdict), *explaining.method_blocks(records, refused)])],
        [*notes, *failed],
        {
            one.case: [replace(own, caption=f"{own.title}: {own.caption}") for own in one.figures]
            for one in explained_cases
        },
    )


def _made(
    audit: Audit, chosen: Sequence[Case], cases: Sequence[Case]
) -> tuple[list[explaining.Made], explaining.Explainer, list[str]]:
    """Each of the chosen cases by the network that scored it; the methods were tested on those of the first."""
    model, methods = audit.predictor.model_of(chosen[0].id), explanation.named_methods(explanation.ALL)
    tested = explaining.Explainer.of(model, methods, by_name=False)
    of_model = [case for case in cases if audit.predictor.model_of(case.id) is model]
    tested = explaining.with_tests(
        tested, of_model, None if audit.folds else audit.path, explanation.TESTED, seed=audit.seed
    )
    believed, results, notes = tested.believed[:MOST_METHODS], list[explaining.Made](), list[str]()
    for case in chosen:
        explainer = explaining.Explainer.of(
            audit.predictor.model_of(case.id), believed, by_name=False, tested=tested.tested
        )
        try:
            results.append(replace(explainer, references={case.id: case}, keeps=False)(case))
        except IsocenterError as error:
            notes.append(f"{case.id} was not explained: {error.problem}.")
    return results, tested, notes
