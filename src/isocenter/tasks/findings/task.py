"""Findings of the whole image that do not exclude each other, each present or absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from isocenter.errors import PlanError
from isocenter.evaluation import THRESHOLD, Seed, Table, auroc, folds_of
from isocenter.lazy import pandas as pd
from isocenter.lazy import torch
from isocenter.report import Figure, figures
from isocenter.tasks.answers import Decoding, Guess, Outputs, Scoring, Teaching, Traits, stated_image
from isocenter.tasks.findings.losses import BALANCED, balance, finding_loss
from isocenter.tasks.findings.plan import SENTENCES, check_settings, decisions, settings_for
from isocenter.tasks.findings.scores import (
    ABSENT,
    DEFAULT_THRESHOLD,
    METRICS,
    PRESENT,
    called_of,
    overview,
    summary_rows,
)
from isocenter.tasks.shared import (
    PROBABILITY_NAMES,
    Shares,
    chosen_thresholds,
    crossed,
    mean_of,
    numbers_by_name,
    reading,
    unkept_rule,
)
from isocenter.tasks.task import Task
from isocenter.values import (
    Array,
    Case,
    Dataset,
    Decision,
    Finding,
    Fingerprint,
    Floats,
    Geometry,
    Head,
    Label,
    Prediction,
    Row,
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
    thresholds:      {finding: that probability}; None until they have decided
    prevalence:      {finding: share of all people} for predictive values; None: of the cases that are scored
    """

    findings: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]] | None = None
    loss_name: str = "bce"
    operating_point: str = "youden"
    thresholds: Mapping[str, float] | None = None
    prevalence: Mapping[str, float] | None = None

    name: ClassVar[str] = "findings"
    needs: ClassVar[frozenset[str]] = frozenset({"findings"})
    traits: ClassVar[Traits] = Traits(
        tunes=("thresholds",),
        registers={"operating_point": "operating point", "prevalence": "prevalence"},
        case_metric="brier",
        # Not the losses whose probabilities are not to be believed: a metric of ranks would not notice.
        search_values={"loss": ("bce", "class_balanced")},
        unkept=unkept_rule,
        sentences=SENTENCES,
        metric_names=PROBABILITY_NAMES,
        errors=frozenset({"brier", "ece"}),
        label_word="finding",
    )

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Findings, loss and operating point for these training cases; DatasetError where none can be learnt."""
        return settings_for(dataset, fingerprint)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Findings:
        """Findings with these settings; PlanError names the one that cannot be."""
        known = ("findings", "counts", "loss", "operating_point", *BY_FINDING)
        with reading(settings, known, "findings"):
            findings = tuple(str(name) for name in settings["findings"])
            counts = settings.get("counts")
            each = {name: numbers_by_name(settings.get(name)) for name in BY_FINDING}
            task = cls(
                findings,
                None if counts is None else {str(name): _whole(both) for name, both in counts.items()},
                str(settings.get("loss", "bce")),
                settings.get("operating_point", "youden"),
                **each,
            )
        check_settings(findings, task.counts or {}, task.loss_name, task.operating_point, each)
        return task

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values from which `of` makes equal findings."""
        return {
            "findings": list(self.findings),
            "counts": None if self.counts is None else {name: dict(both) for name, both in self.counts.items()},
            "loss": self.loss_name,
            "operating_point": self.operating_point,
            "thresholds": None if self.thresholds is None else dict(self.thresholds),
            "prevalence": None if self.prevalence is None else dict(self.prevalence),
        }

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
        )

    @property
    def scoring(self) -> Scoring:
        """Discrimination, calibration and calls of each finding, and their means."""
        return Scoring(
            metrics=METRICS,
            score=self.score,
            summary=self.summary,
            rank=self.rank,
            figures=self.figures,
            overview=self.overview,
            results=self.results,
            guess=self.guess,
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
        probabilities = self.probabilities(arrays)["findings"].tolist()
        return Prediction(geometry, probabilities=dict(zip(self.findings, probabilities, strict=True)))

    def tuned(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> tuple[Task, dict[str, Decision]]:
        """The task with thresholds by the operating point's rule; those that are set already stay."""
        if self.thresholds is not None or not cases:
            return self, {}
        known = called_of(self.score(predictions, cases), self.findings, self.operating_point)
        if not known:
            because = "no unseen case says anything of a finding"
            return replace(self, thresholds={}), {"task.thresholds": Decision({}, because)}
        chosen = {name: (own.scores, own.truth) for name, own in known.items()}
        levels, decision = chosen_thresholds(self.operating_point, chosen, str(DEFAULT_THRESHOLD))
        return replace(self, thresholds=levels), {"task.thresholds": decision}

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and finding of which it is known: reference, predicted, probability, brier."""
        rows: list[dict[str, Any]] = []
        for prediction, case in zip(predictions, cases, strict=True):
            probabilities, called = self._probabilities(prediction), self._called(prediction)
            for name, present in case.references["findings"].items():
                if name in self.findings:
                    rows.append(
                        {
                            "case": case.id,
                            "patient": case.patient,
                            "label": name,
                            "reference": PRESENT if present else ABSENT,
                            "predicted": PRESENT if called[name] else ABSENT,
                            "probability": probabilities[name],
                            THRESHOLD: (self.thresholds or {}).get(name),
                            "brier": (probabilities[name] - present) ** 2,
                        }
                    )
        columns = ["case", "patient", "label", "reference", "predicted", "probability", THRESHOLD, "brier"]
        return pd.DataFrame(rows, columns=columns)

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Each metric as the mean over findings, then by finding; patients are resampled with all their findings."""
        known = called_of(table, self.findings, self.operating_point)
        return summary_rows(table, known, self.prevalence or {}, seed=seed)

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The image, with the probabilities and the findings of the reference in the caption."""
        caption = ", ".join(f"{name} {p:.2f}" for name, p in self._probabilities(prediction).items())
        if (known := case.references.get("findings")) is not None:
            present = ", ".join(name for name, is_present in known.items() if is_present)
            caption += f"; reference {present or 'none of the known'}"
        return [figures.contours(stated_image(case), None, None, (), title=case.id, caption=caption)]

    def overview(self, table: Table) -> list[Figure]:
        """Discrimination of all findings, calibration and confusion of the first."""
        return overview(called_of(table, self.findings, self.operating_point), folds_of(table))

    def guess(self, table: Table) -> Guess:
        """The share of the training cases that have each finding, as if no image had been looked at."""
        shares = self._shares(table)
        chances = table["label"].map(shares).astype(float)
        called = chances >= table["label"].map(
            {name: (self.thresholds or {}).get(name, DEFAULT_THRESHOLD) for name in shares}
        )
        guessed = table.assign(
            predicted=np.where(called, PRESENT, ABSENT),
            probability=chances,
            brier=(chances - (table["reference"] == PRESENT)) ** 2,
        )
        return Guess(guessed, {"": "giving each finding its share among the training cases"}, ("auroc",))

    def _shares(self, table: Table) -> dict[str, float]:
        """{finding: share of the training cases that have it}; of these cases where it was not counted."""
        if self.counts:
            return {name: self.counts[name][PRESENT] / max(1, sum(self.counts[name].values())) for name in self.counts}
        own = table.groupby("label")["reference"]
        return {str(name): float((references == PRESENT).mean()) for name, references in own}

    def rank(self, table: Table) -> list[str]:
        """Case ids by the mean Brier score of their findings."""
        return table.groupby("case")["brier"].mean().sort_values(kind="stable").index.tolist()

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """The probability of each finding, and whether it is called."""
        probabilities, called = self._probabilities(prediction), self._called(prediction)
        return {
            **{f"probability_{name}": probabilities[name] for name in self.findings},
            **{f"called_{name}": called[name] for name in self.findings},
        }

    def saliency(self, outputs: Outputs) -> Tensor:
        """(batch,) what a heat map explains: the log odds of the likeliest finding."""
        return outputs["findings"].amax(dim=-1)

    def results(self, prediction: Prediction) -> list[Finding]:
        """Whether each finding is called, with its probability."""
        called = self._called(prediction)
        return [Finding(name, value=called[name], probability=p) for name, p in self._probabilities(prediction).items()]

    def _probabilities(self, prediction: Prediction) -> Mapping[str, float]:
        assert prediction.probabilities is not None  # noqa: S101 - `decode` always gives them
        return prediction.probabilities

    def _called(self, prediction: Prediction) -> dict[str, bool]:
        levels = self.thresholds or {}
        probabilities = self._probabilities(prediction)
        return {name: bool(probabilities[name] >= levels.get(name, DEFAULT_THRESHOLD)) for name in self.findings}

    @property
    def _balance(self) -> Floats:
        """(findings, 2) how much absence and presence count in the loss."""
        counts = self.counts or {}
        absent, present = (
            np.array([counts[name][side] for name in self.findings], dtype=np.float64) for side in (ABSENT, PRESENT)
        )
        return balance(absent, present)

    def _likely(self, outputs: Floats) -> Floats:
        """(..., findings) log odds to probabilities, brought back to the shares of the training cases."""
        odds = np.asarray(outputs, dtype=np.float64)
        if self.loss_name in BALANCED:
            odds = odds - np.log(self._balance[:, 1] / self._balance[:, 0])
        return np.asarray(np.exp(-np.logaddexp(0.0, -odds)))


def _whole(both: Mapping[str, Any]) -> dict[str, int]:
    return {str(side): int(count) for side, count in both.items()}
