"""Weights of the members of an ensemble: fitted to their outputs for validation cases, or equal.

The task's own loss is lowered over shares that are not negative and add up to 1. Patients are dealt into parts; the
shares of a part are fitted without it (cross-fitting), so that the gain over equal shares is measured with cases that
did not decide them, and so that thresholds can be tuned on predictions whose shares those cases did not decide. Where
the gain is within chance the members get equal shares: equal shares are hard to beat, Smith and Wallis, Oxford
Bulletin of Economics and Statistics 2009, doi:10.1111/j.1468-0084.2008.00541.x. Fitted shares of members are stacking
with restricted weights: Breiman, Machine Learning 1996, doi:10.1007/BF00117832.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.evaluation import intervals
from hilum.lazy import optimize, torch
from hilum.runtime import Model, covariate_encoding
from hilum.runtime.inference import Inference, ModelRequest
from hilum.runtime.windows import bags, slide
from hilum.runtime.windows.slide import Network
from hilum.tasks import Task
from hilum.tasks.shared.averages import OUTPUT
from hilum.training.data import batch_loading, target_kinds
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.step import batch_loss
from hilum.transforms import random_draws
from hilum.values import Array, Case, Estimate, Floats, Region

if TYPE_CHECKING:
    from torch import Tensor

# Fewer patients than this cannot tell members apart; an interval of so few is unreliable as well.
FEWEST_PATIENTS = 10
PARTS = 5
# A member that counts less is left out: it would take as long as any other.
NEGLIGIBLE = 0.01
# By how much a share is moved to see what that does; float32 losses tell no finer.
STEP = 1e-3
# Sets the draw of the parts apart from others of the same seed.
PART_DRAW = 2**29

# Outputs {head: (cases, channels, ...)} and their targets to a number to lower.
Judge = Callable[[Mapping[str, "Tensor"], Any], "Tensor"]
Indices = NDArray[np.intp]
# Numbers of one member's outputs that are held: shares are fitted to them again and again.
MOST_NUMBERS = 2**21
# Voxels a side of a window on the image's grid, at the most.
WIDEST = 64
# Voxels a side below which a window shows too little of shapes.
LEAST_SIDE = 16


@dataclass(frozen=True, eq=False)
class MemberOutputs:
    """The outputs of each member for the same cases, with their targets.

    of_members: a member each, {head: (cases, channels, ...)}
    targets:  (cases, ...) as a batch has them, or several of them by name
    patients: (cases,) the patient of each
    judge:    the task's loss
    """

    of_members: Sequence[Mapping[str, Array]]
    targets: Any
    patients: Sequence[str]
    task: Task
    judge: Judge

    def cost(self, shares: Sequence[float], chosen: Indices) -> float:
        """The loss of these cases, for the mean of the members by these shares."""
        chosen_outputs = [{head: one[chosen] for head, one in member.items()} for member in self.of_members]
        mean = self.task.average(chosen_outputs, tuple(shares))
        outputs = {head: torch.from_numpy(np.ascontiguousarray(one)) for head, one in mean.items()}
        with torch.no_grad():
            return float(self.judge(outputs, _choose(self.targets, chosen)))

    def costs(self, shares: Sequence[Sequence[float]]) -> Floats:
        """(cases,) the loss of each case, for the mean by its own shares."""
        return np.array([self.cost(own, np.array([place])) for place, own in enumerate(shares)])


@dataclass(frozen=True)
class MemberWeights:
    """The weight of each member, and the reason.

    shares:  add up to 1
    of_case: the shares that were fitted without the case and its patient, by which thresholds are tuned on it; None
             where members count alike
    because: in words
    gain:    by how much fitted shares lower the loss of cases that did not decide them; None where none were fitted
    """

    shares: tuple[float, ...]
    of_case: tuple[tuple[float, ...], ...] | None
    because: str
    gain: Estimate | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether validation cases decided the shares."""
        return self.of_case is not None


def equal_weights(members: int, because: str, gain: Estimate | None = None) -> MemberWeights:
    """Members that count alike."""
    return MemberWeights((1 / members,) * members, None, because, gain)


def lowest_loss_weights(outputs: MemberOutputs, *, seed: int) -> MemberWeights:
    """The shares by which the task's loss of these cases is lowest, if that is surely lower than by equal ones."""
    members = len(outputs.of_members)
    people = len(set(outputs.patients))
    cases = errors.cases_of_patients(len(outputs.patients), people, "validation case")
    if people < FEWEST_PATIENTS:
        return equal_weights(
            members, f"equal: {cases} cannot tell members apart, which takes {FEWEST_PATIENTS} patients"
        )
    parts = deal_patients(outputs.patients, seed)
    of_part = [fit_shares(outputs, np.flatnonzero(parts != part)) for part in range(PARTS)]
    of_case = tuple(of_part[part] for part in parts)
    gains = outputs.costs([(1 / members,) * members] * len(parts)) - outputs.costs(of_case)
    gain = intervals.bootstrap(gains, outputs.patients, seed=seed, unit="of loss")
    judged = f"fitted to {cases} in {PARTS} parts, each judged by weights of the others"
    how = f"{judged}; the loss of equal weights less theirs is"
    if not np.isfinite(gain.value):
        return equal_weights(members, f"equal: the task's loss of {cases} is not a number for a single case", gain)
    if gain.low is None or gain.high is None or gain.low <= 0:
        return equal_weights(members, f"equal, because others gain nothing sure: {how} {_interval(gain)}", gain)
    mean = np.mean(of_part, axis=0)
    shares = _adding_to_one(np.where(mean < NEGLIGIBLE, 0.0, mean))
    return MemberWeights(shares, of_case, f"{how} {_interval(gain)}", gain)


def deal_patients(patients: Sequence[str], seed: int) -> Indices:
    """(cases,) the part of each case; all cases of a patient lie in one."""
    people, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    order = random_draws.sample_generator(seed, 0, len(people), PART_DRAW).permutation(len(people))
    return np.asarray((order % PARTS)[owner])


def fit_shares(outputs: MemberOutputs, chosen: Indices) -> tuple[float, ...]:
    """The shares of lowest loss for these cases, searched from equal ones; equal ones where the loss is no number."""
    members = len(outputs.of_members)
    even = np.full(members, 1 / members)
    if not np.isfinite(first := outputs.cost(even.tolist(), chosen)):
        return tuple(even.tolist())

    def cost(shares: Floats) -> float:
        """The loss of these shares; a large number where it is undefined."""
        loss = outputs.cost(_adding_to_one(shares), chosen)
        return loss if np.isfinite(loss) else 10 * abs(first) + 1

    within = optimize.LinearConstraint(np.ones((1, members)), 1.0, 1.0)

    solution = optimize.minimize(
        cost,
        even,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * members,
        constraints=[within],
        options={"eps": STEP, "ftol": 1e-6, "maxiter": 50},
    )
    best = solution.x if np.isfinite(solution.fun) and solution.fun < first else even
    return _adding_to_one(best)


def _adding_to_one(shares: Floats) -> tuple[float, ...]:
    held = np.clip(shares, 0.0, None)
    return tuple((held / held.sum()).tolist())


def _interval(gain: Estimate) -> str:
    if gain.low is None or gain.high is None:
        return f"{gain.value:.4f} ({gain.method})"
    return f"{gain.value:.4f} (95 % interval {gain.low:.4f} to {gain.high:.4f})"


def _choose(targets: Any, chosen: Indices) -> Any:
    return batch_loss.change_each_array(targets, lambda array: torch.from_numpy(np.ascontiguousarray(array[chosen])))


def member_outputs(
    members: Sequence[Network], task: Task, inference: Inference, cases: Sequence[PreparedCase], patients: Sequence[str]
) -> MemberOutputs:
    """Each member's outputs for the same window of each case, where its structures are; for whole images of all."""
    size = window_size(task, inference, cases)
    outputs: list[list[Mapping[str, Array]]] = [[] for _ in members]
    targets = []
    for case in (one.in_memory for one in cases):
        if (bag := case.bag) is not None:
            targets.append(case.target)
            for of_member, member in zip(outputs, members, strict=True):
                answer = bags.pool_bag(member, bag)  # type: ignore[arg-type]  # a network of bags
                of_member.append({head: answer[head][0] for head in task.heads})
            continue
        image, target = case.cut_region(window_of_case(case, size))
        targets.append(target)
        for of_member, member in zip(outputs, members, strict=True):
            of_member.append(
                network_outputs(covariate_encoding.bind_context(member, case.context), image, task, inference)
            )
    return _judged_outputs(outputs, targets, task, cases, size, patients)


def outputs_on_image_grid(members: Sequence[Model], task: Task, cases: Sequence[Case]) -> MemberOutputs:
    """The same of models with grids of their own: on each image's grid, of the same window of each case."""
    ready = [_on_own_grid(task, case) for case in cases]
    size = window_size(task, Inference((WIDEST,) * len(ready[0].shape)), ready)
    outputs: list[list[Mapping[str, Array]]] = [[] for _ in members]
    targets = []
    for case, prepared in zip(cases, ready, strict=True):
        window = window_of_case(prepared, size)
        targets.append(prepared.cut_region(window)[1])
        for of_member, member in zip(outputs, members, strict=True):
            of_member.append(_outputs_in_window(member, case, None if size is None else window))
    return _judged_outputs(outputs, targets, task, ready, size, [case.patient for case in cases])


def _on_own_grid(task: Task, case: Case) -> PreparedCase:
    """A case on its own grid, without intensities."""
    image = next(iter(case.images.values()))
    target = task.target(case)
    steps = image.geometry.steps
    data = np.asarray(target.data)
    positions = (np.argwhere(data > 0),) if target.head.is_dense else ()
    return PreparedCase(case.id, np.zeros((1, *image.geometry.shape), np.float32), data, positions, steps)


def _outputs_in_window(model: Model, case: Case, window: Region | None) -> Mapping[str, Array]:
    """{head: (channels, *window)} of a model's outputs, or (channels,) of the whole image."""
    outputs: dict[str, Array] = {}

    def keep(region: Region, arrays: Mapping[str, Array]) -> None:
        for head in (one for one in model.task.heads if f"{one}{OUTPUT}" in arrays):
            array = np.asarray(arrays[f"{head}{OUTPUT}"], dtype=np.float32)
            if window is None:
                outputs[head] = array
                continue
            sizes = [part.stop - part.start for part in window]
            surely = np.asarray(model.task.background_outputs[head], dtype=np.float32)
            blank = np.multiply.outer(surely, np.ones(sizes, np.float32))
            inside = [slice(a.start - b.start, a.stop - b.start) for a, b in zip(region, window, strict=True)]
            outputs.setdefault(head, blank)[(slice(None), *inside)] = array

    np.asarray(model.predict(case, ModelRequest(region=window, allow_large=True), receiver=keep).data)
    return outputs


def _judged_outputs(
    outputs: Sequence[Sequence[Mapping[str, Array]]],
    targets: Sequence[Any],
    task: Task,
    cases: Sequence[PreparedCase],
    size: tuple[int, ...] | None,
    patients: Sequence[str],
) -> MemberOutputs:
    kind = target_kinds.common_kind([case.kind for case in cases])
    spatial = size or cases[0].shape
    alike = kind.alike(targets, kind.blank([case.target for case in cases], spatial))
    extent = np.mean([case.steps for case in cases], axis=0) * spatial
    judge = partial(loss_of_cases, task, partial(kind.coarse, spatial=spatial), extent.tolist())
    return MemberOutputs(
        [batch_loading.stack_arrays(each) for each in outputs], batch_loading.stack_arrays(alike), patients, task, judge
    )


def loss_of_cases(
    task: Task, coarse: Callable[..., Any], extent: Sequence[float], outputs: Mapping[str, Tensor], targets: Any
) -> Tensor:
    """The task's loss of cases as they come; terms that are learnt with the weights have their first values."""
    return batch_loss.deeply_supervised(
        task, task.natural(outputs), targets, coarse, batch_loss.initial_terms(task, "cpu"), extent
    )


def window_size(task: Task, inference: Inference, cases: Sequence[PreparedCase]) -> tuple[int, ...] | None:
    """Voxels an axis of the window of each case: its window, or less of it where cases are many.

    None for whole images, where no head has numbers for every voxel.
    """
    channels = sum(head.count for head in task.heads.values() if head.is_dense)
    if not channels:
        return None
    size = [min(n, *(case.shape[axis] for case in cases)) for axis, n in enumerate(inference.patch)]
    while channels * math.prod(size) * len(cases) > MOST_NUMBERS and max(size) >= 2 * LEAST_SIDE:
        size[size.index(max(size))] //= 2
    return tuple(size)


def window_of_case(case: PreparedCase, size: Sequence[int] | None) -> Region:
    """The window of a case: about the middle of its structures, of the image where it has none."""
    if size is None:
        return tuple(slice(0, n) for n in case.shape)
    positions = [one for one in case.positions if len(one)]
    middle = np.median(np.concatenate(positions), axis=0) if positions else np.asarray(case.shape) / 2
    room = np.asarray(case.shape) - np.asarray(size)
    start = np.clip((middle - np.asarray(size) / 2).astype(int), 0, room)
    return tuple(slice(int(s), int(s) + n) for s, n in zip(start, size, strict=True))


def network_outputs(network: Network, image: Array, task: Task, inference: Inference) -> dict[str, Array]:
    """{head: (channels, *spatial) or (channels,)} of (channels, *spatial), its windows joined."""
    outputs: dict[str, Array] = {}
    overlap = inference.overlap
    batch = inference.batch
    for region, arrays in slide.slide_windows(
        network, image, inference.patch, overlap=overlap, batch=batch, merge=task.merge
    ):
        for head, array in arrays.items():
            if not region:
                outputs[head] = np.asarray(array)
                continue
            array_of_case = outputs.setdefault(head, np.zeros((len(array), *image.shape[1:]), dtype=np.float32))
            array_of_case[(slice(None), *region)] = array
    return outputs
