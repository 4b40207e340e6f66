"""Findings of the whole image that do not exclude each other, each present or absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from isocenter.belief import (
    ABSENT,
    CERTAINTY,
    INTERVALS,
    PRESENT,
    PREVALENCE,
    SET,
    THRESHOLDS,
    Calls,
    Certainty,
    GroupThresholds,
    Labels,
    OperatingPoint,
    Rows,
    chance_of,
    in_json,
    label_sets,
    probabilities_of,
    uncalibrated_of,
)
from isocenter.errors import PlanError
from isocenter.evaluation import Metrics, auroc
from isocenter.lazy import torch
from isocenter.tasks.findings.called import DEFAULT_THRESHOLD, called_findings
from isocenter.tasks.findings.losses import BALANCED, LOSSES, balance, finding_loss
from isocenter.tasks.findings.plan import check_settings, decisions, settings_for
from isocenter.tasks.findings.scores import METRICS
from isocenter.tasks.findings.scoring import FindingScoring
from isocenter.tasks.settings import COUNTS, LOSS
from isocenter.tasks.shared import Shares, crossed, each_of, mean_of, of_one
from isocenter.tasks.task import Outputs, Uncertain
from isocenter.values import (
    Array,
    Case,
    Confidence,
    Dataset,
    Decision,
    Fingerprint,
    Floats,
    Geometry,
    Head,
    Label,
    Merge,
    Prediction,
    Sentence,
    Slabs,
    Target,
    Vector,
    setting,
    settings_group,
)

if TYPE_CHECKING:
    from torch import Tensor

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

    findings: tuple[str, ...] = setting(words=Sentence("The findings are {value}"), target=True)
    counts: Mapping[str, Mapping[str, int]] | None = setting(None, COUNTS)
    # Not the losses whose probabilities are not to be believed: a metric of ranks would not notice.
    loss_name: str = setting("bce", LOSS, name="loss", choices=tuple(LOSSES), search=("bce", "class_balanced"))
    point: OperatingPoint = settings_group(OperatingPoint)
    thresholds: Mapping[str, float] | None = setting(None, THRESHOLDS, tuned=True)
    prevalence: Mapping[str, float] | None = setting(None, PREVALENCE, registered="prevalence", compared=True)
    grouped: GroupThresholds = settings_group(GroupThresholds)
    certainty: Certainty = settings_group(
        Certainty,
        *CERTAINTY,
        *INTERVALS,
        coverage={
            "words": Sentence(
                "Sets should contain the truth in {percent} of those with each finding, and of those without"
            )
        },
    )

    name: ClassVar[str] = "findings"
    needs: ClassVar[frozenset[str]] = frozenset({"findings"})
    merge: ClassVar[Merge] = "mean"
    selects_by: ClassVar[str] = "auroc"
    uncertainty: ClassVar[Uncertain] = "labels"
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Findings, loss and operating point for these training cases; DatasetError where none can be learnt."""
        return settings_for(dataset, fingerprint)

    def checked(self) -> Findings:
        """The same findings; PlanError names the setting that cannot be."""
        self.grouped.check(self.findings)
        each = {"thresholds": self.thresholds, "prevalence": self.prevalence}
        check_settings(self.findings, self.counts or {}, self.loss_name, each)
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
    def mirrored(self) -> tuple[int, ...] | None:
        """The finding that each becomes in a mirrored image; None where a side has no counterpart among the names."""
        return crossed(self.findings)

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The findings."""
        return self.findings

    @property
    def crossed(self) -> Mapping[str, int]:
        """What sets of the mean of folds go by."""
        return self.certainty.crossed("findings")

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A network with one answer for the image, and AUROC to select and judge."""
        return decisions()

    def under(self, sampling: str) -> dict[str, Decision]:
        """Nothing; PlanError where cases are drawn otherwise than they come."""
        if sampling != "natural":
            problem = "a case has several findings at once, so that none can be drawn as often as another"
            remedy = "Give natural, and --set task.loss=class_balanced where findings are scarce"
            raise PlanError(problem, "training.sampling", remedy)
        return {}

    def target(self, case: Case) -> Target:
        """(findings,) 1 where it is present, 0 where absent, NaN where it is not known."""
        known = case.references["findings"]
        return Target(self.heads["findings"], np.array([known.get(name, np.nan) for name in self.findings], np.float32))

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The named loss over what is known; target: (batch, findings), NaN where it is not known."""
        logits = outputs["findings"].float()
        weights = logits.new_tensor(self._balance) if self.loss_name in BALANCED else None
        return finding_loss(self.loss_name, logits, target, weights)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, findings) probabilities and references."""
        likely = self._likely(outputs["findings"].detach().float().cpu().numpy())
        return {"probabilities": torch.from_numpy(likely), "target": target}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Mean AUROC over the findings that some validation cases have and others lack; without any minus log loss."""
        probabilities, target = collected["probabilities"].cpu().numpy(), collected["target"].cpu().numpy()
        known = np.isfinite(target)
        each = [
            float(auroc(scores[there], truth[there] > 0))
            for scores, truth, there in zip(probabilities.T, target.T, known.T, strict=True)
            if len(set(truth[there])) > 1
        ]
        if each:
            return float(np.mean(each))
        likelihood = np.where(target > 0, probabilities, 1 - probabilities)[known]
        return float(np.log(likelihood.clip(SMALLEST)).mean()) if likelihood.size else float("nan")

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of the log odds."""
        return {"findings": mean_of([one["findings"] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """(findings, ...) probabilities, brought back to the shares of the training cases."""
        return {"findings": np.moveaxis(self._likely(np.moveaxis(np.asarray(arrays["findings"]), 0, -1)), -1, 0)}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """(findings,) log odds of one case to a probability of each."""
        [(_, arrays)] = slabs  # a vector head is one slab
        odds = self._odds(np.asarray(arrays["findings"]))
        each = [chance_of(one).tolist() for one in (self._calibrated(odds), odds)]
        stated, given = (dict(zip(self.findings, one, strict=True)) for one in each)
        by_fold = each_of(arrays, "findings", len(self.findings))
        sets = label_sets(self.certainty, stated, None if by_fold is None else chance_of(self._odds(by_fold)))
        confidence = Confidence(set=sets, uncalibrated=given)
        return Prediction(geometry, probabilities=stated, confidence=confidence)

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Rows:
        """Probabilities of the findings before calibration, and whether each is there, NaN where it is not known."""
        outputs = [[uncalibrated_of(one)[name] for name in self.findings] for one in predictions]
        truth = np.stack([np.asarray(self.target(case).data, dtype=np.float64) for case in cases])
        patients = np.array([case.patient for case in cases])
        return Rows(np.array(outputs), truth, patients, [case.covariates for case in cases])

    @property
    def answers(self) -> Labels:
        """Findings, with a threshold for each."""
        calls = Calls(self.point, self.thresholds, self.grouped, str(DEFAULT_THRESHOLD))
        return Labels(self.certainty, self.findings, calls)

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """The probability of each finding, and whether it is called."""
        probabilities, called = probabilities_of(prediction), called_findings(prediction, self.thresholds or {})
        return {
            **{f"probability_{name}": probabilities[name] for name in self.findings},
            **{f"called_{name}": called[name] for name in self.findings},
            **{f"{SET}_{name}": in_json(prediction.confidence.set.get(name)) for name in self.findings},
        }

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the log odds of the finding, without one of the likeliest."""
        return of_one(outputs["findings"], self.findings, target)

    @property
    def _balance(self) -> Floats:
        """(findings, 2) how much absence and presence count in the loss."""
        counts = self.counts or {}
        absent, present = (
            np.array([counts[name][side] for name in self.findings], dtype=np.float64) for side in (ABSENT, PRESENT)
        )
        return balance(absent, present)

    def _likely(self, outputs: Floats) -> Floats:
        """(..., findings) log odds to probabilities, calibrated once unseen cases have found how."""
        return chance_of(self._calibrated(self._odds(outputs)))

    def _calibrated(self, odds: Floats) -> Floats:
        return self.certainty.calibrator.odds(odds, self.findings)

    def _odds(self, outputs: Floats) -> Floats:
        """(..., findings) log odds, brought back to the shares of the training cases."""
        odds = np.asarray(outputs, dtype=np.float64)
        if self.loss_name in BALANCED:
            odds = odds - np.log(self._balance[:, 1] / self._balance[:, 0])
        return odds
