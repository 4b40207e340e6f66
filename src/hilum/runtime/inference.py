"""How a model predicts: the plan's section "inference", and the request of a person.

The section has the windows in which a network sees an image, and how uncertainty is stated. A request is what a person
asks of a prediction beside the image, as one value from the caller to the last stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le, Lt

from hilum.errors import UsageError
from hilum.runtime.preprocessing import protocol
from hilum.runtime.preprocessing.coarse_mask import Outside
from hilum.values import Prompts, Region, Setting, StatedSettings

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue

# Methods by which a model states its uncertainty.
AUTO, NONE, MEMBERS, LAPLACE, TTA = "auto", "none", "members", "laplace", "tta"
DROPOUT, VARIATIONAL = "dropout", "variational"
METHODS = (AUTO, NONE, MEMBERS, LAPLACE, VARIATIONAL, DROPOUT, TTA)
Method = Literal["auto", "none", "members", "laplace", "variational", "dropout", "tta"]
Axis = Annotated[int, Ge(0), Lt(3)]


@dataclass(frozen=True)
class Inference:
    """The windows in which the network sees an image, and how uncertainty is stated.

    patch:      voxels of a window, per axis
    overlap:    share of a window that the next window covers too
    batch:      windows that pass the network together
    flips:      axes of the network's grid along which the network also sees each window mirrored; empty for none
    left_right: axis of the network's grid between left and right; None where unknown
    uncertainty: method by which the model states its uncertainty; "auto" takes the members of a model that
                has several, else, where the result is not dense, the posterior of the last layer
    draws:      weights that are sampled from a posterior, or passes with sampled dropout
    skip:       windows that lie wholly in this are background, without a look; None where the network sees all
    views:      fixed views that the network sees beside each window and its mirror images
    turn, gamma: how far these are turned (degrees), and how far their exponent of greys reaches from 1
    """

    patch: tuple[int, ...]
    overlap: Annotated[float, Ge(0), Lt(1)] = 0.5
    batch: int = 1
    flips: tuple[Axis, ...] = ()
    left_right: Annotated[Axis | None, Setting(zero_counts=True)] = None
    uncertainty: Method = "auto"
    draws: Annotated[int, Ge(2), Le(1000), Setting(only_with=("inference.uncertainty",))] = 16
    skip: Outside | None = None
    views: Annotated[int, Ge(0), Le(16)] = 0
    turn: Annotated[float, Ge(0), Setting(only_with=("inference.views",))] = 0.0
    gamma: Annotated[float, Ge(0), Setting(only_with=("inference.views",))] = 0.0

    @classmethod
    def from_settings(cls, settings: StatedSettings) -> Inference:
        """Read a model's record."""
        return cls(**protocol.as_tuples(settings))

    @property
    def settings(self) -> dict[str, PlainValue]:
        """Plain values for YAML and JSON."""
        return protocol.as_lists(asdict(self))


@dataclass(frozen=True)
class ModelRequest:
    """Request of a prediction.

    mirror:  whether the network also sees windows mirrored, and the results are averaged; None follows the plan, False
             leaves out its other views too
    region:  of the image's own grid, slices of voxels; everything outside stays background
    overlap: share of a window that the next window covers too; None follows the plan
    seconds: time limit for the windows: the overlap shrinks where it has to
    at_most: s that the windows may take: the image is refused once they are known to take longer
    maps:    whether the uncertainty of every voxel is kept
    allow_large: whether images are predicted that are out of all proportion to those that trained the model
    refined: whether what only improves a result is done too, as the optimisation of a pair after the network
    prompts: what a person points at, of each label once; one `Prompts` alone becomes a tuple
    samples_prompts: whether prompts are sampled from a case's references where nobody points, to score such models
    Raises UsageError for an overlap that is no share, and for two prompts of one label.
    """

    mirror: bool | None = None
    region: Region | None = None
    overlap: float | None = None
    seconds: float | None = None
    at_most: float | None = None
    maps: bool = False
    allow_large: bool = False
    refined: bool = True
    prompts: Prompts | Sequence[Prompts] = ()
    samples_prompts: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", self.all_prompts)
        twice = [label for label, count in Counter(one.label for one in self.all_prompts).items() if count > 1]
        if twice:
            problem = f"{twice[0]!r} has two prompts"
            raise UsageError(problem, "prompts", "Put its boxes and points into one, or give each its own label")
        if self.overlap is not None and not 0 <= self.overlap < 1:
            problem = f"an overlap of {self.overlap:g}"
            raise UsageError(problem, "--overlap", "Give a share from 0 to below 1, such as 0.25")

    @property
    def all_prompts(self) -> tuple[Prompts, ...]:
        """The prompts, one a label."""
        return (self.prompts,) if isinstance(self.prompts, Prompts) else tuple(self.prompts)


AS_PLANNED = ModelRequest()
