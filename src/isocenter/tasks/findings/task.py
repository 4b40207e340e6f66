"""Findings of the whole image that do not exclude each other, each present or absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from isocenter.belief import (
    ABSENT,
    BELIEF,
    BY_GROUP,
    CALLING,
    CERTAINTY,
    FOUND,
    GROUPED,
    INTERVALS,
    OF_SETS,
    PRESENT,
    SET,
    SET_ERRORS,
    SET_NAMES,
    Calls,
    Certainty,
    GroupThresholds,
    Labels,
    OperatingPoint,
    Rows,
    calling_of,
    chance_of,
    in_json,
    label_sets,
    numbers_by_name,
    probabilities_of,
    suited_certainty,
    uncalibrated_of,
    unkept_rule,
)
from isocenter.errors import PlanError
from isocenter.evaluation import auroc
from isocenter.lazy import torch
from isocenter.tasks.answers import Decoding, Origin, Outputs, Scoring, Teaching, Traits
from isocenter.tasks.findings.called import DEFAULT_THRESHOLD, called_findings
from isocenter.tasks.findings.losses import BALANCED, balance, finding_loss
from isocenter.tasks.findings.plan import SENTENCES, check_settings, decisions, settings_for
from isocenter.tasks.findings.scores import METRICS
from isocenter.tasks.findings.scoring import FindingScoring
from isocenter.tasks.shared import PROBABILITY_NAMES, Shares, crossed, each_of, mean_of, of_one, reading
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
    Prediction,
    Slabs,
    Target,
    Vector,
)

if TYPE_CHECKING:
    from torch import Tensor

# The settings that hold one number a finding.
BY_FINDING = ("thresholds", "prevalence")
# A probability of 0 for what was there would cost infinitely much.
SMALLEST = 1e-7


@dataclass(frozen=True)
class Findings:
    """Several findings, of which an image may show any.

    A case need not have a reference of each: what is not known is neither learnt nor scored.

    findings:        in the order of every column
    counts:          {finding: {"present", "absent": training cases}}
    loss_name:       of `losses.LOSSES`
    operating_point: the rule by which validation cases decide from which probability on a finding is called
    operating_confidence: with which the rule holds in a single training; None: on average over trainings
    thresholds:      {finding: that probability}; None until they have decided
    prevalence:      {finding: share of all people} for predictive values; None: of the cases that are scored
    certainty:       how far its probabilities can be believed, and what makes them so
    grouped:         thresholds of groups of people
    """

    findings: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]] | None = None
    loss_name: str = "bce"
    operating_point: str = "youden"
    operating_confidence: float | None = None
    thresholds: Mapping[str, float] | None = None
    prevalence: Mapping[str, float] | None = None
    certainty: Certainty = field(default_factory=Certainty)
    grouped: GroupThresholds = field(default_factory=GroupThresholds)

    name: ClassVar[str] = "findings"
    needs: ClassVar[frozenset[str]] = frozenset({"findings"})
    traits: ClassVar[Traits] = Traits(
        tunes=(*FOUND, "thresholds", BY_GROUP, "conformal"),
        registers={
            "operating_point": "operating point",
            "operating_confidence": "confidence of the operating point",
            "prevalence": "prevalence",
            "group_thresholds": "groups with thresholds of their own",
        },
        case_metric="brier",
        # Not the losses whose probabilities are not to be believed: a metric of ranks would not notice.
        search_values={"loss": ("bce", "class_balanced")},
        suited=suited_certainty,
        audited=("auroc", "calibration_slope", "coverage"),
        belief=(*OF_SETS, *BELIEF),
        calibration=("ece",),
        compared_by=("prevalence",),
        unkept=unkept_rule,
        sentences=SENTENCES,
        metric_names={**PROBABILITY_NAMES, **SET_NAMES},
        errors=frozenset({"brier", "ece", "log_loss", "mce", "ace"}) | SET_ERRORS,
        label_word="finding",
    )

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Findings, loss and operating point for these training cases; DatasetError where none can be learnt."""
        return settings_for(dataset, fingerprint)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Findings:
        """Findings with these settings; PlanError names the one that cannot be."""
        known = ("findings", "counts", "loss", *CALLING, *BY_FINDING, *GROUPED, *CERTAINTY, *INTERVALS)
        with reading(settings, known, "findings"):
            findings = tuple(str(name) for name in settings["findings"])
            counts = settings.get("counts")
            each = {name: numbers_by_name(settings.get(name)) for name in BY_FINDING}
            task = cls(
                findings,
                None if counts is None else {str(name): _whole(both) for name, both in counts.items()},
                str(settings.get("loss", "bce")),
                **calling_of(settings),
                thresholds=each["thresholds"],
                prevalence=each["prevalence"],
                certainty=Certainty.of(settings),
                grouped=GroupThresholds.of(settings),
            )
        task.grouped.check(findings)
        check_settings(findings, task.counts or {}, task.loss_name, each)
        return task

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values from which `of` makes equal findings."""
        return {
            "findings": list(self.findings),
            "counts": None if self.counts is None else {name: dict(both) for name, both in self.counts.items()},
            "loss": self.loss_name,
            "operating_point": self.operating_point,
            "operating_confidence": self.operating_confidence,
            "thresholds": None if self.thresholds is None else dict(self.thresholds),
            "prevalence": None if self.prevalence is None else dict(self.prevalence),
            **self.grouped.settings,
            **self.certainty.settings,
            **self.certainty.of_intervals,
        }

    @property
    def _point(self) -> OperatingPoint:
        """What thresholds keep to."""
        return OperatingPoint(self.operating_point, self.operating_confidence)

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
    def teaching(self) -> Teaching:
        """The mean AUROC over the findings selects."""
        return Teaching(
            selects_by="auroc",
            quality=self.quality,
            selection=self.selection,
            target_settings={"findings": list(self.findings)},
        )

    @property
    def decoding(self) -> Decoding:
        """Log odds become probabilities in the shares of the training cases."""
        return Decoding(
            merge="mean",
            mirrored=self.mirrored,
            average=self.average,
            probabilities=self.probabilities,
            decode=self.decode,
            outputs=self.outputs,
            targets=self.findings,
            picks=True,
            crossed=self.certainty.crossed("findings"),
            uncertainty="labels",
        )

    @property
    def scoring(self) -> Scoring:
        """Discrimination, calibration and calls of each finding, and their means."""
        shown = self._scores
        own = (shown.score, shown.summary, shown.rank, shown.figures, shown.overview, shown.results, shown.guess)
        return Scoring(METRICS, *own, case_values=shown.case_values, probable_findings=self.findings)

    @property
    def _scores(self) -> FindingScoring:
        return FindingScoring(
            self.findings, self.counts or {}, str(self._point), self.thresholds or {}, self.prevalence or {}
        )

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

    def fitted(self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin) -> dict[str, Decision]:
        """Nothing: decoding finds nothing by itself."""
        return {}

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Rows:
        """Probabilities of the findings before calibration, and whether each is there, NaN where it is not known."""
        outputs = [[uncalibrated_of(one)[name] for name in self.findings] for one in predictions]
        truth = np.stack([np.asarray(self.target(case).data, dtype=np.float64) for case in cases])
        patients = np.array([case.patient for case in cases])
        return Rows(np.array(outputs), truth, patients, [case.covariates for case in cases])

    @property
    def answers(self) -> Labels:
        """Findings, with a threshold for each."""
        calls = Calls(self._point, self.thresholds, self.grouped, str(DEFAULT_THRESHOLD))
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


def _whole(both: Mapping[str, Any]) -> dict[str, int]:
    return {str(side): int(count) for side, count in both.items()}
