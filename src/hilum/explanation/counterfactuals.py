"""The smallest change of an image that flips a call: sparse, smooth, within the image's range, such as the gate takes.

Wachter et al., Harv J Law Technol 2018, arXiv:1711.00399; L1 and total variation as in Dhurandhar et al., NeurIPS 2018,
arXiv:1802.07623. What is found on the network's grid is put onto the source's and predicted anew: what is stated
is what `predict` answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import UsageError
from hilum.explanation.case_on_grid import AUTO, CaseOnGrid, ExplainedWindow
from hilum.lazy import torch
from hilum.runtime import Model, Preprocessing
from hilum.runtime.model_parts import ImageDirections
from hilum.runtime.torch_networks import Differentiable
from hilum.tasks import Task, properties
from hilum.transforms import channel_stack
from hilum.transforms.intensity import Normalisation
from hilum.values import Array, Case, Image, Prediction, covariate_values

if TYPE_CHECKING:
    from torch import Tensor

WHERE = "--counterfactual"
# Weights of the change beside the margin to be made up, the strongest first; steps of each, their length in deviations.
WEIGHTS, STEPS, LENGTH = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03), 80, 0.05
# Total variation counts so much beside L1. The margin that is asked for: a share of that before, and log odds. How far
# a change goes, the least first.
VARIATION, MARGIN, FURTHER = 0.5, (0.1, 0.02), (0.5, 0.7, 0.85, 1.0, 1.15, 1.35, 1.6, 2.0)
# Of a change, what is less than this share of its strongest place is none; of the range, what counts as changed.
NOTHING, CHANGED = 0.02, 0.01
# Once a change flips the call and not the gate, so many weaker ones are tried. Searches of a case at the most.
MORE_TRIES, TRIES = 2, 20


@dataclass(frozen=True)
class Flip:
    """The call that is to be another.

    part:   of several tasks, the one that calls; empty of one
    name:   the class that is to be called; of findings the one that is to be called the other way
    before: what is called now
    """

    task: Task
    part: str
    name: str
    before: str

    @classmethod
    def from_target(cls, task: Task, asked: str, prediction: Prediction) -> Flip:
        """Read a target such as "class", "finding" or "part:class"; "auto" is the likeliest other class.

        Raises what `asked_for` does.
        """
        flip_asked = cls.asked_for(task, asked)
        before, name = flip_asked.call_of(prediction), flip_asked.name
        if name == AUTO:
            chances = flip_asked.own_part(prediction).probabilities or {}
            name = max((one for one in chances if one != before), key=lambda name: chances[name])
        flip = replace(flip_asked, name=name)
        return replace(flip, before=flip.call_of(prediction))

    @classmethod
    def asked_for(cls, task: Task, asked: str) -> Flip:
        """The same before any case is known: `before` is empty, and the name may be "auto".

        Raises UsageError for a task that calls nothing, and for a name that it does not call.
        """
        names = properties.part_names(task)
        part, _, name = asked.rpartition(":") if names else ("", "", asked)
        part_task = properties.part_or_whole(task, part)
        calls = part_task.uncertainty in ("classes", "labels") and all(
            one.is_vector for one in part_task.heads.values()
        )
        if not calls:
            parts = f"; name one of {errors.list_phrase(names)}, as part:class" if names else ""
            raise UsageError(
                f"a {part_task.name} calls no class or finding that could flip{parts}", WHERE, "Leave it out"
            )
        flip = cls(task, part, name, "")
        if name not in part_task.saliency_targets and not (name == AUTO and flip.picks):
            raise UsageError(
                f"there is no {asked!r} to flip to",
                WHERE,
                f"Choose one of {errors.list_phrase(list(part_task.saliency_targets))}",
            )
        return flip

    @property
    def picks(self) -> bool:
        """Whether one class of several is called, in place of each finding for itself."""
        return self._own_task.uncertainty == "classes"

    @property
    def after(self) -> str:
        """Answer that is wanted."""
        if self.picks:
            return self.name
        return "absent" if self.before == "present" else "present"

    @property
    def target(self) -> str:
        """The target that is raised."""
        return f"{self.part}:{self.name}" if self.part else self.name

    @property
    def away(self) -> str:
        """The target that is lowered; empty where none is."""
        return (f"{self.part}:{self.before}" if self.part else self.before) if self.picks else ""

    def own_part(self, prediction: Prediction) -> Prediction:
        """The prediction of the part that calls."""
        return prediction.parts[self.part] if self.part else prediction

    def call_of(self, prediction: Prediction) -> str:
        """The call of a prediction: the class, or whether the finding is there."""
        row = properties.output_rows(self._own_task.outputs(self.own_part(prediction)))[0]
        return str(row["predicted"]) if self.picks else "present" if row.get(f"called_{self.name}") else "absent"

    def probability(self, prediction: Prediction) -> float:
        """Probability of the answer that is wanted."""
        chance = float((self.own_part(prediction).probabilities or {})[self.name])
        return 1 - chance if self.after == "absent" and not self.picks else chance

    @property
    def _own_task(self) -> Task:
        return properties.part_or_whole(self.task, self.part)


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """An image that is called otherwise.

    image:   on the source's grid; path: the images from the case itself to it, with the probability of each
    gate_p:  of the gate; None of a model without one
    passes:  whether the gate takes it
    flipped: whether it is called otherwise; the strongest change that was tried where none is
    """

    image: Image
    difference: NDArray[np.float32]
    before: float
    after: float
    share_changed: float
    gate_p: float | None
    passes: bool
    flipped: bool
    path: Sequence[tuple[Image, float]] = ()


def changeable_preprocessing(model: Model) -> Preprocessing:
    """The model's preprocessing, through which a change reaches the image.

    Raises UsageError for a foreign model, a cascade and a model of clips, which have no counterfactuals.
    """
    preprocessing = model.preprocessing
    if not isinstance(preprocessing, Preprocessing) or model.first is not None or preprocessing.moments > 1:
        raise UsageError("foreign models, cascades and clips have no counterfactuals", WHERE, "Leave it out")
    return preprocessing


def find_counterfactual(
    model: Model, case: Case, flip: Flip, torch_model: Differentiable, *, prediction: Prediction, along: bool = False
) -> Counterfactual:
    """The image nearest to the case's own that is called otherwise, of those that the gate takes if there is one.

    prediction: of the case itself
    along:      only along the model's `directions`, as training images differ
    """
    preprocessing = changeable_preprocessing(model)
    image = channel_stack.stack_images(case.images, case.id)
    plain = replace(model, inference=replace(model.inference, flips=()))
    grid = CaseOnGrid.from_case(plain, case, flip.target, torch_model)
    axes = model.parts.directions if along else None
    best: Counterfactual | None = None
    more, goal, weights = MORE_TRIES, 1.0, list(WEIGHTS)
    for _ in range(TRIES):
        reached: list[bool] = []
        search = partial(
            _smallest, shares=grid.shares, flip=flip, weight=weights[0], goal=goal, reached=reached, axes=axes
        )
        change = _on_image(preprocessing, image, grid.on_source(search))
        candidate = _predict_change(model, case, image, change, flip, prediction)
        if candidate is not None and (
            best is None or not best.flipped or (candidate.flipped, candidate.passes) > (True, best.passes)
        ):
            best = candidate
        if best is not None and best.flipped and (best.passes or more == 0):
            break
        more -= best is not None and best.flipped
        # Where the network answers as asked and the call stays, a calibration or a threshold lies between the two.
        if all(reached) and not (candidate is not None and candidate.flipped):
            goal *= 2
        elif len(weights) > 1:
            del weights[0]
        else:
            break
    if best is None:
        still = np.zeros(image.shape, dtype=np.float32)
        p = flip.probability(prediction)
        return Counterfactual(image, still, p, p, 0.0, prediction.confidence.gate_p, True, flipped=False)
    return replace(best, path=list(_path(model, case, image, best, flip, prediction)))


def _smallest(
    subjects: Sequence[ExplainedWindow],
    *,
    shares: Sequence[float],
    flip: Flip,
    weight: float,
    goal: float = 1.0,
    reached: list[bool] | None = None,
    axes: ImageDirections | None = None,
) -> Tensor:
    """(1, channels, *window) change of a window, in the network's units; nothing below a share of its strongest.

    goal:    factor of the margin that is asked for
    reached: gets whether the change has this margin
    axes:    along which alone it may change; None: everywhere
    """
    first = subjects[0].image
    ends = [first.flatten(2).amin(dim=2), first.flatten(2).amax(dim=2)]
    low, high = (one.reshape(*one.shape, *[1] * (first.ndim - 2)) for one in ends)
    with torch.no_grad():
        margin = _margin(subjects, shares, first, flip).sum()
    lacking = margin.abs()
    asked = margin.clamp(min=0) + goal * (MARGIN[0] * lacking + MARGIN[1])
    basis = None if axes is None else torch.from_numpy(axes.on(first.shape[2:])).to(first)
    steps = torch.zeros_like(first) if basis is None else torch.zeros(len(basis), device=first.device)
    steps.requires_grad_()
    moving = torch.optim.Adam([steps], lr=LENGTH)

    def changed() -> Tensor:
        """The change within the range of the case itself."""
        direction = steps if basis is None else torch.tensordot(steps, basis, 1)[None]
        return (first + direction).clamp(low, high) - first

    with torch.enable_grad():
        for _ in range(STEPS):
            moving.zero_grad()
            change = changed()
            short = (asked - _margin(subjects, shares, first + change, flip)).clamp(min=0).sum()
            size = change.abs().mean() + VARIATION * _variation(change) if basis is None else (steps**2).mean()
            (short + weight * (lacking + asked) * size).backward()
            moving.step()
    with torch.no_grad():
        smallest = changed()
        if reached is not None:
            reached.append(bool(_margin(subjects, shares, first + smallest, flip).sum() >= 0.9 * asked))
        return torch.where(smallest.abs() < NOTHING * smallest.abs().max(), 0.0, smallest)


def _margin(subjects: Sequence[ExplainedWindow], shares: Sequence[float], images: Tensor, flip: Flip) -> Tensor:
    """(batch,) how much more the members together hold to what is to be called than to what is called."""
    total: Tensor = torch.zeros(len(images), device=images.device)
    for subject, share in zip(subjects, shares, strict=True):
        outputs = subject.run(images, subject.context)
        score = replace(subject.objective, target=flip.target)(outputs)
        if flip.away:
            score = score - replace(subject.objective, target=flip.away)(outputs)
        total = total + share * score
    return -total if flip.after == "absent" and not flip.picks else total


def _variation(change: Tensor) -> Tensor:
    axes = range(2, change.ndim)
    return torch.stack([change.diff(dim=axis).abs().mean() for axis in axes if change.shape[axis] > 1]).sum()


def _on_image(preprocessing: Preprocessing, image: Image, change: NDArray[np.float32]) -> NDArray[np.float32]:
    """(channels, *spatial) of the image in its own unit, of a change in that of the network's input."""
    shown = channel_stack.match_colours(image, preprocessing.channels)
    channels = []
    for number, name in enumerate(shown.channels):
        index = preprocessing.channels.index(name) if name in preprocessing.channels else number
        channel = shown.data[number]
        channels.append(change[index] * _unit(preprocessing.normalisation[index], channel, shown.is_measured(channel)))
    if len(channels) == image.shape[0]:
        return np.stack(channels)
    return np.repeat(np.mean(channels, axis=0)[None], image.shape[0], axis=0)


def _unit(normalisation: Normalisation, channel: Array, valid: NDArray[np.bool_]) -> float:
    """The size of one step of the network's input in the image's own unit, between what normalisation cuts off."""
    normalised = normalisation.apply(channel, valid)[valid]
    intensities = np.asarray(channel, dtype=np.float64)[valid]
    inside = (normalised > normalised.min()) & (normalised < normalised.max())
    inside = inside if inside.any() and np.ptp(normalised[inside]) > 0 else np.ones(len(normalised), dtype=bool)
    away = normalised[inside] - normalised[inside].mean()
    return float((away * intensities[inside]).sum() / max(float((away**2).sum()), 1e-12))


def _predict_change(
    model: Model, case: Case, image: Image, change: NDArray[np.float32], flip: Flip, prediction: Prediction
) -> Counterfactual | None:
    """The first of weaker and stronger changes of its kind that flips the call; None for no change at all."""
    if not change.any():
        return None
    counterfactual: Counterfactual | None = None
    for factor in FURTHER:
        other = _change_image(image, factor * change)
        answer = model.predict(_with(case, other))
        flipped, p = flip.call_of(answer) == flip.after, answer.confidence.gate_p
        apart = np.asarray(other.data, dtype=np.float32) - image.data
        width = max(float(np.ptp(image.data[image.valid])), 1e-6)
        share = float((np.abs(apart) > CHANGED * width).any(axis=0).mean())
        passes = model.guard is None or p is None or p >= model.guard.level
        counterfactual = Counterfactual(
            other, apart, flip.probability(prediction), flip.probability(answer), share, p, passes, flipped
        )
        if flipped:
            break
    return counterfactual


def _change_image(image: Image, change: NDArray[np.float32]) -> Image:
    """The image changed within its own range, of its own type; what is no measurement stays."""
    valid = image.valid
    ends = [(one[here].min(), one[here].max()) for one, here in zip(image.data, valid, strict=True) if here.any()]
    low, high = (np.reshape([pair[side] for pair in ends], (-1, *[1] * (image.data.ndim - 1))) for side in (0, 1))
    moved = np.clip(image.data + change, low, high)
    moved = np.rint(moved) if image.dtype.kind in "iu" else moved
    return image.with_pixels(np.where(valid, moved, image.data).astype(image.dtype))


def _path(
    model: Model, case: Case, image: Image, flipped: Counterfactual, flip: Flip, prediction: Prediction
) -> Iterator[tuple[Image, float]]:
    """The path from the case itself to its counterfactual, with the probability of what is to be called."""
    yield image, flip.probability(prediction)
    for share in (0.25, 0.5, 0.75):
        between = _change_image(image, share * flipped.difference)
        yield between, flip.probability(model.predict(_with(case, between)))
    yield flipped.image, flipped.after


def _with(case: Case, image: Image) -> Case:
    """The case with one image that holds all channels."""
    return replace(case, images={"image": image})


def flipping_covariates(model: Model, case: Case, flip: Flip) -> Iterator[tuple[str, Prediction]]:
    """("age = 71", prediction) of the nearest single change of each covariate that flips the call."""
    for column in model.networks.context.columns:
        for value in _others(column.settings, case.covariates.get(column.name)) if column.of_patient else ():
            answer = model.predict(replace(case, covariates={**case.covariates, column.name: value}))
            if flip.call_of(answer) == flip.after:
                yield f"{column.name} = {value}", answer
                break


def _others(settings: Mapping[str, Any], value: Any) -> list[Any]:
    """Values of other patients: levels, the most frequent first, or usual numbers, the nearest first; of no course."""
    if levels := settings.get("levels"):
        return sorted((one for one in levels if one != str(value)), key=lambda level: -levels[level])
    if "median" not in settings:
        return []
    known = settings["median"] if covariate_values.is_missing(value) else float(value)
    usual = [float(f"{settings['mean'] + step * settings['deviation']:.4g}") for step in (-2, -1, 0, 1, 2)]
    return sorted((one for one in usual if one != known), key=lambda number: abs(number - known))
