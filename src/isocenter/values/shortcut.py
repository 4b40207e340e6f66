"""What tells the classes apart, or another outcome, without showing the disease."""

from __future__ import annotations

from dataclasses import dataclass

from isocenter.values.estimate import Estimate


@dataclass(frozen=True)
class Shortcut:
    """How well one thing beside the disease predicts what images are to tell.

    name:      what it is: "image size", "aspect ratio", "spacing", "border pixels", "corner pixels", "column NAME"
    auc:       cross-validated by patient, each class against the rest; of values and times the share of pairs in the
               right order. 0.5 is chance
    p:         that chance does as well, adjusted after Holm over all that was tried
    removable: whether preprocessing can take it away
    standing:  whether that is told by it in what the network sees
    setting:   of the plan's preprocessing that takes it away: "aspect" or "border"
    what:      what is told, in words that end before "by ... alone"
    figure:    what `auc` is called: "AUC", or "c" of values and times
    """

    name: str
    auc: Estimate
    p: float
    removable: bool
    standing: bool
    setting: str = ""
    what: str = "the classes can be told apart"
    figure: str = "AUC"
