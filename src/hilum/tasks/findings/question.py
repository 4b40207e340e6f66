"""Findings of the whole image that do not exclude each other, each present or absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np

from hilum.belief import Certainty, certainties, operating_points, prediction_sets
from hilum.belief.certainties import CERTAINTY, INTERVALS
from hilum.belief.operating_points import NOBODY, GroupThresholds, OperatingPoint
from hilum.errors import DatasetError, PlanError
from hilum.evaluation import Metrics, classification
from hilum.evaluation.conformal import FEWEST_OF_GROUP
from hilum.lazy import torch
from hilum.tasks.findings import losses
from hilum.tasks.findings.losses import BALANCED, LOSSES
from hilum.tasks.findings.scoring import METRICS, FindingScoring
from hilum.tasks.shared import grid_and_length, left_right, saliency
from hilum.tasks.task import Outputs, Uncertain
from hilum.values import (
    Case,
    Dataset,
    Decision,
    Fingerprint,
    Head,
    Label,
    Merge,
    Setting,
    SettingsGroup,
    Target,
    Vector,
)

if TYPE_CHECKING:
    from torch import Tensor


MAIER_HEIN = "doi:10.1038/s41592-023-02151-z"
COUNTED = ("present", "absent")
# A probability of 0 for what was there would cost infinitely much.
SMALLEST = 1e-7


@dataclass(frozen=True)
class Findings(FindingScoring):
    """Several findings, of which an image may show any.

    A case need not have a reference of each: what is not known is neither learnt nor scored.

    findings:   in the order of every column
    counts:     {finding: {"present", "absent": training cases}}
    loss_name:  of `losses.LOSSES`
    point:      the rule by which validation cases decide from which probability on a finding is called
    thresholds: {finding: that probability}; None until they have decided
    prevalence: {finding: share of all people} for predictive values; None: of the cases that are scored
    grouped:    thresholds of groups of people
    certainty:  how far its probabilities can be believed, and what makes them so
    """

    findings: Annotated[tuple[str, ...], Setting(target=True)]
    counts: Mapping[str, Mapping[str, int]] | None = None
    # Not the losses whose probabilities are not to be believed: a metric of ranks would not notice.
    loss_name: Annotated[str, Setting(name="loss", choices=tuple(LOSSES), search=("bce", "class_balanced"))] = "bce"
    point: Annotated[OperatingPoint, SettingsGroup()] = field(default_factory=OperatingPoint)
    thresholds: Annotated[Mapping[str, float] | None, Setting(always=True, tuned=True)] = None
    prevalence: Annotated[Mapping[str, float] | None, Setting(preregistered="prevalence", compared=True)] = None
    grouped: Annotated[GroupThresholds, SettingsGroup()] = field(default_factory=GroupThresholds)
    certainty: Annotated[Certainty, SettingsGroup((*CERTAINTY, *INTERVALS))] = field(default_factory=Certainty)
    name: ClassVar[str] = "findings"
    needs: ClassVar[frozenset[str]] = frozenset({"findings"})
    merge: ClassVar[Merge] = "mean"
    selects_by: ClassVar[str] = "auroc"
    uncertainty: ClassVar[Uncertain] = "labels"
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Findings, loss and operating point for these training cases.

        A finding that none of them has, or all, cannot be learnt and is left out; DatasetError where none is left.
        """
        references = fingerprint.findings
        declared = [label.name for label in dataset.classes.get("findings", ())] or list(references)
        counts = {name: dict(zip(COUNTED, references.get(name, (0, 0)), strict=True)) for name in declared}
        teachable = [name for name in declared if min(counts[name].values()) > 0]
        left_out = [f"{name} ({_counts_in_words(counts[name])})" for name in declared if name not in teachable]
        if not teachable:
            raise DatasetError(
                f"no finding is present in some training cases and absent in others ({', '.join(left_out) or 'none'})",
                str(dataset.root or dataset.name),
                "Give cases with and without each finding",
            )
        shares = "; ".join(f"{name} {_counts_in_words(counts[name])}" for name in teachable)
        lost = ""
        if left_out:
            lost = f"; left out, because nothing tells it apart in the training cases: {', '.join(left_out)}"
        rarest = min(teachable, key=lambda name: counts[name]["present"])
        others = ", ".join(name for name in LOSSES if name != "bce")
        return {
            "findings": Decision(teachable, f"training cases have each and lack each: {shares}{lost}"),
            "counts": Decision(
                {name: counts[name] for name in teachable}, "their shares are what probabilities refer to"
            ),
            "loss": Decision(
                "bce",
                f"{LOSSES['bce'].because}; of the rarest, {rarest}, there are {counts[rarest]['present']} "
                f"(for scarce findings: {others})",
                LOSSES["bce"].source,
            ),
            **operating_points.calling_decisions(),
            **operating_points.grouped_decisions(),
            **certainties.certainty_decisions(),
            **prediction_sets.interval_decisions(),
            "conformal": Decision(
                None,
                f"they are found after training, on cases that did not train: of each finding where {FEWEST_OF_GROUP} "
                "patients have it, and as many do not",
            ),
        }

    def check_and_fill(self) -> Findings:
        """The same findings; PlanError names the setting that cannot be."""
        self.grouped.check(self.findings)
        numbers = {"thresholds": self.thresholds, "prevalence": self.prevalence}
        check_settings(self.findings, self.counts or {}, self.loss_name, numbers)
        return self

    @property
    def heads(self) -> Mapping[str, Head]:
        """One vector: an output a finding."""
        return {"findings": Vector(len(self.findings))}

    @property
    def labels(self) -> tuple[Label, ...]:
        """The findings, numbered from 0."""
        return tuple(Label(value, name) for value, name in enumerate(self.findings))

    @property
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
        """The finding that each becomes in a mirrored image; None where a side has no counterpart among the names."""
        return left_right.counterpart_places(self.findings)

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A network with one answer for the image, and AUROC to select and judge."""
        return {
            "network.name": Decision("resnet", "it gives one answer for each finding of the image", "arXiv:1512.03385"),
            **grid_and_length.decide_epochs_and_networks(),
            "training.selection": Decision(
                "auroc", "it is the mean over findings, and ranks cases without a threshold"
            ),
            "evaluation.primary": Decision("auroc", "no operating point was asked for", MAIER_HEIN),
        }

    def under(self, sampling: str) -> dict[str, Decision]:
        """Nothing; PlanError where cases are sampled otherwise than they come."""
        if sampling != "natural":
            problem = "a case has several findings at once, so that none can be sampled as often as another"
            remedy = "Give natural, and --set task.loss=class_balanced where findings are scarce"
            raise PlanError(problem, "training.sampling", remedy)
        return {}

    def target(self, case: Case) -> Target:
        """(findings,) 1 where it is present, 0 where absent, NaN where it is not known."""
        references = case.references["findings"]
        return Target(
            self.heads["findings"], np.array([references.get(name, np.nan) for name in self.findings], np.float32)
        )

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The named loss over what is known; target: (batch, findings), NaN where it is not known."""
        logits = outputs["findings"].float()
        weights = logits.new_tensor(self._balance) if self.loss_name in BALANCED else None
        return losses.finding_loss(self.loss_name, logits, target, weights)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, findings) probabilities and references."""
        likely = self._likely(outputs["findings"].detach().float().cpu().numpy())
        return {"probabilities": torch.from_numpy(likely), "target": target}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Mean AUROC over the findings that some validation cases have and others lack; without any minus log loss."""
        probabilities = collected["probabilities"].cpu().numpy()
        target = collected["target"].cpu().numpy()
        referenced = np.isfinite(target)
        areas = [
            float(classification.auroc(scores[there], truth[there] > 0))
            for scores, truth, there in zip(probabilities.T, target.T, referenced.T, strict=True)
            if len(set(truth[there])) > 1
        ]
        if areas:
            return float(np.mean(areas))
        likelihood = np.where(target > 0, probabilities, 1 - probabilities)[referenced]
        return float(np.log(likelihood.clip(SMALLEST)).mean()) if likelihood.size else float("nan")

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the log odds of the finding, without one of the likeliest."""
        return saliency.target_logit(outputs["findings"], self.findings, target)


def check_settings(
    findings: Sequence[str],
    counts: Mapping[str, Mapping[str, int]],
    loss: str,
    by_finding: Mapping[str, Mapping[str, float] | None],
) -> None:
    """PlanError names the setting that cannot be; by_finding: {setting: {finding: number}}"""
    if len(set(findings)) < max(1, len(findings)):
        raise PlanError("at least one finding is needed, and each once", "task.findings", "Name each finding once")
    for name, both in counts.items():
        if set(both) != set(COUNTED):
            raise PlanError(f"{dict(both)} for {name}", "task.counts", "Give present and absent")
    for side in COUNTED:
        operating_points.check_thresholds(
            "task.counts", {name: both[side] for name, both in counts.items()}, findings, 0, 10**12
        )
    if loss in BALANCED and (lacking := [name for name in findings if name not in counts]):
        raise PlanError(f"{loss} needs the cases of {lacking[0]}", "task.counts", "Give present and absent of each")
    for name, numbers in by_finding.items():
        operating_points.check_thresholds(
            f"task.{name}", numbers or {}, findings, 0, NOBODY if name == "thresholds" else 1
        )


def _counts_in_words(counts: Mapping[str, int]) -> str:
    return f"{counts['present']} present and {counts['absent']} absent"
