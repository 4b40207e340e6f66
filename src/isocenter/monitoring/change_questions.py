"""Questions of a regulator about a change outside the plan, answered from what differs; nothing else is guessed.

After FDA, Deciding When to Submit a 510(k) for a Software Change to an Existing Device, 2017, in our words, from
knowledge of the text: compare with it before use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

YES, NO, MISSING = "yes", "no", "missing"
# Parts in which the intended use lies: what is found, and in which images.
USE = ("task.name", "task.classes", "task.findings", "task.labels", "task.values", "preprocessing.modality")


@dataclass(frozen=True)
class Answer:
    """A question, its answer (yes, no or missing), and the evidence, or what has to be given."""

    number: str
    question: str
    answer: str
    evidence: str


def answers(parts: Sequence[str]) -> list[Answer]:
    """The answers for a model that differs in these parts.

    A question is answered only where the difference of the records settles it.
    """
    named = ", ".join(parts)
    use = [part for part in parts if part.startswith(USE)]
    rows = [
        (
            "use",
            "Does the change touch the intended use: what is found, or in which images?",
            *((YES, f"changed: {', '.join(use)}") if use else (MISSING, "state whether the intended use stays")),
        ),
        ("1", "Is the change made solely to strengthen cybersecurity?", NO, f"the model itself changed: {named}"),
        (
            "2",
            "Is the change made solely to return to the specification of the approved device?",
            MISSING,
            "state the specification, and where the device departed from it",
        ),
        (
            "3a",
            "Does the change bring a new cause of a hazardous situation with significant harm, or alter one?",
            MISSING,
            "give the risk analysis of the change",
        ),
        (
            "3b",
            "Does the change bring a new hazardous situation with significant harm?",
            MISSING,
            "give the risk analysis of the change",
        ),
        (
            "4",
            "Does the change bring or alter a risk control for a hazardous situation with significant harm?",
            *(
                (YES, "changed: guard, which refuses images unlike those of the training")
                if any(part.split(".")[0] == "guard" for part in parts)
                else (MISSING, "give the risk analysis of the change")
            ),
        ),
        (
            "5",
            "Could the change significantly affect clinical function or performance for the intended use?",
            *(
                (YES, f"changed: {', '.join(use)}")
                if use
                else (MISSING, f"evaluate both models on the same cases; changed: {named}")
            ),
        ),
    ]
    return [Answer(*row) for row in rows]
