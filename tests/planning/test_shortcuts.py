from __future__ import annotations

from collections.abc import Mapping

from isocenter.planning.rules.shortcuts import BORDER, without_shortcuts
from isocenter.values import Estimate, Shortcut

SHAPE = (28, 28)


def shortcut(name: str, setting: str, auc: float) -> Shortcut:
    standing = auc >= 0.7
    return Shortcut(name, Estimate(auc, n=40), 0.001 if standing else 0.9, bool(setting), standing, setting)


def seen(found: Mapping[tuple[str, float], list[Shortcut]]):
    """What is left after (aspect, border)."""
    return lambda aspect, border, shape: found[aspect, border]


def test_without_shortcuts_nothing_is_cut():
    made = without_shortcuts(SHAPE, None)
    assert (made["aspect"].value, made["border"].value) == ("stretch", 0.0)


def test_proportions_that_tell_the_classes_apart_are_cropped_away():
    made = without_shortcuts(
        SHAPE,
        seen(
            {
                ("stretch", 0.0): [shortcut("aspect ratio", "aspect", 0.9)],
                ("crop", 0.0): [shortcut("aspect ratio", "aspect", 0.5)],
            }
        ),
    )
    assert made["aspect"].value == "crop"
    assert "AUC 0.900" in made["aspect"].because
    assert "0.500" in made["aspect"].because
    assert made["border"].value == 0


def test_a_border_that_tells_the_classes_apart_is_cut_away_if_that_helps():
    def after(auc: float):
        return seen(
            {
                ("stretch", 0.0): [shortcut("border pixels", "border", 0.9)],
                ("stretch", BORDER): [shortcut("border pixels", "border", auc)],
            }
        )

    assert without_shortcuts(SHAPE, after(0.6))["border"].value == BORDER
    assert without_shortcuts(None, after(0.7))["border"].value == BORDER
    assert without_shortcuts(None, after(0.8))["border"].value == 0
    kept = without_shortcuts(SHAPE, after(0.89))["border"]
    assert kept.value == 0
    assert "no cure" in kept.because


def test_a_border_that_hardly_tells_the_training_cases_apart_is_kept_with_its_figure():
    """All cases together may show a shortcut that the training cases alone do not: then both are said."""
    kept = without_shortcuts(None, seen({("stretch", 0.0): [shortcut("border pixels", "border", 0.6)]}))["border"]
    assert kept.value == 0
    assert "the classes can be told apart by border pixels alone hardly: AUC 0.600" in kept.because


def test_what_is_weak_or_cannot_be_removed_is_left():
    found = [shortcut("aspect ratio", "aspect", 0.6), shortcut("column site", "", 0.95)]
    made = without_shortcuts(SHAPE, seen({("stretch", 0.0): found}))
    assert (made["aspect"].value, made["border"].value) == ("stretch", 0.0)


def test_proportions_do_not_matter_where_the_spacing_decides():
    found = {("stretch", 0.0): [shortcut("aspect ratio", "aspect", 0.9)]}
    assert without_shortcuts(None, seen(found))["aspect"].value == "stretch"
