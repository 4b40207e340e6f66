"""Rules of learning: first weights, trials, batch, rate, schedule, average of weights, number of validations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hilum.errors import PlanError
from hilum.lazy import torch
from hilum.networks import factory, network_parts
from hilum.objectives import objective_catalogue, objective_terms
from hilum.planning import training_memory
from hilum.planning.plan_inputs import Wishes
from hilum.planning.plan_sections import LEAST_BATCH, PlanSettings
from hilum.planning.rules import grid_rules, split_rules
from hilum.planning.rules.grid_rules import Grid
from hilum.planning.rules.image_profiles import NNUNET
from hilum.planning.training_memory import PROCESSOR, Machine
from hilum.runtime import torch_networks
from hilum.values import Decision, Fingerprint, Plan

ADAMW = "arXiv:1711.05101"
# From so many minutes on the validation cases are looked at oftener, and a training may end before its time.
LONG = 120.0
VERY_LONG = 480.0
# What follows where a person takes SGD with Nesterov's momentum, as nnU-Net trains.
WITH_SGD = {"training.learning_rate": 1e-2, "training.weight_decay": 3e-5, "training.schedule": "poly"}


# Voxels of whole volumes, or of whole images with an output for each voxel, that a processor takes in a step. Of
# AdrenalMNIST3D (28 voxels a side) 7 minutes left time for 90 steps of 64 volumes: AUROC was 0.87 and accuracy 0.74
# with an SD over seeds of 0.10, the mark of a short training.
# But not fewer of them than normalisation over a batch needs.
STEP_VOXELS = 2**19
# Single objects of the median training picture from which on a patch of it is a batch in itself, which on a processor
# leaves time for four times as many steps (bench/findings/kinds.md, nuclei one by one).
MANY_OBJECTS = 10
# Whole volumes with an output for each voxel that a processor takes in a step: each teaches as much as several patches.
# Two pairs of 149,760 voxels took .7 s a step on one core (bench/findings/registration.md); VoxelMorph takes one.
DENSE_VOLUMES = 2
# Slides a step, each a bag of tiles.
BAGS = 4


def usual_batch(fingerprint: Fingerprint, grid: Grid, device: str, frames: int = 1, family: str | None = None) -> int:
    """Patches or images a step, before memory is asked; on a processor fewer volumes, clips and pictures of many
    objects, for more steps.

    family: of the network, where one is asked for: it may normalise over a batch
    """
    if grid.tiles is not None:
        return BAGS
    if not grid.whole:
        crowded = len(grid.patch) == 2 and fingerprint.crowd >= MANY_OBJECTS
        return 1 if crowded and family is None and training_memory.device_kind(device) == PROCESSOR else 4
    if grid.dense and len(grid.patch) == 3 and family is None and training_memory.device_kind(device) == PROCESSOR:
        return DENSE_VOLUMES
    batch = batch_by_cases(fingerprint)
    heavy = (len(grid.patch) == 3 or grid.dense or frames > 1) and training_memory.device_kind(device) == PROCESSOR
    while heavy and batch > LEAST_BATCH and batch * grid.voxels * frames > STEP_VOXELS:
        batch = 2 ** (math.ceil(math.log2(batch)) - 1)  # several processes share it evenly
    return batch


def batch_by_cases(fingerprint: Fingerprint) -> int:
    """Images a step: a sixteenth of the training cases, 8 to 64."""
    return int(np.clip(len(fingerprint) // 16, LEAST_BATCH, 64))


def training_decisions(
    fingerprint: Fingerprint,
    grid: Grid,
    machine: Machine,
    wishes: Wishes,
    family: str,
    batch: Decision,
    memory: Decision,
    modality_dropout: Decision,
) -> dict[str, Decision]:
    """The section "training"; what the task decides comes on top."""
    dense = not grid.whole
    minutes = wishes.minutes
    minutes_each = None if minutes is None else minutes / max(1, wishes.folds)
    return {
        "minutes": Decision(minutes, "asked for") if minutes else Decision(None, "the number of steps decides"),
        "steps": Decision(None, "a probe turns the minutes into steps when training starts"),
        "epochs": _epochs(every_voxel=dense or grid.dense),
        "networks": Decision(1, "one network gets all the minutes"),
        "batch": batch,
        "patch": _patch(grid, machine, len(fingerprint)),
        "learning_rate": _rate(dense, family),
        "weight_decay": Decision(1e-2 if dense else 5e-2, "AdamW decouples it from the gradient", ADAMW),
        "warmup": Decision(0.05, "the first gradients of fresh weights are large", "arXiv:1706.02677"),
        "ema": Decision(0.05, "the mean of late weights generalises better than the last", "arXiv:1803.05407"),
        "clip": Decision(1.0, "one unusual batch then cannot move the weights far", "arXiv:1211.5063"),
        "precision": Decision(
            "bf16" if machine.bf16 else "float32",
            f"the {machine.device} {'computes' if machine.bf16 else 'does not compute'} in bfloat16 itself",
        ),
        "validations": _validations(minutes_each),
        "foreground": _foreground(dense),
        "seed": Decision(wishes.seed, "every random draw follows from it"),
        "deterministic": Decision(False, "it is slower, and was not asked for"),
        "device": wishes.device,
        "threads": Decision(machine.threads, "this process may use this number of cores"),
        "optimiser": Decision(
            "adamw", "in so short a training the result should depend little on the learning rate", ADAMW
        ),
        "schedule": Decision("cosine", "it falls to zero with the last step", "arXiv:1608.03983"),
        "early_stop": _early_stop(minutes_each),
        "sampling": Decision("natural", "each case is sampled as often as any other"),
        "fairness": Decision("none", "no group was named (--set training.protected=sex)"),
        "protected": Decision(None, "no group was named"),
        "modality_dropout": modality_dropout,
        "memory": memory,
        "compute": Decision(None, "a probe finds what is fastest on this machine when training starts"),
    }


def batch_decision(chosen: int, usual: int, fingerprint: Fingerprint, grid: Grid, machine: Machine) -> Decision:
    """Reason of the batch that fits into memory, of which the usual one is an upper limit."""
    dense = not grid.whole
    what = "patches" if dense else "images"
    if dense and not machine.is_processor and grid.voxels > grid_rules.usual_voxels(grid, machine.device):
        because = f"the patch is so large that two of them fill {machine.device_memory:.1f} GiB of the {machine.device}"
        return Decision(chosen, f"{because}, or as the median image is; then as many as fit", NNUNET)
    if dense and chosen > usual:
        because = f"{machine.device_memory:.1f} GiB of the {machine.device} hold a batch of this size"
        return Decision(chosen, f"{because}, and they are at most a twentieth of all training voxels", NNUNET)
    if chosen < usual:
        free = f"{machine.device_memory:.1f} GiB are free on the {machine.device}"
        return Decision(chosen, f"{free}, too little for {usual} {what} a step")
    if dense and usual == 1:
        because = f"the median training case has {fingerprint.crowd:g} objects, so that a patch is a batch in itself"
        return Decision(chosen, f"{because}, and one a step leaves time for more steps")
    if dense:
        return Decision(chosen, f"few {what} a step leave time for many steps", NNUNET)
    if grid.tiles is not None:
        return Decision(chosen, "the tiles of one slide are alike: several slides teach a step", grid_rules.ILSE)
    if grid.dense and usual == DENSE_VOLUMES:
        return Decision(chosen, "each volume teaches at every voxel, and few a step leave time for many steps")
    because = f"there are {len(fingerprint)} training cases: a sixteenth of them a step, 8 to 64"
    if chosen < (usual_size := batch_by_cases(fingerprint)):
        because += (
            f", which would be {usual_size}; but {'volumes' if len(grid.patch) == 3 else 'images'} have {grid.voxels} "
            f"voxels, and a {machine.device} takes at most {STEP_VOXELS} of them a step, or else {LEAST_BATCH} images, "
            "so that there is time for more steps"
        )
    return Decision(chosen, because)


def _patch(grid: Grid, machine: Machine, cases: int) -> Decision:
    if grid.whole:
        return Decision(list(grid.patch), "the network sees the whole image")
    median = tuple(int(n) for n in np.median(grid.extent, axis=0).round())
    fits = all(size >= whole for size, whole in zip(grid.patch, median, strict=True))
    cropped = " once they are cropped to their content" if grid.cropped else ""
    because = f"the median of {cases} training cases is {median} voxels on that grid{cropped}"
    if not fits:
        because += f", and {grid.voxels} are what the {machine.device} processes quickly and has memory for"
    return Decision(list(grid.patch), because, NNUNET)


def _epochs(*, every_voxel: bool) -> Decision:
    """No limit; kinds of problem for which one was measured decide it themselves."""
    if every_voxel:
        return Decision(None, "in our measurements more epochs did not harm results for every voxel")
    return Decision(None, "no number of epochs was measured for this kind of problem")


def _rate(dense: bool, family: str) -> Decision:
    """The rate of short trials, on one set for each kind; there is no paper behind it."""
    usual = 4e-3 if dense else 2e-3
    times, why = factory.learning_rate_factor(family, "dense" if dense else "vector")
    if times != 1:
        return Decision(usual * times, f"{times:g} of the usual {usual:g}, because {family} {why}")
    return Decision(usual, "AdamW with warm-up and cosine learns fast with it, and the gradients' norm is clipped")


def _foreground(dense: bool) -> Decision:
    if not dense:
        return Decision(0.0, "the network sees each image as a whole")
    return Decision(0.33, "patches sampled anywhere mostly show background", NNUNET)


def _validations(minutes: float | None) -> Decision:
    if minutes is None or minutes < LONG:
        return Decision(10, "each validation takes time from training; fewer where validations are slow")
    return Decision(20 if minutes < VERY_LONG else 40, f"{minutes:g} minutes leave time for more than 10 validations")


def _early_stop(minutes: float | None) -> Decision:
    if minutes is None or minutes < VERY_LONG:
        return Decision(None, "the rate falls to zero with the last step, and the best weights mostly come late")
    return Decision(20, f"of {minutes:g} minutes half may pass without improvement, no more")


def check_learning(settings: PlanSettings) -> None:
    """PlanError for a training without an end, and for networks and sampling that other decisions rule out."""
    training = settings.training
    if training.steps is None and (training.minutes is None or training.deterministic):
        raise endless_training_error(
            "no number of steps, which two equal runs need" if training.deterministic else "neither minutes nor steps"
        )
    split_rules.check_folds(settings.split)
    if (training.networks or 1) > 1 and (settings.split.folds or settings.preprocessing.cascade is not None):
        many = "--folds" if settings.split.folds else "preprocessing.cascade"
        problem = f"{many} makes a model of several networks already"
        raise PlanError(problem, "training.networks", f"Give 1, or leave out {many}")
    vectors = all(head.is_vector or (head.conditions or (0,))[0] for head in settings.task.heads.values())
    if training.sampling not in ("natural", "by_loss") and not vectors:
        problem = "only whole images are sampled class by class"
        raise PlanError(problem, "training.sampling", "Give natural, and training.foreground for rare structures")


def endless_training_error(problem: str) -> PlanError:
    """The error of a training whose number of steps is open."""
    return PlanError(problem, "training.steps", "Give it, as in --set training.steps=1000")


def no_search() -> dict[str, Decision]:
    """The section "search" where nobody asked for one."""
    return {
        "minutes": Decision(None, "no search was asked for"),
        "trials": Decision(None, "as many as the minutes of a search allow"),
        "configurations": Decision(None, "no comparison of slices with volumes was asked for"),
        "steps": Decision(None, "trials get equal times, or equal shares of the steps where those are set"),
    }


def check_search(settings: PlanSettings) -> None:
    """A search has a length, ends before the run does, and has something to train with that is searched for."""
    search = settings.search
    training = settings.training
    if not search.is_on:
        return
    if training.deterministic and search.trials is None:
        raise endless_search_error()
    if search.minutes is None and search.steps is None and training.steps is None:
        problem = "neither minutes of a search, nor steps of its trials"
        raise PlanError(problem, "search.steps", "Give --tune MINUTES, or the steps of each trial")
    if training.steps is None and training.minutes is not None and (search.minutes or 0.0) >= training.minutes:
        problem = f"{search.minutes:g} of {training.minutes:g} minutes leave none to train with what was found"
        raise PlanError(problem, "search.minutes", "Give fewer to --tune, or more to --minutes")
    if settings.preprocessing.cascade is not None:
        problem = "each trial would be a cascade of its own, of three trainings"
        raise PlanError(problem, "search.minutes", "Give --set preprocessing.cascade=none, or leave out --tune")


def endless_search_error() -> PlanError:
    """The error of a search whose number of trials is open."""
    problem = "no number of trials, which two equal searches need"
    return PlanError(problem, "search.trials", "Give it, as in --set search.trials=20")


SECTION = "transfer"
# How the reason of a decision begins that was taken from a source; it stays where others would follow the data anew.
TAKEN = "as in the source of the weights, "
# By bench/findings/few-labels.md: what a training gains that starts from other weights.
MEASURED = "bench/findings/few-labels.md"
DECISIONS = {
    "mode": Decision(
        "full",
        "all weights are trained: elsewhere that gave more than the head alone",
        f"{MEASURED}: AUROC .890, .943 and .958 with 20, 100 and 1,500 labelled pictures, the head alone .864, .915 "
        "and .927; head_first and lora were not measured",
    ),
    "frozen": Decision(0.0, "no level of the encoder was asked to stand still"),
    "layer_decay": Decision(
        1.0, "all levels of the encoder learn at one rate", f"{MEASURED}: with 0.8 and l2_sp, volumes lost .03 of Dice"
    ),
    "head_share": Decision(
        0.25,
        "a head that has learnt nothing would change features that are sound; in these steps only the head learns",
        "arXiv:2202.10054",
    ),
    "rank": Decision(8, "differences of low rank have few numbers to learn", "arXiv:2106.09685"),
    "minimum": Decision(0.5, "of a source that lacks more than half of the encoder little would be used"),
}


def with_transfer(plan: Plan) -> Plan:
    """The plan with the section on a start from other weights; a section that is there stays."""
    missing = {f"{SECTION}.{name}": decision for name, decision in DECISIONS.items()}
    return plan.with_decisions({name: decision for name, decision in missing.items() if name not in plan})


def check_transfer(settings: PlanSettings) -> None:
    """PlanError for weights that would both stand still and be pulled to their start."""
    if settings.transfer.mode == "lora" and objective_catalogue.joint_needs(settings.terms.values()).start:
        problem = "an objective pulls weights towards their start, where those of the source stand still"
        raise PlanError(problem, "transfer.mode", "Give full, or leave the objective out")
    if settings.transfer.mode == "prototypes":
        _check_prototypes(settings)


def _check_prototypes(settings: PlanSettings) -> None:
    """PlanError where no single linear layer states one class of several, for the image or for each voxel."""
    family = factory.family_of(settings.network.name)
    [(head, kind), *others] = settings.task.heads.items()
    with torch.device("meta"):
        network = torch_networks.build_module(settings.task, settings.architecture)
    layer: Any = network_parts.last_layers(network, family.features).get(head) if family.features else None
    weight, bias = (getattr(layer, name, None) for name in ("weight", "bias"))
    is_linear = weight is not None and bias is not None and weight[0].numel() == weight.shape[1]
    if others or not is_linear or not objective_terms.is_exclusive(settings.task, kind):
        problem = f"{settings.task.name} by {settings.network.name} has no linear last layer for one class of several"
        raise PlanError(problem, "transfer.mode", "Give linear_probe, or a resnet or unet for classes or structures")
