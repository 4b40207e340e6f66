"""The objectives by name. A new one is one file and its line in `OBJECTIVES`, or an entry point."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from hilum import plugins
from hilum.errors import PlanError
from hilum.objectives.objective_terms import Needs, Objective

OBJECTIVES = {
    "blind_spot": "hilum.objectives.blind_spot:BlindSpot",
    "co_training": "hilum.objectives.co_training:CoTraining",
    "contrast": "hilum.objectives.contrast:Contrast",
    "coral": "hilum.objectives.coral:Coral",
    "dann": "hilum.objectives.dann:Dann",
    "distillation": "hilum.objectives.distillation:Distillation",
    "fixmatch": "hilum.objectives.fixmatch:FixMatch",
    "flow": "hilum.objectives.flow:Flow",
    "image_text": "hilum.objectives.image_text:ImageText",
    "l2_sp": "hilum.objectives.l2_sp:L2SP",
    "maml": "hilum.objectives.maml:Maml",
    "masked": "hilum.objectives.masked:Masked",
    "mean_teacher": "hilum.objectives.mean_teacher:MeanTeacher",
    "prototypical": "hilum.objectives.prototypical:Prototypical",
    "rotation": "hilum.objectives.rotation:Rotation",
    "supervised": "hilum.objectives.objective_terms:Supervised",
}
TERMS = "objectives.terms"


def objective_names() -> tuple[str, ...]:
    """Our objectives, and those that other packages add under the entry point `hilum.objectives`."""
    return tuple(sorted(plugins.targets_of(OBJECTIVES, "hilum.objectives")))


def objective_kind(name: str) -> type[Objective]:
    """The class of an objective; PlanError where there is none of this name."""
    targets = plugins.targets_of(OBJECTIVES, "hilum.objectives")
    if name not in targets:
        raise PlanError(f"there is no objective {name!r}", TERMS, f"Choose from {', '.join(objective_names())}")
    objective = plugins.load_target(targets[name])
    if not (isinstance(objective, type) and issubclass(objective, Objective)):
        problem = f"{name} cannot be used: {targets[name]} is no class derived from hilum.objectives.Objective"
        raise PlanError(problem, TERMS, "Update the package that adds it")
    return objective


def joint_needs(objectives: Iterable[type[Objective] | Objective]) -> Needs:
    """The needs of several objectives together."""
    return reduce(Needs.__or__, (one.needs for one in objectives), Needs(labels=False))
