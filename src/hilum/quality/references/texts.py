"""Texts of a case, such as radiology reports: who is named in them. No word of them is kept or shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from hilum.values import (
    Case,
    Cohort,
    Fingerprint,
    Problem,
    ReferenceChecks,
    ReferenceFacts,
    ReferenceKind,
    ReferenceWords,
    covariate_values,
    personal_columns,
)
from hilum.values.plain_values import PlainValue
from hilum.values.reference_kind import CaseReference, ReferenceMeasures

KIND = "text"
# Letters of an identifier that is looked for; of fewer chance finds it.
SHORTEST = 3
WORDS = re.compile(r"\w+")


def _measure(reference: CaseReference) -> ReferenceMeasures:
    """How many texts and words there are."""
    texts = reference.value.texts
    return ReferenceMeasures({"texts": len(texts), "words": sum(len(WORDS.findall(one)) for one in texts)})


def _count(fingerprint: Fingerprint) -> Mapping[str, PlainValue]:
    own = list(fingerprint.summaries(KIND).values())
    return {"cases": len(own), "texts": sum(one["texts"] for one in own)} if own else {}


def _cohort_problems(cohort: Cohort) -> Iterator[Problem]:
    """The warning on texts that hold the name or number of their patient: of the table, or of the DICOM header."""
    known = cohort.dataset.patients_known
    having = [case for case in cohort.dataset if KIND in case.references]
    named = [case.id for case in having if _names_somebody(case, case.patient if known else "")]
    if named:
        yield Problem.warning(
            f"{len(named)} of {len(cohort.summaries(KIND))} texts hold the name or number of their patient",
            tuple(named),
            "texts that teach a network should name nobody",
            "Remove names and numbers from the texts",
        )


def _names_somebody(case: Case, patient: str) -> bool:
    """Whether a text holds the patient's number, or a word of what its row says of who it is."""
    texts = case.references[KIND]
    identities = (one for name, one in case.covariates.items() if personal_columns.identifies_person(name))
    words = (word for one in identities if not covariate_values.is_missing(one) for word in WORDS.findall(str(one)))
    sought = "|".join(re.escape(one) for one in (patient, *words) if len(one) >= SHORTEST)
    return texts.names_patient or any(re.search(rf"(?i)\b({sought})\b", one) for one in texts.texts if sought)


def _lines(cohort: Cohort) -> Mapping[str, str]:
    own = list(cohort.summaries(KIND).values())
    words = np.median([one["words"] for one in own]) if own else 0
    return {"texts": f"of {len(own)} cases, with a median of {words:g} words"} if own else {}


TEXT = ReferenceKind(
    KIND,
    ReferenceFacts(measure=_measure, counted=_count),
    ReferenceChecks(cohort=_cohort_problems),
    words=ReferenceWords("texts", lines=_lines),
)
