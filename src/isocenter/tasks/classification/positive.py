"""The positive class: the one that sensitivity, predictive values and thresholds are of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from isocenter.errors import PlanError, listed
from isocenter.values import Decision, grades

# Names of the class of people who have nothing of what is looked for; whole names, in any case, with or without blanks.
ABSENT = frozenset(
    {
        *(
            "normal",
            "normals",
            "healthy",
            "well",
            "negative",
            "neg",
            "benign",
            "control",
            "controls",
            "healthy control",
        ),
        *("healthy controls", "none", "no", "no finding", "no findings", "absent", "0", "false"),
    }
)
# Before a word, it says that this is absent: no_tumor, without fracture. "non" only does before another class's name:
# of non_small_cell and adenocarcinoma neither is healthy.
WITHOUT, NOT = ("no ", "without "), ("non ", "not ")
SIGNS = re.compile(r"[\s_-]+")
DECIDES = "--positive NAME decides otherwise"


def positive_decision(classes: Sequence[str], counts: Mapping[str, int]) -> Decision:
    """The positive class of two, or the positive classes of several, for these training cases.

    counts: {class: training cases}
    The other class of two is positive where one name is a word of absence; else the rarer one is. Of several classes
    with one word of absence all others are; None where each class is compared with the rest.
    """
    absent = _absent(classes)
    if len(absent) == 1:
        others = [name for name in classes if name not in absent]
        because = f"{absent[0]} is a word of absence, so that it is the negative class; {DECIDES}"
        return Decision(others[0] if len(classes) == 2 else others, because)
    words = f"{listed(absent)} are words of absence" if absent else "no class is called by a word of absence"
    if len(classes) > 2:
        return Decision(None, f"{words}, so that each class is compared with the rest; {DECIDES}")
    # The first of the least: of two that are as frequent the last one, as where nothing is known of them.
    rarer = min(reversed(classes), key=lambda name: counts.get(name, 0))
    other = next(name for name in classes if name != rarer)
    here, there = counts.get(rarer, 0), counts.get(other, 0)
    rank = "the rarer" if here < there else "the last of two equally frequent classes"
    return Decision(rarer, f"{words}, and it is {rank} ({here} {rarer}, {there} {other}); {DECIDES}")


def names_in(given: Any) -> tuple[str, ...]:
    """The classes that a plan states as positive, one name or several; none where it states none."""
    if given is None:
        return ()
    if not (names := [given] if isinstance(given, str | int) else list(given)):
        raise PlanError("no class is positive", "task.positive", "Name one of task.classes, or give null")
    return tuple(dict.fromkeys(str(name) for name in names))


def plain_names(positive: Sequence[str]) -> str | list[str] | None:
    """Positive classes as a plan states them."""
    return positive[0] if len(positive) == 1 else list(positive) or None


def positive_of(stated: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """The positive classes that are stated, in the order of all; PlanError for what cannot be."""
    if unknown := [name for name in stated if name not in classes]:
        raise PlanError(f"there is no class {unknown[0]!r}", "task.positive", f"Name one of {', '.join(classes)}")
    if len(classes) == 2 and len(stated) == 2:
        problem = f"{len(stated)} of {len(classes)} classes are positive"
        raise PlanError(problem, "task.positive", f"Name one of {', '.join(classes)}")
    return tuple(name for name in classes if name in stated)


def usual_positives(classes: Sequence[str]) -> tuple[str, ...]:
    """The positive classes by their names alone: without a word of absence the last of two, of several each one."""
    absent = _absent(classes)
    if len(absent) == 1:
        return tuple(name for name in classes if name not in absent)
    return tuple(classes[1:] if len(classes) == 2 else classes)


def _absent(classes: Sequence[str]) -> list[str]:
    """The classes whose names say that something is absent; bare numbers of several classes only number them."""
    if len(classes) > 2 and grades(classes) is not None:
        return []
    plain = {name: _plain(name) for name in classes}
    words = (
        ABSENT | {word.replace(" ", "") for word in ABSENT} | {f"{sign}{one}" for sign in NOT for one in plain.values()}
    )
    return [name for name, own in plain.items() if own in words or own.startswith(WITHOUT)]


def _plain(name: str) -> str:
    return SIGNS.sub(" ", name).strip().casefold()
