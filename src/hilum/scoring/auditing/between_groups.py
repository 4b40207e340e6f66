"""Differences between groups of people, by descriptors of their images for `check`, or by a model's features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hilum import errors
from hilum.errors import UsageError
from hilum.evaluation import case_tables
from hilum.evaluation.case_tables import COVARIATE
from hilum.evaluation.fairness import group_attributes, shift_tests
from hilum.evaluation.fairness.shift_tests import Balance, GroupedPatients, ShiftTest
from hilum.lazy import pandas as pd
from hilum.quality import covariate_checks, image_descriptors
from hilum.quality.dataset_examination import Examination
from hilum.report import Block, Details, Paragraph, Section, wording
from hilum.report import Table as PageTable
from hilum.scoring.case_scoring import AuditInput, AuditOutcome
from hilum.values import Floats

SHIFT, BALANCE = "shift.csv", "balance.csv"
COLUMNS, BALANCED = [*ShiftTest.__dataclass_fields__], [*Balance.__dataclass_fields__]
TITLE = "Do groups look different?"
HOW = (
    "Two-sample tests of patients: maximum mean discrepancy (mmd), energy distance, and the area under the curve of a "
    "classifier that tells the groups apart. p comes from a permutation of patients (of cases, where patients are "
    "unknown), adjusted by Holm. Matched: only "
    "pairs with nearly the same probability of being in the group, given their covariates."
)


def image_shift(examination: Examination, asked: str, match: Sequence[str], *, seed: int = 0) -> AuditOutcome:
    """Whether the images of groups differ, by what `check` measured of each image.

    asked: as `groups_by_attribute` takes it; match: names of covariates by which patients are paired
    Raises UsageError for a covariate that is not there.
    """
    looks = {one.id: one for one in examination.fingerprint.cases}
    cases = [case for case in examination.dataset if case.id in looks and case.id in examination.looks]
    covariates = group_attributes.covariates_by_name(examination.dataset, {case.id for case in cases})
    if unknown := [name for name in match if name not in covariates]:
        remedy = f"Choose from {errors.list_phrase(list(covariates))}"
        raise UsageError(f"there is no covariate {unknown[0]!r}", "--match", remedy)
    facts, own_looks = [looks[case.id] for case in cases], [examination.looks[case.id] for case in cases]
    rows = image_descriptors.describe_cases(facts, own_looks)
    groups, by = group_attributes.groups_by_attribute(covariates, asked), {name: covariates[name] for name in match}
    return _audit_groups(rows, groups, [case.patient for case in cases], by, seed)


def feature_shift(audit: AuditInput) -> AuditOutcome | None:
    """Whether groups differ in what the network sees in them; None where nobody asked or the model keeps no features.

    Patients are paired by all covariates that say who they are, but for the one that makes the groups.
    """
    if not audit.options.shift:
        return None
    features = audit.scored.features
    if not features:
        return AuditOutcome(notes=["Groups were not compared by features: a model without a gate keeps none."])
    if len({audit.network_of(case) for case in features}) > 1:
        return AuditOutcome(notes=["Groups were not compared by features: each fold's network has its own."])
    who = audit.scored.table.drop_duplicates("case").set_index("case").loc[list(features)]
    covariates = {name.removeprefix(COVARIATE): who[name].tolist() for name in case_tables.covariate_columns(who)}
    asked = audit.options.groups or audit.planned
    groups = group_attributes.groups_by_attribute(covariates, asked, strictly=audit.options.groups is not None)
    by = {name: values for name, values in covariates.items() if not covariate_checks.describes_imaging(name)}
    rows = np.stack([own for _, own in features.values()]).astype(np.float64)
    return _audit_groups(rows, groups, [patient for patient, _ in features.values()], by, audit.seed)


def _audit_groups(
    rows: Floats,
    groups: Mapping[str, np.ndarray],
    patients: Sequence[str],
    covariates: Mapping[str, Sequence[Any]],
    seed: int,
) -> AuditOutcome:
    shifted, balance, words = list[ShiftTest](), list[Balance](), list[str]()
    for attribute, groups_of_cases in groups.items():
        by = {name: values for name, values in covariates.items() if name not in attribute.split("*")}
        grouped = GroupedPatients.from_cases(rows, groups_of_cases.tolist(), patients, by)
        tests, balanced = shift_tests.compare_groups(attribute, grouped, seed=seed)
        shifted += tests
        balance += balanced
        words.append(shift_tests.shift_words(attribute, tests, list(by)))
    tables = {
        SHIFT: pd.DataFrame([asdict(one) for one in shifted], columns=COLUMNS),
        BALANCE: pd.DataFrame([asdict(one) for one in balance], columns=BALANCED),
    }
    return AuditOutcome(tables, sections=[_section(shifted, balance, words)] if groups else [])


def _section(shifted: Sequence[ShiftTest], balance: Sequence[Balance], words: Sequence[str]) -> Section:
    tests = [
        (
            one.attribute,
            f"{one.first} and {one.second}",
            one.test,
            "matched" if one.matched else "all",
            wording.number_text(one.value),
            f"{one.p_adjusted:.2g}",
            f"{one.patients_first} and {one.patients_second}",
        )
        for one in shifted
    ]
    unlike = [
        (
            one.attribute,
            f"{one.first} and {one.second}",
            one.covariate,
            wording.number_text(one.before),
            wording.number_text(one.after),
        )
        for one in balance
    ]
    blocks: list[Block] = [Paragraph(one) for one in words]
    if tests:
        columns = ("Attribute", "Groups", "Test", "Patients", "Distance", "adjusted p", "How many")
        blocks.append(Details("All tests", [PageTable(columns, tests, HOW)]))
    if unlike:
        names = ("Attribute", "Groups", "Covariate", "Before", "After")
        caption = "Differences of means in standard deviations, before and after matching."
        blocks.append(Details("How alike matched patients are", [PageTable(names, unlike, caption)]))
    return Section(TITLE, blocks)
