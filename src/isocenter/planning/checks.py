"""Checks that a plan's sections go together: each may be possible by itself, and impossible with the others."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from isocenter import networks
from isocenter.errors import PlanError
from isocenter.lazy import torch
from isocenter.objectives import SUPERVISED, needs_of, objective_kind, objective_names
from isocenter.planning.rules.cascade import (
    CASCADE,
    MINUTES_A_TRAINING,
    TRAININGS,
    compared_configurations,
    least_minutes,
)
from isocenter.planning.sections import DRAWN_BY_GROUPS, Settings, Splitting, Training
from isocenter.planning.typed import check_value, typed
from isocenter.runtime import Context, build_module, choose_device
from isocenter.tasks import leaves, marks_labels
from isocenter.transforms import check_flips
from isocenter.values import BY_HAND, Plan, Vector

# What follows from the data and the rest of the plan, and what a person changes instead.
FOLLOWS = {
    "split.method": "Give another training.seed, split.seed or split.folds",
    "training.memory": "Give another training.patch, training.batch or network.size",
}
# Networks that were led over their patches, by all that decides the outcome: a run asks several times for the same.
KNOWN_TO_FIT: set[str] = set()


def settings(plan: Plan) -> Settings:
    """The plan as typed values, every section checked; PlanError names the decision that cannot be."""
    made = typed(plan)
    _check_names(plan, made)
    _check_patches(made)
    _check_shape(made)
    _check_clips(made)
    _check_cascade(made)
    _check_axes(made)
    _check_learning(made)
    _check_search(made)
    _check_configurations(made)
    _check_prior(plan, made)
    _check_transfer(made)
    _check_objectives(made)
    _check_network(made)
    return made


def check_wishes(assignments: Mapping[str, Any], *, folds: int = 0, device: str = "auto") -> None:
    """Refuse wishes that cannot be followed, before the data are read; `settings` checks all the rest.

    assignments: {"section.name": value} set by hand
    Raises PlanError for what no plan could hold, ResourceError for a device that is not here.
    """
    _check_folds(Splitting("folds", folds))
    for name, value in assignments.items():
        check_value(name, value)
        _refuse_following(name)
    if "network.name" in assignments:
        _refuse_other("network.name", assignments["network.name"], networks.names(), "there is no network")
    for wanted in {device, str(assignments.get("training.device", device))} - {"auto", "cpu"}:
        choose_device(wanted)  # only where it may be lacking: to look takes torch
    _check_file(assignments.get("network.pretrained"))
    if assignments.get("training.deterministic"):
        if assignments.get("training.steps") is None:
            raise _endless("no number of steps, which two equal runs need")
        if assignments.get("search.minutes") is not None and assignments.get("search.trials") is None:
            raise _unending()


def _check_names(plan: Plan, made: Settings) -> None:
    _refuse_other("network.name", made.network.name, networks.names(), "there is no network")
    task = made.task
    _refuse_other("training.selection", made.training.selection, {task.selects_by}, f"{task.name} has no")
    _refuse_other("evaluation.primary", made.evaluation.primary, task.primaries, f"{task.name} has no")
    called = all(part.uncertainty in ("classes", "labels") for part in leaves(task).values())
    if made.guard.error is not None and not called:
        problem = f"an answer of {task.name} is neither right nor wrong"
        raise PlanError(problem, "guard.error", "Leave it out: it is for classes, findings and label maps")
    for name in FOLLOWS:
        if name in plan and plan.decision(name).because == BY_HAND:
            _refuse_following(name)
    source = made.network.pretrained
    if source == "auto" and networks.family_of(made.network.name).published is None:
        remedy = "Give a file: --pretrained FILE, or --set network.name=timm"
        raise PlanError(f"{made.network.name} has no published weights", "network.pretrained", remedy)
    _check_file(source)


def _check_file(source: Any) -> None:
    if source not in (None, "auto") and not Path(str(source)).is_file():
        raise PlanError(f"there is no file {source}", "network.pretrained", "Give a file of weights, or auto")


def _check_transfer(made: Settings) -> None:
    if made.transfer.mode == "lora" and needs_of(made.terms.values()).start:
        problem = "an objective draws weights towards their start, where those of the source stand still"
        raise PlanError(problem, "transfer.mode", "Give full, or leave the objective out")


def _refuse_following(name: str) -> None:
    if name in FOLLOWS:
        raise PlanError("it follows from other decisions and cannot be set", name, FOLLOWS[name])


def _check_prior(plan: Plan, made: Settings) -> None:
    """Refuse a correction of probabilities that does not fit how cases are drawn, unless somebody chose it."""
    for name, decision in made.task.under(made.training.sampling).items():
        if name in plan and plan[name] != decision.value and plan.decision(name).because != BY_HAND:
            problem = f"{plan[name]} does not go with training.sampling {made.training.sampling} and the weights"
            raise PlanError(problem, name, f"Give {decision.value}")


def _refuse_other(name: str, value: Any, known: Collection[str], problem: str) -> None:
    if value not in known:
        raise PlanError(f"{problem} {value!r}", name, f"Choose one of {', '.join(sorted(known))}")


def _check_patches(made: Settings) -> None:
    ndim = made.preprocessing.ndim
    for name, sizes in (("inference.patch", made.inference.patch), ("training.patch", made.training.patch)):
        if len(sizes) != ndim or min(sizes) < 1:
            raise PlanError(f"{sizes} in {ndim} dimensions", name, "Give one size per axis, from 1")
    smallest, patch = made.preprocessing.smallest, made.training.patch
    if smallest != patch:
        raise PlanError(
            f"{smallest} is not training.patch {patch}", "preprocessing.smallest", "Give both the same size"
        )


def _check_shape(made: Settings) -> None:
    """Refuse settings of the shape that contradict each other, or leave nothing of an image."""
    chosen = made.preprocessing
    if not 0 <= chosen.border < 0.5:
        raise PlanError(f"{chosen.border} of each side leaves nothing", "preprocessing.border", "Give 0 to below 0.5")
    if chosen.aspect != "stretch" and chosen.shape is None:
        raise PlanError(
            f"{chosen.aspect} needs a shape to come to", "preprocessing.aspect", "Give preprocessing.shape, or stretch"
        )
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
    if made.training.modality_dropout > 0 and set(chosen.absent) != set(chosen.channels):
        problem = "training would leave out images, but no case may lack one"
        remedy = "Plan again with --set training.modality_dropout=..., or give 0"
        raise PlanError(problem, "training.modality_dropout", remedy)
    if len(chosen.normalisation) != len(chosen.channels):
        problem = f"{len(chosen.normalisation)} ways for {len(chosen.channels)} channels"
        raise PlanError(problem, "preprocessing.normalisation", "Give one for each channel")


def _check_clips(made: Settings) -> None:
    """A network of clips is told of as many frames as it is given; frames at even steps need one."""
    chosen, name, where = made.preprocessing, made.network.name, "preprocessing.interval"
    takes = networks.family_of(name).takes_gaps
    if takes and chosen.frames is None:
        raise PlanError(f"{name} takes clips, and these are still images", "network.name", "Choose another")
    if takes and (stated := made.network.size.get("frames", 1)) != chosen.frames:
        problem = f"{stated} frames, where preprocessing.frames is {chosen.frames}"
        raise PlanError(problem, "network.size", "Give both the same number")
    if chosen.interval is None:
        return
    if not 0 < chosen.interval < math.inf:
        raise PlanError(
            f"frames every {chosen.interval}", where, "Give a number above 0, or none to spread them evenly"
        )
    if chosen.frames is None:
        raise PlanError("still images have no frames", where, "Give none")
    if chosen.time_unit == "frame" and chosen.interval < 1:
        raise PlanError(f"an interval of {chosen.interval:g} frames is shorter than one frame", where, "Give 1 or more")
    if not takes:
        problem = f"shorter clips lack frames, and {name} cannot handle missing frames"
        raise PlanError(problem, where, "Give none, or a network of clips such as clip_resnet")


def _check_cascade(made: Settings) -> None:
    """A network that goes before has something to show, and sees more than the one after it."""
    where, off = "preprocessing.cascade", "Give none"
    if made.preprocessing.cascade is None:
        if made.augmentation.marks:
            raise PlanError("no first network marks labels for this one", "augmentation.marks", "Give 0")
        return
    if not marks_labels(made.task):
        raise PlanError(f"a {made.task.name} gives no label map that a second network could see", where, off)
    if made.preprocessing.shape is not None or made.preprocessing.frames is not None:
        raise PlanError("the network already sees each image as a whole", where, off)
    if made.split.inner_folds:
        problem = "each inner fold would need a cascade of its own, which is not supported"
        raise PlanError(problem, where, f"{off}, or give split.inner_folds 0")


def _check_axes(made: Settings) -> None:
    """Mirroring stays within the grid, and puts no label on the wrong side, in training and in prediction."""
    mirrored, ndim = made.task.mirrored, made.preprocessing.ndim
    made.augmentation.check(mirrored, ndim)
    check_flips("inference", made.inference.flips, made.inference.left_right, mirrored=mirrored, ndim=ndim)


def _check_learning(made: Settings) -> None:
    training = made.training
    _check_duration(training)
    _check_folds(made.split)
    if (training.networks or 1) > 1 and (made.split.folds or made.preprocessing.cascade is not None):
        many = "--folds" if made.split.folds else "preprocessing.cascade"
        problem = f"{many} makes a model of several networks already"
        raise PlanError(problem, "training.networks", f"Give 1, or leave out {many}")
    vectors = all(head.is_vector for head in made.task.heads.values())
    if training.sampling not in ("natural", "by_loss") and not vectors:
        problem = "only whole images are drawn class by class"
        raise PlanError(problem, "training.sampling", "Give natural, and training.foreground for rare structures")
    _check_fairness(training, networks.family_of(made.network.name))
    if training.fairness == "reweigh" and made.task.weighs_classes:
        problem = "it adds up losses of single classes, and in this loss a class decides how much its cases count"
        remedy = (
            "Give resample, or a task.loss without weights of classes, and task.order cumulative or softmax for corn"
        )
        raise PlanError(problem, "training.fairness", remedy)
    if training.fairness == "constraint":
        _check_constraint(made)
    several = len(made.task.heads) > 1
    mixing = [name for name in ("mixup", "cutmix") if getattr(made.augmentation, name) > 0]
    if mixing and training.fairness in ("reweigh", "group_dro", "adversarial"):
        raise PlanError("an image mixed from two people belongs to no group", f"augmentation.{mixing[0]}", "Give 0")
    if mixing and (several or not vectors):
        problem = "images are mixed only where each has one answer"
        raise PlanError(problem, f"augmentation.{mixing[0]}", "Give 0")


def _check_fairness(training: Training, family: networks.Family) -> None:
    if training.fairness == "none":
        return
    if training.protected is None:
        remedy = "Give --set training.protected=sex, or another covariate"
        raise PlanError(f"{training.fairness} needs groups", "training.protected", remedy)
    attributes = [name.strip() for name in training.protected.split(",") if name.strip()]
    if len(attributes) != 1 or attributes == ["none"]:
        remedy = "Give one covariate, as in sex, age:60, or sex*site for groups by both"
        raise PlanError(f"{training.protected!r} is not one attribute", "training.protected", remedy)
    if training.fairness == "adversarial" and (not family.features or family.sees_targets):
        problem = "the adversary needs the network's features, which this family does not expose"
        raise PlanError(problem, "training.fairness", "Give group_dro, or another --set network.name, such as resnet")
    if training.fairness in DRAWN_BY_GROUPS and training.sampling != "natural":
        problem = f"cases cannot be drawn {training.sampling} and by groups at once"
        raise PlanError(problem, "training.sampling", "Give natural")


def _check_constraint(made: Settings) -> None:
    """Calls of classes or findings are right or wrong, and the layer that makes them is linear."""
    task, family = made.task, networks.family_of(made.network.name)
    where, instead = "training.fairness", "Give balanced_batches or group_dro"
    [head, *others] = task.heads.items()
    outputs = len(task.labels) if task.uncertainty in ("classes", "labels") else 0
    if others or not head[1].is_vector or head[1] != Vector(outputs):
        raise PlanError(f"a {task.name} has no classes that could be called as often in every group", where, instead)
    with torch.device("meta"):
        network = build_module(task, made.architecture)
    layer = networks.last_layers(network, family.features).get(head[0]) if family.features else None
    own = family.sees_targets or family.has_loss
    if own or not isinstance(layer, torch.nn.Linear) or layer.bias is None:
        raise PlanError(f"the last layer of {made.network.name} is not linear", where, f"{instead}, or another network")


def _check_duration(training: Training) -> None:
    if training.steps is None and (training.minutes is None or training.deterministic):
        raise _endless(
            "no number of steps, which two equal runs need" if training.deterministic else "neither minutes nor steps"
        )


def _check_objectives(made: Settings) -> None:
    """Each objective can teach this kind of problem and gets what it needs; nothing is given that none uses."""
    chosen, family, where = made.objectives, networks.family_of(made.network.name), "objectives.terms"
    needed = [one.needs for one in made.terms.values()]
    if not made.task.by_name and not any(needs.labels or needs.taught for needs in needed):
        problem = f"{', '.join(made.terms)} alone cannot teach {made.task.name}: what is learnt without references"
        remedy = f"Add {SUPERVISED}, or learn features by isocenter pretrain"
        raise PlanError(f"{problem} is no answer", where, remedy)
    for name, objective in made.terms.items():
        if why := objective.refusal(made.task):
            raise PlanError(f"{name} cannot teach {made.task.name}: {why}", where, f"Leave out {name}")
        needs, own = objective.needs, family.sees_targets or family.has_loss
        if needs.labels and made.task.by_name:
            problem = f"{name} needs references, and {made.task.name} has none"
            raise PlanError(problem, where, f"Leave out {name}")
        if made.training.batch < objective.fewest:
            problem = f"{name} compares {objective.fewest} images or more, and a batch has {made.training.batch}"
            raise PlanError(problem, "training.batch", f"Give {objective.fewest} or more")
        if needs.upright and made.augmentation.quarter_turns:
            problem = f"{name} tells quarter turns apart, and the images have no up"
            remedy = f"Leave out {name}, or give --set augmentation.quarter_turns=false where they do have one"
            raise PlanError(problem, where, remedy)
        mixed = made.augmentation.mixup + made.augmentation.cutmix > 0
        if needs.second and (mixed or made.preprocessing.cascade is not None):
            raise PlanError(f"{name} compares views of single images as they are", where, f"Leave out {name}")
        if (needs.takes_unlabelled and own) or (needs.features and (own or not family.features)):
            problem = f"{name} needs outputs or features that {made.network.name} does not give without references"
            raise PlanError(problem, where, f"Leave out {name}, or give another --set network.name")
        if needs.unlabelled and not chosen.unlabelled:
            raise PlanError(f"{name} needs unlabelled images", "objectives.unlabelled", "Give --unlabelled PATH")
        if needs.unlabelled and made.preprocessing.cascade is not None:
            problem = f"{name} sees unlabelled images, and the first network of a cascade has not marked these"
            raise PlanError(problem, where, f"Leave out {name}, or give --set preprocessing.cascade=none")
    if made.task.by_name and made.training.sampling != "natural":
        raise PlanError("cases without references cost nothing by which to draw", "training.sampling", "Give natural")
    if chosen.unlabelled and not needs_of(made.terms.values()).takes_unlabelled:
        able = [name for name in objective_names() if objective_kind(name).needs.unlabelled]
        remedy = f"Add one, as in --set objectives.terms=[{SUPERVISED},{able[0]}]"
        raise PlanError("no objective sees unlabelled images", where, remedy)
    for path in chosen.unlabelled:
        if not Path(path).exists():
            raise PlanError(f"there is no {path}", "objectives.unlabelled", "Give a folder or a table of images")


def _check_search(made: Settings) -> None:
    """A search has a length, ends before the run does, and has something to train with that is searched for."""
    search, training = made.search, made.training
    if not search.is_on:
        return
    if training.deterministic and search.trials is None:
        raise _unending()
    if search.minutes is None and search.steps is None and training.steps is None:
        problem = "neither minutes of a search, nor steps of its trials"
        raise PlanError(problem, "search.steps", "Give --tune MINUTES, or the steps of each trial")
    if training.steps is None and training.minutes is not None and (search.minutes or 0.0) >= training.minutes:
        problem = f"{search.minutes:g} of {training.minutes:g} minutes leave none to train with what was found"
        raise PlanError(problem, "search.minutes", "Give fewer to --tune, or more to --minutes")
    if made.preprocessing.cascade is not None:
        problem = "each trial would be a cascade of its own, of three trainings"
        raise PlanError(problem, "search.minutes", "Give --set preprocessing.cascade=none, or leave out --tune")


def _check_configurations(made: Settings) -> None:
    """Configurations are compared by folds, for volumes that have slices, with time for a training of each."""
    search, where, off = made.search, "search.configurations", "or leave it out"
    if search.configurations not in ("auto", "ensemble"):
        return
    if not made.split.folds:
        raise PlanError("configurations are compared on the held-out cases of folds", where, f"Add --folds 5, {off}")
    if made.preprocessing.ndim != 3 or not any(head.is_dense for head in made.task.heads.values()):
        raise PlanError(
            "slices and volumes can be compared only where every voxel of a volume gets a result", where, "Leave it out"
        )
    if search.is_on:
        problem = "a search cannot be combined with a comparison of configurations"
        raise PlanError(problem, where, f"Leave out one {off}")
    has_cascade, minutes, folds = made.preprocessing.cascade is not None, made.training.minutes, made.split.folds
    if has_cascade and search.configurations == "ensemble":
        problem = "the mean is that of slices and volumes without a first stage"
        raise PlanError(problem, where, "Give auto, or --set preprocessing.cascade=none")
    least = least_minutes(folds, cascade=has_cascade)
    if made.training.steps is None and minutes is not None and minutes < least:
        trainings = folds * sum(TRAININGS[name] for name in compared_configurations(cascade=has_cascade))
        problem = f"{minutes:g} minutes for {trainings} trainings: each takes at least {MINUTES_A_TRAINING:g}"
        if has_cascade:
            problem += f", and the {TRAININGS[CASCADE]} of a cascade share the part of one configuration"
            off = f"--set preprocessing.cascade=none, {off}"
        raise PlanError(problem, where, f"Give --minutes {least:g} or more, fewer folds, {off}")


def _unending() -> PlanError:
    problem = "no number of trials, which two equal searches need"
    return PlanError(problem, "search.trials", "Give it, as in --set search.trials=20")


def _endless(problem: str) -> PlanError:
    return PlanError(problem, "training.steps", "Give it, as in --set training.steps=1000")


def _check_folds(split: Splitting) -> None:
    for name, folds in (("folds", split.folds), ("inner_folds", split.inner_folds)):
        if folds == 1:
            raise PlanError("1 fold leaves nothing to train on", f"split.{name}", "Give 2 or more, or 0 for none")
    for name, value in (("inner_folds", split.inner_folds), ("calibration", split.calibration)):
        if split.folds and value:
            problem = "each fold tests cases that it has not seen, so further parts would decide nothing"
            raise PlanError(problem, f"split.{name}", "Give 0, or leave out --folds")


def _check_network(made: Settings) -> None:
    """Builds the network and leads it over both patches on torch's meta device: without memory or arithmetic.

    Over the patch of training it is led as it trains, a batch at a time: what normalises over a batch needs two values.
    """
    training, entries, inputs = made.training, len(Context.of(made.network.context)), made.preprocessing.inputs
    decisive = repr((made.architecture, made.task.heads, training.patch, training.batch, made.inference.patch))
    if decisive in KNOWN_TO_FIT:
        return
    with torch.device("meta"), torch.inference_mode():
        network = build_module(made.task, made.architecture)
        for where, patch, batch, learns in (
            ("training.patch", training.patch, training.batch, True),
            ("inference.patch", made.inference.patch, 1, False),
        ):
            covariates = [torch.empty(batch, entries)] if entries else []
            try:
                network.train(learns)(torch.empty(batch, inputs, *patch), *covariates)
            except (RuntimeError, ValueError) as error:  # ValueError: a normalisation of a single value
                problem = f"{patch} in batches of {batch} does not fit {made.network.name} ({error})"
                remedy = "Give sizes that its strides divide, a larger batch, or another --set network.name"
                raise PlanError(problem, where, remedy) from error
    KNOWN_TO_FIT.add(decisive)
