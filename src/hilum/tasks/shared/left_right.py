"""Labels that change places when left and right do, by their names in the languages of published sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from hilum import errors
from hilum.transforms import orient

# Left and right in the languages of most published sets, then Latin.
PAIRS = (
    *(("left", "right"), ("l", "r"), ("lt", "rt"), ("lh", "rh")),
    *(("links", "rechts"), ("linke", "rechte"), ("linker", "rechter"), ("linkes", "rechtes"), ("vänster", "höger")),
    *(("gauche", "droite"), ("gauche", "droit"), ("sinistra", "destra"), ("sinistro", "destro")),
    *(("izquierda", "derecha"), ("izquierdo", "derecho"), ("esquerda", "direita"), ("esquerdo", "direito")),
    *(("lewy", "prawy"), ("lewa", "prawa"), ("lewe", "prawe"), ("sol", "sağ")),
    *(("venstre", "højre"), ("venstre", "høyre")),
    *(("sinister", "dexter"), ("sinistra", "dextra"), ("sinistrum", "dextrum"), ("sin", "dex"), ("os", "od")),
)
OTHERS: Mapping[str, tuple[str, ...]] = {
    side: tuple(dict.fromkeys(other for pair in PAIRS if side in pair for other in pair if other != side))
    for side in dict.fromkeys(word for pair in PAIRS for word in pair)
}
# Of these both must be named: an os is a bone too, sol a sun, and sin and dex stand for other things.
ONLY_IN_PAIRS = frozenset({"os", "od", "sin", "dex", "sol"})
OTHER = {"left": "right", "right": "left"}
WHOLE = ("left", "right")
# A number stays with its letters: L1 is a vertebra, no side.
SMALL = "a-zß-öø-ÿğı"
LARGE = "A-ZÀ-ÖØ-Þ"
WORD = re.compile(rf"[{LARGE}{SMALL}]*\d[{LARGE}{SMALL}\d]*|[{LARGE}]?[{SMALL}]+|[{LARGE}]+(?![{SMALL}])")
# Named by side, yet no mirror images of each other: the heart and the liver have none.
UNLIKE = frozenset(
    {"atrium", "atria", "auricle", "ventricle", "ventricles", "coronary", "heart", "cardiac", "liver", "hepatic"}
)
# Except that the brain's ventricles are.
ALIKE = frozenset({"lateral", "cerebral", "brain"})
# Teeth are numbered by where they stand (ISO 3950, or 1 to 32), so that a number names a side; so many are a system.
TEETH = ("tooth", "teeth", "dental")
FEWEST_NUMBERED = 4
# The remedy where sides are unknown.
STATE_SIDES = (
    "Give files that state their orientation, or state it for all that do not by --orientation RAS, where the letters "
    "are the directions in which their axes grow"
)
CHAMBERS = frozenset({"lv", "rv", "la", "ra", "lad", "lcx", "rca", "lvot", "rvot"})


def counterpart_places(names: Sequence[str]) -> tuple[int, ...] | None:
    """Place of each name's counterpart on the other side, its own where it has no side.

    None where a name has a side and nothing stands for its counterpart (none is named, or the two are no mirror
    images, as the heart's chambers): a mirrored image would then show what no patient has.
    """
    split = [tuple(word.lower() for word in WORD.findall(name)) for name in names]
    places = {_in_any_order(words): index for index, words in enumerate(split)}
    order = []
    for index, words in enumerate(split):
        counterparts = [places[other] for other in map(_in_any_order, _counterparts(words)) if other in places]
        if _has_side(words) and (not counterparts or _is_unlike(words)):
            return None
        order.append(counterparts[0] if counterparts else index)
    # Each must be the counterpart of its counterpart: two names for one side would be merged into one.
    return tuple(order) if all(order[other] == index for index, other in enumerate(order)) else None


def have_sides(names: Sequence[str]) -> bool:
    """Whether any of these names has a side, which a mirrored image would not have."""
    return orient.names_sides(counterpart_places(names))


def sided_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names that tell left from right, by a word or, of teeth, by their numbers; all where only together they do.

    Of an image whose left and right are unknown nobody can say which of them is which.
    """
    named = [name for name in names if have_sides([name])]
    return tuple(named or (names if have_sides(names) or numbered_teeth(names) else ()))


def unknown_sides(names: Iterable[str], of_cases: str = "") -> str:
    """The problem of volumes without orientation where these names tell left from right, in words."""
    return f"left and right are not known{of_cases}, and labels tell them apart ({errors.list_phrase(names)})"


def numbered_teeth(names: Iterable[str]) -> str:
    """The first name of a tooth among names with several numbers, which tell where it stands; empty without."""
    structures = list(names)
    numbers = {end for name in structures if (end := re.findall(r"\d*$", name)[0])}
    teeth = (name for word in TEETH for name in structures if word in name.lower())
    return next(teeth, "") if len(numbers) >= FEWEST_NUMBERED else ""


def _in_any_order(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words sorted, so that "left kidney" and "kidney_left" are equal."""
    return tuple(sorted(words))


def _has_side(words: tuple[str, ...]) -> bool:
    sides = OTHERS.keys() - ONLY_IN_PAIRS
    return bool(CHAMBERS & set(words)) or any(word in sides or word.startswith(WHOLE) for word in words)


def _is_unlike(words: tuple[str, ...]) -> bool:
    named = set(words)
    return bool(CHAMBERS & named) or bool(UNLIKE & named and not ALIKE & named)


def _counterparts(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The name with its side changed: as a word of its own, or as the beginning or end of one ("kidneyleft").

    An end counts only where the counterpart is named too: "bright" is no side.
    """
    counterparts = []
    for index, word in enumerate(words):
        others = list(OTHERS.get(word, ()))
        if not others:
            others = [OTHER[side] + word.removeprefix(side) for side in WHOLE if word.startswith(side)]
            others += [word.removesuffix(side) + OTHER[side] for side in WHOLE if word.endswith(side)]
        counterparts += [(*words[:index], other, *words[index + 1 :]) for other in others]
    return counterparts
