"""Properties of a task that follow from its parts, whatever its kind, and what its parts say together."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter.belief import AddedResults
from isocenter.errors import GeometryError
from isocenter.tasks.multitask.slabs import with_parts
from isocenter.tasks.parts import head_of, leaves
from isocenter.tasks.settings import declared
from isocenter.tasks.shared import ENDS, STATE_SIDES, sided_names, unknown_sides
from isocenter.transforms import names_sides
from isocenter.values import Case, Geometry, Head, Image, Prediction

if TYPE_CHECKING:
    from isocenter.tasks.task import Columns, Task

# Cases that a loss compares with others, as those with an event: a batch that the clock makes smaller has so many on
# average. One batch in fifty then has none (Poisson).
FEWEST_COMPARED = 4


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
    [columns, *_] = rows_in(task.outputs(prediction))
    if task.uncertainty == "labels":
        return min(p if columns[f"called_{name}"] else 1 - p for name, p in chances.items())
    return chances.get(str(columns.get("predicted")), max(chances.values()))


def suffices(kind: type[Task] | Task, references: Collection[str]) -> bool:
    """Whether references of these kinds teach it something: all that it needs, unless it has alternatives."""
    return any(needed <= set(references) for needed in kind.alternatives or (kind.needs,))


def added_results(task: Task) -> AddedResults | None:
    """The results that the answers of a task, or of all its parts, add on request; None where there are none."""
    by_part = {name: found for name, part in leaves(task).items() if part.answers and (found := part.answers.added)}
    if not by_part:
        return None
    if "" in by_part:
        return by_part[""]
    masks = {head_of(name, head): least for name, one in by_part.items() for head, least in one.masks.items()}
    results = {name: one.result for name, one in by_part.items() if one.result}

    def result(prediction: Prediction) -> Prediction:
        """The prediction with all boxes and objects of its parts that it takes to miss little."""
        return with_parts(prediction, {name: made(prediction.parts[name]) for name, made in results.items()})

    return AddedResults(masks, result if results else None)


def by_covariates(task: Task) -> Callable[[Prediction, Mapping[str, Any]], Prediction] | None:
    """A result and covariates to the result with the patient's own sets and thresholds; None where no part has them."""
    by_part = {name: own for name, part in leaves(task).items() if part.answers and (own := part.answers.by_covariates)}
    if not by_part or "" in by_part:
        return by_part.get("")

    def result(prediction: Prediction, covariates: Mapping[str, Any]) -> Prediction:
        """Each part's own result, by what is known of the patient."""
        return with_parts(
            prediction, {name: made(prediction.parts[name], covariates) for name, made in by_part.items()}
        )

    return result


def picks_a_side(task: Task) -> bool:
    """Whether its answer about an image is one of two sides, as of the classes OD and OS.

    Such a picture is not mirrored: a right eye in the mirror looks like a left one, and is none.
    """
    return any(picks_a_label(part) and names_sides(part.mirrored) for part in leaves(task).values())


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
    return head.is_dense and not (head.holds_boxes or head.tells_objects)


def mirrored_channels(task: Task) -> Mapping[str, tuple[int, ...] | None]:
    """{head: what each of its channels becomes when left and right change sides}, as `Task.mirrored`."""
    by_part = {name: dict.fromkeys(part.heads, part.mirrored) for name, part in leaves(task).items()}
    return {head_of(name, head): order for name, own in by_part.items() for head, order in own.items()}


def fewest_samples(task: Task, cases: Sequence[Case]) -> int:
    """The samples of a batch at the fewest, however short the time: so that those which are compared have others."""
    compared = [one for part in leaves(task).values() if (one := part.compared_cases(cases)) is not None]
    return max((math.ceil(FEWEST_COMPARED * len(cases) / max(1, one)) for one in compared), default=1)


def sided_labels(task: Task) -> tuple[str, ...]:
    """The labels of a task, and of each of its parts, that tell left from right; empty where no side matters."""
    named = list[str]()
    for part in leaves(task).values():
        names = [label.name for label in part.labels]
        named += sided_names(names) or (names if names_sides(part.mirrored) else ())
    return tuple(dict.fromkeys(named))


def refuse_unknown_sides(task: Task, geometry: Geometry, where: str) -> None:
    """Raise GeometryError for a volume whose left and right are unknown, where a label of the task names a side."""
    if geometry.is_volume and not geometry.oriented and (named := sided_labels(task)):
        raise GeometryError(unknown_sides(named), where, STATE_SIDES)


def may_miss(task: Task) -> bool:
    """Whether it marks something in images, of which a share that may be missed can be asked."""
    return any(name.rpartition(".")[2] == "risk" for name in declared(task))


def own_outputs(part: str, task: Task, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """{head: output} of a part, with what is said of its uncertainty; of a slab without its heads nothing."""
    names = {f"{head_of(part, key)}{end}": f"{key}{end}" for key in task.heads for end in ("", *ENDS)}
    return {key: outputs[whole] for whole, key in names.items() if whole in outputs}


def dense_channels(task: Task) -> int:
    """Numbers for each voxel that are kept of a network, with those of each of several where its task takes them."""
    crossed = task.crossed
    return sum(head.count * (1 + crossed.get(name, 0)) for name, head in task.heads.items() if head.is_dense)


def rows_in(outputs: Columns) -> Sequence[Mapping[str, Any]]:
    """The columns of `Task.outputs` as rows."""
    return [outputs] if isinstance(outputs, Mapping) else outputs


def stated_image(case: Case) -> Image:
    """The first image of a case, for pictures."""
    return next(iter(case.images.values()))
