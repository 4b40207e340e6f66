"""A plan's sections as typed values: each field with its limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import StringConstraints

from hilum.networks import factory
from hilum.objectives.objective_terms import SUPERVISED
from hilum.runtime import Context
from hilum.runtime.model_schema import FusionArguments, NetworkArguments
from hilum.transforms.painting import PaintingRanges
from hilum.values import Setting, StatedSettings

if TYPE_CHECKING:
    from hilum.objectives.objective_terms import Objective
    from hilum.runtime import Preprocessing
    from hilum.runtime.inference import Inference
    from hilum.tasks import Task
    from hilum.transforms.augment import Augmentation

Count = Annotated[int, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]
BelowOne = Annotated[float, Ge(0), Lt(1)]
Fraction = Annotated[float, Gt(0), Lt(1)]
Positive = Annotated[float, Gt(0), Lt(math.inf)]
NotNegative = Annotated[float, Ge(0), Lt(math.inf)]
# What every generator of random numbers takes.
Seed = Annotated[int, Ge(0), Lt(2**63)]
# The fewest samples of a batch over which a network normalises. The volume of a hippocampus read off its mask, 120
# steps: of 4 volumes R2 .05, of 8 .66 (bench/findings/training.md, seed 1).
LEAST_BATCH = 8
# Treatments of groups by how often their cases are sampled.
SAMPLED_BY_GROUPS = ("resample", "balanced_batches")
Treatment = Literal["none", "reweigh", "resample", "balanced_batches", "group_dro", "adversarial", "constraint"]
# Float32 where the plan's precision is bf16; channels-last, where the channels of a voxel lie side by side in memory.
Ways = Literal[
    "eager", "channels-last", "compiled", "compiled channels-last",
    "float32", "float32 channels-last", "float32 compiled", "float32 compiled channels-last",
]  # fmt: skip


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training.

    minutes:       from the command's start to the finished model; None where `steps` decides
    steps:         None until a probe has turned the minutes into a number
    epochs:        passes over the training cases at which it ends, however many minutes are left; None for no limit
    networks:      of other seeds, whose mean is the model; None for as many as the minutes that are left allow
    warmup, ema:   shares of all steps: the rate rises over the first, weights are averaged over about the last
    patch:         what is cut from a prepared case, which is at least as large
    validations:   how often the validation cases are looked at, at the most
    foreground:    share of patches that are centred on a structure
    schedule:      how the rate falls after the warm-up: a half cosine, or a polynomial of degree 0.9
    early_stop:    ends after so many validations without improvement; None never
    sampling:      how often cases are sampled: as they come, or so that classes are alike or by roots of their sizes
    compute:       how a step is computed; None until a probe has found what is fastest on the machine
    modality_dropout: how often each image of a case is left out, never all of them
    fairness:      how groups of people are treated alike: by weights of cases, by how cases are sampled, by the loss of
                   the group that is worst off, by features that tell no group, or by a last layer fitted anew
    protected:     these groups, as "sex" or "age:60"; the network gets no covariate by it
    memory:        GiB that training is predicted to take at its peak, of the device that computes
    """

    minutes: Annotated[Positive | None, Setting(unit="min")]
    steps: Annotated[Count | None, Setting(always=True)]
    batch: Count
    patch: tuple[Count, ...]
    learning_rate: Positive
    weight_decay: NotNegative
    warmup: Share
    ema: BelowOne
    clip: Annotated[float, Gt(0)]
    precision: Literal["bf16", "float32"]
    validations: Count
    foreground: Share
    selection: str
    seed: Annotated[Seed, Setting(zero_counts=True)]
    deterministic: bool
    device: Annotated[str, StringConstraints(pattern="^(cpu|mps|cuda:\\d+)$")]
    threads: Count
    optimiser: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "poly"] = "cosine"
    early_stop: Count | None = None
    epochs: Positive | None = None
    networks: Count | None = 1
    sampling: Literal["natural", "balanced", "oversampled", "undersampled", "square_root", "by_loss"] = "natural"
    memory: Annotated[NotNegative, Setting(unit="GiB")] = 0.0
    compute: Annotated[Ways | None, Setting(always=True)] = None
    modality_dropout: BelowOne = 0.0
    fairness: Treatment = "none"
    protected: str | None = None


@dataclass(frozen=True)
class NetworkSettings:
    """Settings of the network.

    name:       of the family
    size:       the family's own settings
    pretrained: weights to begin from: None, "auto" for the family's published ones, or a file
    inflation:  how kernels of weights for images of one axis less get that axis: "mean" repeats them along it and
                divides, "centre" has zeros around them
    dropout:    share that dropout leaves out in training, where the family's paper has it, else behind every block; 0
                leaves the dropout that `size` has
    context:    {covariate: how it becomes numbers} for the network to use with the images; None for none. A person who
                plans gives names, or "all"
    context_fusion: how: they join the image's features (concatenate), scale and shift them (film), each place of the
                image asks them (attention), or they stand among its patches (tokens)
    narrow:     features that they are brought down to first; None where they are used as they are
    sparsity:   what the weights of that layer cost beside the loss
    """

    name: str
    size: dict[str, Any]
    pretrained: str | None = None
    dropout: BelowOne = 0.0
    context: dict[str, Any] | list[str] | str | None = None
    context_fusion: Literal["concatenate", "film", "attention", "tokens"] | None = None
    narrow: Count | None = None
    sparsity: NotNegative = 0.0
    inflation: Annotated[Literal["mean", "centre"], Setting(only_with=("network.pretrained",))] = "mean"


@dataclass(frozen=True)
class SplitSettings:
    """Who trains and who tests.

    method: how the cases were parted
    folds:  in how many parts each of which is the test of one model, 0 for none
    folds_by: the column of which each fold leaves out whole values, as the sites; None where patients are dealt
    seed:   by which they were sampled; None by training.seed
    inner_folds: networks beside the main one, each trained without a part of the training cases; 0 for none
    inner_share: of the minutes for training, what they have together
    calibration: cases that train nothing and choose nothing, from which guarantees come
    warned: whether cases that a warning of `check` names train and select, or are left out; they test all the same
    parts:  hash of who trains and who tests, as a run began
    """

    method: Literal["own", "sampled", "folds"]
    folds: Annotated[int, Ge(0)] = 0
    folds_by: Annotated[str | None, Setting(only_with=("split.folds",))] = None
    seed: Annotated[Seed | None, Setting(zero_counts=True)] = None
    inner_folds: Annotated[int, Ge(0), Setting(always=True)] = 0
    inner_share: Annotated[Fraction, Setting(only_with=("split.inner_folds",))] = 0.5
    calibration: Annotated[int, Ge(0), Setting(always=True)] = 0
    warned: Literal["train", "leave"] = "train"
    parts: str | None = None


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the search for better decisions before the training.

    minutes: of the run's minutes, for all its trials; None where `trials` decides, or where nothing is searched
    trials:  how many there are, the plan's own among them; None until the minutes are over
    steps:   of each; None where each has an equal part of the minutes
    configurations: "auto" compares networks of slices, of volumes, their mean and, where the plan has one, a cascade,
             by the folds; one of these names is what an earlier comparison has chosen. None where nothing is compared
    """

    minutes: Positive | None = None
    trials: Annotated[int, Ge(2)] | None = None
    steps: Count | None = None
    configurations: Literal["auto", "2d", "3d", "cascade", "ensemble"] | None = None

    @property
    def is_on(self) -> bool:
        """Whether anything is searched."""
        return self.minutes is not None or self.trials is not None


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of the evaluation.

    primary:    the metric that the model is judged by
    preregistered: hash of what was stated before training
    image_only: whether the same network is trained as long without the covariates too, where it is told any
    groups:     whose figures are compared, "sex,age:40:60,site,sex*age"; None or "none": nobody's
    margin:     by which the model may be worse than another in the primary metric and still be none the worse, in the
                metric's unit; None: nothing of the kind is claimed
    """

    primary: str
    preregistered: str | None = None
    image_only: bool = False
    groups: str | None = None
    margin: Positive | None = None


@dataclass(frozen=True)
class GuardSettings:
    """Settings of the gate, which refuses images.

    gate:  whether it refuses those unlike the ones that trained it
    level: share of good images that it may refuse wrongly
    error: share of answers that may be wrong: it gives none where it is least sure; None: it answers however unsure
    delta: how likely more of them may be wrong
    """

    gate: Annotated[bool, Setting(always=True)] = True
    level: Annotated[Fraction, Setting(only_with=("guard.gate",))] = 0.01
    error: Fraction | None = None
    delta: Annotated[Fraction, Setting(only_with=("guard.error",))] = 0.1


@dataclass(frozen=True)
class TransferSettings:
    """Settings of the start from other weights.

    mode:        what moves: all weights; all, after only the head has moved for a while; only the head and what the
                 source lacks; a difference of low rank from each matrix and kernel of the source; or nothing: the
                 means of features of each class become the last layer
    frozen:      share of the encoder's levels, from the image on, that stand still with their statistics
    layer_decay: factor of the learning rate from each level of the encoder to the next towards the image
    head_share:  share of the steps in which only the head moves, for head_first
    rank:        of the differences, for lora
    minimum:     share of the encoder's tensors that the source must have
    """

    mode: Literal["full", "head_first", "linear_probe", "lora", "prototypes"] = "full"
    frozen: Share = 0.0
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    head_share: Share = 0.25
    rank: Count = 8
    minimum: Share = 0.5


@dataclass(frozen=True)
class PrivacySettings:
    """Settings of a training whose weights tell little of any single person (differential privacy).

    epsilon: how much they may tell; None for a training without such a bound
    delta:   how likely they may tell more
    clip:    length to which the gradient of each sample is cut
    unit:    who is protected: a patient with all images, or a case
    accountant: how the sum of all steps is reckoned
    """

    epsilon: Positive | None = None
    delta: Annotated[Fraction | None, Setting(only_with=("privacy.epsilon",))] = None
    clip: Annotated[Positive, Setting(only_with=("privacy.epsilon",))] = 1.0
    unit: Annotated[Literal["patient", "case"], Setting(only_with=("privacy.epsilon",))] = "patient"
    accountant: Annotated[Literal["rdp", "prv"], Setting(only_with=("privacy.epsilon",))] = "rdp"


@dataclass(frozen=True)
class ObjectiveSettings:
    """The terms that training lowers; each has a section of its name.

    terms:      names of objectives
    unlabelled: paths of data sets of which nothing but the images is seen
    target:     the same, of the place where the model shall work
    domain:     the column that states the place of each case of the data; None where they are of one
    unlabelled_hash: of the contents of their images; None until they are read
    unlabelled_batch: unlabelled images a step; None for as many as labelled ones
    """

    terms: Annotated[tuple[str, ...], MinLen(1)] = (SUPERVISED,)
    unlabelled: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    domain: str | None = None
    unlabelled_hash: str | None = None
    unlabelled_batch: Annotated[Count | None, Setting(only_with=("objectives.unlabelled", "objectives.target"))] = None

    @property
    def image_paths(self) -> tuple[str, ...]:
        """All data sets of which only the images are seen, those of the target last."""
        return (*self.unlabelled, *self.target)


@dataclass(frozen=True)
class FederationSettings:
    """Settings of a training over sites that keep their images.

    rounds:         how often the sites' weights become common ones
    method:         by which they do
    optimiser:      whether what the optimiser keeps of each weight stays at a site, or begins anew with each round
    server_rate:    step of the server's own optimiser, for fedopt
    server:         that optimiser
    trim:           share of the sites that are left out at either end, for trimmed_mean
    private_layers: patterns of the names of weights that never leave a site
    min_count:      fewest cases behind a fact or a count that leaves a site
    norm_bound:     an update that is longer than so many times the middle one is refused
    select:         whether the last round is the model, or the one that the sites' validation cases prefer
    """

    rounds: Count = 20
    method: str = "fedavg"
    optimiser: Literal["keep", "reset"] = "keep"
    server_rate: Positive = 0.01
    server: Literal["adam", "yogi"] = "adam"
    trim: Annotated[float, Ge(0), Lt(0.5)] = 0.2
    private_layers: tuple[str, ...] = ()
    min_count: Count = 10
    norm_bound: Positive = 100.0
    select: Literal["last", "validation"] = "last"


@dataclass(frozen=True)
class PlanSettings:
    """A whole plan, typed.

    terms: {name: objective}
    """

    task: Task
    preprocessing: Preprocessing
    network: NetworkSettings
    training: TrainingSettings
    augmentation: Augmentation
    inference: Inference
    split: SplitSettings
    evaluation: EvaluationSettings
    search: SearchSettings
    guard: GuardSettings
    objectives: ObjectiveSettings
    terms: Mapping[str, Objective]
    transfer: TransferSettings = TransferSettings()
    privacy: PrivacySettings = PrivacySettings()
    painting: PaintingRanges = field(default_factory=PaintingRanges)
    federation: FederationSettings = FederationSettings()

    @property
    def architecture(self) -> NetworkArguments:
        """The arguments of `networks.build` but the heads, for which the task asks; plain, as a model records them."""
        scales = {}
        if factory.family_of(self.network.name).pools:  # whose shares of colours are those before normalisation
            scales = {"scales": [[one.mean, one.deviation] for one in self.preprocessing.normalisation]}
        arguments: NetworkArguments = {
            "name": self.network.name,
            "channels": self.preprocessing.inputs,
            "spatial_dims": self.preprocessing.ndim,
            "size": {**scales, **self.network.size},
        }
        if self.network.dropout:
            arguments["dropout"] = self.network.dropout
        arguments = {**arguments, **fusion_arguments(vars(self.network))}
        if self.preprocessing.cascade is not None:
            arguments["marked"] = len(self.task.labels)
        return arguments


def fusion_arguments(network: StatedSettings) -> FusionArguments:
    """The arguments of `networks.build` that concern covariates, from a plan's section "network"."""
    if not network.get("context"):
        return FusionArguments()
    method = network.get("context_fusion")
    sparsity = network.get("sparsity", 0.0)
    fusion = {"method": method, "narrow": network.get("narrow") or 0, "sparsity": sparsity}
    if (courses := Context.from_settings(network["context"]).courses)[0]:
        fusion["courses"] = list(courses)
    arguments = FusionArguments(context=network["context"])
    if method:
        arguments["fusion"] = fusion
    return arguments
