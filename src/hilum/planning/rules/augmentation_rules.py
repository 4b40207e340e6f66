"""Rules of augmentation: how images may be varied without showing what no patient has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from hilum.errors import PlanError
from hilum.planning.plan_sections import PlanSettings
from hilum.planning.rules.anatomy_rules import ALIKE, DIFFERENT, NUMBERED, Anatomy
from hilum.planning.rules.grid_rules import GridNeeds
from hilum.planning.rules.image_profiles import ALWAYS, NEVER, NNUNET, SYMMETRIC, UNKNOWN, Profile
from hilum.runtime.windows import fixed_views
from hilum.tasks import Task, properties
from hilum.transforms import COLOUR, orient
from hilum.transforms.augment import Augmentation
from hilum.values import Decision, PlainValue

# Axes of a picture.
PICTURE = 2
# Images up to this side have no detail to lose, and show neither streaks nor ghosts.
TINY = 32
FINE = ("blur", "low_resolution", "motion", "ghosting", "spikes", "dose_noise", "metal", "speckle")
# Accidents of the acquisition are rare, and a short training has other things to learn first.
ACCIDENTS = 0.05
# Of dyes, of tiles of slides: HED-light.
STAIN = 0.05
TELLEZ = "doi:10.1016/j.media.2019.101544"

UNPROVEN = frozenset(
    {"cutout", "mixup", "cutmix", "elastic", "shear", "sharpen", "equalise", "style", "colour", "stain", "paste"}
)
# Strengths that are those of nnU-Net where no profile has its own.
OF_NNUNET = frozenset({"rotation", "gamma", "noise"})

REASONS = {
    "rotation": "patients lie a little differently",
    "scale": "people differ in size",
    "shift": "a structure is not always in the middle of its image",
    "elastic": "it has not been shown to help",
    "probability": "most samples should look like the images that the model will meet",
    "contrast": "scanners and cameras differ in contrast",
    "brightness": "scanners and cameras differ in brightness",
    "gamma": "devices map intensities to greys by different curves",
    "noise": "the noise of images differs with dose, device and time",
    "blur": "images differ in sharpness",
    "low_resolution": "some images have larger voxels than others",
    "accidents": "such artefacts are rare",
    "cutout_count": "the paper covers one box",
}


def augmentation_decisions(
    profile: Profile, anatomy: Anatomy, left_right: Decision, task: Task, patch: Sequence[int], covariate: str = ""
) -> dict[str, Decision]:
    """Every strength with its reason; what does not befall this kind of image is off.

    covariate: of the network, that states a side of the patient; empty where none does
    """
    flips, reason = _flips(profile, anatomy, left_right, task, len(patch))
    if flips and covariate:
        flips = ()
        reason = f"{covariate} states a side, and in the mirror it would be the wrong one"
    tiny = max(patch) <= TINY
    is_picture = len(patch) == PICTURE
    sided = orient.names_sides(task.channels_when_mirrored) or anatomy.sides == NUMBERED or bool(anatomy.placed)
    quarters = not profile.upright and is_picture and not sided
    sized = GridNeeds.from_task(task).scaled
    # Of few pixels a large turn reads much from outside the image.
    chosen: dict[str, PlainValue] = {
        "rotation": min(profile.rotation, 15.0) if tiny else profile.rotation,
        "scale": 0.0 if sized else 0.15,
        "shift": 0.05,
        "flips": flips,
        "left_right": left_right.value,
        "quarter_turns": quarters,
        "accidents": ACCIDENTS,
        **profile.changes,
        **(dict.fromkeys(FINE, 0.0) if tiny else {}),
    }
    off = Augmentation(contrast=0.0, brightness=0.0, gamma=0.0, noise=0.0)
    decisions = {}
    for name, value in {**asdict(off), **chosen}.items():
        decisions[name] = Decision(value, _reason(name, value, profile, tiny), _source(name, value, profile))
    if sized:
        decisions["scale"] = Decision(0.0, "a size may be the answer, and a stretched image would show another")
    decisions["flips"] = Decision(list(flips), reason, profile.source if flips else "")
    decisions["left_right"] = left_right
    decisions["quarter_turns"] = Decision(quarters, _upright(profile, is_picture, sided))
    return {field.name: decisions[field.name] for field in fields(Augmentation)}


def of_tiles(decisions: Mapping[str, Decision]) -> dict[str, Decision]:
    """The same for bags: each tile is mirrored, turned by quarters and stained by itself, and nothing else."""
    kept = ("flips", "left_right", "quarter_turns", "probability", "accidents", "cutout_count")
    because = "of each tile its side, turn and dyes are changed, which costs little; the rest was not measured"
    stain = Decision(STAIN, "laboratories stain differently", TELLEZ)
    off = {name: Decision(0.0, because) for name in decisions if name not in kept}
    return {**{name: off.get(name, decision) for name, decision in decisions.items()}, "stain": stain}


def flips_at_test(flips: Decision, tiles: object = None) -> Decision:
    """The axes along which predictions are averaged with their mirror images: those of training, of bags none."""
    if tiles is not None:
        return Decision([], "all tiles of a slide have one answer, and training has mirrored each by itself")
    if not flips.value:
        return Decision([], "training does not mirror either")
    because = "training mirrors along them, and the mean of several views has a smaller error"
    return Decision(flips.value, because, NNUNET)


def _flips(
    profile: Profile, anatomy: Anatomy, left_right: Decision, task: Task, ndim: int
) -> tuple[tuple[int, ...], str]:
    axis = left_right.value
    if anatomy.sides == NUMBERED:
        return (), f'"{anatomy.word}" means teeth, whose numbers name their sides'
    if anatomy.placed:
        return (), anatomy.placed
    if ndim == PICTURE and properties.picks_a_side(task):
        return (), "the classes are sides, and a picture in the mirror would be of the other one without being it"
    if orient.names_sides(task.channels_when_mirrored) and axis is None:
        return (), f"labels name a side, and {left_right.because}"
    if not profile.upright:
        axes = tuple(range(ndim))
        crossing = axes if task.channels_when_mirrored is not None else tuple(one for one in axes if one != axis)
        return crossing, _side_reason(task, profile.why["mirrors"])
    if axis is None:
        return (), left_right.because
    if task.channels_when_mirrored is None:
        return (), "a label names a side, and its counterpart is not among the labels"
    if profile.mirrors == NEVER:
        return (), profile.why["mirrors"]
    if anatomy.sides == DIFFERENT and profile.mirrors != ALWAYS:
        return (), f'"{anatomy.word}" means the trunk, whose organs differ between left and right'
    if anatomy.sides is None and profile.mirrors == SYMMETRIC:
        return (), f"{profile.why['mirrors']}, and no name says what is imaged"
    alike = f'the two sides of "{anatomy.word}" are alike' if anatomy.sides == ALIKE else profile.why["mirrors"]
    return (axis,), _side_reason(task, alike)


def _side_reason(task: Task, because: str) -> str:
    """The reason, with what becomes of labels that have a side."""
    if task.channels_when_mirrored is None:
        return f"{because}, but not across left and right: a label names a side whose counterpart is missing"
    return f"{because}; paired labels change places" if orient.names_sides(task.channels_when_mirrored) else because


def _upright(profile: Profile, is_picture: bool, sided: bool) -> str:
    """Why images are rotated by quarter turns, or not. sided: a label names a side."""
    if not is_picture:
        return "only 2D images are turned this way"
    if profile.upright:
        if profile != UNKNOWN:
            return "the image has an upright orientation"
        return "the image may have an upright orientation"
    if sided:
        return "a label names a side, and half a turn brings left to where right was"
    return "the image has no upright orientation"


def _reason(name: str, value: Any, profile: Profile, tiny: bool) -> str:
    if value:
        return profile.why.get(name) or REASONS.get(name, "it occurs in such images")
    if tiny and name in profile.changes:
        return f"images of at most {TINY} voxels a side have no detail to lose"
    if name in UNPROVEN:
        return REASONS["elastic"]
    return "the kind of image is not known" if profile == UNKNOWN else f"it does not occur in {profile.name}"


def _source(name: str, value: Any, profile: Profile) -> str:
    if not value:
        return ""
    return profile.source if name in profile.why else NNUNET if name in OF_NNUNET else ""


def check_mirroring(settings: PlanSettings) -> None:
    """Mirroring stays within the grid, and puts no label on the wrong side, in training and in prediction.

    Neither do further views in prediction.
    """
    mirrored = settings.task.channels_when_mirrored
    ndim = settings.preprocessing.ndim
    settings.augmentation.check(mirrored, ndim)
    orient.check_flips(
        "inference", settings.inference.flips, settings.inference.left_right, mirrored=mirrored, ndim=ndim
    )
    fixed_views.refuse_views(settings.task, settings.inference.views)


def check_mixing(settings: PlanSettings) -> None:
    """PlanError where a mixed image would belong to no group, or have several answers; where nothing has a colour."""
    vectors = all(head.is_vector for head in settings.task.heads.values())
    several = len(settings.task.heads) > 1
    mixing = [name for name in ("mixup", "cutmix") if getattr(settings.augmentation, name) > 0]
    if mixing and settings.training.fairness in ("reweigh", "group_dro", "adversarial"):
        raise PlanError("an image mixed from two people belongs to no group", f"augmentation.{mixing[0]}", "Give 0")
    coloured = tuple(settings.preprocessing.channels) == COLOUR and settings.preprocessing.moments == 1
    if settings.augmentation.colour and not coloured:
        problem = f"hue and saturation are those of {', '.join(COLOUR)}, and the images have other channels"
        raise PlanError(problem, "augmentation.colour", "Give 0")
    if settings.augmentation.stain and settings.preprocessing.colour_scales is None:
        problem = f"dyes show in {', '.join(COLOUR)} of a range of 8 bits, and the images have other intensities"
        raise PlanError(problem, "augmentation.stain", "Give 0")
    if settings.augmentation.paste and (several or vectors or settings.preprocessing.cascade is not None):
        problem = "a structure is pasted with its mask, for one label map and no first network of a cascade"
        raise PlanError(problem, "augmentation.paste", "Give 0")
    if mixing and (several or not vectors):
        problem = "images are mixed only where each has one answer"
        raise PlanError(problem, f"augmentation.{mixing[0]}", "Give 0")
