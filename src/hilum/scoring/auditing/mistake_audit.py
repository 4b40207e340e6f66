"""Groups in which a model fails more than elsewhere, and cases that somebody should look at again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hilum import errors
from hilum.evaluation import Table, case_tables
from hilum.evaluation.case_tables import COVARIATE
from hilum.evaluation.significance import weakness
from hilum.evaluation.significance.weakness import WeakGroup
from hilum.lazy import pandas as pd
from hilum.report import Block, Details, Paragraph, Section, wording
from hilum.report import Table as PageTable
from hilum.scoring import answered_cases
from hilum.scoring.auditing import label_ranking
from hilum.scoring.auditing.label_ranking import FEW, LOOK, PROBABLE, RELABEL, LabelledCases
from hilum.scoring.case_scoring import AuditInput, AuditOutcome
from hilum.values import grouping

WEAK_GROUPS, LABEL_GROUPS = "weak_groups.csv", "label_groups.csv"
TITLE = "Where it fails"
COVARIATES, FACTS, FEATURES = "covariate", "image", "features"
OF_IMAGE = "image: "
NETWORK = "what the network"
SEEN, SEEN_BY_FOLD = f"{NETWORK} sees", f"{NETWORK} of fold {{}} sees"
# Of the worst cases so many are listed, and groups in the report.
WORST, SHOWN = 20, 8
# So many groups are named by a sentence each, the surest first; the table has all.
NAMED = 3
AMONG_WORST = "among the worst"
HOW = (
    "Groups are those of covariates, of image properties and of clusters of network features, formed without looking "
    "at errors; p by permutation of patients (of cases, where patients are unknown), with Holm's correction over all "
    "of them."
)


def audit_mistakes(audit: AuditInput) -> AuditOutcome | None:
    """The groups in which the model fails more, and the cases to be labelled again."""
    task, table = audit.predictor.task, audit.scored.table
    case_errors = answered_cases.case_failures(task, table)
    if not case_errors:
        return None
    cases = table.drop_duplicates("case").set_index("case").loc[list(case_errors)]
    sources = _attributes(audit, cases)
    named = {name: values for own in sources.values() for name, values in own.items()}
    groups = weakness.weak_groups(list(case_errors.values()), cases["patient"].tolist(), named, seed=audit.seed)
    labelled = list(label_ranking.labelled_cases(task, table))
    looked, rare = _to_look_at(labelled, case_errors), label_ranking.rare_classes_sentence(labelled)
    source = {name: one for one, own in sources.items() for name in own}
    rows = [{"source": source[one.attribute], **asdict(one)} for one in groups]
    weak = pd.DataFrame(rows, columns=["source", *WeakGroup.__dataclass_fields__])
    if not audit.patients_known:
        weak["patients"] = None  # nobody knows whose the cases are: each was dealt alone
    weaker = [one for one in groups if one.is_found]
    notes = [f"It fails more in {_words(one)}." for one in weaker[:NAMED]]
    if (further := len(weaker) - NAMED) > 0:
        notes.append(f"It fails more in {errors.count_phrase(further, 'further group')}: see {TITLE}.")
    shown = any(one.judged == "yes" for one in groups) or (looked["why"] == PROBABLE).any()
    sections = [_section(groups, looked, rare)] if shown else []
    tables = {WEAK_GROUPS: weak, RELABEL: looked}
    if doubted := _doubted_groups(labelled, looked, cases, sources[COVARIATES], audit.seed):
        tables[LABEL_GROUPS] = pd.DataFrame([asdict(one) for one in doubted])
        notes += [
            f"Labels may be wrong more often where {one.attribute} is {one.group}: {one.error:.0%} of "
            f"{errors.count_phrase(one.n, 'case')}, {one.elsewhere:.0%} elsewhere (p {one.p_adjusted:.2g} after Holm)."
            for one in doubted
            if one.is_found
        ]
    return AuditOutcome(tables, sections=sections, notes=notes)


def _doubted_groups(
    labelled: Sequence[LabelledCases], looked: Table, cases: Table, covariates: Mapping[str, Sequence[Any]], seed: int
) -> list[WeakGroup]:
    """The share of labels that may be wrong in each group of people; nothing where none may be.

    cases: the row of each, in the order of the covariates
    """
    doubted = set(looked.loc[looked["why"] == PROBABLE, "case"])
    asked = {str(case) for own in labelled for case in own.rows["case"]}
    places = [place for place, case in enumerate(map(str, cases.index)) if case in asked]
    if not (doubted and covariates):
        return []
    of_doubted = {name: [values[place] for place in places] for name, values in covariates.items()}
    flags = [float(str(cases.index[place]) in doubted) for place in places]
    return weakness.weak_groups(flags, cases["patient"].iloc[places].tolist(), of_doubted, seed=seed)


def _attributes(audit: AuditInput, cases: Table) -> dict[str, dict[str, Sequence[Any]]]:
    """{source: {attribute: its value of each case}}; names that two sources have are told apart."""
    covariates: dict[str, Sequence[Any]] = {
        name.removeprefix(COVARIATE): cases[name].tolist() for name in case_tables.covariate_columns(cases)
    }
    facts_of_cases = [audit.scored.facts.get(str(case), {}) for case in cases.index]
    names = dict.fromkeys(name for own in facts_of_cases for name in own)
    facts: dict[str, Sequence[Any]] = {f"{OF_IMAGE}{name}": [own.get(name) for own in facts_of_cases] for name in names}
    return {COVARIATES: covariates, FACTS: facts, FEATURES: _clusters(audit, [str(case) for case in cases.index])}


def _clusters(audit: AuditInput, cases: Sequence[str]) -> dict[str, Sequence[Any]]:
    """{what the network sees: the cluster of each case}, of folds what the network of each sees in its own cases.

    Features of different networks have no axis in common: together they would fall into one cluster for each fold.
    """
    of_network = grouping.by_key((audit.network_of(case), case) for case in cases if case in audit.scored.features)
    columns: dict[str, Sequence[Any]] = {}
    for network, cases_of_network in sorted(of_network.items()):
        rows = np.stack([audit.scored.features[case][1] for case in cases_of_network])
        found = weakness.cluster_cases(
            rows, [audit.scored.features[case][0] for case in cases_of_network], seed=audit.seed
        )
        of_case = dict(zip(cases_of_network, found, strict=True))
        columns[SEEN if len(of_network) == 1 else SEEN_BY_FOLD.format(network)] = [of_case.get(case) for case in cases]
    return columns


def _to_look_at(labelled: Sequence[LabelledCases], case_errors: Mapping[str, float]) -> Table:
    """`relabel.csv`: labels that are probably wrong, the surest first, and then the worst cases."""
    suspected = [{**row, "error": case_errors.get(row["case"])} for own in labelled for row in own.suspected_labels()]
    suspected.sort(key=lambda row: row["probability_reference"] - row["probability_probable"])
    doubted = {row["case"] for row in suspected}
    worst = sorted(
        (case for case in case_errors if case not in doubted and case_errors[case] > 0),
        key=lambda case: -case_errors[case],
    )
    rest = [{"case": case, "label": "all", "why": AMONG_WORST, "error": case_errors[case]} for case in worst[:WORST]]
    return pd.DataFrame([*suspected, *rest], columns=LOOK)


def _words(weak: WeakGroup) -> str:
    ends = f"{wording.number_text(weak.low)} to {wording.number_text(weak.high)} more"
    is_cluster = weak.attribute.startswith(NETWORK)
    where = f"images of {weak.group} by {weak.attribute}" if is_cluster else f"{weak.attribute} {weak.group}"
    where = where.replace(OF_IMAGE, "images with ")
    return (
        f"{where} ({errors.count_phrase(weak.n, 'case')}): mean error {wording.number_text(weak.error)}, "
        f"{wording.number_text(weak.elsewhere)} elsewhere ({ends}; p {weak.p_adjusted:.2g} after Holm)"
    )


def _section(groups: Sequence[WeakGroup], looked: Table, rare: str) -> Section:
    """The verdict first; the groups and the labels that are probably wrong folded."""
    judged, weaker = [one for one in groups if one.judged == "yes"], [one for one in groups if one.is_found]
    if weaker:
        worst = [_words(one) for one in weaker[:NAMED]]
        more = [f"and {errors.count_phrase(len(weaker) - NAMED, 'further group')}"] if len(weaker) > NAMED else []
        verdict = f"The model fails more in {'; '.join([*worst, *more])}."
    elif judged:
        verdict = f"The model is not shown to fail more in any of {errors.count_phrase(len(judged), 'group')}."
    else:
        verdict = "No group of cases is large enough to be judged."
    suspected = looked[looked["why"] == PROBABLE]
    blocks: list[Block] = [Paragraph(f"{verdict} {HOW}")]
    if len(suspected):
        labels = errors.count_phrase(len(suspected), "label")
        blocks.append(Paragraph(f"{labels} may be wrong and should be looked at again: {FEW}"))
    if rare:
        blocks.append(Paragraph(rare))
    cells = [
        [
            f"{one.attribute}: {one.group}",
            one.n,
            *map(wording.number_text, (one.error, one.elsewhere, one.low, one.high, one.p_adjusted)),
        ]
        for one in judged[:SHOWN]
    ]
    columns = ["Group", "Cases", "Mean error", "Mean error elsewhere", "Difference, from", "to", "p after Holm"]
    folded: list[Block] = [
        PageTable(columns, cells, f"The {len(cells)} of {len(groups)} groups with the smallest p.")
    ] * bool(cells)
    named = [
        [
            row["case"],
            row["label"],
            row["reference"],
            row["probable"],
            wording.number_text(row["probability_reference"]),
        ]
        for row in suspected.head(SHOWN).to_dict("records")
    ]
    if named:
        columns = ["Case", "Label", "Reference", "Probably", "Probability of the reference"]
        folded.append(PageTable(columns, named, "Labels that may be wrong, the surest first."))
    return Section(TITLE, [*blocks, *([Details("Groups, and labels to look at", folded)] if folded else [])])
