"""Parts of a task that is made of tasks, and properties of any task that follow from its parts, whatever its kind.

Any other task is its own only part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import Queue
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from hilum.belief.covering_results import AddedResults
from hilum.errors import GeometryError
from hilum.tasks import task_settings
from hilum.tasks.shared import left_right
from hilum.tasks.shared.averages import ENDS
from hilum.tasks.shared.left_right import STATE_SIDES
from hilum.transforms import orient
from hilum.values import Array, Case, Geometry, Head, Image, Map, Prediction, Slabs
from hilum.values.covariate_values import CovariateValues
from hilum.values.table_cells import TableRow

if TYPE_CHECKING:
    from hilum.tasks.task import Columns, Task


# Cases that a loss compares with others, as those with an event: a batch that the clock makes smaller has so many on
# average. One batch in fifty then has none (Poisson).
FEWEST_COMPARED = 4


T = TypeVar("T")


def sureness(task: Task, prediction: Prediction) -> float:
    """Sureness of an answer, 0 to 1: the expected Dice, or the probability of the least sure part; 0: nobody knows.

    Of a class or a finding it is the probability of what is called, by thresholds and costs too: below 0.5 where these
    call what is less likely.
    """
    if task.parts:
        return min(sureness(part, prediction.parts[name]) for name, part in task.parts.items())
    if expected := prediction.confidence.expected:
        return float(np.mean(list(expected.values())))
    if not (chances := prediction.probabilities):
        return 0.0
    [columns, *_] = output_rows(task.outputs(prediction))
    if task.uncertainty == "labels":
        return min(p if columns[f"called_{name}"] else 1 - p for name, p in chances.items())
    return chances.get(str(columns.get("predicted")), max(chances.values()))


def learns_from_references(kind: type[Task] | Task) -> bool:
    """Whether references teach it; of a kind that needs none, objectives that need none either do."""
    return bool(kind.needs)


def can_learn_from(kind: type[Task] | Task, references: Collection[str]) -> bool:
    """Whether references of these kinds teach it something: all that it needs, unless it has alternatives."""
    return any(needed <= set(references) for needed in kind.alternatives or (kind.needs,))


def added_results(task: Task) -> AddedResults | None:
    """The results that the answers of a task, or of all its parts, add on request; None where there are none."""
    by_part = {
        name: found for name, part in leaf_tasks(task).items() if part.answers and (found := part.answers.added_results)
    }
    if not by_part:
        return None
    if "" in by_part:
        return by_part[""]
    masks = {full_head_name(name, head): least for name, one in by_part.items() for head, least in one.masks.items()}
    results = {name: one.result for name, one in by_part.items() if one.result}

    def result(prediction: Prediction) -> Prediction:
        """The prediction with all boxes and objects of its parts that it takes to miss little."""
        return with_part_results(prediction, {name: made(prediction.parts[name]) for name, made in results.items()})

    return AddedResults(masks, result if results else None)


def covariate_adjustment(task: Task) -> Callable[[Prediction, CovariateValues], Prediction] | None:
    """A result and covariates to the result with the patient's own sets and thresholds; None where no part has them."""
    by_part = {
        name: own for name, part in leaf_tasks(task).items() if part.answers and (own := part.answers.by_covariates)
    }
    if not by_part or "" in by_part:
        return by_part.get("")

    def result(prediction: Prediction, covariates: CovariateValues) -> Prediction:
        """Each part's own result, by what is known of the patient."""
        return with_part_results(
            prediction, {name: made(prediction.parts[name], covariates) for name, made in by_part.items()}
        )

    return result


def picks_a_side(task: Task) -> bool:
    """Whether its answer about an image is one of two sides, as of the classes OD and OS.

    Such a picture is not mirrored: a right eye in the mirror looks like a left one, and is none.
    """
    return any(
        picks_a_label(part) and orient.names_sides(part.channels_when_mirrored) for part in leaf_tasks(task).values()
    )


def picks_a_label(task: Task) -> bool:
    """Whether its answer about an image is one of the targets of explanations, as a class or a finding.

    Else it is all of them together, as of grades whose outputs lie between two of them.
    """
    of_image = task.uncertainty in ("classes", "labels") and all(head.is_vector for head in task.heads.values())
    return of_image and set(task.saliency_targets) == {label.name for label in task.labels}


def marks_labels(task: Task) -> bool:
    """Whether its result is a map of its labels alone, which a second network can get as an input."""
    return not task.parts and any(states_voxels(head) for head in task.heads.values())


def states_voxels(head: Head) -> bool:
    """Whether the outputs of a head are labels of voxels."""
    return head.is_dense and not (head.holds_boxes or head.tells_objects or head.holds_intensities)


def mirrored_channels(task: Task) -> Mapping[str, tuple[int, ...] | None]:
    """{head: what each of its channels becomes when left and right change sides}, as `Task.channels_when_mirrored`."""
    by_part = {name: dict.fromkeys(part.heads, part.channels_when_mirrored) for name, part in leaf_tasks(task).items()}
    return {full_head_name(name, head): order for name, own in by_part.items() for head, order in own.items()}


def fewest_samples(task: Task, cases: Sequence[Case]) -> int:
    """The samples of a batch at the fewest, however short the time: so that those which are compared have others."""
    compared = [one for part in leaf_tasks(task).values() if (one := part.compared_cases(cases)) is not None]
    return max((math.ceil(FEWEST_COMPARED * len(cases) / max(1, one)) for one in compared), default=1)


def sided_labels(task: Task) -> tuple[str, ...]:
    """The labels of a task, and of each of its parts, that tell left from right; empty where no side matters."""
    named = list[str]()
    for part in leaf_tasks(task).values():
        names = [label.name for label in part.labels]
        named += left_right.sided_names(names) or (names if orient.names_sides(part.channels_when_mirrored) else ())
    return tuple(dict.fromkeys(named))


def refuse_unknown_sides(task: Task, geometry: Geometry, where: str) -> None:
    """Raise GeometryError for a volume whose left and right are unknown, where a label of the task names a side."""
    if geometry.is_volume and not geometry.oriented and (named := sided_labels(task)):
        raise GeometryError(left_right.unknown_sides(named), where, STATE_SIDES)


def may_miss(task: Task) -> bool:
    """Whether it marks something in images, of which a share that may be missed can be asked."""
    return any(name.rpartition(".")[2] == "risk" for name in task_settings.declared_settings(task))


def own_outputs(part: str, task: Task, outputs: Mapping[str, T]) -> dict[str, T]:
    """{head: output} of a part, with what is said of its uncertainty; of a slab without its heads nothing."""
    names = {f"{full_head_name(part, key)}{end}": f"{key}{end}" for key in task.heads for end in ("", *ENDS)}
    return {key: outputs[whole] for whole, key in names.items() if whole in outputs}


def kept_channel_count(task: Task) -> int:
    """Numbers for each voxel that are kept of a network, with those of each of several where its task takes them."""
    crossed = task.folds_by_head
    return sum(head.count * (1 + crossed.get(name, 0)) for name, head in task.heads.items() if head.is_dense)


def lacks_background(task: Task) -> bool:
    """Whether an answer for voxels is no map of all of them, so that models with other grids have no common mean."""
    return any(head.is_dense and name not in task.background_outputs for name, head in task.heads.items())


def output_rows(outputs: Columns) -> Sequence[TableRow]:
    """The columns of `Task.outputs` as rows."""
    return [outputs] if isinstance(outputs, Mapping) else outputs


def first_image(case: Case) -> Image:
    """The first image of a case, for pictures."""
    return next(iter(case.images.values()))


def leaf_tasks(task: Task) -> Mapping[str, Task]:
    """{name: part} of a task that is made of tasks; {"": the task} of any other."""
    return task.parts or {"": task}


def part_or_whole(task: Task, name: str) -> Task:
    """The part of this name; the task itself where it has none of this name."""
    return leaf_tasks(task).get(name, task)


def part_names(task: Task) -> tuple[str, ...]:
    """The names of the tasks that it is made of; empty of a task without parts."""
    return tuple(filter(None, leaf_tasks(task)))


def full_head_name(part: str, head: str) -> str:
    """The name that the head of a part has in the whole task; layers are named so, without a dot."""
    return f"{part}_{head}" if part else head


R = TypeVar("R")


def feed_readers(slabs: Slabs, readers: Sequence[Callable[[Slabs], R]]) -> list[R]:
    """The result of each reader of the slabs; a slab is let go when all have read it.

    Raises what a reader raises.
    """
    if len(readers) == 1:
        result = readers[0](slabs)
        for _ in slabs:  # what follows the last slab that the reader wanted
            pass
        return [result]
    if not readers:
        for _ in slabs:
            pass
        return []
    return _in_threads(slabs, readers)


def _in_threads(slabs: Slabs, readers: Sequence[Callable[[Slabs], R]]) -> list[R]:
    """Each reader in a thread of its own, one slab behind the stream at the most."""
    waiting: list[Queue[object]] = [Queue(maxsize=1) for _ in readers]
    with ThreadPoolExecutor(max_workers=len(readers)) as pool:
        done = [pool.submit(_run_reader, reader, queue) for reader, queue in zip(readers, waiting, strict=True)]
        try:
            for slab in slabs:
                for queue in waiting:
                    queue.put(slab)
        finally:
            for queue in waiting:
                queue.put(None)
        return [future.result() for future in done]


def _run_reader(reader: Callable[[Slabs], R], queue: Queue[object]) -> R:
    """The reader's result from the slabs of a queue, which is emptied even where the reader fails."""
    stream = iter(queue.get, None)
    try:
        return reader(cast("Slabs", stream))
    finally:
        for _ in stream:
            pass


def dense_slabs(slabs: Slabs, vectors: list[Mapping[str, Array]]) -> Slabs:
    """The slabs of voxels; outputs for the whole image, which have no region, are added to `vectors`."""
    for region, arrays in slabs:
        if region:
            yield region, arrays
        else:
            vectors.append(arrays)


def mean_vector_outputs(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The mean of the outputs for the whole image that each part of a large grid gave."""
    return {key: np.mean([np.asarray(one[key]) for one in parts], axis=0) for key in parts[0]}


def with_part_results(prediction: Prediction, changed: Mapping[str, Prediction]) -> Prediction:
    """The same with other results of some parts, whose boxes, maps and notes are its own too."""
    parts = {**prediction.parts, **changed}
    maps = joined_maps(prediction.maps, changed)
    boxed = next((one for one in parts.values() if one.boxes is not None), prediction)
    notes = (*prediction.notes, *dict.fromkeys(note for one in changed.values() for note in one.notes))
    return replace(prediction, parts=parts, maps=maps, boxes=boxed.boxes, threshold=boxed.threshold, notes=notes)


def joined_maps(maps: Mapping[str, Map], parts: Mapping[str, Prediction]) -> dict[str, Map]:
    """These maps and those of parts; one of a name that there is already has that of its part before it."""
    joined = dict(maps)
    for name, part in parts.items():
        joined |= {f"{name}_{kind}" if kind in joined else kind: one_map for kind, one_map in part.maps.items()}
    return joined


def joined_prediction(geometry: Geometry, parts: Mapping[str, Prediction]) -> Prediction:
    """One prediction: the label map and the boxes of the part that has some, all probabilities and values."""
    mapped = next((one for one in parts.values() if one.data is not None), None)
    boxed = next((one for one in parts.values() if one.boxes is not None), None)
    probabilities = {key: value for one in parts.values() for key, value in (one.probabilities or {}).items()}
    values = {key: value for one in parts.values() for key, value in (one.values or {}).items()}
    return Prediction(
        geometry,
        probabilities=probabilities or None,
        data=None if mapped is None else mapped.data,
        labels=() if mapped is None else mapped.labels,
        values=values or None,
        boxes=None if boxed is None else boxed.boxes,
        threshold=0.0 if boxed is None else boxed.threshold,
        parts=parts,
    )
