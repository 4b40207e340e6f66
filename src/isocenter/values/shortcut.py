"""Shortcuts: features that predict the outcome without showing the disease."""

from __future__ import annotations

from dataclasses import dataclass

from isocenter.values.estimate import Estimate


@dataclass(frozen=True)
class Shortcut:
    """A feature other than the disease, and how well it predicts what a model is to predict.

    name:      what it is: "image size", "aspect ratio", "spacing", "border pixels", "corner pixels", "small mark",
               "column NAME"
    auc:       cross-validated by patient, each class against the rest; of values and times the share of pairs in the
               right order. 0.5 is chance
    p:         that chance does as well, adjusted after Holm over all that was tried
    removable: whether preprocessing can remove it
    standing:  whether it still predicts it in what the network sees
    setting:   of the plan's preprocessing that removes it: "aspect" or "border"
    what:      the outcome, in words that end before "by ... alone"
    figure:    the name of `auc`: "AUC", or "c" of values and times
    where:     of a mark, where it lies; else empty
    kind:      of reference that states the outcome
    """

    name: str
    auc: Estimate
    p: float
    removable: bool
    standing: bool
    setting: str = ""
    what: str = "the classes can be told apart"
    figure: str = "AUC"
    where: str = ""
    kind: str = ""

    @property
    def p_text(self) -> str:
        """ "= 0.021", or "< 0.001" where more digits would claim too much."""
        return "< 0.001" if self.p < 0.001 else f"= {self.p:.2g}"

    @property
    def source(self) -> str:
        """Its name, of a mark with its place."""
        return f"{self.name} ({self.where})" if self.where else self.name

    @property
    def sentence(self) -> str:
        """A sentence that says what the feature alone predicts, without the figure."""
        return f"{self.what} by {self.source} alone"
