"""The options by which `compare` tests models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isocenter.errors import UsageError
from isocenter.evaluation import OF_RANKS, refuse_impossible_margin

TESTS = ("auto", "delong", "permutation", "bootstrap", "mcnemar", "wilcoxon")
CORRECTIONS = ("holm", "bh", "none")


@dataclass(frozen=True)
class ComparisonOptions:
    """The options of `compare`, checked. Raises UsageError.

    test:       of TESTS; "auto" takes the one that fits each metric, as the kind of problem says
    margin:     by which a model may be worse in the primary metric and count as none the worse; None: as registered
    correction: of p-values for each other, of CORRECTIONS
    readers:    a table of people's scores of the same cases
    groups:     columns whose groups are compared by themselves, as in `evaluate`
    """

    test: str = "auto"
    margin: float | None = None
    correction: str = "holm"
    readers: Path | None = None
    groups: str | None = None

    def __post_init__(self) -> None:
        if self.test not in TESTS:
            raise UsageError(f"there is no test {self.test!r}", "--test", f"Choose {', '.join(TESTS)}")
        if self.correction not in CORRECTIONS:
            raise UsageError(f"there is no {self.correction!r}", "--correction", f"Choose {', '.join(CORRECTIONS)}")
        if self.margin is not None:
            refuse_impossible_margin(self.margin, "--margin")
        if self.margin is not None and self.test == "wilcoxon":
            remedy = "Leave out --margin, or choose --test auto, permutation or bootstrap"
            raise UsageError(f"no margin can be tested: {OF_RANKS}", "--test wilcoxon", remedy)
