"""A plan's sections as typed values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import StringConstraints

from isocenter.objectives import SUPERVISED
from isocenter.runtime import Context

if TYPE_CHECKING:
    from isocenter.objectives import Objective
    from isocenter.runtime import Inference, Preprocessing
    from isocenter.tasks import Task
    from isocenter.transforms import Augmentation

Count = Annotated[int, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]
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
class Training:
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

    minutes: Annotated[float, Gt(0), Lt(math.inf)] | None
    steps: Count | None
    batch: Count
    patch: tuple[Count, ...]
    learning_rate: Annotated[float, Gt(0), Lt(math.inf)]
    weight_decay: Annotated[float, Ge(0), Lt(math.inf)]
    warmup: Share
    ema: Annotated[float, Ge(0), Lt(1)]
    clip: Annotated[float, Gt(0)]
    precision: Literal["bf16", "float32"]
    validations: Count
    foreground: Share
    selection: str
    seed: Seed
    deterministic: bool
    device: Annotated[str, StringConstraints(pattern=r"^(cpu|mps|cuda:\d+)$")]
    threads: Count
    optimiser: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "poly"] = "cosine"
    early_stop: Count | None = None
    epochs: Annotated[float, Gt(0), Lt(math.inf)] | None = None
    networks: Count | None = 1
    sampling: Literal["natural", "balanced", "oversampled", "undersampled", "square_root", "by_loss"] = "natural"
    memory: Annotated[float, Ge(0), Lt(math.inf)] = 0.0
    compute: Ways | None = None
    modality_dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    fairness: Treatment = "none"
    protected: str | None = None


@dataclass(frozen=True)
class Network:
    """Settings of the network.

    name:       of the family
    size:       the family's own settings
    pretrained: weights to begin from: None, "auto" for the family's published ones, or a file
    inflation:  how kernels of weights for images of one axis less get that axis: "mean" repeats them along it and
                divides, "centre" has zeros around them
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
    context: dict[str, Any] | list[str] | str | None = None
    context_fusion: Literal["concatenate", "film", "attention", "tokens"] | None = None
    narrow: Count | None = None
    sparsity: Annotated[float, Ge(0), Lt(math.inf)] = 0.0
    inflation: Literal["mean", "centre"] = "mean"


@dataclass(frozen=True)
class Splitting:
    """Who trains and who tests.

    method: how the cases were parted
    folds:  in how many parts each of which is the test of one model, 0 for none
    seed:   by which they were drawn; None by training.seed
    inner_folds: networks beside the main one, each trained without a part of the training cases; 0 for none
    inner_share: of the minutes for training, what they have together
    calibration: cases that train nothing and choose nothing, from which guarantees come
    """

    method: Literal["own", "drawn", "folds"]
    folds: Annotated[int, Ge(0)] = 0
    seed: Seed | None = None
    inner_folds: Annotated[int, Ge(0)] = 0
    inner_share: Annotated[float, Gt(0), Lt(1)] = 0.5
    calibration: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True)
class Search:
    """Settings of the search for better decisions before the training.

    minutes: of the run's minutes, for all its trials; None where `trials` decides, or where nothing is searched
    trials:  how many there are, the plan's own among them; None until the minutes are over
    steps:   of each; None where each has an equal part of the minutes
    configurations: "auto" compares networks of slices, of volumes, their mean and, where the plan has one, a cascade,
             by the folds; one of these names is what an earlier comparison has chosen. None where nothing is compared
    """

    minutes: Annotated[float, Gt(0), Lt(math.inf)] | None = None
    trials: Annotated[int, Ge(2)] | None = None
    steps: Count | None = None
    configurations: Literal["auto", "2d", "3d", "cascade", "ensemble"] | None = None

    @property
    def is_on(self) -> bool:
        """Whether anything is searched."""
        return self.minutes is not None or self.trials is not None


@dataclass(frozen=True)
class Evaluation:
    """Settings of the evaluation.

    primary:    the metric that the model is judged by
    registered: hash of what was promised before training
    image_only: whether the same network is trained as long without the covariates too, where it is told any
    groups:     whose figures are compared, "sex,age:40:60,site,sex*age"; None or "none": nobody's
    margin:     by which the model may be worse than another in the primary metric and still be none the worse, in the
                metric's unit; None: nothing of the kind is claimed
    """

    primary: str
    registered: str | None = None
    image_only: bool = False
    groups: str | None = None
    margin: Annotated[float, Gt(0), Lt(math.inf)] | None = None


@dataclass(frozen=True)
class Guarding:
    """Settings of the gate, which refuses images.

    gate:  whether it refuses those unlike the ones that trained it
    level: share of good images that it may refuse wrongly
    error: share of answers that may be wrong: it gives none where it is least sure; None: it answers however unsure
    delta: how likely more of them may be wrong
    """

    gate: bool = True
    level: Annotated[float, Gt(0), Lt(1)] = 0.01
    error: Annotated[float, Gt(0), Lt(1)] | None = None
    delta: Annotated[float, Gt(0), Lt(1)] = 0.1


@dataclass(frozen=True)
class Transfer:
    """Settings of the start from other weights.

    mode:        what moves: all weights; all, after only the head has moved for a while; only the head and what the
                 source lacks; or a difference of low rank from each matrix and kernel of the source
    frozen:      share of the encoder's levels, from the image on, that stand still with their statistics
    layer_decay: factor of the learning rate from each level of the encoder to the next towards the image
    head_share:  share of the steps in which only the head moves, for head_first
    rank:        of the differences, for lora
    minimum:     share of the encoder's tensors that the source must have
    """

    mode: Literal["full", "head_first", "linear_probe", "lora"] = "full"
    frozen: Share = 0.0
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    head_share: Share = 0.25
    rank: Count = 8
    minimum: Share = 0.5


@dataclass(frozen=True)
class Objectives:
    """The terms that training lowers; each has a section of its name.

    terms:      names of objectives
    unlabelled: paths of data sets of which nothing but the images is seen
    unlabelled_hash: of the contents of their images; None until they are read
    unlabelled_batch: unlabelled images a step; None for as many as labelled ones
    """

    terms: Annotated[tuple[str, ...], MinLen(1)] = (SUPERVISED,)
    unlabelled: tuple[str, ...] = ()
    unlabelled_hash: str | None = None
    unlabelled_batch: Count | None = None


@dataclass(frozen=True)
class Settings:
    """A whole plan, typed.

    terms: {name: objective}
    """

    task: Task
    preprocessing: Preprocessing
    network: Network
    training: Training
    augmentation: Augmentation
    inference: Inference
    split: Splitting
    evaluation: Evaluation
    search: Search
    guard: Guarding
    objectives: Objectives
    terms: Mapping[str, Objective]
    transfer: Transfer = Transfer()

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments of `networks.build` but the heads, for which the task asks; plain, as a model records them."""
        return {
            "name": self.network.name,
            "channels": self.preprocessing.inputs,
            "spatial_dims": self.preprocessing.ndim,
            "size": self.network.size,
            **fusion_of(vars(self.network)),
            **({"marked": len(self.task.labels)} if self.preprocessing.cascade is not None else {}),
        }


def fusion_of(network: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `networks.build` that concern covariates, from a plan's section "network"."""
    if not network.get("context"):
        return {}
    method, sparsity = network.get("context_fusion"), network.get("sparsity", 0.0)
    fusion = {"method": method, "narrow": network.get("narrow") or 0, "sparsity": sparsity}
    if (courses := Context.of(network["context"]).courses)[0]:
        fusion["courses"] = list(courses)
    return {"context": network["context"], **({"fusion": fusion} if method else {})}
