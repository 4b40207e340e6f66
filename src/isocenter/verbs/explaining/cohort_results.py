"""The results of a cohort's maps: tests before, references and findings after."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isocenter.errors import counted
from isocenter.evaluation import bootstrap
from isocenter.explanation import FEWEST, TESTED, findings_of, plain_estimate
from isocenter.values import Case
from isocenter.verbs.explaining.cohort import Explainer, Made
from isocenter.verbs.explaining.kept import Records, is_kept, keep, kept_records
from isocenter.verbs.explaining.tests_of_methods import Tested, spread_out, tested_methods
from isocenter.verbs.reading import tracked

log = logging.getLogger("isocenter")
# Seconds of tests after which no further case begins, where nobody said how many: on volumes a case can take minutes.
AT_MOST = 600.0


def with_tests(explainer: Explainer, cases: Sequence[Case], path: Path | None, wanted: int, *, seed: int) -> Explainer:
    """The explainer with what is known of its methods; those that were never tested are, with some of the cases.

    path:   of the model, beside which it is kept
    wanted: so many cases; 0 tests none
    """
    records, unfit = kept_records(path, explainer.model)
    missing = [method for method in explainer.methods if method.name not in records]
    chosen = spread_out(cases, wanted)
    if not missing or len(chosen) < FEWEST:
        return replace(explainer, tested=Tested(records))
    # One that could not explain the model before is asked again, for another target; it says no at once.
    if new := [method for method in missing if method.name not in unfit]:
        once = ", once for this model" if is_kept(path, explainer.model) and explainer.torch_model is not None else ""
        many = f"{counted(len(new), 'method')} of explanation on {counted(len(chosen), 'case')}"
        log.info("testing %s%s: this may take minutes", many, once)
    with tracked("testing the maps") as tracker:
        tested = tested_methods(
            explainer.model,
            missing,
            chosen,
            explainer.torch_model,
            tracker,
            target=explainer.target,
            seconds=explainer.seconds,
            seed=seed,
            at_most=AT_MOST if wanted == TESTED else math.inf,
        )
    records |= tested.records
    unfit = {name: why for name, why in {**unfit, **tested.refused}.items() if name not in records}
    keep(path, explainer.model, records, unfit)
    return replace(explainer, tested=replace(tested, records=records))


def with_references(
    records: Records, rows: Sequence[Mapping[str, Any]], patients: Mapping[str, str], *, seed: int
) -> dict[str, Mapping[str, Any]]:
    """The records with pointing, energy and area over the cases that have references."""
    made: dict[str, Mapping[str, Any]] = {name: dict(record) for name, record in records.items()}
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name and row["pointing"] is not None]
        untested = {"passed": None, "because": "not tested"}
        for measure in ("pointing", "energy", "area") if own else ():
            people = [patients[row["case"]] for row in own]
            estimate = plain_estimate(bootstrap([row[measure] for row in own], people, seed=seed))
            made[name] = {**made.get(name, untested), measure: estimate}
    return made


def cohort_findings(made: Sequence[Made], *, seed: int) -> list[dict[str, Any]]:
    """What the maps of each method look at, over the cases."""
    names = dict.fromkeys(name for one in made for name in one.small)
    each = {name: findings_of([one.small[name] for one in made if name in one.small], seed=seed) for name in names}
    return [{"method": name, **row} for name, rows in each.items() for row in rows]
