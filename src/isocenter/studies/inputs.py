"""Inputs of a sample size: their names, bounds and defaults, read from what a person gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from isocenter.errors import UsageError

Kind = Literal["fraction", "share", "positive", "nonnegative", "number", "count", "yes or no", "word"]
Inputs = Mapping[str, Any]
BOUNDS = {
    "fraction": "a number between 0 and 1, both left out",
    "share": "a number from 0 to below 1",
    "positive": "a number above 0",
    "nonnegative": "a number from 0",
    "number": "a number",
    "count": "a whole number, at least 1",
    "yes or no": "true or false",
}


@dataclass(frozen=True)
class Input:
    """One input of a design.

    kind:    what it may be
    text:    what it means
    default: its value where nobody gives one; None where it may be absent
    needed:  whether it must be given
    words:   the words of a word
    """

    kind: Kind
    text: str
    default: Any = None
    needed: bool = False
    words: tuple[str, ...] = ()

    def read(self, name: str, given: Any) -> Any:
        """The value as a number, a truth or a word. Raises UsageError where it is out of bounds."""
        if self.kind == "word":
            if given in self.words:
                return given
            raise _wrong(name, given, f"one of {', '.join(self.words)}")
        if self.kind == "yes or no":
            truth = {"true": True, "yes": True, "false": False, "no": False}.get(str(given).lower())
            if truth is None:
                raise _wrong(name, given, BOUNDS[self.kind])
            return truth
        try:
            value = float("nan" if isinstance(given, bool) else given)
        except (TypeError, ValueError):
            value = float("nan")
        holds = {
            "fraction": 0 < value < 1,
            "share": 0 <= value < 1,
            "positive": 0 < value < float("inf"),
            "nonnegative": 0 <= value < float("inf"),
            "number": abs(value) < float("inf"),
            "count": 1 <= value < float("inf") and value == value // 1,
        }[self.kind]
        if not holds:
            raise _wrong(name, given, BOUNDS[self.kind])
        return int(value) if self.kind == "count" else value


def _wrong(name: str, given: Any, bounds: str) -> UsageError:
    return UsageError(f"{name} is {given!r}", f"--set {name}", f"Give {bounds}")


# Of every design that has a power.
COMMON = {
    "alpha": Input("fraction", "type I error of a two-sided test; half of it lies on the side of the effect", 0.05),
    "power": Input("fraction", "chance to find the effect; 0.8 where nothing else is given"),
    "n": Input("count", "participants or cases in all, to learn the power or the effect"),
    "dropout": Input("share", "share of participants without an outcome", 0.0),
    "looks": Input("count", "analyses, the last one included", 1),
    "spending": Input("word", "how looks spend alpha", "obrien-fleming", words=("obrien-fleming", "pocock")),
}
PER_ARM = {"per_arm": Input("count", "participants in one arm, to learn the power or the effect")}
CLUSTERED = {
    "cluster": Input("count", "participants of one cluster, on average"),
    "icc": Input("share", "intraclass correlation of participants of one cluster"),
    "cv": Input("share", "coefficient of variation of the sizes of clusters", 0.0),
    "clusters": Input("count", "clusters in all, to learn the power or the effect"),
}


def read_inputs(design: str, known: Mapping[str, Input], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every input of a design with its value: given, by default, or None.

    Raises UsageError for an unknown name, a value out of bounds, and one that is missing.
    """
    for name in given:
        if name not in known:
            meant = get_close_matches(name, known, n=1)
            remedy = f"{f'Use {meant[0]}; ' if meant else ''}{design} knows {', '.join(sorted(known))}"
            raise UsageError(f"{design} has no input {name!r}", "--set", remedy)
    missing = [name for name, one in known.items() if one.needed and given.get(name) is None]
    if missing:
        texts = "; ".join(f"{name}: {known[name].text}" for name in missing)
        example = " ".join(f"--set {name}=VALUE" for name in missing)
        raise UsageError(f"{design} needs {_in_words(missing)} ({texts})", "--set", f"Add {example}")
    values = {name: one.default for name, one in known.items()}
    return values | {name: known[name].read(name, value) for name, value in given.items() if value is not None}


def _in_words(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
