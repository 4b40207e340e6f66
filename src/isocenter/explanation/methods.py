"""The methods that make a map of what an answer rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isocenter.errors import UsageError
from isocenter.explanation.network_maps import (
    attention,
    attention_by_gradients,
    cam,
    gradcam,
    gradcam_plus,
    integrated_gradients,
    scorecam,
    smoothgrad,
)
from isocenter.explanation.perturbed_maps import occlusion, rise
from isocenter.explanation.subject import Subject, UnfitError

if TYPE_CHECKING:
    from torch import Tensor

AUTO, ALL = "auto", "all"
NO_GRADIENT = "needed for gradient computation"
# What "auto" takes where nothing was tested.
USUAL = ("gradcam", "integrated_gradients", "occlusion")


@dataclass(frozen=True)
class Method:
    """A method of explanation.

    of:      (subject) to (1, channels, *window), or one channel for all images; more is more evidence for the target
    module:  whether it needs the network itself: a backend without torch does not have it
    timed:   whether `of` takes `seconds`, for which it draws as much as it can
    words:   what the map shows
    """

    name: str
    of: Callable[..., Tensor]
    words: str
    module: bool = True
    timed: bool = False

    def __call__(self, subject: Subject, seconds: float | None = None) -> Tensor:
        try:
            values = self.of(subject, seconds=seconds) if self.timed else self.of(subject)
        except RuntimeError as error:  # torch's, of a network that paints over its own numbers
            if NO_GRADIENT not in str(error):
                raise
            raise UnfitError(self.name, "its network overwrites values that gradients need") from error
        return values.float()


METHODS: Mapping[str, Method] = {
    one.name: one
    for one in (
        Method("cam", cam, "the deepest maps, weighted by the last layer"),
        Method("gradcam", gradcam, "the deepest maps, weighted by the gradient of the target"),
        Method("gradcam++", gradcam_plus, "the deepest maps, weighted by positive gradients of the target"),
        Method("scorecam", scorecam, "the deepest maps, each weighted by the score of the image under it"),
        Method("integrated_gradients", integrated_gradients, "the contribution of each place to the score"),
        Method("smoothgrad", smoothgrad, "how much the score changes with each place"),
        Method("occlusion", occlusion, "the loss of score where the image is blurred", module=False, timed=True),
        Method("rise", rise, "the score of random masks that show each place", module=False, timed=True),
        Method("attention", attention, "attention of the class token to each patch, through all layers"),
        Method("attention_gradients", attention_by_gradients, "attention, weighted by the gradient of the target"),
    )
}


def named_methods(asked: str | Sequence[str]) -> list[Method]:
    """Methods by name; `AUTO` and `ALL` stand for all of them. UsageError for an unknown one."""
    names = [name.strip() for name in asked.split(",")] if isinstance(asked, str) else list(asked)
    if names in ([AUTO], [ALL]):
        return list(METHODS.values())
    for name in names:
        if name not in METHODS:
            choice = ", ".join([AUTO, ALL, *METHODS])
            raise UsageError(f"there is no method {name!r}", "--method", f"Choose one or more of {choice}")
    return [METHODS[name] for name in dict.fromkeys(names)]
