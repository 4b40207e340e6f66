"""Rules of preprocessing: what is done to an image before the network sees it, and against shortcuts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, PlanError
from hilum.evaluation import tracks
from hilum.files.modality_words import UNKNOWN_MODALITY
from hilum.networks import factory
from hilum.objectives import objective_catalogue
from hilum.planning import training_memory
from hilum.planning.plan_sections import PlanSettings
from hilum.planning.rules import grid_rules, image_profiles, normalisation_rules
from hilum.planning.rules.grid_rules import Grid
from hilum.planning.rules.image_profiles import NNUNET, UNKNOWN
from hilum.quality import modality_checks
from hilum.quality.modality_checks import STATED
from hilum.tasks import Task
from hilum.transforms import COLOUR, channel_stack
from hilum.transforms.channel_stack import GREY
from hilum.transforms.intensity import Normalisation
from hilum.values import MM, Dataset, Decision, Fingerprint, Problem, dataset_fingerprint
from hilum.values.dataset_fingerprint import Shortcut

# Of a clip; published networks look at 8 to 32.
FRAMES = {"cpu": 8, "gpu": 16}
CLIPS = "arXiv:1711.11248"
# Of the second digit of a number that is rounded up: less than this is the rounding of times in files.
ROUNDING = 1e-3
# In which time is counted.
FRAME = "frame"
SECOND = "s"


def preprocessing_decisions(
    dataset: Dataset,
    fingerprint: Fingerprint,
    task: Task,
    grid: Grid,
    frames: Decision,
    retest: ShortcutRetest | None,
    absent: Decision,
) -> dict[str, Decision]:
    """The plan's section, in the order in which an image goes through it."""
    channels = decide_channels(fingerprint)
    modality = _modality(dataset, fingerprint)
    names = [label.name for label in task.labels]
    away = without_shortcuts(grid.shape.value, retest, dense=grid.dense)
    return {
        "ndim": _axes(fingerprint, grid),
        "channels": channels,
        "absent": absent,
        "frames": frames,
        **_timing(fingerprint, frames.value),
        "modality": modality,
        "normalisation": normalisation_rules.decide_normalisation(fingerprint, channels.value, modality.value, names),
        "crop": _crop(fingerprint, grid),
        "border": away["border"],
        "spacing": grid.spacing,
        "unit": _unit(fingerprint),
        "shape": grid.shape,
        "aspect": away["aspect"],
        "around": decide_around(fingerprint),
        "stain": Decision("none", "it was not asked for; --set preprocessing.stain=macenko brings dyes to a reference"),
        "tissue": Decision("otsu", "it matters only for slides, of which glass is not predicted", OTSU),
        "order": Decision("linear", "it does not overshoot beside sharp edges"),
        "smallest": Decision(list(grid.patch), "the network sees at least one whole patch"),
    }


def are_frames(fingerprint: Fingerprint) -> bool:
    """Whether the cases are single frames of clips, as layouts name them."""
    return any(tracks.FRAME.fullmatch(case.id) for case in fingerprint.cases)


def decide_around(fingerprint: Fingerprint) -> Decision:
    """The frames before and after each that the network sees too: whether they help only a training tells."""
    if not are_frames(fingerprint):
        return Decision(0, "the cases are no frames of clips")
    because = "frames around one help only where motion shows what it does not, and one training cannot tell"
    return Decision(0, f"{because}: --tune tries two before and after it, --set preprocessing.around=2 takes them")


def normalised_problems(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """Problems of cases that the normalisation of their plan would lose."""
    if not fingerprint.cases:
        return
    if mixed := normalisation_rules.mixed_kinds(fingerprint):
        yield Problem.warning(
            f"the images are of several kinds: {mixed}",
            why="a number means something else in each of them, and a network of all has no common scale",
            remedy="Split the data set by kind, unless one model is to take all of them",
        )
    channels = decide_channels(fingerprint).value
    modality = _modality(dataset, fingerprint).value
    if tuple(channels) == COLOUR:
        yield from normalisation_rules.depth_problems(fingerprint, channels)
    structures = [label.name for labels in dataset.classes.values() for label in labels]
    scales = normalisation_rules.decide_normalisation(fingerprint, channels, modality, structures).value
    yield from normalisation_rules.constant_problems(fingerprint, channels, [Normalisation(**one) for one in scales])


def decide_channels(fingerprint: Fingerprint) -> Decision:
    """The channels that the network expects: those of all training cases, grey where not all are coloured."""
    kinds = [channel_stack.without_alpha(case.channels) for case in fingerprint.cases]
    if len(set(kinds)) == 1:
        return Decision(list(kinds[0]), f"all {len(kinds)} training cases have them")
    if not set(kinds) <= {GREY, COLOUR}:
        return Decision(channel_stack.all_channels(kinds), f"each of {len(kinds)} training cases has some of them")
    coloured = kinds.count(COLOUR)
    because = f"{len(kinds) - coloured} training cases are grey and {coloured} are not: what colour adds is not known"
    return Decision(list(GREY), f"{because} for all")


def decide_frames(fingerprint: Fingerprint, device: str) -> Decision:
    """The number of frames of each clip that are used; none for still images. DatasetError for clips among stills."""
    counts = [case.frames for case in fingerprint.cases]
    clips = [count for count in counts if count is not None]
    if not clips:
        return Decision(None, "the cases are still images")
    if len(clips) < len(counts):
        problem = f"{len(clips)} of {len(counts)} cases are clips, the others still images"
        raise DatasetError(problem, "preprocessing.frames", "Give clips alone, or stills alone")
    most = FRAMES[training_memory.device_kind(device)]
    frames = min(most, int(np.median(clips)))
    if frames > 1 and min(clips) < 2:
        single = [case.id for case in fingerprint.cases if case.frames == 1]
        which = f"{errors.list_phrase(single)} of {len(clips)} clips"
        problem = f"{which} have one frame, of which nothing changes with time"
        raise DatasetError(problem, "preprocessing.frames", "Leave them out, or give stills alone")
    spread = f"{min(clips)} to {max(clips)} frames" if len(set(clips)) > 1 else f"{clips[0]} frames"
    because = f"clips have {spread}; evenly spread over each, {most} at most for the {device}"
    return Decision(frames, f"{because}; shorter clips repeat some frames", CLIPS)


def _timing(fingerprint: Fingerprint, frames: int | None) -> dict[str, Decision]:
    """When of a clip its frames are looked at: evenly over all of it, unless somebody sets an interval."""
    if frames is None:
        still = Decision(None, "the cases are still images")
        return {"interval": still, "time_unit": still}
    lasts, unit = clip_durations(fingerprint)
    counted_in = "frames" if unit == FRAME else unit
    spread = f"{min(lasts):.3g} to {max(lasts):.3g} {counted_in}" if min(lasts) < max(lasts) else "equally long"
    because = (
        f"frames are spread evenly over each clip, so that all of it is seen, whatever it lasts ({spread}); where "
        f"speed tells something, preprocessing.interval={_step(fingerprint, frames):g} ({counted_in}) takes at most "
        f"{frames} at even steps, and shorter clips have fewer"
    )
    timed = "all training clips say when" if unit == SECOND else "not all training clips say when"
    return {"interval": Decision(None, because), "time_unit": Decision(unit, f"{timed} their frames were taken")}


def clip_durations(fingerprint: Fingerprint, unit: str | None = None) -> tuple[list[float], str]:
    """The durations of clips from first to last frame, with their unit: s where all clips state it, else frames."""
    seconds = [case.lasts for case in fingerprint.cases if case.lasts is not None]
    if unit != FRAME and len(seconds) == len(fingerprint):
        return seconds, SECOND
    return [float((case.frames or 1) - 1) for case in fingerprint.cases], FRAME


def _step(fingerprint: Fingerprint, frames: int) -> float:
    """The shortest interval with which no clip lasts too long, and none has slots between its frames; two digits."""
    lasts, _ = clip_durations(fingerprint)
    within = [long / max((case.frames or 1) - 1, 1) for long, case in zip(lasts, fingerprint.cases, strict=True)]
    least = max(max(lasts) / max(frames - 1, 1), *within)
    if least <= 0:
        return 1.0
    digits = 1 - math.floor(math.log10(least))
    return cast(float, round(math.ceil(least * 10**digits - ROUNDING) / 10**digits, max(digits, 0)))


def _axes(fingerprint: Fingerprint, grid: Grid) -> Decision:
    if grid.tiles is not None:
        return Decision(len(grid.patch), "a bag of tiles is a volume whose first axis has no neighbours")
    shapes, _ = grid_rules.without_single_slice(fingerprint)
    sizes = dataset_fingerprint.sizes_in_words(shapes).removeprefix("all ")
    sizes += f" voxels{' each' if len(set(shapes)) == 1 else ''}"
    return Decision(len(shapes[0]), f"the {len(shapes)} training cases have {sizes}")


def _crop(fingerprint: Fingerprint, grid: Grid) -> Decision:
    content = float(np.median([case.content for case in fingerprint.cases]))
    because = f"what is above the lowest value fills {100 * content:.0f} % of the median image"
    if grid.whole:
        return Decision("none", f"{because}; its size may tell the classes apart, so all of it is kept")
    return Decision("content" if grid.cropped else "none", because, NNUNET)


def _unit(fingerprint: Fingerprint) -> Decision:
    units = sorted({case.unit for case in fingerprint.cases if case.physical})
    if len(units) > 1:
        raise DatasetError(f"axes in {' and '.join(units)}", "preprocessing.unit", "Bring all series to one unit")
    because = "all axes are spatial" if fingerprint.unit == MM else f"the axes of {len(fingerprint)} series are in it"
    return Decision(fingerprint.unit, because)


def _modality(dataset: Dataset, fingerprint: Fingerprint) -> Decision:
    modalities = [case.modality for case in fingerprint.cases]
    most = max(sorted(set(modalities)), key=modalities.count)
    value = dataset.modality if most == UNKNOWN_MODALITY else most
    if value == UNKNOWN_MODALITY:
        guess = modality_checks.guess_modality(dataset, fingerprint)
        if guess is None:
            return Decision(value, f"{STATED}, and neither names nor values tell it (--modality does)")
        because = f"it is a guess: {guess.because}; {STATED} (--modality decides otherwise)"
        return Decision(guess.modality, f"{because}; taken as {image_profiles.profile_for(guess.modality).name}")
    profile = image_profiles.profile_for(value)
    profiled = f"taken as {profile.name}" if profile != UNKNOWN else "a kind of image that has no profile here"
    agreeing = modalities.count(most)
    cases = len(modalities)
    are_alike = most == UNKNOWN_MODALITY or agreeing == cases
    who = "the files or the data set say" if are_alike else f"{agreeing} of {cases} training cases say"
    return Decision(value, f"{who} so; {profiled}", profile.source)


def check_preprocessing(settings: PlanSettings) -> None:
    """PlanError for sizes, shapes and frames that contradict each other, or that the network does not take."""
    _check_patches(settings)
    _check_bags(settings)
    _check_shape(settings)
    _check_clips(settings)


def _check_patches(settings: PlanSettings) -> None:
    ndim = settings.preprocessing.ndim
    for name, sizes in (("inference.patch", settings.inference.patch), ("training.patch", settings.training.patch)):
        if len(sizes) != ndim or min(sizes) < 1:
            raise PlanError(f"{sizes} in {ndim} dimensions", name, "Give one size per axis, from 1")
    smallest = settings.preprocessing.smallest
    patch = settings.training.patch
    if smallest != patch:
        problem = f"{smallest} is not training.patch {patch}"
        raise PlanError(problem, "preprocessing.smallest", "Give both the same size")


def _check_bags(settings: PlanSettings) -> None:
    """Bags of tiles have the shape that their section says, colours of 8 bits, and a network that pools them."""
    chosen = settings.preprocessing
    name = settings.network.name
    if chosen.tiles is None:
        return
    if not factory.family_of(name).pools:
        remedy = "Leave it to the plan, or choose mil_attention, mil_top or slide_windows"
        raise PlanError(f"{name} sees no bags, and each slide is one of tiles", "network.name", remedy)
    if settings.training.patch != chosen.tiles.shape:
        problem = f"{settings.training.patch} is not the {chosen.tiles.shape} of the section tiles"
        raise PlanError(problem, "training.patch", "Give tiles.count and tiles.size instead")
    if chosen.colour_scales is None:
        problem = "the tiles of slides have colours of 8 bits, which one range brings to 0 to 1"
        raise PlanError(problem, "preprocessing.normalisation", "Plan again, and leave it as it is")
    needs = objective_catalogue.joint_needs(settings.terms.values())
    if settings.objectives.image_paths or needs.second or not needs.labels:
        raise PlanError("bags of tiles have no second view", "objectives.terms", "Give supervised")
    if settings.transfer.mode == "prototypes":
        raise PlanError("the tiles of a bag have no mean that is a class", "transfer.mode", "Give full")
    for mixed in ("mixup", "cutmix", "style"):
        if getattr(settings.augmentation, mixed):
            raise PlanError("each tile of a bag is changed by itself", f"augmentation.{mixed}", "Give 0")


def _check_shape(settings: PlanSettings) -> None:
    """Refuse settings of the shape that contradict each other, or leave nothing of an image."""
    chosen = settings.preprocessing
    if not 0 <= chosen.border < 0.5:
        raise PlanError(f"{chosen.border} of each side leaves nothing", "preprocessing.border", "Give 0 to below 0.5")
    if chosen.aspect != "stretch" and chosen.shape is None:
        problem = f"{chosen.aspect} needs a shape to come to"
        raise PlanError(problem, "preprocessing.aspect", "Give preprocessing.shape, or stretch")
    if chosen.stain != "none" and tuple(chosen.channels) != COLOUR:
        problem = f"stains show in {', '.join(COLOUR)}, and the images have other channels"
        raise PlanError(problem, "preprocessing.stain", "Give none")
    if chosen.frames is not None and chosen.frames < 1:
        raise PlanError(f"{chosen.frames} frames", "preprocessing.frames", "Give 1 or more, or none for still images")
    for name in ("spacing", "shape"):
        sizes = getattr(chosen, name)
        if sizes is not None and (len(sizes) != chosen.ndim or min(sizes) <= 0):
            where = f"preprocessing.{name}"
            raise PlanError(f"{sizes} in {chosen.ndim} dimensions", where, "Give one size above 0 per axis")
    strangers = sorted(set(chosen.absent) - set(chosen.channels))
    if strangers:
        problem = f"there is no channel {strangers[0]!r}"
        raise PlanError(problem, "preprocessing.absent", f"Choose from {', '.join(chosen.channels)}")
    if settings.training.modality_dropout > 0 and set(chosen.absent) != set(chosen.channels):
        problem = "training would leave out images, but no case may lack one"
        remedy = "Plan again with --set training.modality_dropout=..., or give 0"
        raise PlanError(problem, "training.modality_dropout", remedy)
    if len(chosen.normalisation) != len(chosen.channels):
        problem = f"{len(chosen.normalisation)} ways for {len(chosen.channels)} channels"
        raise PlanError(problem, "preprocessing.normalisation", "Give one for each channel")


def _check_clips(settings: PlanSettings) -> None:
    """A network of clips is told of as many frames as it is given; frames at even steps need one."""
    chosen = settings.preprocessing
    name = settings.network.name
    where = "preprocessing.interval"
    takes = factory.family_of(name).takes_gaps
    if takes and chosen.frames is None:
        raise PlanError(f"{name} takes clips, and these are still images", "network.name", "Choose another")
    if takes and (frames := settings.network.size.get("frames", 1)) != chosen.frames:
        problem = f"{frames} frames, where preprocessing.frames is {chosen.frames}"
        raise PlanError(problem, "network.size", "Give both the same number")
    if chosen.interval is None:
        return
    if not 0 < chosen.interval < math.inf:
        remedy = "Give a number above 0, or none to spread them evenly"
        raise PlanError(f"frames every {chosen.interval}", where, remedy)
    if chosen.frames is None:
        raise PlanError("still images have no frames", where, "Give none")
    if chosen.time_unit == "frame" and chosen.interval < 1:
        raise PlanError(f"an interval of {chosen.interval:g} frames is shorter than one frame", where, "Give 1 or more")
    if not takes:
        problem = f"shorter clips lack frames, and {name} cannot handle missing frames"
        raise PlanError(problem, where, "Give none, or a network of clips such as clip_resnet")


def refuse_clips_beyond_frames(settings: PlanSettings, fingerprint: Fingerprint) -> None:
    """PlanError for an interval with which the frames that are looked at do not reach the end of a training clip."""
    interval = settings.preprocessing.interval
    frames = settings.preprocessing.frames
    if not interval or not frames:
        return
    lasts, unit = clip_durations(fingerprint, settings.preprocessing.time_unit)
    if long := sum(one / interval + 0.5 >= frames for one in lasts):
        length = f"longer ({max(lasts):.3g} {unit}) than {frames} frames every {interval:g}"
        problem = f"{errors.count_phrase(long, 'training clip lasts', 'training clips last')} {length}"
        remedy = "Give more preprocessing.frames, or a longer interval"
        raise PlanError(problem, "preprocessing.interval", remedy)


# Cut away on each side where border pixels tell the classes apart: markers, frames and burned-in text lie there.
BORDER = 0.1
# A cure that leaves more of what the AUC is above chance is none: what is cut away is lost to the disease too.
LEFT = 0.5
GEIRHOS = "doi:10.1038/s42256-020-00257-z"
OTSU = "doi:10.1109/TSMC.1979.4310076"


@dataclass(frozen=True)
class ShortcutRetest:
    """The shortcuts that tell the classes apart without the disease, and a test of what preprocessing leaves.

    shortcuts: of all cases as they are; empty where too few patients were there to say
    few:      why nothing could be found, in sentences
    patients: of the training cases
    after:    shortcuts of the training cases after preprocessing with this aspect, border and shape
    """

    shortcuts: Sequence[Shortcut]
    few: Sequence[str]
    patients: int
    after: Callable[[str, float, Sequence[int] | None], Sequence[Shortcut]]


def without_shortcuts(
    shape: Sequence[int] | None, retest: ShortcutRetest | None, *, dense: bool = False
) -> dict[str, Decision]:
    """`aspect` and `border`: off, unless something that they remove predicts the class, and does less so without it.

    shape:  to which all images are brought, so that their proportions can be seen; None for none
    retest: None where nothing is to be told apart
    dense:  there is an output for every voxel, so that a structure that is cut away would be lost
    """
    border = Decision(0.0, "nothing at the border tells the classes apart")
    decisions = {"border": border, "aspect": _stretch(shape is not None)}
    if retest is None:
        return decisions
    if not retest.shortcuts and retest.few:
        because = f"{'; '.join(retest.few)}; nothing is cut away"
        return {"border": Decision(0.0, because), "aspect": replace(decisions["aspect"], because=because)}
    removable = [one for one in retest.shortcuts if one.standing and one.removable]
    if not removable:
        return decisions
    if dense:
        strongest = max(removable, key=lambda shortcut: shortcut.auc.value)
        because = (
            f"{strongest.sentence}: {strongest.figure} {strongest.auc}; but each voxel gets an answer, also at the "
            "border, so nothing is cut away, and the report says so"
        )
        return {"border": Decision(0.0, because), "aspect": replace(decisions["aspect"], because=because)}
    shortcuts = retest.after("stretch", 0.0, shape)
    if shape is not None:
        after = partial(retest.after, "crop", 0.0, shape)
        done = "cropped to one proportion"
        decisions["aspect"] = _decide(decisions["aspect"], "crop", done, shortcuts, after, retest)
    after = partial(retest.after, decisions["aspect"].value, BORDER, shape)
    done = f"without {100 * BORDER:.0f} % on each side"
    decisions["border"] = _decide(decisions["border"], BORDER, done, shortcuts, after, retest)
    return decisions


def _decide(
    usual: Decision,
    cure: str | float,
    done: str,
    shortcuts: Sequence[Shortcut],
    after: Callable[[], Sequence[Shortcut]],
    retest: ShortcutRetest,
) -> Decision:
    """The cure, if the training cases show what it removes and that it helps; what all cases show is stated."""
    setting = "border" if cure == BORDER else "aspect"
    if before := _strongest([one for one in shortcuts if one.standing], setting):
        return _try_cure(before, after(), cure, usual.value, done)
    in_all_cases = _strongest([one for one in retest.shortcuts if one.standing], setting)
    if in_all_cases is None:
        return usual
    # All cases together may show what the training cases, which alone decide, do not.
    because = f"in all cases {in_all_cases.sentence}: {in_all_cases.figure} {in_all_cases.auc}; "
    if weak := _strongest(shortcuts, setting):
        because += f"in the training cases {weak.sentence} hardly: {weak.figure} {weak.auc}"
    else:
        because += f"not measurable with {errors.count_phrase(retest.patients, 'training patient')}"
    return Decision(usual.value, f"{because}, so nothing is cut away")


def _strongest(shortcuts: Sequence[Shortcut], setting: str) -> Shortcut | None:
    """The strongest shortcut that a setting could remove."""
    removable = [one for one in shortcuts if one.removable and one.setting == setting]
    return max(removable, key=lambda shortcut: shortcut.auc.value, default=None)


def _try_cure(
    before: Shortcut, after: Sequence[Shortcut], cure: str | float, nothing: str | float, done: str
) -> Decision:
    left = next((one for one in after if (one.name, one.what) == (before.name, before.what)), None)
    value = 0.5 if left is None else left.auc.value
    because = f"in the training cases {before.sentence}: {before.figure} {before.auc}, {done} {value:.3f}"
    if left is None or not left.standing or value - 0.5 <= LEFT * (before.auc.value - 0.5):
        return Decision(cure, because, GEIRHOS)
    because += "; cutting does not remove the shortcut, so nothing is cut away, and the report says so"
    return Decision(nothing, because, GEIRHOS)


def _stretch(shaped: bool) -> Decision:
    if shaped:
        return Decision("stretch", "the proportions of the images do not tell the classes apart, so nothing is lost")
    return Decision("stretch", "it matters only where images are brought to one shape")
