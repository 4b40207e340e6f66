"""The allocation of participants or clusters to arms: random lists, of which each arm is given once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from hilum.errors import UsageError
from hilum.studies import trial_protocol
from hilum.studies.trial_protocol import Study

# How many times all arms a block has; chosen anew for each, so that its end is not known.
BLOCKS = (2, 3)
# A list is longer than the planned participants, since no stratum may run out.
SPARE = 2
WITHOUT_SIZE = 1000


@dataclass(frozen=True)
class Allocation:
    """Lists of arms and how far each is used up.

    lists: {stratum or cluster: arms in their order}
    used:  {stratum or cluster: how many were assigned}
    log:   SHA-256 of the log of assignments
    """

    lists: Mapping[str, Sequence[str]]
    used: Mapping[str, int]
    log: str = ""

    def assign(self, name: str) -> tuple[str, Allocation]:
        """The next arm of a list, and the allocation after it. Raises UsageError for an unknown or used-up list."""
        if name not in self.lists:
            raise UsageError(f"{name!r} was not randomised", "--participant", "Give a cluster of the plan")
        place = self.used.get(name, 0)
        if place >= len(self.lists[name]):
            raise UsageError(f"the list of {name or 'all'} is used up", "study assign", "Randomise a further study")
        return self.lists[name][place], replace(self, used={**self.used, name: place + 1})

    def with_log(self, log: str) -> Allocation:
        """The same with the hash of its log."""
        return replace(self, log=log)


def stratum_of(study: Study, levels: Mapping[str, str]) -> str:
    """The name of the list of these levels; UsageError for an unknown one."""
    trial_protocol.refuse_level(study, levels)
    return _stratum_name([levels[name] for name in study.strata])


def _stratum_name(levels: Sequence[str]) -> str:
    return " / ".join(levels)


def allocate_lists(study: Study, participants: int, random: np.random.Generator) -> dict[str, list[str]]:
    """Lists of the study's method: permuted blocks in each stratum, or clusters balanced within strata.

    participants: of the shortest list
    Matts and Lachin, Control Clin Trials 1988, doi:10.1016/0197-2456(88)90047-5
    """
    arms = [one.name for one in study.arms for _ in range(one.share)]
    if study.clusters is None:
        strata = [_stratum_name(levels) for levels in product(*study.strata.values())]
        return {name: _blocks(arms, participants, random) for name in strata}
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, levels in study.clusters.members.items():
        groups.setdefault(tuple(levels[one] for one in study.strata), []).append(name)
    # Clusters that fill no whole block take turns over all strata, so that the trial stays balanced as well.
    turns = list[str]()
    lists = dict[str, list[str]]()
    for group in groups.values():
        own = arms * (len(group) // len(arms))
        while len(own) < len(group):
            turns = turns or random.permutation(arms).tolist()
            own.append(turns.pop())
        lists |= {name: [arm] for name, arm in zip(group, random.permutation(own).tolist(), strict=True)}
    return lists


def _blocks(arms: Sequence[str], participants: int, random: np.random.Generator) -> list[str]:
    arms_in_order: list[str] = []
    while len(arms_in_order) < participants:
        arms_in_order += random.permutation(list(arms) * int(random.choice(BLOCKS))).tolist()
    return arms_in_order


def length_of_lists(study: Study) -> int:
    """Participants of each list."""
    planned = study.planned_size
    return SPARE * (planned.n if planned is not None and planned.n else WITHOUT_SIZE)
