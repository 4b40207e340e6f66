"""Cases in the order in which somebody should look at their references again, by models that have not seen them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum import errors
from hilum.belief.certainties import ABSENT, PRESENT
from hilum.evaluation import ALL, Table, case_tables, label_errors
from hilum.evaluation.case_tables import FOLD, PROBABILITY
from hilum.lazy import pandas as pd
from hilum.report import Block, Paragraph, Section, wording
from hilum.report import Table as PageTable
from hilum.scoring import answered_cases
from hilum.scoring.case_scoring import AuditOutcome
from hilum.tasks import Task, multitask
from hilum.values import Estimate, Floats, Problem

RELABEL = "relabel.csv"
LOOK = [
    "case", "label", "why", "reference", "probable", "probability_reference", "probability_probable", "error",
]  # fmt: skip
PROBABLE, RANKED = "probable label error", "ranked by disagreement"
TITLE = "References that may be wrong"
HOW = (
    "Each case was predicted by a network that was trained without it and without other cases of its patient; a "
    "reference is the more doubtful, the less the prediction agrees."
)
SHOWN = 12
# Of the Dice of a structure: less is rounding.
LEAST_SPREAD = 1e-3
SHOWN_COLUMNS = ("reference", "probable", "probability_reference", "error")
# Labelled cases that a class must have to be learnt.
FEWEST_LABELLED = 5
FEW = (
    "about one in ten or fewer is right, unless the model is sure of wrong answers more often than its calibrated "
    "probabilities say."
)


@dataclass(frozen=True, eq=False)
class LabelledCases:
    """Cases labelled with one of several exclusive classes, and what models that have not seen them answer.

    part:      of a problem of several parts; empty without any
    chances:   (cases, classes)
    reference: (cases,)
    """

    part: str
    rows: Table
    chances: Floats
    classes: list[str]
    reference: list[str]

    @property
    def rare(self) -> dict[str, int]:
        """{class: labels} of those with too few labels, by which nothing is known of it."""
        counts = Counter(self.reference)
        return {name: counts[name] for name in self.classes if 0 < counts[name] < FEWEST_LABELLED}

    @property
    def judged(self) -> list[int]:
        """Places of the cases of frequent classes; none where a label is no class of the model, or all are alike."""
        if not set(self.reference) <= set(self.classes):
            return []
        frequent = [n for n, name in enumerate(self.reference) if name not in self.rare]
        return frequent if len({self.reference[n] for n in frequent}) > 1 else []

    @property
    def judged_labels(self) -> list[int]:
        """Index of the class of each judged case."""
        return [self.classes.index(self.reference[n]) for n in self.judged]

    def full_label(self, label: object) -> str:
        return f"{self.part}: {label}" if self.part else str(label)

    def suspected_labels(self) -> Iterator[dict[str, Any]]:
        """The cases that are probably labelled wrongly; a rare class is neither suspected nor proposed."""
        judged = self.judged
        guessed = label_errors.probable_label_errors(self.chances[judged], self.judged_labels).tolist()
        for n, probable in zip(judged, guessed, strict=True):
            if probable >= 0:
                yield self._row(n, PROBABLE, probable)

    def ranked_labels(self) -> list[dict[str, Any]]:
        """All judged cases, the most doubtful first."""
        judged = self.judged
        suspected = {row["case"]: row for row in self.suspected_labels()}
        doubts = label_errors.label_doubts(self.chances[judged], self.judged_labels)
        rows = list[dict[str, Any]]()
        for place in np.argsort(-doubts, kind="stable").tolist():
            n = judged[place]
            likeliest = int(self.chances[n].argmax())
            rows.append(suspected.get(str(self.rows.iloc[n]["case"])) or self._row(n, RANKED, likeliest))
        return sorted(rows, key=lambda row: row["why"] != PROBABLE)

    def wrong_share(self, *, seed: int) -> Estimate:
        """The share of the judged labels that is expected to be wrong."""
        judged = self.judged
        patients = self.rows["patient"].iloc[judged].to_numpy(str)
        return label_errors.wrong_share(self.chances[judged], self.judged_labels, patients, seed=seed)

    def _row(self, n: int, why: str, probable: int) -> dict[str, Any]:
        label = self.classes.index(self.reference[n])
        return {
            "case": str(self.rows.iloc[n]["case"]),
            "label": self.full_label(self.rows.iloc[n]["label"]),
            "why": why,
            "reference": self.reference[n],
            "probable": self.classes[probable],
            "probability_reference": float(self.chances[n][label]),
            "probability_probable": float(self.chances[n][probable]),
        }


def labelled_cases(task: Task, table: Table) -> Iterator[LabelledCases]:
    """The labelled cases of each task: all cases where classes exclude each other, else those of each finding."""
    for part, table_of_part in multitask.part_tables(task, table).items():
        unseen = (
            table_of_part[table_of_part["reference"].notna()] if "reference" in table_of_part else table_of_part[:0]
        )
        if FOLD not in unseen:
            unseen = unseen[unseen["split"] != "train"]
        if classes := list(case_tables.classes_with_probability(unseen)):
            chances = unseen[[f"{PROBABILITY}{name}" for name in classes]].to_numpy(float)
            yield LabelledCases(part, unseen, chances, classes, unseen["reference"].map(str).tolist())
        elif "probability" in unseen:
            for _, rows in unseen.groupby("label", sort=False):
                p = rows["probability"].to_numpy(float)
                both = np.stack([1 - p, p], axis=1)
                yield LabelledCases(part, rows, both, [ABSENT, PRESENT], rows["reference"].tolist())


def rare_classes_sentence(labelled: Sequence[LabelledCases]) -> str:
    """The classes that were left out, in a sentence; empty without any."""
    rare = [
        f"{own.full_label(name if label == ALL else f'{label} {name}')} ({count})"
        for own in labelled
        for name, count in own.rare.items()
        for label in own.rows["label"].unique()[:1]
    ]
    few = f"fewer than {FEWEST_LABELLED} labels of unseen cases"
    return f"Not looked at for label errors, with {few}: {errors.list_phrase(rare)}." if rare else ""


@dataclass(frozen=True, eq=False)
class LabelRanking:
    """All references in the order of their doubt.

    table:  columns of `relabel.csv`, the most doubtful first
    shares: {question: share of its labels that is expected to be wrong}; empty where references are no classes
    notes:  sentences on cases that are not ranked
    """

    table: pd.DataFrame
    shares: dict[str, Estimate]
    notes: tuple[str, ...] = ()

    @property
    def suspected(self) -> pd.DataFrame:
        """The labels that are probably wrong."""
        return self.table[self.table["why"] == PROBABLE]

    @property
    def statement(self) -> str:
        """The share that is expected to be wrong, and how many are named, in words."""
        cases = errors.count_phrase(self.table["case"].nunique(), "case")
        ranked = f"{cases} ranked by models that have not seen them"
        if not self.shares:
            return f"{ranked}; no share of wrong ones can be estimated of references that are no classes"
        expected = [
            f"{_share_words(share)}{f' of {label}' * (len(self.shares) > 1)}" for label, share in self.shares.items()
        ]
        return f"{ranked}; expected to be wrong: {'; '.join(expected)}; {len(self.suspected)} named"

    @property
    def problems(self) -> list[Problem]:
        """A warning with the cases whose labels are probably wrong; none without any."""
        cases = tuple(dict.fromkeys(self.suspected["case"]))
        if not cases:
            return []
        what = "the label is probably wrong, by models that have not seen the case"
        remedy = f"Look at them again in the order of {RELABEL}"
        return [Problem.warning(what, cases, FEW.rstrip("."), remedy, kind="doubted-label")]

    @property
    def outcome(self) -> AuditOutcome:
        """`relabel.csv` and the section of a page."""
        blocks: list[Block] = [Paragraph(f"{wording.as_sentence(self.statement)} {HOW}")]
        blocks += [Paragraph(wording.as_sentence(note)) for note in self.notes]
        rows = [
            [row["case"], row["label"], row["why"], *map(_cell, (row[name] for name in SHOWN_COLUMNS))]
            for row in self.table.head(SHOWN).to_dict("records")
        ]
        columns = ["Case", "Label", "Why", "Reference", "Probably", "Probability of the reference", "Error"]
        title = f"The {len(rows)} most doubtful of {len(self.table)} references; all are in {RELABEL}."
        return AuditOutcome(
            {RELABEL: self.table}, sections=[Section(TITLE, [*blocks, PageTable(columns, rows, title)])]
        )


def _share_words(share: Estimate) -> str:
    if share.low is None or share.high is None:
        return f"{share.value:.1%}"
    return f"{share.value:.1%} ({100 * share.low:.1f} to {100 * share.high:.1f} %)"


def _cell(value: object) -> str:
    """A cell of the page's table; empty where there is nothing to state."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return wording.number_text(value) if isinstance(value, float) else str(value)


def rank_labels(task: Task, table: Table, *, seed: int, notes: tuple[str, ...] = ()) -> LabelRanking:
    """Rank the references of scored cases: classes by their calibrated probability, all others by the case's error.

    Masks are ranked structure by structure: how far the error of a case lies above what is usual for the structure.
    """
    questions = list(labelled_cases(task, table))
    failures = answered_cases.case_failures(task, table)
    rows = list[dict[str, Any]]()
    shares = dict[str, Estimate]()
    for labelled in questions:
        ranked = labelled.ranked_labels()
        if not ranked:
            continue
        rows += [{**row, "error": failures.get(row["case"])} for row in ranked]
        shares[ranked[0]["label"]] = labelled.wrong_share(seed=seed)
    if len(shares) > 1:  # of several questions the surest first
        rows.sort(key=lambda row: (row["why"] != PROBABLE, row["probability_reference"] - row["probability_probable"]))
    if not rows:
        rows = list(_by_error(table, failures))
    rare = rare_classes_sentence(questions)
    return LabelRanking(pd.DataFrame(rows, columns=LOOK), shares, (*notes, *([rare] if rare else [])))


def _by_error(table: Table, failures: dict[str, float]) -> Iterator[dict[str, Any]]:
    """References that are no classes, the least usual error first: of masks each structure, else each case."""
    if "dice" in table and table["label"].nunique() > 1:
        known = table[table["dice"].notna()]
        loss = 1 - known["dice"]
        usual = loss.groupby(known["label"]).transform("median")
        spread = (loss - usual).abs().groupby(known["label"]).transform("median")
        unusual = (loss - usual) / spread.clip(lower=LEAST_SPREAD)
        for place in unusual.sort_values(ascending=False, kind="stable").index:
            row = known.loc[place]
            yield {"case": str(row["case"]), "label": row["label"], "why": RANKED, "error": float(loss[place])}
        return
    for case in sorted(failures, key=lambda name: -failures[name]):
        yield {"case": case, "label": "all", "why": RANKED, "error": failures[case]}
