"""Rule of windows that a prediction passes over: those that lie wholly in the air beside a body."""

from __future__ import annotations

import numpy as np

from hilum.errors import PlanError
from hilum.planning.plan_sections import PlanSettings
from hilum.planning.rules import image_profiles
from hilum.planning.rules.image_profiles import CT, MRI, PET
from hilum.runtime.preprocessing.coarse_mask import AIR_MARGIN
from hilum.tasks import Task
from hilum.values import Decision, Fingerprint

# Share of the median training image that has to be air: of less no window would be saved, and a mask takes time.
LEAST_AIR = 0.02


def skip_decision(fingerprint: Fingerprint, task: Task, modality: str, ndim: int) -> Decision:
    """Windows in the air are background, unless nothing is air, or labels of training cases lie in it."""
    if not task.background_outputs:
        return Decision(None, "the answer is no map of classes or regions, of which a part could be background")
    if ndim != 3 or image_profiles.profile_for(modality, ndim) not in (CT, MRI, PET):
        return Decision(None, "only volumes of CT, MR and PET show a body with air around it")
    count = len(fingerprint)
    marked = [case for case in fingerprint.cases if case.marks_air]
    if marked:
        return Decision(None, f"labels of {len(marked)} of {count} training cases lie in what looks like air")
    air = float(np.median([case.air for case in fingerprint.cases]))
    where = f"{100 * air:.0f} % of the median training image is air, at least {AIR_MARGIN:g} mm from the body"
    if air < LEAST_AIR:
        return Decision(None, f"{where}: hardly a window lies wholly in it")
    return Decision("air", f"{where}, and no label of {count} training cases lies in it")


def check_skip(settings: PlanSettings) -> None:
    """PlanError for windows that are passed over where nothing could stand for them."""
    if settings.inference.skip is None:
        return
    where = "inference.skip"
    remedy = "Give none"
    if settings.preprocessing.ndim != 3:
        problem = f"air is told from a body in volumes, and the network has {settings.preprocessing.ndim} axes"
        raise PlanError(problem, where, remedy)
    if not settings.task.background_outputs:
        raise PlanError(f"no outputs of a {settings.task.name} stand for background", where, remedy)
