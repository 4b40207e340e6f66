"""On what a model refuses images: the one statement that pages, records and terminals show."""

from __future__ import annotations

from dataclasses import dataclass

FITTED, CUT, LIMITS, NONE = "fitted", "cut", "limits", "none"
WORDS = {
    FITTED: "gate fitted",
    CUT: "gate cut short",
    LIMITS: "the gate has limits of the header alone",
    NONE: "no gate: every image gets an answer",
}
OFF, UNKNOWN_TRAINING = "it is switched off", "no case that trained it is known"
UNFINISHED_TRAINING = "its training is not finished"


@dataclass(frozen=True)
class GateState:
    """On what a model refuses images.

    kind:    "fitted": distances of images from training cases decide; "cut": so do they, and the minutes were over
             before it had looked at all cases; "limits": what the headers of a few training cases state; "none": every
             image gets an answer
    because: the cases that it rests on, or why there is no gate
    """

    kind: str
    because: str

    @property
    def is_fitted(self) -> bool:
        """Whether distances of all cases that were meant for it decide."""
        return self.kind == FITTED

    @property
    def unfitted_kind(self) -> str:
        """What stands beside an answer: empty of a gate that is fitted."""
        return "" if self.is_fitted else self.kind

    def __str__(self) -> str:
        return f"{WORDS[self.kind]} ({self.because})"
