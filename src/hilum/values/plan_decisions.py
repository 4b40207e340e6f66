"""Plans: every decision with its reason and the source of the reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from hilum.errors import PlanError

PLAN_VERSION = 1
BY_HAND = "set by hand"


@dataclass(frozen=True)
class Decision:
    """A value that a rule or a person chose.

    because: one sentence with the numbers that led to it
    source:  paper, standard or measurement behind the rule; empty where a person chose
    """

    value: Any
    because: str
    source: str = ""


# Values of a plan's decisions or options by name, as a person or a search sets them.
Assignments = Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """Sections of decisions, and the data that they were made for.

    data:      path of the data, relative to the plan's file once it is saved
    data_hash: of the contents that were planned for
    """

    sections: Mapping[str, Mapping[str, Decision]]
    data: str = ""
    data_hash: str = ""
    options: Assignments = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.is_of_pictures:
            content = {
                section: {name: replace(one, because=voxels_as_pixels(one.because)) for name, one in decisions.items()}
                for section, decisions in self.sections.items()
            }
            object.__setattr__(self, "sections", content)

    @property
    def is_of_pictures(self) -> bool:
        """Whether images have two axes, so that reasons speak of pixels."""
        return "preprocessing.ndim" in self and self["preprocessing.ndim"] == 2

    def __getitem__(self, name: str) -> Any:
        """The value of "section.name"."""
        return self.decision(name).value

    def __contains__(self, name: str) -> bool:
        section, _, key = name.partition(".")
        return key in self.sections.get(section, {})

    def decision(self, name: str) -> Decision:
        """The decision "section.name". Raises PlanError where there is none, with the names that come near."""
        section, _, key = name.partition(".")
        try:
            return self.sections[section][key]
        except KeyError:
            of_section = [one for one in self.names if one.startswith(f"{section}.")]
            near = get_close_matches(name, self.names, cutoff=0.75) or of_section
            listed = f"Choose one of {', '.join(near)}"
            remedy = listed if near else f"Give section.name of one of the sections {', '.join(self.sections)}"
            raise PlanError(f"the plan has no {name!r}", "plan", remedy) from None

    @property
    def names(self) -> tuple[str, ...]:
        """All decisions as "section.name"."""
        return tuple(name for name, _ in self)

    def __iter__(self) -> Iterator[tuple[str, Decision]]:
        for section, decisions in self.sections.items():
            for key, decision in decisions.items():
                yield f"{section}.{key}", decision

    def with_decision(self, name: str, decision: Decision) -> Plan:
        """The plan with this decision in place of its own, or in addition."""
        section, _, key = name.partition(".")
        sections = {**self.sections, section: {**self.sections.get(section, {}), key: decision}}
        return replace(self, sections=sections)

    def with_decisions(self, decisions: Mapping[str, Decision]) -> Plan:
        """The plan with each of these decisions in place of its own, or in addition."""
        plan = self
        for name, decision in decisions.items():
            plan = plan.with_decision(name, decision)
        return plan


# Patients that a text counts, or draws of them.
COUNTED_PATIENTS = re.compile(
    r"(\b\d[\d,.]* (?:(?:training|validation|calibration|test|other) )?|\bof the (?:other )?|\bdraws of (?:their )?"
    r"|\bcross-fitted |\btoo few |\bin (?=patients that))patient(s?)\b"
)


def patients_as_cases(text: str) -> str:
    """A text on patients as one on cases, for data of which nobody knows whose they are."""
    return COUNTED_PATIENTS.sub(lambda found: f"{found[1]}case{found[2]}", text)


def voxels_as_pixels(text: str) -> str:
    """A text on images as one on pictures: pixels in place of voxels."""
    return text.replace("voxel", "pixel").replace("Voxel", "Pixel")


def names_decision(name: str, decision: str) -> bool:
    """Whether a name is that of a decision, or of the same decision of a part: task.segmentation.loss of task.loss."""
    section, _, key = decision.partition(".")
    return name == decision or (name.startswith(f"{section}.") and name.endswith(f".{key}"))
