"""What tells the classes apart without showing the disease."""

from __future__ import annotations

from dataclasses import dataclass

from isocenter.values.estimate import Estimate


@dataclass(frozen=True)
class Shortcut:
    """How well one thing beside the disease predicts the class.

    name:      what it is: "image size", "aspect ratio", "spacing", "border pixels", "corner pixels", "column NAME"
    auc:       cross-validated by patient, each class against the rest; 0.5 is chance
    p:         that chance does as well, adjusted after Holm over all that was tried
    removable: whether preprocessing can take it away
    standing:  whether the classes are told apart by it in what the network sees
    setting:   of the plan's preprocessing that takes it away: "aspect" or "border"
    """

    name: str
    auc: Estimate
    p: float
    removable: bool
    standing: bool
    setting: str = ""
