"""A plan with reasons, made from facts of the data, the machine and what a person asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from isocenter.errors import ResourceError
from isocenter.planning.changes import with_memory, without_cascade
from isocenter.planning.fit_to_memory import Fitted, fitted, memory_decision
from isocenter.planning.inputs import PlanInputs, Wishes
from isocenter.planning.memory import Machine
from isocenter.planning.rules.anatomy import anatomy, left_right, names_of, sided_by_place
from isocenter.planning.rules.augmentation import augmentation, flips_at_test
from isocenter.planning.rules.cascade import cascade_decision
from isocenter.planning.rules.covariates import image_only, sided_covariate
from isocenter.planning.rules.grid import window_for
from isocenter.planning.rules.groups import groups_decision
from isocenter.planning.rules.learning import batch_decision, training, unsearched
from isocenter.planning.rules.modalities import absent_decision, with_presence
from isocenter.planning.rules.objectives import TERMS, objectives_sections
from isocenter.planning.rules.preprocessing import Retest, preprocessing
from isocenter.planning.rules.profiles import NNUNET, profile_for
from isocenter.planning.rules.skipping import skip_decision
from isocenter.tasks import Task
from isocenter.values import Dataset, Decision, Fingerprint, Plan

# What another training.seed changes too, unless somebody wants runs of several seeds on the same parts.
DRAWN_BY = "training.seed also draws the split, so another seed gives another split"
# Decisions of a task on which memory decides too.
LEFT_TO_MEMORY = ("network.name", "training.batch")

Section = Mapping[str, Decision]


def make_plan(
    dataset: Dataset,
    fingerprint: Fingerprint,
    split: Decision,
    machine: Machine,
    wishes: Wishes,
    retest: Retest | None = None,
) -> Plan:
    """Return a plan for these training cases.

    fingerprint: of the training cases alone: nothing of validation or test enters a plan
    retest:      finds what tells the classes apart without the disease after some preprocessing; None if nothing does
    Raises DatasetError where no task fits the references or they teach nothing, PlanError for an unknown network,
    ResourceError where nothing fits into memory.
    """
    inputs = PlanInputs.of(dataset, fingerprint, machine, wishes)
    fits = fitted(inputs)
    cascade = cascade_decision(inputs.task, fits.grid, machine, wishes)
    prepared = _preprocessing(inputs, fits, cascade, retest)
    side = left_right(fingerprint, prepared["ndim"].value)
    varied = _augmentation(inputs, fits, prepared, cascade, side)
    sections = {
        "task": inputs.settings,
        "split": _split(split, wishes),
        "preprocessing": prepared,
        "network": _network(inputs, fits),
        "training": _training(inputs, fits),
        "augmentation": varied,
        "inference": _inference(inputs, fits, varied["flips"], side, prepared),
        "evaluation": {
            "image_only": image_only(inputs.context, cascade["preprocessing.cascade"].value),
            "groups": groups_decision(dataset, {one.id for one in fingerprint.cases}),
            "margin": Decision(None, "no margin of non-inferiority was stated"),
        },
        "search": unsearched(),
        "guard": _guard(),
        **objectives_sections(inputs.dataset, fingerprint, inputs.stated.get(TERMS)),
    }
    plan = Plan(_decided(sections, inputs.stated))
    if plan["preprocessing.cascade"] is None:
        return plan
    try:  # its second network takes more channels than was reckoned with, its first one a patch of its own
        return with_memory(plan, fingerprint, machine)
    except ResourceError as error:
        return without_cascade(plan, f"a cascade does not fit into memory: {error.problem}")


def _split(method: Decision, wishes: Wishes) -> Section:
    because = "asked for" if wishes.folds else "no folds were asked for: there is a single test part"
    return {
        "method": method,
        "folds": Decision(wishes.folds, because),
        "seed": Decision(None, DRAWN_BY),
        "inner_folds": Decision(0, "it is decided once the whole plan is known"),
        "inner_share": Decision(0.5, "all inner folds together get as much time as the main network"),
        "calibration": Decision(0, "it is decided with the split"),
    }


def _preprocessing(inputs: PlanInputs, fits: Fitted, cascade: Section, retest: Retest | None) -> Section:
    absent = absent_decision(inputs.holes)
    decisions = preprocessing(inputs.dataset, inputs.fingerprint, inputs.task, fits.grid, inputs.frames, retest, absent)
    return {**decisions, "cascade": cascade["preprocessing.cascade"]}


def _augmentation(inputs: PlanInputs, fits: Fitted, prepared: Section, cascade: Section, side: Decision) -> Section:
    profile = profile_for(prepared["modality"].value, prepared["ndim"].value)
    drawn = inputs.task.labels if "mask" in inputs.task.needs else ()
    placed = sided_by_place(inputs.fingerprint, drawn)
    shown = replace(anatomy(names_of(inputs.dataset, inputs.task.labels)), placed=placed)
    covariate = sided_covariate(inputs.context.value)
    decisions = augmentation(profile, shown, side, inputs.task, fits.grid.patch, covariate)
    return {**decisions, "marks": cascade["augmentation.marks"]}


def _network(inputs: PlanInputs, fits: Fitted) -> Section:
    return {
        "name": fits.network,
        "size": fits.size,
        "pretrained": Decision(None, "no pretrained weights were asked for"),
        "inflation": Decision(
            "mean", "a volume of equal slices then gives the same response as one slice", "arXiv:1705.07750"
        ),
        "context": with_presence(inputs.context, fits.context, inputs.holes, fits.network.value),
        **fits.fusion,
    }


def _training(inputs: PlanInputs, fits: Fitted) -> Section:
    fingerprint, machine = inputs.fingerprint, inputs.machine
    batch = batch_decision(fits.batch, fits.usual, fingerprint, fits.grid, machine)
    if fits.batch == inputs.batch:
        batch = inputs.stated["training.batch"]
    memory, family = memory_decision(fits.peak, machine), fits.network.value
    return training(fingerprint, fits.grid, machine, inputs.wishes, family, batch, memory, inputs.dropout)


def _inference(inputs: PlanInputs, fits: Fitted, flips: Decision, side: Decision, prepared: Section) -> Section:
    modality, ndim = prepared["modality"].value, prepared["ndim"].value
    return {
        "patch": window_for(fits.grid, fits.size.value),
        "overlap": Decision(0.5, "each voxel is then seen by at least two windows per axis", NNUNET),
        "batch": _window_batch(inputs.machine),
        "flips": flips_at_test(flips),
        "left_right": side,
        "uncertainty": _uncertainty(inputs.task),
        "draws": Decision(16, "16 draws estimate the spread to within a fifth"),
        "skip": skip_decision(inputs.fingerprint, inputs.task, modality, ndim),
    }


def _uncertainty(task: Task) -> Decision:
    if any(head.is_dense for head in task.heads.values()):
        because = (
            "members are compared where there are several, which took 1.03 times the processor seconds; draws of the "
            "last layer took 1.44 times for a label map, and are made only where somebody asks"
        )
        return Decision("auto", because)
    return Decision("auto", "members are compared, or draws of the last layer, which need no further forward pass")


def _guard() -> Section:
    because = "at most one in a hundred images like the training images is refused wrongly"
    return {
        "gate": Decision(True, "an image unlike the training images gets no answer instead of a wrong one"),
        "level": Decision(0.01, because, "arXiv:2308.03723"),
        "error": Decision(None, "no limit on wrong answers was asked for: the model answers however unsure it is"),
        "delta": Decision(0.1, "the limit on errors may fail for one calibration set in ten", "arXiv:2110.01052"),
    }


def _window_batch(machine: Machine) -> Decision:
    if machine.is_processor:
        return Decision(1, "a CPU gains nothing from larger batches, and memory stays small")
    return Decision(4, f"the {machine.device} computes several at a time as quickly as one")


def _decided(sections: Mapping[str, Section], decisions: Section) -> Mapping[str, Section]:
    """The sections with the task's own decisions in place of the usual ones."""
    decided = {name: dict(section) for name, section in sections.items()}
    for name, decision in decisions.items():
        section, _, key = name.partition(".")
        if name not in LEFT_TO_MEMORY:
            decided[section][key] = decision
    return decided
