"""Detection: boxes around objects, each of a class.

A map of centres for each class, and for each voxel the length of the box whose centre lies nearby: CenterNet, Zhou et
al., arXiv:1904.07850, in two and three axes alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from isocenter.belief import (
    CALLED_FROM,
    CERTAINTY,
    COVERING,
    MAIER_HEIN,
    METHODS_OF_MANY,
    BoxAnswers,
    Certainty,
    Rows,
    boxes_of,
    calibrated_boxes,
    certainty_decisions,
    covering_rows,
    risk_decisions,
    sides_of,
)
from isocenter.errors import DatasetError, PlanError, counted
from isocenter.evaluation import Metrics, Seed, Table, figure_label, folds_of
from isocenter.lazy import pandas as pd
from isocenter.lazy import torch
from isocenter.report import Figure, figures
from isocenter.tasks.detection.decode import PRIOR, Decoder, log_odds, rows_of, with_doubt
from isocenter.tasks.detection.maps import centre_loss
from isocenter.tasks.detection.pictures import overview
from isocenter.tasks.detection.scores import (
    METRICS,
    SELECTED,
    Answers,
    case_row,
    counts_by_score,
    selected,
    summary_rows,
)
from isocenter.tasks.properties import stated_image
from isocenter.tasks.settings import CLASSES
from isocenter.tasks.shared import Shares, axes_of, coarser, crossed, highest, mean_of, place_of_target
from isocenter.tasks.task import Origin, Outputs, Task, Uncertain
from isocenter.values import (
    Array,
    BoundingBoxes,
    Boxes,
    Case,
    Dataset,
    Decision,
    Dense,
    Finding,
    Fingerprint,
    Geometry,
    Head,
    Label,
    Merge,
    Prediction,
    Row,
    Sentence,
    Slabs,
    Target,
    columns_of,
    setting,
    settings_group,
    table_columns,
)

if TYPE_CHECKING:
    from torch import Tensor

ZHOU = "arXiv:1904.07850"
# As nnDetection for volumes: an overlap of 0.1 is a find there, because small boxes overlap little in three axes.
NNDETECTION = "arXiv:2106.00817"
OVERLAPS = {2: 0.5, 3: 0.1}
SUPPRESSION = {2: 0.5, 3: 0.2}
# Voxels that the smallest kind of box is still across on the network's grid, four to each answer of a pyramid. Chosen
# by reasoning and never varied; what it leads to is in docs/benchmarks.md.
FINE_ENOUGH = 16
# Voxels across from which a pyramid finds more in volumes than maps of centres do: of simulated nodules, half of them
# less than 7.9 across, in 15 minutes on one core CPM .959 beside .769 (bench/nodules.py). Of smaller ones nothing is
# known.
PYRAMID_IN_VOLUMES = 6.0
HEAD = "boxes"
# Boxes of a lower score are dropped; those between this and the threshold make the curves.
LEAST_SCORE = 0.02
# Boxes of a case that can be explained, by rank.
RANKED = tuple(f"box {rank}" for rank in range(1, 21))


@dataclass(frozen=True)
class Detection(Task):
    """Boxes of one or several classes.

    classes:     names
    axes:        of the network's grid
    typical:     voxels of it that an output of 1 is long: what is learnt is then of the order of 1
    suppression: overlap from which the weaker of two boxes of a class is no other find
    threshold:   score from which on a box is called; None until validation cases have decided
    certainty:   how far scores can be believed, those from which on boxes miss little, and what makes them so
    in_voxels:   whether sizes of boxes count voxels wherever their size is known, as where it was not in training
    """

    classes: tuple[str, ...] = setting(words=CLASSES, target=True)
    axes: int = setting(words=Sentence("Boxes have {value} axes"), target=True)
    typical: float = setting(words=Sentence("An output of 1 is a length of {value} voxels"))
    suppression: float = setting(
        SUPPRESSION[2], Sentence("Of two boxes of a class that overlap by {percent} or more the weaker is dropped")
    )
    threshold: float | None = setting(
        None,
        Sentence("Boxes are called from a score of {value} on", "No threshold of the score is set yet"),
        tuned=True,
    )
    certainty: Certainty = settings_group(
        Certainty,
        *CERTAINTY,
        *COVERING,
        calibration_method={"choices": METHODS_OF_MANY},
        risk={"words": Sentence("Covering boxes may miss {percent} of those of a case", "No covering boxes are made")},
        risk_delta={"words": Sentence("They may miss more in {percent} of calibration sets")},
        covering={
            "words": Sentence("Scores of covering boxes are found", "No covering boxes are found yet", always=True)
        },
    )
    in_voxels: bool = setting(False, Sentence("Sizes of boxes count voxels", "Sizes of boxes are in mm"))

    name: ClassVar[str] = "detection"
    needs: ClassVar[frozenset[str]] = frozenset({"boxes"})
    merge: ClassVar[Merge] = "gaussian"
    selects_by: ClassVar[str] = SELECTED
    uncertainty: ClassVar[Uncertain] = "boxes"
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Classes, axes and typical length for these training cases; DatasetError where none has a box."""
        return settings_for(dataset, fingerprint)

    def checked(self) -> Detection:
        """The same detection; PlanError names the setting that cannot be."""
        check_settings(self)
        return self

    @property
    def heads(self) -> Mapping[str, Head]:
        """One dense head: a map of centres for each class, then lengths and offsets along each axis."""
        count = len(self.classes) + 2 * self.axes
        return {HEAD: Dense(count, lengths=self.axes, offsets=self.axes, unit=self.typical)}

    @property
    def labels(self) -> tuple[Label, ...]:
        """The classes, numbered from 1."""
        return tuple(Label(value, name) for value, name in enumerate(self.classes, start=1))

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        """The class that each becomes in a mirrored image; None where a side has no counterpart among the names."""
        order, channels = crossed(self.classes), len(self.classes) + 2 * self.axes
        return None if order is None else (*order, *range(len(order), channels))

    @property
    def overlap(self) -> float:
        """Intersection over union from which a reference counts as found."""
        return OVERLAPS[self.axes]

    @property
    def primary(self) -> str:
        """Average precision at the overlap that counts in pictures or in volumes."""
        return "ap50" if self.axes == 2 else "ap10"

    @property
    def measured(self) -> Callable[[Any], Any]:
        """The log odds of the classes."""
        return partial(log_odds, len(self.classes))

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The boxes by their rank, and the classes."""
        return (*RANKED, *self.classes)

    @property
    def probable_findings(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The network for boxes of this size, the reduction of images, and average precision to select and judge."""
        return decisions(fingerprint, self.primary)

    def under(self, sampling: str) -> dict[str, Decision]:
        """Nothing follows from the sampling."""
        return {}

    def target(self, case: Case) -> Target:
        """The boxes that count, with numbers for classes.

        Raises DatasetError for a class that was not trained, and for boxes on other axes than the image's.
        """
        boxes, image = self._reference(case), stated_image(case)
        if boxes.axes != image.geometry.ndim:
            problem = f"boxes of {boxes.axes} axes on an image of {image.geometry.ndim}"
            raise DatasetError(problem, case.id, "Give boxes on every axis of the image")
        counted = boxes.at(~boxes.ignored)
        kinds = [[self.classes.index(name)] for name in counted.names]
        data = np.concatenate([np.array(kinds, float).reshape(-1, 1), counted.corners], axis=1)
        return Target(Boxes(len(self.classes)), data)

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The focal loss of the centres, and the overlap of the boxes; target: (batch, n, 1 + 2 * axes)."""
        return centre_loss(outputs[HEAD].float(), target, len(self.classes), self.typical)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, overlaps, classes, BINS) true and false boxes by score, and (batch, classes) references."""
        counts = [
            counts_by_score(self.decoder, one.cpu().numpy(), boxes.cpu().numpy())
            for one, boxes in zip(outputs[HEAD].float(), target, strict=True)
        ]
        right, wrong, total = (torch.from_numpy(np.stack(one)) for one in zip(*counts, strict=True))
        return {"right": right, "wrong": wrong, "total": total}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Average precision without interpolation, mean of the overlaps and of the classes that are there."""
        return selected({name: one.cpu().numpy() for name, one in collected.items()})

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of the outputs themselves: lengths have no probabilities."""
        return {HEAD: mean_of([one[HEAD] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """(classes, ...) that a voxel is a centre of each class."""
        logits = np.asarray(arrays[HEAD], dtype=np.float32)[: len(self.classes)]
        return {HEAD: 1 / (1 + np.exp(-(logits + PRIOR)))}

    @property
    def decoder(self) -> Decoder:
        """The steps from outputs to boxes."""
        return Decoder(self.classes, self.axes, self.typical, LEAST_SCORE, self.suppression)

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """A box for every voxel that is more of a centre than its neighbours, with its calibrated score."""
        boxes = self.decoder(((region, with_doubt(arrays, HEAD)) for region, arrays in slabs), geometry)
        boxes = calibrated_boxes(boxes, self.certainty.calibrator, sides_of(geometry, self.in_voxels))
        return Prediction(geometry, boxes=boxes, labels=self.labels, threshold=self._level)

    def fitted(self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin) -> dict[str, Decision]:
        """Nothing: decoding finds nothing by itself."""
        return {}

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Rows:
        """Boxes with the network's scores, and those of the reference."""
        outputs = [(boxes_of(one), sides_of(one.geometry, self.in_voxels)) for one in predictions]
        return Rows(outputs, [self._reference(case) for case in cases], np.array([case.patient for case in cases]))

    @property
    def answers(self) -> BoxAnswers:
        """Boxes, with the score from which on they are called."""
        return BoxAnswers(self.certainty, self.classes, self.overlap, self.threshold)

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and class; the boxes themselves stand in it as JSON."""
        rows = []
        for prediction, case in zip(predictions, cases, strict=True):
            reference, predicted, geometry = self._reference(case), boxes_of(prediction), prediction.geometry
            for name in self.classes:
                row = case_row(predicted.of(name), reference.of(name), self.overlap, self._level, geometry, self.axes)
                row |= self.answers.columns(name, predicted.of(name), reference.of(name))
                rows.append({"case": case.id, "patient": case.patient, "label": figure_label(name), **row})
        return pd.DataFrame(rows)

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Average precision and free-response figures with patients resampled, of all classes first."""
        answers = self._answers(table)
        missed = covering_rows(table, answers.classes, "boxes", seed=seed)
        return [*summary_rows(answers, self.overlap, primary=self.primary, seed=seed), *missed]

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The boxes that are called, and those of the reference where the case has one."""
        boxes = boxes_of(prediction)
        assert boxes.scores is not None  # noqa: S101 - as decoded
        called = boxes.at(boxes.scores >= self._level)
        reference = self._reference(case) if "boxes" in case.references else None
        return [figures.boxes(stated_image(case), reference, called, self.labels, title=case.id)]

    def overview(self, table: Table) -> list[Figure]:
        """Precision over recall and the free-response curve of each class, and the calibration of all boxes."""
        return overview(self._answers(table), self.overlap, folds_of(table))

    def rank(self, table: Table) -> list[str]:
        """Case ids by the mean F1; a case without any box counts as 1."""
        f1 = table.groupby("case")["f1"].mean().fillna(1.0)
        return f1.sort_values(ascending=False, kind="stable").index.tolist()

    def outputs(self, prediction: Prediction) -> Sequence[Mapping[str, Any]]:
        """A row for each box that is called: label, score, x0, y0[, z0], x1, y1[, z1]; one of blanks without any."""
        boxes = boxes_of(prediction)
        names = columns_of(boxes.axes)
        return rows_of(boxes, {name: names.index(name) for name in table_columns(boxes.axes)}, prediction.threshold)

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the logit of a centre: of the box of a rank, the surest of a class, or the surest of all."""
        logits = outputs[HEAD][:, : len(self.classes)]
        if target in self.classes:
            return logits[:, self.classes.index(target)].flatten(1).amax(dim=1)
        return highest(logits, 1 if target is None else place_of_target(target, RANKED) + 1)

    def results(self, prediction: Prediction) -> list[Finding]:
        """The corners (voxels) and the score of each box that is called."""
        boxes = boxes_of(prediction)
        assert boxes.scores is not None  # noqa: S101 - as decoded
        return [
            Finding(name, value=corners.tolist(), unit="voxels", probability=float(score))
            for name, corners, score in zip(boxes.names, boxes.corners, boxes.scores, strict=True)
            if score >= self._level
        ]

    def _reference(self, case: Case) -> BoundingBoxes:
        """The case's boxes; DatasetError for a class that was not trained."""
        boxes: BoundingBoxes = case.references["boxes"]
        if unknown := sorted(set(boxes.names) - set(self.classes)):
            raise DatasetError(
                f"boxes of {unknown[0]!r}, which is none of {', '.join(self.classes)}",
                case.id,
                "Declare the class, or correct it",
            )
        return boxes

    def _answers(self, table: Table) -> Answers:
        return Answers.of(table, [*map(figure_label, self.classes)], self._level)

    @property
    def _level(self) -> float:
        return CALLED_FROM if self.threshold is None else self.threshold


def settings_for(dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The fields of a detection for these training cases; DatasetError where none of them has a box."""
    drawn = _drawn(fingerprint)
    counts = Counter(name for boxes in drawn for name in boxes.names)
    if not counts:
        raise DatasetError(
            "the training cases have no boxes", str(dataset.root or dataset.name), "Give cases with something to find"
        )
    declared = [label.name for label in dataset.classes.get("boxes", ())] or sorted(counts)
    shares = ", ".join(f"{counts[name]} {name}" for name in declared)
    axes, physical = axes_of(fingerprint), all(case.physical for case in fingerprint.cases)
    lengths = np.concatenate([_lengths(boxes, axes) for boxes in drawn]) / reduction(fingerprint).value
    return {
        "classes": Decision(declared, f"{shares} on {counted(len(drawn), 'training image')}{_made(dataset)}"),
        "axes": Decision(axes, f"the images have {axes}"),
        "typical": Decision(
            round(float(np.median(lengths)), 3),
            f"voxels that the network sees: the median of the sides of {counted(len(lengths) // axes, 'box', 'boxes')}",
            ZHOU,
        ),
        "suppression": Decision(
            SUPPRESSION[axes], "two boxes of one class that overlap so much are one find", NNDETECTION
        ),
        "threshold": Decision(
            None, f"found on the validation cases after training; {CALLED_FROM} where their boxes are too few", ZHOU
        ),
        "in_voxels": Decision(not physical, f"the size of a voxel is {'' if physical else 'not '}known in training"),
        **certainty_decisions(),
        **risk_decisions("covering boxes may miss a tenth of those of a case on average"),
    }


def decisions(fingerprint: Fingerprint, primary: str) -> dict[str, Decision]:
    """The network for boxes of this size, the reduction of images, and average precision to select and judge."""
    selection = "average precision of the validation cases, the mean of that at IoU 0.1 and at 0.5"
    because = "every score enters, without a threshold; so much overlap is a find"
    return {
        **network(fingerprint),
        "preprocessing.reduction": reduction(fingerprint),
        "training.selection": Decision(SELECTED, selection),
        "evaluation.primary": Decision(primary, because, MAIER_HEIN),
    }


def reduction(fingerprint: Fingerprint) -> Decision:
    """The factor by which images are finer than the smallest kind of box needs."""
    kind = smallest_kind(fingerprint)
    if kind is None:
        return Decision(1.0, "the training cases have no boxes")
    smallest, across = kind
    words = f"half of the boxes of {smallest} are less than {across:.3g} voxels across"
    return replace(coarser(fingerprint, across, FINE_ENOUGH, words), source=ZHOU)


def smallest_kind(fingerprint: Fingerprint) -> tuple[str, float] | None:
    """The class whose boxes are shortest, and the median of their shortest sides in voxels; None without a box."""
    drawn, axes = _drawn(fingerprint), axes_of(fingerprint)
    kinds = {name for boxes in drawn for name in boxes.names}
    least = {name: _across([boxes.of(name) for boxes in drawn], axes) for name in sorted(kinds)}
    return min(least.items(), key=lambda item: item[1], default=None)


def network(fingerprint: Fingerprint) -> dict[str, Decision]:
    """A pyramid where its coarser answers are fine enough, in pictures at the rate at which it was tried."""
    if axes_of(fingerprint) == 2 and reduction(fingerprint).value > 1:
        because = "boxes are many voxels across: answers a fourth as fine tell them apart, in a fraction of the time"
        return {
            "network.name": Decision("pyramid", because, "arXiv:1612.03144"),
            "training.learning_rate": Decision(2e-3, "the rate of a trial on blood smears; no other was tried"),
        }
    smallest = smallest_kind(fingerprint)
    if axes_of(fingerprint) == 3 and smallest is not None and smallest[1] >= PYRAMID_IN_VOLUMES:
        because = (
            f"half of the boxes of {smallest[0]} are {smallest[1]:.3g} voxels across or more: of simulated nodules of "
            "such a size it finds more than maps of centres do, in as many minutes"
        )
        return {"network.name": Decision("pyramid", because, "docs/benchmarks.md")}
    return {"network.name": Decision("unet", "it gives an output for every voxel", "arXiv:1505.04597")}


def check_settings(task: Detection) -> None:
    """PlanError names the setting that cannot be."""
    if not task.classes or len(set(task.classes)) < len(task.classes):
        raise PlanError("at least one class is needed, each once", "task.classes", "Name each class once")
    if task.axes not in (2, 3):
        raise PlanError(f"{task.axes} axes", "task.axes", "Give 2 or 3")
    if not 0 < task.typical < float("inf"):
        raise PlanError(f"a side of {task.typical} voxels", "task.typical", "Give a length above 0")
    for name, share in (("suppression", task.suppression), ("threshold", task.threshold)):
        if share is not None and not 0 < share <= 1:
            raise PlanError(f"{share} is not in (0, 1]", f"task.{name}", "Give a share")


def _made(dataset: Dataset) -> str:
    """The origin of the boxes in words, where no file has them."""
    return f"; {dataset.derived['boxes']}" if "boxes" in dataset.derived else ""


def _drawn(fingerprint: Fingerprint) -> list[BoundingBoxes]:
    """The boxes of each training case that has a reference."""
    return [case.references["boxes"] for case in fingerprint.cases if "boxes" in case.references]


def _across(boxes: Sequence[BoundingBoxes], axes: int) -> float:
    """The median of the shortest sides, in voxels."""
    return float(np.median(np.concatenate([_lengths(one, axes).reshape(-1, axes).min(axis=1) for one in boxes])))


def _lengths(boxes: BoundingBoxes, axes: int) -> np.ndarray:
    """(n * axes,) sides, without those along an axis of a single slice."""
    lengths = boxes.lengths
    if boxes.axes > axes:
        lengths = np.sort(lengths, axis=1)[:, boxes.axes - axes :]
    return np.ravel(lengths)
