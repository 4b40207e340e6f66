"""The rule for a network's use of covariates: by what it answers, and by how many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from isocenter import networks
from isocenter.runtime import Context
from isocenter.tasks import Task
from isocenter.values import Decision

# From so many entries on they are brought down to a few: as many weights as they have would fit any few hundred cases.
MANY_ENTRIES = 64
# Features that they are brought down to.
FEATURES = 16
# What the length of each entry's weights costs, times the root of (log entries / cases): so much the best of many
# entries seems to tell by chance (Bickel et al.). Of 5,000 columns that told nothing 0.3 left an AUROC of .943, as
# without them, and a fiftieth of it .70 to .80; three that told half of the class raised .82 to .90 to .93 (210 cases).
SPARSITY = 0.3
PEREZ, BICKEL = "arXiv:1709.07871", "doi:10.1214/08-AOS620"
MOBADERSANY, GORISHNIY = "doi:10.1073/pnas.1717139115", "arXiv:2106.11959"
REASONS = {
    "concatenate": ("the whole image gets one answer: covariates join its pooled features", MOBADERSANY),
    "film": ("every voxel gets an answer: covariates scale and shift its features, starting from no change", PEREZ),
    "tokens": ("the image is a sequence of tokens, and each covariate is one more", GORISHNIY),
    "attention": ("it is the only method of this network", ""),
}


def fusion_decisions(task: Task, name: str, context: Mapping[str, Any] | None, cases: int) -> dict[str, Decision]:
    """The decisions `context_fusion`, `narrow` and `sparsity` of the section "network".

    name:  of the family; PlanError for one that there is not
    cases: to train on
    """
    methods = networks.family_of(name).fusion_methods
    if not context or not methods:
        off = "there are no covariates" if not context else f"{name} leaves no choice"
        return {
            key: Decision(value, off) for key, value in (("context_fusion", None), ("narrow", None), ("sparsity", 0.0))
        }
    entries = Context.of(context)
    narrowing = _narrowing(len(entries) - 2 * math.prod(entries.courses), cases)
    return {"context_fusion": _method(task, methods), **narrowing}


def _method(task: Task, methods: tuple[str, ...]) -> Decision:
    dense = any(head.is_dense for head in task.heads.values())
    usual = "film" if dense else "concatenate"
    method = usual if usual in methods else methods[0]
    because, source = REASONS[method]
    others = [one for one in methods if one != method]
    if method == "film" and not dense:
        because = "normalisation would remove values that join the features, so covariates scale and shift the features"
    return Decision(
        method, because + (f" (or {', '.join(others)}: --set network.context_fusion)" if others else ""), source
    )


def _narrowing(entries: int, cases: int) -> dict[str, Decision]:
    if entries < MANY_ENTRIES:
        few = f"{entries} entries are few enough to be used as they are (fewer than {MANY_ENTRIES})"
        return {"narrow": Decision(None, few), "sparsity": Decision(0.0, few)}
    because = f"{entries} entries would dominate the image: they are reduced to {FEATURES} features first"
    sparsity = round(SPARSITY * math.sqrt(math.log(entries) / max(1, cases)), 4)
    cost = (
        f"each entry's weights start at 0, and their norm costs {SPARSITY:g} times the root of (log {entries} / "
        f"{cases} training cases): entries that tell no more than chance among so many keep weights of 0"
    )
    return {"narrow": Decision(FEATURES, because), "sparsity": Decision(sparsity, cost, BICKEL)}
