"""What is done with a fact that a file may state of itself: a row of the table of docs/stated-facts.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Used for what it says, said in a note that the fact is there and not used, or the file refused by name.
FactOutcome = Literal["read", "named", "refused"]


@dataclass(frozen=True)
class FactRule:
    """What a reader does with an optional fact.

    source: the files that may state it, in the words of the page
    fact:   what they state
    """

    source: str
    outcome: FactOutcome
    fact: str
