"""The options of `evaluate` that ask for audits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from hilum.errors import UsageError
from hilum.transforms import corruptions
from hilum.values import Setting


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """The audits that a person asks for.

    Raises UsageError for a corruption or a severity that there is not.
    """

    corruptions: Annotated[
        str | None, Setting("Also score on degraded images: all, or some, such as noise,blur,motion.", "NAMES")
    ] = None
    severities: Annotated[str | None, Setting("Severities of the corruptions, 1-5 or 1,3; all by default.", "N")] = None
    explain: Annotated[bool, Setting("Also explain the answers to the best and worst cases by maps.")] = False
    screening: Annotated[bool, Setting("Also make the endpoints of screening, from a column outcome of the cases.")] = (
        False
    )
    groups: Annotated[
        str | None,
        Setting(
            "Groups of people to compare, such as sex,age:40:60,site,sex*age; by default covariates of 2 to 8 levels.",
            "GROUPS",
        ),
    ] = None
    group_table: Annotated[
        str | Path | None,
        Setting("Table of further columns for --groups, with a row for each case or patient.", "TABLE"),
    ] = None
    sites: Annotated[
        str | None,
        Setting(
            "Column that names the site of each case: figures of each site, and what a new one is to expect.", "COLUMN"
        ),
    ] = None
    downstream: Annotated[
        str | Path | None,
        Setting("Also score this model on the inputs, the results and the references of an enhancement.", "MODEL"),
    ] = None
    membership: Annotated[
        bool, Setting("Also attack the model: how well its errors tell patients who trained it from test patients.")
    ] = False
    advice: Annotated[
        str | Path | None,
        Setting(
            "Also score lines of advice, from the most to the least urgent: a TOML file with a list advice.", "FILE"
        ),
    ] = None
    shift: Annotated[bool, Setting("Compare the network's features between groups, also in matched patients.")] = False

    def __post_init__(self) -> None:
        if self.severities is not None and not self.corruptions:
            raise UsageError("says nothing without corruptions", "--severities", "Add --corruptions all")
        self.corruption_names  # noqa: B018 - an unknown one is refused before anything is computed
        self.chosen_severities  # noqa: B018

    @property
    def all_corruptions(self) -> bool:
        """Whether every corruption is wanted that befalls such images."""
        return (self.corruptions or "").strip().lower() == "all"

    @property
    def corruption_names(self) -> tuple[str, ...]:
        """The names of the corruptions that are wanted."""
        if self.all_corruptions:
            return tuple(corruptions.CORRUPTIONS)
        return tuple(
            dict.fromkeys(corruptions.corruption_key(name) for name in (self.corruptions or "").split(",") if name)
        )

    @property
    def chosen_severities(self) -> tuple[int, ...]:
        """The severities that are wanted, in order."""
        if self.severities is None:
            return corruptions.SEVERITIES
        chosen = set[int]()
        for part in str(self.severities).split(","):
            first, _, last = (one.strip() for one in part.partition("-"))
            if not (first.isdecimal() and (last or first).isdecimal()):
                raise UsageError(f"{part.strip()!r} is not a severity", "--severities", "Write 1-5, or 1,3")
            chosen |= set(range(int(first), int(last or first) + 1)) or {0}
        if not chosen <= set(corruptions.SEVERITIES):
            raise UsageError(f"{self.severities!r} leaves 1 to 5", "--severities", "Write 1-5, or 1,3")
        return tuple(sorted(chosen))
