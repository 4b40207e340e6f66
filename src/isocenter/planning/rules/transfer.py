"""Rules of the start from other weights."""

from __future__ import annotations

from isocenter.errors import PlanError
from isocenter.objectives import needs_of
from isocenter.planning.sections import Settings
from isocenter.values import Decision, Plan

SECTION = "transfer"
# How the reason of a decision begins that was taken from a source; it stays where others would follow the data anew.
TAKEN = "as in the source of the weights, "
# By bench/few_labels.py: what a training gains that starts from other weights.
MEASURED = "docs/benchmarks/few-labels.md"
DECISIONS = {
    "mode": Decision(
        "full",
        "all weights are trained: from a pretraining of our own, with 20, 100 and 1,500 labelled pictures, that had an "
        "AUROC of 0.890, 0.943 and 0.958, the head alone 0.864, 0.915 and 0.927; head_first and lora were not measured",
        MEASURED,
    ),
    "frozen": Decision(0.0, "no level of the encoder was asked to stand still"),
    "layer_decay": Decision(
        1.0, "all levels of the encoder learn at one rate: with 0.8 and l2_sp, volumes lost .03 of Dice", MEASURED
    ),
    "head_share": Decision(
        0.25,
        "a head that has learnt nothing would change features that are sound; in these steps only the head learns",
        "arXiv:2202.10054",
    ),
    "rank": Decision(8, "differences of low rank have few numbers to learn", "arXiv:2106.09685"),
    "minimum": Decision(0.5, "a source that lacks more than half of the encoder is hardly one"),
}


def with_transfer(plan: Plan) -> Plan:
    """The plan with the section on a start from other weights; a section that is there stays."""
    missing = {f"{SECTION}.{name}": decision for name, decision in DECISIONS.items()}
    return plan.with_decisions({name: decision for name, decision in missing.items() if name not in plan})


def check_transfer(settings: Settings) -> None:
    """PlanError for weights that would both stand still and be drawn to their start."""
    if settings.transfer.mode == "lora" and needs_of(settings.terms.values()).start:
        problem = "an objective draws weights towards their start, where those of the source stand still"
        raise PlanError(problem, "transfer.mode", "Give full, or leave the objective out")
