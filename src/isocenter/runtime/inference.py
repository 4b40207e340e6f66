"""The plan's section "inference": the windows in which a network sees an image, and how uncertainty is stated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt

from isocenter.runtime.preprocessing.protocol import as_lists, as_tuples
from isocenter.values import Sentence

# Methods by which a model states its uncertainty.
AUTO, NONE, MEMBERS, LAPLACE, TTA = "auto", "none", "members", "laplace", "tta"
METHODS = (AUTO, NONE, MEMBERS, LAPLACE, TTA)
Method = Literal["auto", "none", "members", "laplace", "tta"]
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
    draws:      weights that are drawn from a posterior
    """

    patch: Annotated[tuple[int, ...], Sentence("The window is {size} voxels")]
    overlap: Annotated[float, Ge(0), Lt(1), Sentence("Windows overlap by {percent}", "Windows do not overlap")] = 0.5
    batch: Annotated[int, Sentence("The number of windows in a batch is {value}")] = 1
    flips: Annotated[
        tuple[Axis, ...],
        Sentence("Predictions are averaged with those mirrored along axes {value}", "Nothing is mirrored"),
    ] = ()
    left_right: Annotated[
        Axis | None,
        Sentence(
            "Axis {value} runs from left to right", "Which axis runs from left to right is open", zero_counts=True
        ),
    ] = None
    uncertainty: Annotated[
        Method,
        Sentence(
            "Uncertainty is estimated by the method {value}", open="The method of uncertainty is chosen for each model"
        ),
    ] = "auto"
    draws: Annotated[
        int,
        Ge(2),
        Le(1000),
        Sentence("Weights of the last layer are drawn {value} times", only_with=("inference.uncertainty",)),
    ] = 16

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Inference:
        """Read a model's record."""
        return cls(**as_tuples(settings))

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values for YAML and JSON."""
        return as_lists(asdict(self))
