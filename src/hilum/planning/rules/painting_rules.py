"""Rules of images that are painted from label maps: what else follows, so that a network meets every contrast."""

from __future__ import annotations

from dataclasses import asdict, replace

from hilum.errors import PlanError
from hilum.planning.plan_sections import PlanSettings
from hilum.planning.rules import cascade_rules, normalisation_rules
from hilum.tasks import Task
from hilum.transforms.painting import PaintingRanges
from hilum.values import Decision, Plan

SECTION = "painting"
SHARE = "augmentation.painting"
SYNTHSEG = "arXiv:2107.09559"
# Of the shorter side of a patch, the longest voxel: in fewer nobody could see what is labelled.
LEAST_VOXELS = 8
NOT_ASKED = "images are painted from label maps for a model of any contrast (--any-contrast), which nobody asked for"


def painted_share(painted: str) -> Decision:
    """The share of painted samples; painted: how the images of the data set were made, empty where they are images."""
    if painted:
        return Decision(1.0, f"there are label maps and no images: {painted}", SYNTHSEG)
    return Decision(0.0, NOT_ASKED)


def with_section(plan: Plan, *, intensities: bool) -> Plan:
    """The plan with the ranges from which images are painted, where it has none yet.

    intensities: whether there are images by which the background can be parted
    """
    if SECTION in plan.sections:
        return plan
    because = "the range of the paper"
    decisions = {
        name: Decision(value, because if name in OF_PAPER else OURS[name], SYNTHSEG if name in OF_PAPER else "")
        for name, value in asdict(PaintingRanges()).items()
    }
    unseen = "there are no images" if not intensities else "tissue without a label then has borders where images do"
    decisions["intensities"] = Decision(intensities, unseen)
    decisions["thickness"] = _thickness(plan)
    return replace(plan, sections={**plan.sections, SECTION: decisions})


OF_PAPER = ("darkest", "brightest", "deviation", "bias_field", "gamma", "thickness")
OURS = {
    "background": "surroundings are of several tissues, though nobody labelled them",
    "intensities": "",
    "blur": "a voxel at a border has a part of both",
    "noise": "scanners add noise after all else",
}


def _thickness(plan: Plan) -> Decision:
    spacing = plan["preprocessing.spacing"] or [1.0] * len(plan["training.patch"])
    side = min(size * step for size, step in zip(plan["training.patch"], spacing, strict=True))
    usual = PaintingRanges().thickness
    longest = round(side / LEAST_VOXELS, 2)
    if longest >= usual:
        return Decision(usual, "the range of the paper", SYNTHSEG)
    because = f"{LEAST_VOXELS} voxels of the shortest side ({side:.3g}) are then left; in the paper {usual:g}"
    return Decision(longest, because, SYNTHSEG)


def following_decisions(plan: Plan, task: Task) -> dict[str, Decision]:
    """What follows where images are painted: no scale, air or first network, which another contrast would mislead."""
    scale = normalisation_rules.plain_entry(normalisation_rules.ZSCORE)
    reason = "images of any contrast have no scale in common: each is scaled by its own mean and deviation"
    return {
        "preprocessing.normalisation": Decision([scale] * len(plan["preprocessing.normalisation"]), reason, SYNTHSEG),
        "preprocessing.cascade": Decision(None, "no first network marks labels on images that are painted"),
        "augmentation.marks": cascade_rules.marks_decision(None),
        "inference.skip": Decision(None, "air is told by its contrast, and images may have any"),
        **({} if task.painting is None else task.painting.decisions),
    }


def check_painting(settings: PlanSettings) -> None:
    """PlanError where images cannot be painted from what the cases have, or nothing but an outline would be."""
    if not settings.augmentation.painting:
        return
    remedy = "Leave out --any-contrast, or give 0"
    if settings.task.painting is None:
        problem = f"{settings.task.name} has no label maps from which images could be painted"
        raise PlanError(problem, SHARE, remedy)
    if settings.preprocessing.cascade is not None:
        raise PlanError("the first network of a cascade marks no image that is painted", SHARE, remedy)
    if any(one.needs.taught for one in settings.terms.values()):
        raise PlanError("another model teaches by the images as they are", SHARE, remedy)
    if settings.painting.background == 1 and len(settings.task.labels) == 1:
        problem = "one label on an even background: every image would be the same outline"
        raise PlanError(problem, "painting.background", "Give 2 or more parts")
    if settings.painting.brightest <= settings.painting.darkest:
        raise PlanError("no mean lies between the darkest and the brightest", "painting.darkest", "Give a smaller one")
