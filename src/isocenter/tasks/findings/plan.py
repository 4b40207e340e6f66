"""Plans for findings from their training cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isocenter.belief import (
    NOBODY,
    calling_decisions,
    certainty_decisions,
    check_numbers,
    grouped_decisions,
    interval_decisions,
)
from isocenter.errors import DatasetError, PlanError
from isocenter.evaluation import FEWEST_OF_GROUP
from isocenter.tasks.findings.losses import BALANCED, LOSSES
from isocenter.tasks.shared import one_answer_length
from isocenter.values import Dataset, Decision, Fingerprint

MAIER_HEIN = "doi:10.1038/s41592-023-02151-z"
COUNTED = ("present", "absent")


def settings_for(dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The fields of findings for these training cases.

    A finding that none of them has, or all, cannot be learnt and is left out; DatasetError where none is left.
    """
    known = fingerprint.findings
    declared = [label.name for label in dataset.classes.get("findings", ())] or list(known)
    counts = {name: dict(zip(COUNTED, known.get(name, (0, 0)), strict=True)) for name in declared}
    kept = [name for name in declared if min(counts[name].values()) > 0]
    left_out = [f"{name} ({_counts_in_words(counts[name])})" for name in declared if name not in kept]
    if not kept:
        raise DatasetError(
            f"no finding is present in some training cases and absent in others ({', '.join(left_out) or 'none'})",
            str(dataset.root or dataset.name),
            "Give cases with and without each finding",
        )
    shares = "; ".join(f"{name} {_counts_in_words(counts[name])}" for name in kept)
    lost = (
        f"; left out, because nothing tells it apart in the training cases: {', '.join(left_out)}" if left_out else ""
    )
    rarest = min(kept, key=lambda name: counts[name]["present"])
    others = ", ".join(name for name in LOSSES if name != "bce")
    return {
        "findings": Decision(kept, f"training cases have each and lack each: {shares}{lost}"),
        "counts": Decision({name: counts[name] for name in kept}, "their shares are what probabilities refer to"),
        "loss": Decision(
            "bce",
            f"{LOSSES['bce'].because}; of the rarest, {rarest}, there are {counts[rarest]['present']} "
            f"(for scarce findings: {others})",
            LOSSES["bce"].source,
        ),
        **calling_decisions(),
        **grouped_decisions(),
        **certainty_decisions(),
        **interval_decisions(),
        "conformal": Decision(
            None,
            f"they are found after training, on cases that did not train: of each finding where {FEWEST_OF_GROUP} "
            "patients have it, and as many do not",
        ),
    }


def decisions() -> dict[str, Decision]:
    """The network, and the metric that selects and judges."""
    return {
        "network.name": Decision("resnet", "it gives one answer for each finding of the image", "arXiv:1512.03385"),
        **one_answer_length(),
        "training.selection": Decision("auroc", "it is the mean over findings, and ranks cases without a threshold"),
        "evaluation.primary": Decision("auroc", "no operating point was asked for", MAIER_HEIN),
    }


def check_settings(
    findings: Sequence[str],
    counts: Mapping[str, Mapping[str, int]],
    loss: str,
    each: Mapping[str, Mapping[str, float] | None],
) -> None:
    """PlanError names the setting that cannot be; each: {setting: {finding: number}}"""
    if len(set(findings)) < max(1, len(findings)):
        raise PlanError("at least one finding is needed, and each once", "task.findings", "Name each finding once")
    for name, both in counts.items():
        if set(both) != set(COUNTED):
            raise PlanError(f"{dict(both)} for {name}", "task.counts", "Give present and absent")
    for side in COUNTED:
        check_numbers("task.counts", {name: both[side] for name, both in counts.items()}, findings, 0, 10**12)
    if loss in BALANCED and (lacking := [name for name in findings if name not in counts]):
        raise PlanError(f"{loss} needs the cases of {lacking[0]}", "task.counts", "Give present and absent of each")
    for setting, numbers in each.items():
        check_numbers(f"task.{setting}", numbers or {}, findings, 0, NOBODY if setting == "thresholds" else 1)


def _counts_in_words(counts: Mapping[str, int]) -> str:
    return f"{counts['present']} present and {counts['absent']} absent"
