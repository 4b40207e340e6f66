"""A plan's sections as typed values: each field with its limits, and the sentence that states it in a plan's prose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import StringConstraints

from isocenter.networks import factory
from isocenter.objectives.objective_terms import SUPERVISED
from isocenter.runtime import Context
from isocenter.transforms.synthesis import PaintingRanges
from isocenter.values import Sentence

if TYPE_CHECKING:
    from isocenter.objectives.objective_terms import Objective
    from isocenter.runtime import Preprocessing
    from isocenter.runtime.inference import Inference
    from isocenter.tasks import Task
    from isocenter.transforms.augment import Augmentation

Count = Annotated[int, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]
BelowOne = Annotated[float, Ge(0), Lt(1)]
Fraction = Annotated[float, Gt(0), Lt(1)]
Positive = Annotated[float, Gt(0), Lt(math.inf)]
NotNegative = Annotated[float, Ge(0), Lt(math.inf)]
# What every generator of random numbers takes.
Seed = Annotated[int, Ge(0), Lt(2**63)]
# The fewest samples of a batch over which a network normalises. The volume of a hippocampus read off its mask, 120
# steps: of 4 volumes R2 .05, of 8 .66 (bench/batch_statistics.py, seed 1).
LEAST_BATCH = 8
# Treatments of groups by how often their cases are drawn.
DRAWN_BY_GROUPS = ("resample", "balanced_batches")
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
    sampling:      how often cases are drawn: as they come, or so that classes come alike or by the roots of their sizes
    compute:       how a step is computed; None until a probe has found what is fastest on the machine
    modality_dropout: how often each image of a case is left out, never all of them
    fairness:      how groups of people are treated alike: by weights of cases, by how cases are drawn, by the loss of
                   the group that is worst off, by features that tell no group, or by a last layer fitted anew
    protected:     these groups, as "sex" or "age:60"; the network gets no covariate by it
    memory:        GiB that training is predicted to take at its peak, of the device that computes
    """

    minutes: Annotated[Positive | None, Sentence("Training has {value} minutes", "No time is set")]
    steps: Annotated[
        Count | None, Sentence("There are {value} steps", "The number of steps is still open", always=True)
    ]
    batch: Annotated[Count, Sentence("The batch size is {value}")]
    patch: Annotated[tuple[Count, ...], Sentence("The patch is {size} voxels")]
    learning_rate: Annotated[Positive, Sentence("The highest learning rate is {value}")]
    weight_decay: Annotated[NotNegative, Sentence("Weight decay is {value}", "There is no weight decay")]
    warmup: Annotated[Share, Sentence("The learning rate rises over {percent} of the steps", "There is no warm-up")]
    ema: Annotated[
        BelowOne, Sentence("Weights are averaged over about {percent} of the steps", "Weights are not averaged")
    ]
    clip: Annotated[float, Gt(0), Sentence("Gradients are clipped at a norm of {value}")]
    precision: Annotated[Literal["bf16", "float32"], Sentence("Arithmetic is in {value}")]
    validations: Annotated[Count, Sentence("The model is validated {value} times")]
    foreground: Annotated[
        Share, Sentence("{percent} of the patches are centred on a structure", "Patches are drawn anywhere")
    ]
    selection: Annotated[str, Sentence("The checkpoint is selected by {value}")]
    seed: Annotated[Seed, Sentence("The seed is {value}", "The seed is 0", zero_counts=True)]
    deterministic: Annotated[
        bool, Sentence("TrainingSettings is deterministic", "TrainingSettings is not bit for bit repeatable")
    ]
    device: Annotated[str, StringConstraints(pattern=r"^(cpu|mps|cuda:\d+)$"), Sentence("The device is {value}")]
    threads: Annotated[Count, Sentence("The number of threads is {value}")]
    optimiser: Annotated[Literal["adamw", "sgd"], Sentence("The optimiser is {value}")] = "adamw"
    schedule: Annotated[Literal["cosine", "poly"], Sentence("The learning rate falls by the schedule {value}")] = (
        "cosine"
    )
    early_stop: Annotated[
        Count | None,
        Sentence("Training ends after {value} validations without improvement", "TrainingSettings never ends early"),
    ] = None
    epochs: Annotated[
        Positive | None,
        Sentence(
            "Training ends after {value} epochs, even if minutes are left",
            "There are as many epochs as the minutes allow",
        ),
    ] = None
    networks: Annotated[
        Count | None, Sentence("The number of networks is {value}", "There are as many networks as the minutes allow")
    ] = 1
    sampling: Annotated[
        Literal["natural", "balanced", "oversampled", "undersampled", "square_root", "by_loss"],
        Sentence("The sampling of cases is {value}"),
    ] = "natural"
    memory: Annotated[
        NotNegative, Sentence("The predicted peak of memory is {value} GiB", "The peak of memory is not predicted")
    ] = 0.0
    compute: Annotated[
        Ways | None, Sentence("Steps are computed {value}", "How steps are computed is still open", always=True)
    ] = None
    modality_dropout: Annotated[
        BelowOne, Sentence("Each image of a case is left out in {percent} of the draws", "No image is left out")
    ] = 0.0
    fairness: Annotated[Treatment, Sentence("Differences between groups of people are reduced by {value}")] = "none"
    protected: Annotated[str | None, Sentence("These groups are {value}", "No groups of people are named for it")] = (
        None
    )


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

    name: Annotated[str, Sentence("The network is {value}")]
    size: Annotated[dict[str, Any], Sentence("Its size is {value}")]
    pretrained: Annotated[str | None, Sentence("It starts from the weights {value}", "It starts from new weights")] = (
        None
    )
    dropout: Annotated[
        BelowOne,
        Sentence("Dropout leaves out {percent} in training", "There is no dropout but what its size states"),
    ] = 0.0
    context: Annotated[
        dict[str, Any] | list[str] | str | None, Sentence("With each image it gets {value}", "It gets images only")
    ] = None
    context_fusion: Annotated[
        Literal["concatenate", "film", "attention", "tokens"] | None,
        Sentence("They enter by {value}", "No covariates enter"),
    ] = None
    narrow: Annotated[
        Count | None, Sentence("They are first reduced to {value} features", "They enter as they are")
    ] = None
    sparsity: Annotated[
        NotNegative,
        Sentence(
            "The loss adds {value} times the length of their weights", "The loss ignores the length of their weights"
        ),
    ] = 0.0
    inflation: Annotated[
        Literal["mean", "centre"],
        Sentence(
            "Weights for images with one axis less are inflated by the {value}", only_with=("network.pretrained",)
        ),
    ] = "mean"


@dataclass(frozen=True)
class SplitSettings:
    """Who trains and who tests.

    method: how the cases were parted
    folds:  in how many parts each of which is the test of one model, 0 for none
    folds_by: the column of which each fold leaves out whole values, as the sites; None where patients are dealt
    seed:   by which they were drawn; None by training.seed
    inner_folds: networks beside the main one, each trained without a part of the training cases; 0 for none
    inner_share: of the minutes for training, what they have together
    calibration: cases that train nothing and choose nothing, from which guarantees come
    """

    method: Annotated[Literal["own", "drawn", "folds"], Sentence("The split is {value}")]
    folds: Annotated[int, Ge(0), Sentence("There are {value} folds", "There are no folds")] = 0
    folds_by: Annotated[
        str | None,
        Sentence("Each fold leaves out whole values of {value}", "Folds deal patients", only_with=("split.folds",)),
    ] = None
    seed: Annotated[
        Seed | None,
        Sentence("The parts are drawn by seed {value}", "The parts have no seed of their own", zero_counts=True),
    ] = None
    inner_folds: Annotated[
        int, Ge(0), Sentence("There are {value} inner folds", "There are no inner folds", always=True)
    ] = 0
    inner_share: Annotated[
        Fraction, Sentence("Inner folds get {percent} of the minutes", only_with=("split.inner_folds",))
    ] = 0.5
    calibration: Annotated[
        int,
        Ge(0),
        Sentence(
            "{value} cases only calibrate, so that guarantees come from them",
            "No cases are kept only for calibration",
            always=True,
        ),
    ] = 0


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the search for better decisions before the training.

    minutes: of the run's minutes, for all its trials; None where `trials` decides, or where nothing is searched
    trials:  how many there are, the plan's own among them; None until the minutes are over
    steps:   of each; None where each has an equal part of the minutes
    configurations: "auto" compares networks of slices, of volumes, their mean and, where the plan has one, a cascade,
             by the folds; one of these names is what an earlier comparison has chosen. None where nothing is compared
    """

    minutes: Annotated[
        Positive | None,
        Sentence("Other decisions are tried for {value} minutes", "No minutes are set aside for a search"),
    ] = None
    trials: Annotated[
        Annotated[int, Ge(2)] | None, Sentence("There are {value} trials", "The number of trials is open")
    ] = None
    steps: Annotated[Count | None, Sentence("Each trial has {value} steps", "The length of a trial is open")] = None
    configurations: Annotated[
        Literal["auto", "2d", "3d", "cascade", "ensemble"] | None,
        Sentence("The configuration is {value}", "No configurations are compared"),
    ] = None

    @property
    def is_on(self) -> bool:
        """Whether anything is searched."""
        return self.minutes is not None or self.trials is not None


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of the evaluation.

    primary:    the metric that the model is judged by
    registered: hash of what was promised before training
    image_only: whether the same network is trained as long without the covariates too, where it is told any
    groups:     whose figures are compared, "sex,age:40:60,site,sex*age"; None or "none": nobody's
    margin:     by which the model may be worse than another in the primary metric and still be none the worse, in the
                metric's unit; None: nothing of the kind is claimed
    """

    primary: Annotated[str, Sentence("The primary metric is {value}")]
    registered: Annotated[
        str | None,
        Sentence("The evaluation is registered under the hash {value}", "The evaluation is not registered yet"),
    ] = None
    image_only: Annotated[
        bool,
        Sentence(
            "The same network is also trained without the covariates, for as long",
            "No second network is trained without covariates",
        ),
    ] = False
    groups: Annotated[str | None, Sentence("Groups are compared by {value}", "No groups are compared")] = None
    margin: Annotated[
        Positive | None,
        Sentence(
            "A model that is worse than another by less than {value} in the primary metric counts as not inferior",
            "No margin of non-inferiority is stated",
        ),
    ] = None


@dataclass(frozen=True)
class GuardSettings:
    """Settings of the gate, which refuses images.

    gate:  whether it refuses those unlike the ones that trained it
    level: share of good images that it may refuse wrongly
    error: share of answers that may be wrong: it gives none where it is least sure; None: it answers however unsure
    delta: how likely more of them may be wrong
    """

    gate: Annotated[
        bool, Sentence("Images unlike those of training are refused", "No image is refused", always=True)
    ] = True
    level: Annotated[
        Fraction, Sentence("{percent} of good images may be refused wrongly", only_with=("guard.gate",))
    ] = 0.01
    error: Annotated[
        Fraction | None,
        Sentence("At most {percent} of the answers may be wrong", "The model answers however unsure it is"),
    ] = None
    delta: Annotated[
        Fraction, Sentence("This limit may be missed with a probability of {value}", only_with=("guard.error",))
    ] = 0.1


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

    mode: Annotated[
        Literal["full", "head_first", "linear_probe", "lora", "prototypes"],
        Sentence("Training from other weights is {value}"),
    ] = "full"
    frozen: Annotated[
        Share,
        Sentence(
            "{percent} of the encoder's levels, from the image on, stand still", "No level of the encoder stands still"
        ),
    ] = 0.0
    layer_decay: Annotated[
        float, Gt(0), Le(1), Sentence("Each level of the encoder learns at {value} times the rate of the next")
    ] = 1.0
    head_share: Annotated[
        Share, Sentence("Only the head learns in the first {percent} of the steps (with head_first)")
    ] = 0.25
    rank: Annotated[Count, Sentence("Differences from the source's weights have rank {value} (with lora)")] = 8
    minimum: Annotated[Share, Sentence("The source must have {percent} of the encoder's tensors")] = 0.5


@dataclass(frozen=True)
class PrivacySettings:
    """Settings of a training whose weights tell little of any single person (differential privacy).

    epsilon: how much they may tell; None for a training without such a bound
    delta:   how likely they may tell more
    clip:    length to which the gradient of each sample is cut
    unit:    who is protected: a patient with all images, or a case
    accountant: how the sum of all steps is reckoned
    """

    epsilon: Annotated[
        Positive | None, Sentence("The privacy budget is epsilon {value}", "Training has no privacy budget")
    ] = None
    delta: Annotated[
        Fraction | None, Sentence("It may be missed with a probability of {value}", only_with=("privacy.epsilon",))
    ] = None
    clip: Annotated[
        Positive, Sentence("The gradient of each sample is cut to {value}", only_with=("privacy.epsilon",))
    ] = 1.0
    unit: Annotated[
        Literal["patient", "case"], Sentence("It protects each {value}", only_with=("privacy.epsilon",))
    ] = "patient"
    accountant: Annotated[
        Literal["rdp", "prv"], Sentence("Steps are reckoned up by {value}", only_with=("privacy.epsilon",))
    ] = "rdp"


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

    terms: Annotated[tuple[str, ...], MinLen(1), Sentence("Training lowers the sum of {value}")] = (SUPERVISED,)
    unlabelled: Annotated[
        tuple[str, ...], Sentence("Unlabelled images are those in {value}", "No unlabelled images are used")
    ] = ()
    target: Annotated[
        tuple[str, ...], Sentence("Unlabelled images of the target are those in {value}", "No target was given")
    ] = ()
    domain: Annotated[str | None, Sentence("Column {value} states the place of each case")] = None
    unlabelled_hash: Annotated[str | None, Sentence("Their contents have the hash {value}")] = None
    unlabelled_batch: Annotated[
        Count | None,
        Sentence("A step takes {value} unlabelled images", only_with=("objectives.unlabelled", "objectives.target")),
    ] = None

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

    rounds: Annotated[Count, Sentence("Weights become common ones in {value} rounds")] = 20
    method: Annotated[str, Sentence("Common weights are made by {value}")] = "fedavg"
    optimiser: Annotated[
        Literal["keep", "reset"], Sentence("With each round a site's optimiser does this: {value}")
    ] = "keep"
    server_rate: Annotated[Positive, Sentence("The server's own rate is {value} (with fedopt)")] = 0.01
    server: Annotated[Literal["adam", "yogi"], Sentence("The server's own optimiser is {value} (with fedopt)")] = "adam"
    trim: Annotated[
        float, Ge(0), Lt(0.5), Sentence("{percent} of the sites are left out at either end (with trimmed_mean)")
    ] = 0.2
    private_layers: Annotated[
        tuple[str, ...], Sentence("Weights that stay at each site are {value}", "All weights become common ones")
    ] = ()
    min_count: Annotated[Count, Sentence("No fact leaves a site that is of fewer than {value} cases")] = 10
    norm_bound: Annotated[
        Positive, Sentence("An update is refused that is longer than {value} times the middle one")
    ] = 100.0
    select: Annotated[Literal["last", "validation"], Sentence("The round that is kept is chosen by: {value}")] = "last"


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
    synthesis: PaintingRanges = field(default_factory=PaintingRanges)
    federation: FederationSettings = FederationSettings()

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments of `networks.build` but the heads, for which the task asks; plain, as a model records them."""
        scales = {}
        if factory.family_of(self.network.name).pools:  # whose shares of colours are those before normalisation
            scales = {"scales": [[one.mean, one.deviation] for one in self.preprocessing.normalisation]}
        return {
            "name": self.network.name,
            "channels": self.preprocessing.inputs,
            "spatial_dims": self.preprocessing.ndim,
            "size": {**scales, **self.network.size},
            **({"dropout": self.network.dropout} if self.network.dropout else {}),
            **fusion_arguments(vars(self.network)),
            **({"marked": len(self.task.labels)} if self.preprocessing.cascade is not None else {}),
        }


def fusion_arguments(network: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `networks.build` that concern covariates, from a plan's section "network"."""
    if not network.get("context"):
        return {}
    method, sparsity = network.get("context_fusion"), network.get("sparsity", 0.0)
    fusion = {"method": method, "narrow": network.get("narrow") or 0, "sparsity": sparsity}
    if (courses := Context.from_settings(network["context"]).courses)[0]:
        fusion["courses"] = list(courses)
    return {"context": network["context"], **({"fusion": fusion} if method else {})}
