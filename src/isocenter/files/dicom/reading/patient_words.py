"""Search of free texts in DICOM headers for the patient's name or identifier, in any script."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise, permutations

from isocenter.files.dicom.elements import Dataset
from isocenter.files.dicom.tags import LONGEST_TEXT, text

NAMES = 3  # components of a name before its titles: family, given and middle name, PS3.5 6.2.1.1
# Titles, and particles of family names, are words of descriptions too; they count where nothing stands beside them.
SHORT_WORDS = frozenset(("al", "da", "de", "di", "do", "dr", "du", "el", "la", "le", "mr", "ms"))
SHORTEST = 3  # characters of a part that may be any; of two, only letters of a name are one
# Shorter ones lie in ordinary words by chance: Beck in Becken, Abdo in Abdomen.
SHORTEST_INSIDE, SHORTEST_INSIDE_IDEOGRAPHS = 5, 2
SHORTEST_JOINED = 4
MOST_WORDS = 8  # of a name, and of a description that are taken for one
APART = " "  # between words, which hold no blanks
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")  # all but tabs and the ends of lines


def names_the_patient(dataset: Dataset, description: str) -> bool:
    """Whether a description repeats a part of the patient's name, in any of its scripts, or of the identifier.

    Accents and capitals do not count, nor how parts are joined (DoeJane, JDoe) or separated (47-11 as 47 11). A text
    that is far too long, or holds control characters, may have swallowed elements behind it, and so the name: it counts
    as one that does.
    """
    name, identifier = text(dataset, "PatientName"), text(dataset, "PatientID")
    if max(map(len, (name, identifier, description))) >= LONGEST_TEXT or CONTROL.search(description):
        return True
    names, identifiers = _names(name), _identifiers(identifier)
    words = _words(description)
    if any(part in APART.join(words) for part in names | identifiers if len(part) >= _shortest_inside(part)):
        return True
    whole = {*words, *_joined(words)}
    inner = {word for word in _words(_apart(description)) if len(word) >= SHORTEST}
    return not (names.isdisjoint(whole | inner) and identifiers.isdisjoint(whole))


def _names(stated: str) -> set[str]:
    """The texts that betray a name: its words, two of them joined, or one with the initial of another."""
    found: set[str] = set()
    for group in stated.split("="):  # one for each script, PS3.5 6.2.1.2
        components = [_words(component) for component in group.split("^")]
        words = [word for component in components[:NAMES] for word in component if _is_name(word, component)]
        initials = [word[0] for component in components[:NAMES] for word in component]
        found.update(words, (word for title in components[NAMES:] for word in title if len(word) >= SHORTEST))
        found.update(a + b for a, b in permutations(words[:MOST_WORDS], 2))
        long = [word for word in words[:MOST_WORDS] if len(word) >= SHORTEST]
        found.update(both for word in long for i in initials[:MOST_WORDS] for both in (word + i, i + word))
    return found


def _is_name(word: str, component: list[str]) -> bool:
    """Whether a word is enough of a name to be looked for."""
    if len(word) >= SHORTEST or _is_ideographic(word):
        return True
    return len(word) == SHORTEST - 1 and word.isalpha() and (word not in SHORT_WORDS or component == [word])


def _identifiers(stated: str) -> set[str]:
    """The texts that betray an identifier: its parts, and all of them joined."""
    words = _words(stated)
    return {part for part in (*words, "".join(words)) if len(part) >= SHORTEST}


def _words(stated: str) -> list[str]:
    """The words of a text, without accents and capitals."""
    letters = unicodedata.normalize("NFKD", stated.casefold())
    bare = "".join(letter for letter in letters if not unicodedata.category(letter).startswith("M"))
    return [word for word in re.split(r"[\W_]+", unicodedata.normalize("NFC", bare)) if word]


def _joined(words: list[str]) -> set[str]:
    """Neighbours joined."""
    runs = ("".join(words[start : start + n]) for start in range(len(words)) for n in range(2, MOST_WORDS + 1))
    return {run for run in runs if len(run) >= SHORTEST_JOINED}


def _apart(stated: str) -> str:
    """A text with a blank before each capital that follows a small letter, and between letters and digits."""
    breaks = (" " if (a.islower() and b.isupper()) or a.isdigit() != b.isdigit() else "" for a, b in pairwise(stated))
    return stated[:1] + "".join(blank + letter for blank, letter in zip(breaks, stated[1:], strict=True))


def _shortest_inside(part: str) -> int:
    """The length from which on a part is looked for inside words."""
    return SHORTEST_INSIDE_IDEOGRAPHS if _is_ideographic(part) else SHORTEST_INSIDE


def _is_ideographic(word: str) -> bool:
    """Whether it is Chinese, Japanese or Korean, whose words are short and need no blanks."""
    return all(unicodedata.east_asian_width(letter) == "W" for letter in word)
