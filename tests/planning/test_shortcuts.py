from __future__ import annotations

from collections.abc import Mapping, Sequence

from hilum.planning.rules import preprocessing_rules
from hilum.planning.rules.preprocessing_rules import BORDER, ShortcutRetest
from hilum.values import Estimate
from hilum.values.dataset_fingerprint import Shortcut

SHAPE = (28, 28)


def shortcut(name: str, setting: str, auc: float) -> Shortcut:
    standing = auc >= 0.7
    return Shortcut(name, Estimate(auc, n=40), 0.001 if standing else 0.9, bool(setting), standing, setting)


def seen(left: Mapping[tuple[str, float], list[Shortcut]], found: Sequence[Shortcut] | None = None) -> ShortcutRetest:
    """What is left of the training cases after (aspect, border), and what all cases show; the same by itself."""
    of_all = left["stretch", 0.0] if found is None else found
    return ShortcutRetest(of_all, (), 12, lambda aspect, border, shape: left[aspect, border])


def test_without_shortcuts_nothing_is_cut():
    made = preprocessing_rules.without_shortcuts(SHAPE, None)
    assert (made["aspect"].value, made["border"].value) == ("stretch", 0.0)


def test_proportions_that_tell_the_classes_apart_are_cropped_away():
    made = preprocessing_rules.without_shortcuts(
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

    assert preprocessing_rules.without_shortcuts(SHAPE, after(0.6))["border"].value == BORDER
    assert preprocessing_rules.without_shortcuts(None, after(0.7))["border"].value == BORDER
    assert preprocessing_rules.without_shortcuts(None, after(0.8))["border"].value == 0
    kept = preprocessing_rules.without_shortcuts(SHAPE, after(0.89))["border"]
    assert kept.value == 0
    assert "does not remove the shortcut" in kept.because


def test_a_border_that_hardly_tells_the_training_cases_apart_is_kept_with_both_figures():
    """All cases together may show a shortcut that the training cases alone do not: then both are said."""
    weak, strong = shortcut("border pixels", "border", 0.6), shortcut("border pixels", "border", 0.95)
    kept = preprocessing_rules.without_shortcuts(None, seen({("stretch", 0.0): [weak]}, [strong]))["border"]
    assert kept.value == 0
    assert "in all cases the classes can be told apart by border pixels alone: AUC 0.950" in kept.because
    assert (
        "in the training cases the classes can be told apart by border pixels alone hardly: AUC 0.600" in kept.because
    )


def test_what_too_few_training_patients_cannot_show_is_not_measurable_and_stays_known():
    """Of few training patients no shortcut is measured at all: that is no proof that there is none."""
    found = [shortcut("image size", "aspect", 1.0), shortcut("border pixels", "border", 0.95)]
    made = preprocessing_rules.without_shortcuts(SHAPE, seen({("stretch", 0.0): []}, found))
    for name, known in (("aspect", "image size alone: AUC 1.000"), ("border", "border pixels alone: AUC 0.950")):
        assert known in made[name].because
        assert "not measurable with 12 training patients" in made[name].because
    assert (made["aspect"].value, made["border"].value) == ("stretch", 0.0)


def test_of_too_few_patients_in_all_a_plan_says_that_and_not_that_nothing_was_found():
    few = "whether the classes can be told apart by a shortcut is not measurable with 6 patients: it takes 5 of each"
    made = preprocessing_rules.without_shortcuts(SHAPE, ShortcutRetest((), (few,), 4, lambda aspect, border, shape: ()))
    assert all(few in made[name].because for name in ("aspect", "border"))


def test_what_is_weak_or_cannot_be_removed_is_left():
    found = [shortcut("aspect ratio", "aspect", 0.6), shortcut("column site", "", 0.95)]
    made = preprocessing_rules.without_shortcuts(SHAPE, seen({("stretch", 0.0): found}))
    assert (made["aspect"].value, made["border"].value) == ("stretch", 0.0)


def test_proportions_do_not_matter_where_the_spacing_decides():
    found = {("stretch", 0.0): [shortcut("aspect ratio", "aspect", 0.9)]}
    assert preprocessing_rules.without_shortcuts(None, seen(found))["aspect"].value == "stretch"


def test_where_every_voxel_gets_an_answer_nothing_is_cut_away_and_the_plan_says_why():
    """A structure at the border would be lost."""
    found = [shortcut("border pixels", "border", 0.95), shortcut("aspect ratio", "aspect", 0.9)]
    cut = {("stretch", 0.0): found, ("crop", 0.0): [], ("crop", BORDER): []}
    assert preprocessing_rules.without_shortcuts(SHAPE, seen(cut))["border"].value == BORDER
    made = preprocessing_rules.without_shortcuts(SHAPE, seen(cut), dense=True)
    assert (made["aspect"].value, made["border"].value) == ("stretch", 0.0)
    for name in ("aspect", "border"):
        assert "border pixels alone: AUC 0.950" in made[name].because
        assert "each voxel gets an answer, also at the border" in made[name].because
