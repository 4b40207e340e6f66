"""A plan with reasons, made from facts of the data, the machine and what a person asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hilum.errors import ResourceError
from hilum.planning import _fit_to_memory, plan_changes
from hilum.planning._fit_to_memory import FittedPlan
from hilum.planning.plan_inputs import PlanInputs, Wishes
from hilum.planning.rules import (
    anatomy_rules,
    augmentation_rules,
    cascade_rules,
    covariate_rules,
    grid_rules,
    group_rules,
    image_profiles,
    learning_rules,
    modality_rules,
    objective_rules,
    painting_rules,
    preprocessing_rules,
    skipping,
)
from hilum.planning.rules.image_profiles import NNUNET
from hilum.planning.rules.objective_rules import TERMS
from hilum.planning.rules.preprocessing_rules import ShortcutRetest
from hilum.planning.training_memory import Machine
from hilum.tasks import Task
from hilum.values import Dataset, Decision, Fingerprint, Plan

# What another training.seed changes too, unless somebody wants runs of several seeds on the same parts.
SAMPLED_BY = "training.seed also chooses the split, so another seed gives another split"
# Decisions of a task on which memory decides too.
LEFT_TO_MEMORY = ("network.name", "training.batch")

Section = Mapping[str, Decision]


def make_plan(
    dataset: Dataset,
    fingerprint: Fingerprint,
    split: Decision,
    machine: Machine,
    wishes: Wishes,
    retest: ShortcutRetest | None = None,
) -> Plan:
    """Return a plan for these training cases.

    fingerprint: of the training cases alone: nothing of validation or test enters a plan
    retest:      finds what tells the classes apart without the disease after some preprocessing; None if nothing does
    Raises DatasetError where no task fits the references or they teach nothing, PlanError for an unknown network,
    ResourceError where nothing fits into memory.
    """
    inputs = PlanInputs.from_dataset(dataset, fingerprint, machine, wishes)
    fits = _fit_to_memory.fit_grid(inputs)
    cascade = cascade_rules.cascade_decision(inputs.task, fits.grid, machine, wishes)
    prepared = _preprocessing(inputs, fits, cascade, retest)
    side = anatomy_rules.left_right_axis(fingerprint, prepared["ndim"].value)
    varied = _augmentation(inputs, fits, prepared, cascade, side)
    is_cascade = cascade["preprocessing.cascade"].value is not None
    of_target = objective_rules.target_decisions(
        inputs.task, str(fits.network.value), wishes.target, is_cascade=is_cascade
    )
    stated = {**of_target, **inputs.stated}
    sections = {
        "task": inputs.settings,
        "split": _split_section(split, wishes),
        "preprocessing": prepared,
        **grid_rules.tile_sections(fingerprint, fits.grid),
        "network": _network(inputs, fits),
        "training": _training(inputs, fits),
        "augmentation": varied,
        "inference": _inference(inputs, fits, varied, side, prepared),
        "evaluation": {
            "image_only": covariate_rules.image_only_decision(inputs.context, cascade["preprocessing.cascade"].value),
            "groups": group_rules.groups_decision(dataset, {one.id for one in fingerprint.cases}),
            "margin": Decision(None, "no margin of non-inferiority was stated"),
        },
        "search": learning_rules.no_search(),
        "guard": _guard(),
        **objective_rules.objectives_sections(inputs.dataset, fingerprint, stated.get(TERMS)),
    }
    plan = Plan(_decide(sections, stated))
    if dataset.painted:
        plan = plan_changes.of_painted_images(plan, dataset.painted)
    if of_target:
        try:  # a step keeps the way of unlabelled images through the network too
            plan_changes.with_predicted_memory(plan, fingerprint, machine)
        except ResourceError as error:
            plan = objective_rules.without_teacher(plan, error.problem)
    if plan["preprocessing.cascade"] is None and not plan["preprocessing.prompts"]:
        return plan
    try:  # the network takes more channels than was reckoned with, the first of a cascade a patch of its own
        return plan_changes.with_predicted_memory(plan, fingerprint, machine)
    except ResourceError as error:
        return plan_changes.without_cascade(plan, f"a cascade does not fit into memory: {error.problem}")


def _split_section(method: Decision, wishes: Wishes) -> Section:
    because = "asked for" if wishes.folds else "no folds were asked for: there is a single test part"
    return {
        "method": method,
        "folds": Decision(wishes.folds, because),
        "folds_by": Decision(None, "no column was asked for: patients are dealt to folds"),
        "seed": Decision(None, SAMPLED_BY),
        "inner_folds": Decision(0, "it is decided once the whole plan is known"),
        "inner_share": Decision(0.5, "all inner folds together get as much time as the main network"),
        "calibration": Decision(0, "it is decided with the split"),
        "warned": Decision("train", "nobody left out cases that a warning names"),
    }


def _preprocessing(inputs: PlanInputs, fits: FittedPlan, cascade: Section, retest: ShortcutRetest | None) -> Section:
    absent = modality_rules.absent_decision(inputs.holes)
    decisions = preprocessing_rules.preprocessing_decisions(
        inputs.dataset, inputs.fingerprint, inputs.task, fits.grid, inputs.frames, retest, absent
    )
    decisions["aspect"] = modality_rules.aspect_decision(decisions["aspect"], inputs.holes)
    return {**decisions, "cascade": cascade["preprocessing.cascade"], "prompts": Decision(0, "nobody points")}


def _augmentation(inputs: PlanInputs, fits: FittedPlan, prepared: Section, cascade: Section, side: Decision) -> Section:
    profile = image_profiles.profile_for(prepared["modality"].value, prepared["ndim"].value)
    contoured = inputs.task.labels if "mask" in inputs.task.needs else ()
    placed = anatomy_rules.sided_by_place(inputs.fingerprint, contoured)
    shown = replace(
        anatomy_rules.suggest_anatomy(anatomy_rules.anatomy_hints(inputs.dataset, inputs.task.labels)), placed=placed
    )
    covariate = covariate_rules.sided_covariate(inputs.context.value)
    decisions = augmentation_rules.augmentation_decisions(
        profile, shown, side, inputs.task, fits.grid.picture, covariate
    )
    decisions = decisions if fits.grid.tiles is None else augmentation_rules.of_tiles(decisions)
    return {**decisions, "marks": cascade["augmentation.marks"], "painting": painting_rules.painted_share("")}


def _network(inputs: PlanInputs, fits: FittedPlan) -> Section:
    return {
        "name": fits.network,
        "size": fits.size,
        "pretrained": Decision(None, "no pretrained weights were asked for"),
        "inflation": Decision(
            "mean", "a volume of equal slices then gives the same response as one slice", "arXiv:1705.07750"
        ),
        "dropout": Decision(0.0, "no more dropout was asked for than the family's settings have"),
        "context": modality_rules.with_presence(inputs.context, fits.context, inputs.holes, fits.network.value),
        **fits.fusion,
    }


def _training(inputs: PlanInputs, fits: FittedPlan) -> Section:
    fingerprint = inputs.fingerprint
    machine = inputs.machine
    batch = learning_rules.batch_decision(fits.batch, fits.usual, fingerprint, fits.grid, machine)
    if fits.batch == inputs.batch:
        batch = inputs.stated["training.batch"]
    memory = _fit_to_memory.memory_decision(fits.peak, machine)
    family = fits.network.value
    return learning_rules.training_decisions(
        fingerprint, fits.grid, machine, inputs.wishes, family, batch, memory, inputs.dropout
    )


def _inference(inputs: PlanInputs, fits: FittedPlan, varied: Section, side: Decision, prepared: Section) -> Section:
    modality = prepared["modality"].value
    ndim = prepared["ndim"].value
    return {
        "patch": grid_rules.training_window(fits.grid, fits.size.value),
        "overlap": Decision(0.5, "each voxel is then seen by at least two windows per axis", NNUNET),
        "batch": _window_batch(inputs.machine),
        "flips": augmentation_rules.flips_at_test(varied["flips"], fits.grid.tiles),
        "left_right": side,
        "uncertainty": _uncertainty(inputs.task),
        "draws": Decision(16, "16 draws estimate the spread to within a fifth"),
        "skip": skipping.skip_decision(inputs.fingerprint, inputs.task, modality, ndim),
        "views": Decision(0, "each turned view takes a further pass; of three sets one gained by four, one lost"),
        "turn": Decision(varied["rotation"].value, "training turns as far", varied["rotation"].source),
        "gamma": Decision(varied["gamma"].value, "training changes greys as much", varied["gamma"].source),
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


def _decide(sections: Mapping[str, Section], decisions: Section) -> Mapping[str, Section]:
    """The sections with the task's own decisions in place of the usual ones."""
    decided = {name: dict(section) for name, section in sections.items()}
    for name, decision in decisions.items():
        section, _, key = name.partition(".")
        if name not in LEFT_TO_MEMORY:
            decided[section][key] = decision
    return decided
