"""Whether a model's own figures on cases tell who trained it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from hilum import errors
from hilum.errors import HilumError, UsageError
from hilum.evaluation import ALL, case_tables, membership
from hilum.evaluation.metric import MEMBERSHIP
from hilum.report import progress_tracking
from hilum.scoring import case_scoring
from hilum.scoring.case_scoring import AuditInput, FoldPredictor, ScoredCases
from hilum.values import Case, Estimate, Row, Split
from hilum.values.table_cells import PlainCell

# Patients of each side that are looked at.
MOST = 500


def attacked_cases(cases: Sequence[Case], seed: int) -> list[Case]:
    """A case of each patient, of at most `MOST` patients sampled by the seed."""
    first = {case.patient: case for case in reversed(cases)}
    patients = sorted(first)
    sampled = np.random.default_rng(seed).permutation(len(patients))[:MOST]
    return [first[patients[place]] for place in sorted(sampled)]


def membership_of_cases(
    predictor: FoldPredictor, trained: Sequence[Case], others: Sequence[Case], *, seed: int, patients_known: bool
) -> list[Row]:
    """How well a model's figures on single cases tell those that trained it from others.

    The order from best to worst is that by which the kind of problem ranks its cases (`Task.rank`); of equal cases it
    is sampled. A case that cannot be predicted is left out.
    Raises UsageError without a case on each side.
    """
    rows, is_member, patients = list[dict[str, PlainCell]](), dict[str, bool](), dict[str, str]()
    sides = [(case, own) for own, side in ((True, trained), (False, others)) for case in attacked_cases(side, seed)]
    with progress_tracking.track_progress("attacking by losses") as tracker:
        for case, own in tracker.over(sides):
            with suppress(HilumError):
                part: Split = "train" if own else "test"
                rows += case_scoring.case_table_rows(predictor.predict(case), case, predictor.task, part, None)
                is_member[case.id], patients[case.id] = own, case.patient
    if len(set(is_member.values())) < 2:
        known = errors.count_phrase(sum(is_member.values()), "training case")
        problem = f"{known} and {errors.count_phrase(len(is_member) - sum(is_member.values()), 'other')} were predicted"
        raise UsageError(problem, "--membership", "Give the data that trained the model, with its test cases")
    # Ranking is stable: among equal cases those that come first would otherwise win.
    table = case_tables.case_table(rows).sample(frac=1.0, random_state=seed)
    order = [str(case) for case in predictor.task.rank(table)]
    members, owners = [is_member[case] for case in order], [patients[case] for case in order]
    found = membership.membership_rows(np.arange(len(order)), members, owners, seed=seed)
    if patients_known:
        return found
    return [replace(row, estimate=case_scoring.named_by_case(row.estimate)) for row in found]


def membership_or_reason(
    predictor: FoldPredictor,
    trained: Sequence[Case],
    others: Sequence[Case],
    *,
    least: int,
    seed: int,
    patients_known: bool,
) -> list[Row]:
    """The same rows, or blank ones with the reason in `method` where either side has fewer patients than `least`."""
    why = f"none: fewer than {least} training or test patients"
    if min(len({case.patient for case in side}) for side in (trained, others)) >= least:
        try:
            return membership_of_cases(predictor, trained, others, seed=seed, patients_known=patients_known)
        except UsageError:
            why = "none: no training case, or no test case, could be predicted"
    return [Row(name, ALL, Estimate(math.nan, method=why)) for name in MEMBERSHIP]


def with_membership(audit: AuditInput, trained: Sequence[Case]) -> ScoredCases:
    """The figures with those of the attack; trained: the cases that trained the model."""
    rows = membership_of_cases(
        audit.predictor, trained, audit.cases, seed=audit.seed, patients_known=audit.patients_known
    )
    return replace(audit.scored, rows=[*audit.scored.rows, *rows])
