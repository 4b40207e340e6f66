"""The question of an enhancement: its settings, head, targets and loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, PlanError, UsageError
from hilum.evaluation import Metrics
from hilum.lazy import torch
from hilum.tasks.enhancement import answering, losses
from hilum.tasks.enhancement.answering import HEAD, TARGET
from hilum.tasks.enhancement.scoring import METRICS, PSNR, SNR, ImageScoring
from hilum.tasks.task import Outputs
from hilum.transforms.augment import INTENSITY, SPATIAL
from hilum.values import Case, Dataset, Decision, DenseImage, Fingerprint, Head, Label, Setting, Target
from hilum.values.reference_kind import TargetMeasures
from hilum.values.setting_fields import StatedSettings
from hilum.values.voxel_images import UNKNOWN_TARGET

if TYPE_CHECKING:
    from torch import Tensor

DNCNN = "arXiv:1608.03981"
ZHAO = "arXiv:1511.08861"
NOISE2VOID = "arXiv:1811.10980"
# The objective that teaches where nobody knows a target, and what names the terms.
BLIND = "blind_spot"
TERMS = "objectives.terms"
# What is measured in place of `quality` where objectives need no references.
MINUS_LOSS = "minus_loss"
# Digits in which the mean and the deviation of targets are kept.
DIGITS = 6
# What moves voxels without reading between them, and so leaves noise what it is.
EXACT = ("flips", "quarter_turns")


def open_factor(settings: StatedSettings) -> dict[str, Decision]:
    """The factor of error bars is decided where there are none."""
    return {} if settings["error_bars"] else {"task.error_factor": Decision(1.0, "there are no error bars")}


def _plain(value: Mapping[str, Sequence[float]] | None) -> dict[str, list[float]] | None:
    """{corruption: [least, most]} as plans have it."""
    return None if value is None else {str(name): list(ends) for name, ends in value.items()}


def _supervision(dataset: Dataset) -> dict[str, Decision]:
    """What teaches: pairs where the set has targets, else damaged images that were made of clean ones."""
    made = dataset.derived.get(TARGET)
    if made == UNKNOWN_TARGET:
        return {
            "supervision": Decision(BLIND, "no image has a target: what neighbours do not tell of a voxel is noise"),
            "damage": Decision(None, "no damage was asked for"),
            "draws": Decision(None, "nothing is random"),
            "error_bars": Decision(False, "nobody knows the clean image, and so no error"),
        }
    because = made or "the data set has targets"
    is_measured = "scan" in dataset.derived
    return {
        "supervision": Decision("simulated" if made and not is_measured else "pairs", because),
        "damage": Decision(None, "no damage was asked for"),
        "draws": Decision(None, "as many as fit into memory, four at the most" if made else because),
    }


def _scale(own: Sequence[TargetMeasures], where: str) -> Decision:
    """The factor by which targets are finer; DatasetError where it differs."""
    scales = {tuple(one["scale"]) for one in own}
    if len(scales) > 1:
        problem = f"targets are finer than their images by {' and '.join(map(str, sorted(scales)))}"
        raise DatasetError(problem, where, "Give targets of one kind")
    [scale] = scales
    if max(scale) == 1:
        return Decision(None, "targets have the grid of their images")
    return Decision(list(scale), "targets have so much finer a grid: images are brought onto it, and results lie on it")


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
    supervision:  "pairs" of images and targets; "simulated": damaged images are made of clean ones
    damage:       {corruption: [least, most]} of these, in the units of `transforms.corruptions`
    draws:        damaged images of each clean one; None: four, or as many as fit into memory
    scale:        by which whole factor targets are finer along each axis; None where they have the grid of their images
    error_bars:   whether the network states the deviation of each voxel too
    coverage:     of a patient's voxels the share that error bars are to hold
    error_factor: by which stated deviations are multiplied; None until cases that did not train have decided
    """

    channels: Annotated[tuple[str, ...], Setting(target=True)]
    mean: Annotated[Mapping[str, float], Setting(target=True)]
    deviation: Annotated[Mapping[str, float], Setting(target=True)]
    unit: Annotated[Literal["input", "target"], Setting(target=True)] = "input"
    loss_name: Annotated[Literal["l1", "mse", "ssim"], Setting(name="loss", search=("l1", "mse", "ssim"))] = "mse"
    supervision: Literal["pairs", "simulated", "blind_spot"] = "pairs"
    damage: Annotated[Mapping[str, Sequence[float]] | None, Setting(read=_plain, plain=_plain)] = None
    draws: int | None = None
    scale: tuple[int, ...] | None = None
    error_bars: Annotated[bool, Setting(follows=open_factor)] = True
    coverage: float = 0.9
    error_factor: Annotated[float | None, Setting(tuned=True)] = None
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
        if len(channels) == 1 and (column := dataset.columns.get(TARGET)) is not None:
            channels = (column,)
        mean, deviation = _pooled(own, channels)
        unit = _unit(own, channels, max(len(case.channels) for case in fingerprint.cases))
        counts = errors.count_phrase(len(own), "training target")
        return {
            "channels": Decision(list(channels), f"{counts} have these"),
            "unit": unit,
            "mean": Decision(mean, f"of {counts}"),
            "deviation": Decision(deviation, f"of {counts}: errors are stated in it"),
            "scale": _scale(own, where),
            "error_bars": Decision(True, "the deviation of each voxel is learnt beside it, and changes nothing else"),
            **_supervision(dataset),
            "coverage": Decision(0.9, "nine in ten voxels of a patient"),
            "error_factor": Decision(None, "cases that do not train decide"),
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
        if not 0 < self.coverage < 1:
            raise PlanError(f"{self.coverage}", "task.coverage", "Give more than 0 and less than 1, as in 0.9")
        if self.error_factor is not None and not 0 < self.error_factor < math.inf:
            raise PlanError(f"{self.error_factor}", "task.error_factor", "Give a number above 0")
        for setting in ("draws", "scale"):
            least = np.min(getattr(self, setting) or 1)
            if least < 1:
                raise PlanError(f"{getattr(self, setting)}", f"task.{setting}", "Give whole numbers from 1 on")
        return self

    @property
    def heads(self) -> Mapping[str, Head]:
        """One head: a number a channel for every voxel, on the scale of the input's channel where it has its unit.

        Behind these the logarithms of their deviations, where there are error bars.
        """
        count = len(self.channels)
        times = 2 if self.error_bars else 1
        of_input = tuple(range(count)) if self.unit == "input" else ()
        deviations = count * (times - 1)
        return {HEAD: DenseImage(count * times, called=self.channels, of_input=of_input, deviations=deviations)}

    @property
    def labels(self) -> tuple[Label, ...]:
        """None: no value of a result is a class."""
        return ()

    @property
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
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
            **({TERMS: Decision([BLIND], "no image has a target", NOISE2VOID)} if self.supervision == BLIND else {}),
        }

    def target(self, case: Case) -> Target:
        """(channels, *spatial) the target in its unit, or standardised; NaN where nothing was measured."""
        data = answering.known_target(case)
        if data.shape[0] != len(self.channels):
            problem = f"its target has {data.shape[0]} channels, and {len(self.channels)} are learnt"
            raise DatasetError(problem, case.id, "Give targets of one kind")
        if self.unit == "target":
            data = (data - self._each(self.mean, data)) / self._each(self.deviation, data)
        return Target(self.heads[HEAD], data)

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The mean over the voxels that are known; deviations learn from the errors, which learn nothing from them."""
        made, logs = outputs[HEAD].float().tensor_split([len(self.channels)], dim=1)
        cost = losses.mean_cost(self.loss_name, made, target)
        if not self.error_bars:
            return cost
        # Beside a small squared error the whole of it would shape what both are made of.
        return cost + losses.DEVIATION_SHARE * cost.detach() * losses.deviation_cost(made, logs, target)

    def quality(self, outputs: Outputs, target: Any) -> Mapping[str, Tensor]:
        """(batch, channels) squared errors, and the number, sum and sum of squares of the target."""
        known = target.isfinite()
        true = torch.where(known, target, 0.0).double()
        error = torch.where(known, outputs[HEAD][:, : target.shape[1]].double() - true, 0.0)
        sums = {"error": error**2, "count": known.double(), "sum": true, "squares": true**2}
        return {name: one.flatten(2).sum(dim=2) for name, one in sums.items()}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """The mean over cases of the variance of the target over the mean squared error, in dB.

        Where objectives teach that need no target, minus their mean loss: nobody looks at a target then.
        """
        if MINUS_LOSS in collected:
            return float(collected[MINUS_LOSS].double().mean())
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


def _pooled(own: Sequence[TargetMeasures], channels: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """{channel: mean} and {channel: standard deviation} of all targets, each of which counts alike."""
    means, deviations = (np.array([one[key] for one in own], dtype=np.float64) for key in ("mean", "deviation"))
    mean = means.mean(axis=0)
    deviation = np.sqrt((deviations**2 + means**2).mean(axis=0) - mean**2)
    rounded = [
        {name: float(f"{one:.{DIGITS}g}") for name, one in zip(channels, numbers, strict=True)}
        for numbers in (mean, np.maximum(deviation, 1e-6))
    ]
    return rounded[0], rounded[1]


def _unit(own: Sequence[TargetMeasures], channels: Sequence[str], inputs: int) -> Decision:
    """Whether targets have the unit of their images: most are as large as these, whatever noise these have."""
    same = sum(one["same_unit"] for one in own)
    because = f"{same} of {errors.count_phrase(len(own), 'training target')} rise and fall with their image by as much"
    if 2 * same > len(own) and len(channels) <= inputs:
        return Decision("input", f"{because}: the network learns what is to be added to it", DNCNN)
    return Decision("target", f"{because}: targets are of another kind or unit than images")
