"""Names of cases whose numbers a spreadsheet has rewritten: 0001 as 1 or 1.0, and S007 as 7."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

DECIMALS = re.compile(r"(\d+)\.0+")
LEADING_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)")
WORD_AND_NUMBER = re.compile(r"(?P<word>\D*)(?P<number>\d+)")
NO_LETTER = re.compile(r"[\W_]+")
# What two names have in common where they mean the same; None of a name that has nothing of the kind.
Key = Callable[[str], str | None]


def same_names(stated: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """{name of a case: its name in a table}, one to one; empty where some case has none, or two names could be meant.

    stated: the names in the table, of which some may be of no case here
    """
    return next(filter(None, (_one_to_one(stated, wanted, key) for key in _keys(stated, wanted))), {})


def same_beginnings(stated: Collection[str], beginnings: Sequence[Sequence[str]]) -> list[str]:
    """The beginning of each case's name that a table states as a patient; empty where some case has none.

    beginnings: of each case's name, the longest first
    """
    for key in (_unpadded, _number):
        known = {key(name) for name in stated} - {None}
        owners = [next((one for one in own if key(one) in known), "") for own in beginnings]
        if "" not in owners and same_names(stated, dict.fromkeys(owners)):
            return owners
    return []


def _unpadded(name: str) -> str:
    """The name without the zeros before its numbers, without the decimals of a whole number, and in lower case."""
    whole = DECIMALS.fullmatch(name)
    return LEADING_ZEROS.sub("", whole[1] if whole else name).casefold()


def _keys(stated: Collection[str], wanted: Collection[str]) -> Sequence[Key]:
    """The keys that may be tried: numbers without their word only where one word stands before all that have any."""
    words = {_word(_unpadded(name)) for name in (*stated, *wanted)} - {""}
    is_of_all = len(words) == 1 and None not in words and len(set(stated)) == len(set(wanted))
    return (_unpadded, _number) if is_of_all else (_unpadded,)


def _one_to_one(stated: Collection[str], wanted: Collection[str], key: Key) -> dict[str, str]:
    names, cases = _by_key(stated, key), _by_key(wanted, key)
    is_whole = len(cases) == len(set(wanted)) and len(names) == len(set(stated))
    return {case: names[own] for own, case in cases.items()} if is_whole and cases.keys() <= names.keys() else {}


def _by_key(names: Collection[str], key: Key) -> Mapping[str, str]:
    """{key: the name that has it}; fewer than the names where two have one, or one has none."""
    return {own: name for name in names if (own := key(name)) is not None}


def _word(name: str) -> str | None:
    """What stands before the number of a name; empty for a bare number, None for a name of another form."""
    fit = WORD_AND_NUMBER.fullmatch(name)
    return NO_LETTER.sub("", fit["word"]) if fit else None


def _number(name: str) -> str | None:
    """The number of a name that is a word and a number."""
    fit = WORD_AND_NUMBER.fullmatch(_unpadded(name))
    return fit["number"] if fit else None
