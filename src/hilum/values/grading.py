"""Grades of a scale, recognised in the names of classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

NUMBERED = re.compile(r"(\D*)(\d+)")
# A number at the start of a name, as in "10 severe", ">20" or "0.5"; one in a name that else has the same words, or a
# Roman number or a letter in its place: "grade 2", "BI-RADS 4a", "stage IIb", "density c".
LEADING = re.compile(r"()([<>]?) ?(\d+(?:[.,]\d+)?)()(?!\d)")
WITHIN = re.compile(r"(\D*?)([<>]?) ?(\d+(?:[.,]\d+)?)([a-d]?)(?![a-z\d])")
ROMAN = re.compile(r"(.*?)()\b([ivx]+)([a-c]?)$")
LETTER = re.compile(r"(.*?)()\b([a-z])()$")
ROMANS = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
# What comes before the first grade of every scale, where it has a name.
ABSENT = (
    "none", "no", "non", "not", "nil", "absent", "normal", "negative", "healthy", "without", "control", "controls",
)  # fmt: skip
# Words of scales, from the lowest grade to the highest, after those of absence; longer phrases go before their words.
SCALES: tuple[tuple[tuple[str, ...], ...], ...] = (
    # Severity; of retinopathy proliferative is the last (Wilkinson et al., Ophthalmology 2003).
    (
        ("minimal", "trace", "slight", "very mild", "doubtful", "questionable", "borderline"),
        ("mild",),
        ("mild to moderate",),
        ("non proliferative", "nonproliferative", "npdr"),
        ("moderate",),
        ("moderate to severe", "moderately severe"),
        ("severe",),
        ("very severe",),
        ("proliferative", "proliferate", "pdr", "extreme", "critical", "profound"),
    ),
    (("very low",), ("low",), ("intermediate", "medium", "moderate", "middle"), ("high",), ("very high",)),
    (("tiny",), ("small",), ("medium", "intermediate", "moderate", "middle"), ("large", "big"), ("huge", "giant")),
    (("early",), ("intermediate", "middle", "mid"), ("late", "advanced"), ("end stage", "terminal")),
    (("well",), ("moderate", "moderately"), ("poor", "poorly"), ("undifferentiated", "dedifferentiated", "anaplastic")),
    (
        ("reject", "ungradable", "unusable", "insufficient", "inadequate"),
        ("poor", "bad"),
        ("fair", "moderate", "average", "usable", "acceptable", "adequate", "sufficient"),
        ("good",),
        ("excellent",),
    ),
    (("unlikely",), ("possible", "equivocal", "indeterminate"), ("probable", "likely"), ("definite", "certain")),
    (("first", "one"), ("second", "two"), ("third", "three"), ("fourth", "four"), ("fifth", "five")),
)
# A name of severity may also say of which kind it is: "severe NPDR" is severe.
KINDS = frozenset({"non proliferative", "nonproliferative", "npdr"})
Value = Callable[[str], float | None]


def grades_in_names(names: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers at the end of names that differ in nothing else: "0", "1", or "grade 2", "grade 3".

    None for other names. Bare numbers do not prove an order: they may only number the classes.
    """
    fits = [NUMBERED.fullmatch(name.strip()) for name in names]
    if not all(fits):
        return None
    words = {match[1].strip(" _-").lower() for match in fits if match}
    numbers = tuple(int(match[2]) for match in fits if match)
    return numbers if len(words) == 1 and len(set(numbers)) == len(numbers) else None


def order_by_grade(names: Sequence[str]) -> tuple[str, ...] | None:
    """The names from the lowest grade to the highest, by their numbers or by the words of a known scale.

    None where they are of no scale that is known, or of several that order them differently.
    """
    words = [_words(name) for name in names]
    for pattern, value in ((LEADING, _number), (WITHIN, _number), (ROMAN, _roman), (LETTER, _letter)):
        if (ranks := _by_pattern(words, pattern, value)) is not None:
            return _sort(names, ranks)
    scales = ([_rank_of(word, scale) for word in words] for scale in SCALES)
    orders = {_sort(names, ranks) for ranks in scales if None not in ranks and len(set(ranks)) == len(ranks)}
    return orders.pop() if len(orders) == 1 and len(names) > 1 else None


def _words(name: str) -> str:
    """A name in small letters with blanks between its words: VeryMild and very_mild are very mild."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.sub(r"[\s_\-/():+]+", " ", apart).casefold().split())


def _sort(names: Sequence[str], ranks: Sequence[Any]) -> tuple[str, ...]:
    return tuple(name for _, name in sorted(zip(ranks, names, strict=True)))


def _by_pattern(words: Sequence[str], pattern: re.Pattern[str], value: Value) -> list[Any] | None:
    """The rank of each name that a pattern fits; None where it does not fit all, or their other words differ.

    Of names with numbers one may say that there is nothing: "none", "grade 1", "grade 2".
    """
    fits = {word: pattern.match(word) for word in words if word not in ABSENT}
    found = [match for match in fits.values() if match]
    if len(found) < len(fits) or len(found) < 2 or len(words) - len(fits) > 1:
        return None
    numbers = {word: value(match[3]) for word, match in fits.items() if match}
    if len({match[1].strip() for match in found}) > 1 or None in numbers.values():
        return None
    if value is _letter and {*numbers.values()} != {*range(len(numbers))}:
        return None
    signs = {"<": -1, "": 0, ">": 1}
    matched = {word: (numbers[word], signs[match[2]], match[4]) for word, match in fits.items() if match}
    ranks = [matched.get(word, (-1.0, 0, "")) for word in words]
    return ranks if len(set(ranks)) == len(ranks) else None


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _roman(text: str) -> float | None:
    return float(ROMANS.index(text)) if text in ROMANS else None


def _letter(text: str) -> float:
    return float(ord(text) - ord("a"))


def _rank_of(words: str, scale: Sequence[Sequence[str]]) -> int | None:
    """The place of a name in a scale; None where it holds no word of it, or those of several grades."""
    places = {phrase: place for place, phrases in enumerate((ABSENT, *scale)) for phrase in phrases}
    text, found = f" {words} ", set[str]()
    for phrase in sorted(places, key=len, reverse=True):
        if f" {phrase} " in text:
            text = text.replace(f" {phrase} ", "  ")
            found.add(phrase)
    found = found - KINDS or found
    ranks = {places[phrase] for phrase in found}
    return ranks.pop() if len(ranks) == 1 else None
