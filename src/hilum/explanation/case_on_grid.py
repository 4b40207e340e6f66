"""A case as the network sees it: windows as subjects of an explanation, and their maps on the source's grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import UsageError
from hilum.lazy import torch
from hilum.networks import factory
from hilum.networks.network_family import NetworkSize
from hilum.runtime import Model, covariate_encoding, hardware, model_assembly, predicted_memory
from hilum.runtime.predicted_memory import KERNELS
from hilum.runtime.torch_networks import Differentiable
from hilum.runtime.windows import slide
from hilum.tasks import Task, properties
from hilum.tasks.task import Outputs
from hilum.transforms import COLOUR, clip_frames
from hilum.values import Array, Case, Image

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from hilum.networks.network_family import Family


# (batch, channels, *window) images and (batch, entries) covariates, or None, to {head: tensor}.
Run = Callable[["Tensor", "Tensor | None"], Outputs]
# Perturbed images that a network sees at once at the most, and bytes that it takes meanwhile beside a single one.
MOST_AT_ONCE, BYTES_AT_ONCE = 8, 2**30


@dataclass(frozen=True, eq=False)
class ExplainedScalar:
    """Outputs of a network, {head: (batch, ...)}, to the scalar that is explained, (batch,).

    target: one of the task's `saliency_targets`; None for its answer as a whole
    places: {head: (1, channels, *window) or (1, size)} how much each output counts, found once on the case as it is,
            where some are of voxels. A perturbed image is then asked about the same voxels, not about those that it
            has marked itself
    extent: share of the window's voxels that the target has; 1 of a whole image
    """

    task: Task
    target: str | None = None
    places: Mapping[str, Tensor] | None = None
    extent: float = 1.0

    def at(self, outputs: Mapping[str, Tensor]) -> ExplainedScalar:
        """The same for the voxels that these outputs of the case itself mark; without a dense head no other."""
        dense = [name for name, head in self.task.heads.items() if head.is_dense]
        if not dense:
            return self
        with torch.enable_grad():
            leaves = {name: one.detach().float().requires_grad_() for name, one in outputs.items()}
            value = self.task.saliency(leaves, self.target).sum()
            gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        places = {name: one for name, one in zip(leaves, gradients, strict=True) if one is not None and one.any()}
        if not places.keys() & set(dense):  # the target is one of the whole image
            return self
        most = max(int((one != 0).any(dim=1).sum()) / one[0, 0].numel() for one in places.values())
        return replace(self, places=places, extent=most)

    def __call__(self, outputs: Mapping[str, Tensor]) -> Tensor:
        if self.places is None:
            return self.task.saliency({name: one.float() for name, one in outputs.items()}, self.target)
        sums = ((outputs[name].float() * own).flatten(1).sum(dim=1) for name, own in self.places.items())
        return cast("Tensor", sum(sums))


@dataclass(frozen=True, eq=False)
class ExplainedWindow:
    """One window of a case through one network of a model, and the scalar that is explained.

    To use it: `subject.score(images)` takes perturbed versions of `subject.image`, (batch, channels, *window), and
    returns (batch,), larger where the network holds more to the target. Under `torch.enable_grad` the result has
    gradients by the images and by the covariates, if `subject.module` is there. `CaseOnGrid.subjects` makes
    subjects of a case's window, one a member, and `CaseOnGrid.on_source` brings arrays of windows back onto the source.

    image:     (1, channels, *window) float32, on the network's device; NaN in frames that a clip does not have
    context:   (1, entries) covariates as the network takes them; None without
    run:       the network
    objective: the scalar of its outputs
    joined:    channels that are one picture, and are hidden together
    module:    the network itself, with gradients; None of a backend without torch
    family, size: of the module; how slices lie in it
    """

    image: Tensor
    context: Tensor | None
    run: Run
    objective: ExplainedScalar
    joined: int = 1
    module: Module | None = None
    family: Family | None = None
    size: NetworkSize | None = None

    def score(self, images: Tensor, context: Tensor | None = None) -> Tensor:
        """(batch,) of images, (batch, channels, *window); context: (batch, entries), the case's own if not said"""
        context_used = self.context if context is None else context
        expanded = (
            context_used
            if context_used is None or len(context_used) == len(images)
            else context_used.expand(len(images), -1)
        )
        return self.objective(self.run(images, expanded))

    def scores(self, images: Tensor) -> Tensor:
        """The same without gradients, a few images at a time."""
        with torch.no_grad():
            return torch.cat([self.score(part).float() for part in images.split(self.at_once())])

    def at_once(self, *, for_gradients: bool = False) -> int:
        """Images that go through the network together: a few, and of a large window no more than memory allows."""
        if self.image.device.type != "cpu":  # it has memory of its own
            return MOST_AT_ONCE
        each = self.network_bytes(for_gradients=for_gradients)
        return max(1, min(MOST_AT_ONCE, int(min(BYTES_AT_ONCE, hardware.available_host_memory() / 2) // each)))

    def network_bytes(self, *, for_gradients: bool) -> int:
        """Bytes that one image takes in the network."""
        inputs = [one for one in (self.image, self.context) if one is not None]
        shapes = [tuple(one.shape) for one in inputs]
        return int(KERNELS * predicted_memory.layer_bytes(self.module, *shapes, for_gradients=for_gradients))

    @property
    def spatial(self) -> tuple[int, ...]:
        """Voxels of the window."""
        return tuple(self.image.shape[2:])


class UnfitError(UsageError):
    """A method that cannot explain this model, and why."""

    def __init__(self, method: str, reason: str, remedy: str = "Choose another, such as occlusion, or auto") -> None:
        super().__init__(f"{method} cannot explain this model: {reason}", "--method", remedy)
        self.method, self.reason = method, reason

    def __reduce__(self) -> tuple[object, ...]:
        return UnfitError, (self.method, self.reason, self.remedy)


Singles = NDArray[np.float32]
AUTO = "auto"
# What an answer as a whole is called among targets.
WHOLE = "all"
# (members, channels, *window) of the map of a window, from its subjects, one a member.
Mapped = Callable[[Sequence[ExplainedWindow]], "Tensor"]


def refuse_several_grids(model: Model) -> None:
    """UsageError for an ensemble whose members see images on grids of their own: no one map shows what they see."""
    if model.members:
        remedy = f"Explain one of its members: --fold 0 to {len(model.members) - 1}"
        raise UsageError("the members of the ensemble see images on grids of their own", "explain", remedy)


def refuse_unknown_target(task: Task, target: str) -> None:
    """Raises UsageError for a target that the task does not have."""
    saliency_targets = task.saliency_targets
    if target not in (AUTO, WHOLE, *saliency_targets):
        choice = errors.list_phrase([AUTO, *saliency_targets]) if saliency_targets else AUTO
        raise UsageError(f"there is no target {target!r}", "--target", f"Choose one of {choice}")


@dataclass(frozen=True, eq=False)
class CaseOnGrid:
    """A case as `predict` shows it to the network, window by window.

    image, where: as read, and the case's name for errors
    data, trace:  what the network sees, (channels, *grid), and the way back, as preprocessing gives them
    vector:       (entries,) of covariates as the network takes them; None without
    target:       one of the task's targets; None for its answer as a whole
    torch_model:  the networks with gradients; None of a backend without torch, which explains by perturbation alone
    """

    model: Model
    image: Image
    where: str
    data: Any
    trace: Any
    preprocessing: Any
    vector: NDArray[np.float32] | None
    target: str | None = None
    torch_model: Differentiable | None = None

    @classmethod
    def from_case(
        cls, model: Model, case: Case | Image, target: str = AUTO, torch_model: Differentiable | None = None
    ) -> CaseOnGrid:
        """The case for a target; "auto" takes what the model answers.

        Raises UsageError for a target that the task does not have and for members with grids of their own, and what
        reading and preprocessing raise.
        """
        refuse_several_grids(model)
        image, where = model_assembly.subject_image(case)
        covariates = case.covariates or None if isinstance(case, Case) else None
        vector, _ = model.context_vector(image, covariates, where)
        seen_image, preprocessing = model.after_first(image, model.request, covariates)
        data, trace = preprocessing.open_image(seen_image, where)
        made = cls(model, image, where, data, trace, preprocessing, vector, None, torch_model)
        return replace(made, target=made.choose_target(target))

    def choose_target(self, target: str) -> str | None:
        """A target by name, or what "auto" stands for in this case."""
        task = self.model.task
        saliency_targets = task.saliency_targets
        refuse_unknown_target(task, target)
        if target not in (AUTO, WHOLE):
            return target
        if target == AUTO and len(saliency_targets) == 1:
            return saliency_targets[0]
        if target == WHOLE or not properties.picks_a_label(task):
            return None
        outputs = self.outputs()
        prediction = task.decode([((), outputs)], self.trace.source)
        called = properties.output_rows(task.outputs(prediction))[0].get("predicted")
        if called in saliency_targets:
            return str(called)
        [likely] = task.probabilities(outputs).values()
        return saliency_targets[int(np.argmax(likely))]

    def outputs(self) -> Mapping[str, Array]:
        """{head: (size,)} of the whole image, the mean over its windows; of a task of the whole image."""
        network = covariate_encoding.bind_context(self.model.networks.run, self.vector)
        slabs = list(self._slid(network))
        return {name: np.asarray(array) for name, array in slabs[-1][1].items() if not slabs[-1][0]}

    def subjects(self, window: NDArray[np.float32]) -> list[ExplainedWindow]:
        """One subject a member of the model, for a window, (channels, *window); all ask the same of it."""
        device = self.torch_model.device if self.torch_model is not None else "cpu"
        image = torch.from_numpy(np.ascontiguousarray(window[None], dtype=np.float32)).to(device)
        context = None if self.vector is None else torch.from_numpy(self.vector[None]).to(device)
        objective = ExplainedScalar(self.model.task, self.target)
        plain = _numpy_run(self.model.networks.run)
        if any(head.is_dense for head in self.model.task.heads.values()):
            with torch.no_grad():
                objective = objective.at(plain(image, context))
        if self.torch_model is None:
            return [ExplainedWindow(image, context, plain, objective, self.picture_channels)]
        torch_model = self.torch_model
        # A network of another program has no family: nobody knows where its deepest map lies.
        families = [
            factory.family_of(name) if name in factory.family_names() else None for name in torch_model.families
        ]
        return [
            ExplainedWindow(
                image,
                context,
                torch_model.run_of(n),
                objective,
                self.picture_channels,
                torch_model.modules[n],
                family,
                size,
            )
            for n, (family, size) in enumerate(zip(families, self._sizes, strict=True))
        ]

    @property
    def picture_channels(self) -> int:
        """Channels that are one picture: three of a colour picture."""
        return 3 if self.model.preprocessing.channels == COLOUR else 1

    @property
    def _sizes(self) -> list[NetworkSize]:
        return [network.get("size") or {} for network in self.model.networks.architectures]

    @property
    def shares(self) -> tuple[float, ...]:
        """The weight of each member's map, in sum 1."""
        return (1.0,) if self.torch_model is None else self.torch_model.shares

    def on_source(self, mapped: Mapped, tell: Callable[[int, int], None] | None = None) -> NDArray[np.float32]:
        """(members * channels, *source) of maps that are made window by window, merged as `predict` merges outputs.

        tell: how many windows are done, and of how many
        """
        extents = _Extents()

        def network(batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
            return {"map": np.stack([self._map_of(window, mapped, extents) for window in batch])}

        array: NDArray[np.float32] | None = None
        for region, arrays in self._slid(network, restored=True, tell=tell):
            part = np.asarray(arrays["map"], dtype=np.float32)
            if array is None:
                array = np.zeros((len(part), *self.image.geometry.shape), dtype=np.float32)
            array[(slice(None), *region)] = part
        assert array is not None  # noqa: S101 - an image has a window
        if (wanted := self.model.request.region) is None:
            return array
        within = np.zeros_like(array)
        within[(slice(None), *wanted)] = array[(slice(None), *wanted)]
        return within

    def fullest_window(self) -> NDArray[np.float32]:
        """(channels, *window) of the window that says most for the target; of a small image its only one."""
        best: list[tuple[float, NDArray[np.float32]]] = []

        def network(batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
            for window in batch:
                subjects = self.subjects(window)
                score = float(subjects[0].scores(subjects[0].image)) * subjects[0].objective.extent
                if not best or score > best[0][0]:
                    best[:] = [(score, window.copy())]
            return {"": np.zeros((len(batch), 1), dtype=np.float32)}

        for _ in self._slid(network):
            pass
        return best[0][1]

    def _map_of(self, window: NDArray[np.float32], mapped: Mapped, extents: _Extents) -> NDArray[np.float32]:
        """(members * channels, *window), the mean over the views that `predict` averages."""
        views, seen = self._views(), []
        for view in views:
            along = tuple(axis + 1 for axis in view)
            subjects = self.subjects(np.flip(window, along))
            made = mapped(subjects).cpu().numpy() * extents.extent_of(subjects[0])
            seen.append(np.flip(made, tuple(axis + 2 for axis in view)))
        total = np.mean(seen, axis=0)
        return np.ascontiguousarray(total.reshape(-1, *total.shape[2:]), dtype=np.float32)

    def _views(self) -> list[tuple[int, ...]]:
        """Axes along which each view of a window is mirrored; across left and right only where sides mean nothing."""
        sides, crossing = self.model.task.channels_when_mirrored, self.model.inference.left_right
        named = sides is None or tuple(sides) != tuple(range(len(sides)))
        axes = [axis for axis in self.model.flips() if not (named and axis == crossing)]
        return list(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))

    def _slid(self, network: Any, *, restored: bool = False, tell: Callable[[int, int], None] | None = None) -> Any:
        """Windows through a network, as the pipeline of a prediction moves them."""
        own = self.model.inference
        channels = sum(head.count for head in self.model.task.heads.values() if head.is_dense)
        for part in self.preprocessing.parts(self.trace, self.model.request.region, own.patch, max(channels, 1)):
            slabs = slide.slide_windows(
                network,
                self.data,
                own.patch,
                overlap=own.overlap,
                batch=1,
                progress=tell,
                wanted=part.needed,
                slice_order=part.slice_order,
            )
            yield from self.preprocessing.restore(slabs, self.trace, part.kept) if restored else slabs

    @property
    def looks(self) -> int:
        """The number of times that a method looks: at each window, in each view, by each member."""
        inference = self.model.inference
        windows = slide.window_count(self.data.shape[1:], inference.patch, inference.overlap)
        return windows * len(self._views()) * len(self.shares)

    @property
    def frames(self) -> list[int | None] | None:
        """The frame of the clip in each slot that the network sees; None of still images."""
        preprocessing = self.model.preprocessing
        if preprocessing.frames is None:
            return None
        unit = cast("str | None", preprocessing.settings.get("time_unit"))
        return clip_frames.frames_in_slots(self.image, preprocessing.frames, preprocessing.interval, unit, self.where)

    def covariates(self) -> dict[str, float]:
        """{covariate: how much lower the score is without its value}, as the encoding states a missing one."""
        context = self.model.networks.context
        if self.vector is None or not context.names:
            return {}
        unknown, _ = context.vector({})
        window = self.fullest_window()
        bars, start = {}, 0
        for column in context.columns:
            stop = start + len(column.entries)
            if column.of_patient:
                without = self.vector.copy()
                without[start:stop] = unknown[start:stop]
                bars[column.name] = self._change(window, without)
            start = stop
        return bars

    def _change(self, window: NDArray[np.float32], vector: NDArray[np.float32]) -> float:
        total = 0.0
        for subject, share in zip(self.subjects(window), self.shares, strict=True):
            other = torch.from_numpy(vector[None]).to(subject.image.device)
            with torch.no_grad():
                total += share * float(subject.score(subject.image) - subject.score(subject.image, other))
        return total


@dataclass(eq=False)
class _Extents:
    """The amount of a target in each window, beside the first that had any: windows with more of it count more."""

    first: float = field(default=0.0)

    def extent_of(self, subject: ExplainedWindow) -> float:
        extent = subject.objective.extent
        self.first = self.first or extent
        return extent / self.first


def _numpy_run(network: Any) -> Run:
    """A network of NumPy arrays as one of tensors, without gradients."""

    def run(images: Tensor, context: Tensor | None) -> Outputs:
        inputs = [one.detach().cpu().numpy() for one in (images, context) if one is not None]
        return {name: torch.from_numpy(np.array(one)).to(images.device) for name, one in network(*inputs).items()}

    return run


def mean_and_spread(maps: Singles, shares: Sequence[float]) -> tuple[Singles, Singles | None]:
    """(members, ...) maps to their weighted mean and standard deviation; of one member no deviation."""
    if len(maps) == 1:  # of a large volume each copy is felt
        return maps[0], None
    weights = np.reshape(np.asarray(shares, dtype=np.float32), (-1, *[1] * (maps.ndim - 1)))
    mean = (weights * maps).sum(axis=0)
    return mean, np.sqrt((weights * (maps - mean) ** 2).sum(axis=0))
