"""Words that many patients of an input share, so that a description keeps them and no rare word survives."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

FEWEST_PATIENTS = 10
LONGEST_NUMBER = 4  # digits; a longer number beside a word may be somebody's, unless as many patients share it
NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
TOKEN = re.compile(r"\d+(?:[.,]\d+)?(?![^\W_])|[^\W_]+")


@dataclass(eq=False)
class CommonWords:
    """The words of descriptions, with the patients in whose descriptions they occur."""

    patients: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, text: str, patient: str) -> None:
        """Count a description of a patient."""
        for token in TOKEN.findall(text.casefold()):
            if len(owners := self.patients[token]) < FEWEST_PATIENTS:
                owners.add(patient)

    def keep(self, text: str) -> str:
        """The common words of a description and the short numbers next to them; all else is left out."""
        return " ".join(self._kept(TOKEN.findall(text)))

    def _kept(self, tokens: list[str]) -> Iterator[str]:
        are_common = [len(self.patients.get(token.casefold(), ())) >= FEWEST_PATIENTS for token in tokens]
        words = [common and not NUMBER.fullmatch(token) for token, common in zip(tokens, are_common, strict=True)]
        for place, token in enumerate(tokens):
            is_short = NUMBER.fullmatch(token) and sum(map(str.isdigit, token)) <= LONGEST_NUMBER
            if are_common[place] or (is_short and any(words[max(place - 1, 0) : place + 2])):
                yield token
