"""Measurements of the structures in a label map: their size, axes, shape and intensities, and ratios of these.

A model states the ratios of its plan, and those that its package was given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hilum.evaluation import biomarkers, vessel_diameters
from hilum.evaluation.biomarkers import Diameters
from hilum.evaluation.region_shape import RegionShape
from hilum.lazy import ndimage
from hilum.runtime.model_assembly import Model
from hilum.tasks import Task, properties, task_settings
from hilum.tasks.shared import structure_findings
from hilum.tasks.shared.structure_findings import Ratio
from hilum.transforms import channel_stack
from hilum.values import Array, Deferred, Floats, Geometry, Image, Label, Region, voxel_images
from hilum.values.table_cells import PlainCell

BLOCK_VOXELS = 2**20
SUV = "SUVbw"
# A tumour or a tree of vessels has fewer voxels; of what has more no peak and no centreline is looked for.
MOST_PLACES = 2**22


def measure_labels(
    label_map: Array | Deferred, labels: Sequence[Label], image: Image, line_structures: Collection[str] = ()
) -> list[dict[str, PlainCell]]:
    """One row a label: voxels, volume (ml; 2D: area in mm², 1D: length), axes, shape; of channels mean, SD and maximum.

    label_map: (*spatial) on the image's own grid
    line_structures: names of labels whose centreline is measured too: its length, and where it is narrowest
    The axes are RECIST 1.1's, mm, within one connected piece of one plane of the image as it is stored. The shape is
    the number of pieces, the centre (mm; of a volume RAS+, where its sides are known), and IBSI's ratios. Intensities
    are the image's own (HU of a CT), where they are measurements; where they are SUV, the peak stands beside them. No
    size without that of a voxel, and no row without labels, as where no object was found.
    """
    if not labels:
        return []
    # Of a slide neither intensities, which are dyes, nor what takes all of a plane.
    names, size = () if image.is_slide else channel_stack.without_alpha(image.channels), _size(image.geometry)
    units = [image.facts_of(channel).get("unit") for channel in range(len(names))]
    moments = _Moments(len(names), max(label.value for label in labels) + 1)
    is_measured = size is not None and image.geometry.ndim > 1 and not image.is_slide
    axes = _Axes(labels, _steps(image.geometry)) if is_measured else None
    shapes = _Shapes(labels, image.geometry) if axes is not None else None
    uptake = _Uptake(labels) if SUV in units and size is not None and image.geometry.is_volume else None
    lines = _Lines([one for one in labels if one.name in line_structures]) if axes is not None else None
    read = image.reader()
    for region, marked in voxel_images.walk_blocks(label_map, BLOCK_VOXELS):
        part = read((slice(0, len(names)), *region)) if names and marked.any() else np.empty((0,))
        moments.add(marked, part, image.is_measured(part))
        if axes is not None and image.geometry.is_volume:  # a block holds whole planes of it
            axes.add(marked)
        if shapes is not None and image.geometry.is_volume:
            shapes.add(marked, region[-1].start)
        if uptake is not None:
            uptake.add(region, marked)
        if lines is not None:
            lines.add(region, marked)
    if axes is not None and image.geometry.is_picture:  # of whose only plane a block is a strip
        axes.add(np.asarray(label_map))
    if shapes is not None and image.geometry.is_picture:
        shapes.add_picture(np.asarray(label_map))
    rows = []
    for label in labels:
        row: dict[str, PlainCell] = {"label": label.name, "voxels": int(moments.voxels[label.value])}
        if size is not None:
            row[size[0]] = round(float(moments.voxels[label.value]) * size[1], 6)
        row |= {} if axes is None else axes.measure(label)
        row |= {} if shapes is None else shapes.measure(label)
        row |= {} if lines is None or label not in lines.labels else lines.measure(label, image.geometry)
        for channel, name in enumerate(names):
            row |= {f"{what}_{name}": value for what, value in moments.measure(channel, label.value).items()}
            if uptake is not None and units[channel] == SUV:
                row[f"peak_{name}"] = uptake.measure(channel, label, image)
        rows.append(row | _unit_columns(names, units))
    return rows


def _unit_columns(names: Sequence[str], units: Sequence[str | None]) -> dict[str, PlainCell]:
    """The unit of the intensities, for each channel where channels differ; nothing where none is known."""
    if len(set(units)) == 1:
        return {"unit": units[0]} if units[0] else {}
    return {f"unit_{name}": unit for name, unit in zip(names, units, strict=True) if unit}


def _size(geometry: Geometry) -> tuple[str, float] | None:
    """(column, size of one voxel)."""
    columns = {1: f"length_{geometry.unit}", 2: "area_mm2", 3: "volume_ml"}
    return None if geometry.voxel_size is None else (columns[geometry.ndim], geometry.voxel_size[0])


def _steps(geometry: Geometry) -> Floats:
    """(2, 2) mm of the steps of the first two axes within their plane, which may stand obliquely in space."""
    return np.asarray(np.linalg.qr(geometry.affine[:-1, :2])[1])


class _Moments:
    """Voxels of each value of a label map, and mean, SD and most of each channel in them; NaN where there is none.

    A few slices at a time, each with its own mean, and the sums joined as in Chan, Golub and LeVeque, The American
    Statistician 1983, doi:10.1080/00031305.1983.10483115.
    """

    def __init__(self, channels: int, length: int) -> None:
        self.voxels = np.zeros(length, dtype=np.int64)
        self._counts, self._means, self._squares = np.zeros((3, channels, length))
        self._most = np.full((channels, length), -np.inf)

    def add(self, marked: Array, part: Array, valid: Array) -> None:
        """Add some slices: (*spatial) labels, and (channels, *spatial) intensities and where they are valid."""
        length = len(self.voxels)
        self.voxels += np.bincount(marked.ravel(), minlength=length)[:length]
        for channel, (values, is_valid) in enumerate(zip(part, valid, strict=True)):
            is_marked = (marked > 0) & (marked < length) & is_valid
            self._join(channel, marked[is_marked], values[is_marked].astype(np.float64))

    def _join(self, channel: int, value: Array, intensity: Floats) -> None:
        length = len(self.voxels)
        count = np.bincount(value, minlength=length)
        mean = np.bincount(value, intensity, length) / np.maximum(count, 1)
        apart = np.where(count > 0, mean - self._means[channel], 0.0)
        total = np.maximum(self._counts[channel] + count, 1)
        self._squares[channel] += np.bincount(value, (intensity - mean[value]) ** 2, length)
        self._squares[channel] += apart**2 * self._counts[channel] * count / total
        self._means[channel] += apart * count / total
        self._counts[channel] += count
        np.maximum.at(self._most[channel], value, intensity)

    def measure(self, channel: int, value: int) -> dict[str, float]:
        """{"mean", "sd", "max"} of one channel in one label."""
        if not self._counts[channel, value]:
            return dict.fromkeys(("mean", "sd", "max"), float("nan"))
        squares = self._squares[channel, value] / self._counts[channel, value]
        figures = (self._means[channel, value], np.sqrt(squares), self._most[channel, value])
        return dict(zip(("mean", "sd", "max"), map(float, figures), strict=True))


@dataclass(frozen=True, eq=False)
class _Axes:
    """The longest diameters of each label so far. steps: (2, 2) mm within a plane"""

    labels: Sequence[Label]
    steps: Floats
    best: dict[int, Diameters] = field(default_factory=dict)

    def add(self, marked: Array) -> None:
        """Add whole planes, (rows, columns[, planes]) labels."""
        planes = np.atleast_3d(marked)
        values = {label.value for label in self.labels}
        boxes = [
            (value, plane, box)
            for plane in range(planes.shape[2])
            for value, box in enumerate(ndimage.find_objects(planes[:, :, plane].astype(np.int32)), start=1)
            if box is not None and value in values
        ]
        # The largest first: most of the others then cannot be longer, and nobody looks at them.
        for value, plane, box in sorted(
            boxes, key=lambda item: biomarkers.longest_diagonal(item[2], self.steps), reverse=True
        ):
            longest = self.best[value].long if value in self.best else 0.0
            if biomarkers.longest_diagonal(box, self.steps) > longest:
                axes = biomarkers.plane_diameters(planes[:, :, plane][box] == value, self.steps, over=longest)
                if axes is not None:
                    self.best[value] = axes

    def measure(self, label: Label) -> dict[str, float]:
        """{"long_axis_mm", "short_axis_mm"} of one label, NaN where it has no voxel."""
        axes = self.best.get(label.value, Diameters(float("nan"), float("nan")))
        return {"long_axis_mm": round(axes.long, 6), "short_axis_mm": round(axes.short, 6)}


class _Shapes:
    """The shape of each label so far, of planes that come in their order."""

    def __init__(self, labels: Sequence[Label], geometry: Geometry) -> None:
        self.geometry, self.steps = geometry, geometry.affine[:-1, :-1]
        self.shapes = {label.value: RegionShape(geometry.ndim) for label in labels}
        self._last: Array = np.zeros((*geometry.shape[:-1], 0), np.uint8)

    def add(self, marked: Array, start: int) -> None:
        """Add whole planes of a volume, (rows, columns, planes) labels; start: the number of the first."""
        follows = self._last.shape[-1]
        joined = np.concatenate([self._last, marked], axis=-1)
        for value, box in self._boxes(joined):
            inside = joined[box] == value
            first = (box[0].start, box[1].start, box[2].start + start - follows)
            self.shapes[value].add(inside, first, follows=bool(follows) and box[2].start == 0)
            # Beyond its box a label has no voxel; the planes at the ends are those of the parts before and after.
            sides = [(1, 1), (1, 1), (int(box[2].start > 0 or not follows), int(box[2].stop < joined.shape[-1]))]
            self.shapes[value].mesh.add(np.pad(inside, sides), box[0].start - 1)
        self._last = marked[..., -1:]
        if start + marked.shape[-1] == self.geometry.shape[-1]:
            self._close()

    def _close(self) -> None:
        """Add the cells between the last plane and the outside."""
        for value, box in self._boxes(self._last):
            inside = np.pad(self._last[box] == value, [(1, 1), (1, 1), (0, 1)])
            self.shapes[value].mesh.add(inside, box[0].start - 1)

    def add_picture(self, marked: Array) -> None:
        """Add all of a picture, (rows, columns) labels."""
        for value, box in self._boxes(marked):
            self.shapes[value].add(marked[box] == value, (box[0].start, box[1].start))

    def _boxes(self, marked: Array) -> Iterator[tuple[int, Region]]:
        """(value, the box around it) of each wanted label that is there."""
        for value, box in enumerate(ndimage.find_objects(marked.astype(np.int32)), start=1):
            if box is not None and value in self.shapes:
                yield value, box

    def measure(self, label: Label) -> dict[str, float]:
        """Pieces, centre (mm), elongation, of a volume also sphericity and flatness; NaN without a voxel."""
        shape, geometry = self.shapes[label.value], self.geometry
        row: dict[str, float] = {"pieces": shape.pieces}
        if geometry.has_sides or geometry.is_picture:
            names = "xyz" if geometry.is_volume else ("row", "column")
            centre = geometry.to_world(shape.centre).tolist()
            row |= {f"centre_{name}_mm": round(one, 4) for name, one in zip(names, centre, strict=True)}
        if geometry.is_volume:
            row["sphericity"] = round(shape.sphericity(self.steps), 6)
        ratios = zip(("elongation", "flatness"), shape.elongation(self.steps), strict=False)
        return row | {name: round(one, 6) for name, one in ratios}


@dataclass(frozen=True, eq=False)
class _Places:
    """Places of each label; of one that has more than a tumour or a tree of vessels not all of them."""

    labels: Sequence[Label]
    places: dict[int, list[NDArray[np.int32]]] = field(default_factory=dict)

    def add(self, region: Region, marked: Array) -> None:
        """Add the voxels of a region, (*spatial) labels."""
        start = np.array([part.start for part in region], dtype=np.int32)
        for label in self.labels:
            held = self.places.setdefault(label.value, [])
            if sum(map(len, held)) <= MOST_PLACES:  # else nothing is looked for, and a body would fill the memory
                held.append(np.argwhere(marked == label.value).astype(np.int32) + start)

    def of_label(self, label: Label, axes: int) -> NDArray[np.int32] | None:
        """(voxels, axes); None where there are none, or too many."""
        places = np.concatenate(self.places.get(label.value, [np.empty((0, axes), np.int32)]))
        return places if 0 < len(places) <= MOST_PLACES else None


class _Lines(_Places):
    """The centreline of each label, and where it is narrowest."""

    def measure(self, label: Label, geometry: Geometry) -> dict[str, float]:
        """Length and least diameter (mm), its place, and by how much it is narrower than the line on either side."""
        names = ("x", "y", "z") if geometry.is_volume else ("row", "column")
        columns = ("length_mm", "least_diameter_mm", *(f"least_{name}_mm" for name in names), "narrowing_percent")
        places = self.of_label(label, geometry.ndim)
        if places is None:
            return dict.fromkeys(columns, float("nan"))
        low = places.min(axis=0)
        mask = np.zeros(places.max(axis=0) - low + 1, dtype=bool)
        mask[tuple((places - low).T)] = True
        line = vessel_diameters.narrowing(mask, geometry.affine[:-1, :-1])
        place = geometry.to_world(line.place + low).tolist()
        figures = (line.length, line.least_diameter, *place, line.percent)
        kept = {name: round(value, 4) for name, value in zip(columns, figures, strict=True)}
        is_placed = geometry.has_sides or geometry.is_picture
        return {name: value for name, value in kept.items() if is_placed or name not in columns[2:-1]}


class _Uptake(_Places):
    """The peak of the uptake of each label."""

    def measure(self, channel: int, label: Label, image: Image) -> float:
        """SUVpeak; NaN where there is nothing to measure, or a value nearby is no measurement."""
        places, spacing = self.of_label(label, 3), image.geometry.spacing
        if places is None or spacing is None:
            return float("nan")
        reach = np.array(biomarkers.peak_reach(spacing))
        low = np.maximum(places.min(axis=0) - reach, 0)
        high = np.minimum(places.max(axis=0) + reach + 1, image.geometry.shape)
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        mask = np.zeros(high - low, dtype=bool)
        mask[tuple((places - low).T)] = True
        values = image.reader()((slice(channel, channel + 1), *box))
        return biomarkers.suv_peak(values[0], mask, spacing) if image.is_measured(values).all() else float("nan")


RATIOS: Final = "measures"
LINES = "centrelines"


def line_structures(task: Task) -> dict[str, tuple[str, ...]]:
    """{part of a task: names of the structures whose centreline is measured}; the first part has no name here."""
    marking = [(part, own) for part, own in properties.leaf_tasks(task).items() if properties.marks_labels(own)]
    lines = [tuple(task_settings.settings_of(own).get(LINES) or ()) for _, own in marking]
    return dict(zip(["", *(part for part, _ in marking[1:])], lines, strict=False))


def with_ratios(model: Model, ratios: Sequence[Ratio]) -> Model:
    """The model with ratios in its record, which packages keep."""
    by_name = {one.name: one for one in (*_recorded_ratios(model), *ratios)}
    return replace(model, record={**model.record, RATIOS: [str(one) for one in by_name.values()]}) if by_name else model


def ratios_of(model: Model) -> tuple[Ratio, ...]:
    """The ratios of a model's plan, and those in its record, which stand in place of a planned one of the same name."""
    by_name = {one.name: one for one in (*_planned_ratios(model.task), *_recorded_ratios(model))}
    return tuple(by_name.values())


def checked_ratios(texts: Sequence[str], task: Task) -> tuple[Ratio, ...]:
    """Ratios of structures that a task marks. Raises UsageError for another structure, and for a name given twice."""
    marked = [
        name
        for part, own in properties.leaf_tasks(task).items()
        for label in own.labels
        for name in ((label.name, f"{part}: {label.name}") if part else (label.name,))
    ]
    return structure_findings.ratios_from(texts, marked)


def _recorded_ratios(model: Model) -> tuple[Ratio, ...]:
    return tuple(map(Ratio.from_text, model.record.get(RATIOS) or ()))


def _planned_ratios(task: Task) -> Iterator[Ratio]:
    """The ratios of a task; the structures of a further part have its name before theirs, as in `measurements.csv`."""
    marking = [(part, own) for part, own in properties.leaf_tasks(task).items() if properties.marks_labels(own)]
    for number, (part, ratios_of_part) in enumerate(marking):
        for ratio in map(Ratio.from_text, task_settings.settings_of(ratios_of_part).get(RATIOS) or ()):
            above, below = (replace(one, structure=f"{part}: {one.structure}") for one in (ratio.above, ratio.below))
            yield replace(ratio, above=above, below=below) if number else ratio
