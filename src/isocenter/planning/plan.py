"""From what the data are, what the machine has and what a person asks for to a plan with reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from isocenter import networks
from isocenter.planning.machine import Machine
from isocenter.tasks import Task, build, kind_for
from isocenter.transforms import COLOUR, GREY, Augmentation, Normalisation, without_alpha
from isocenter.values import BY_HAND, Dataset, Decision, Dense, Fingerprint, Plan

NNUNET = "doi:10.1038/s41592-020-01008-z"
# Voxels of a patch and images of a batch that two cores go through in well under a second a step.
PATCH_VOXELS = {"cpu": 2**17, "gpu": 2**21}
# The longest side of a picture that is looked at as a whole.
WHOLE_SIDE = {2: {"cpu": 128, "gpu": 256}, 3: {"cpu": 48, "gpu": 96}}

# A median spacing rounded to 1e-4 mm must not add a step to every patch.
ROUNDING = 1e-3


def make_plan(
    dataset: Dataset,
    fingerprint: Fingerprint,
    split: Decision,
    machine: Machine,
    *,
    device: Decision,
    minutes: float | None,
    seed: int,
    folds: int = 0,
    task: str | None = None,
    network: str | None = None,
) -> Plan:
    """A plan for these training cases.

    fingerprint: of the training cases alone: nothing of validation or test enters a plan
    network:     the family to choose a size for; the task's own choice if none is given
    Raises DatasetError where no task fits the references or they teach nothing, PlanError for an unknown network.
    """
    kind = kind_for(dataset, task)
    chosen = {
        "name": Decision(kind.name, "asked for" if task else f"the references are {', '.join(sorted(dataset.kinds))}"),
        **kind.settings_for(dataset, fingerprint),
    }
    built = build({key: decision.value for key, decision in chosen.items()})
    preprocessing = _preprocessing(dataset, fingerprint, built, machine)
    patch, strides = _patch(preprocessing, fingerprint, built, machine)
    preprocessing["smallest"] = Decision(list(patch), "the network sees at least one whole patch")
    said = built.decisions(fingerprint)
    sections = {
        "task": chosen,
        "split": {
            "method": split,
            "folds": Decision(folds, "asked for" if folds else "one test part: no folds were asked for"),
        },
        "preprocessing": preprocessing,
        "network": {
            "name": said["network.name"],
            "size": _size(network or said["network.name"].value, patch, strides, machine),
            "pretrained": Decision(None, "fresh weights: nothing else was asked for"),
        },
        "training": _training(
            fingerprint, built, machine, device, patch, minutes=minutes, seed=seed, dense=_is_dense(built)
        ),
        "augmentation": _augmentation(preprocessing["ndim"].value),
        "inference": {
            "patch": _window(fingerprint, patch, strides, preprocessing),
            "overlap": Decision(0.5, "each voxel is seen by at least two windows per axis", NNUNET),
            "batch": Decision(1 if machine.device == "cpu" else 4, "windows that go through the network together"),
        },
        "evaluation": {},
    }
    for name, decision in said.items():
        section, _, key = name.partition(".")
        sections[section] = {**sections[section], key: decision}
    return Plan(sections)


def for_fold(plan: Plan, dataset: Dataset, fingerprint: Fingerprint) -> Plan:
    """The plan of one fold: what is taken from intensities and references is taken from its own training cases.

    The grid, the patch and the network are those of all folds, whose outputs are averaged voxel by voxel.
    What was set by hand stays.
    """
    kind = kind_for(dataset, plan["task.name"])
    found = {f"task.{key}": decision for key, decision in kind.settings_for(dataset, fingerprint).items()}
    channels, modality = plan["preprocessing.channels"], plan["preprocessing.modality"]
    found["preprocessing.normalisation"] = _normalisation(fingerprint, channels, modality)
    for name, decision in found.items():
        if name in plan and plan.decision(name).because != BY_HAND:
            plan = plan.with_decision(name, decision)
    return plan


def with_settings(plan: Plan, assignments: Mapping[str, Any]) -> Plan:
    """The plan with values set by hand; PlanError for a name that it does not have."""
    for name, value in assignments.items():
        plan.decision(name)  # refuses an unknown name
        plan = plan.with_decision(name, Decision(value, BY_HAND))
    if "training.patch" in assignments and "preprocessing.smallest" not in assignments:
        follows = Decision(assignments["training.patch"], "training.patch, which was set by hand")
        plan = plan.with_decision("preprocessing.smallest", follows)
    return plan


def _is_dense(task: Task) -> bool:
    return any(isinstance(head, Dense) for head in task.heads.values())


def _flat(fingerprint: Fingerprint) -> tuple[list[tuple[int, ...]], list[tuple[float, ...]]]:
    """(shapes, steps) without the single slice, where every case has just one."""
    shapes = [case.shape for case in fingerprint.cases]
    steps = [case.steps for case in fingerprint.cases]
    if not all(len(shape) == 3 and 1 in shape for shape in shapes):
        return shapes, steps
    single = [max(axis for axis, size in enumerate(shape) if size == 1) for shape in shapes]
    return (
        [shape[:axis] + shape[axis + 1 :] for shape, axis in zip(shapes, single, strict=True)],
        [step[:axis] + step[axis + 1 :] for step, axis in zip(steps, single, strict=True)],
    )


def _preprocessing(dataset: Dataset, fingerprint: Fingerprint, task: Task, machine: Machine) -> dict[str, Decision]:
    shapes, steps = _flat(fingerprint)
    ndim = len(shapes[0])
    sizes = f"{min(shapes)} to {max(shapes)} voxels" if len(set(shapes)) > 1 else f"all {shapes[0]} voxels"
    channels, because = _channels(fingerprint)
    content = float(np.median([case.content for case in fingerprint.cases]))
    modalities = [case.modality for case in fingerprint.cases]
    modality = max(sorted(set(modalities)), key=modalities.count)
    if modality == "unknown":
        modality = dataset.modality
    return {
        "ndim": Decision(ndim, f"{len(shapes)} training cases, {sizes}"),
        "channels": Decision(list(channels), because),
        "modality": Decision(modality, "what the files or the data set say"),
        "normalisation": _normalisation(fingerprint, channels, modality),
        "spacing": _spacing(fingerprint, steps, task),
        "shape": _shape(shapes, ndim, task, machine),
        "crop": Decision(
            "content" if content < 0.75 and _is_dense(task) else "none",
            f"what is above the lowest value fills {100 * content:.0f} % of the median image"
            + ("" if _is_dense(task) else "; its size may tell the classes apart, so all of it is kept"),
            NNUNET if _is_dense(task) else "",
        ),
        "order": Decision("linear", "no overshoot beside sharp edges"),
    }


def _channels(fingerprint: Fingerprint) -> tuple[tuple[str, ...], str]:
    found = [without_alpha(case.channels) for case in fingerprint.cases]
    if len(set(found)) == 1:
        return found[0], f"all {len(found)} training cases have them"
    coloured = found.count(COLOUR)
    grey = len(found) - coloured
    return GREY, f"{grey} training cases are grey and {coloured} are not: what colour adds is not known for all"


def _normalisation(fingerprint: Fingerprint, channels: Sequence[str], modality: str) -> Decision:
    count = len(channels)

    def of(channel: int, key: str) -> float:
        return float(
            np.median([case.intensity[min(channel, len(case.intensity) - 1)][key] for case in fingerprint.cases])
        )

    if modality == "CT":
        each = [
            Normalisation("window", of(n, "low"), of(n, "high"), of(n, "mean"), max(of(n, "deviation"), 1e-6))
            for n in range(count)
        ]
        because = "HU mean the same in every CT: one window for all, from the training cases"
    elif tuple(channels) == COLOUR:
        each = [
            Normalisation("range", 0.0, 255.0, of(n, "mean") / 255, max(of(n, "deviation") / 255, 1e-6))
            for n in range(count)
        ]
        because = "colours keep their relation to each other"
    else:
        each = [Normalisation("zscore") for _ in range(count)]
        because = "intensities have no common unit: each image by its own mean and deviation"
    return Decision([_known(asdict(one)) for one in each], because, NNUNET)


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _spacing(fingerprint: Fingerprint, steps: Sequence[Sequence[float]], task: Task) -> Decision:
    if not _is_dense(task):
        return Decision(None, "each image is brought to one shape as a whole")
    if not all(case.physical for case in fingerprint.cases):
        return Decision(None, "the size of a voxel is not known: images keep their grid")
    median = np.round(np.median(np.array(steps), axis=0), 4).tolist()
    return Decision(median, f"median spacing of {len(steps)} training cases, mm", NNUNET)


def _shape(shapes: Sequence[tuple[int, ...]], ndim: int, task: Task, machine: Machine) -> Decision:
    if _is_dense(task):
        return Decision(None, "the grid follows from the spacing")
    median = np.median(np.array(shapes), axis=0)
    longest = WHOLE_SIDE[ndim]["cpu" if machine.device == "cpu" else "gpu"]
    factor = min(1.0, longest / median.max())
    shape = [max(8, round(size * factor / 4) * 4) for size in median]
    because = f"median of {len(shapes)} training cases is {tuple(int(n) for n in median)}"
    if factor < 1:
        because += f", brought down to at most {longest} voxels a side for the {machine.device}"
    return Decision(shape, because)


def _patch(
    preprocessing: Mapping[str, Decision], fingerprint: Fingerprint, task: Task, machine: Machine
) -> tuple[tuple[int, ...], list[list[int]]]:
    """The patch, and by which factor each stage of a U-Net reduces each axis.

    An axis is halved while at least 4 voxels are left and its voxels are not yet twice as long as the shortest; one of
    a fixed shape while its number of voxels is even.
    """
    spacing, whole = preprocessing["spacing"].value, preprocessing["shape"].value
    size = np.median(_extent(fingerprint, spacing), axis=0) if whole is None else np.asarray(whole, dtype=float)
    voxels = PATCH_VOXELS["cpu" if machine.device == "cpu" else "gpu"]
    while whole is None and size.prod() > voxels:  # the longest axis gives way first
        size[size.argmax()] *= 0.95
    step = np.ones(len(size)) if spacing is None else np.asarray(spacing, dtype=float)
    left, strides = size.copy(), [[1] * len(size)]
    while len(strides) < 6:
        fine = left / 2 >= 4 if whole is None else (left / 2 >= 4) & (left % 2 == 0)
        halved = fine & (step <= 1.5 * step[fine].min(initial=np.inf))
        if not halved.any():
            break
        strides.append([2 if axis else 1 for axis in halved])
        left, step = np.where(halved, left / 2, left), np.where(halved, step * 2, step)
    multiple = np.prod(strides, axis=0)
    return tuple(int(n) for n in np.ceil(size / multiple - ROUNDING) * multiple), strides


def _window(
    fingerprint: Fingerprint, patch: Sequence[int], strides: list[list[int]], preprocessing: Mapping[str, Decision]
) -> Decision:
    """The training patch, or one that holds nearly every image whole where that costs little."""
    if preprocessing["shape"].value is not None:
        return Decision(list(patch), "the whole image, as in training")
    extent = _extent(fingerprint, preprocessing["spacing"].value)
    multiple = np.prod(strides, axis=0)
    whole = np.ceil(np.percentile(extent, 95, axis=0) / multiple - ROUNDING).astype(int) * multiple
    if whole.prod() <= 2 * np.prod(patch) and (whole >= np.asarray(patch)).all():
        return Decision(whole.tolist(), "holds 95 % of the training cases whole: one window instead of several")
    return Decision(list(patch), "as in training, so that the network sees what it learnt from", NNUNET)


def _extent(fingerprint: Fingerprint, spacing: Sequence[float] | None) -> np.ndarray:
    """(cases, axes) voxels of the images on the network's grid."""
    shapes, steps = _flat(fingerprint)
    if spacing is None:
        return np.array(shapes, dtype=float)
    return np.array(shapes) * np.array(steps) / np.asarray(spacing)


def _size(name: str, patch: Sequence[int], strides: list[list[int]], machine: Machine) -> Decision:
    size, because, source = networks.size_for(name, patch, strides, machine.device)
    return Decision(dict(size), because, source)


def _training(
    fingerprint: Fingerprint,
    task: Task,
    machine: Machine,
    device: Decision,
    patch: Sequence[int],
    *,
    minutes: float | None,
    seed: int,
    dense: bool,
) -> dict[str, Decision]:
    batch = 4 if dense else int(np.clip(len(fingerprint) // 16, 8, 64))
    return {
        "minutes": Decision(minutes, "asked for" if minutes is not None else "the steps decide"),
        "steps": Decision(None, "a probe turns the minutes into steps when training starts"),
        "batch": Decision(batch, f"{len(fingerprint)} training cases; {'patches' if dense else 'images'} a step"),
        "patch": Decision(
            list(patch),
            "holds the median image, or as much of it as the device goes through quickly"
            if dense
            else "the whole image",
            NNUNET if dense else "",
        ),
        "learning_rate": Decision(4e-3 if dense else 2e-3, "AdamW with warm-up and cosine", "arXiv:1711.05101"),
        "weight_decay": Decision(1e-2 if dense else 5e-2, "AdamW", "arXiv:1711.05101"),
        "warmup": Decision(0.05, "share of the steps over which the rate rises"),
        "ema": Decision(0.05, "the averaged weights look back over about this share of the steps", "arXiv:1803.05407"),
        "clip": Decision(1.0, "longest gradient: one odd batch cannot throw the weights far", "arXiv:1211.5063"),
        "precision": Decision(
            "bf16" if machine.bf16 else "float32",
            f"the {machine.device} {'computes' if machine.bf16 else 'does not compute'} in bfloat16 itself",
        ),
        "validations": Decision(10, "looks at the validation cases, evenly over the steps; fewer where they take long"),
        "foreground": Decision(
            0.33 if dense else 0.0, "share of patches centred on a structure", NNUNET if dense else ""
        ),
        "seed": Decision(seed, "every random draw follows from it"),
        "deterministic": Decision(False, "not asked for"),
        "device": device,
        "threads": Decision(machine.threads, "the cores that this process may use"),
        "optimiser": Decision("adamw", "little depends on its rate in a short training", "arXiv:1711.05101"),
        "schedule": Decision("cosine", "falls to zero with the last step", "arXiv:1608.03983"),
        "early_stop": Decision(None, "the steps are made for the time, and the rate falls to zero with the last"),
        "sampling": Decision("natural", "each case as often as any other"),
    }


def _augmentation(ndim: int) -> dict[str, Decision]:
    chosen = Augmentation(rotation=15.0, scale=0.15, shift=0.05, elastic=0.0)
    reasons = {
        "rotation": "degrees; patients lie a little differently",
        "scale": "people differ in size",
        "shift": "share of the patch",
        "elastic": "off until it has been shown to help",
        "flips": "no axis: left and right may matter, and nothing says that they do not",
        "probability": "of each change",
        "contrast": "scanners differ",
        "brightness": "scanners differ",
        "gamma": "scanners differ",
        "noise": "standard deviations of the image",
    }
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(chosen).items()}
    return {
        key: Decision(value, reasons.get(key, "off"), NNUNET if key in ("rotation", "gamma", "noise") else "")
        for key, value in plain.items()
    }
