"""Segmentation: one label for every voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from isocenter.belief import (
    ECE,
    FOUND,
    OF_VOXEL_BELIEF,
    Certainty,
    Rows,
    VoxelAnswers,
    VoxelProbabilities,
    VoxelStream,
    check_voxels,
)
from isocenter.files import Spool
from isocenter.tasks.answers import Decoding, Origin, Outputs, Scoring, Teaching, Traits
from isocenter.tasks.properties import stated_image
from isocenter.tasks.segmentation.loss import mask_loss, mean_dice, overlap_counts, shares_of
from isocenter.tasks.segmentation.partial_labels import PARTLY, check_partly, numbers_of, partly_from, tolerance_from
from isocenter.tasks.segmentation.plan import KNOWN, SENTENCES, check_settings, decisions, settings_for, suited
from isocenter.tasks.segmentation.postprocessing import NONE_OF_REGIONS, choose, settled_map, tidying_from
from isocenter.tasks.segmentation.scores import ERRORS, METRICS, NAMES, OF_READERS, mask_columns, structure_volumes
from isocenter.tasks.segmentation.scoring import STRUCTURE, MaskScoring
from isocenter.tasks.segmentation.targets import Truth
from isocenter.tasks.shared import (
    EACH,
    Shares,
    Tidying,
    crossed,
    label_from,
    log_mean,
    mean_of,
    of_structure,
    plain,
    reading,
    refuse_other_image_grid,
    uncut,
)
from isocenter.values import (
    Array,
    Case,
    Dataset,
    Decision,
    Deferred,
    Dense,
    Finding,
    Fingerprint,
    Geometry,
    Head,
    Label,
    Prediction,
    Slabs,
    Target,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Segmentation:
    """Every voxel gets one of the labels, or background (0).

    classes:        the labels, without the background: what the values of masks mean
    loss_name:      terms of `losses.TERMS`, joined with "+"
    tolerance:      mm within which a surface counts as found (voxels where no size is known), for all or by label name
    weights:        by label name, and "background": how much a voxel counts in the loss; 1 where none is given
    postprocessing: by label name; None until validation cases have decided
    several:        share of the training references in which a label has several pieces, by its name; None: unknown
    certainty:      how far the probabilities of voxels can be believed, and what makes them so
    expected_dice:  {structure: power that makes the true Dice of what its probabilities expect}; None: not found yet
    calibrated_map: whether calibrated outputs make the label map; None: nobody has compared, and they do not
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
    certainty: Certainty = field(default_factory=Certainty)
    expected_dice: Mapping[str, float] | None = None
    calibrated_map: bool | None = None

    name: ClassVar[str] = "segmentation"
    needs: ClassVar[frozenset[str]] = frozenset({"mask"})
    traits: ClassVar[Traits] = Traits(
        tunes=("postprocessing", *FOUND, "calibrated_map", "expected_dice", "covering", "conformal"),
        registers={"tolerance": "tolerance"},
        case_metric="dice",
        cascades=True,
        search_values={"loss": ("dice+ce", "dice+focal", "dice+topk", "tversky+ce")},
        suited=suited,
        audited=("dice",),
        belief=OF_VOXEL_BELIEF,
        calibration=(ECE,),
        sentences=SENTENCES,
        metric_names=NAMES,
        errors=ERRORS,
        label_word=STRUCTURE,
    )

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Labels, loss, tolerances and the like for these training cases; DatasetError where every mask is empty."""
        return settings_for(dataset, fingerprint)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Segmentation:
        """A segmentation with these settings; PlanError names the one that cannot be."""
        with reading(settings, KNOWN, "a segmentation"):
            partly, by_name = partly_from(settings), numbers_of(settings)
            silent = {partly["ignore"], partly["background"]} - {0, None}
            labels = tuple(label for entry in settings["labels"] if (label := label_from(entry)).value not in silent)
            rules = settings.get("postprocessing")
            task = cls(
                labels,
                settings["loss"],
                tolerance_from(settings["tolerance"], labels, partly["regions"]),
                postprocessing=None if rules is None else {name: tidying_from(rule) for name, rule in rules.items()},
                centrelines=tuple(str(name) for name in settings.get("centrelines") or ()),
                calibrated_map=settings.get("calibrated_map"),
                certainty=Certainty.of(settings),
                **by_name,
                **partly,
            )
        check_partly(labels, task.loss_name, partly)
        each = (task.tolerances, task.weights or {}, task.postprocessing or {}, task.centrelines)
        check_settings(task.names, labels, task.loss_name, *each)
        check_voxels(task.certainty.calibration_method, task.probable, task.expected_dice, task.calibrated_map)
        return task

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values from which `of` makes an equal segmentation."""
        by_name = {"weights": self.weights, "several": self.several, "expected_dice": self.expected_dice}
        return {
            "labels": [plain(label) for label in self.classes],
            "loss": self.loss_name,
            "tolerance": dict(self.tolerance) if isinstance(self.tolerance, Mapping) else self.tolerance,
            **{name: given and dict(given) for name, given in by_name.items()},
            "postprocessing": self.postprocessing and {n: asdict(rule) for n, rule in self.postprocessing.items()},
            "centrelines": list(self.centrelines),
            "calibrated_map": self.calibrated_map,
            "regions": None if self.regions is None else {name: list(values) for name, values in self.regions.items()},
            "ignore": self.ignore,
            "background": self.background,
            "sparse": self.sparse,
            "readers": self.readers,
            "observers": list(self.observers),
            **self.certainty.settings,
            **self.certainty.of_covering,
            **self.certainty.of_intervals,
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
        regions = (self.regions or {}).items()
        return self.classes if self.exclusive else tuple(Label(values[0], name) for name, values in regions)

    @property
    def structures(self) -> Mapping[str, tuple[int, ...]]:
        """{name: values} of what is scored and measured, and about which patches are centred."""
        return {one.name: (one.value,) for one in self.channel_labels} if self.regions is None else self.regions

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
    def tells_structures(self) -> bool:
        """Whether label maps say what is true of the outputs, of which voxels are sampled."""
        return True

    @property
    def is_divided(self) -> bool:
        """Whether the share of the readers is taught."""
        return self.readers == "soft" and len(self.observers) > 1

    @property
    def writes(self) -> tuple[int, ...]:
        """For each output the value that it marks; where they overlap a later one overwrites an earlier one."""
        return (*([0] if self.exclusive else []), *(label.value for label in self.channel_labels))

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        """The output that each becomes in a mirrored image; None where a side has no counterpart among the names."""
        order = crossed(self.names)
        if not self.exclusive or self.is_divided:  # a value of the target is no channel: what has a side stays
            return order if order == tuple(range(len(self.names))) else None
        return None if order is None else (0, *(place + 1 for place in order))

    @property
    def teaching(self) -> Teaching:
        """Dice over the validation cases selects; targets depend on how masks are read."""
        partly = {name: self.settings[name] for name in PARTLY}
        return Teaching(
            selects_by="dice",
            quality=self.quality,
            selection=self.selection,
            target_settings={"labels": [[label.value, label.name] for label in self.classes], **partly},
            outside=self.truth.outside,
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
            targets=tuple(self.structures),
            marks=self.structures,
            crossed=self.certainty.crossed("mask"),
            uncertainty="classes" if self.exclusive else "labels",
            states_evidence=self.exclusive and "evidential" in self.loss_name.split("+"),
        )

    @property
    def scoring(self) -> Scoring:
        """Overlap, surface distances and volumes of each structure."""
        how = (self.tolerances, self.centrelines, self.truth, self.probable, self.certainty.covers_from)
        metrics = METRICS | OF_READERS if len(self.observers) > 1 else METRICS
        return MaskScoring(self.classes, self.structures, *how).answers(metrics, self.results)

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A U-Net that is selected and judged by Dice, and where little is drawn, patches about what is."""
        return {**decisions(self.labels, fingerprint), **self.under("natural")}

    def under(self, sampling: str) -> dict[str, Decision]:
        """Patches about what is drawn, where masks are known in parts; nothing follows from the sampling."""
        drawn = Decision(1.0, "patches without a voxel that somebody drew teach nothing")
        return {} if self.sparse is None else {"training.foreground": drawn}

    def target(self, case: Case) -> Target:
        """Label values to the numbers that `truth.codes` explains: label numbers, background 0.

        Raises GeometryError where mask and image lie on different grids, DatasetError for a value without a label.
        """
        refuse_other_image_grid("mask", case.references["mask"], stated_image(case), case.id)
        return Target(self.heads["mask"], self.truth.coded(case), self.truth.sought, self.truth.outside)

    @property
    def truth(self) -> Truth:
        """The reading of masks, for training and for scoring."""
        values, readers = tuple(label.value for label in self.classes), len(self.observers) if self.is_divided else 1
        drawn = (self.ignore, self.background, self.sparse, self.readers)
        return Truth(values, tuple(self.structures.values()), *drawn, readers)

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The sum of the terms in `loss_name` over the known voxels; target: (batch, *spatial) codes."""
        weights = None if self.weights is None else [self.weights.get(n, 1.0) for n in ("background", *self.names)]
        lines = [self.names.index(name) + 1 for name in self.centrelines] or None
        logits, codes = outputs["mask"].float(), target.long()
        return mask_loss(self.loss_name, logits, codes, self.truth, self.exclusive, weights, lines, spacing)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, structures) known voxels in both label maps, and in the two counted together."""
        logits, truth = outputs["mask"], self.truth
        shares = shares_of(truth.groups, logits.new_tensor(truth.codes.shares))
        both, size = overlap_counts(logits, target, shares, truth.codes.unknown, exclusive=self.exclusive)
        return {"both": both, "size": size}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Mean Dice over cases and labels; a label that neither side has is left out."""
        return mean_dice(collected["both"], collected["size"])

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The logarithm of the mean probability of classes; of regions the mean of their log odds."""
        each = [one["mask"] for one in outputs]
        return {"mask": log_mean(each, shares=shares) if self.exclusive else mean_of(each, shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """(channels, ...) calibrated probability of the background and each label, or of each region."""
        return {"mask": self.probable(arrays["mask"])}

    @property
    def probable(self) -> VoxelProbabilities:
        """What makes probabilities, and label maps, of outputs."""
        names = ("background", *self.names) if self.exclusive else self.names
        return VoxelProbabilities(
            names, self.exclusive, self.certainty.calibrator, self.writes, bool(self.calibrated_map)
        )

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Label values, tidied; background where no slab is. Calibrated probabilities say what Dice is expected."""
        structures, given = tuple(self.structures.values()), (self.probable, self.certainty, self.expected_dice)
        stream = VoxelStream(geometry, structures, *given, samples=self.tells_structures)
        mask = Spool(geometry.shape, np.min_scalar_type(max(self.writes)))
        for region, arrays in slabs:
            mask[region] = stream.take(region, arrays["mask"], arrays.get(f"mask{EACH}"))
        whole = self.settled(mask.data, geometry)
        confidence, untuned = stream.stated(whole)
        data = mask.data if whole is None else whole
        return Prediction(geometry, data=data, labels=self.classes, confidence=confidence, untuned=untuned)

    def settled(self, data: Array | Deferred, geometry: Geometry) -> Array | None:
        """The tidied label map; None where all stays."""
        return settled_map(data, self.classes, self.postprocessing or {}, geometry)

    def fitted(self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin) -> dict[str, Decision]:
        """The post-processing that helps these cases, unless it is set."""
        if self.postprocessing and self.calibrated_map is None and self.answers is not None:
            because = "the post-processing that was chosen by hand is for label maps of the network's own outputs"
            return {"task.calibrated_map": Decision(False, because)}
        if self.postprocessing is not None:
            return {}
        if not self.exclusive:
            return {"task.postprocessing": NONE_OF_REGIONS}
        _, decision = choose(predictions, cases, self.classes, self.truth.of, self.several or {})
        return {"task.postprocessing": decision}

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Rows:
        """Predictions with their sampled voxels, and functions that read what people drew."""
        truth = [partial(self.truth.of, case) for case in cases]
        return Rows(predictions, truth, np.array([case.patient for case in cases]))

    @property
    def answers(self) -> VoxelAnswers | None:
        """Labels of voxels; None where the share of divided readers is taught, which is no class."""
        if self.is_divided or not self.tells_structures:
            return None
        given = (tuple(self.structures.values()), self.probable, self.calibrated_map, self.expected_dice)
        return VoxelAnswers(self.certainty, "mask", *given, self.settled)

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """The volume of each structure, in ml where voxels have a size, its interval, and the Dice that is expected."""
        return mask_columns(prediction, self.structures)

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) mean logit of what is marked as the structure, without one as any."""
        return of_structure(outputs["mask"], tuple(self.structures), target, exclusive=self.exclusive)

    def results(self, prediction: Prediction) -> list[Finding]:
        """The volume of each structure, with the label's code."""
        each = zip(self.channel_labels, structure_volumes(prediction, self.structures).items(), strict=True)
        return [Finding(one.name, value, column.rsplit("_", 1)[-1], code=one.code) for one, (column, value) in each]
