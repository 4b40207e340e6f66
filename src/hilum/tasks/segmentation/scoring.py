"""The scores of label maps: one row a case and label, estimates over the cases, and pictures."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hilum import errors
from hilum.belief import calibration_scores, prediction_sets, voxel_calibration, voxel_scores
from hilum.belief.calibration_scores import DOUBT_METRICS
from hilum.belief.prediction_sets import HIGH, LOW, SET_METRICS
from hilum.belief.voxel_scores import ECE, VOXEL_METRICS
from hilum.errors import DatasetError, HilumError
from hilum.evaluation import (
    Metric,
    Metrics,
    Seed,
    Table,
    case_tables,
    centrelines,
    distance,
    intervals,
    mask_overlap,
)
from hilum.evaluation.case_tables import POOLED_METRICS
from hilum.evaluation.centrelines import CENTRELINE_METRICS
from hilum.evaluation.distance import SURFACE_METRICS
from hilum.evaluation.mask_overlap import FALSE_POSITIVE_VOLUME, OVERLAP_METRICS, VOLUME_ERROR, Overlap
from hilum.evaluation.metric import UNIT_ENDS
from hilum.evaluation.regression import AGREEMENT_METRICS
from hilum.lazy import pandas as pd
from hilum.report import Figure
from hilum.report.figures import charts, slice_figures
from hilum.tasks import properties
from hilum.tasks.segmentation.answering import MaskAnswering
from hilum.tasks.shared import measurements, reference_labels
from hilum.tasks.shared.measurements import MeasuredQuantity
from hilum.values import MM, Array, Case, Estimate, Geometry, Image, Label, LazyMapping, Prediction, Row, slabs
from hilum.values.grid_geometry import SERIES_UNITS
from hilum.values.table_cells import PlainCell

STRUCTURE = "structure"
MEASURED = ("volume_predicted", "volume_reference")
# Columns of a structure that fits the reference of another one far better, in some case of a table.
OTHER_LABEL = "other_label"
DICE_OF_OTHER = "dice_of_other_label"
OF_AREAS = ("_mm2", "_pixels")
# Distances and volumes have their unit in the name where it is not mm or ml.
OF_SERIES = tuple(f"_{unit}" for unit in SERIES_UNITS)
OF_DISTANCES = ("_pixels", "_voxels", *OF_SERIES)
OF_VOLUMES = (*OF_AREAS, "_voxels", *OF_SERIES)
DISTANCES = tuple(one.name for one in SURFACE_METRICS)
# Of labels that have a centreline.
OF_LINES = frozenset(one.name for one in CENTRELINE_METRICS)
VOLUME_AGREEMENT = tuple(
    replace(
        one,
        name=f"volume_{one.name}",
        words=f"Volume, {one.words if one.words[1].isupper() else one.words[0].lower() + one.words[1:]}",
        unit=one.unit or ("ml" if one.better == "aim" else ""),
    )
    for one in AGREEMENT_METRICS
)
# Of cases that several people contoured.
READER_METRICS = (Metric("dice_to_readers", worst=0.0), Metric("dice_between_readers"))


def _distance_in(end: str, metric: Metric) -> Metric:
    """A metric of surfaces in another unit than mm; the words of a ratio name the unit of its tolerance."""
    words = "" if metric.unit or end in OF_SERIES else f"{metric.words}, tolerance in {UNIT_ENDS[end]}"
    return metric.in_unit(end, words)


def _volume_in(end: str, metric: Metric) -> Metric:
    """A metric of volumes in another unit than ml; in pictures they are areas."""
    words = metric.words.replace("volume", "area").replace("Volume", "Area")
    return metric.in_unit(end, words if end in OF_AREAS else "")


METRICS = Metrics(
    (
        *OVERLAP_METRICS,
        *POOLED_METRICS,
        *SURFACE_METRICS,
        *(_distance_in(end, one) for one in SURFACE_METRICS for end in OF_DISTANCES),
        *VOLUME_AGREEMENT,
        *(
            _volume_in(end, one)
            for one in (VOLUME_ERROR, FALSE_POSITIVE_VOLUME, *VOLUME_AGREEMENT)
            for end in OF_VOLUMES
        ),
        *CENTRELINE_METRICS,
        *READER_METRICS,
        *SET_METRICS,
        *VOXEL_METRICS,
        *DOUBT_METRICS,
    ),
    label_word=STRUCTURE,
    of_case="dice",
).mark_audited(audited=("dice",), calibration=ECE)
READERS = {"between readers": "dice_between_readers", "model to readers": "dice_to_readers"}


class MaskScoring(MaskAnswering):
    """The scores of a segmentation, and what reports show of them."""

    tolerance: Mapping[str, float] | float
    centrelines: tuple[str, ...]

    @property
    def tolerances(self) -> Mapping[str, float]:
        """{structure: mm} within which its surface counts as found."""
        return self.tolerance if isinstance(self.tolerance, Mapping) else dict.fromkeys(self.names, self.tolerance)

    @property
    def primaries(self) -> frozenset[str]:
        """All metrics, those of readers where several people contoured."""
        unstated = () if len(self.observers) > 1 else READER_METRICS
        return self.metrics.primaries - {one.name for one in unstated}

    def own_labels(self, cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
        """The cases with masks under the model's numbers, and sentences on labels that one side lacks."""
        silent = {self.truth.background, self.truth.ignore or 0}
        return with_own_labels(cases, self.labels, self.structures, silent)

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and structure that is known in it, on the reference's own grid.

        Raises GeometryError for a prediction on another grid.
        """
        rows = [row for one, case in zip(predictions, cases, strict=True) for row in self._case_rows(one, case)]
        return pd.DataFrame(rows)

    def _case_rows(self, prediction: Prediction, case: Case) -> list[dict[str, PlainCell]]:
        reference = case.references["mask"]
        reference_labels.refuse_other_grid(prediction, reference, case.id)
        predicted = np.asarray(prediction.data)
        reference_map = self.truth.reference_map(case)
        structures = {
            name: own for place, (name, own) in enumerate(self.structures.items()) if reference_map.knows(place)
        }
        rows = structure_case_rows(
            predicted,
            reference_map.values,
            structures,
            reference.geometry,
            self.tolerances,
            self.centrelines,
            known=reference_map.voxels,
            surfaces=self.truth.sparse is None,
        )
        of_voxels = voxel_scores.voxel_columns(
            prediction, reference_map, self.structures, self.probable, self.certainty.covers_from
        )
        by_readers = self.truth.reader_agreement(predicted, case, tuple(self.structures))
        named = {"case": case.id, "patient": case.patient}
        return [
            {
                **named,
                **row,
                **by_readers.get(name, {}),
                **of_voxels[name],
                "label": case_tables.figure_label(name, STRUCTURE),
            }
            for name, row in zip(structures, rows, strict=True)
        ]

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Each metric over all labels (mean of their means), then by label; patients are resampled."""
        of_voxels = [with_known_share(row, table) for row in voxel_scores.voxel_rows(table, seed=seed)]
        tolerances = {case_tables.figure_label(name, STRUCTURE): own for name, own in self.tolerances.items()}
        return [
            *mask_summary_rows(table, tolerances, seed=seed),
            *of_voxels,
            *calibration_scores.doubt_rows(table, seed=seed),
        ]

    def rank(self, table: Table) -> list[str]:
        """Case ids by mean Dice; a case without any structure counts as 1."""
        dice = table.groupby("case")["dice"].mean().fillna(1.0)
        return dice.sort_values(ascending=False, kind="stable").index.tolist()

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """Contours of the prediction, and of the reference where the case has one: of the structures that it knows."""
        predicted = np.asarray(prediction.data)
        if "mask" not in case.references:
            return [slice_figures.contours(properties.first_image(case), None, predicted, self.labels, title=case.id)]
        reference = self.truth.reference_map(case)
        if reference.known is not None:
            structures = [own for place, own in enumerate(self.structures.values()) if reference.knows(place)]
            predicted = np.where(np.isin(predicted, [value for own in structures for value in own]), predicted, 0)
        return [
            slice_figures.contours(
                properties.first_image(case), reference.values, predicted, self.labels, title=case.id
            )
        ]

    def overview(self, table: Table) -> list[Figure]:
        """Dice of the cases, agreement of volumes, and where several people contoured, how far readers agree."""
        labels = [case_tables.figure_label(name, STRUCTURE) for name in self.structures]
        groups = {label: table.loc[table["label"] == label, "dice"].to_numpy(float) for label in labels}
        pictures = [charts.histogram_chart(groups, "Dice of the cases", axis="Dice")]
        pictures += [volume_figure(volume) for volume in label_volumes(table)]
        if not set(READERS.values()) <= set(table):
            return pictures
        agreements = {words: table[column].dropna().to_numpy(float) for words, column in READERS.items()}
        caption = "Mean Dice of each two readers, and of the model to each of them."
        return [*pictures, charts.histogram_chart(agreements, "Readers and model", axis="Dice", caption=caption)]


def structure_case_rows(
    predicted: Array,
    truth: Array,
    structures: Mapping[str, tuple[int, ...]],
    geometry: Geometry,
    tolerances: Mapping[str, float],
    line_structures: Collection[str] = (),
    *,
    known: Array | None = None,
    surfaces: bool = True,
) -> Iterator[dict[str, PlainCell]]:
    """The scores of each structure of two label maps (*spatial) on one grid.

    structures:  {name: its values}
    geometry:    without a physical size figures of pictures count pixels, of volumes voxels, and columns end so; of a
                 series both are in the unit of its axis
    tolerances:  {name: mm} of `nsd`
    line_structures: names of those whose centrelines are scored too
    known:       (*spatial) where the truth is known; all other voxels are left out, and what borders on them is no
                 surface. None where all of it is known
    surfaces:    False where a structure is known in parts, so that it has no surface
    """
    spacing = geometry.spacing
    voxel = voxel_calibration.voxel_volume_in_unit(geometry)
    unit = geometry.unit
    steps = geometry.affine[:-1, :-1] if spacing is not None and geometry.is_sheared else spacing
    if known is not None:
        predicted = np.where(known, predicted, 0)
        truth = np.where(known, truth, 0)
    overlap_counts, others = _overlaps(predicted, truth, structures)
    boxes = mask_overlap.boxes_of_structures((predicted, truth), structures)
    unknown = {} if known is None else {"voxels_known": int(np.count_nonzero(known)), "voxels_all": known.size}
    measure = mask_overlap.volume_unit(geometry).replace("mm²", "mm2")
    counted = f"_{measure}" if spacing is None else "" if unit == MM else f"_{unit}"
    amount = "" if measure == "ml" else f"_{measure}"
    for name, values in structures.items():
        counts = overlap_counts[name]
        distances = dict[str, float]()
        box = boxes[name]  # a pass over the whole map for each structure would take most of the time
        marked = mask_overlap.mask_of_values(values, predicted[box])
        true = mask_overlap.mask_of_values(values, truth[box])
        if surfaces:
            known_there = None if known is None else known[box]
            surface = distance.surface_distance(marked, true, steps, known=known_there, extent=truth.shape)
            distances = {
                f"hd95{counted}": surface.hd95,
                f"hd95_points{counted}": surface.hd95_points,
                f"hd{counted}": surface.hd,
                f"assd{counted}": surface.assd,
                f"nsd{counted}": surface.nsd(tolerances[name]),
            }
        yield {
            "label": name,
            "dice": counts.dice,
            "iou": counts.iou,
            "sensitivity": counts.sensitivity,
            "precision": counts.precision,
            **distances,
            f"volume_error{amount}": counts.volume_error(voxel),
            f"false_positive_volume{amount}": counts.false_positive_volume(voxel),
            f"volume_predicted{amount}": counts.predicted * voxel,
            f"volume_reference{amount}": counts.reference * voxel,
            "detected": counts.is_detected,
            **(_of_lines(marked, true) if name in line_structures else {}),
            "voxels_both": counts.both,
            "voxels_predicted": counts.predicted,
            "voxels_reference": counts.reference,
            **others.get(name, {}),
            **unknown,
        }


def _overlaps(
    predicted: Array, truth: Array, structures: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Overlap], dict[str, dict[str, PlainCell]]]:
    """The Overlap of each structure, and the columns of those that fit another one's reference better.

    One pass over the voxels; of structures of several values each nobody looks at those of others.
    """
    values = sorted({value for own in structures.values() for value in own})
    matrix = mask_overlap.confusion_counts(predicted, truth, values)
    places = {name: [1 + values.index(value) for value in own] for name, own in structures.items()}
    counts = {name: mask_overlap.overlap_of_places(matrix, own) for name, own in places.items()}
    if any(len(own) > 1 for own in structures.values()):
        return counts, {}
    names = {own[0]: name for name, own in structures.items()}
    others: dict[str, dict[str, PlainCell]] = {
        names[value]: {OTHER_LABEL: case_tables.figure_label(names[other], STRUCTURE), DICE_OF_OTHER: dice}
        for value, (other, dice) in mask_overlap.better_fitting_labels(matrix, values).items()
    }
    return counts, others


def mask_summary_rows(table: Table, tolerances: Mapping[str, float], *, seed: Seed) -> list[Row]:
    """Means by metric, over all labels first, then pooled; the method states how undefined scores are counted.

    tolerances: {structure: mm} of `nsd`
    """
    metrics = [name for name in case_tables.metric_columns(table) if not name.startswith(("voxels_", *MEASURED))]
    rows = case_tables.mean_rows(table, {metric: METRICS.metric_named(metric).unit for metric in metrics}, seed=seed)
    lines = {label for label, own in table.groupby("label") if "cldice" in table and own["cldice"].notna().any()}
    rows = [row for row in rows if row.metric not in OF_LINES or row.label in {"all", *lines}]
    rows = [_as_proportion(row, table, seed) if row.metric == "detected" else row for row in rows]
    rows = [_explain_row(row, table, tolerances) for row in rows] + case_tables.pooled_rows(table, seed=seed)
    agreement = [row for volume in label_volumes(table) for row in volume_agreement(volume, seed=seed)]
    return [with_known_share(row, table) for row in (*rows, *agreement, *volume_intervals(table, seed=seed))]


@dataclass(frozen=True, eq=False)
class LabelVolumes:
    """Volumes of a label, predicted and by the reference.

    measured: (cases,) in `unit`; ending: of their columns
    """

    measured: MeasuredQuantity
    unit: str
    ending: str


def volume_intervals(table: Table, *, seed: Seed) -> Iterator[Row]:
    """Rows on how often the intervals of volumes hold those of the references, and how wide they are."""
    columns = {f"{MEASURED[0]}_{side}": side for side in (LOW, HIGH)}
    if not set(columns) <= set(table):
        return
    references = [str(name) for name in table if str(name).startswith(MEASURED[1])]
    unit = METRICS.metric_named(references[0].replace(MEASURED[1], VOLUME_ERROR.name)).unit
    renamed = table.rename(columns=columns).assign(reference=table[references].bfill(axis=1).iloc[:, 0])
    for label in dict.fromkeys(renamed["label"]):
        rows = prediction_sets.interval_rows(str(label), renamed[renamed["label"] == label], unit, seed=seed)
        # Images of known and of unknown size: of widths in two units there is no mean.
        yield from (row for row in rows if len(references) == 1 or row.metric == "coverage")


def label_volumes(table: Table) -> list[LabelVolumes]:
    """The volumes of each label that some reference has; cases with an empty reference are left out."""
    compared = []
    for ending in (str(name).removeprefix(MEASURED[1]) for name in table if str(name).startswith(MEASURED[1])):
        unit = METRICS.metric_named(f"{VOLUME_ERROR.name}{ending}").unit
        for label in dict.fromkeys(table["label"]):
            rows = table[(table["label"] == label) & (table[f"{MEASURED[1]}{ending}"] > 0)]
            if len(rows):
                predicted, reference = (rows[f"{side}{ending}"].to_numpy(float) for side in MEASURED)
                patients = rows["patient"].to_numpy(str)
                cases = rows["case"].to_numpy(str)
                compared.append(
                    LabelVolumes(MeasuredQuantity(str(label), predicted, reference, patients, cases), unit, ending)
                )
    return compared


def volume_agreement(volume: LabelVolumes, *, seed: Seed) -> list[Row]:
    """Bias of the volumes and its limits of agreement."""
    rows = measurements.agreement_rows(volume.measured, volume.unit, seed=seed)
    return [replace(row, metric=f"volume_{row.metric}{volume.ending}") for row in rows]


def volume_figure(volume: LabelVolumes) -> Figure:
    """The Bland-Altman plot of a label's volumes."""
    quantity = "Area" if volume.ending in OF_AREAS else "Volume"
    return measurements.agreement_figure(volume.measured, f"{quantity} of {volume.measured.target}", volume.unit)


def _of_lines(predicted: Array, truth: Array) -> dict[str, float]:
    """Centreline Dice with its two sides, and by how many pieces and loops the prediction is off."""
    line = centrelines.compare_centrelines(predicted, truth)
    return {
        "cldice": line.dice,
        "centreline_recall": line.recall,
        "centreline_precision": line.precision,
        "components_error": float(abs(line.components)),
        "loops_error": float(abs(line.loops)),
    }


def _explain_row(row: Row, table: Table, tolerances: Mapping[str, float]) -> Row:
    name = next((metric for metric in DISTANCES if row.metric.startswith(metric)), row.metric)
    rows = table if row.label == "all" else table[table["label"] == row.label]
    rows = rows[rows[row.metric].notna()] if row.metric in rows else rows  # of images of another unit it says nothing
    if name.startswith("false_positive_volume"):
        return replace(row, estimate=_on_empty(row.estimate, int((rows["voxels_reference"] == 0).sum())))
    notes = []
    if name == "nsd":
        notes.append(f"tolerance {_tolerance_words(tolerances, row.label)} {_tolerance_unit(row.metric)}")
    one_sided = int(((rows["voxels_predicted"] > 0) != (rows["voxels_reference"] > 0)).sum())
    if name in DISTANCES and one_sided:
        worst = "0" if name == "nsd" else "the image's diagonal"
        notes.append(f"{one_sided} with one side empty counted as {worst}")
    return _note_row(row, notes)


def with_known_share(row: Row, table: Table) -> Row:
    """The row with the share of voxels that were scored, where masks leave some out."""
    if "voxels_known" not in table:
        return row
    cases = table.drop_duplicates("case")
    share = 100 * cases["voxels_known"].sum() / cases["voxels_all"].sum()
    return _note_row(row, [f"on the {share:.3g} % of the images that is known"])


def _note_row(row: Row, notes: Sequence[str]) -> Row:
    return replace(row, estimate=replace(row.estimate, method="; ".join([row.estimate.method, *notes])))


def _tolerance_unit(metric: str) -> str:
    return next((unit for end, unit in UNIT_ENDS.items() if metric.endswith(end)), MM)


def _as_proportion(row: Row, table: Table, seed: Seed) -> Row:
    """Whether one label was found is a proportion; the mean over labels is none."""
    rows = table[(table["label"] == row.label) & table["detected"].notna()]
    if rows.empty:
        return row
    estimate = intervals.proportion(rows["detected"], rows["patient"], seed=seed)
    left = int((table["label"] == row.label).sum()) - len(rows)
    note = f"; {errors.count_phrase(left, 'empty reference')} left out" if left else ""
    return replace(row, estimate=replace(estimate, method=estimate.method + note))


def _on_empty(estimate: Estimate, empty: int) -> Estimate:
    """The method says of how many references; all others were left out by intent."""
    if not empty:
        return replace(estimate, method="none: no reference is empty")
    method = re.sub(r"; \d+ undefined left out", "", estimate.method)
    return replace(estimate, method=f"{method}; of {errors.count_phrase(empty, 'empty reference')}")


def _tolerance_words(tolerances: Mapping[str, float], label: str) -> str:
    """The tolerance of a label; over all labels that of each, or the range."""
    if label in tolerances:
        return f"{tolerances[label]:g}"
    low, high = min(tolerances.values()), max(tolerances.values())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


MASK = "mask"
# The beginning of names for what the model was not taught.
OTHER = "other"


@dataclass(frozen=True)
class MaskValues:
    """The values that the masks of a case hold.

    known:   {value: value of the model's label that means the same}
    named:   {value: name} of what the model does not know by this name
    strange: values without a meaning
    """

    where: str
    known: Mapping[int, int]
    named: Mapping[int, str]
    strange: AbstractSet[int]


def with_own_labels(
    cases: Sequence[Case], labels: Sequence[Label], structures: Mapping[str, tuple[int, ...]], silent: Collection[int]
) -> tuple[list[Case], list[str]]:
    """The cases with masks under the model's numbers, and sentences on what only one side names.

    labels, structures: of the model; {name: values} of what is scored
    silent: values that mean nothing in the model's masks: of the background, and of unknown voxels
    A mask that cannot be read, or contradicts the model, is left to whoever scores its case.
    Raises DatasetError where masks hold values that the model does not know, or nothing that it knows.
    """
    held = {case.id: own for case in cases if (own := _mask_values(case, labels, silent)) is not None}
    used = {own for one in held.values() for own in one.known.values()}
    lacking = {name: values for name, values in structures.items() if not used & set(values)}
    _refuse_strange(held, labels, lacking)
    named = {value: name for one in held.values() for value, name in one.named.items()}
    if named and not used:
        names = [label.name for label in labels]
        reference_names = errors.list_phrase(sorted(set(named.values())))
        problem = f"the references name {reference_names}, and the model knows {_table(labels)}"
        raise DatasetError(problem, next(iter(held.values())).where, _remedy(dict.fromkeys(named, ""), names))
    relabelled = [_with_own_labels(case, labels, structures) for case in cases]
    partial = [case for case in relabelled if case.known is not None and not case.known.issuperset(structures)]
    if partial and not any(case.known is None or case.known for case in relabelled):
        problem = f"no case knows any of {errors.list_phrase(structures)}"
        raise DatasetError(problem, relabelled[0].id, "Give cases in which one of them was contoured")
    return relabelled, [
        *_sentences(held, labels, lacking, named),
        *(_known_words(relabelled, structures) if partial else ()),
    ]


def _mask_values(case: Case, labels: Sequence[Label], silent: Collection[int]) -> MaskValues | None:
    values_known = dict[int, int]()
    named = dict[int, str]()
    strange = set[int]()
    where = case.id
    try:
        for kind in _kinds(case):
            mask: Image = case.references[kind]
            values_of = reference_labels.own_values(labels, mask.labels, case.id)
            values = {int(value) for value in slabs.label_voxels(reference_labels.label_values(mask.data, case.id))} - {
                0
            }
            declared = {one.value: one for one in mask.labels if not one.is_bare}
            unknown = values - values_of.keys() - declared.keys() - set(silent)
            values_known |= {value: values_of[value] for value in values & values_of.keys()}
            others = [declared[value] for value in values & declared.keys() - values_of.keys()]
            named |= {one.value: one.name for one in others if not (one.is_ignored or one.is_background)}
            where = mask.source.paths[0] if unknown and not strange and mask.source else where
            strange |= unknown
    except HilumError:
        return None
    return MaskValues(where, values_known, named, strange)


def _refuse_strange(
    held: Mapping[str, MaskValues], labels: Sequence[Label], lacking: Mapping[str, tuple[int, ...]]
) -> None:
    odd = [one for one in held.values() if one.strange]
    if not odd:
        return
    strange = sorted(set().union(*(one.strange for one in odd)))
    known_values = {value: own for one in held.values() for value, own in one.known.items()}
    names = {label.value: label.name for label in labels}
    theirs = {**{value: names[own] for value, own in known_values.items()}, **dict.fromkeys(strange, "")}
    theirs |= {value: name for one in held.values() for value, name in one.named.items()}
    whose = f"the references of {len(odd)} of {errors.count_phrase(len(held), 'case')}"
    unknown_values = errors.list_phrase(strange)
    what = f"hold the {'value' if len(strange) == 1 else 'values'} {unknown_values}, which the model does not know"
    none = f", and none holds {_list_structures(lacking)}" if lacking else ""
    problem = (
        f"{whose} {what}{none}: the model has {_table(labels)}, the references {errors.list_phrase(sorted(theirs))}"
    )
    free = [label.name for label in labels if label.value not in known_values.values()]
    raise DatasetError(problem, odd[0].where, _remedy(theirs, free))


def _remedy(theirs: Mapping[int, str], free: Iterable[str]) -> str:
    """Remedy that states what values mean, {value: name}, by an example: those without a name get one of `free`."""
    left = iter(free)
    names = {value: theirs[value] or next(left, f"{OTHER}{value}") for value in sorted(theirs)}
    text = shlex.quote(",".join(f"{value}={name}" for value, name in names.items()))
    return f"Say what the values mean, as in --labels {text} if that is so; what has another name is not scored"


def _sentences(
    held: Mapping[str, MaskValues],
    labels: Sequence[Label],
    lacking: Mapping[str, tuple[int, ...]],
    named: Mapping[int, str],
) -> Sequence[str]:
    names = {label.value: label.name for label in labels}
    moved = {value: own for one in held.values() for value, own in one.known.items() if value != own}
    sentences = []
    if moved:
        pairs = [f"{value} is {names[own]} ({own} in the model)" for value, own in sorted(moved.items())]
        matched_names = errors.list_phrase(pairs)
        sentences.append(
            f"The references are numbered otherwise than the model, and matched by their names: {matched_names}."
        )
    if named:
        others = errors.list_phrase(sorted(set(named.values())))
        sentences.append(f"Not scored, because the model was not taught them: {others}.")
    if lacking and held:
        sentences.append(
            f"No reference of {errors.count_phrase(len(held), 'case')} holds {_list_structures(lacking)}: figures of "
            "it only count what is marked wrongly. If the references have it under another number or name, say so "
            "with --labels."
        )
    return sentences


def _known_words(cases: Sequence[Case], structures: Iterable[str]) -> Iterator[str]:
    """The sentence on how many cases know each structure."""
    counts = {name: sum(case.knows(name) for case in cases) for name in structures}
    counted_names = ", ".join(f"{name} in {count}" for name, count in counts.items())
    cases_in_words = errors.count_phrase(len(cases), "case")
    yield f"A structure is scored only where it was contoured; of {cases_in_words} that is {counted_names}."


def _list_structures(structures: Mapping[str, tuple[int, ...]]) -> str:
    return errors.list_phrase(
        name if name == str(values[0]) else f"{values[0]} ({name})" for name, values in structures.items()
    )


def _table(labels: Sequence[Label]) -> str:
    return errors.list_phrase(one.name if one.is_bare else f"{one.value} {one.name}" for one in labels)


def _with_own_labels(case: Case, labels: Sequence[Label], structures: Mapping[str, tuple[int, ...]]) -> Case:
    kinds = {kind: partial(_own_mask, case, kind, tuple(labels)) for kind in _kinds(case)}
    others = {kind: partial(case.references.__getitem__, kind) for kind in case.references if kind not in kinds}
    structures_known = case.known if MASK not in case.references else _known_structures(case, labels, structures)
    return replace(case, references=LazyMapping({**others, **kinds}), known=structures_known)


def _known_structures(
    case: Case, labels: Sequence[Label], structures: Mapping[str, tuple[int, ...]]
) -> frozenset[str] | None:
    """The structures of the model that a case knows, which calls them by its own names; None where it knows all."""
    if case.known is None:
        return None
    try:
        declared = case.references[MASK].labels
        values_of = reference_labels.own_values(labels, declared, case.id)
    except HilumError:  # whoever scores the case says what is wrong with it
        return case.known
    values = {label.name: values_of.get(label.value) for label in declared}
    values |= {name: values_of.get(int(name)) for name in case.known if name.isdecimal() and name not in values}
    called = {reference_labels.normalise_name(name): name for name in structures}
    marks = {numbers[0]: name for name, numbers in structures.items()}
    names = (
        called.get(reference_labels.normalise_name(name)) or marks.get(values.get(name) or 0) for name in case.known
    )
    return frozenset(name for name in names if name is not None)


def _own_mask(case: Case, kind: str, labels: tuple[Label, ...]) -> Image:
    return reference_labels.renumber_mask(case.references[kind], labels, case.id)


def _kinds(case: Case) -> list[str]:
    """The masks of a case: its own, and those of further readers."""
    return [kind for kind in case.references if kind.partition(":")[0] == MASK]
