"""The question of an enhancement: its settings, head, targets and loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from isocenter import errors
from isocenter.errors import DatasetError, PlanError, UsageError
from isocenter.evaluation import Metrics
from isocenter.lazy import torch
from isocenter.tasks.enhancement import losses, scoring
from isocenter.tasks.enhancement.answering import HEAD
from isocenter.tasks.enhancement.scoring import METRICS, PSNR, SNR, TARGET, ImageScoring
from isocenter.tasks.task import Outputs
from isocenter.tasks.task_settings import LOSS
from isocenter.transforms.augment import INTENSITY, SPATIAL
from isocenter.values import (
    Case,
    Dataset,
    Decision,
    DenseImage,
    Fingerprint,
    Head,
    Label,
    Sentence,
    Target,
    setting_fields,
)

if TYPE_CHECKING:
    from torch import Tensor

DNCNN, ZHAO = "arXiv:1608.03981", "arXiv:1511.08861"
# Digits in which the mean and the deviation of targets are kept.
DIGITS = 6
# What moves voxels without reading between them, and so leaves noise what it is.
EXACT = ("flips", "quarter_turns")


@dataclass(frozen=True)
class Enhancement(ImageScoring):
    """The image that an image should become, on its own grid: with less noise, fewer artefacts, or of another kind.

    channels:  of the target
    unit:      "input": the result has the unit of the image, and the network says what is to be added to it; "target":
               it has that of the training targets
    mean:      {channel: of the training targets}
    deviation: {channel: their standard deviation}, in which errors are stated, and by which targets of a unit of their
               own are standardised
    loss_name: "l1", "mse" or "ssim" (with some l1) of an image whose deviation is about 1
    """

    channels: tuple[str, ...] = setting_fields.setting(
        words=Sentence("The result has the channels {value}"), target=True
    )
    mean: Mapping[str, float] = setting_fields.setting(words=Sentence("The mean of targets is {each}"), target=True)
    deviation: Mapping[str, float] = setting_fields.setting(
        words=Sentence("The standard deviation of targets is {each}"), target=True
    )
    unit: Literal["input", "target"] = setting_fields.setting(
        "input", Sentence("Results have the unit of the {value}"), target=True
    )
    loss_name: Literal["l1", "mse", "ssim"] = setting_fields.setting(
        "mse", LOSS, name="loss", search=("l1", "mse", "ssim")
    )
    name: ClassVar[str] = "enhancement"
    needs: ClassVar[frozenset[str]] = frozenset({TARGET})
    selects_by: ClassVar[str] = SNR
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Channels, unit and statistics of the training targets; DatasetError where they differ in channels."""
        own = [case.references[TARGET] for case in fingerprint.cases if TARGET in case.references]
        where = str(dataset.root or dataset.name)
        if not own:
            raise DatasetError("no training case has a target", where, "Give targets, as in targets/ beside images/")
        names = {tuple(one["channels"]) for one in own}
        if len(names) > 1:
            raise DatasetError(f"targets of {len(names)} kinds of channels", where, "Give targets of one kind")
        [channels] = names
        mean, deviation = _pooled(own, channels)
        unit = _unit(own, channels, max(len(case.channels) for case in fingerprint.cases))
        counts = errors.count_phrase(len(own), "training target")
        return {
            "channels": Decision(list(channels), f"{counts} have these"),
            "unit": unit,
            "mean": Decision(mean, f"of {counts}"),
            "deviation": Decision(deviation, f"of {counts}: errors are stated in it"),
            "loss": Decision("mse", "PSNR judges, which is the logarithm of the squared error", ZHAO),
        }

    def check_and_fill(self) -> Self:
        """The same; PlanError names the setting that cannot be."""
        for setting in ("mean", "deviation"):
            numbers = getattr(self, setting)
            if set(numbers) != set(self.channels) or not all(map(math.isfinite, numbers.values())):
                raise PlanError(
                    f"{numbers}", f"task.{setting}", f"Give a number for each of {', '.join(self.channels)}"
                )
        if min(self.deviation.values()) <= 0:
            raise PlanError(f"{self.deviation}", "task.deviation", "Give numbers above 0")
        return self

    @property
    def heads(self) -> Mapping[str, Head]:
        """One head: a number a channel for every voxel, on the scale of the input's channel where it has its unit."""
        count = len(self.channels)
        return {
            HEAD: DenseImage(count, called=self.channels, of_input=tuple(range(count)) if self.unit == "input" else ())
        }

    @property
    def labels(self) -> tuple[Label, ...]:
        """None: no value of a result is a class."""
        return ()

    @property
    def channels_when_mirrored(self) -> tuple[int, ...]:
        """An image in the mirror is an image."""
        return tuple(range(self.heads[HEAD].count))

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Images as they are: nothing is clipped, cut away, resampled or changed but mirrored."""
        count = max(len(case.channels) for case in fingerprint.cases)
        exact = "the target would have to change alike, and noise that is read between voxels is another"
        return {
            "network.name": Decision("unet", "it gives an output for every voxel", "arXiv:1505.04597"),
            "preprocessing.normalisation": Decision(
                [{"method": "zscore", "tails": "linear"}] * count,
                "each image is scaled by its own mean and deviation; nothing is clipped, as results have its unit",
                DNCNN,
            ),
            "preprocessing.crop": Decision("none", "results cover all of the image"),
            **{f"augmentation.{kind}": Decision(0.0, exact) for kind in (*SPATIAL, *INTENSITY) if kind not in EXACT},
            "training.selection": Decision(
                SNR, "it is the squared error of each case beside the variance of its target"
            ),
            "evaluation.primary": Decision(PSNR, "it is what such networks are compared by", DNCNN),
        }

    def target(self, case: Case) -> Target:
        """(channels, *spatial) the target in its unit, or standardised; NaN where nothing was measured."""
        data = scoring.known_target(case)
        if data.shape[0] != len(self.channels):
            problem = f"its target has {data.shape[0]} channels, and {len(self.channels)} are learnt"
            raise DatasetError(problem, case.id, "Give targets of one kind")
        if self.unit == "target":
            data = (data - self._each(self.mean, data)) / self._each(self.deviation, data)
        return Target(self.heads[HEAD], data)

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The mean over the voxels that are known."""
        return losses.mean_cost(self.loss_name, outputs[HEAD].float()[:, : len(self.channels)], target)

    def quality(self, outputs: Outputs, target: Any) -> Mapping[str, Tensor]:
        """(batch, channels) squared errors, and the number, sum and sum of squares of the target."""
        known = target.isfinite()
        true = torch.where(known, target, 0.0).double()
        error = torch.where(known, outputs[HEAD][:, : target.shape[1]].double() - true, 0.0)
        sums = {"error": error**2, "count": known.double(), "sum": true, "squares": true**2}
        return {name: one.flatten(2).sum(dim=2) for name, one in sums.items()}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """The mean over cases of the variance of the target over the mean squared error, in dB."""
        each = {name: one.double().sum(dim=1).cpu().numpy() for name, one in collected.items()}
        known = each["count"] > 0
        error, count, total, squares = (each[name][known] for name in ("error", "count", "sum", "squares"))
        variance = np.maximum(squares / count - (total / count) ** 2, np.finfo(float).tiny)
        ratios = 10 * np.log10(variance / np.maximum(error / count, np.finfo(float).tiny))
        return float(ratios.mean()) if ratios.size else math.nan

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the sum of the image."""
        if target is not None:
            raise UsageError(f"there is no {target!r} to explain", self.name, "Leave the target out")
        return outputs[HEAD][:, : len(self.channels)].flatten(1).sum(dim=1)


def _pooled(own: Sequence[Mapping[str, Any]], channels: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """{channel: mean} and {channel: standard deviation} of all targets, each of which counts alike."""
    means, deviations = (np.array([one[key] for one in own], dtype=np.float64) for key in ("mean", "deviation"))
    mean = means.mean(axis=0)
    deviation = np.sqrt((deviations**2 + means**2).mean(axis=0) - mean**2)
    rounded = [
        {name: float(f"{one:.{DIGITS}g}") for name, one in zip(channels, numbers, strict=True)}
        for numbers in (mean, np.maximum(deviation, 1e-6))
    ]
    return rounded[0], rounded[1]


def _unit(own: Sequence[Mapping[str, Any]], channels: Sequence[str], inputs: int) -> Decision:
    """Whether targets have the unit of their images: most are as large as these, whatever noise these have."""
    same = sum(one["same_unit"] for one in own)
    because = f"{same} of {errors.count_phrase(len(own), 'training target')} rise and fall with their image by as much"
    if 2 * same > len(own) and len(channels) <= inputs:
        return Decision("input", f"{because}: the network learns what is to be added to it", DNCNN)
    return Decision("target", f"{because}: targets are of another kind or unit than images")
