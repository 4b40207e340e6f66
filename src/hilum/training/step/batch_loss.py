"""The loss of a step: the sum of its objectives over a batch, augmented on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hilum.errors import PlanError
from hilum.lazy import torch
from hilum.networks import factory, network_parts
from hilum.objectives import objective_catalogue
from hilum.objectives.objective_terms import TARGET_PLACE, Embedded, Needs, Objective, ObjectiveStep, SeenBatch
from hilum.planning import PlanSettings
from hilum.runtime import torch_networks
from hilum.tasks import properties
from hilum.tasks.task import IMAGES
from hilum.training.data import protected_groups, target_kinds
from hilum.training.data.batch_loading import Batch
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.data.target_kinds import SampledMovement
from hilum.training.processes import SINGLE_PROCESS, Ranks
from hilum.training.step.computation import Compute
from hilum.transforms import random_draws
from hilum.transforms.augment import Augmentation
from hilum.transforms.augment_following import NumberMap
from hilum.transforms.painting import LabelPainter

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from hilum.tasks import Task

T = TypeVar("T")
# What a network in training adds to the loss of each sample, (batch,), by itself: a prior of its weights, for one.
ADDED = "+"
# The part with the numbers that the task's loss learns.
JUDGE = "judge"
# What is measured of each image where nothing is known of it: minus the losses select.
LOSS = "loss"
FEATURES = "features"
# In a checkpoint these stand before the names of parts, and of the weights that training began from.
PARTS = "parts."
START = "start."
# Share of the steps in which a prompt follows an answer, for a task that takes prompts.
POINTED_AGAIN = 0.5
# Between a head's name and its level: "mask@1" is half as fine as "mask".
LEVEL = "@"


def augment_batch(
    batch: Batch,
    settings: PlanSettings,
    device: Any,
    ranks: Ranks = SINGLE_PROCESS,
    augmentation: Augmentation | None = None,
) -> SeenBatch:
    """A batch augmented on the device, by the plan if nothing else is given; each rank has its part of a batch."""
    augmentation = augmentation or settings.augmentation
    kind = batch.kind
    if settings.preprocessing.tiles is not None:
        return _augment_bags(batch, settings, device, augmentation)
    images, targets = (tensors_on_device(array, device) for array in (batch.images, batch.targets))
    movement = _sample_movement(settings.task, batch)
    taught = None
    answers = None
    if batch.taught is not None:
        channels = batch.taught.shape[1]
        answers = NumberMap(
            tensors_on_device(batch.taught, device),
            (settings.task.channels_when_mirrored or tuple(range(channels)))[:channels],
        )
    images, targets = target_kinds.move_batch(
        kind,
        augmentation,
        images,
        targets,
        movement,
        marked=batch.marked,
        taught=answers,
        others=style_images(batch, device, ranks) if augmentation.style else None,
        painter=_label_painter(settings, batch) if augmentation.painting else None,
        scales=settings.preprocessing.colour_scales if augmentation.stain else None,
    )
    if answers is not None:
        targets, taught = targets
    if batch.there is not None:
        images = blank_absent_images(images, tensors_on_device(batch.there, device), settings.preprocessing.moments)
    context = [] if batch.context is None else [tensors_on_device(batch.context, device)]
    partner = None
    share = 1.0
    if kind.mixes:
        images, partner, share = mix_part(augmentation, images, batch.generators, ranks)
    if partner is not None:  # a mixed sample has the covariates of both
        context = [ranks.own_part(share * whole + (1 - share) * whole[partner]) for whole in map(ranks.whole, context)]
    images, targets = settings.task.point_at(images, targets, batch.generators)
    columns = None if batch.columns is None else tensors_on_device(batch.columns, device)
    texts = batch.texts
    places = batch.places
    return SeenBatch(images, targets, tuple(context), partner, share, batch.cases, taught, texts, places, columns)


def _augment_bags(batch: Batch, settings: PlanSettings, device: Any, augmentation: Augmentation) -> SeenBatch:
    """A batch of bags of 8 bits, normalised, each of whose tiles is changed by itself."""
    images, targets, places = (tensors_on_device(one, device) for one in (batch.images, batch.targets, batch.context))
    tiles = images.transpose(1, 2).flatten(0, 1).float()
    scales = settings.preprocessing.colour_scales or ()
    for channel, scale in enumerate(scales):
        for offset, divisor in scale.steps:
            tiles[:, channel] = (tiles[:, channel] - offset) / divisor
    keys = [int(rng.integers(2**63)) for rng in batch.generators]
    tiles, _, _ = augmentation.augment_with_target(
        tiles,
        None,
        [random_draws.child_generator(key, number) for key in keys for number in range(images.shape[2])],
        batch.steps[1:],
        mirrored=settings.task.channels_when_mirrored,
        scales=scales,
    )
    taught, columns = (None if one is None else tensors_on_device(one, device) for one in (batch.taught, batch.columns))
    bags = tiles.unflatten(0, (len(images), -1)).transpose(1, 2)
    return SeenBatch(bags, targets, (places,), None, 1.0, batch.cases, taught, batch.texts, batch.places, columns)


def _label_painter(settings: PlanSettings, batch: Batch) -> LabelPainter | None:
    label_painting = settings.task.painting
    return None if label_painting is None else LabelPainter(settings.painting, label_painting.shown, batch.steps)


def style_images(batch: Batch, device: Any, ranks: Ranks) -> Tensor:
    """The images of the whole batch whose amplitudes others may get: those of the target, where there are any."""
    if batch.unlabelled is not None and TARGET_PLACE in batch.unlabelled.places:
        images = ranks.whole(tensors_on_device(batch.unlabelled.images, device))
        return images[[place == TARGET_PLACE for place in batch.unlabelled.places]]
    images = ranks.whole(tensors_on_device(batch.images, device))
    return images[:, :-1] if batch.marked else images


def augmented_views(
    batch: Batch, count: int, settings: PlanSettings, device: Any, *, strong: bool = False
) -> tuple[SeenBatch, ...]:
    """An unlabelled batch so many times: moved once, then each time with other intensities.

    strong: two more follow, a weak view as it was moved, and a strong one
    """
    moving, changing = settings.augmentation.parts
    changes = [changing] * count + [settings.augmentation.strong] * strong
    moved_batch = augment_batch(batch, settings, device, augmentation=moving)
    present = None if batch.there is None else tensors_on_device(batch.there, device)
    views = []
    for change in changes:
        images, _, _ = change.augment_with_target(
            moved_batch.images,
            None,
            batch.generators,
            batch.steps,
            mirrored=None,
            scales=settings.preprocessing.colour_scales,
        )
        if present is not None:
            images = blank_absent_images(images, present, settings.preprocessing.moments)
        views.append(replace(moved_batch, images=images, targets=None))
    weak = [replace(moved_batch, targets=None)] if strong else []
    return (*views[:count], *weak, *views[count:])


def blank_absent_images(images: Tensor, present: Tensor, frames: int = 1) -> Tensor:
    """The images with zeros for what is not there, whatever the augmentation has made of it.

    present: (batch, channels); each stands for its frames, and what follows them is always there
    """
    mask = present.repeat_interleave(frames, dim=1)
    rest = mask.new_ones(len(mask), images.shape[1] - mask.shape[1])
    return images * torch.cat([mask, rest], dim=1).reshape(*images.shape[:2], *[1] * (images.ndim - 2))


@dataclass(frozen=True, eq=False)
class Criterion:
    """The sum that training lowers: weight times loss of each objective.

    objectives: {name: objective}
    parts:      {name: module that learns with the network}; "judge" has the numbers that the task's loss learns
    teacher:    the averaged weights
    start:      {name: weight} that training took over from another network, where an objective needs them
    patients:   of each case, a number
    sharing:    training cases that share the divergence of weights from their prior; 0 where weights are numbers
    """

    settings: PlanSettings
    device: Any
    objectives: Mapping[str, Objective]
    parts: Any = field(default_factory=lambda: torch.nn.ModuleDict())  # noqa: PLW0108 - torch is imported when it is first used
    teacher: Any = None
    start: Mapping[str, Tensor] = field(default_factory=dict)
    ranks: Ranks = SINGLE_PROCESS
    patients: Sequence[int] = ()
    sharing: int = 0

    @classmethod
    def from_settings(
        cls,
        settings: PlanSettings,
        cases: Sequence[PreparedCase],
        averaged: Module,
        device: Any,
        ranks: Ranks,
        start: Mapping[str, Tensor],
        unlabelled: Sequence[PreparedCase] = (),
    ) -> Criterion:
        """The sum that a plan names, with parts that have learnt nothing.

        cases: that train
        unlabelled: of which only the images are seen
        """
        objectives = {**settings.terms, **protected_groups.objectives_of_groups(settings, cases)}
        needs = objective_catalogue.joint_needs(objectives.values())
        if ranks.count > 1 and (needs.partner or needs.adapted):
            problem = "a second network, or one by other weights, learns in one process alone"
            raise PlanError(problem, "objectives.terms", "Leave out co_training or maml, or train without torchrun")
        if ranks.count > 1 and settings.augmentation.paste:
            problem = "structures of the whole batch are pasted in one process alone"
            raise PlanError(problem, "augmentation.paste", "Give 0, or train without torchrun")
        features = feature_count(averaged, settings, cases[0]) if needs.features else 0
        terms = initial_terms(settings.task, device)
        parts: dict[str, torch.nn.Module] = {JUDGE: torch.nn.ParameterDict(terms)} if terms else {}
        places = 1 + max(case.place for case in (*cases, *unlabelled))
        with torch.device(device):
            parts_of = {name: one.parts(averaged, features) for name, one in objectives.items()}
            for name, objective in objectives.items():
                objective.count_places(parts_of[name], places)
                objective.count_columns(parts_of[name], 0 if cases[0].columns is None else len(cases[0].columns))
        parts |= {name: part for name, part in parts_of.items() if part is not None}
        reports = [(text, case.patient) for case in cases if case.texts is not None for text in case.texts.texts]
        for name, objective in objectives.items():
            if objective.needs.texts:
                objective.read_texts(parts[name], [text for text, _ in reports], [patient for _, patient in reports])
        patients = numbers_of_patients(cases)
        sharing = len(cases) if torch_networks.variational_layers(averaged) else 0
        return cls(settings, device, objectives, torch.nn.ModuleDict(parts), averaged, start, ranks, patients, sharing)

    @property
    def needs(self) -> Needs:
        """The needs of all objectives."""
        return objective_catalogue.joint_needs(self.objectives.values())

    @property
    def fewest(self) -> int:
        """The number of images that a batch needs at the fewest."""
        return max(one.fewest for one in self.objectives.values())

    @property
    def learnt(self) -> list[Tensor]:
        """The weights that are learnt with those of the network."""
        return list(self.parts.parameters())

    @property
    def state(self) -> dict[str, Tensor]:
        """The tensors from which training goes on; none where the objectives keep nothing."""
        tensors = {f"{PARTS}{name}": one for name, one in self.parts.state_dict().items()}
        return {**tensors, **{f"{START}{name}": one for name, one in self.start.items()}}

    def restore(self, state: Mapping[str, Tensor]) -> Criterion:
        """The criterion with the tensors of `state`. Raises RuntimeError where they are those of other objectives."""
        parts, start = (
            {name.removeprefix(end): one for name, one in state.items() if name.startswith(end)}
            for end in (PARTS, START)
        )
        self.parts.load_state_dict(parts)
        return replace(self, start={name: one.to(self.device) for name, one in start.items()})

    def judge_batch(
        self,
        module: Any,
        batch: Batch,
        compute: Compute,
        progress: float = 0.0,
        note_costs: Callable[[list[float]], None] | None = None,
    ) -> BatchLoss:
        """Augment a batch on the device and let each objective judge what the network makes of it.

        note_costs: takes the loss of each labelled sample, where somebody wants to know
        With several ranks each gives its part of a batch, and the loss is that of the whole.
        """
        step, added = self._step(module, batch, compute, progress)
        if note_costs is not None:
            note_costs(losses_by_sample(step.judge, step.outputs, step.labelled.targets))
        parts = dict(self.parts.items())
        steps = {name: replace(step, parts=parts.get(name)) for name in self.objectives}
        losses = {name: one.loss(steps[name]) for name, one in self.objectives.items()}
        weighted = [
            losses[name] if (factor := one.factor(progress)) == 1 else factor * losses[name]
            for name, one in self.objectives.items()
        ]
        added = [*added, *self._divergences(module)]
        return BatchLoss(sum(added, sum(weighted[1:], weighted[0])), losses, steps)

    def cost_of_sample(self, module: Any, batch: Batch, seen: SeenBatch, compute: Compute) -> Callable[..., Tensor]:
        """What a single sample costs by given weights: (weights, image, target, covariates) to a loss.

        For objectives that need nothing but the labelled batch; none of its values looks at another sample.
        """
        judge = self._judge(module, batch, seen)
        [objective] = self.objectives.values()

        def cost(weights: Mapping[str, Tensor], image: Tensor, target: Any, context: tuple[Tensor, ...]) -> Tensor:
            with compute.autocast(self.device):
                covariates = [one[None] for one in context]
                outputs = torch.func.functional_call(module, dict(weights), (image[None], *covariates))
            one = replace(seen, images=image[None])
            outputs = {name: output.float() for name, output in _with_images(self.settings.task, outputs, one).items()}
            return objective.weight * judge(outputs, change_each_array(target, lambda array: array[None]))

        return cost

    def _divergences(self, module: Any) -> list[Tensor]:
        """Divergences of layers' weights from their prior, a training case's part of each."""
        layers = torch_networks.variational_layers(module) if self.sharing else []
        return [self.ranks.share(layer.divergence() / self.sharing) for layer in layers]

    def measure(self, module: Any, batch: Batch, compute: Compute) -> dict[str, Tensor]:
        """Losses of all objectives for each image of a batch, added by their weights, and its pooled features.

        For objectives that need no labels, by weights that learn nothing from it. Without features where the family has
        none.
        """
        with torch.no_grad():
            step, _ = self._step(module, batch, compute, progress=1.0)
            parts = dict(self.parts.items())
            terms = [
                one.weight * one.losses(replace(step, parts=parts.get(name))) for name, one in self.objectives.items()
            ]
            numbers = {LOSS: torch.stack(terms).sum(dim=0).cpu()}
            if factory.family_of(self.settings.network.name).features:
                numbers[FEATURES] = step.embedding_network(step.labelled)[1].cpu()
        return numbers

    def after(self, lowered: BatchLoss) -> None:
        """Let each objective change what it keeps, once the weights have moved."""
        with torch.no_grad():
            for name, objective in self.objectives.items():
                objective.after(lowered.steps[name])

    def _step(self, module: Any, batch: Batch, compute: Compute, progress: float) -> tuple[ObjectiveStep, list[Tensor]]:
        """The values of a step, and what the network itself adds to the loss, also while objectives look at it."""
        settings = self.settings
        ranks = self.ranks
        needs = self.needs
        has_loss = factory.family_of(settings.network.name).has_loss
        seen = augment_batch(batch, settings, self.device, ranks)
        if settings.task.takes_prompts:
            seen = self._point_again(module, seen, batch, compute)
        outputs, features, added = self._labelled_outputs(module, seen, compute)
        of_all_ranks = with_whole_answers(seen, ranks)
        labelled = replace(
            of_all_ranks,
            targets=change_each_array(seen.targets, ranks.whole),
            partner=None if has_loss else seen.partner,
        )
        views = self._unlabelled_views(batch)
        weak, strong = views[needs.views :] or (None, None)
        # What goes through the module that Fabric wraps averages its gradients; it does so once a step.
        student = getattr(module, "module", None) or module if needs.labels else module
        terms_added = [added]

        def embedded(batch_seen: SeenBatch) -> Embedded:
            """The outputs and features of the network, all of which get a gradient where processes wait for it."""
            answers = self._embed_batch(student, batch_seen, compute)
            terms_added.extend([zero_of_outputs(answers[0])] if ranks.count > 1 and not needs.labels else [])
            return answers

        second = None
        if needs.second:
            second = augment_batch(batch if batch.second is None else batch.second, settings, self.device, ranks)
        step = ObjectiveStep(
            labelled,
            outputs,
            run=lambda given: self._outputs(student, given, compute),
            teacher=lambda given: self._taught(self._outputs, given, compute),
            judge=self._judge(module, batch, seen),
            task=settings.task,
            unlabelled=views[: needs.views],
            features=features,
            weights=self._learning_weights(student) if needs.start or needs.adapted else {},
            start=self.start,
            progress=progress,
            second=second,
            weak=weak,
            strong=strong,
            patients=tuple(self.patients[case] for case in batch.cases) if self.patients else (),
            whole=ranks.whole,
            own=ranks.own_part,
            embed=embedded,
            taught=lambda given: self._taught(self._embed_batch, given, compute),
            another=lambda network, given: self._outputs(network, given, compute),
            by_weights=lambda weights, given: self._outputs(student, given, compute, weights),
        )
        return step, terms_added

    def _learning_weights(self, student: Module) -> dict[str, Tensor]:
        return {name: self.ranks.share(one) for name, one in student.named_parameters() if one.requires_grad}

    def _point_again(self, module: Any, seen: SeenBatch, batch: Batch, compute: Compute) -> SeenBatch:
        """In some steps the batch with a further prompt where a first answer, which teaches nothing, is most wrong."""
        if float(self.ranks.agree(batch.generators[0].random())) >= POINTED_AGAIN:
            return seen
        with torch.no_grad():
            outputs = self._outputs(getattr(module, "module", None) or module, seen, compute)
        answer = {name: self.ranks.own_part(one) for name, one in outputs.items()}
        images, targets = self.settings.task.point_at(seen.images, seen.targets, batch.generators, answer)
        return replace(seen, images=images, targets=targets)

    def _labelled_outputs(
        self, module: Any, seen: SeenBatch, compute: Compute
    ) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
        """The outputs and pooled features for the labelled batch, and what the network itself adds to the loss."""
        task = self.settings.task
        ranks = self.ranks
        needs = self.needs
        family = factory.family_of(self.settings.network.name)
        outputs: dict[str, Tensor] = {}
        features = None
        with compute.autocast(self.device):
            images = compute.order_images(module, seen.images)
            if not needs.labels:  # each objective shows the network what it wants
                pass
            elif needs.features:
                inner = getattr(module, "module", None)  # what Fabric wraps
                found = network_parts.compute_features(module, images, *seen.context, at=family.features, within=inner)
                outputs = dict(found.outputs)
                features = ranks.whole(found.pooled.float())
            else:
                # A second stage looks at regions that depend on the targets.
                truth = {"targets": seen.targets} if family.sees_targets else {}
                outputs = module(images, *seen.context, **truth)
        outputs = _with_images(task, outputs, seen) if needs.labels else outputs
        outputs = {name: ranks.whole(output.float()) for name, output in outputs.items()}
        added = outputs.pop(ADDED, torch.zeros(())).mean()
        if outputs and ranks.count > 1:
            added = added + zero_of_outputs(outputs)
        return outputs, features, added

    def _judge(self, module: Any, batch: Batch, seen: SeenBatch) -> Callable[..., Tensor]:
        """The loss of outputs and targets: the family's own where it is defined by it, for nothing else fits them."""
        task = self.settings.task
        spatial = tuple(seen.images.shape[2:])
        if factory.family_of(self.settings.network.name).has_loss:
            return partial(module.loss, heads=task.heads)
        terms = dict(self.parts[JUDGE].items()) if JUDGE in self.parts else {}
        extent = tuple(step * size for step, size in zip(batch.steps, spatial, strict=True))
        coarse = partial(batch.kind.coarse, spatial=spatial)
        return partial(deeply_supervised, task, coarse=coarse, terms=terms, extent=extent)

    def _unlabelled_views(self, batch: Batch) -> tuple[SeenBatch, ...]:
        """The views of unlabelled images: as many as objectives need, then a weak and a strong one."""
        if batch.unlabelled is None:
            return ()
        needs = self.needs
        ranks = self.ranks
        views = augmented_views(batch.unlabelled, needs.views, self.settings, self.device, strong=needs.strong)
        return tuple(with_whole_answers(one, ranks) for one in views)

    def _outputs(
        self, module: Any, seen: SeenBatch, compute: Compute, weights: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The outputs for another batch than the labelled one; of several ranks those of the whole batch.

        weights: in place of the module's own
        """
        with compute.autocast(self.device):
            given = (compute.order_images(module, seen.images), *seen.context)
            outputs = module(*given) if weights is None else torch.func.functional_call(module, dict(weights), given)
        outputs = _with_images(self.settings.task, outputs, seen)
        return {name: self.ranks.whole(output.float()) for name, output in outputs.items() if name != ADDED}

    def _embed_batch(self, module: Any, seen: SeenBatch, compute: Compute) -> Embedded:
        """The outputs and the pooled features for a batch; of several ranks those of the whole batch."""
        at = factory.family_of(self.settings.network.name).features
        inner = getattr(module, "module", None)
        with compute.autocast(self.device):
            images = compute.order_images(module, seen.images)
            found = network_parts.compute_features(module, images, *seen.context, at=at, within=inner)
        outputs = {name: self.ranks.whole(one.float()) for name, one in found.outputs.items() if name != ADDED}
        return outputs, self.ranks.whole(found.pooled.float())

    def _taught(self, ask: Callable[[Any, SeenBatch, Compute], T], seen: SeenBatch, compute: Compute) -> T:
        """What is asked of the averaged weights, as they predict."""
        self.teacher.eval()
        with torch.no_grad():
            return ask(self.teacher, seen, compute)


def _with_images(task: Task, outputs: Mapping[str, Tensor], seen: SeenBatch) -> dict[str, Tensor]:
    """The outputs with the images beside them, for a loss that compares these."""
    return {**outputs, IMAGES: seen.images} if task.loss_gets_images else dict(outputs)


@dataclass(frozen=True, eq=False)
class BatchLoss:
    """The loss of a batch, that of each objective before its weight, and what each has seen."""

    loss: Tensor
    losses: Mapping[str, Tensor]
    steps: Mapping[str, ObjectiveStep]


def with_whole_answers(seen: SeenBatch, ranks: Ranks) -> SeenBatch:
    """A batch with the answers of another model for all of it, where processes have a part each."""
    return seen if seen.taught is None else replace(seen, taught=ranks.whole(seen.taught))


def zero_of_outputs(outputs: Mapping[str, Tensor]) -> Tensor:
    """Zero, of all outputs: processes wait for gradients of all weights, those of a head that nothing teaches too."""
    return torch.stack([(0.0 * output).nan_to_num().sum() for output in outputs.values()]).sum()


def numbers_of_patients(cases: Sequence[PreparedCase]) -> tuple[int, ...]:
    """A number for the patient of each case."""
    numbers = {patient: n for n, patient in enumerate(dict.fromkeys(case.patient for case in cases))}
    return tuple(numbers[case.patient] for case in cases)


def initial_terms(task: Task, device: Any) -> dict[str, Tensor]:
    """The numbers of a task's loss that are learnt with the weights, as they are at first; no prediction needs them."""
    return {name: torch.tensor([*values], device=device) for name, values in task.terms.items()}


def feature_count(module: Module, settings: PlanSettings, case: PreparedCase) -> int:
    """The number of pooled features of an image."""
    device = next(module.parameters()).device
    at = factory.family_of(settings.network.name).features
    image = torch.zeros(1, settings.preprocessing.inputs, *settings.training.patch, device=device)
    covariates = [] if case.context is None else [torch.zeros(1, len(case.context), device=device)]
    with torch.no_grad():
        return int(network_parts.compute_features(module.eval(), image, *covariates, at=at).pooled.shape[1])


def losses_by_sample(judge: Callable[..., Tensor], outputs: Mapping[str, Tensor], targets: Any) -> list[float]:
    """The loss of each sample of a batch; no gradient is kept."""
    count = len(next(iter(outputs.values())))

    def cost(n: int) -> Tensor:
        """The loss of one sample."""
        outputs_of_sample = {name: one[n : n + 1] for name, one in outputs.items()}
        return judge(outputs_of_sample, change_each_array(targets, lambda array: array[n : n + 1]))

    with torch.no_grad():
        return [float(one) for one in torch.stack([cost(n) for n in range(count)]).tolist()]


def mix_part(
    augmentation: Augmentation, images: Tensor, generators: Sequence[np.random.Generator], ranks: Ranks
) -> tuple[Tensor, Tensor | None, float]:
    """`Augmentation.mix` for this process's part of a batch, which is mixed as a whole by its first sample."""
    if ranks.count == 1 or not augmentation.mixes:
        return augmentation.mix(images, generators)
    images_mixed, partner, share = augmentation.mix(ranks.whole(images), ranks.agree(generators[:1]))
    return ranks.own_part(images_mixed), partner, share


def _sample_movement(task: Task, batch: Batch) -> SampledMovement:
    parts = {name: _sample_movement(part, batch) for name, part in properties.leaf_tasks(task).items() if name}
    return SampledMovement(batch.generators, batch.steps, task.target_sides, task.outside, parts)


def tensors_on_device(arrays: Any, device: Any) -> Any:
    """Arrays as tensors on the device; from pinned memory they are copied while the processor goes on.

    To a CUDA device alone: Apple's GPUs go on to read memory that is released by then, pytorch/pytorch#189690.
    """
    goes_on = torch.device(device).type == "cuda"
    return change_each_array(arrays, lambda array: torch.from_numpy(array).to(device, non_blocking=goes_on))


def change_each_array(arrays: Any, change: Callable[[Any], Any]) -> Any:
    """One array changed, or each of several in a mapping."""
    if isinstance(arrays, Mapping):
        return {name: change(one) for name, one in arrays.items()}
    return change(arrays)


@contextmanager
def refuse_nondeterminism(settings: PlanSettings) -> Iterator[None]:
    """PlanError, by the network's name, where torch has an operation only in a way that differs between two runs."""
    try:
        yield
    except RuntimeError as error:
        if not settings.training.deterministic or "deterministic" not in str(error):
            raise
        operation = str(error).split(" does not", maxsplit=1)[0]
        problem = f"{settings.network.name} on {settings.training.device} needs {operation}, which differs between runs"
        remedy = "Train without --deterministic, on the cpu, or with another --set network.name"
        raise PlanError(problem, "training.deterministic", remedy) from error


def deeply_supervised(
    task: Task,
    outputs: Mapping[str, Tensor],
    targets: Any,
    coarse: Callable[..., Any] | None = None,
    terms: Mapping[str, Tensor] | None = None,
    extent: Sequence[float] = (),
) -> Tensor:
    """The loss of the finest outputs, and of coarser ones where a network in training gives them.

    Level n weighs 2^-n, divided by the sum of all. Lee et al., arXiv:1409.5185; the weights are nnU-Net's,
    doi:10.1038/s41592-020-01008-z
    coarse: brings targets to the grid of outputs; as their shape says if not given
    terms:  of the loss that are learnt with the weights
    extent: mm of the images per axis, so that each level has a spacing of its own
    """
    levels = outputs_by_level(outputs)
    weights = {level: 2.0**-level for level in levels}
    losses = [
        weights[level]
        / sum(weights.values())
        * task.loss({**heads, **(terms or {})}, coarsen_targets(targets, heads, coarse), _spacing(heads, extent))
        for level, heads in levels.items()
    ]
    return torch.stack(losses).sum()


def outputs_by_level(outputs: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """{level: {head: output}}; level 0 is the finest. What holds for the whole image does so at every level."""
    levels: dict[int, dict[str, Tensor]] = {}
    for name, output in outputs.items():
        head, _, level = name.partition(LEVEL)
        levels.setdefault(int(level or 0), {})[head] = output
    vectors = {head: output for head, output in levels.get(0, {}).items() if output.ndim == 2}
    return {level: {**vectors, **heads} for level, heads in sorted(levels.items())}


def coarsen_targets(targets: Any, heads: Mapping[str, Tensor], coarse: Callable[..., Any] | None = None) -> Any:
    """Targets on the grid of the outputs; where these have none, as they are."""
    spatial = _spatial(heads)
    if not spatial:
        return targets
    if coarse is None:
        coarse = partial(
            target_kinds.kind_for_axes(targets.ndim - 1, len(spatial)).coarse, spatial=tuple(targets.shape[1:])
        )
    return coarse(targets, wanted=spatial)


def _spatial(heads: Mapping[str, Tensor]) -> tuple[int, ...]:
    return next((tuple(one.shape[2:]) for one in heads.values() if one.ndim > 2), ())


def _spacing(heads: Mapping[str, Tensor], extent: Sequence[float]) -> tuple[float, ...] | None:
    """mm per axis of dense outputs; None where there are none, or nobody knows."""
    return tuple(side / size for side, size in zip(extent, _spatial(heads), strict=False)) or None
