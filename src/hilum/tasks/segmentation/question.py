"""Segmentation: one label for every voxel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, get_args

import numpy as np

from hilum.belief import Certainty, certainties, covering_results, prediction_sets, voxel_calibration
from hilum.belief.certainties import OF_VOXELS
from hilum.belief.dice_decoding import RANKSEG, Decoding
from hilum.errors import DatasetError, PlanError
from hilum.evaluation import Metrics
from hilum.tasks import properties
from hilum.tasks.segmentation import mask_losses, mask_postprocessing, partial_labels, targets
from hilum.tasks.segmentation.mask_losses import NEIGHBOURS, OF_SHARES
from hilum.tasks.segmentation.mask_postprocessing import NONE_OF_REGIONS, Tidying
from hilum.tasks.segmentation.partial_labels import CONSENSUS_NAMES
from hilum.tasks.segmentation.scoring import METRICS, MaskScoring
from hilum.tasks.segmentation.targets import MOST
from hilum.tasks.shared import (
    grid_and_length,
    label_losses,
    left_right,
    reference_labels,
    saliency,
    structure_findings,
)
from hilum.tasks.shared.grid_and_length import COARSEST
from hilum.tasks.shared.reference_labels import LABELS
from hilum.tasks.task import LabelPainting, Origin, Outputs, Uncertain
from hilum.transforms import orient
from hilum.values import (
    Case,
    Dataset,
    Decision,
    Dense,
    Fingerprint,
    Head,
    Label,
    Prediction,
    Setting,
    SettingsGroup,
    Target,
    grid_geometry,
    voxel_images,
)

if TYPE_CHECKING:
    from torch import Tensor


# A structure thinner than this (voxels) is nearly all surface; so is a piece of fewer voxels than a cube of 5.
THIN = 4.0
TINY = 125
# Voxels that the thinnest structure of pictures is still wide on the network's grid (median). Ventricles 27 pixels
# wide, six minutes on one busy core: Dice .90 on a grid half as fine, after 1,581 steps, beside .77 after 429.
FINE_ENOUGH = 12
# The same where training sees each picture a few times only. Vessels 8.8 pixels wide, four minutes on two cores: Dice
# .763 on a grid half as fine and .755 on one of two thirds, beside .685 on their own.
FINE_IN_HASTE = 4
# A piece so many times as long as it is wide is a line, as vessels and nerves are. Medians: a hippocampus' halves 5 and
# 7, gliomas with ragged outlines 6, the vessels of a retina 330.
LONG = 30.0
# Where structures fill less than this share of the voxels, nearly every voxel is easily classified as background.
SPARSE = 1e-3
# Labels whose volumes differ more than this many times are weighted, by at most this factor.
UNLIKE = 100.0
HEAVIEST = 10.0
CLDICE = "arXiv:2003.07311"
MAIER_HEIN = "doi:10.1038/s41592-023-02151-z"
LAKSHMINARAYANAN = "arXiv:1612.01474"


def parse_combinations(combinations_stated: Sequence[Sequence[str]] | None) -> tuple[tuple[str, ...], ...] | None:
    """The combinations of known structures of a plan or a record; ValueError for what is none."""
    if combinations_stated is not None and any(isinstance(own, str) or not own for own in combinations_stated):
        raise ValueError(f"{combinations_stated} are not lists of names")
    return None if combinations_stated is None else tuple(tuple(map(str, own)) for own in combinations_stated)


def parse_ratio_names(ratios: str | Sequence[str] | None) -> tuple[str, ...]:
    """The ratios of a plan or a record: one, or a list of them."""
    return (ratios,) if isinstance(ratios, str) else tuple(map(str, ratios or ()))


@dataclass(frozen=True)
class Segmentation(MaskScoring):
    """Every voxel gets one of the labels, or background (0).

    classes:        the labels, without the background: what the values of masks mean
    loss_name:      terms of `losses.TERMS`, joined with "+"
    tolerance:      mm within which a surface counts as found (voxels where no size is known), for all or by label name
    weights:        by label name, and "background": how much a voxel counts in the loss; 1 where none is given
    postprocessing: by label name; None until validation cases have decided
    several:        share of the training references in which a label has several pieces, by its name; None: unknown
    measures:       ratios of measurements that results state, "cdr = cup.short_axis_mm / disc.short_axis_mm"
    certainty:      how far the probabilities of voxels can be believed, and what makes them so
    expected_dice:  {structure: power that makes the true Dice of what its probabilities expect}; None: not found yet
    calibrated_map: whether calibrated outputs make the label map; None: nobody has compared, and they do not
    decoding:       what makes label maps: "argmax" the largest output, "dice" the Dice to expect of each structure's
                    mask; None: nobody has compared, and the largest output does
    centrelines:    names of labels that are lines (vessels, nerves); their centrelines are taught and measured
    regions:        {name: values} of structures that overlap, each an output of its own; the first value marks it in
                    the label map, where a later region overwrites an earlier one. Other settings go by their names
    ignore:         the value of masks for unknown voxels: they are neither learnt, nor sampled, nor scored
    background:     the value of masks for the background; results always hold 0 there
    sparse:         what is contoured: "voxels", most of which are ignored, "slices", all in some; None: all is known
    partial:        combinations of structures that cases know, other than all; what a case does not know is neither
                    learnt nor scored there
    readers:        how masks of several people become one, a name in `readers.CONSENSUS`; observers: their names
    """

    classes: Annotated[tuple[Label, ...], LABELS]
    loss_name: Annotated[
        str,
        Setting(
            name="loss", search=("dice+ce", "dice+focal", "dice+topk", "tversky+ce"), follows=partial_labels.suited_loss
        ),
    ] = "dice+ce"
    tolerance: Annotated[Mapping[str, float] | float, Setting(unit="voxels", preregistered="tolerance")] = 2.0
    weights: Annotated[Mapping[str, float] | None, Setting(always=True)] = None
    postprocessing: Annotated[
        Mapping[str, Tidying] | None, Setting(always=True, read=mask_postprocessing.parse_rules, tuned=True)
    ] = None
    centrelines: tuple[str, ...] = ()
    regions: Annotated[Mapping[str, tuple[int, ...]] | None, Setting(target=True)] = None
    ignore: Annotated[int | None, Setting(zero_counts=True, target=True)] = None
    background: Annotated[int, Setting(target=True)] = 0
    sparse: Annotated[Literal["voxels", "slices"] | None, Setting(target=True)] = None
    partial: Annotated[tuple[tuple[str, ...], ...] | None, Setting(read=parse_combinations, target=True)] = None
    readers: Annotated[str, Setting(choices=CONSENSUS_NAMES, noun="rule of readers", target=True)] = "first"
    observers: Annotated[tuple[str, ...], Setting(target=True)] = ()
    several: Mapping[str, float] | None = None
    measures: Annotated[tuple[str, ...], Setting(read=parse_ratio_names)] = ()
    certainty: Annotated[Certainty, SettingsGroup(OF_VOXELS)] = field(default_factory=Certainty)
    expected_dice: Annotated[Mapping[str, float] | None, Setting(tuned=True)] = None
    calibrated_map: Annotated[bool | None, Setting(tuned=True)] = None
    decoding: Annotated[Decoding | None, Setting(tuned=True)] = None
    name: ClassVar[str] = "segmentation"
    needs: ClassVar[frozenset[str]] = frozenset({"mask"})
    selects_by: ClassVar[str] = "dice"
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Labels, loss, tolerances and the like for these training cases; DatasetError where every mask is empty."""
        partly = partial_labels.decide_partial_settings(dataset, fingerprint)
        silent = {0, partly["ignore"].value, partly["background"].value}
        voxels = {value: count for value, count in fingerprint.voxels().items() if value not in silent}
        if not voxels:
            where = str(dataset.root or dataset.name)
            raise DatasetError("every training mask is empty", where, "Give masks that mark something")
        declared = tuple(label for label in dataset.classes.get("mask", ()) if label.value not in silent)
        because = "the data set declares them"
        if not declared:
            declared = tuple(Label(value, str(value)) for value in voxels)
            because = f"they are the values of {len(fingerprint)} training masks; none were declared"
        structures = dataset.regions or {label.name: (label.value,) for label in declared}
        partial = partial_labels.decide_combinations(list(structures), dataset, fingerprint)
        # In a case that does not know a structure nobody has counted its voxels: there it is as large as in the others.
        knowing_cases = partial_labels.cases_by_structure(list(structures), dataset, fingerprint)
        counts = {
            name: round(sum(voxels.get(value, 0) for value in values) * len(fingerprint) / knowing_cases[name])
            for name, values in structures.items()
        }
        marked = sum(voxels.values())
        if partial.value is not None:  # regions lie in the largest of them
            marked = max(counts.values()) if dataset.regions else sum(counts.values())
        thin = {} if dataset.regions else _thin(declared, fingerprint)
        unknown = fingerprint.voxels().get(partly["ignore"].value, 0) if partly["ignore"].value is not None else 0
        # A voxel of which nothing is known breaks a line, and so does a slice that nobody contoured.
        complete = not dataset.regions and partly["ignore"].value is None and partly["sparse"].value is None
        lines = _lines(declared, fingerprint) if complete else {}
        return {
            "labels": Decision(reference_labels.plain_labels(declared), because),
            "loss": _loss(thin, lines, marked, sum(fingerprint.voxels().values()) - unknown, partly),
            "centrelines": _centrelines(lines),
            "weights": _weights(counts),
            "tolerance": _tolerance(list(structures), thin, fingerprint),
            "postprocessing": Decision(
                None, "it is chosen on the validation cases after training, and off unless it helps them"
            ),
            "several": _several(declared, fingerprint),
            **partly,
            "partial": partial,
            "measures": Decision([], "nobody asked for a ratio of measurements"),
            **certainties.certainty_decisions(),
            **covering_results.risk_decisions(),
            **prediction_sets.interval_decisions(),
            "calibrated_map": Decision(
                None,
                "label maps follow the uncalibrated outputs unless calibrated ones surely raise the Dice of unseen "
                "cases",
            ),
            "decoding": Decision(None, "argmax, unless unseen cases gain by masks decoded for Dice", RANKSEG),
            "expected_dice": Decision(None, "it is fitted to predictions of unseen cases after training"),
        }

    def check_and_fill(self) -> Self:
        """Keep tolerances of regions, without what is no label; PlanError names the setting that cannot be."""
        silent = {self.ignore, self.background} - {0, None}
        labels = tuple(label for label in self.classes if label.value not in silent)
        regions = self.regions or None
        tolerance = partial_labels.tolerance_of_regions(self.tolerance, labels, regions)
        task = replace(self, classes=labels, regions=regions, tolerance=tolerance)
        check_partly(task)
        by_structure = (task.tolerances, task.weights or {}, task.postprocessing or {}, task.centrelines)
        structure_findings.ratios_from(task.measures, [label.name for label in labels], "task.measures")
        check_settings(task.names, labels, task.loss_name, *by_structure)
        voxel_calibration.check_voxel_calibration(
            task.certainty.calibration_method, task.probable, task.expected_dice, task.calibrated_map
        )
        return task

    @property
    def heads(self) -> Mapping[str, Head]:
        """One dense head: background and labels, or one output for each region."""
        return {"mask": Dense(len(self.writes))}

    @property
    def labels(self) -> tuple[Label, ...]:
        """The meaning of the values of label maps."""
        return self.classes

    @property
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
        """The output that each becomes in a mirrored image; None where a side has no counterpart among the names."""
        order = left_right.counterpart_places(self.names)
        if not self.exclusive or self.is_divided:  # a value of the target is no channel: what has a side stays
            return order if order == tuple(range(len(self.names))) else None
        return None if order is None else (0, *(place + 1 for place in order))

    @property
    def target_sides(self) -> tuple[int, ...] | None:
        """Sides as in `channels_when_mirrored`; where cases know some structures only, also what their codes become."""
        counterparts = self.channels_when_mirrored
        if self.partial and orient.names_sides(counterparts) and counterparts is not None:
            return self.truth.sides_changed(counterparts)
        return counterparts

    @property
    def outside(self) -> int | None:
        """The value of masks beyond the image."""
        return self.truth.outside

    @property
    def painting(self) -> LabelPainting:
        """Each label, and each way in which readers are divided, is painted as one."""
        rows = self.truth.codes.rows.tolist()
        return LabelPainting(((*rows, max(rows) + 1),))

    @property
    def why_uncut(self) -> str:
        """The term of the loss that needs whole structures."""
        return label_losses.why_loss_uncut(self.loss_name)

    @property
    def uncertainty(self) -> Uncertain:
        """Classes, or structures each of which is there or not."""
        return "classes" if self.exclusive else "labels"

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A U-Net that is selected and judged by Dice, and where little is contoured, patches about what is."""
        return {**decide_mask_settings(self.labels, fingerprint), **self.under("natural")}

    def under(self, sampling: str) -> dict[str, Decision]:
        """Patches about what is contoured, where masks are known in parts; nothing follows from the sampling."""
        foreground = Decision(1.0, "patches without a voxel that somebody contoured teach nothing")
        return {} if self.sparse is None else {"training.foreground": foreground}

    def target(self, case: Case) -> Target:
        """Label values to the numbers that `truth.codes` explains: label numbers, background 0.

        Raises GeometryError where mask and image lie on different grids, DatasetError for a value without a label.
        """
        reference_labels.refuse_other_image_grid("mask", case.references["mask"], properties.first_image(case), case.id)
        return Target(self.heads["mask"], self.truth.encode_case(case), self.truth.sought, self.truth.outside)

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The sum of the terms in `loss_name` over the known voxels; target: (batch, *spatial) codes."""
        weights = None if self.weights is None else [self.weights.get(n, 1.0) for n in ("background", *self.names)]
        lines = [self.names.index(name) + 1 for name in self.centrelines] or None
        logits = outputs["mask"].float()
        codes = target.long()
        return mask_losses.mask_loss(self.loss_name, logits, codes, self.truth, self.exclusive, weights, lines, spacing)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, structures) known voxels in both label maps, and in the two counted together."""
        logits = outputs["mask"]
        truth = self.truth
        shares = mask_losses.group_shares(truth.groups, logits.new_tensor(truth.codes.shares))
        structures_known = mask_losses.known_structures(truth, logits)
        both, size = mask_losses.overlap_counts(
            logits, target, shares, truth.codes.unknown, structures_known, exclusive=self.exclusive
        )
        return {"both": both, "size": size}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Mean Dice over cases and labels; a label that neither side has is left out."""
        return mask_losses.mean_dice(collected["both"], collected["size"])

    def fit_settings(
        self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin
    ) -> dict[str, Decision]:
        """The post-processing that helps these cases, unless it is set."""
        if self.postprocessing and self.answers is not None:
            because = "the post-processing that was chosen by hand is for label maps of the network's own outputs"
            maps = {"calibrated_map": False, "decoding": "argmax"}
            return {f"task.{name}": Decision(m, because) for name, m in maps.items() if getattr(self, name) is None}
        if self.postprocessing is not None:
            return {}
        if not self.exclusive:
            return {"task.postprocessing": NONE_OF_REGIONS}
        _, decision = mask_postprocessing.choose_rules(
            predictions, cases, self.classes, self.truth.reference_map, self.several or {}
        )
        return {"task.postprocessing": decision}

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) mean logit of what is marked as the structure, without one as any."""
        return saliency.structure_logit(outputs["mask"], tuple(self.structures), target, exclusive=self.exclusive)


def _several(labels: Sequence[Label], fingerprint: Fingerprint) -> Decision:
    """Share of the training references in which each label has several pieces."""
    counts = {label.name: _components(label, fingerprint) for label in labels}
    shares = {name: round(float(np.mean(np.array(own) > 1)), 4) for name, own in counts.items() if own}
    words = [f"label {name} in {sum(n > 1 for n in own)} of {len(own)}" for name, own in counts.items() if own]
    return Decision(shares, f"training references with several pieces: {', '.join(words)}")


def _components(label: Label, fingerprint: Fingerprint) -> list[int]:
    return [case.components[label.value] for case in fingerprint.cases if case.components.get(label.value)]


def decide_mask_settings(labels: Sequence[Label], fingerprint: Fingerprint) -> dict[str, Decision]:
    """The network, the reduction of pictures, and the metric that selects and judges."""
    return {
        "preprocessing.reduction": _reduction(labels, fingerprint, FINE_ENOUGH),
        COARSEST: _reduction(labels, fingerprint, FINE_IN_HASTE),
        "network.name": Decision("unet", "it gives an output for every voxel", "arXiv:1505.04597"),
        "training.networks": Decision(
            None,
            "where the minutes are enough for several networks, these share them: the loss "
            "of a mean of probabilities is "
            "never above the mean of their losses",
            LAKSHMINARAYANAN,
        ),
        "training.selection": Decision("dice", "it is the mean over labels of the validation cases"),
        "evaluation.primary": Decision("dice", "overlap is what the task asks for", MAIER_HEIN),
    }


def _reduction(labels: Sequence[Label], fingerprint: Fingerprint, enough: float) -> Decision:
    """The factor by which pictures are finer than the thinnest structure needs; volumes keep their grid.

    enough: voxels that have to be left of its width
    """
    if grid_and_length.network_axes(fingerprint) != 2:
        return Decision(1.0, "a volume may have few slices along an axis, so patches keep their grid")
    widths = {label.name: _width(label, fingerprint) for label in labels}
    thinnest = min(widths, key=widths.__getitem__)
    if math.isinf(widths[thinnest]):
        return Decision(1.0, "the width of the structures was not measured")
    return grid_and_length.decide_coarser_grid(
        fingerprint, widths[thinnest], enough, f"{thinnest} is {widths[thinnest]:.3g} voxels wide"
    )


def check_settings(
    structures: Sequence[str],
    labels: Sequence[Label],
    loss: str,
    tolerance: Mapping[str, float],
    weights: Mapping[str, float],
    postprocessing: Mapping[str, Tidying],
    centrelines: Sequence[str] = (),
) -> None:
    """PlanError names the setting that cannot be; the last four are by the name of a structure."""
    values = {label.value for label in labels}
    names = set(structures)
    if not labels or min(len(values), len({label.name for label in labels})) < len(labels) or 0 in values:
        remedy = "Give each structure its own value and name"
        raise PlanError("labels must be different and not 0", "task.labels", remedy)
    if len(labels) > MOST:
        problem = f"{len(labels)} labels, and a segmentation learns at most {MOST}"
        raise PlanError(problem, "task.labels", "Leave structures out with --labels, or join some to one value")
    label_losses.check_label_loss(loss, bool(weights), centrelines)
    named = (("tolerance", tolerance), ("weights", weights), ("postprocessing", postprocessing))
    for asked, named_ones in (*named, ("centrelines", centrelines)):
        others = sorted(set(named_ones) - names - ({"background"} if asked == "weights" else set()))
        if others:
            raise PlanError(f"there is no label {others[0]!r}", f"task.{asked}", f"Name {', '.join(sorted(names))}")
    for asked, numbers in (("tolerance", tolerance), ("weights", weights)):
        for name, number in numbers.items():
            if not 0 < number < math.inf:
                raise PlanError(f"{number} for {name}", f"task.{asked}", "Give a number greater than 0")
    if missing := sorted(names - set(tolerance)):
        raise PlanError(f"none for {missing[0]}", "task.tolerance", "Give one for each label, or one for all")


def _thin(labels: Sequence[Label], fingerprint: Fingerprint) -> dict[str, str]:
    """{label: in words why its surface is nearly all of it}"""
    reasons = {}
    for label in labels:
        width = _width(label, fingerprint)
        piece = _median(_pieces(label, fingerprint))
        if width < THIN:
            reasons[label.name] = f"{label.name} is {width:.1f} voxels thin"
        elif piece < TINY:
            reasons[label.name] = f"a piece of {label.name} has {piece:.0f} voxels"
    return reasons


def _lines(labels: Sequence[Label], fingerprint: Fingerprint) -> dict[str, str]:
    """{label: in words why it has a centreline}"""
    reasons = {}
    for label in labels:
        times = [case.elongation[label.value] for case in fingerprint.cases if label.value in case.elongation]
        if times and _median(times) >= LONG:
            reasons[label.name] = (
                f"{label.name} is {_width(label, fingerprint):.1f} voxels thin and {_median(times):.0f} times as long"
            )
    return reasons


def _width(label: Label, fingerprint: Fingerprint) -> float:
    return _median([case.thickness[label.value] for case in fingerprint.cases if label.value in case.thickness])


def _pieces(label: Label, fingerprint: Fingerprint) -> list[float]:
    """Voxels of a piece of the label, the mean of each case that has one."""
    return [
        case.references["mask"][label.value] / case.components[label.value]
        for case in fingerprint.cases
        if case.components.get(label.value) and case.references.get("mask", {}).get(label.value)
    ]


def _centrelines(lines: Mapping[str, str]) -> Decision:
    if not lines:
        return Decision([], "no label is long and thin, so that none has a centreline to measure")
    because = f"{'; '.join(lines.values())} (medians of the training cases): a break costs little overlap"
    return Decision(list(lines), because, CLDICE)


def _loss(
    thin: Mapping[str, str],
    lines: Mapping[str, str],
    marked: int,
    of_all: int,
    partly: Mapping[str, Decision],
) -> Decision:
    """marked: voxels of structures; of_all: voxels, the background's too"""
    all_known = partly["ignore"].value is None
    if lines:
        because = f"{'; '.join(lines.values())} (medians of the training cases): the loss should penalise breaks"
        return Decision("dice+ce+cldice", because, CLDICE)
    if thin and all_known:
        because = f"{'; '.join(thin.values())} (medians of the training cases): nearly all of it is surface"
        return Decision("dice+ce+boundary", because, "arXiv:1905.07852")
    share = marked / max(1, of_all)
    if share < SPARSE:
        because = f"structures fill {100 * share:.3f} % of the voxels: easy background should count little"
        return Decision("dice+focal", because, "doi:10.1016/j.media.2021.102035")
    which = "voxels" if all_known else "known voxels"
    because = (
        f"structures fill {100 * share:.1f} % of the {which}: overlap and voxel-wise terms together train stably "
        "with small and with large ones"
    )
    return Decision("dice+ce", because, "doi:10.1038/s41592-020-01008-z")


def _weights(voxels: Mapping[str, int]) -> Decision:
    counts = {name: count for name, count in voxels.items() if count}
    ratio = max(counts.values(), default=1) / min(counts.values(), default=1)
    if len(counts) < 2:
        return Decision(None, "one structure is contoured, and Dice weighs it against the background")
    if ratio <= UNLIKE:
        because = f"the volumes of the labels differ at most {ratio:.1f} times, and Dice counts each label alike"
        return Decision(None, because)
    rarest = min(counts, key=lambda name: counts[name])
    middle = float(np.median(list(counts.values())))
    weights = {name: round(float(np.clip((middle / n) ** 0.5, 1, HEAVIEST)), 3) for name, n in counts.items()}
    because = f"{rarest} has {ratio:.0f} times fewer voxels than the largest label: root of the inverse volume"
    return Decision(weights, because)


def _tolerance(names: Sequence[str], thin: Mapping[str, str], fingerprint: Fingerprint) -> Decision:
    step = float(np.median(fingerprint.steps))
    physical = all(case.physical for case in fingerprint.cases)
    digits = max(3, 2 - math.floor(math.log10(step)))
    value: dict[str, float] = {name: round((1 if name in thin else 2) * step, digits) for name in names}
    because = (
        f"two {grid_geometry.pixels_or_voxels(fingerprint.axes)} of the median spacing {step:.3g} {fingerprint.unit}"
        if physical
        else f"two {grid_geometry.pixels_or_voxels(fingerprint.axes)}: the spacing is not known"
    )
    if thin:
        because += f"; one for {', '.join(thin)}, of which two would be the whole"
    return Decision(value, because, MAIER_HEIN)


def _median(values: Sequence[float]) -> float:
    """Infinite where nobody measured."""
    return float(np.median(values)) if len(values) else float("inf")


def check_partly(task: Segmentation) -> None:
    """PlanError names the setting that cannot be."""
    _check_regions({label.value for label in task.classes}, task.regions or {})
    if task.ignore is not None and task.ignore == task.background:
        remedy = "Say with --labels which value is ignore and which is background"
        raise PlanError(f"{task.ignore} cannot be both to ignore and background", "task.ignore", remedy)
    if task.sparse not in (None, "voxels", "slices"):
        raise PlanError(f"{task.sparse!r} says nothing of masks", "task.sparse", "Give voxels, slices or none")
    if task.decoding not in (None, *get_args(Decoding)):
        problem = f"{task.decoding!r} is no rule that makes label maps"
        raise PlanError(problem, "task.decoding", f"Choose one of {', '.join(get_args(Decoding))}")
    if task.is_divided and task.loss_name not in OF_SHARES:
        problem = f"{task.loss_name} cannot learn the share of readers"
        raise PlanError(problem, "task.loss", f"Choose --set task.loss={OF_SHARES[0]}, or majority for task.readers")
    _check_known(task)
    if partial_labels.looks_at_unknown(vars(task)) and (near := sorted(NEIGHBOURS & set(task.loss_name.split("+")))):
        problem = f"{near[0]} looks at a voxel's neighbours, and not all of them are known"
        raise PlanError(problem, "task.loss", "Choose --set task.loss=dice+ce")


def _check_known(task: Segmentation) -> None:
    if strange := sorted({name for own in task.partial or () for name in own} - set(task.names)):
        remedy = f"Name {', '.join(task.names)}, or declare labels and regions with --labels, as cases know them"
        raise PlanError(f"there is no structure {strange[0]!r} that a case could know", "task.partial", remedy)
    values = [label.value for label in task.classes]
    known_sets = partial_labels.known_combinations(task.partial, task.names)
    held = tuple(targets.labels_held(values, task.structures, own) for own in known_sets)
    # Refuses too many combinations, and too many ways in which readers are divided.
    _ = targets.codes_for_readers(len(values), len(task.observers) if task.is_divided else 1, held).unknown


def _check_regions(values: set[int], regions: Mapping[str, Sequence[int]]) -> None:
    for name, labels_of_region in regions.items():
        if not labels_of_region or not set(labels_of_region) <= values:
            problem = f"{name} is made of {list(labels_of_region)}, and labels have the values {sorted(values)}"
            raise PlanError(problem, "task.regions", "Give values of task.labels")
    if overwritten := voxel_images.find_hidden_region(regions):
        name, later = overwritten
        problem = f"{name} is marked by {regions[name][0]}, which {later} holds too"
        raise PlanError(problem, "task.regions", "Put first in each region the value that no later region holds")
