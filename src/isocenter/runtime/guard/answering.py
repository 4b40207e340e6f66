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
    enough:       where nothing is, from about how many it would be; 0 where more do not help, None where nobody knows
    """

    error: float
    delta: float
    least: float
    cases: int
    enough: int | None = None

    def refusal(self, sure: float) -> str | None:
        """Why an answer that is so sure is not given; None where it is."""
        if sure >= self.least:
            return None
        if math.isinf(self.least):
            few = f"{counted(self.cases, 'case')} do not show when at most {100 * self.error:g} % of answers are wrong"
            return few + self._prospect
        enough = f"at most {100 * self.error:g} % of answers with {self.least:.3f} or more are wrong"
        return f"the answer is not sure enough ({sure:.3f}; {enough})"

    def words(self, *, exact: bool) -> str:
        """A sentence on what the promise rests; exact: whether the cases chose nothing."""
        whom = counted(self.cases, "case") + (" that chose nothing" if exact else " that decided other things too")
        if math.isinf(self.least):
            few = f"{whom} are too few to show when so few answers are wrong: the model gives no answer at all"
            return few + self._prospect
        how = "" if exact else "; approximate, no guarantee"
        return f"by {whom}, answers with a sureness of {self.least:.3f} or more are right so often{how}"

    @property
    def _prospect(self) -> str:
        """Whether more cases would make such a model answer."""
        if self.enough is None:
            return ""
        if not self.enough:
            return "; even the surest answers are wrong more often, so that more such cases do not help"
        return f"; if more are like them, about {float(f'{self.enough:.2g}'):,.0f} cases would show it"

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values; a sureness that nothing reaches is None."""
        return {**asdict(self), "least": None if math.isinf(self.least) else self.least}

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Answering:
        """Read what `settings` gave."""
        least = settings["least"]
        numbers = float(settings["error"]), float(settings["delta"]), math.inf if least is None else float(least)
        enough = settings["enough"]
        return cls(*numbers, int(settings["cases"]), None if enough is None else int(enough))


def strictest(each: Sequence[Answering | None]) -> Answering | None:
    """The answers of the mean of several models: those that are sure enough for each; None where all answer all."""
    return max((one for one in each if one is not None), key=lambda answering: answering.least, default=None)
