"""How far a model's own measurements of a patient differ who was imaged twice without any change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hilum import errors
from hilum.errors import HilumError
from hilum.evaluation import biomarkers
from hilum.evaluation.metric import REPEATABILITY
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.reading import series_survey
from hilum.lazy import pandas as pd
from hilum.report import Paragraph, Section
from hilum.report import Table as PageTable
from hilum.scoring.case_scoring import AuditInput, AuditOutcome, ScoredCases
from hilum.values import Case, Image, Row
from hilum.values.table_cells import PlainCell

TABLE, COLUMN = "repeatability.csv", "repeat"
# The column of volumes in ml that are measured in a prediction.
VOLUME = "volume_predicted"
# Patients with a repeat from which on the spread is stated: with five its interval reaches from .6 to 2.5 times it.
FEWEST = 5
HOW = (
    "Two images each of patients in whom nothing changed, measured by the model: of 95 % of repeats both differ by "
    f"less than the coefficient, in % of their mean ({TABLE} has both volumes, in ml). Repeats are "
)
STATED = f"cases of a patient with one entry in the column {COLUMN}."
ONE_DAY = "images of a patient by one protocol on one day."


def with_repeatability(audit: AuditInput) -> ScoredCases:
    """The figures with the repeatability of each structure's volume; as they are where nobody was imaged twice."""
    volumes, how = list[dict[str, PlainCell]](), STATED
    tables = {part: table for part, (_, table) in audit.scored.parts.items() if VOLUME in table}
    if tables and audit.patients_known:
        pairs, how = repeated_pairs(audit.cases)
        volumes = [row for part, table in tables.items() for row in _volumes(table, pairs, part)]
    if not volumes:
        return audit.scored
    table, rows, notes = pd.DataFrame(volumes), list[Row](), list[str]()
    for label, own in table.groupby("label", sort=False):
        both = own[(own["first"] > 0) & (own["second"] > 0)]
        if len(both) < FEWEST:
            count = errors.count_phrase(len(both), "patient")
            notes.append(
                f"The repeatability of {label} is not stated: {count} of {FEWEST} needed have repeats with it."
            )
            continue
        found = biomarkers.repeatability(both["first"], both["second"], relative=True)
        left = f", {len(own) - len(both)} with an empty mask left out" * (len(both) < len(own))
        estimate = replace(found.coefficient, method=f"{found.coefficient.method}{left}")
        rows.append(Row(REPEATABILITY.name, str(label), estimate))
    shown = PageTable(["structure", "repeatability coefficient"], [[row.label, row.estimate] for row in rows])
    section = Section("Repeated measurements", [Paragraph(f"{HOW}{how}"), *([shown] if rows else [])])
    outcome = AuditOutcome({TABLE: table}, sections=[section], notes=notes)
    return audit.scored.with_audit(outcome, rows)


def repeated_pairs(cases: Sequence[Case]) -> tuple[list[tuple[Case, Case]], str]:
    """The first two cases of each patient between which nothing changed, and how they are known.

    They have one entry in the column `repeat`; where no case has an entry, they were taken by one protocol on one day.
    """
    is_stated = any(case.covariates.get(COLUMN) is not None for case in cases)
    groups = dict[tuple[Any, ...], list[Case]]()
    counts = Counter(case.patient for case in cases)
    for case in cases:
        if counts[case.patient] > 1:
            entry = case.covariates.get(COLUMN) if is_stated else _day_and_protocol(case)
            if entry is not None:
                groups.setdefault((case.patient, entry), []).append(case)
    first = dict[str, tuple[Case, Case]]()
    for (patient, _), own in groups.items():
        if len(own) > 1:
            first.setdefault(patient, (own[0], own[1]))
    return [*first.values()], STATED if is_stated else ONE_DAY


def _day_and_protocol(case: Case) -> tuple[Any, ...] | None:
    """The day, protocol and contrast agent of a case's first image; None where no header states day and protocol."""
    image: Image | None = next(iter(case.images.values()), None)
    with suppress(HilumError):
        if image is not None and image.source is not None and (day := series_survey.acquisition_day(image)) is not None:
            head = header_reading.read_header(Path(image.source.paths[0])).dataset
            names = tuple(tags.text(head, one) for one in ("ProtocolName", "SeriesDescription", "ContrastBolusAgent"))
            return (day, *names) if any(names[:2]) else None
    return None


def _volumes(table: pd.DataFrame, pairs: Sequence[tuple[Case, Case]], part: str) -> Iterator[dict[str, PlainCell]]:
    """Rows of `repeatability.csv`: each structure of each pair that was measured twice."""
    measured = table.dropna(subset=[VOLUME]).drop_duplicates(["case", "label"]).set_index(["case", "label"])[VOLUME]
    for label in dict.fromkeys(table["label"]):
        for first, second in pairs:
            if (first.id, label) in measured and (second.id, label) in measured:
                volumes = {"first": measured[first.id, label], "second": measured[second.id, label]}
                name = f"{part}: {label}" if part else str(label)
                yield {"label": name, "patient": first.patient, "cases": f"{first.id} {second.id}", **volumes}
