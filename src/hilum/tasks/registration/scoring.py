"""The scores of a registration, and what reports show of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hilum.evaluation import ALL, Metric, Metrics, Seed, Table, case_tables, distance, mask_overlap
from hilum.lazy import pandas as pd
from hilum.registration import learnt_registration
from hilum.report import Figure
from hilum.report.figures import charts, registration_figures, slice_figures
from hilum.tasks import properties
from hilum.tasks.registration import answering
from hilum.tasks.registration.answering import AFTER, BEFORE, FieldAnswering
from hilum.transforms import spatial_transforms
from hilum.values import Array, Case, Image, Label, Prediction, Row, SpatialTransform
from hilum.values.spatial_transform import ONTO, UNMOVED, Correspondence
from hilum.values.table_cells import PlainCell

SIMILARITY = "similarity"
TRE = "tre"
INVERSE = "inverse_error"
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
        composed_transform = spatial_transforms.compose_transforms(prediction.transform, onto)
        notes = prediction.notes
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
            values = {}
            notes = (*notes, "torch is not installed: the transform is the network's, not refined")
        return replace(prediction, transform=composed_transform, values=values, notes=notes)

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a pair and structure that both images show, and one of the pair as a whole."""
        rows = [row for one, case in zip(predictions, cases, strict=True) for row in self._pair_rows(one, case)]
        return pd.DataFrame(rows)

    def _pair_rows(self, prediction: Prediction, case: Case) -> Iterator[dict[str, PlainCell]]:
        transform = prediction.transform
        pair = _pair_of(case)
        assert transform is not None  # noqa: S101 - as decoded
        named: dict[str, PlainCell] = {"case": case.id, "patient": case.patient}
        onto = pair.onto or SpatialTransform((), prediction.geometry, transform.moving)
        yield {
            **named,
            "label": ALL,
            **_alike(prediction),
            **_points(pair, onto, transform),
            **answering.field_regularity(prediction),
            INVERSE: answering.inverse_error(prediction),
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
        true = fixed.data[0]
        values = [label.value for label in self.classes]
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
        of_labels = table[table["label"] != ALL]
        of_pairs = table[table["label"] == ALL]
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
        transform = prediction.transform
        pair = _pair_of(case)
        image = properties.first_image(case)
        assert transform is not None  # noqa: S101 - as decoded
        unmoved: Image = case.images["moving"].facts.get(UNMOVED, case.images["moving"])
        near = None
        pictures = list[Figure]()
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
