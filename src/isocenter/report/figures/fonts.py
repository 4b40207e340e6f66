"""Fonts for letters that the house's font lacks: of those that matplotlib finds on the machine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from unicodedata import east_asian_width

from matplotlib.font_manager import findfont, fontManager, get_font

FONT = "DejaVu Sans"  # comes with matplotlib, so that a page looks the same everywhere
# Has a sign for each kind of letter, and no letter.
NO_LETTERS = "Last Resort"
REGULAR = ("normal", "regular", "book", "roman", "medium", 400, 500)


def families_for(text: str) -> tuple[list[str], list[str]]:
    """(families that together have the letters of a text, `FONT` first; letters that no font of the machine has)."""
    chosen, known = [FONT], _letters(findfont(FONT))
    missing = [letter for letter in dict.fromkeys(text) if ord(letter) not in known and not letter.isspace()]
    for family, path in _others() if missing else ():
        known = _letters(path)
        if any(ord(letter) in known for letter in missing):
            chosen.append(family)
            missing = [letter for letter in missing if ord(letter) not in known]
        if not missing:
            break
    return chosen, missing


def is_wide(text: str) -> bool:
    """Whether a text has letters as wide as they are high, as those of Chinese, Japanese and Korean are."""
    return any(east_asian_width(letter) in "WF" for letter in text)


def _others() -> Iterator[tuple[str, str]]:
    """(family, file) of the upright fonts of the machine but `FONT`, each family once, in the order of their names."""
    seen = {FONT}
    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, entry.fname)):
        is_upright = entry.style == "normal" and entry.weight in REGULAR
        if is_upright and entry.name not in seen and not entry.name.startswith(NO_LETTERS):
            seen.add(entry.name)
            yield entry.name, entry.fname


@cache
def _letters(path: str) -> frozenset[int]:
    """The code points that a font's file has letters for; none where the file is gone since fonts were looked for."""
    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
