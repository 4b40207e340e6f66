"""Instance segmentation: every object has a number of its own, and a class where there are several.

A network predicts for each voxel whether it is inside an object, and how far from the border; a watershed from the tops
of these hills parts objects that touch, in two and three axes alike: Naylor et al., IEEE Trans Med Imaging 2019,
doi:10.1109/TMI.2018.2865709. Of several classes it also predicts that of each voxel: Graham et al., Med Image Anal
2019, doi:10.1016/j.media.2019.101563.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from hilum import errors
from hilum.belief import Certainty, certainties, covering_results
from hilum.belief.certainties import CERTAINTY, COVERING, METHODS_OF_MANY
from hilum.belief.object_belief import FEWEST_OBJECTS
from hilum.errors import DatasetError, PlanError
from hilum.evaluation import Metrics, instances
from hilum.evaluation.instances import InstanceOverlap
from hilum.lazy import torch
from hilum.tasks import properties
from hilum.tasks.instances import answering
from hilum.tasks.instances.answering import HEAD, INSIDE, OF_CLASS, PROMINENCE, GridSettings, ObjectDecoder
from hilum.tasks.instances.scoring import METRICS, ObjectScoring
from hilum.tasks.shared import label_losses, left_right, reference_labels, saliency
from hilum.tasks.task import Origin, Outputs, Uncertain
from hilum.values import (
    Array,
    Case,
    CaseFacts,
    Dataset,
    Decision,
    Dense,
    Fingerprint,
    Head,
    Label,
    Merge,
    Prediction,
    Setting,
    SettingsGroup,
    Target,
)
from hilum.values.prediction import Instances
from hilum.values.voxel_images import Deferred

if TYPE_CHECKING:
    from torch import Tensor


NAYLOR = "doi:10.1109/TMI.2018.2865709"
CAICEDO = "doi:10.1038/s41592-019-0612-7"
GRAHAM = "doi:10.1016/j.media.2019.101563"
# In voxels of the shortest side: less shows no hill, and farther from a border nothing changes for the eye.
LEAST_REACH, MOST_REACH = 2.0, 12.0
# Of the training objects so many per cent may be slips of the pen; half of what is left is no object.
SLIPS = 1.0
# What is tried on them.
TRIED: Mapping[str, tuple[float, ...]] = {
    "inside": (0.3, 0.4, INSIDE, 0.6, 0.7),
    "prominence": (0.1, PROMINENCE, 0.3, 0.4),
}


@dataclass(frozen=True)
class InstanceSegmentation(ObjectScoring):
    """Objects, which may touch.

    steps:      sides of a voxel of the network's grid, the shortest being 1
    reach:      in these, how far from its border an object gets higher
    smallest:   mm² or mm³, voxels where their size is not known: what is smaller is no object
    in_voxels:  whether sizes count voxels wherever their size is known, as where it was not known in training
    inside:     probability from which a voxel belongs to an object; None until validation cases have decided
    prominence: share of its height by which an object stands out from a higher one that it touches; likewise
    certainty:  how far scores can be believed, that from which on objects miss little, and what makes them so
    classes:    names, where there are several
    thresholds: {class: the score from which on its objects are called}; None until validation cases have decided
    """

    steps: tuple[float, ...]
    reach: float
    smallest: float = 0.0
    inside: Annotated[float | None, Setting(tuned=True)] = None
    prominence: Annotated[float | None, Setting(tuned=True)] = None
    certainty: Annotated[
        Certainty,
        SettingsGroup((*CERTAINTY, *COVERING, "conformal"), {"calibration_method": {"choices": METHODS_OF_MANY}}),
    ] = field(default_factory=Certainty)
    in_voxels: bool = False
    classes: Annotated[tuple[str, ...], Setting(target=True)] = ()
    thresholds: Annotated[Mapping[str, float] | None, Setting(tuned=True)] = None
    name: ClassVar[str] = "instances"
    needs: ClassVar[frozenset[str]] = frozenset({"instances"})
    merge: ClassVar[Merge] = "gaussian"
    selects_by: ClassVar[str] = "ap"
    uncertainty: ClassVar[Uncertain] = "objects"
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Voxel sides, reach and smallest size for these training cases; DatasetError where none has an object."""
        cases = [case for case in fingerprint.cases if voxels_per_object(case)]
        if not cases:
            where = str(dataset.root or dataset.name)
            raise DatasetError("the training cases have no objects", where, "Give cases with something to find")
        sizes = [size for case in cases for size in voxels_per_object(case)]
        counts = f"{errors.count_phrase(len(sizes), 'object')} of {errors.count_phrase(len(cases), 'training case')}"
        steps = voxel_sides(fingerprint)
        radius = float(np.median([_radius(size * math.prod(steps), len(steps)) for size in sizes]))
        reach = float(np.clip(radius, LEAST_REACH, MOST_REACH))
        physical = all(case.voxel_volume is not None for case in cases)
        units = [case.voxel_volume or 1.0 if physical else 1.0 for case in cases]
        volumes = [size * unit for case, unit in zip(cases, units, strict=True) for size in voxels_per_object(case)]
        return {
            "steps": Decision(list(steps), "sides of a voxel, the shortest being 1: the median of the training cases"),
            "reach": Decision(
                round(reach, 2),
                f"sides of a voxel from the border inwards; the median radius of {counts} is {radius:.3g}",
                NAYLOR,
            ),
            "smallest": Decision(
                round(float(np.percentile(volumes, SLIPS)) / 2, 6),
                f"{answering.unit_of_size(len(cases[0].shape), physical)}: half of what {100 - SLIPS:g} % of {counts} "
                "have at least",
            ),
            **class_decisions(dataset),
            "in_voxels": Decision(
                not physical, f"the size of a voxel is {'' if physical else 'not '}known in training"
            ),
            "inside": Decision(
                None, f"found on the validation cases after training; {INSIDE} where their objects are too few"
            ),
            "prominence": Decision(
                None, f"found on the validation cases after training; {PROMINENCE} where their objects are too few"
            ),
            **certainties.certainty_decisions(),
            **covering_results.risk_decisions("covering objects may miss a tenth of those of a case on average"),
        }

    def check_and_fill(self) -> InstanceSegmentation:
        """The same task; PlanError names the setting that cannot be."""
        if len(self.steps) not in (2, 3) or not all(0 < step < math.inf for step in self.steps):
            raise PlanError(f"steps of {list(self.steps)}", "task.steps", "Give a length above 0 for 2 or 3 axes")
        if not 1 <= self.reach < math.inf:
            raise PlanError(f"a reach of {self.reach} voxels", "task.reach", "Give 1 or more")
        if not 0 <= self.smallest < math.inf:
            raise PlanError(f"a smallest size of {self.smallest}", "task.smallest", "Give 0 or more")
        for name, share in (("inside", self.inside), ("prominence", self.prominence)):
            if share is not None and not 0 < share < 1:
                raise PlanError(f"{share} is not between 0 and 1", f"task.{name}", "Give a share")
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise PlanError(f"classes of {list(self.classes)}", "task.classes", "Name two or more, each once, or none")
        return self

    @property
    def heads(self) -> Mapping[str, Head]:
        """One dense head: the logit of inside, those of the classes where there are several, and the height."""
        called = ("inside an object", *self.classes, "distance from its border")
        return {HEAD: Dense(len(called), heights=1, unit=self.reach, called=called)}

    @property
    def labels(self) -> tuple[Label, ...]:
        """The classes, else what any object is called; the values of a result are numbers of objects."""
        return tuple(Label(value, name) for value, name in enumerate(self._kinds, start=1))

    @property
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
        """Each channel stays what it is; None where a class names a side, which a mirrored object would not have."""
        return None if left_right.have_sides(self._kinds) else tuple(range(2 + len(self.classes)))

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A U-Net, and average precision to select and judge."""
        return {
            "network.name": Decision("unet", "it gives an output for every voxel", "arXiv:1505.04597"),
            "training.selection": Decision("ap", "average precision of the validation cases, mean of IoU 0.5 to 0.95"),
            "evaluation.primary": Decision(
                "ap50",
                "it counts objects that are found, missed and wrongly called; one that overlaps this much is found",
                "doi:10.1038/s41592-019-0612-7",
            ),
        }

    def target(self, case: Case) -> Target:
        """Numbers of the objects, with their classes as `code_classes` of `evaluation.instances` states them.

        GeometryError where they and the image lie on different grids, DatasetError for an object without a known class.
        """
        numbers = case.references["instances"]
        reference_labels.refuse_other_image_grid("objects", numbers, properties.first_image(case), case.id)
        reference_numbers = reference_labels.label_values(numbers.data, case.id)
        if self.classes:
            return Target(
                Instances(), answering.coded_objects(reference_numbers, numbers, self.classes, case.id).astype(np.int32)
            )
        values, places = np.unique(reference_numbers, return_inverse=True)
        # Numbered without gaps, because a file's numbers may be larger than 32 bits hold.
        dense = places + (0 if values[0] == 0 else 1)
        return Target(Instances(), dense.reshape(numbers.geometry.shape).astype(np.int32))

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """Dice and cross-entropy of inside, and the error of heights; target: (batch, *spatial) numbers of objects."""
        return instance_loss(outputs[HEAD].float(), target, self.steps, self.reach, len(self.classes))

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, thresholds) objects found, (batch, 1) of prediction and reference together."""
        pairs = zip(outputs[HEAD].float().cpu().numpy(), target.cpu().numpy(), strict=True)
        overlaps = [self._overlap(one, truth) for one, truth in pairs]
        matched = [[one.matched_pairs(threshold) for threshold in one.thresholds] for one in overlaps]
        both = [[len(one.predicted) + len(one.reference)] for one in overlaps]
        return {"matched": torch.tensor(matched).double(), "both": torch.tensor(both).double()}

    def _overlap(self, outputs: Array, truth: Array) -> InstanceOverlap:
        """Objects of outputs, (channels, *spatial), and of the target; those of other classes do not meet."""
        numbers = self._decoder(certainties.sigmoid(outputs[0]), outputs[-1])
        overlap = instances.instance_overlap(numbers, truth)
        if not self.classes:
            return overlap
        named = zip(self.classes, certainties.softmax(outputs[1:-1]), strict=True)
        kinds = self._chances(numbers, {f"{OF_CLASS}{name}": one for name, one in named}).argmax(axis=1)
        return overlap.alike(kinds, instances.coded_classes(truth, len(self.classes)))

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Mean over cases and thresholds of TP / (TP + FP + FN); a case without any object is left out."""
        marked = collected["both"][:, 0] > 0
        matched = collected["matched"][marked]
        both = collected["both"][marked]
        return float((matched / (both - matched)).mean()) if len(both) else float("nan")

    def fit_settings(
        self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin
    ) -> dict[str, Decision]:
        """Thresholds that part these objects best; those that are set stay."""
        pairs = [pair for pair in zip(predictions, cases, strict=True) if pair[0].untuned is not None]
        open_yet = [name for name in ("inside", "prominence") if getattr(self, name) is None]
        if not (pairs and open_yet):
            return {}
        references = [self._reference(case, made) for made, case in pairs]
        grids = [self._on(made.geometry) for made, _ in pairs]
        decisions = fit_thresholds(
            self._decoder, open_yet, [made.untuned or {} for made, _ in pairs], references, grids
        )
        return {f"task.{name}": decision for name, decision in decisions.items()}

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) mean logit of what is inside an object, of several classes inside one of each."""
        logits = outputs[HEAD][:, :1]
        if self.classes:
            logits = logits + outputs[HEAD][:, 1:-1].log_softmax(dim=1)
        return saliency.structure_logit(logits, [one.name for one in self.labels], target, exclusive=False)


def class_decisions(dataset: Dataset) -> dict[str, Decision]:
    """The declared classes of objects, where there are several, and what unseen cases are to find of them."""
    names = [label.name for label in dataset.classes.get("instances", ())]
    if len(names) < 2:
        return {"classes": Decision([], "the objects are of one kind")}
    because = f"{errors.count_phrase(len(names), 'class', 'classes')} of objects that the data state"
    called = Decision(None, "those of the highest F1 of each class among the objects of validation cases")
    found = Decision(None, "sets of classes are found after training, on objects of cases that did not train")
    return {"classes": Decision(names, because, GRAHAM), "thresholds": called, "conformal": found}


def voxels_per_object(case: CaseFacts) -> list[int]:
    """Voxels of each object."""
    return [count for number, count in case.references.get("instances", {}).items() if number != 0]


def voxel_sides(fingerprint: Fingerprint) -> tuple[float, ...]:
    """Sides of a voxel of the network's grid, the shortest being 1; volumes of a single slice are pictures, where
    all are."""
    shapes = [case.shape for case in fingerprint.cases]
    steps = [case.steps for case in fingerprint.cases]
    if all(len(shape) == 3 and 1 in shape for shape in shapes):
        steps = [_without_slice(shape, step) for shape, step in zip(shapes, steps, strict=True)]
    median = np.median(np.array(steps), axis=0)
    return tuple(np.round(median / median.min(), 3).tolist())


def fit_thresholds(
    decoder: ObjectDecoder,
    names: Collection[str],
    maps: Sequence[Mapping[str, Array | Deferred]],
    references: Sequence[Array],
    grids: Sequence[GridSettings],
) -> dict[str, Decision]:
    """The probability of inside, then the prominence of a hill, that give the highest mean AP of these cases.

    decoder:  with the default of each field, or what is set already
    names:    of the fields that are open
    grids:    of each case the fields that its grid decides
    """
    total = sum(len(np.setdiff1d(one, 0)) for one in references)
    if total < FEWEST_OBJECTS:
        objects = errors.count_phrase(total, "object")
        because = f"{objects} of validation cases are too few (at least {FEWEST_OBJECTS} are needed)"
        return {name: Decision(getattr(decoder, name), because) for name in names}

    arrays = [(np.asarray(one["inside"]), np.asarray(one["height"])) for one in maps]

    def mean_ap(tried: ObjectDecoder) -> float:
        """Over the cases."""
        scores = [
            instances.instance_overlap(replace(tried, **grid)(*own), truth).ap()
            for own, truth, grid in zip(arrays, references, grids, strict=True)
        ]
        return float(np.nanmean(scores))

    decisions: dict[str, Decision] = {}
    for name, values in TRIED.items():
        if name not in names:
            continue
        settings: list[dict[str, Any]] = [{name: value} for value in values]
        tried = {value: mean_ap(replace(decoder, **one)) for value, one in zip(values, settings, strict=True)}
        # Of equals the one next to what is usual.
        usual = getattr(decoder, name)
        best = max(tried, key=lambda value: (round(tried[value], 4), -abs(value - usual)))
        decoder = replace(decoder, **settings[values.index(best)])
        because = (
            f"the highest mean AP, {tried[best]:.3f} ({usual} gives {tried[usual]:.3f}), of "
            f"{errors.count_phrase(total, 'object')} of {errors.count_phrase(len(maps), 'validation case')}"
        )
        decisions[name] = Decision(best, because, CAICEDO)
    return decisions


def _radius(size: float, axes: int) -> float:
    """The radius of a disc or ball of this size."""
    return math.sqrt(size / math.pi) if axes == 2 else (3 * size / (4 * math.pi)) ** (1 / 3)


def _without_slice(shape: Sequence[int], step: Sequence[float]) -> tuple[float, ...]:
    single = max(axis for axis, size in enumerate(shape) if size == 1)
    return tuple(np.delete(np.asarray(step, dtype=float), single).tolist())


# Targets and loss of instance segmentation: which voxels are inside an object, and how far from its border.
#
# Naylor et al., IEEE Trans Med Imaging 2019, doi:10.1109/TMI.2018.2865709. Made of the numbers after they have moved
# with their image, on the device and in any number of axes.

# How much more a voxel counts where two objects touch: few voxels lie there, and they part the objects.
# Ronneberger et al., MICCAI 2015, arXiv:1505.04597, equation 2, gives these up to ten times the weight.
TOUCHING = 8.0
# Where the squared error of a height turns into an absolute one.
BETA = 0.1


def instance_loss(outputs: Tensor, numbers: Tensor, steps: Sequence[float], reach: float, classes: int = 0) -> Tensor:
    """A number to lower: Dice and cross-entropy of inside, how far heights are off, and both of classes within objects.

    outputs: (batch, 2 + classes, *spatial) logit of inside, those of the classes where there are several, and height
    numbers: (batch, *spatial) of objects, of several classes by `code_classes` of `evaluation.instances`
    """
    inside = numbers > 0
    logits = torch.stack([torch.zeros_like(outputs[:, 0]), outputs[:, 0]], dim=1)
    apart = torch.nn.functional.smooth_l1_loss(
        outputs[:, -1], object_heights(numbers, steps, reach), reduction="none", beta=BETA
    )
    weight = 1 + (TOUCHING - 1) * touching_voxels(numbers)
    # Inside and outside count alike, however little of an image the objects fill.
    sides = [(apart * weight * side).sum() / (weight * side).sum().clamp(min=1) for side in (inside, ~inside)]
    cost = label_losses.label_loss("dice+ce", logits, inside.long()) + (sides[0] + sides[1]) / BETA
    return cost + class_loss(outputs[:, 1:-1], numbers, classes) if classes else cost


def class_loss(logits: Tensor, numbers: Tensor, classes: int) -> Tensor:
    """Dice and cross-entropy of the classes of voxels within objects, of which a batch has some.

    logits: (batch, classes, *spatial); numbers: as `instance_loss` takes them
    """
    inside = numbers > 0
    if not bool(inside.any()):
        return logits.sum() * 0.0
    kinds = (numbers[inside].long() - 1) % classes
    own = logits.movedim(1, -1)[inside].T[None]  # (1, classes, voxels)
    truth = torch.nn.functional.one_hot(kinds, classes).T[None].to(own.dtype)
    both = label_losses.label_sums(own.softmax(dim=1) * truth)
    size = label_losses.label_sums(own.softmax(dim=1)) + label_losses.label_sums(truth)
    dice = label_losses.mean_present_labels(1 - 2 * both / size.clamp(min=1e-6), truth)
    return dice + label_losses.mean_cross_entropy(own, kinds[None])


def object_heights(numbers: Tensor, steps: Sequence[float], reach: float) -> Tensor:
    """(batch, *spatial) distance to the nearest voxel of anything else, as a share of the object's largest or of reach.

    steps: length of a voxel per axis, reach in the same unit
    Every object has a top of 1, so that small ones stand out as large ones do; what is deeper than `reach` is as high
    as that, because no network sees farther than it has to. The edge of a patch is no border.
    """
    distance = torch.where(numbers > 0, _to_border(numbers, steps, reach), 0.0)
    cases = torch.arange(len(numbers), device=numbers.device).reshape(-1, *[1] * (numbers.ndim - 1))
    owner = (numbers.long() + cases * (int(numbers.max()) + 1)).flatten()
    deepest = distance.new_zeros(int(owner.max()) + 1).scatter_reduce(0, owner, distance.flatten(), "amax")
    return distance / deepest[owner].reshape(distance.shape).clamp(min=1e-6)


def touching_voxels(numbers: Tensor) -> Tensor:
    """(batch, *spatial) 1 in voxels next to another object, else 0."""
    return _next_to(numbers, lambda own, other: (own != other) & (own > 0) & (other > 0)).float()


def _to_border(numbers: Tensor, steps: Sequence[float], reach: float) -> Tensor:
    """Euclidean distance to the border voxels of the own object and one step on, exact up to `reach`.

    The squared distance is a minimum over each axis after the other: Felzenszwalb and Huttenlocher, Theory of Computing
    2012, doi:10.4086/toc.2012.v008a019; distances beyond `reach` are not needed.
    """
    border = _next_to(numbers, lambda own, other: own != other)
    squared = torch.where(border, 0.0, float(reach) ** 2)
    for axis, step in enumerate(steps, start=1):
        nearest = squared
        for far in range(1, min(math.ceil(reach / step), squared.shape[axis])):
            cost = (far * step) ** 2
            size = squared.shape[axis] - far
            nearest = nearest.clone() if nearest is squared else nearest
            for start, other in ((0, far), (far, 0)):
                part = nearest.narrow(axis, start, size)
                torch.minimum(part, squared.narrow(axis, other, size) + cost, out=part)
        squared = nearest
    return (squared.sqrt() + min(steps)).clamp(max=reach)


def _next_to(numbers: Tensor, differ: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(batch, *spatial) where a voxel and the next along an axis differ, both of them."""
    marked = torch.zeros_like(numbers, dtype=torch.bool)
    for axis, size in enumerate(numbers.shape[1:], start=1):
        if size > 1:
            edges = differ(numbers.narrow(axis, 0, size - 1), numbers.narrow(axis, 1, size - 1))
            marked.narrow(axis, 0, size - 1).logical_or_(edges)
            marked.narrow(axis, 1, size - 1).logical_or_(edges)
    return marked
