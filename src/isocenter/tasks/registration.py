"""Registration: where each point of a fixed image lies in a moving one, learnt from pairs of images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from isocenter import errors
from isocenter.errors import DatasetError, IsocenterError, PlanError, UsageError
from isocenter.evaluation import ALL, Metric, Metrics, Seed, Table, case_tables, distance, mask_overlap
from isocenter.lazy import pandas as pd
from isocenter.lazy import torch
from isocenter.registration import deformable, learnt_registration
from isocenter.registration.deformable import SMOOTHNESS
from isocenter.registration.similarity_measures import SIMILARITIES
from isocenter.report import Figure
from isocenter.report.figures import charts, registration_figures, slice_figures
from isocenter.tasks import properties
from isocenter.tasks.shared import averages, grid_and_length, reference_labels
from isocenter.tasks.shared.averages import Shares
from isocenter.tasks.task import IMAGES, Outputs, Task
from isocenter.transforms import spatial_transforms
from isocenter.values import (
    Array,
    Case,
    Dataset,
    Decision,
    Dense,
    Displacement,
    Finding,
    Fingerprint,
    Floats,
    Geometry,
    Head,
    Image,
    Label,
    Measurements,
    Merge,
    Prediction,
    Row,
    Sentence,
    Slabs,
    SpatialTransform,
    Target,
    setting_fields,
)
from isocenter.values.spatial_transform import ONTO, UNMOVED, Correspondence

if TYPE_CHECKING:
    from torch import Tensor


# The answers of a registration: displacements of voxels to a transform in mm.
#
# A copy of this part travels with a packaged model.

HEAD = "field"
# Of `Prediction.values`: similarity where the images lay at first, and through the transform.
BEFORE, AFTER = "similarity_before", "similarity_after"
# Of each side, the margin beyond the image in which displacements fall to zero, so that none ends abruptly; and of the
# largest displacement at the edge, how many times it is as wide: from once on nothing folds there.
MARGIN, STEADY = 0.12, 2.0


class FieldAnswering(Task):
    """The answers of a registration; the fields are those of `Registration`."""

    classes: tuple[Label, ...]
    axes: int

    @property
    def channel_labels(self) -> tuple[Label, ...]:
        """None: no channel is a structure."""
        return ()

    @property
    def bytes_per_voxel(self) -> int:
        """Memory of displacements, and of what is made of them."""
        return 4 * (2 * self.axes + 1)

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean displacement."""
        return {HEAD: averages.mean_output([one[HEAD] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """None: displacements are measured."""
        return {}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """The field in mm; nothing moves where no slab is."""
        voxels = np.zeros((geometry.ndim, *geometry.shape), dtype=np.float32)
        axes = [axis for axis, size in enumerate(geometry.shape) if size > 1 or geometry.ndim == self.axes]
        for region, arrays in slabs:
            for axis, component in zip(axes, np.asarray(arrays[HEAD]), strict=True):
                voxels[axis][region] = component
        field = fade_at_margin(voxels, geometry)
        return Prediction(geometry, transform=SpatialTransform((field,), geometry), labels=self.labels)

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """Similarity before and after where it is known, voxels that fold, and how unevenly the image is stretched."""
        return {
            **(prediction.values or {}),
            **field_regularity(prediction),
            "inverse_error_mm": inverse_error(prediction),
        }

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """None: a transform is no finding."""
        return []


def fade_at_margin(voxels: Floats, geometry: Geometry) -> Displacement:
    """(n, *spatial) displacements in voxels as a field in mm that falls to zero in a margin around the image."""
    margins = []
    for axis, size in enumerate(geometry.shape):
        ends = np.take(voxels, [0, size - 1], axis=axis + 1)
        margins.append(math.ceil(max(MARGIN * size, STEADY * float(np.abs(ends).max()))) if size > 1 else 0)
    wide = np.pad(voxels, [(0, 0), *((margin, margin) for margin in margins)], mode="linear_ramp")
    affine = geometry.affine.copy()
    affine[:-1, -1] = geometry.to_world(-np.array(margins, dtype=float))
    mm = np.einsum("wi,i...->w...", geometry.affine[:-1, :-1].astype(np.float32), wide)
    grid = Geometry(wide.shape[1:], affine, physical=geometry.physical, oriented=geometry.oriented)
    return spatial_transforms.right_angled_field(Displacement(mm, grid))


def field_regularity(prediction: Prediction) -> dict[str, float]:
    """{figure: value} of the transform on the fixed grid: folded voxels in percent, and the SD of the log Jacobian."""
    assert prediction.transform is not None  # noqa: S101 - as decoded
    determinant = spatial_transforms.jacobian_determinants(prediction.transform, prediction.geometry)
    return {
        "folded_percent": spatial_transforms.folded_percent(determinant),
        "sd_log_jacobian": spatial_transforms.sd_log_jacobian(determinant),
    }


def inverse_error(prediction: Prediction) -> float:
    """Mean mm by which points miss themselves when they go forth and back; NaN for a field that folds."""
    assert prediction.transform is not None  # noqa: S101 - as decoded
    transform = prediction.transform
    try:
        parts = list(
            spatial_transforms.inverse_errors(
                transform, spatial_transforms.invert_transform(transform), prediction.geometry
            )
        )
    except IsocenterError:
        return math.nan
    distances = np.concatenate([one.ravel() for one in parts])
    return float(distances.mean()) if distances.size else math.nan


SIMILARITY, TRE, INVERSE = "similarity", "tre", "inverse_error"
STRUCTURE = "structure"
OF_LABELS = (
    Metric("dice", worst=0.0),
    Metric("dice_before", "Dice before", may_judge=False),
    Metric("hd95", "HD95", "less", unit="mm"),
    Metric("nsd", "NSD", worst=0.0),
)
OF_PAIRS = (
    Metric(TRE, "Target registration error", "less", unit="mm"),
    Metric("tre_before", "Target registration error before", "less", unit="mm", may_judge=False),
    Metric(SIMILARITY, "Similarity, which proves no alignment"),
    Metric(BEFORE, "Similarity before", may_judge=False),
    Metric("folded_percent", "Folded voxels in percent", "less", unit="%", may_judge=False),
    Metric("sd_log_jacobian", "SD of the log Jacobian", "less", may_judge=False),
    Metric(INVERSE, "Inverse error", "less", unit="mm", may_judge=False),
)
METRICS = Metrics((*OF_LABELS, *OF_PAIRS), label_word=STRUCTURE, of_case="dice")


class FieldScoring(FieldAnswering):
    """The scores of a registration, and what reports show of them; the fields are those of `Registration`."""

    similarity: str
    refine: int
    tolerance: float

    @property
    def refines(self) -> bool:
        """Whether steps of optimisation follow the network."""
        return self.refine > 0

    def with_image(self, prediction: Prediction, image: Image, *, refined: bool = True) -> Prediction:
        """The transform to the moving image as it lay at first, refined on the pair; similarity before and after.

        Without torch nothing is refined, and a note says so.
        """
        if prediction.transform is None or len(image.channels) < 2:
            return prediction
        facts = image.facts_of(1)
        fixed, moving = _channel(image, 0), _channel(image, 1)
        unmoved: Image = facts.get(UNMOVED, moving)
        onto: SpatialTransform = facts.get(ONTO, SpatialTransform((), image.geometry, moving.geometry))
        composed_transform, notes = spatial_transforms.compose_transforms(prediction.transform, onto), prediction.notes
        if not refined:
            return replace(prediction, transform=composed_transform)
        try:
            if self.refine:
                moved = spatial_transforms.carry_image(unmoved, composed_transform, image.geometry, beyond="edge")
                more = learnt_registration.refining_field(fixed, moved, self.similarity, self.refine)
                composed_transform = replace(composed_transform, parts=(more, *composed_transform.parts))
            pairs = {BEFORE: onto, AFTER: composed_transform}
            values = {
                name: learnt_registration.pair_similarity(
                    fixed, spatial_transforms.carry_image(unmoved, one, image.geometry), self.similarity
                )
                for name, one in pairs.items()
            }
        except ImportError:
            values, notes = {}, (*notes, "torch is not installed: the transform is the network's, not refined")
        return replace(prediction, transform=composed_transform, values=values, notes=notes)

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a pair and structure that both images show, and one of the pair as a whole."""
        rows = [row for one, case in zip(predictions, cases, strict=True) for row in self._pair_rows(one, case)]
        return pd.DataFrame(rows)

    def _pair_rows(self, prediction: Prediction, case: Case) -> Iterator[dict[str, Any]]:
        transform, pair = prediction.transform, _pair_of(case)
        assert transform is not None  # noqa: S101 - as decoded
        named = {"case": case.id, "patient": case.patient}
        onto = pair.onto or SpatialTransform((), prediction.geometry, transform.moving)
        yield {
            **named,
            "label": ALL,
            **_alike(prediction),
            **_points(pair, onto, transform),
            **field_regularity(prediction),
            INVERSE: inverse_error(prediction),
        }
        if not pair.has_labels or pair.fixed_labels is None or pair.moving_labels is None:
            return
        fixed = pair.fixed_labels.on_axes_of(prediction.geometry)
        before, after = (self._move_labels(pair.moving_labels, one, prediction) for one in (onto, transform))
        yield from (
            {**named, "label": case_tables.figure_label(label.name, STRUCTURE), **row}
            for label, row in self._label_rows(before, after, fixed)
        )

    def _label_rows(self, before: Array, after: Array, fixed: Image) -> Iterator[tuple[Label, dict[str, float]]]:
        true, values = fixed.data[0], [label.value for label in self.classes]
        first, last = (mask_overlap.overlap_by_label(one, true, values) for one in (before, after))
        spacing = fixed.geometry.affine[:-1, :-1] if fixed.geometry.physical else None
        for label in self.classes:
            if not last[label.value].reference and not last[label.value].predicted:
                continue
            surfaces = distance.surface_distance(after == label.value, true == label.value, spacing)
            yield (
                label,
                {
                    "dice_before": first[label.value].dice,
                    "dice": last[label.value].dice,
                    "hd95": surfaces.hd95,
                    "nsd": surfaces.nsd(self.tolerance),
                },
            )

    def _move_labels(self, labels: Image, transform: SpatialTransform, prediction: Prediction) -> Array:
        return spatial_transforms.carry_labels(labels.data[0], labels.geometry, transform, prediction.geometry)

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Each metric over all structures, then by structure; those of pairs after them. Patients are resampled."""
        of_labels, of_pairs = table[table["label"] != ALL], table[table["label"] == ALL]
        return [
            *case_tables.mean_rows(of_labels, _units(OF_LABELS, of_labels), seed=seed),
            *case_tables.mean_rows(of_pairs, _units(OF_PAIRS, of_pairs), seed=seed),
        ]

    def rank(self, table: Table) -> list[str]:
        """Pairs by mean Dice, without labels by the distance of points, else by similarity."""
        column = next((one for one in ("dice", TRE, SIMILARITY) if one in table and table[one].notna().any()), None)
        if column is None:
            return list(dict.fromkeys(table["case"]))
        means = table.groupby("case")[column].mean()
        return means.sort_values(ascending=column == TRE, kind="stable", na_position="last").index.tolist()

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """Contours of moved labels where there are any, both images as a checkerboard, and the bent grid."""
        transform, pair, image = prediction.transform, _pair_of(case), properties.first_image(case)
        assert transform is not None  # noqa: S101 - as decoded
        unmoved: Image = case.images["moving"].facts.get(UNMOVED, case.images["moving"])
        near, pictures = None, list[Figure]()
        if pair.has_labels and pair.fixed_labels is not None and pair.moving_labels is not None:
            near = pair.fixed_labels.on_axes_of(image.geometry).data[0]
            moved = self._move_labels(pair.moving_labels, transform, prediction)
            owners = ("fixed", "moved")
            pictures.append(slice_figures.contours(image, near, moved, self.classes, title=case.id, owners=owners))
        moved_image = spatial_transforms.carry_image(unmoved, transform, image.geometry)
        pictures.append(registration_figures.checkerboard(image, moved_image, f"{case.id}: checkerboard", near=near))
        return [*pictures, registration_figures.bent_grid(image, transform, f"{case.id}: deformed grid", near=near)]

    def overview(self, table: Table) -> list[Figure]:
        """Dice of the pairs before and after."""
        if "dice" not in table:
            return []
        groups = {
            words: table[column].dropna().to_numpy(float)
            for words, column in (("before", "dice_before"), ("after", "dice"))
        }
        return [charts.histogram_chart(groups, "Dice of the pairs, of each structure", axis="Dice")]


def _units(metrics: Sequence[Metric], table: Table) -> Mapping[str, str]:
    return {one.name: one.unit for one in metrics if one.name in table}


def _pair_of(case: Case) -> Correspondence:
    pair: Correspondence = case.references["field"] if "field" in case.references else Correspondence()
    return pair


def _channel(image: Image, number: int) -> Image:
    """One channel of an image; its values are read."""
    return replace(image, pixels=image.data[number : number + 1], channels=(image.channels[number],), facts={})


def _alike(prediction: Prediction) -> dict[str, float]:
    values = prediction.values or {}
    return {name: values[own] for name, own in ((BEFORE, BEFORE), (SIMILARITY, AFTER)) if own in values}


def _points(pair: Correspondence, onto: SpatialTransform, transform: SpatialTransform) -> dict[str, float]:
    """Mean distance in mm of moved points from those of the moving image, before and after."""
    if pair.fixed_points is None or pair.moving_points is None:
        return {}
    both = {"tre_before": onto, TRE: transform}
    return {
        name: float(
            np.linalg.norm(spatial_transforms.carry_points(one, pair.fixed_points) - pair.moving_points, axis=1).mean()
        )
        for name, one in both.items()
    }


VOXELMORPH, DALCA = "arXiv:1809.05231", "arXiv:1903.03545"
# The network sees images whose deviation is 1; similarities count on intensities in about 0..1.
DEVIATION = 0.2
# Steps of optimisation after the network.
REFINED = 20
# More labels than this are no structures that somebody named.
MOST_LABELS = 256


@dataclass(frozen=True)
class Registration(FieldScoring):
    """The displacement of each voxel of a fixed image, taught by what makes the moved image like it.

    classes:       structures that were drawn in both images; they are looked at in training alone
    axes:          of the network's grid
    similarity:    by which the moved image is compared with the fixed one
    smoothness:    weight of the diffusion energy of the displacement, in mm a mm
    labels_weight: weight of 1 less the Dice of moved labels, where both images have them
    pairs:         drawn for each volume, of a set of single volumes; None: as many as fit into memory
    refine:        steps of optimisation of a pair after the network
    tolerance:     mm within which a surface counts as found (voxels where no size is known)
    """

    classes: tuple[Label, ...] = setting_fields.setting(
        (),
        Sentence("The structures {value} show whether images lie on one another", "No structures are drawn"),
        name="labels",
        read=reference_labels.labels_from,
        plain=reference_labels.plain_labels,
        target=True,
    )
    axes: int = setting_fields.setting(3, Sentence("Images have {value} axes"), target=True)
    similarity: Literal["lncc", "mse", "mind"] = setting_fields.setting(
        "lncc", Sentence("Images are compared by {value}"), choices=tuple(SIMILARITIES), noun="similarity"
    )
    smoothness: float = setting_fields.setting(
        0.5, Sentence("The weight of the diffusion energy is {value}"), search=(0.25, 0.5, 1.0)
    )
    labels_weight: float = setting_fields.setting(
        1.0, Sentence("The weight of moved labels is {value}", "Labels do not teach"), search=(0.5, 1.0, 2.0)
    )
    pairs: int | None = setting_fields.setting(
        None, Sentence("Pairs are drawn for each volume: {value}", "Pairs are listed, or as many as fit into memory")
    )
    refine: int = setting_fields.setting(
        REFINED, Sentence("Steps of optimisation after the network: {value}", "Nothing is optimised after the network")
    )
    tolerance: float = setting_fields.setting(
        2.0,
        Sentence("The tolerance of NSD in mm (in voxels where the spacing is unknown) is {value}"),
        registered="tolerance",
    )
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
            problem, where = f"label maps of {len(values)} values", str(dataset.root or dataset.name)
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
            "smoothness": Decision(SMOOTHNESS[similarity], f"as in registration without training by {similarity}"),
            "labels_weight": Decision(
                1.0 if classes else 0.0,
                "overlap of moved labels teaches beside the images" if classes else "no structures are drawn in both",
                VOXELMORPH,
            ),
            "pairs": Decision(None, dataset.derived.get("field", "the data set lists its pairs")),
            "refine": Decision(REFINED, "a few steps on the pair itself gain what the network has not learnt", DALCA),
            "tolerance": Decision(round(2 * step, 3), f"two voxels of the median spacing {step:.3g}"),
        }

    def check_and_fill(self) -> Self:
        """The same; PlanError names the setting that cannot be."""
        for name in ("smoothness", "labels_weight", "tolerance"):
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
        metric, because = SIMILARITY, "nothing else is known; it proves no alignment"
        if self.classes:
            metric, because = "dice", "the overlap of structures that were drawn in both images"
        elif points:
            metric, because = TRE, "the distance of points that were marked in both images"
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
        fixed = moving = np.full(grid.shape, count - 1, dtype=np.int32)  # of what nobody drew
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
        drawn_in = [tuple(range(rank * count, (rank + 1) * count)) for rank in range(1, count - 1)]
        kind = np.uint8 if count**2 <= 256 else np.int32
        return Target(Dense(1), codes.astype(kind), tuple(drawn_in) or None)

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
        total = self._unlike(outputs[IMAGES], field) + self.smoothness * deformable.diffusion_energy(in_mm, steps)
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
        count, codes = len(self.classes) + 2, target.long()
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
        return outputs[HEAD].flatten(1).norm(dim=1)
