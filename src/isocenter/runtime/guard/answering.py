"""The answers that are sure enough to be given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isocenter.errors import counted


@dataclass(frozen=True)
class Answering:
    """The answers that a model gives: those that are sure enough.

    error, delta: at most this share of them is wrong, with a confidence of 1 - delta
    least:        how sure they have to be, 0 to 1; infinite where nothing is known to be sure enough
    cases:        from how many that is known
    """

    error: float
    delta: float
    least: float
    cases: int

    def refusal(self, sure: float) -> str | None:
        """Why an answer that is so sure is not given; None where it is."""
        if sure >= self.least:
            return None
        if math.isinf(self.least):
            return f"{counted(self.cases, 'case')} do not show when at most {100 * self.error:g} % of answers are wrong"
        enough = f"at most {100 * self.error:g} % of answers with {self.least:.3f} or more are wrong"
        return f"the answer is not sure enough ({sure:.3f}; {enough})"

    def words(self, *, exact: bool) -> str:
        """On what the promise rests; exact: whether the cases chose nothing."""
        whom = counted(self.cases, "case") + (" that chose nothing" if exact else " that decided other things too")
        if math.isinf(self.least):
            return f"{whom} are too few to show when so few answers are wrong: the model gives no answer at all"
        how = "" if exact else "; approximate, no guarantee"
        return f"by {whom}, answers with a sureness of {self.least:.3f} or more are right so often{how}"

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values; a sureness that nothing reaches is None."""
        return {**asdict(self), "least": None if math.isinf(self.least) else self.least}

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Answering:
        """From what `settings` gave."""
        least = settings["least"]
        numbers = float(settings["error"]), float(settings["delta"]), math.inf if least is None else float(least)
        return cls(*numbers, int(settings["cases"]))


def strictest(each: Sequence[Answering | None]) -> Answering | None:
    """What the mean of several models answers: what is sure enough for every one of them; None where all answer all."""
    return max((one for one in each if one is not None), key=lambda answering: answering.least, default=None)
