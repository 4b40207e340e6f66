"""Whether a site is what a model was made on: two-sample tests of its first cases, once, when it goes live.

That is another question than whether the site has changed since, which watches answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from hilum.evaluation.fairness import shift_tests
from hilum.evaluation.significance import testing
from hilum.lazy import pandas as pd
from hilum.monitoring import case_stream
from hilum.monitoring.case_stream import FEATURES, INPUT, OUTPUT, CaseStream, WatchedColumn
from hilum.values import Floats

# Of the adjusted p below which a site is called unlike: as for what `evaluate` says of scored cases.
LEVEL = 0.01
# Patients of each side, and the share of them who must have a number for it to be compared.
FEWEST_PATIENTS = 20
KNOWN = 0.9
SEED = 0
# What the cases of a site are compared with.
CALIBRATION = "cases that calibrated the model"
TABLE = "reference table"


@dataclass(frozen=True)
class SiteTest:
    """One row of `site.csv`: a test of the patients of a site against those that a model is known for.

    against:  the cases that calibrated the model, or the reference table
    of:       features (what the network sees), input or output
    distance: between the two groups; NaN where they are too few
    p:        of so large a distance between patients of one source, adjusted by Holm over all rows
    patients, known: of the site, and of the other group
    left_out: numbers that too many patients lack, or none of them differs in
    """

    against: str
    of: str
    test: str
    distance: float
    p: float
    patients: int
    known: int
    left_out: str = ""

    @property
    def is_unlike(self) -> bool:
        """Whether the site differs."""
        return self.p < LEVEL


def tests_of_features(calibrated: ArrayLike, features: ArrayLike, patients: ArrayLike) -> list[SiteTest]:
    """Tests of what the network sees at a site against the cases that calibrated it.

    calibrated: (patients, features) one case of each patient
    features:   (cases, features) of the site; a row of NaN has none
    patients:   (cases,) of the site; one case of each is compared
    """
    numbers = np.asarray(features, dtype=np.float64)
    owners = np.asarray(patients)
    has = np.isfinite(numbers).all(axis=1)
    rows = numbers[has][shift_tests.one_case_each(owners[has])] if has.any() else numbers[:0]
    return list(_test_samples(CALIBRATION, FEATURES, np.asarray(calibrated, dtype=np.float64), rows))


def tests_of_table(reference: CaseStream, site: CaseStream) -> list[SiteTest]:
    """Tests of the numbers and categories that a reference table has too, inputs and outputs each together."""
    sides = [site.only(_is_chosen(site)), reference.only(_is_chosen(reference))]
    looked_at = list(case_stream.watched_columns(sides[1], sides[0]))
    tests = list[SiteTest]()
    for kind in (INPUT, OUTPUT):
        of_kind = [one for one in looked_at if one.kind == kind]
        usable = [one for one in of_kind if _is_known(one)]
        lacking = ", ".join(one.name for one in of_kind if one not in usable)
        if not usable:
            continue
        before, now = (
            np.concatenate(each, axis=1) for each in zip(*((x.reference, x.values) for x in usable), strict=True)
        )
        before, now = (side[np.isfinite(side).all(axis=1)] for side in (before, now))
        tests += [replace(row, left_out=lacking) for row in _test_samples(TABLE, kind, before, now)]
    return tests


def adjust_site_tests(rows: Sequence[SiteTest]) -> list[SiteTest]:
    """The rows with each p adjusted for how many tests were made."""
    if rows:
        return [replace(row, p=float(p)) for row, p in zip(rows, testing.holm([row.p for row in rows]), strict=True)]
    return []


def site_verdict(rows: Sequence[SiteTest]) -> str:
    """The answer in a sentence for each that the site was compared with; empty where it was with nothing."""
    words = list[str]()
    for against in dict.fromkeys(row.against for row in rows):
        tests = [row for row in rows if row.against == against]
        counts = f"{tests[0].patients} patients of the site, {tests[0].known} of the others"
        unlike = min((row for row in tests if row.is_unlike), key=lambda row: row.p, default=None)
        if all(np.isnan(row.p) for row in tests):
            words.append(f"Too few patients to compare this site with the {against} ({counts})")
        elif unlike is None:
            words.append(f"No difference shown between this site and the {against} ({counts})")
        else:
            how = f"{unlike.of}, {unlike.test} test, p {unlike.p:.2g}; {counts}"
            words.append(f"This site is unlike the {against} ({how}): what was measured on them may not hold here")
    return ". ".join(words)


def site_table(rows: Sequence[SiteTest]) -> pd.DataFrame:
    """The rows as `site.csv` has them."""
    return pd.DataFrame([vars(row) for row in rows], columns=list(SiteTest.__dataclass_fields__))


def _test_samples(against: str, of: str, reference: Floats, site: Floats) -> Iterator[SiteTest]:
    if min(len(reference), len(site)) < FEWEST_PATIENTS:
        yield SiteTest(against, of, "none: too few", np.nan, np.nan, len(site), len(reference))
        return
    for name, found in shift_tests.two_sample_tests(reference, site, seed=SEED).items():
        yield SiteTest(against, of, name, found.value, found.p, len(site), len(reference))


def _is_chosen(stream: CaseStream) -> np.ndarray:
    """(cases,) whether it is the one of its patient that is compared."""
    return np.isin(np.arange(len(stream)), shift_tests.one_case_each(stream.patients))


def _is_known(watched: WatchedColumn) -> bool:
    if not watched.is_compared.all():  # half of the reference says what is frequent, and cannot be compared
        return False
    sides = [np.isfinite(side).all(axis=1).mean() >= KNOWN for side in (watched.reference, watched.values)]
    return all(sides)
