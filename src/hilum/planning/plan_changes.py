"""A plan changed: by hand, for a fold, for another machine; with all that follows from the change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hilum.errors import PlanError
from hilum.networks import factory
from hilum.networks.network_family import FROZEN
from hilum.objectives import objective_catalogue
from hilum.planning import _fit_to_memory, training_memory, typed_sections
from hilum.planning.plan_sections import SAMPLED_BY_GROUPS, PlanSettings
from hilum.planning.rules import (
    cascade_rules,
    covariate_rules,
    grid_rules,
    learning_rules,
    normalisation_rules,
    objective_rules,
    painting_rules,
    preprocessing_rules,
    privacy_rules,
)
from hilum.planning.rules.grid_rules import GridNeeds
from hilum.planning.rules.image_profiles import NNUNET
from hilum.planning.rules.learning_rules import TAKEN, WITH_SGD
from hilum.planning.rules.objective_rules import TERMS
from hilum.planning.training_memory import Machine
from hilum.runtime import Context
from hilum.runtime.preprocessing.slide_tiles import Tiles
from hilum.tasks import Task, properties, task_catalogue, task_settings
from hilum.values import BY_HAND, Dataset, Decision, Fingerprint, Label, Plan, StatedSettings, plan_decisions
from hilum.values.plan_decisions import Assignments

# What all folds have in common, and why that tells a fold nothing of its test cases but how large images are, and of
# pictures how wide what is contoured there is.
SHARED = (
    "preprocessing.spacing", "preprocessing.shape", "preprocessing.reduction", "preprocessing.smallest",
    "network.size", "training.patch", "inference.patch",
)  # fmt: skip
# How all folds are taught: they are one experiment, and their own cases decide no more than its numbers.
TAUGHT_ALIKE = ("task.loss", "task.centrelines", "task.positive")
SHARED_NOTE = (
    "by the training cases of fold 0, for all folds alike, because their outputs are averaged voxel by voxel: sizes "
    "and spacings of images decide it, of pictures also how wide what is contoured there is, and no intensity"
)
OUT_OF_FOLD = "each fold tests cases that it has not seen"
# With these a run goes on from the reason of a decision, about its own trainings: those of another run differ.
FOLD_BATCHES = "; for few steps the folds had batches of"
FOLD_SEARCHES = "; the folds' own searches have put other values in its place:"
FOLD_SCALES = ", in fold 0; each fold goes by its own training cases"
ENDED_EARLY = "; in this run:"
# The shape of a bag of tiles.
OF_TILES = ("preprocessing.shape", "preprocessing.smallest", "training.patch", "inference.patch")
CONTEXT = "network.context"
MODALITY = "preprocessing.modality"
# Of tiles that a model which stands still encodes once.
UNVARIED = {
    "augmentation.flips": [],
    "augmentation.quarter_turns": False,
    "augmentation.stain": 0.0,
    "augmentation.accidents": 0.0,
}
CONTEXT_NOTE = "in fold 0; each fold encodes covariates from its own training cases"


def with_settings(plan: Plan, assignments: Assignments) -> Plan:
    """The plan with values set by hand, and what follows from them; PlanError for a name that it does not have."""
    _refuse_modality(plan, assignments)
    if TERMS in assignments:
        plan = objective_rules.with_sections(plan.with_decision(TERMS, Decision(assignments[TERMS], BY_HAND)))
    assignments = {_of_part(plan, name): value for name, value in assignments.items()}
    if any(name.startswith("transfer.") for name in assignments):
        plan = learning_rules.with_transfer(plan)
    if any(name.startswith("privacy.") for name in assignments):
        plan = privacy_rules.with_privacy(plan)
    if assignments.get(painting_rules.SHARE):
        plan = painting_rules.with_section(plan, intensities=True)
    for name, value in assignments.items():
        plan.decision(name)  # refuses an unknown name
        plan = plan.with_decision(name, Decision(value, BY_HAND))
    for name, value in assignments.items():
        if name.endswith("group_thresholds") and value is True and plan["training.protected"]:
            plan = plan.with_decision(name, Decision(plan["training.protected"], BY_HAND))
    if any(name.startswith("task.") for name in assignments):
        settings = _values(plan, "task")
        plan = _unless_by_hand(
            plan, task_settings.following_decisions(task_catalogue.task_class(settings["name"]), settings)
        )
    plan = _with_frames(plan, assignments)
    return _unless_by_hand(plan, _following(plan, assignments))


def _following(plan: Plan, assignments: Assignments) -> dict[str, Decision]:
    """The decisions that follow from values set by hand; plan: with these values."""
    follows = _of_shape(plan, assignments)
    if any(name.startswith("tiles.") for name in assignments):
        patch = Decision(list(Tiles(**_values(plan, "tiles")).shape), "it follows the section tiles, set by hand")
        follows |= dict.fromkeys(OF_TILES, patch)
    if assignments.get("network.pretrained") and factory.family_of(plan["network.name"]).pools:
        because = "the features of a tile are those of the given weights, which stand still"
        follows["network.size"] = Decision({**plan["network.size"], "encoder": [FROZEN]}, because)
        same = "each tile stays as it is, so that the given weights encode it once"
        follows |= {name: Decision(value, same) for name, value in UNVARIED.items()}
    if "training.patch" in assignments:
        because = "it follows training.patch, which was set by hand"
        follows["preprocessing.smallest"] = Decision(assignments["training.patch"], because)
    if "preprocessing.cascade" in assignments:
        follows["augmentation.marks"] = cascade_rules.marks_decision(assignments["preprocessing.cascade"])
    if assignments.get("training.optimiser") == "sgd":
        because = "it goes with SGD, which was set by hand"
        follows |= {name: Decision(value, because, NNUNET) for name, value in WITH_SGD.items()}
    if any(name == "training.sampling" or name.startswith("task.") for name in assignments):
        follows |= task_catalogue.build_task(_values(plan, "task")).under(str(plan["training.sampling"]))
    if assignments.get("training.fairness") in SAMPLED_BY_GROUPS:
        because = "training.fairness, which was set by hand, says how often a case of each group is sampled"
        follows["training.sampling"] = Decision("natural", because)
    if assignments.get("split.folds") or assignments.get("split.folds_by"):
        follows |= dict.fromkeys(("split.inner_folds", "split.calibration"), Decision(0, OUT_OF_FOLD))
    if assignments.get("transfer.mode") == "prototypes":
        because = "one pass over the training cases makes the last layer, and nothing takes a step"
        follows |= {name: Decision(1, because) for name in ("training.steps", "training.validations")}
    if assignments.get("privacy.epsilon") is not None:
        follows |= privacy_rules.following_decisions(plan)
    if assignments.get(painting_rules.SHARE):
        follows |= painting_rules.following_decisions(plan, task_catalogue.build_task(_values(plan, "task")))
    if "augmentation.flips" in assignments:
        because = "they follow augmentation.flips, which was set by hand"
        follows["inference.flips"] = Decision(assignments["augmentation.flips"], because)
    return follows


def of_painted_images(plan: Plan, painted: str) -> Plan:
    """The plan for label maps alone, from which every image is painted; painted: how, in words."""
    plan = plan.with_decision(painting_rules.SHARE, painting_rules.painted_share(painted))
    plan = painting_rules.with_section(plan, intensities=False)
    task = task_catalogue.build_task(_values(plan, "task"))
    return plan.with_decisions(painting_rules.following_decisions(plan, task))


def untrained_plan(plan: Plan) -> Plan:
    """The plan of a run as it was before training: what is found after training is open again.

    Thresholds, calibration and the like belong to the weights of that run. Of other weights they say nothing, and the
    cases that they were found on may be test cases of another split, or of a fold. Nor are reasons those of that run.
    """
    for name, decision in plan:
        if (because := reason_before_run(decision)) != decision.because:
            plan = plan.with_decision(name, replace(decision, because=because))
    settings = task_settings.found_after_training(task_catalogue.build_task(_values(plan, "task")))
    open_again = [name for one in settings if (name := f"task.{one}") in plan and plan[name] is not None]
    return _unless_by_hand(plan, dict.fromkeys(open_again, Decision(None, "it is found after training")))


def reason_before_run(decision: Decision) -> str:
    """The reason of a decision without what a run has added about its own trainings."""
    because = decision.because
    for added in (FOLD_BATCHES, FOLD_SCALES, FOLD_SEARCHES, ENDED_EARLY):
        because = because.partition(added)[0]
    return because


def without_cascade(plan: Plan, because: str) -> Plan:
    """The plan without a first stage, and what follows from that; its memory is still that of before."""
    plan = plan.with_decision("preprocessing.cascade", Decision(None, because))
    follows = {"augmentation.marks": cascade_rules.marks_decision(None)}
    if Context.from_settings(plan[CONTEXT]).names:
        follows["evaluation.image_only"] = covariate_rules.image_only_decision(plan.decision(CONTEXT), None)
    return _unless_by_hand(plan, follows)


def _refuse_modality(plan: Plan, assignments: Assignments) -> None:
    """PlanError for another kind of image: normalisation and augmentation follow from it when the data are read."""
    if MODALITY not in assignments:
        return
    before = plan.decision(MODALITY)
    modality = assignments[MODALITY]
    if before.because == BY_HAND or before.value != modality:
        problem = f"by {modality} alone neither normalisation nor augmentation would be those of such images"
        remedy = f"Plan again with --modality {modality}, which is for images that state none"
        raise PlanError(problem, MODALITY, remedy)


def _of_shape(plan: Plan, assignments: Assignments) -> dict[str, Decision]:
    """The sizes that follow from a shape set by hand: of a network that sees each image whole, it still does."""
    shape = assignments.get("preprocessing.shape")
    if not isinstance(shape, list | tuple) or plan.decision("training.patch").because == BY_HAND:
        return {}
    if not GridNeeds.from_task(task_catalogue.build_task(_values(plan, "task"))).whole:
        return {}
    patch = Decision(list(shape), "the network sees the whole image, in the shape that was set by hand")
    return dict.fromkeys(("training.patch", "inference.patch", "preprocessing.smallest"), patch)


def _with_frames(plan: Plan, assignments: Assignments) -> Plan:
    """Put the number of frames into the size of a network of clips, unless the size gives a number itself."""
    size = plan["network.size"]
    frames = _values(plan, "preprocessing").get("frames")
    if frames is None:
        return plan
    by_hand = isinstance(assignments.get("network.size"), Mapping)
    takes = isinstance(size, Mapping) and ("frames" in size or factory.family_of(plan["network.name"]).takes_gaps)
    if not takes or not (by_hand or "preprocessing.frames" in assignments):
        return plan
    if by_hand and "frames" in assignments["network.size"]:
        return plan
    because = BY_HAND if by_hand else "it follows preprocessing.frames, which was set by hand"
    return plan.with_decision("network.size", Decision({**size, "frames": frames}, because))


def shared_by_folds(plan: Plan) -> Plan:
    """The plan of folds with what must be known of their decisions: from whose cases these come.

    The folds become one model, whose outputs are averaged voxel by voxel: their grid has to be one, and every case that
    it could be chosen from is the test case of some fold.
    """
    for name, note in {**dict.fromkeys(SHARED, SHARED_NOTE), CONTEXT: CONTEXT_NOTE}.items():
        if name not in plan or plan[name] is None:
            continue
        decision = plan.decision(name)
        if decision.because != BY_HAND and not decision.because.endswith(note):
            plan = plan.with_decision(name, Decision(decision.value, f"{decision.because}; {note}", decision.source))
    return plan


def plan_for_fold(plan: Plan, dataset: Dataset, fingerprint: Fingerprint, covariates: Any = None) -> Plan:
    """The plan of one fold: what is taken from intensities, references and covariates is of its own training cases.

    covariates: those that were asked for, as in `Wishes`; without them the plan's own stay
    The grid, the patch and the network are those of all folds, whose outputs are averaged voxel by voxel.
    What was set by hand stays.
    """
    kind = task_catalogue.kind_for_dataset(dataset, plan["task.name"])
    task = task_catalogue.build_task(_values(plan, "task"))
    own_decisions = {f"task.{key}": decision for key, decision in kind.settings_for(dataset, fingerprint).items()}
    own_decisions = {
        name: decision
        for name, decision in own_decisions.items()
        if not any(plan_decisions.names_decision(name, one) for one in TAUGHT_ALIKE)
    }
    task_of_fold = task_catalogue.build_task(_values(_unless_by_hand(plan, own_decisions), "task"))
    # What few cases have may be missing here; yet all folds answer the same questions.
    if _labels(task_of_fold) != _labels(task):
        task_of_fold = task
        own_decisions = {}
    own_decisions |= task_of_fold.under(str(plan["training.sampling"]))
    names = [label.name for label in task.labels]
    channels = plan["preprocessing.channels"]
    modality = plan["preprocessing.modality"]
    # Colours have one range in all folds, whichever has the brightest picture.
    brightest = plan["preprocessing.normalisation"][0].get("high", 0.0)
    own_decisions["preprocessing.normalisation"] = normalisation_rules.decide_normalisation(
        fingerprint, channels, modality, names, brightest=brightest
    )
    if covariates is not None and plan[CONTEXT]:
        covariates_of_fold = covariate_rules.context_decision(dataset, fingerprint, covariates, of_fold=True)
        # Which images a case may lack is the same for all: it comes with the common preprocessing.
        both = {**(covariates_of_fold.value or {}), **Context.from_settings(plan[CONTEXT]).of_images.settings}
        own_decisions[CONTEXT] = replace(covariates_of_fold, value=both or None)
    return _unless_by_hand(plan, own_decisions)


def with_predicted_memory(plan: Plan, fingerprint: Fingerprint, machine: Machine) -> Plan:
    """The plan with its peak of memory predicted anew, for what was set by hand.

    Raises ResourceError where training would not fit, PlanError where the network cannot be built, or where patches cut
    what must not be cut.
    """
    chosen = typed_sections.typed_plan(plan)
    training = chosen.training
    prepared = chosen.preprocessing
    needs = objective_catalogue.joint_needs(chosen.terms.values())
    grid = grid_rules.planned_grid(chosen, fingerprint, machine.device)
    grid_rules.check_whole_structures(chosen, fingerprint, grid)
    preprocessing_rules.refuse_clips_beyond_frames(chosen, fingerprint)
    needed = training_memory.predict_peak(
        chosen.task,
        chosen.architecture,
        training.patch,
        training.batch + unlabelled_kept(chosen),
        machine,
        half=training.precision == "bf16",
        optimiser=training.optimiser,
        cases=_fit_to_memory.prepared_bytes(grid, prepared.inputs, chosen.task),
        count=len(fingerprint),
        networks=2 if needs.partner else 1,
    )
    training_memory.refuse_too_large(needed, machine)
    memory = _fit_to_memory.memory_decision(needed, machine)
    if prepared.cascade is not None:
        before = with_predicted_memory(
            cascade_rules.low_resolution_plan(plan, fingerprint, machine), fingerprint, machine
        )
        memory = max(memory, before.decision("training.memory"), key=lambda decision: float(decision.value))
    return plan.with_decision("training.memory", memory)


def unlabelled_kept(settings: PlanSettings) -> int:
    """Images of a step beside the labelled ones whose way through the network is kept for its gradient."""
    needs = objective_catalogue.joint_needs(settings.terms.values())
    batch = settings.training.batch
    if needs.second:
        return batch
    if not settings.objectives.image_paths:
        return 0
    # Of the views one is the teacher's, which learns nothing.
    views = max(1, max(0, needs.views - needs.teacher) + needs.strong) if needs.takes_unlabelled else 0
    unlabelled = settings.objectives.unlabelled_batch or batch
    # A second network sees both batches.
    return views * unlabelled + needs.partner * (batch + unlabelled)


def _of_part(plan: Plan, name: str) -> str:
    """The name of a decision, or of the same of the one part that has it: task.classification.positive."""
    parts = [one for one in plan.names if plan_decisions.names_decision(one, name)]
    return name if name in plan or len(parts) != 1 else parts[0]


def _labels(task: Task) -> list[tuple[Label, ...]]:
    """The labels of the task, or those of each of its parts."""
    return [part.labels for part in properties.leaf_tasks(task).values()]


def _values(plan: Plan, section: str) -> StatedSettings:
    return {key: decision.value for key, decision in plan.sections[section].items()}


def _unless_by_hand(plan: Plan, decisions: Mapping[str, Decision]) -> Plan:
    for name, decision in decisions.items():
        if (
            name in plan
            and plan.decision(name).because != BY_HAND
            and not plan.decision(name).because.startswith(TAKEN)
        ):
            plan = plan.with_decision(name, decision)
    return plan
