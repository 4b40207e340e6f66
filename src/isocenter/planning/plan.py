"""From what the data are, what the machine has and what a person asks for to a plan with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from isocenter.planning.changes import with_memory
from isocenter.planning.fit_to_memory import fitted, memory_decision
from isocenter.planning.machine import Machine
from isocenter.planning.rules import (
    NNUNET,
    Holes,
    Retest,
    absent_decision,
    batch_decision,
    cascade_decision,
    channels_of,
    context_decision,
    dropout_decision,
    flips_at_test,
    frames_of,
    image_only,
    left_right,
    names_of,
    profile_for,
    training,
    window_for,
    with_presence,
)
from isocenter.planning.rules.anatomy import anatomy
from isocenter.planning.rules.augmentation import augmentation
from isocenter.planning.rules.preprocessing import preprocessing
from isocenter.planning.search import unsearched
from isocenter.tasks import build, kind_for
from isocenter.values import Dataset, Decision, Fingerprint, Plan

# What another training.seed changes too, unless somebody wants runs of several seeds on the same parts.
DRAWN_BY = "training.seed draws the parts too, so that another seed parts anew"


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
    retest: Retest | None = None,
    context: Any = None,
    modality_dropout: float | None = None,
) -> Plan:
    """A plan for these training cases.

    fingerprint: of the training cases alone: nothing of validation or test enters a plan
    network:     the family to choose a size for; the task's own choice if none is given
    context:     covariates to be told the network: names, or "all"; None for none
    modality_dropout: how often an image of a case is left out; as the data ask for if not given
    retest:      tells what tells the classes apart without the disease, after some preprocessing; None if nothing does
    Raises DatasetError where no task fits the references or they teach nothing, PlanError for an unknown network,
    ResourceError where nothing fits into memory.
    """
    chosen = _of_task(dataset, fingerprint, task)
    built = build({key: decision.value for key, decision in chosen.items()})
    said = built.decisions(fingerprint)
    family = Decision(network, "asked for") if network is not None else None
    frames = frames_of(fingerprint, machine.device)
    names = channels_of(fingerprint).value
    channels = len(names) * (frames.value or 1)
    holes = Holes.of(dataset, names)
    dropout = dropout_decision(holes) if modality_dropout is None else Decision(modality_dropout, "asked for")
    holes = replace(holes, dropout=dropout.value)
    wished = said.get("training.batch")
    beside = context_decision(dataset, fingerprint, context)
    trainings = max(1, folds) * (2 if beside.value else 1)
    each = None if minutes is None else minutes / trainings
    fits = fitted(
        fingerprint,
        built,
        machine,
        said["network.name"],
        family,
        channels,
        frames=frames.value,
        minutes=each,
        wished=None if wished is None else int(wished.value),
        context=beside.value,
        presence=holes.presence,
        holes=holes,
        reduction=float(said["preprocessing.reduction"].value) if "preprocessing.reduction" in said else 1.0,
    )
    grid = fits.grid
    batch = batch_decision(fits.batch, fits.usual, fingerprint, grid, machine)
    if wished is not None and fits.batch == wished.value:
        batch = wished
    prepared = preprocessing(dataset, fingerprint, built, grid, frames, retest, absent_decision(holes))
    side = left_right(fingerprint, prepared["ndim"].value)
    profile = profile_for(prepared["modality"].value, prepared["ndim"].value)
    varied = augmentation(profile, anatomy(names_of(dataset, built.labels)), side, built, grid.patch)
    asked = Decision(folds, "asked for" if folds else "one test part is enough: no folds were asked for")
    before = cascade_decision(built, grid, machine, minutes, folds)
    prepared["cascade"], varied["marks"] = before["preprocessing.cascade"], before["augmentation.marks"]
    sections = {
        "task": chosen,
        "split": {"method": split, "folds": asked, "seed": Decision(None, DRAWN_BY)},
        "preprocessing": prepared,
        "network": {
            "name": fits.network,
            "size": fits.size,
            "pretrained": Decision(None, "no others were asked for"),
            "inflation": Decision("mean", "a volume of equal slices is then seen as one", "arXiv:1705.07750"),
            "context": with_presence(beside, fits.context, holes, fits.network.value),
            **fits.told,
        },
        "training": training(
            fingerprint,
            grid,
            machine,
            device,
            fits.network.value,
            batch,
            memory_decision(fits.peak, machine),
            minutes=minutes,
            folds=folds,
            seed=seed,
            modality_dropout=dropout,
        ),
        "augmentation": varied,
        "inference": {
            "patch": window_for(grid),
            "overlap": Decision(0.5, "each voxel is then seen by at least two windows per axis", NNUNET),
            "batch": _window_batch(machine),
            "flips": flips_at_test(varied["flips"]),
            "left_right": side,
        },
        "evaluation": {"image_only": image_only(beside, before["preprocessing.cascade"].value)},
        "search": unsearched(),
    }
    plan = Plan(_decided(sections, said))
    # The second network of a cascade takes more channels than was reckoned with.
    return plan if plan["preprocessing.cascade"] is None else with_memory(plan, fingerprint, machine)


def _of_task(dataset: Dataset, fingerprint: Fingerprint, task: str | None) -> dict[str, Decision]:
    """The section "task": the kind of problem that was asked for, or that the references are of, and its settings."""
    kind = kind_for(dataset, task)
    because = "asked for" if task else f"the references are of the kind {', '.join(sorted(dataset.kinds))}"
    return {"name": Decision(kind.name, because), **kind.settings_for(dataset, fingerprint)}


def _decided(sections: Mapping[str, Mapping[str, Decision]], said: Mapping[str, Decision]) -> dict[str, Any]:
    """The sections with what the task says of them in place of what is usual."""
    decided = {name: dict(section) for name, section in sections.items()}
    for name, decision in said.items():
        section, _, key = name.partition(".")
        if name not in ("network.name", "training.batch"):  # which memory has a say in
            decided[section][key] = decision
    return decided


def _window_batch(machine: Machine) -> Decision:
    if machine.device == "cpu":
        return Decision(1, "a processor gains nothing from more at a time, and memory stays small")
    return Decision(4, f"the {machine.device} goes through several at a time as quickly as through one")
