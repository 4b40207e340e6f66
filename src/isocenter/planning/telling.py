"""How a network is told what it is told beside an image: by what it answers, and by how much it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isocenter import networks
from isocenter.runtime import Context
from isocenter.tasks import Task
from isocenter.values import Decision, Dense

# From so many entries on they are brought down to a few: as many weights as they have would fit any few hundred cases.
MANY_ENTRIES = 64
# Features that they are brought down to.
FEATURES = 16
# Of the length of each entry's weights, beside a sample's loss: bench/covariates.py.
SPARSITY = 1e-3
PEREZ, SCARDAPANE = "arXiv:1709.07871", "arXiv:1607.00485"
MOBADERSANY, GORISHNIY = "doi:10.1073/pnas.1717139115", "arXiv:2106.11959"
REASONS = {
    "concatenate": ("one answer is given for the whole image: they join what was made of it", MOBADERSANY),
    "film": ("an answer is given for every voxel: they scale and shift its features, at first by nothing", PEREZ),
    "tokens": ("the image is tokens, and each of them is one more", GORISHNIY),
    "attention": ("it is the only way of this network", ""),
}


def telling(task: Task, name: str, context: Mapping[str, Any] | None) -> dict[str, Decision]:
    """The decisions `told`, `narrow` and `sparsity` of the section "network".

    name: of the family; PlanError for one that there is not
    """
    known = networks.ways(name)
    if not context or not known:
        off = "no covariates are told" if not context else f"{name} does not say how it is told"
        return {key: Decision(value, off) for key, value in (("told", None), ("narrow", None), ("sparsity", 0.0))}
    entries = len(Context.of(context))
    return {"told": _way(task, known), **_narrowing(entries)}


def _way(task: Task, known: tuple[str, ...]) -> Decision:
    dense = any(isinstance(head, Dense) for head in task.heads.values())
    wanted = "film" if dense else "concatenate"
    way = wanted if wanted in known else known[0]
    because, source = REASONS[way]
    others = [one for one in known if one != way]
    if way == "film" and not dense:
        because = "what joins its features would be taken out by its normalisation: they scale and shift them"
    return Decision(way, because + (f" (or {', '.join(others)}: --set network.told)" if others else ""), source)


def _narrowing(entries: int) -> dict[str, Decision]:
    if entries < MANY_ENTRIES:
        few = f"{entries} entries are few enough to be told as they are (fewer than {MANY_ENTRIES})"
        return {"narrow": Decision(None, few), "sparsity": Decision(0.0, few)}
    because = f"{entries} entries would drown the image: they are brought down to {FEATURES} features first"
    cost = "each entry's weights begin at 0 and cost something by their length: what tells nothing keeps none"
    return {"narrow": Decision(FEATURES, because), "sparsity": Decision(SPARSITY, cost, SCARDAPANE)}
