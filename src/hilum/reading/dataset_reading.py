"""Opening a data set and looking through it, as every verb does; boxes are made of label maps where asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from hilum import errors, keywords
from hilum.errors import DatasetError, GeometryError, UsageError
from hilum.files.format_options import CaseNames, ReadOptions
from hilum.files.modality_words import UNKNOWN_MODALITY
from hilum.files.slides import slide_files
from hilum.layouts import DatasetOptions, dataset_layouts
from hilum.lazy import ndimage
from hilum.planning.plan_result import LESIONS
from hilum.quality import dataset_examination
from hilum.quality.dataset_examination import Examination, Progress
from hilum.quality.modality_checks import MIXED_SCALE
from hilum.quality.references import masks
from hilum.reading import (
    alignment,
    image_pairs,
    image_targets,
    images_of_maps,
    imputation,
    measured_images,
    reading_options,
)
from hilum.reading.image_pairs import FIELD
from hilum.reading.image_targets import TARGET
from hilum.reading.reading_options import ReadingOptions
from hilum.report import progress_tracking
from hilum.runtime.preprocessing.coarse_mask import CoarseMask
from hilum.tasks import Task, properties, task_catalogue, task_settings
from hilum.transforms import label_maps
from hilum.transforms.label_maps import OBJECTS, PIECES
from hilum.values import (
    Array,
    BoundingBoxes,
    Case,
    Cohort,
    Dataset,
    Deferred,
    Image,
    Label,
    LazyMapping,
    Plan,
    Problem,
    Region,
    voxel_images,
)
from hilum.values.dataset_cases import DataFrameLike, References
from hilum.values.plain_values import PlainValue
from hilum.work_state import log

T = TypeVar("T")
# The kind of reference whose names have an order.
CLASS = "class"
# What a verb takes as its data: a path, a table in memory with the columns of `dataset.csv`, or cases.
Data: TypeAlias = str | Path | Dataset | DataFrameLike
BOXES, MASK, OBJECT_MAPS = "boxes", "mask", "instances"
# As --labels says that each number of a label map is one object: each=nucleus.
EACH = "each="
# Kinds of reference that lie on pixels.
PLACED = ("mask", "instances", "boxes")
# Pixels along a side of the blocks in which annotations are looked for: nearer ones are one region, and so
# much is shown around them.
BLOCK = 64


def path_of_data(subject: object) -> Path | None:
    """The path of what a verb was given; None for a value that is in memory."""
    return Path(subject) if isinstance(subject, str | Path) else None


def path_for_workers(data: T, scheduler: str | None) -> T | Path:
    """The data by their full path where others read them: a worker has another working folder."""
    path = None if scheduler is None else path_of_data(data)
    return data if path is None else path.absolute()


def open_dataset(
    data: Data,
    reading: ReadingOptions,
    *,
    references: bool = True,
    channels: int | None = None,
    absent: bool = False,
    needs: Collection[str] = (),
    settings: Mapping[str, PlainValue] = MappingProxyType({}),
    paints: bool = False,
    bare: bool = False,
) -> Dataset:
    """Return a data set as it is, or read it from its path by these options.

    channels: images of one case, where a model says how many
    absent:   whether it does without some of them
    needs:    kinds of reference that a task asks for, where a file can be read as one or another
    settings: of the task, by which cases are made of those that are read: pairs, damage, their number
    bare:     whether images without any reference will do, where no image has one
    paints:   whether images are painted from label maps where there are none, as a training may want them
    Raises what reading raises.
    """
    each = object_class(reading_options.labels_text(reading.labels)) if BOXES in needs else None
    if each is not None:
        reading, needs = replace(reading, labels=None), {*needs, OBJECT_MAPS}
    if reading.case_names not in (None, *get_args(CaseNames)):
        problem = f"DICOM cases cannot be called by {reading.case_names!r}"
        raise UsageError(problem, "--case-names", f"Choose {' or '.join(get_args(CaseNames))}")
    options = DatasetOptions(
        layout=reading.layout or None,
        labels=reading_options.labels_text(reading.labels),
        patient=reading.patient or None,
        class_rule=reading.class_rule or None,
        column=reading.columns,
        modality=reading.modality or None,
        read=keywords.narrow_options(reading, ReadOptions),
        references=references,
        channels=channels,
        kinds=frozenset(needs),
        absent=absent,
        case_names=reading.case_names or "number",
        exif=reading.exif or None,
        paints=paints,
        bare=bare,
        root=None if reading.root is None else Path(reading.root),
        exams=alignment.is_apart(reading.align),
    )
    accepted = _parse_accepted(reading.accept)
    dataset = _read_with_targets(data, options) if TARGET in needs and references else _read_data(data, options)
    is_ranked = dataset.ranked or bool(reading.order or reading.labels)
    dataset = replace(dataset, accepted=dataset.accepted | accepted, ranked=is_ranked)
    dataset = _in_order(dataset, reading_options.order_text(reading.order)) if references else dataset
    if references:
        dataset = with_regions(dataset)
    if BOXES in needs and references:
        dataset = with_boxes(dataset, each or "object")
    dataset = images_of_maps.with_painted_images(dataset) if paints else dataset
    if FIELD in needs or FIELD in dataset.kinds:
        return image_pairs.with_pairs(dataset, cast("int | None", settings.get("pairs")), samples=references)
    how = reading.align
    if how is not None:
        dataset = replace(dataset, cases=tuple(alignment.aligned_case(case, how) for case in dataset))
    if reading.impute is not None:
        dataset = imputation.with_imputed_images(dataset, str(reading.impute))
    if settings.get("operator") and references and TARGET not in dataset.kinds:
        return measured_images.with_measurements(dataset, settings)
    asked = TARGET in needs or TARGET in dataset.kinds
    return image_targets.with_targets(dataset, settings, references=references) if asked else dataset


def _read_data(data: Data, options: DatasetOptions) -> Dataset:
    match data:
        case Dataset():
            return data
        case str() | Path():
            return dataset_layouts.read_dataset(data, options)
        case _:
            return dataset_layouts.read_data_frame(data, options)


def _read_with_targets(data: Data, options: DatasetOptions) -> Dataset:
    """The data set; images without any reference too, of which damaged ones can be made, or blind spots teach."""
    try:
        return _read_data(data, options)
    except DatasetError:
        return _read_data(data, replace(options, references=False))


def _parse_accepted(names: str | None) -> frozenset[str]:
    """The names in a list of accepted findings; UsageError for one that cannot be accepted."""
    accepted = frozenset(name.strip() for name in (names or "").split(",") if name.strip())
    if unknown := sorted(accepted - {MIXED_SCALE}):
        remedy = f"Choose {MIXED_SCALE}; with --resume changes"
        raise UsageError(f"{unknown[0]!r} is no finding that can be accepted", "--accept", remedy)
    return accepted


def _in_order(dataset: Dataset, order: str | None) -> Dataset:
    """The data set with its classes in the order of --order; UsageError where it does not name each class once."""
    if not order:
        return dataset
    classes = {str(case.references[CLASS]) for case in dataset if CLASS in case.references}
    labels = {label.name: label for label in dataset.classes.get(CLASS, ())} or {
        name: Label(0, name) for name in classes
    }
    names = [name.strip() for name in order.split(",")]
    if sorted(names) != sorted(labels):
        problem = f"does not name each class once: the classes are {errors.list_phrase(sorted(labels)) or 'none'}"
        raise UsageError(problem, f"--order {order}", "Name them from the lowest grade to the highest")
    ordered = tuple(replace(labels[name], value=value) for value, name in enumerate(names))
    return replace(dataset, classes={**dataset.classes, CLASS: ordered})


def open_for_plan(plan: Plan, places: Sequence[Data]) -> Dataset:
    """The data of a plan, read as it says; settings of its task say which cases are made of those that are read."""
    settings = {name.removeprefix("task."): plan[name] for name in plan.names if name.startswith("task.")}
    dataset = open_for_task(plan["task.name"], places, ReadingOptions.of_plan(plan.options), settings=settings)
    return replace(dataset, lesions=frozenset(plan.options.get(LESIONS, ())))


def open_for_task(
    task: str | None,
    places: Sequence[Data],
    reading: ReadingOptions,
    needs: Collection[str] | None = None,
    settings: Mapping[str, PlainValue] = MappingProxyType({}),
) -> Dataset:
    """The cases of data sets as a named task learns from them, of several together: without references it reads none.

    needs: kinds of reference, as in `open_dataset`; None: those of the task; settings: as there
    """
    kinds = task_catalogue.needed_references(task) if needs is None else needs
    references = task_catalogue.learns_from_references(task)
    bare = task_catalogue.can_learn_from_nothing(task)
    datasets = [
        open_dataset(
            place, reading, references=references, needs=kinds, settings=settings, paints=references, bare=bare
        )
        for place in places
    ]
    dataset = join_datasets(datasets)
    return image_pairs.split_pairs(dataset) if FIELD in dataset.kinds else dataset


def join_datasets(datasets: Sequence[Dataset]) -> Dataset:
    """The cases of several data sets in one, which has the place of the first.

    A case whose name is taken already gets the number of its data set behind it.
    """
    first, *others = datasets
    for number, other in enumerate(others, start=2):
        taken = {case.id for case in first}
        names = {case.id: f"{case.id}_{number}" for case in other if case.id in taken}
        renamed = other.rename_cases(names)
        if not other.patients_known:  # each case stands for itself
            renamed = replace(renamed, cases=tuple(replace(case, patient=case.id) for case in renamed))
        first = replace(
            first,
            cases=(*first.cases, *renamed.cases),
            splits={**first.splits, **renamed.splits},
            hash="",
            modality=first.modality if first.modality == other.modality else UNKNOWN_MODALITY,
            patients_known=first.patients_known and other.patients_known,
            problems=(*first.problems, *renamed.problems),
            table=None,  # the rows of several have no declarations in common
        )
    return first


def open_labelled(data: Data, reading: ReadingOptions, task: Task) -> Dataset:
    """The cases of a data set that have references of the task's kind; DatasetError where none has."""
    has_references = properties.learns_from_references(task)
    settings = task_settings.settings_of(task)
    dataset = open_dataset(data, reading, references=has_references, needs=task.needs, settings=settings)
    if not properties.can_learn_from(task, dataset.kinds):
        problem = f"has no references of the kind {', '.join(sorted(task.needs))}"
        raise DatasetError(problem, str(dataset.root or dataset.name), f"Give data labelled for {task.name}")
    return keep_referenced(dataset, task)


def keep_referenced(dataset: Dataset, kind: type[Task] | Task) -> Dataset:
    """The cases that teach a kind of problem something; that others were left out is one more problem of the set."""
    lacking = tuple(case.id for case in dataset if not properties.can_learn_from(kind, case.references))
    if not lacking:
        return dataset
    kinds = ", ".join(sorted(kind.needs))
    problem = Problem.warning(
        f"{errors.count_phrase(len(lacking), 'case has', 'cases have')} no reference of the kind {kinds}",
        lacking,
        "they are left out",
        "Add their references, or remove the images",
    )
    referenced = dataset.only({case.id for case in dataset} - set(lacking))
    return replace(referenced, problems=(*dataset.problems, problem))


def examine_cases(
    dataset: Dataset,
    threads: int,
    kinds: Collection[str] = (),
    watch: Progress | None = None,
) -> Examination:
    """Every case read once, with progress.

    kinds: of reference that are to be predicted; empty: all
    watch: also called with how many cases are read, and with all
    """
    with progress_tracking.track_progress("reading cases", watch) as tracker:
        return dataset_examination.examine(dataset, threads=threads, progress=tracker, kinds=kinds)


class ExaminedDataset(NamedTuple):
    """A data set with what was found in it; because: why its label maps are taken for numbered objects, or nothing."""

    dataset: Dataset
    examination: Examination
    because: str = ""


def open_and_examine(
    opened: Callable[[Collection[str]], Dataset],
    task: str | None,
    threads: int,
    watch: Progress | None = None,
) -> ExaminedDataset:
    """Every case read once, and once more where nobody named the task and label maps turn out to number objects.

    opened: the data set, by the kinds of reference that are asked for
    watch:  as `examine_cases` takes it
    """
    dataset = opened(task_catalogue.needed_references(task))
    examination = examine_cases(dataset, threads, task_catalogue.needed_references(task), watch)
    because = masks.numbered_objects(Cohort(dataset, examination.fingerprint)) if task is None else ""
    if not because or OBJECT_MAPS not in (again := opened({OBJECT_MAPS})).kinds:
        return ExaminedDataset(dataset, examination)
    note = Problem.note(
        f"the label maps are read as numbers of single objects: {because}",
        (),
        "numbers that name structures would be the same in every image",
        "Choose --task segmentation if they name structures, and then name them with --labels",
    )
    log.info("the label maps number single objects: they are read once more as such")
    again = replace(again, problems=(*again.problems, note))
    return ExaminedDataset(again, examine_cases(again, threads), because)


def refuse_unfit(examination: Examination, task: str | None = None, *, elsewhere: bool = False) -> None:
    """DatasetError where training of a named task on these data should not go on.

    elsewhere: whether other sites may know structures that no case here knows
    """
    takes = task_catalogue.takes_numbered_objects(task)
    fatal = [
        one
        for one in examination.fatal
        if not (takes and one.what.endswith(masks.NUMBER_OBJECTS))
        and not (elsewhere and one.what.startswith(masks.UNKNOWN_HERE))
    ]
    if fatal:
        raise DatasetError(
            "; ".join(f"{one.what}: {errors.list_phrase(one.cases)}" if one.cases else one.what for one in fatal),
            str(examination.dataset.root or examination.dataset.name),
            fatal[0].remedy or "Look at `hilum check`",
        )


def object_class(labels: str | None) -> str | None:
    """The class of which each number of a label map is one; None where numbers name structures."""
    return labels.removeprefix(EACH).strip() or None if labels is not None and labels.startswith(EACH) else None


def with_boxes(dataset: Dataset, name: str) -> Dataset:
    """The data set with boxes made of its label maps, which stay beside them; as it is where there are boxes.

    name: of the class, where the maps number objects
    """
    if BOXES in dataset.kinds or not dataset.kinds & {MASK, OBJECT_MAPS}:
        return dataset
    objects = OBJECT_MAPS in dataset.kinds
    kind, rule = (OBJECT_MAPS, OBJECTS) if objects else (MASK, PIECES)
    labels = (Label(1, name),) if objects else _boxable_labels(dataset.classes.get(MASK, ()))
    structures = dataset.regions or {label.name: (label.value,) for label in labels}
    declared = (Label(n, one) for n, one in enumerate(structures)) if dataset.regions else labels
    cases = [
        replace(case, references=_with_boxes(case.references, partial(_boxes, case, kind, name, structures)))
        if kind in case.references
        else case
        for case in dataset
    ]
    classes = {**dataset.classes, BOXES: tuple(declared)} if labels or dataset.regions else dataset.classes
    return replace(dataset, cases=tuple(cases), classes=classes, derived={**dataset.derived, BOXES: rule})


def _with_boxes(references: References, boxes: partial[BoundingBoxes]) -> LazyMapping[Any]:
    return LazyMapping({**{kind: partial(references.__getitem__, kind) for kind in references}, BOXES: boxes})


def _boxes(case: Case, kind: str, name: str, structures: Mapping[str, Sequence[int]]) -> BoundingBoxes:
    """The boxes of one case, from its label map.

    Raises DatasetError where parts of the map, or structures, were not contoured: nobody knows what is there.
    """
    mask: Image = case.references[kind]
    if kind == OBJECT_MAPS:
        return label_maps.boxes_of_objects(mask, name, case.id)
    if unknown := [one for one in structures if not case.knows(one)]:
        problem = f"{errors.list_phrase(unknown)} was not contoured in it, and boxes need an image annotated as a whole"
        raise DatasetError(problem, case.id, "Give masks of every structure, or choose --task segmentation")
    ignored = [label.value for label in mask.labels if label.is_ignored]
    values = {int(value) for value in np.unique(mask.data)} - {0}
    if values & set(ignored):
        problem = "its mask holds voxels to be ignored, and boxes need an image that was annotated as a whole"
        raise DatasetError(problem, case.id, "Give masks that are contoured everywhere, or choose --task segmentation")
    named = {label.value: label.name for label in _boxable_labels(mask.labels)}
    return label_maps.boxes_of_pieces(
        mask, structures or {named.get(one, str(one)): (one,) for one in sorted(values)}, case.id
    )


def _boxable_labels(labels: Sequence[Label]) -> tuple[Label, ...]:
    """The labels that may have a box."""
    return tuple(label for label in labels if label.value and not label.is_ignored and not label.is_background)


# Regions of slides that somebody annotated, as cases of their own: a picture each, of one patient.


def with_regions(dataset: Dataset) -> Dataset:
    """The data set in which each annotated slide is replaced by the regions in which these lie.

    What lies in a region and is not annotated is background. Other cases stay as they are. Raises GeometryError where a
    label map is not of the size of its slide.
    """
    slides = {case.id for case in dataset if _is_annotated_slide(case)}
    if not slides:
        return dataset
    made = {case.id: _region_cases(case) for case in dataset if case.id in slides}
    cases = tuple(one for case in dataset for one in (made[case.id] if case.id in slides else [case]))
    splits = {one.id: dataset.splits[case] for case, own in made.items() if case in dataset.splits for one in own}
    what = f"{errors.count_phrase(len(slides), 'slide is', 'slides are')} {errors.count_phrase(len(cases), 'region')}"
    note = Problem.note(f"{what} around annotations, a picture each", (), "what is not annotated there is background")
    return replace(
        dataset,
        cases=cases,
        splits={**{name: part for name, part in dataset.splits.items() if name not in slides}, **splits},
        problems=(*dataset.problems, note),
    )


def _is_annotated_slide(case: Case) -> bool:
    """Whether a case is one slide on which something is annotated, by its file alone."""
    has_annotations = any(kind.partition(":")[0] in PLACED for kind in case.references)
    return has_annotations and len(case.images) == 1 and bool(case.files) and slide_files.is_slide(case.files[0])


@dataclass(frozen=True, eq=False)
class _AnnotatedSlide:
    """The references of a slide, each read once by each process."""

    references: References

    def value(self, kind: str) -> Any:
        """The reference of a kind, on the grid of the slide."""
        return _value_once(self, kind)


@cache
def _value_once(slide: _AnnotatedSlide, kind: str) -> Any:
    return slide.references[kind]


def _region_cases(case: Case) -> list[Case]:
    [name] = case.images
    slide, shape = _AnnotatedSlide(case.references), case.images[name].geometry.shape
    kinds = [kind for kind in case.references if kind.partition(":")[0] in PLACED]
    marked = np.zeros([-(-size // BLOCK) for size in shape], bool)
    for kind in kinds:
        marked |= _marked_blocks(slide.value(kind), shape, case.id)
    around = ndimage.binary_dilation(marked, np.ones((3, 3), bool))
    pieces = CoarseMask(around, (BLOCK,) * 2).pieces(shape)
    return [_region_case(case, name, slide, region, number) for number, region in enumerate(pieces, start=1)]


def _marked_blocks(value: Any, shape: tuple[int, ...], where: str) -> NDArray[np.bool_]:
    """The blocks of a slide in which something is annotated."""
    marked = np.zeros([-(-size // BLOCK) for size in shape], bool)
    if isinstance(value, BoundingBoxes):
        for low, high in zip(value.low / BLOCK, np.ceil(value.high / BLOCK), strict=True):
            marked[tuple(slice(int(start), int(end)) for start, end in zip(low, high, strict=True))] = True
        return marked
    if value.geometry.shape != shape:
        problem = f"the label map has {value.geometry.shape} pixels and its slide {shape}"
        raise GeometryError(problem, where, "Give the map that was annotated on this slide")
    labels = value.pixels if isinstance(value.pixels, Deferred) else value.pixels[0]
    read = voxel_images.reader_of(labels)
    for row in range(marked.shape[0]):
        rows, columns = slice(row * BLOCK, min((row + 1) * BLOCK, shape[0])), slice(0, shape[1])
        strip = read((slice(0, 1), rows, columns))[0] if isinstance(labels, Deferred) else read((rows, columns))
        marked[row] = np.logical_or.reduceat((strip != 0).any(axis=0), np.arange(0, shape[1], BLOCK))
    return marked


def _region_case(case: Case, name: str, slide: _AnnotatedSlide, region: Region, number: int) -> Case:
    rows, columns = region
    references = {kind: partial(_cut_reference, slide, kind, region) for kind in case.references}
    return replace(
        case,
        id=f"{case.id}_r{number}",
        images=LazyMapping({name: partial(_cut_named, case.images, name, region)}),
        references=LazyMapping(references),
        key=f"{case.key}region {rows.start}:{rows.stop},{columns.start}:{columns.stop}",
    )


def _cut_named(images: Mapping[str, Image], name: str, region: Region) -> Image:
    return cut_image(images[name], region)


def _cut_reference(slide: _AnnotatedSlide, kind: str, region: Region) -> Any:
    """The part of a reference that lies in a region; what has no place stays as it is."""
    value = slide.value(kind)
    if isinstance(value, Image):
        return cut_image(value, region)
    if not isinstance(value, BoundingBoxes):
        return value
    corner = np.array([part.start for part in region], float)
    within = (value.low >= corner).all(axis=1) & (value.high <= [part.stop for part in region]).all(axis=1)
    inside = value.at(np.asarray(within))
    return replace(inside, corners=inside.corners - np.tile(corner, 2))


def cut_image(image: Image, region: Region) -> Image:
    """A region of a picture as a picture of its own, read when it is asked for."""
    shape = tuple(part.stop - part.start for part in region)
    whole: Array | Deferred = image.pixels
    if isinstance(whole, Deferred):
        cut = partial(_cut_pixels, whole, region)
        every = (slice(None), *(slice(0, size) for size in shape))
        return image.with_pixels(
            Deferred((whole.shape[0], *shape), whole.dtype, partial(cut, every), cut), image.geometry.crop(region)
        )
    return image.with_pixels(whole[(slice(None), *region)].copy(), image.geometry.crop(region))


def _cut_pixels(whole: Deferred, region: Region, part: tuple[slice, ...]) -> Array:
    channels, *axes = part
    inner = [slice(*one.indices(own.stop - own.start)[:2]) for one, own in zip(axes, region, strict=True)]
    moved = (slice(a.start + own.start, a.stop + own.start) for a, own in zip(inner, region, strict=True))
    return whole[(channels, *moved)]
