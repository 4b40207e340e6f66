"""Covariates of the patients: impossible values, and gaps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hilum import errors
from hilum.quality import number_checks
from hilum.values import Dataset, Problem, covariate_values, table_cells
from hilum.values.covariate_values import AGE, DAYS, CovariateValues

OLDEST = 120
# A column of numbers has hardly any words, and more numbers than groups have codes.
MOSTLY, MOST_GROUPS = 0.9, 10
# Ranges of ages, as tables have them whose people shall not be known by their age: 40-60, <40, >89, 90+.
AGES = "[^-+<>]+"
RANGE = re.compile(rf"\s*(?:[<>\u2264\u2265]=?({AGES})|({AGES})\+|({AGES})[-\u2013]({AGES}))\s*")
# Columns that say how an image was made, not who the patient is.
MADE = frozenset(
    {
        "site", "scanner", "center", "centre", "hospital", "institution", "clinic", "manufacturer", "vendor",
        "model", "device", "machine", "station", "kvp", "exposure", "protocol", "sequence", "field", "strength",
        "tesla", "coil", "view", "position", "location", "source", "folder", "batch", "url", "license",
        "licence", "modality", "kernel", "kv",
    }
)  # fmt: skip
# Beside one of these such a word is about the body, or what it has met: a visual field, an exposure to asbestos.
BODY = frozenset(
    {
        "tumor", "tumour", "lesion", "tissue", "biopsy", "body", "anatom", "anatomic", "anatomical", "primary",
        "metastasis", "fracture", "nodule", "node", "visual", "muscle", "grip", "asbestos", "smoke", "tobacco", "sun",
    }
)  # fmt: skip
# The hospital that sent the tissue, as TCGA has it.
SENDER = frozenset({"tissue", "source", "site"})
# PS3.3 C.7.1.1 (M, F, O), ISO 5218 (0, 1, 2, 9) and the words that tables use.
SEXES = frozenset("mfouxdwh0129") | {"male", "female", "other", "unknown", "diverse", "weiblich", "männlich", "divers",
                                     "man", "woman", "boy", "girl", "mann", "frau", "homme", "femme", "garçon", "fille",
                                     "hombre", "mujer"}  # fmt: skip
# Words of a column that state the unit of its ages.
UNITS = {"month": "M", "months": "M", "mo": "M", "week": "W", "weeks": "W", "day": "D", "days": "D"}


def covariate_problems(dataset: Dataset) -> Iterator[Problem]:
    """Impossible ages and sexes, a column each, and one line for all gaps."""
    columns = list(dict.fromkeys(name for case in dataset for name in case.covariates))
    gaps = []
    for name in columns:
        values = {case.id: case.covariates.get(name) for case in dataset}
        words = column_words(name)
        present = {case: value for case, value in values.items() if not covariate_values.is_missing(value)}
        if "age" in words:
            unit = next((UNITS[word] for word in sorted(words) if word in UNITS), "")
            odd_ages = {case: age for case, age in present.items() if not _is_age(age, unit)}
            yield from _impossible(name, odd_ages, f"an age of 0 to {OLDEST}{' years' if unit else ''}")
        if words & {"sex", "gender"}:
            odd = {c: v for c, v in present.items() if str(v).strip().lower().removesuffix(".0") not in SEXES}
            yield from _impossible(name, odd, "a sex (M, F, O, ...)")
        yield from number_checks.number_problems(name, _numbers(present))
        yield from _mixed_dates(name, present)
        if len(present) < len(values):
            gaps.append((len(values) - len(present), name))
    if gaps:
        most = errors.list_phrase(f"{name} {count}" for count, name in sorted(gaps, reverse=True))
        yield Problem.note(
            f"{len(gaps)} of {len(columns)} columns of covariates have gaps (cases without a value: {most})",
            (),
            "comparisons by them rest on fewer cases, and the gaps may not be random",
            "Fill them in where they are known",
        )


def _numbers(present: CovariateValues) -> dict[str, float]:
    """The numbers of a column that has little else; empty of words, and of codes that stand for groups."""
    found = {case: covariate_values.number_in(value) for case, value in present.items()}
    numbers = {case: number for case, number in found.items() if number is not None}
    is_measured = len(numbers) > MOSTLY * len(present) and len(set(numbers.values())) > min(
        MOST_GROUPS, len(numbers) / 2
    )
    return numbers if is_measured else {}


def _mixed_dates(name: str, present: CovariateValues) -> Iterator[Problem]:
    """The warning that some dates of a column have the day first, and others the month."""
    mixed = table_cells.mixed_dates([value for value in present.values() if isinstance(value, str)])
    if mixed is not None:
        cases = tuple(case for case, value in present.items() if str(value).strip() in mixed)
        yield Problem.warning(
            f"{name} has dates with the day first ({mixed[0]}) and with the month first ({mixed[1]})",
            cases,
            "days up to the twelfth may be either",
            "Write dates as 2026-03-01",
        )


def describes_imaging(column: str) -> bool:
    """Whether a column says how an image was made, not who the patient is."""
    words = column_words(column)
    return words >= SENDER or (bool(words & MADE) and not words & BODY)


def column_words(column: str) -> frozenset[str]:
    """Words of a column's name: patient_age, PatientAge and patient.age hold the same two."""
    return frozenset(word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", column))


def _impossible(name: str, strange: CovariateValues, expected: str) -> Iterator[Problem]:
    if strange:
        examples = ", ".join(sorted({str(value) for value in strange.values()})[:5])
        yield Problem.warning(
            f"{name} holds what is not {expected}: {examples}",
            tuple(strange),
            "results by subgroup would be wrong",
            "Correct the table",
        )


def _is_age(value: Any, unit: str) -> bool:
    """Whether it is an age, or a range of ages. unit: of values that state none themselves."""
    if between := RANGE.fullmatch(str(value)):
        return all(_is_age(one, unit) for one in between.groups() if one is not None)
    fit = AGE.fullmatch(str(value))
    return fit is not None and 0 <= float(fit[1]) * DAYS[fit[2].upper() or unit] / 365.25 <= OLDEST
