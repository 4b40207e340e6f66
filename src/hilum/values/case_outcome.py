"""How a case ended: one of four words, and why it has no answer, for every table, page and message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hilum import errors
from hilum.errors import DatasetError, FormatError, GeometryError, HilumError, IntegrityError

# The model answers, if only that it finds nothing; it abstains, as its gate or a hold on it says; the input is not one
# for it; or the work failed.
OutcomeName = Literal["answered", "abstained", "refused", "failed"]
ANSWERED: Final = "answered"
ABSTAINED: Final = "abstained"
REFUSED: Final = "refused"
FAILED: Final = "failed"
# Errors that an input is to blame for; all others are faults of the work.
REFUSALS = (DatasetError, FormatError, GeometryError, IntegrityError)
MOST_REASONS = 3  # of one outcome in a sentence


def error_outcome(error: HilumError) -> OutcomeName:
    """The outcome of a case that has no answer because of an error."""
    return REFUSED if isinstance(error, REFUSALS) else FAILED


@dataclass(frozen=True)
class CaseOutcome:
    """The outcome of one case. reason: why there is no answer; empty where there is one"""

    case: str
    outcome: OutcomeName
    reason: str = ""


def outcome_sentence(outcomes: Sequence[CaseOutcome]) -> str:
    """How many cases had which outcome, and why: "3 images: 1 answered, 2 abstained: out of proportion"."""
    words = [f"{sum(one.outcome == ANSWERED for one in outcomes)} answered"]
    for outcome in (ABSTAINED, REFUSED, FAILED):
        if reasons := Counter(one.reason for one in outcomes if one.outcome == outcome):
            stated = [f"{one} ({n})" if len(reasons) > 1 else one for one, n in reasons.most_common(MOST_REASONS)]
            others = len(reasons) - MOST_REASONS
            stated += [errors.count_phrase(others, "other reason")] if others > 0 else []
            words.append(f"{reasons.total()} {outcome}: {'; '.join(stated)}")
    return f"{errors.count_phrase(len(outcomes), 'image')}: {', '.join(words)}"
