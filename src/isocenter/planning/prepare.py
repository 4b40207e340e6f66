"""What is done to an image before the network sees it, and why."""

from __future__ import annotations

import numpy as np

from isocenter.errors import DatasetError
from isocenter.planning.grid import Grid, flat
from isocenter.planning.normalisation import normalisation
from isocenter.planning.profiles import NNUNET, profile_for
from isocenter.planning.shortcuts import Retest, without_shortcuts
from isocenter.tasks import Task
from isocenter.transforms import COLOUR, GREY, all_channels, without_alpha
from isocenter.values import MM, Dataset, Decision, Fingerprint

# Of a clip; published networks look at 8 to 32.
FRAMES, CLIPS = {"cpu": 8, "gpu": 16}, "arXiv:1711.11248"
# Below this share of content cutting the rest away saves more than it costs.
EMPTY = 0.75


def preprocessing(
    dataset: Dataset,
    fingerprint: Fingerprint,
    task: Task,
    grid: Grid,
    frames: Decision,
    retest: Retest | None,
    absent: Decision,
) -> dict[str, Decision]:
    """The plan's section, in the order in which an image goes through it."""
    channels, modality = channels_of(fingerprint), _modality(dataset, fingerprint)
    names = [label.name for label in task.labels]
    whole = grid.whole
    away = without_shortcuts(grid.shape.value, retest)
    return {
        "ndim": _axes(fingerprint),
        "channels": channels,
        "absent": absent,
        "frames": frames,
        "modality": modality,
        "normalisation": normalisation(fingerprint, channels.value, modality.value, names),
        "crop": _crop(fingerprint, whole),
        "border": away["border"],
        "spacing": grid.spacing,
        "unit": _unit(fingerprint),
        "shape": grid.shape,
        "aspect": away["aspect"],
        "order": Decision("linear", "it does not overshoot beside sharp edges"),
        "smallest": Decision(list(grid.patch), "the network sees at least one whole patch"),
    }


def channels_of(fingerprint: Fingerprint) -> Decision:
    """What the network expects: the channels of all training cases, grey where they are not all coloured."""
    found = [without_alpha(case.channels) for case in fingerprint.cases]
    if len(set(found)) == 1:
        return Decision(list(found[0]), f"all {len(found)} training cases have them")
    if not set(found) <= {GREY, COLOUR}:
        return Decision(all_channels(found), f"each of {len(found)} training cases has some of them")
    coloured = found.count(COLOUR)
    because = f"{len(found) - coloured} training cases are grey and {coloured} are not: what colour adds is not known"
    return Decision(list(GREY), f"{because} for all")


def frames_of(fingerprint: Fingerprint, device: str) -> Decision:
    """How many frames of each clip are looked at; none of still images. DatasetError for clips among stills."""
    found = [case.frames for case in fingerprint.cases]
    clips = [count for count in found if count is not None]
    if not clips:
        return Decision(None, "they are still images")
    if len(clips) < len(found):
        problem = f"{len(clips)} of {len(found)} cases are clips, the others still images"
        raise DatasetError(problem, "preprocessing.frames", "Give clips alone, or stills alone")
    most = FRAMES["cpu" if device == "cpu" else "gpu"]
    spread = f"{min(clips)} to {max(clips)} frames" if len(set(clips)) > 1 else f"{clips[0]} frames"
    because = (
        f"clips have {spread}; evenly spread over each, {most} at most for the {device}; of shorter ones some twice"
    )
    return Decision(min(most, int(np.median(clips))), because, CLIPS)


def _axes(fingerprint: Fingerprint) -> Decision:
    shapes, _ = flat(fingerprint)
    sizes = f"{min(shapes)} to {max(shapes)} voxels" if len(set(shapes)) > 1 else f"{shapes[0]} voxels each"
    return Decision(len(shapes[0]), f"the {len(shapes)} training cases have {sizes}")


def _crop(fingerprint: Fingerprint, whole: bool) -> Decision:
    content = float(np.median([case.content for case in fingerprint.cases]))
    because = f"what is above the lowest value fills {100 * content:.0f} % of the median image"
    if whole:
        return Decision("none", f"{because}; its size may tell the classes apart, so all of it is kept")
    return Decision("content" if content < EMPTY else "none", because, NNUNET)


def _unit(fingerprint: Fingerprint) -> Decision:
    found = sorted({case.unit for case in fingerprint.cases if case.physical})
    if len(found) > 1:
        raise DatasetError(f"axes in {' and '.join(found)}", "preprocessing.unit", "Bring all series to one unit")
    because = (
        "space is measured in it" if fingerprint.unit == MM else f"the axes of {len(fingerprint)} series are in it"
    )
    return Decision(fingerprint.unit, because)


def _modality(dataset: Dataset, fingerprint: Fingerprint) -> Decision:
    found = [case.modality for case in fingerprint.cases]
    most = max(sorted(set(found)), key=found.count)
    value = dataset.modality if most == "unknown" else most
    if value == "unknown":
        return Decision(value, "neither the files nor the data set say it (--modality does)")
    profile = profile_for(value)
    known = f"taken as {profile.name}" if profile.name != "unknown" else "a kind of which nothing is known here"
    return Decision(value, f"the files or the data set say so; {known}", profile.source)
