"""Facts of a model that routing and the records share, and how urgent its findings are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from hilum.errors import UsageError
from hilum.service.configuration import PRIORITIES, Priority, UrgencyRule
from hilum.values.finding_records import FindingRow

# Of a model of one image, the role that its series plays.
IMAGE = "image"
COLOUR = ("red", "green", "blue")


@dataclass(frozen=True)
class ModelFacts:
    """The facts that routing, and programs that ask for answers, need of a model.

    hash:     `Model.sha256`: another hash is another model
    modality: DICOM's word, or "" where it takes any
    channels: names of its images
    labels:   {name: value} of the label map of its answers; empty where they are none
    findings: names of what its answers state with a probability
    values:   names of what they state as a number; of intensities of several channels also "mean intensity of T1"
    axes:     of the images that it takes
    outputs:  {name: axes} of its answers as tensors; empty for a model of clips, which has none
    gate:     on what it refuses images
    is_gated: whether distances of images from those that trained it decide
    naming:   what is wrong with the names and codes of its labels
    version:  as results state it beside the name
    absent:   names of images without which it answers too
    grades:   its classes from the lowest to the highest, where they have an order
    units:    {name: unit} of `values`; "" where it is not known before
    """

    name: str
    hash: str
    modality: str = ""
    channels: Sequence[str] = (IMAGE,)
    task: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)
    findings: Sequence[str] = ()
    values: Sequence[str] = ()
    axes: int = 3
    outputs: Mapping[str, int] = field(default_factory=dict)
    gate: str = ""
    is_gated: bool = True
    naming: Sequence[str] = ()
    version: str = ""
    absent: Sequence[str] = ()
    grades: Sequence[str] = ()
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def roles(self) -> Sequence[str]:
        """Names of the images that it needs, each a series."""
        return self.channels if len(self.channels) > 1 and tuple(self.channels) != COLOUR else (IMAGE,)


ROUTINE = PRIORITIES.index("routine")
# Scheduled Procedure Step Priority (0074,1200), of each of ours
DICOM_PRIORITIES: Mapping[str, str] = {"emergency": "HIGH", "urgent": "HIGH", "routine": "MEDIUM", "background": "LOW"}


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


def most_urgent(findings: Sequence[FindingRow], rules: Sequence[UrgencyRule]) -> Urgency | None:
    """The most urgent priority that a rule gives a finding, the first of equals; None where no rule holds.

    findings: rows of `findings.json`
    """
    urgencies = [one for rule in rules for row in findings if (one := _urgency(row, rule)) is not None]
    return min(urgencies, key=lambda one: one.rank, default=None)


def _urgency(row: FindingRow, rule: UrgencyRule) -> Urgency | None:
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


def refuse_unstated_findings(name: str, kind: str, where: str, models: Mapping[str, ModelFacts]) -> None:
    """Refuse what no model states: a rule or bound of it would be silent for ever. Raises UsageError.

    kind: value or probability
    """
    stated = (model.values if kind == "value" else model.findings for model in models.values())
    names = sorted({name for own in stated for name in own})
    if name not in names:
        problem = f"no model of the node states a {kind} of {name!r}"
        remedy = f"Name one of {', '.join(names)}"
        if not names:
            remedy = f"Give a {'probability' if kind == 'value' else 'value'}, or a model that states one"
        raise UsageError(problem, where, remedy)
