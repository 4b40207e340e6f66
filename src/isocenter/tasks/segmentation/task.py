"""Segmentation: one label for every voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from isocenter.errors import GeometryError
from isocenter.evaluation import Seed, Table, volume_unit
from isocenter.files import Spool
from isocenter.lazy import pandas as pd
from isocenter.lazy import torch
from isocenter.report import Figure, figures
from isocenter.tasks.answers import Decoding, Outputs, Scoring, Teaching, Traits, stated_image
from isocenter.tasks.segmentation.loss import known_alone, shares_of, target_loss
from isocenter.tasks.segmentation.partial_labels import PARTLY, check_partly, of_regions, suited_loss
from isocenter.tasks.segmentation.plan import check_settings, settings_for
from isocenter.tasks.segmentation.postprocessing import choose
from isocenter.tasks.segmentation.scores import (
    METRICS,
    OF_READERS,
    agreement_figure,
    case_rows,
    summary_rows,
    volumes,
    voxel_in_unit,
)
from isocenter.tasks.segmentation.targets import Truth
from isocenter.tasks.shared import (
    Shares,
    Tidying,
    crossed,
    label_from,
    label_loss,
    log_mean,
    mean_of,
    plain,
    reading,
    refuse_other_names,
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
    Row,
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
    centrelines:    names of labels that are lines (vessels, nerves), whose centrelines are taught and measured
    regions:        {name: values} of structures that overlap, each an output of its own; the first value marks it in
                    the label map, where a later one is written over an earlier one. Other settings go by their names
    ignore:         the value of masks that says nothing: neither learnt, nor looked for, nor scored
    background:     the value of masks that says background; results always say 0
    sparse:         how little is drawn: "voxels" where most are to be ignored, "slices" where only those are known in
                    which something is drawn; None where all is known
    readers:        which of several people's masks are taught, of `readers.CONSENSUS`
    observers:      who they are
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

    name: ClassVar[str] = "segmentation"
    needs: ClassVar[frozenset[str]] = frozenset({"mask"})
    traits: ClassVar[Traits] = Traits(
        tunes=("postprocessing",),
        registers={"tolerance": "tolerance"},
        case_metric="dice",
        cascades=True,
        search_values={"loss": ("dice+ce", "dice+focal", "dice+topk", "tversky+ce")},
        suited=suited_loss,
    )

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        return settings_for(dataset, fingerprint)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Segmentation:
        known = ("labels", "loss", "tolerance", "weights", "postprocessing", "centrelines", *PARTLY)
        with reading(settings, known, "a segmentation"):
            partly = _partly(settings)
            silent = {partly["ignore"], partly["background"]} - {0, None}
            labels = tuple(label for entry in settings["labels"] if (label := label_from(entry)).value not in silent)
            rules = settings.get("postprocessing")
            weights = settings.get("weights")
            if partly["regions"] is not None:
                settings = {**settings, "tolerance": of_regions(settings["tolerance"], labels, partly["regions"])}
            task = cls(
                labels,
                settings["loss"],
                _each(settings["tolerance"]),
                None if weights is None else {k: float(v) for k, v in weights.items()},
                None if rules is None else {name: _tidying(rule) for name, rule in rules.items()},
                tuple(str(name) for name in settings.get("centrelines") or ()),
                **partly,
            )
        tolerance = task.tolerance if isinstance(task.tolerance, Mapping) else dict.fromkeys(task.names, task.tolerance)
        check_partly(labels, task.loss_name, partly)
        each = (tolerance, task.weights or {}, task.postprocessing or {}, task.centrelines)
        check_settings(task.names, labels, task.loss_name, *each)
        return task

    @property
    def settings(self) -> dict[str, Any]:
        rules = self.postprocessing
        return {
            "labels": [plain(label) for label in self.classes],
            "loss": self.loss_name,
            "tolerance": dict(self.tolerance) if isinstance(self.tolerance, Mapping) else self.tolerance,
            "weights": None if self.weights is None else dict(self.weights),
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
        return {"mask": Dense(len(self.writes))}

    @property
    def labels(self) -> tuple[Label, ...]:
        return self.classes

    @property
    def channel_labels(self) -> tuple[Label, ...]:
        """What its outputs mean, but for the background's."""
        if self.regions is None:
            return self.classes
        return tuple(Label(values[0], name) for name, values in self.regions.items())

    @property
    def structures(self) -> Mapping[str, tuple[int, ...]]:
        """{name: values} of what is scored, measured and found."""
        if self.regions is not None:
            return self.regions
        return {label.name: (label.value,) for label in self.classes}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.structures)

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
        """For each output the value that it marks; where they overlap a later one writes over an earlier one."""
        if self.regions is not None:
            return tuple(values[0] for values in self.regions.values())
        return (0, *(label.value for label in self.classes))

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        order = crossed(self.names)
        if not self.exclusive or self.is_divided:
            # A value of the target is no channel here: what has a side is not mirrored.
            return order if order == tuple(range(len(self.names))) else None
        return None if order is None else (0, *(place + 1 for place in order))

    @property
    def teaching(self) -> Teaching:
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
        return Scoring(
            metrics=METRICS | OF_READERS if len(self.observers) > 1 else METRICS,
            score=self.score,
            summary=self.summary,
            rank=self.rank,
            figures=self.figures,
            overview=self.overview,
            results=self.results,
        )

    @property
    def _outside(self) -> int:
        return self.truth.codes.unknown if self.truth.is_partial else 0

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        return {
            "network.name": Decision("unet", "it gives an output for every voxel", "arXiv:1505.04597"),
            "training.selection": Decision("dice", "it is the mean over labels of the validation cases"),
            "evaluation.primary": Decision(
                "dice", "overlap is what the task asks for", "doi:10.1038/s41592-023-02151-z"
            ),
            **self.under("natural"),
        }

    def under(self, sampling: str) -> dict[str, Decision]:
        if self.sparse is None:
            return {}
        return {"training.foreground": Decision(1.0, "patches without a voxel that somebody drew teach nothing")}

    def target(self, case: Case) -> Target:
        """Label values to the numbers that `truth.codes` explains: label numbers, background 0.

        Raises GeometryError where mask and image lie on different grids, DatasetError for a value without a label.
        """
        mask, image = case.references["mask"], stated_image(case)
        if not mask.geometry.equals(image.geometry):
            raise GeometryError(
                f"mask ({mask.geometry!r}) and image ({image.geometry!r}) lie on different grids",
                case.id,
                "Resample one onto the other, or leave the case out",
            )
        return Target(self.heads["mask"], self.truth.coded(case), self.truth.sought, self._outside)

    @property
    def truth(self) -> Truth:
        """What masks say."""
        return Truth(
            tuple(label.value for label in self.classes),
            tuple(self.structures.values()),
            self.ignore,
            self.background,
            self.sparse,
            self.readers,
            len(self.observers) if self.is_divided else 1,
        )

    def loss(self, outputs: Outputs, target: Tensor) -> Tensor:
        logits, weights = outputs["mask"].float(), None
        if self.weights is not None:
            weights = logits.new_tensor([self.weights.get(name, 1.0) for name in ("background", *self.names)])
        target, truth = target.long(), self.truth
        if truth.is_partial:
            logits, target = known_alone(logits, target, truth.codes.unknown)
        if self.exclusive and not truth.is_divided:
            lines = [self.names.index(name) + 1 for name in self.centrelines] or None
            return label_loss(self.loss_name, logits, target, weights, lines) if target.numel() else logits.sum()
        groups = [(0,), *truth.groups] if self.exclusive else truth.groups
        shares = shares_of(groups, logits.new_tensor(truth.codes.shares))
        return target_loss(self.loss_name, logits, target, shares, weights, not self.exclusive, truth.is_divided)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        logits, axes, truth = outputs["mask"], tuple(range(1, target.ndim)), self.truth
        known = target != truth.codes.unknown
        shares = shares_of(truth.groups, logits.new_tensor(truth.codes.shares))
        both, size = [], []
        for place in range(len(self.names)):
            said = logits[:, place] > 0 if not self.exclusive else logits.argmax(dim=1) == place + 1
            # Of equals the label: as most readers decide where a prediction is scored.
            wanted = torch.where(known, target.long(), 0)
            true = (shares[wanted, place] >= 0.5) & known
            both.append((said & true).sum(dim=axes))
            size.append((said & known).sum(dim=axes) + true.sum(dim=axes))
        return {"both": torch.stack(both, dim=1), "size": torch.stack(size, dim=1)}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Mean Dice over cases and labels; a label that neither side has is left out."""
        there = collected["size"] > 0
        dice = 2 * collected["both"] / collected["size"].clamp(min=1)
        return float(dice[there].mean()) if there.any() else float("nan")

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        if self.exclusive:
            return {"mask": log_mean([one["mask"] for one in outputs], shares=shares)}
        return {"mask": mean_of([one["mask"] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
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
        """With the post-processing that helps these cases; one that is set already stays."""
        if self.postprocessing is not None:
            return self, {}
        if not self.exclusive:
            because = "off: regions overlap, and what is taken from one would open another"
            return replace(self, postprocessing={}), {"task.postprocessing": Decision({}, because)}
        rules, decision = choose(predictions, cases, self.classes, self.truth.of)
        return replace(self, postprocessing=rules), {"task.postprocessing": decision}

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and label, on the reference's own grid."""
        rows = [row for pair in zip(predictions, cases, strict=True) for row in self._score(*pair)]
        return pd.DataFrame(rows)

    def _score(self, prediction: Prediction, case: Case) -> list[dict[str, Any]]:
        reference = case.references["mask"]
        if not prediction.geometry.equals(reference.geometry):
            raise GeometryError(
                "prediction and reference lie on different grids", case.id, "Predict on the image that was labelled"
            )
        refuse_other_names(self.classes, reference.labels, case.id)
        predicted, (truth, known) = np.asarray(prediction.data), self.truth.of(case)
        given = self.tolerance
        tolerances = given if isinstance(given, Mapping) else dict.fromkeys(self.names, given)
        rows = case_rows(
            predicted,
            truth,
            self.structures,
            reference.geometry,
            tolerances,
            self.centrelines,
            known=known,
            surfaces=self.sparse is None,
        )
        beside = self.truth.beside_readers(predicted, case, self.names)
        return [{"case": case.id, "patient": case.patient, **row, **beside.get(row["label"], {})} for row in rows]

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Each metric over all labels (mean of their means), then by label; patients are resampled."""
        return summary_rows(table, self.tolerance, seed=seed)

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        reference = self.truth.of(case)[0] if "mask" in case.references else None
        return [
            figures.contours(stated_image(case), reference, np.asarray(prediction.data), self.classes, title=case.id)
        ]

    def overview(self, table: Table) -> list[Figure]:
        groups = {name: table.loc[table["label"] == name, "dice"].to_numpy(float) for name in self.names}
        drawn = [figures.histogram(groups, "Dice of the cases", axis="Dice", caption="One count a case and label.")]
        drawn += [agreement_figure(one) for one in volumes(table)]
        if not set(table) >= OF_READERS:
            return drawn
        both = {"between readers": "dice_between_readers", "model to readers": "dice_to_readers"}
        beside = {words: table[name].dropna().to_numpy(float) for words, name in both.items()}
        caption = "Mean Dice of each two readers, and of the model to each of them; one count a case and label."
        return [*drawn, figures.histogram(beside, "Readers and model", axis="Dice", caption=caption)]

    def rank(self, table: Table) -> list[str]:
        return (
            table.groupby("case")["dice"].mean().fillna(1.0).sort_values(ascending=False, kind="stable").index.tolist()
        )

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """The volume of each structure, in ml where the size of a voxel is known."""
        voxel, found = voxel_in_unit(prediction.geometry), np.zeros(max(one.value for one in self.classes) + 1)
        assert prediction.data is not None  # noqa: S101 - as decoded
        for _, part in blocks(prediction.data):
            found += np.bincount(np.ravel(part), minlength=len(found))
        unit = volume_unit(prediction.geometry).replace("mm²", "mm2")
        return {
            f"{name}_{unit}": round(float(found[list(values)].sum()) * voxel, 6)
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
        volumes = self.outputs(prediction)
        return [
            Finding(label.name, value=value, unit=column.rsplit("_", 1)[-1], code=label.code)
            for label, (column, value) in zip(self.channel_labels, volumes.items(), strict=True)
        ]


def _partly(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is not said where every voxel of one reader's mask is one of the labels."""
    regions, ignore = settings.get("regions"), settings.get("ignore")
    return {
        "regions": None if not regions else {str(k): tuple(int(v) for v in one) for k, one in regions.items()},
        "ignore": None if ignore is None else int(ignore),
        "background": int(settings.get("background") or 0),
        "sparse": settings.get("sparse"),
        "readers": str(settings.get("readers", "first")),
        "observers": tuple(str(one) for one in settings.get("observers") or ()),
    }


def _each(tolerance: Any) -> Mapping[str, float] | float:
    if isinstance(tolerance, Mapping):
        return {str(name): float(value) for name, value in tolerance.items()}
    return float(tolerance)


def _tidying(rule: Mapping[str, Any]) -> Tidying:
    made = Tidying(**rule)
    if not isinstance(made.largest, bool) or not isinstance(made.holes, bool) or not float(made.smallest) >= 0:
        raise ValueError(f"{dict(rule)} is no post-processing")
    return replace(made, smallest=float(made.smallest))
