"""The objectives by name. A new one is one file and its line in `OBJECTIVES`, or an entry point."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from isocenter import plugins
from isocenter.errors import PlanError
from isocenter.objectives.objective_terms import Needs, Objective

OBJECTIVES = {
    "blind_spot": "isocenter.objectives.blind_spot:BlindSpot",
    "co_training": "isocenter.objectives.co_training:CoTraining",
    "contrast": "isocenter.objectives.contrast:Contrast",
    "coral": "isocenter.objectives.coral:Coral",
    "dann": "isocenter.objectives.dann:Dann",
    "distillation": "isocenter.objectives.distillation:Distillation",
    "fixmatch": "isocenter.objectives.fixmatch:FixMatch",
    "flow": "isocenter.objectives.flow:Flow",
    "image_text": "isocenter.objectives.image_text:ImageText",
    "l2_sp": "isocenter.objectives.l2_sp:L2SP",
    "maml": "isocenter.objectives.maml:Maml",
    "masked": "isocenter.objectives.masked:Masked",
    "mean_teacher": "isocenter.objectives.mean_teacher:MeanTeacher",
    "prototypical": "isocenter.objectives.prototypical:Prototypical",
    "rotation": "isocenter.objectives.rotation:Rotation",
    "supervised": "isocenter.objectives.objective_terms:Supervised",
}
TERMS = "objectives.terms"


def objective_names() -> tuple[str, ...]:
    """Our objectives, and those that other packages add under the entry point `isocenter.objectives`."""
    return tuple(sorted(plugins.targets_of(OBJECTIVES, "isocenter.objectives")))


def objective_kind(name: str) -> type[Objective]:
    """The class of an objective; PlanError where there is none of this name."""
    targets = plugins.targets_of(OBJECTIVES, "isocenter.objectives")
    if name not in targets:
        raise PlanError(f"there is no objective {name!r}", TERMS, f"Choose from {', '.join(objective_names())}")
    objective = plugins.load_target(targets[name])
    if not (isinstance(objective, type) and issubclass(objective, Objective)):
        problem = f"{name} cannot be used: {targets[name]} is no class derived from isocenter.objectives.Objective"
        raise PlanError(problem, TERMS, "Update the package that adds it")
    return objective


def joint_needs(objectives: Iterable[type[Objective] | Objective]) -> Needs:
    """The needs of several objectives together."""
    return reduce(Needs.__or__, (one.needs for one in objectives), Needs(labels=False))
