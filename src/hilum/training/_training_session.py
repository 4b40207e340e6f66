"""One training as its process sees it: network, average, loader and optimiser, opened, restored and kept."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from hilum import errors
from hilum.errors import PlanError, ResourceError
from hilum.lazy import lightning_fabric, torch
from hilum.networks.weight_loading import LoadedWeights
from hilum.objectives import objective_catalogue
from hilum.objectives.objective_terms import SUPERVISED, Objective, Positives
from hilum.planning import PlanSettings
from hilum.planning.plan_sections import TrainingSettings
from hilum.planning.rules import privacy_rules
from hilum.runtime import Context, covariate_encoding, torch_networks
from hilum.runtime.model_schema import ModelOrigin, ModelRecord
from hilum.runtime.package import package_contents
from hilum.runtime.torch_networks import TorchNetwork
from hilum.runtime.windows import bags, slide
from hilum.tasks.task import IMAGES
from hilum.training import _logs, checkpoint_files, privacy_accounting, weight_transfer
from hilum.training._logs import RANK
from hilum.training.data.batch_loading import Loader
from hilum.training.data.case_sampling import BY_LOSS, LastLosses
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.data.private_sampling import PoissonSampling
from hilum.training.data.protected_groups import ProtectedGroups
from hilum.training.length import schedule
from hilum.training.privacy_accounting import PrivacyBudget
from hilum.training.processes import SINGLE_PROCESS, Ranks
from hilum.training.step import batch_loss, computation, optimisers, private_step
from hilum.training.step.batch_loss import FEATURES, JUDGE, LOSS, Criterion
from hilum.training.step.computation import Compute
from hilum.training.step.optimisers import WeightAverage
from hilum.training.step.private_step import PrivateLearner, SampleGradients
from hilum.training.step.train_step import Learner, StillLearner
from hilum.training.training_state import CommandClock, State
from hilum.training.weight_transfer import PROTOTYPES, MovingWeights
from hilum.transforms import channel_stack, random_draws
from hilum.values import Region
from hilum.work_state import log

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# Sets the draws of unlabelled images apart from those of the training cases.
UNLABELLED = 2**29
# Training cases whose metric is logged beside that of the validation cases.
MOST_SHOWN = 50
# Patches of validation cases of which losses and features are measured, at the fewest.
MEASURED = 32
MINUS_LOSS = "minus_loss"


@dataclass(eq=False)
class TrainingSession:
    """The objects that a training works with from its first step to its last.

    averaged:     the mean of the weights of many steps, in a module of its own
    record:       of the model, where it comes from
    criterion:    the sum that training lowers
    initialised:  which weights `module` has at the start, in words; nothing for fresh ones
    is_resumed:   whether `out` holds a checkpoint from which training goes on
    moving:       what moves, and how fast, where training starts from other weights
    budget:       what the weights may tell of a person, and have told; None without a bound
    """

    settings: PlanSettings
    train_cases: Sequence[PreparedCase]
    val_cases: Sequence[PreparedCase]
    out: Path
    ranks: Ranks
    fabric: Any
    module: Any
    averaged: Any
    record: ModelOrigin
    criterion: Criterion
    optimiser: Any
    loader: Loader
    initialised: str
    is_resumed: bool
    moving: MovingWeights
    budget: PrivacyBudget | None = None

    @classmethod
    def from_settings(
        cls,
        settings: PlanSettings,
        train_cases: Sequence[PreparedCase],
        val_cases: Sequence[PreparedCase],
        out: Path,
        record: ModelOrigin,
        start: Path | None,
        unlabelled: Sequence[PreparedCase] = (),
    ) -> TrainingSession:
        """The network built and on its device, with the weights that the plan or `start` names.

        record: goes into the model
        start:  weights (safetensors), as far as names and shapes agree; a resumed training needs none
        unlabelled: cases of which nothing but the image is seen
        """
        ranks = Ranks.here()
        fabric = make_fabric(settings.training, ranks)
        torch.manual_seed(settings.training.seed)
        module = computation.with_exact_gradients(torch_networks.build_module(settings.task, settings.architecture))
        is_resumed = ranks.agree(checkpoint_files.last_checkpoint(out).is_dir())
        is_pulled_back = objective_catalogue.joint_needs(settings.terms.values()).start
        fresh = {name: weight.detach().clone() for name, weight in module.named_parameters() if is_pulled_back}
        loaded = LoadedWeights("") if is_resumed else weight_transfer.load_initial_weights(module, settings, start)
        if loaded.words:
            log.info("began from %s", loaded.words)
        averaged = copy.deepcopy(module.to(fabric.device)).requires_grad_(False)
        criterion = Criterion.from_settings(
            settings, train_cases, averaged, fabric.device, ranks, changed_weights(fresh, averaged), unlabelled
        )
        moving = MovingWeights()
        if weight_transfer.weight_sources(settings, start):
            moving = MovingWeights.from_settings(
                settings.transfer,
                loaded.rows or weight_transfer.read_origins(out),
                weight_transfer.parts_of_network(settings),
            )
            moving.apply(module)
            moving.measure_no_statistics(averaged)
            if loaded.rows and ranks.leads:
                weight_transfer.write_transfer(out, loaded, module, moving, settings.transfer)
            record = {**record, **weight_transfer.source_record(out)}
        budget = make_budget(settings, train_cases, ranks)
        return cls(
            settings,
            train_cases,
            val_cases,
            out,
            ranks,
            fabric,
            module,
            averaged,
            {**record, **objectives_used(settings)},
            criterion,
            optimisers.make_optimiser(module, settings.training, criterion.learnt, moving.pace),
            make_loader(settings, train_cases, ranks, unlabelled, budget),
            loaded.words,
            is_resumed,
            moving,
            budget,
        )

    @property
    def device_settings(self) -> TrainingSettings:
        """The plan's settings of training, with the device of this process: of several processes each has its own."""
        return replace(self.settings.training, device=str(self.fabric.device))

    @property
    def most_steps(self) -> int | None:
        """Steps that there may be; None for no limit."""
        return schedule.most_steps(self.settings.training, len(self.train_cases))

    @property
    def further_columns(self) -> Sequence[str]:
        """Columns of the log: losses of single objectives where there are several, and the rank without labels."""
        names = tuple(self.criterion.objectives)
        labels = self.criterion.needs.labels
        return (*(map(_logs.loss_column, names) if len(names) > 1 else ()), *(() if labels else (RANK,)))

    @property
    def shown_cases(self) -> Sequence[PreparedCase]:
        """Training cases, always the same and evenly from first to last, whose metric shows over-fitting.

        As many as there are validation cases at the most, so that no look takes longer than two did; without validation
        cases none, but where objectives need no labels: a collapse shows in any images.
        """
        most = min(MOST_SHOWN, len(self.val_cases) if self.criterion.needs.labels or self.val_cases else MOST_SHOWN)
        return self.train_cases[:: -(-len(self.train_cases) // most) or 1] if most else ()

    def take_batches_of(self, samples: int | None) -> None:
        """Take a number of samples a step from now on; as planned where None."""
        if samples is not None:
            self.settings = replace(self.settings, training=replace(self.settings.training, batch=samples))
            unlabelled = () if self.loader.unlabelled is None else self.loader.unlabelled.cases
            self.budget = make_budget(self.settings, self.train_cases, self.ranks)
            self.loader = make_loader(self.settings, self.train_cases, self.ranks, unlabelled, self.budget)

    def restore(self) -> State:
        """Everything as it was at the last checkpoint."""
        last = checkpoint_files.last_checkpoint(self.out)
        parts = (self.module, self.averaged, self.optimiser, self.criterion)
        recorded, self.criterion = checkpoint_files.read_checkpoint(last, *parts)
        state = State.from_record(recorded, str(last))
        self.take_batches_of(state.batch)
        self.loader.costs.known = [(int(step), int(case), float(loss)) for step, case, loss in recorded["costs"]]
        if self.budget is not None:
            self.budget.restore(recorded["privacy"], str(last))
        return state

    def try_step(self, compute: Compute, number: int) -> None:
        """Compute a step of this number there and back, without moving the weights."""
        with batch_loss.refuse_nondeterminism(self.settings):
            batch = self.loader.of_step(number)
            if self.budget is None:
                self.criterion.judge_batch(self.module, batch, compute).loss.backward()
            else:
                for gradients, _ in SampleGradients(self.criterion).of_batch(self.module, batch, compute):
                    private_step.clipped_gradient_sum(gradients, self.budget.settings.clip)

    def learner(self, state: State) -> Learner:
        """The learner that takes the steps, computed as the state says."""
        compute = Compute.from_name(state.compute, self.device_settings)
        if self.criterion.needs.features:  # what a compiled network sees within is not to be had
            compute = replace(compute, compiled=False)
        compute.apply(self.module)
        optimisers.match_weight_layout(self.optimiser)
        replace(compute, compiled=False).apply(self.averaged)
        if state.began_from:
            self.record = {**self.record, "began_from": state.began_from}
        average = WeightAverage(self.averaged, self.module)
        wrapped, self.optimiser = self.fabric.setup(self.module, self.optimiser)
        self.module.train()
        self.moving.keep_statistics(self.module)
        parts = (wrapped, self.criterion, self.optimiser, average, self.settings, self.fabric, compute, self.ranks)
        if self.budget is not None:
            return PrivateLearner(*parts, budget=self.budget, samples=SampleGradients(self.criterion))
        return (StillLearner if self.settings.transfer.mode == PROTOTYPES else Learner)(*parts, costs=self._costs)

    def validate(
        self, cases: Sequence[PreparedCase], compute: Compute, windows: int | None = None
    ) -> dict[str, Tensor]:
        """{name: (cases, ...)} for the task's selection: whole cases on the network's grid, by the averaged weights.

        windows: of each case at most, of which the part lies around a structure, and of a bag as many tiles, evenly
                 spread; None for all
        In the precision of the training, without mirrored views. Of objectives that need no labels what they cost.
        """
        if not self.criterion.needs.labels:
            return self._costs_of(cases, compute)
        averaged = self.averaged
        device = self.fabric.device
        averaged.eval()
        collected: list[Mapping[str, Tensor]] = []
        inference = self.settings.inference
        task = self.settings.task

        def run(images: np.ndarray, *context: np.ndarray) -> Mapping[str, np.ndarray]:
            covariates = [torch.from_numpy(one).to(device) for one in context]
            with torch.inference_mode(), compute.autocast(device):
                outputs = averaged(compute.order_images(averaged, torch.from_numpy(images).to(device)), *covariates)
            return {name: output.float().cpu().numpy() for name, output in outputs.items()}

        for case in cases:
            if (bag := case.bag) is not None:
                tiles = self.looked_part(case, windows)[0]
                which = np.linspace(0, len(bag.places) - 1, tiles.stop - tiles.start).round().astype(int).tolist()
                with compute.autocast(device):
                    arrays = bags.pool_bag(TorchNetwork(averaged, str(device)), bag, which)
                outputs = {name: torch.from_numpy(arrays[name]) for name in task.heads}
                collected.append(task.quality(outputs, batch_loss.change_each_array(case.target, _as_batch)))
                continue
            image, target = case.cut_region(self.looked_part(case, 1 if task.takes_prompts else windows))
            if task.takes_prompts:  # the same ones at every look
                fixed = np.random.default_rng(len(collected))
                pointed = task.point_at(torch.from_numpy(image)[None], torch.from_numpy(target)[None], [fixed])
                image, target = (one[0].numpy() for one in pointed)
            sums: dict[str, Tensor] = {}
            with_numbers = covariate_encoding.bind_context(run, case.context)
            for region, arrays in slide.slide_windows(
                with_numbers, image, inference.patch, overlap=inference.overlap, batch=4, merge=task.merge
            ):
                outputs = {name: torch.from_numpy(array)[None] for name, array in arrays.items()}
                if task.loss_gets_images:
                    outputs[IMAGES] = torch.from_numpy(image[(slice(None), *region)])[None]
                part = batch_loss.change_each_array(case.kind.cut_region(target, region), _as_batch)
                for name, value in task.quality(outputs, part).items():
                    sums[name] = sums[name] + value if name in sums else value
            collected.append(sums)
        return checkpoint_files.concatenate_cases(collected)

    def looked_part(self, case: PreparedCase, windows: int | None) -> Region:
        """The part of a case that a look sees: all of it, or about a voxel of a structure so many windows at most."""
        shape = case.shape
        inference = self.settings.inference
        part = shape if windows is None else slide.part_of_windows(shape, inference.patch, inference.overlap, windows)
        marked = next((one for one in case.positions if len(one)), None)
        middle = np.array(shape) // 2 if marked is None or part == shape else np.asarray(marked[len(marked) // 2])
        starts = np.clip(middle - np.array(part) // 2, 0, np.array(shape) - part).tolist()
        return tuple(slice(start, start + size) for start, size in zip(starts, part, strict=True))

    def _costs_of(self, cases: Sequence[PreparedCase], compute: Compute) -> dict[str, Tensor]:
        """{"minus_loss": (cases,), "features": (cases, ...)} the objectives' own losses, always of the same patches.

        Of few cases several patches each, whose mean counts, so that features can be compared.
        """
        criterion = self.criterion
        averaged = self.averaged
        chosen = self.settings.training
        patients = batch_loss.numbers_of_patients([*self.train_cases, *cases])[len(self.train_cases) :]
        criterion = replace(criterion, ranks=SINGLE_PROCESS, patients=patients)
        batch = max(chosen.batch, criterion.fewest)
        settings = replace(self.settings, training=replace(chosen, batch=batch))
        loader = make_loader(settings, cases, SINGLE_PROCESS)
        averaged.eval()
        device = torch.device(self.fabric.device)
        cases_seen = list[int]()
        measured: list[dict[str, Tensor]] = []
        with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
            torch.manual_seed(chosen.seed)
            # Every case in whole rounds, and enough of them for a rank.
            for number in range(-(-len(cases) * -(-MEASURED // len(cases)) // batch)):
                step_batch = loader.of_step(number)
                measured.append(criterion.measure(averaged, step_batch, compute))
                cases_seen += step_batch.cases
        numbers = {name: torch.cat([one[name] for one in measured]) for name in measured[0]}
        owners = torch.tensor(cases_seen)
        means = [
            {MINUS_LOSS: -numbers[LOSS][owners == n].mean()[None]} for n in range(len(cases)) if (owners == n).any()
        ]
        features = {FEATURES: numbers[FEATURES]} if FEATURES in numbers else {}
        return {**checkpoint_files.concatenate_cases(means), **features}

    def keep(self, state: State, clock: CommandClock) -> None:
        """Write all from which the training goes on."""
        if not self.ranks.leads:
            return
        content = {**state.record(clock), "costs": [] if self._costs is None else self._costs.known}
        content["privacy"] = None if self.budget is None else self.budget.state
        checkpoint_files.write_checkpoint(
            checkpoint_files.last_checkpoint(self.out),
            self.model_record(step=state.step),
            self.averaged.state_dict(),
            module=self.module,
            optimiser=self.optimiser,
            state=content,
            objectives=self.criterion.state,
        )

    def model_record(self, **facts: Any) -> ModelRecord:
        """The content of the model's `model.json`, with these facts and what the terms of the loss have come to."""
        parts = self.criterion.parts
        terms = parts[JUDGE].items() if JUDGE in parts else ()
        learnt = {name: value.detach().cpu().tolist() for name, value in terms}
        record = cast("ModelOrigin", {**self.record, **facts, **({"terms": learnt} if learnt else {})})
        chosen = self.settings
        return package_contents.model_settings(
            chosen.task, chosen.preprocessing, chosen.inference, chosen.architecture, record
        )

    @property
    def _costs(self) -> LastLosses | None:
        """The losses of cases, where cases are sampled by them."""
        return self.loader.costs if self.settings.training.sampling == BY_LOSS else None


def _as_batch(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array))[None]


def changed_weights(fresh: Mapping[str, Tensor], module: Module) -> dict[str, Tensor]:
    """The weights of a module that differ from fresh ones of the same names."""
    weights = ((name, weight) for name, weight in module.named_parameters() if name in fresh)
    return {name: one.detach().clone() for name, one in weights if not torch.equal(one.cpu(), fresh[name].cpu())}


def objectives_used(settings: PlanSettings) -> ModelOrigin:
    """Record of a model's objectives; none where the task's loss is the only one, as it is."""
    used = {name: asdict(objective) for name, objective in settings.terms.items()}
    return ModelOrigin() if used == {SUPERVISED: asdict(Objective())} else {"objectives": used}


def make_budget(settings: PlanSettings, cases: Sequence[PreparedCase], ranks: Ranks) -> PrivacyBudget | None:
    """The unspent privacy budget of a training; None where nobody asked for one."""
    budget = PrivacyBudget.for_training(settings, [case.patient for case in cases])
    if budget is not None and ranks != SINGLE_PROCESS:
        raise PlanError("a private training has one process", privacy_rules.EPSILON, "Train without torchrun")
    return budget


def make_loader(
    settings: PlanSettings,
    cases: Sequence[PreparedCase],
    ranks: Ranks,
    unlabelled: Sequence[PreparedCase] = (),
    budget: PrivacyBudget | None = None,
) -> Loader:
    """The batches of a training, of which this process makes its part."""
    chosen = settings.training
    protected = ProtectedGroups.for_cases(chosen.fairness, cases)
    make_loader = partial(
        Loader,
        pinned=chosen.device.startswith("cuda"),
        images=channel_stack.images_of_channels(settings.preprocessing.channels),
        left_out=chosen.modality_dropout,
        flags=bool(Context.from_settings(settings.network.context).channels),
    )
    shown: Positives = next((one.shows for one in settings.terms.values() if one.needs.second), "view")
    others = private = None
    if budget is not None:
        units = privacy_accounting.units_of_cases([case.patient for case in cases], budget.settings.unit)
        private = PoissonSampling(units, budget.rate, budget.chance)
    if unlabelled:
        batch = settings.objectives.unlabelled_batch or chosen.batch
        stream = random_draws.sample_generator(chosen.seed, 0, 0, UNLABELLED)
        seed = int(stream.integers(2**63))
        others = make_loader(unlabelled, chosen.patch, batch, 0.0, seed, part=ranks.part(batch))
    return make_loader(
        cases,
        chosen.patch,
        chosen.batch,
        chosen.foreground,
        chosen.seed,
        sampling=chosen.sampling,
        part=ranks.part(chosen.batch),
        strata=None if protected is None else protected.strata_to_sample,
        unlabelled=others,
        shows=shown,
        private=private,
    )


def make_fabric(chosen: TrainingSettings, ranks: Ranks) -> Any:
    """Devices through Lightning Fabric, whose own remarks the plan has already made."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    kind, _, number = chosen.device.partition(":")
    if ranks != SINGLE_PROCESS and kind == "cuda" and here > (devices := torch.cuda.device_count()):
        problem = f"{here} processes on a machine with {errors.count_phrase(devices, 'GPU')}, of which each needs one"
        raise ResourceError(problem, "torchrun", f"Give --nproc_per_node {devices}, or train with --device cpu")
    # The processes of one machine share its cores.
    torch.set_num_threads(max(1, chosen.threads // here))
    if chosen.deterministic:  # without it cuBLAS may add in another order each time
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(chosen.deterministic, warn_only=False)
    if kind == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as convolutions have it by default
        torch.backends.cudnn.benchmark = not chosen.deterministic
    accelerated = partial(lightning_fabric.Fabric, accelerator={"cuda": "cuda", "mps": "mps"}.get(kind, "cpu"))
    if ranks == SINGLE_PROCESS:
        fabric = accelerated(devices=[int(number)] if number else 1)
    else:
        fabric = accelerated(strategy="ddp", devices=here, num_nodes=ranks.count // here)
    fabric.launch()
    return fabric
