"""Where a model fails more than elsewhere, and the cases that somebody should look at again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter.errors import counted
from isocenter.evaluation import (
    COVARIATE,
    FOLD,
    PROBABILITY,
    Table,
    WeakGroup,
    class_names,
    clusters,
    covariate_columns,
    probable_label_errors,
    weak_groups,
)
from isocenter.lazy import pandas as pd
from isocenter.report import Block, Details, Paragraph, Section, number
from isocenter.report import Table as PageTable
from isocenter.tasks.shared import ABSENT, PRESENT
from isocenter.verbs.evaluation import Audited, case_failures

if TYPE_CHECKING:
    from isocenter.verbs.auditing.audits import Audit

WEAK_GROUPS, RELABEL, TITLE = "weak_groups.csv", "relabel.csv", "Where it fails"
COVARIATES, FACTS, FEATURES = "covariate", "image", "features"
OF_IMAGE = "image: "
SEEN = "what the network sees"
# Of the worst cases so many are listed, and groups in the report; labelled cases that a class must have to be learnt.
WORST, SHOWN, FEWEST_LABELLED = 20, 8, 5
PROBABLE, AMONG_WORST = "probable label error", "among the worst"
HOW = (
    "Groups are those of covariates, facts of the image and clusters of what the network sees, made without a look at "
    "errors; p by permutation of patients, Holm over all of them."
)
LOOK = [
    "case",
    "label",
    "why",
    "reference",
    "probable",
    "probability_reference",
    "probability_probable",
    "error",
]


def mistakes(audit: Audit) -> Audited | None:
    """The groups in which the model fails more, and the cases to be labelled again."""
    task, table = audit.predictor.task, audit.scored.table
    errors = case_failures(task, table)
    if not errors:
        return None
    cases = table.drop_duplicates("case").set_index("case").loc[list(errors)]
    sources = _attributes(audit, cases)
    named = {name: values for own in sources.values() for name, values in own.items()}
    groups = weak_groups(list(errors.values()), cases["patient"].tolist(), named, seed=audit.seed)
    looked = _to_look_at(audit, errors)
    source = {name: one for one, own in sources.items() for name in own}
    rows = [{"source": source[one.attribute], **asdict(one)} for one in groups]
    weak = pd.DataFrame(rows, columns=["source", *WeakGroup.__dataclass_fields__])
    if not audit.patients_known:
        weak["patients"] = 0
    weaker = [one for one in groups if one.is_found]
    notes = [f"It fails more in {_words(one)}." for one in weaker]
    shown = any(one.judged == "yes" for one in groups) or (looked["why"] == PROBABLE).any()
    sections = [_section(groups, looked)] if shown else []
    return Audited({WEAK_GROUPS: weak, RELABEL: looked}, sections=sections, notes=notes)


def _attributes(audit: Audit, cases: Table) -> dict[str, dict[str, Sequence[Any]]]:
    """{source: {attribute: its value of each case}}; names that two sources have are told apart."""
    covariates: dict[str, Sequence[Any]] = {
        name.removeprefix(COVARIATE): cases[name].tolist() for name in covariate_columns(cases)
    }
    known = [audit.scored.facts.get(str(case), {}) for case in cases.index]
    names = dict.fromkeys(name for own in known for name in own)
    facts: dict[str, Sequence[Any]] = {f"{OF_IMAGE}{name}": [own.get(name) for own in known] for name in names}
    seen = [str(case) for case in cases.index if str(case) in audit.scored.features]
    features: dict[str, Sequence[Any]] = {}
    if seen:
        rows = np.stack([audit.scored.features[case][1] for case in seen])
        made = clusters(rows, [audit.scored.features[case][0] for case in seen], seed=audit.seed)
        of_case = dict(zip(seen, made, strict=True))
        features[SEEN] = [of_case.get(str(case)) for case in cases.index]
    return {COVARIATES: covariates, FACTS: facts, FEATURES: features}


def _to_look_at(audit: Audit, errors: Mapping[str, float]) -> Table:
    """`relabel.csv`: labels that are probably wrong, the surest first, and then the worst cases."""
    task, table = audit.predictor.task, audit.scored.table
    tables = task.scoring.tables(table)
    suspected = [
        {**row, "label": f"{part}: {row['label']}" if part else row["label"], "error": errors.get(row["case"])}
        for part, own in tables.items()
        for row in _suspected(own)
    ]
    suspected.sort(key=lambda row: row["probability_reference"] - row["probability_probable"])
    doubted = {row["case"] for row in suspected}
    worst = sorted(
        (case for case in errors if case not in doubted and errors[case] > 0), key=lambda case: -errors[case]
    )
    rest = [{"case": case, "label": "all", "why": AMONG_WORST, "error": errors[case]} for case in worst[:WORST]]
    return pd.DataFrame([*suspected, *rest], columns=LOOK)


def _suspected(own: Table) -> Iterator[dict[str, Any]]:
    """Of a table of one task: of exclusive classes together, of findings each for itself."""
    unseen = own[own["reference"].notna()] if "reference" in own else own[:0]
    if FOLD not in unseen:
        unseen = unseen[unseen["split"] != "train"]
    if classes := list(class_names(unseen)):
        chances = unseen[[f"{PROBABILITY}{name}" for name in classes]].to_numpy(float)
        yield from _of_classes(unseen, chances, classes, unseen["reference"].map(str).tolist())
    elif "probability" in unseen:
        for _, rows in unseen.groupby("label", sort=False):
            p = rows["probability"].to_numpy(float)
            yield from _of_classes(rows, np.stack([1 - p, p], axis=1), [ABSENT, PRESENT], rows["reference"].tolist())


def _of_classes(rows: Table, chances: Any, classes: list[str], reference: list[str]) -> Iterator[dict[str, Any]]:
    labels = [classes.index(name) for name in reference] if set(reference) <= set(classes) else []
    if not labels or min(np.bincount(labels)[np.unique(labels)]) < FEWEST_LABELLED or len(set(labels)) < 2:
        return
    for place, probable in enumerate(probable_label_errors(chances, labels).tolist()):
        if probable >= 0:
            case = rows.iloc[place]
            yield {
                "case": str(case["case"]),
                "label": case["label"],
                "why": PROBABLE,
                "reference": reference[place],
                "probable": classes[probable],
                "probability_reference": float(chances[place][labels[place]]),
                "probability_probable": float(chances[place][probable]),
            }


def _words(weak: WeakGroup) -> str:
    ends = f"{number(weak.low)} to {number(weak.high)} more"
    where = f"{weak.group} of {weak.attribute}" if weak.attribute == SEEN else f"{weak.attribute} {weak.group}"
    where = where.replace(OF_IMAGE, "images with ")
    return (
        f"{where} ({counted(weak.n, 'case')}): mean error {number(weak.error)}, "
        f"{number(weak.elsewhere)} elsewhere ({ends}; p {weak.p_adjusted:.2g} after Holm)"
    )


def _section(groups: Sequence[WeakGroup], looked: Table) -> Section:
    """The verdict first; the groups and the labels that are probably wrong folded."""
    judged, weaker = [one for one in groups if one.judged == "yes"], [one for one in groups if one.is_found]
    if weaker:
        verdict = f"The model fails more in {'; '.join(_words(one) for one in weaker)}."
    elif judged:
        verdict = f"The model is not shown to fail more in any of {counted(len(judged), 'group')}."
    else:
        verdict = "No group of cases is large enough to be judged."
    suspected = looked[looked["why"] == PROBABLE]
    blocks: list[Block] = [Paragraph(f"{verdict} {HOW}")]
    if len(suspected):
        blocks.append(Paragraph(f"{counted(len(suspected), 'label')} may be wrong and should be looked at again."))
    cells = [
        [
            f"{one.attribute}: {one.group}",
            one.n,
            *map(number, (one.error, one.elsewhere, one.low, one.high, one.p_adjusted)),
        ]
        for one in judged[:SHOWN]
    ]
    columns = ["Group", "Cases", "Mean error", "Elsewhere", "More, from", "to", "p after Holm"]
    folded: list[Block] = [PageTable(columns, cells, f"The surest of {len(groups)}.")] * bool(cells)
    named = [
        [row["case"], row["label"], row["reference"], row["probable"], number(row["probability_reference"])]
        for row in suspected.head(SHOWN).to_dict("records")
    ]
    if named:
        columns = ["Case", "Label", "Reference", "Probably", "Probability of the reference"]
        folded.append(PageTable(columns, named, "Labels that may be wrong, the surest first."))
    return Section(TITLE, [*blocks, *([Details("Groups, and labels to look at", folded)] if folded else [])])
