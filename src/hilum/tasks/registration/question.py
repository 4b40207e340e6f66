"""The question of a registration: its settings, heads, targets and loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, cast

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, PlanError, UsageError
from hilum.evaluation import Metrics
from hilum.lazy import torch
from hilum.registration import deformable, learnt_registration
from hilum.registration.deformable import SMOOTHNESS
from hilum.registration.similarity_measures import SIMILARITIES
from hilum.tasks import properties
from hilum.tasks.registration.answering import HEAD
from hilum.tasks.registration.scoring import METRICS, SIMILARITY, TRE, FieldScoring
from hilum.tasks.shared import grid_and_length, reference_labels
from hilum.tasks.shared.reference_labels import LABELS
from hilum.tasks.task import IMAGES, LabelPainting, Outputs
from hilum.transforms import spatial_transforms
from hilum.values import (
    Array,
    Case,
    Dataset,
    Decision,
    Dense,
    Fingerprint,
    Head,
    Image,
    Label,
    Merge,
    Setting,
    SpatialTransform,
    Target,
)
from hilum.values.spatial_transform import Correspondence

if TYPE_CHECKING:
    from torch import Tensor

VOXELMORPH = "arXiv:1809.05231"
DALCA = "arXiv:1903.03545"
SYNTHMORPH = "arXiv:2004.10282"
# The network sees images whose deviation is 1; similarities count on intensities in about 0..1.
DEVIATION = 0.2
# Steps of optimisation after the network.
REFINED = 20
# More labels than this are no structures that somebody named.
MOST_LABELS = 256


@dataclass(frozen=True)
class Registration(FieldScoring):
    """The displacement of each voxel of a fixed image, taught by what makes the moved image like it.

    classes:       structures that were contoured in both images; they are looked at in training alone
    axes:          of the network's grid
    similarity:    by which the moved image is compared with the fixed one
    images_weight: weight of their unlikeness; 0 where labels alone teach
    smoothness:    weight of the diffusion energy of the displacement, in mm a mm
    labels_weight: weight of 1 less the Dice of moved labels, where both images have them
    pairs:         sampled for each volume, of a set of single volumes; None: as many as fit into memory
    refine:        steps of optimisation of a pair after the network
    tolerance:     mm within which a surface counts as found (voxels where no size is known)
    """

    classes: Annotated[tuple[Label, ...], LABELS] = ()
    axes: Annotated[int, Setting(target=True)] = 3
    similarity: Annotated[Literal["lncc", "mse", "mind"], Setting(choices=tuple(SIMILARITIES), noun="similarity")] = (
        "lncc"
    )
    images_weight: float = 1.0
    smoothness: Annotated[float, Setting(search=(0.25, 0.5, 1.0))] = 0.5
    labels_weight: Annotated[float, Setting(search=(0.5, 1.0, 2.0))] = 1.0
    pairs: int | None = None
    refine: int = REFINED
    tolerance: Annotated[float, Setting(unit="voxels", preregistered="tolerance")] = 2.0
    name: ClassVar[str] = "registration"
    needs: ClassVar[frozenset[str]] = frozenset({"field"})
    answers_pairs: ClassVar[bool] = True
    loss_gets_images: ClassVar[bool] = True
    merge: ClassVar[Merge] = "gaussian"
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Labels, similarity and weights for these pairs; DatasetError where the images of a case are no pair."""
        fields = [case.references["field"] for case in fingerprint.cases if "field" in case.references]
        values = sorted({value for one in fields for value in one["both"]})
        if len(values) > MOST_LABELS:
            problem = f"label maps of {len(values)} values"
            where = str(dataset.root or dataset.name)
            raise DatasetError(problem, where, "Give label maps of structures that both images have")
        names = {label.value: label for kind in ("field", "mask") for label in dataset.classes.get(kind, ())}
        classes = [names.get(value, Label(value, str(value))) for value in values]
        both = sum(bool(one["both"]) for one in fields)
        modalities = {case.modality for case in fingerprint.cases}
        first = next((case for case in dataset if case.id == fingerprint.cases[0].id), None) if fields else None
        theirs = modalities if first is None else {first.images["moving"].modality}
        similarity = "mind" if theirs != modalities else "mse" if modalities == {"CT"} else "lncc"
        step = float(np.median(fingerprint.steps))
        return {
            "labels": Decision(
                reference_labels.plain_labels(classes),
                f"both images of {errors.count_phrase(both, 'training pair')} show them, of {len(fields)}",
            ),
            "axes": Decision(grid_and_length.network_axes(fingerprint), "the images have this number of axes"),
            "similarity": Decision(
                similarity,
                f"fixed images are {', '.join(sorted(modalities))}, moving ones {', '.join(sorted(theirs))}",
                VOXELMORPH,
            ),
            "images_weight": Decision(1.0, "the moved image is to be like the fixed one"),
            "smoothness": Decision(SMOOTHNESS[similarity], f"as in registration without training by {similarity}"),
            "labels_weight": Decision(
                1.0 if classes else 0.0,
                "overlap of moved labels teaches beside the images"
                if classes
                else "no structures are contoured in both",
                VOXELMORPH,
            ),
            "pairs": Decision(None, dataset.derived.get("field", "the data set lists its pairs")),
            "refine": Decision(REFINED, "a few steps on the pair itself gain what the network has not learnt", DALCA),
            "tolerance": Decision(round(2 * step, 3), f"two voxels of the median spacing {step:.3g}"),
        }

    def check_and_fill(self) -> Self:
        """The same; PlanError names the setting that cannot be."""
        for name in ("images_weight", "smoothness", "labels_weight", "tolerance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise PlanError(f"{getattr(self, name)}", f"task.{name}", "Give a number from 0 on")
        if self.axes not in (2, 3):
            raise PlanError(f"{self.axes} axes", "task.axes", "Give 2 or 3")
        for name, least in (("refine", 0), ("pairs", 1)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise PlanError(f"{getattr(self, name)}", f"task.{name}", f"Give a whole number from {least} on")
        return self

    @property
    def heads(self) -> Mapping[str, Head]:
        """One dense head: a displacement along each axis, in voxels."""
        return {HEAD: Dense(self.axes, offsets=self.axes)}

    @property
    def labels(self) -> tuple[Label, ...]:
        """The structures that are compared."""
        return self.classes

    @property
    def channels_when_mirrored(self) -> tuple[int, ...]:
        """Both images change sides alike, so that labels stay what they are; the vector turns with its axis."""
        return tuple(range(self.axes))

    @property
    def target_sides(self) -> tuple[int, ...]:
        """Codes of label values stay what they are: both images are mirrored alike."""
        return ()

    @property
    def painting(self) -> LabelPainting | None:
        """Both images, each in a contrast of its own, so that labels alone can say what lies where."""
        if not self.classes:
            return None
        count = len(self.classes) + 2
        fixed = tuple(code // count for code in range(count**2))
        moving = tuple(code % count for code in range(count**2))
        taught = "two images of any contrast are unlike where they lie right too: moved labels and smoothness teach"
        alike = "neighbourhoods can be compared across contrasts"
        decisions = {
            "task.images_weight": Decision(0.0, taught, SYNTHMORPH),
            "task.similarity": Decision("mind", f"what is refined after the network has any contrast, and {alike}"),
            "task.smoothness": Decision(0.5, "as in registration by local correlation, whose field it has to be"),
        }
        return LabelPainting((fixed, moving), decisions)

    @property
    def why_uncut(self) -> str:
        """The reason why a patch holds whole images."""
        return "a displacement may lead out of a patch"

    @property
    def selects_by(self) -> str:
        """Dice of moved labels where there are any, else the similarity."""
        return "dice" if self.classes else SIMILARITY

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A network that answers on half the grid, and what selects and judges."""
        points = any(case.references.get("field", {}).get("points") for case in fingerprint.cases)
        metric = SIMILARITY
        because = "nothing else is known; it proves no alignment"
        if self.classes:
            metric = "dice"
            because = "the overlap of structures that were contoured in both images"
        elif points:
            metric = TRE
            because = "the distance of points that were marked in both images"
        selects = "Dice of moved labels" if self.classes else "the similarity"
        return {
            "network.name": Decision("voxelmorph", "displacements are smooth, so half the grid suffices", VOXELMORPH),
            "training.selection": Decision(self.selects_by, f"{selects} of the validation pairs, mean over pairs"),
            "evaluation.primary": Decision(metric, because, VOXELMORPH),
        }

    def target(self, case: Case) -> Target:
        """(*spatial) a number for each two labels, of the fixed image and of the moving one as it lies at first.

        Raises GeometryError where the fixed labels lie on another grid than their image.
        """
        pair: Correspondence = case.references["field"]
        grid = properties.first_image(case).geometry
        count = len(self.classes) + 2
        fixed = moving = np.full(grid.shape, count - 1, dtype=np.int32)  # of what nobody contoured
        if pair.fixed_labels is not None:
            fixed_labels = pair.fixed_labels.on_axes_of(grid)
            reference_labels.refuse_other_image_grid(
                "fixed labels", fixed_labels, properties.first_image(case), case.id
            )
            fixed = self._ranks(fixed_labels)
        if (moving_labels := pair.moving_labels) is not None:
            onto = pair.onto or SpatialTransform((), grid, moving_labels.geometry)
            moving = spatial_transforms.carry_labels(self._ranks(moving_labels), moving_labels.geometry, onto, grid)
        codes = fixed * count + moving
        contoured_in = [tuple(range(rank * count, (rank + 1) * count)) for rank in range(1, count - 1)]
        kind = np.uint8 if count**2 <= 256 else np.int32
        return Target(Dense(1), codes.astype(kind), tuple(contoured_in) or None)

    def _ranks(self, labels: Image) -> Array:
        """(*spatial) 1, 2, ... in the order of the structures, 0 for everything else."""
        values = np.array([0, *(label.value for label in self.classes)])
        order = np.argsort(values)
        data = labels.data[0]
        places = np.clip(np.searchsorted(values[order], data), 0, len(values) - 1)
        return np.where(values[order][places] == data, order[places], 0).astype(np.int32)

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """Unlikeness of the moved image, the diffusion energy, and 1 less the Dice of moved labels."""
        field = outputs[HEAD].float()
        steps = spacing or (1.0,) * field.shape[1]
        in_mm = field * field.new_tensor(steps).reshape(1, -1, *[1] * (field.ndim - 2))
        total = self.smoothness * deformable.diffusion_energy(in_mm, steps)
        if self.images_weight:
            total = total + self.images_weight * self._unlike(outputs[IMAGES], field)
        both, size, labelled = self._overlaps(field, target)
        if self.labels_weight and bool(labelled.any()):
            counted = labelled[:, None] & (size > 0)
            dice = (2 * both / size.clamp(min=1e-6))[counted]
            total = total + self.labels_weight * (1 - dice.mean() if len(dice) else 0.0)
        return total

    def _unlike(self, images: Tensor, field: Tensor) -> Tensor:
        fixed, moving = (DEVIATION * images[:, place : place + 1].float() for place in (0, 1))
        return SIMILARITIES[self.similarity](
            fixed, learnt_registration.pull_images(moving, field), torch.ones_like(fixed)
        )

    def _overlaps(self, field: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, labels) voxels in both and in the two counted together, (batch,) whether both sides are known."""
        count = len(self.classes) + 2
        codes = target.long()
        fixed, moving = codes // count, codes % count
        labelled = ((fixed < count - 1) & (moving < count - 1)).flatten(1).all(dim=1)
        empty = field.new_zeros(len(field), count - 2)
        if count == 2 or not bool(labelled.any()):
            return empty, empty, labelled & (count > 2)
        ours, theirs = (
            torch.nn.functional.one_hot(one, count)[..., 1:-1].movedim(-1, 1).to(field.dtype) for one in (fixed, moving)
        )
        moved = learnt_registration.pull_images(theirs, field)
        return (ours * moved).flatten(2).sum(dim=2), (ours + moved).flatten(2).sum(dim=2), labelled

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, labels) voxels of moved labels, and (batch, 1) the similarity of each window."""
        field = outputs[HEAD].float()
        both, size, labelled = self._overlaps(field, target)
        distances = [
            self._unlike(outputs[IMAGES][n : n + 1], field[n : n + 1]).reshape(1, 1) for n in range(len(field))
        ]
        alike = 1 - torch.cat(distances)
        return {
            "both": both * labelled[:, None],
            "size": size * labelled[:, None],
            SIMILARITY: alike,
            "windows": torch.ones_like(alike),
        }

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Mean Dice over pairs and labels, without labels the mean similarity."""
        if self.classes:
            both, size = (collected[name].double() for name in ("both", "size"))
            return float((2 * both / size)[size > 0].mean())
        return float((collected[SIMILARITY] / collected["windows"]).double().mean())

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the length of the displacements."""
        if target is not None:
            raise UsageError(f"there is no {target!r} to explain", self.name, "Leave the target out")
        return cast("Tensor", outputs[HEAD].flatten(1).norm(dim=1))
