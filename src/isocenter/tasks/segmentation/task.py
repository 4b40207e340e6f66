"""Segmentation: one label for every voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from isocenter.evaluation import volume_unit
from isocenter.files import Spool
from isocenter.lazy import torch
from isocenter.tasks.answers import Decoding, Outputs, Scoring, Teaching, Traits, stated_image
from isocenter.tasks.segmentation.loss import known_voxels, overlap_counts, shares_of, target_loss
from isocenter.tasks.segmentation.partial_labels import PARTLY, check_partly, of_regions, partly_from, suited_loss
from isocenter.tasks.segmentation.plan import SENTENCES, check_settings, decisions, settings_for
from isocenter.tasks.segmentation.postprocessing import NONE_OF_REGIONS, choose, tidying_from
from isocenter.tasks.segmentation.scores import METRICS, NAMES, OF_READERS, voxel_in_unit
from isocenter.tasks.segmentation.scoring import MaskScoring
from isocenter.tasks.segmentation.targets import Truth
from isocenter.tasks.shared import (
    Shares,
    Tidying,
    crossed,
    label_from,
    label_loss,
    log_mean,
    mean_of,
    numbers_by_name,
    plain,
    reading,
    refuse_other_image_grid,
    sigmoid,
    softmax,
    tidied,
    uncut,
    written,
)
from isocenter.tasks.task import Task
from isocenter.transforms import winners
from isocenter.values import (
    Array,
    Case,
    Dataset,
    Decision,
    Dense,
    Finding,
    Fingerprint,
    Geometry,
    Head,
    Label,
    Prediction,
    Slabs,
    Target,
    blocks,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Segmentation:
    """Every voxel gets one of the labels, or background (0).

    classes:        the labels, without the background: what the values of masks mean
    loss_name:      terms of `losses.TERMS`, joined with "+"
    tolerance:      mm within which a surface counts as found (pixels where no size is known), for all or by label name
    weights:        by label name, and "background": how much a voxel counts in the loss; 1 where none is given
    postprocessing: by label name; None until validation cases have decided
    several:        share of the training references in which a label has several pieces, by its name; None: unknown
    centrelines:    names of labels that are lines (vessels, nerves); their centrelines are taught and measured
    regions:        {name: values} of structures that overlap, each an output of its own; the first value marks it in
                    the label map, where a later region overwrites an earlier one. Other settings go by their names
    ignore:         the value of masks for unknown voxels: they are neither learnt, nor sampled, nor scored
    background:     the value of masks for the background; results always hold 0 there
    sparse:         what is drawn: "voxels", most of which are to be ignored, "slices", all in some; None: all is known
    readers:        how masks of several people become one, a name in `readers.CONSENSUS`; observers: their names
    """

    classes: tuple[Label, ...]
    loss_name: str = "dice+ce"
    tolerance: Mapping[str, float] | float = 2.0
    weights: Mapping[str, float] | None = None
    postprocessing: Mapping[str, Tidying] | None = None
    centrelines: tuple[str, ...] = ()
    regions: Mapping[str, tuple[int, ...]] | None = None
    ignore: int | None = None
    background: int = 0
    sparse: Literal["voxels", "slices"] | None = None
    readers: str = "first"
    observers: tuple[str, ...] = ()
    several: Mapping[str, float] | None = None

    name: ClassVar[str] = "segmentation"
    needs: ClassVar[frozenset[str]] = frozenset({"mask"})
    traits: ClassVar[Traits] = Traits(
        tunes=("postprocessing",),
        registers={"tolerance": "tolerance"},
        case_metric="dice",
        cascades=True,
        search_values={"loss": ("dice+ce", "dice+focal", "dice+topk", "tversky+ce")},
        suited=suited_loss,
        sentences=SENTENCES,
        metric_names=NAMES,
        errors=frozenset({"hd95", "assd", "false_positive_volume", "components_error", "loops_error"}),
        label_word="structure",
    )

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Labels, loss, tolerances and the like for these training cases; DatasetError where every mask is empty."""
        return settings_for(dataset, fingerprint)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Segmentation:
        """A segmentation with these settings; PlanError names the one that cannot be."""
        known = ("labels", "loss", "tolerance", "weights", "postprocessing", "several", "centrelines", *PARTLY)
        with reading(settings, known, "a segmentation"):
            partly = partly_from(settings)
            silent = {partly["ignore"], partly["background"]} - {0, None}
            labels = tuple(label for entry in settings["labels"] if (label := label_from(entry)).value not in silent)
            rules = settings.get("postprocessing")
            if partly["regions"] is not None:
                settings = {**settings, "tolerance": of_regions(settings["tolerance"], labels, partly["regions"])}
            task = cls(
                labels,
                settings["loss"],
                _tolerance(settings["tolerance"]),
                numbers_by_name(settings.get("weights")),
                None if rules is None else {name: tidying_from(rule) for name, rule in rules.items()},
                tuple(str(name) for name in settings.get("centrelines") or ()),
                several=numbers_by_name(settings.get("several")),
                **partly,
            )
        check_partly(labels, task.loss_name, partly)
        each = (task.tolerances, task.weights or {}, task.postprocessing or {}, task.centrelines)
        check_settings(task.names, labels, task.loss_name, *each)
        return task

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values from which `of` makes an equal segmentation."""
        rules = self.postprocessing
        return {
            "labels": [plain(label) for label in self.classes],
            "loss": self.loss_name,
            "tolerance": dict(self.tolerance) if isinstance(self.tolerance, Mapping) else self.tolerance,
            **{name: given and dict(given) for name, given in (("weights", self.weights), ("several", self.several))},
            "postprocessing": None if rules is None else {name: asdict(rule) for name, rule in rules.items()},
            "centrelines": list(self.centrelines),
            "regions": None if self.regions is None else {name: list(values) for name, values in self.regions.items()},
            "ignore": self.ignore,
            "background": self.background,
            "sparse": self.sparse,
            "readers": self.readers,
            "observers": list(self.observers),
        }

    @property
    def heads(self) -> Mapping[str, Head]:
        """One dense head: background and labels, or one output for each region."""
        return {"mask": Dense(len(self.writes))}

    @property
    def labels(self) -> tuple[Label, ...]:
        """The meaning of the values of label maps."""
        return self.classes

    @property
    def channel_labels(self) -> tuple[Label, ...]:
        """The meaning of the outputs, without the background's."""
        if self.regions is None:
            return self.classes
        return tuple(Label(values[0], name) for name, values in self.regions.items())

    @property
    def structures(self) -> Mapping[str, tuple[int, ...]]:
        """{name: values} of what is scored and measured, and about which patches are centred."""
        if self.regions is not None:
            return self.regions
        return {label.name: (label.value,) for label in self.classes}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the structures."""
        return tuple(self.structures)

    @property
    def tolerances(self) -> Mapping[str, float]:
        """{structure: mm} within which its surface counts as found."""
        return self.tolerance if isinstance(self.tolerance, Mapping) else dict.fromkeys(self.names, self.tolerance)

    @property
    def exclusive(self) -> bool:
        """Whether its outputs are classes, of which the largest wins; else each is a structure of its own."""
        return self.regions is None

    @property
    def is_divided(self) -> bool:
        """Whether the share of the readers is taught."""
        return self.readers == "soft" and len(self.observers) > 1

    @property
    def writes(self) -> tuple[int, ...]:
        """For each output the value that it marks; where they overlap a later one overwrites an earlier one."""
        if self.regions is not None:
            return tuple(values[0] for values in self.regions.values())
        return (0, *(label.value for label in self.classes))

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        """The output that each becomes in a mirrored image; None where a side has no counterpart among the names."""
        order = crossed(self.names)
        if not self.exclusive or self.is_divided:
            # A value of the target is no channel here: what has a side is not mirrored.
            return order if order == tuple(range(len(self.names))) else None
        return None if order is None else (0, *(place + 1 for place in order))

    @property
    def teaching(self) -> Teaching:
        """Dice over the validation cases selects; targets depend on how masks are read."""
        settings = self.settings
        return Teaching(
            selects_by="dice",
            quality=self.quality,
            selection=self.selection,
            target_settings={
                "labels": [label.value for label in self.classes],
                **{name: settings[name] for name in PARTLY},
            },
            outside=self._outside,
            uncut=uncut(self.loss_name),
        )

    @property
    def decoding(self) -> Decoding:
        """Windows are merged by Gaussian weights, and outputs become a label map slab by slab."""
        return Decoding(
            merge="gaussian",
            mirrored=self.mirrored,
            average=self.average,
            probabilities=self.probabilities,
            decode=self.decode,
            outputs=self.outputs,
            averaged=("mask",) if self.exclusive else (),
            channel_labels=self.channel_labels,
            exclusive=self.exclusive,
        )

    @property
    def scoring(self) -> Scoring:
        """Overlap, surface distances and volumes of each structure."""
        masks = MaskScoring(self.classes, self.structures, self.tolerances, self.centrelines, self.truth)
        return Scoring(
            metrics=METRICS | OF_READERS if len(self.observers) > 1 else METRICS,
            score=masks.score,
            summary=masks.summary,
            rank=masks.rank,
            figures=masks.figures,
            overview=masks.overview,
            results=self.results,
        )

    @property
    def _outside(self) -> int | None:
        return self.truth.codes.unknown if self.truth.is_partial else None

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A U-Net that is selected and judged by Dice, and where little is drawn, patches about what is."""
        return {**decisions(), **self.under("natural")}

    def under(self, sampling: str) -> dict[str, Decision]:
        """Patches about what is drawn, where masks are known in parts; nothing follows from the sampling."""
        if self.sparse is None:
            return {}
        return {"training.foreground": Decision(1.0, "patches without a voxel that somebody drew teach nothing")}

    def target(self, case: Case) -> Target:
        """Label values to the numbers that `truth.codes` explains: label numbers, background 0.

        Raises GeometryError where mask and image lie on different grids, DatasetError for a value without a label.
        """
        refuse_other_image_grid("mask", case.references["mask"], stated_image(case), case.id)
        return Target(self.heads["mask"], self.truth.coded(case), self.truth.sought, self._outside)

    @property
    def truth(self) -> Truth:
        """The reading of masks, for training and for scoring."""
        return Truth(
            tuple(label.value for label in self.classes),
            tuple(self.structures.values()),
            self.ignore,
            self.background,
            self.sparse,
            self.readers,
            len(self.observers) if self.is_divided else 1,
        )

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The sum of the terms in `loss_name` over the known voxels; target: (batch, *spatial) codes."""
        logits, weights = outputs["mask"].float(), None
        if self.weights is not None:
            weights = logits.new_tensor([self.weights.get(name, 1.0) for name in ("background", *self.names)])
        name, target, truth = self.loss_name, target.long(), self.truth
        if truth.is_partial:
            logits, target = known_voxels(logits, target, truth.codes.unknown)
        if self.exclusive and not truth.is_divided:
            lines = [self.names.index(name) + 1 for name in self.centrelines] or None
            return label_loss(name, logits, target, weights, lines, spacing) if target.numel() else logits.sum()
        groups = [(0,), *truth.groups] if self.exclusive else truth.groups
        shares = shares_of(groups, logits.new_tensor(truth.codes.shares))
        return target_loss(name, logits, target, shares, weights, not self.exclusive, truth.is_divided, spacing)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, structures) known voxels in both label maps, and in the two counted together."""
        logits, truth = outputs["mask"], self.truth
        shares = shares_of(truth.groups, logits.new_tensor(truth.codes.shares))
        both, size = overlap_counts(logits, target, shares, truth.codes.unknown, exclusive=self.exclusive)
        return {"both": both, "size": size}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Mean Dice over cases and labels; a label that neither side has is left out."""
        there = collected["size"] > 0
        dice = 2 * collected["both"] / collected["size"].clamp(min=1)
        return float(dice[there].mean()) if there.any() else float("nan")

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The logarithm of the mean probability of classes; of regions the mean of their log odds."""
        if self.exclusive:
            return {"mask": log_mean([one["mask"] for one in outputs], shares=shares)}
        return {"mask": mean_of([one["mask"] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """(channels, ...) probability of the background and each label, or of each region."""
        return {"mask": softmax(arrays["mask"]) if self.exclusive else sigmoid(arrays["mask"])}

    def marked(self, outputs: Array) -> Array:
        """(channels, ...) outputs of a part of the grid to label values: of the largest, or the last likely one."""
        if not self.exclusive:
            return written(outputs, self.writes)
        return np.array(self.writes, dtype=np.min_scalar_type(max(self.writes)))[winners(outputs)]

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Label values, tidied; what no slab covers (cut away before the network) is background."""
        mask = Spool(geometry.shape, np.min_scalar_type(max(label.value for label in self.classes)))
        for region, arrays in slabs:
            mask[region] = self.marked(arrays["mask"])
        given = self.postprocessing or {}
        rules = {label.value: given[label.name] for label in self.classes if label.name in given}
        if all(rule == Tidying() for rule in rules.values()):
            return Prediction(geometry, data=mask.data, labels=self.classes)
        # A connected piece can reach from one end to the other: it takes the whole map, of a byte a voxel.
        whole = tidied(np.asarray(mask.data), rules, geometry.voxel_volume or 1.0)
        return Prediction(geometry, data=whole, labels=self.classes)

    def tuned(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> tuple[Task, dict[str, Decision]]:
        """The task with the post-processing that helps these cases; one that is set already stays."""
        if self.postprocessing is not None:
            return self, {}
        if not self.exclusive:
            return replace(self, postprocessing={}), {"task.postprocessing": NONE_OF_REGIONS}
        rules, decision = choose(predictions, cases, self.classes, self.truth.of, self.several or {})
        return replace(self, postprocessing=rules), {"task.postprocessing": decision}

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """The volume of each structure, in ml where the size of a voxel is known."""
        assert prediction.data is not None  # noqa: S101 - as decoded
        voxels = np.zeros(max(label.value for label in self.classes) + 1)
        for _, part in blocks(prediction.data):
            voxels += np.bincount(np.ravel(part), minlength=len(voxels))
        size = voxel_in_unit(prediction.geometry)
        unit = volume_unit(prediction.geometry).replace("mm²", "mm2")
        return {
            f"{name}_{unit}": round(float(voxels[list(values)].sum()) * size, 6)
            for name, values in self.structures.items()
        }

    def saliency(self, outputs: Outputs) -> Tensor:
        """(batch,) mean logit of what was marked as any structure."""
        logits = outputs["mask"]
        best = logits[:, 1 if self.exclusive else 0 :].amax(dim=1, keepdim=True)
        rest = logits[:, :1] if self.exclusive else torch.zeros_like(best)
        marked = (best > rest).to(logits.dtype)
        return (best * marked).flatten(1).sum(dim=1) / marked.flatten(1).sum(dim=1).clamp(min=1)

    def results(self, prediction: Prediction) -> list[Finding]:
        """The volume of each structure, with the label's code."""
        volumes = self.outputs(prediction)
        return [
            Finding(label.name, value=value, unit=column.rsplit("_", 1)[-1], code=label.code)
            for label, (column, value) in zip(self.channel_labels, volumes.items(), strict=True)
        ]


def _tolerance(given: Any) -> Mapping[str, float] | float:
    if isinstance(given, Mapping):
        return {str(name): float(value) for name, value in given.items()}
    return float(given)
