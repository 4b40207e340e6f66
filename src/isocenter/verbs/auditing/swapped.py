"""The change of a model's answer to a case when the patient is said to be of another group, all else alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter.errors import counted
from isocenter.evaluation import UNKNOWN, Table, bootstrap
from isocenter.lazy import pandas as pd
from isocenter.report import number, share_text
from isocenter.values import Case, Floats, number_in
from isocenter.verbs.evaluation import rows_of

if TYPE_CHECKING:
    from isocenter.verbs.auditing.audits import Audit

# All further predictions are at most this share of the cases, so that an evaluation takes little longer; with so many
# cases of each covariate at least something can be stated, of a small set at a higher price.
SHARE, FEWEST = 0.1, 5
CALLED = "predicted"


@dataclass(frozen=True)
class Swapped:
    """Answers with a covariate that the network gets as it is, and as the other groups have it.

    moved:     mean absolute change of probabilities, risks or values, over the other groups, of several values in
               standard deviations; low, high: of patients
    changed:   share of cases whose call is another one in some other group; None where nothing is called
    """

    attribute: str
    moved: float
    low: float | None
    high: float | None
    changed: float | None
    cases: int

    @property
    def words(self) -> str:
        """In a sentence."""
        interval = "" if self.low is None or self.high is None else f" ({number(self.low)} to {number(self.high)})"
        calls = "" if self.changed is None else f", and {share_text(self.changed)} of the calls change"
        moves = (
            f"the answer changes by {number(self.moved)}{interval} on average{calls} ({counted(self.cases, 'case')})"
        )
        return f"With the {self.attribute} of another group and everything else unchanged, {moves}."


def swapped(audit: Audit, assigned: Mapping[str, Mapping[str, str]]) -> list[Swapped]:
    """Of each covariate that the network gets, and that makes two groups or more.

    assigned: {attribute: {case id: its group}}
    Counterfactual fairness of inputs alone: Kusner et al., NeurIPS 2017, arXiv:1703.06856
    """
    if not answer_columns(audit.scored.table):
        return []
    asked: dict[str, tuple[list[Case], dict[str, Any]]] = {}
    for attribute, groups in assigned.items():
        known = [case for case in audit.cases if groups.get(case.id, UNKNOWN) != UNKNOWN]
        values = _values(known, attribute, groups)
        if len(values) > 1 and attribute in audit.predictor.model_of(known[0].id).context.names:
            asked[attribute] = known, values
    return [
        _swapped(audit, attribute, _some(known, len(values), len(asked), audit), values, assigned[attribute])
        for attribute, (known, values) in asked.items()
    ]


def _some(known: Sequence[Case], groups: int, attributes: int, audit: Audit) -> list[Case]:
    """The cases that are predicted again as those of each other group: attributes share what predictions there are."""
    each = int(SHARE * len(audit.cases) / attributes / (groups - 1))
    count = min(len(known), max(FEWEST, each))
    return [
        known[place] for place in sorted(np.random.default_rng(audit.seed).choice(len(known), count, replace=False))
    ]


def _swapped(
    audit: Audit, attribute: str, cases: Sequence[Case], values: Mapping[str, Any], groups: Mapping[str, str]
) -> Swapped:
    table = audit.scored.table
    is_called = CALLED in table and not pd.api.types.is_numeric_dtype(table[CALLED])
    moved, changed, patients, sizes = list[float](), list[bool](), list[str](), scales(table)
    for case in cases:
        own = table[table["case"] == case.id]
        others = [_scored(audit, case, attribute, value) for name, value in values.items() if name != groups[case.id]]
        here, calls = _answers(own), own[CALLED].astype(str).tolist() if is_called else []
        size = own["label"].map(sizes).to_numpy(dtype=float)[:, None]
        moved.append(float(np.nanmean([np.abs(_answers(one) - here) / size for one in others])))
        changed.append(is_called and any(one[CALLED].astype(str).tolist() != calls for one in others))
        patients.append(case.patient)
    are_shares = all(name.startswith("probability") for name in answer_columns(table))
    estimate = bootstrap(np.array(moved), np.array(patients), seed=audit.seed, exact=are_shares)
    share = float(np.mean(changed)) if is_called else None
    return Swapped(attribute, estimate.value, estimate.low, estimate.high, share, len(cases))


def answer_columns(table: Table) -> list[str]:
    """The columns of a table of cases that hold numbers which a model states: probabilities, a risk, a value."""
    own = [str(name) for name in table if str(name).startswith("probability")]
    numbers = [name for name in ("risk", CALLED) if name in table and pd.api.types.is_numeric_dtype(table[name])]
    return own or numbers


def scales(table: Table) -> dict[str, float]:
    """{label: by what its answers are divided}: of several values, each in its unit, their standard deviation."""
    if table["label"].nunique() < 2 or CALLED not in answer_columns(table):
        return dict.fromkeys(table["label"], 1.0)
    deviations = table.groupby("label")[CALLED].std()
    return {str(label): float(one) for label, one in deviations.where(deviations > 0, 1.0).items()}


def answered(table: Table) -> Table:
    """(cases, answers) of every label, scaled as above; NaN where a case has no row of it."""
    names = answer_columns(table)
    scaled = table[names].astype(float).div(table["label"].map(scales(table)), axis=0)
    return table[["case", "label"]].join(scaled).pivot(index="case", columns="label", values=names)


def _values(cases: list[Case], attribute: str, groups: Mapping[str, str]) -> dict[str, Any]:
    """{group: the covariate as its cases have it}, of numbers their median."""
    made = {}
    for name in dict.fromkeys(groups[case.id] for case in cases):
        own = [case.covariates.get(attribute) for case in cases if groups[case.id] == name]
        numbers = [one for value in own if (one := number_in(value)) is not None]
        made[name] = float(np.median(numbers)) if len(numbers) == len(own) else own[0]
    return made


def _scored(audit: Audit, case: Case, attribute: str, value: Any) -> Table:
    prediction = audit.predictor.predict(replace(case, covariates={**case.covariates, attribute: value}))
    return pd.DataFrame(rows_of(prediction, case, audit.predictor.task, "test", audit.folds.get(case.id)))


def _answers(rows: Table) -> Floats:
    return rows[answer_columns(rows)].to_numpy(dtype=float)
