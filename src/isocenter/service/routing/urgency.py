"""The urgency of a study by what its answers state: rules on findings, of which the most urgent holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from isocenter.errors import UsageError
from isocenter.service.routing.facts import ModelFacts
from isocenter.service.settings import PRIORITIES, Priority, Urgent

ROUTINE = PRIORITIES.index("routine")
# Scheduled Procedure Step Priority (0074,1200), of each of ours
DICOM_PRIORITIES: Mapping[str, str] = {
    "emergency": "HIGH",
    "urgent": "HIGH",
    "routine": "MEDIUM",
    "background": "LOW",
}


@dataclass(frozen=True)
class Urgency:
    """The priority that a finding gives. finding: with its number; because: that, and the rule that holds."""

    priority: Priority
    finding: str
    because: str

    @property
    def rank(self) -> int:
        """Its place among the priorities, 0 for the most urgent."""
        return PRIORITIES.index(self.priority)


def most_urgent(findings: Sequence[Mapping[str, Any]], rules: Sequence[Urgent]) -> Urgency | None:
    """The most urgent priority that a rule gives a finding, the first of equals; None where no rule holds.

    findings: rows of `findings.json`
    """
    urgencies = [one for rule in rules for row in findings if (one := _urgency(row, rule)) is not None]
    return min(urgencies, key=lambda one: one.rank, default=None)


def _urgency(row: Mapping[str, Any], rule: Urgent) -> Urgency | None:
    key = "value" if rule.probability is None else "probability"
    number, limit = row.get(key), getattr(rule, key)
    if row["concept"] != rule.finding or not isinstance(number, int | float) or isinstance(number, bool):
        return None
    if not isfinite(number) or number < limit:
        return None
    if key == "value":
        words = f"{rule.finding}: {number:.6g} {row.get('unit') or ''}".rstrip()
    else:
        # Rounded to the nearest, 0.7996 would read as if it were above 0.8.
        words = f"{rule.finding}: probability {number:.6g}{'' if row.get('calibrated') else ', not calibrated'}"
    return Urgency(rule.priority, words, f"{words}; from {limit:g} on {rule.priority}")


def check_urgent(rules: Sequence[Urgent], models: Mapping[str, ModelFacts]) -> None:
    """Refuse a probability or a value that no model states: its rule would be silent for ever. Raises UsageError."""
    names = {
        "probability": sorted({name for model in models.values() for name in model.findings}),
        "value": sorted({name for model in models.values() for name in model.values}),
    }
    for rule in rules:
        kind = "value" if rule.probability is None else "probability"
        if rule.finding not in names[kind]:
            problem = f"no model of the node states a {kind} of {rule.finding!r}"
            remedy = f"Name one of {', '.join(names[kind])}"
            if not names[kind]:
                remedy = f"Give a {'probability' if kind == 'value' else 'value'}, or a model that states one"
            raise UsageError(problem, f"[[urgent]] {rule.finding}", remedy)
