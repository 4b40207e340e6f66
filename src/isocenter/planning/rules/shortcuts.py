"""Preprocessing against shortcuts, so that the network cannot answer without looking at the disease."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from isocenter.values import Decision, Shortcut

# Cut away on each side where border pixels tell the classes apart: markers, frames and burned-in text lie there.
BORDER = 0.1
# A cure that leaves more of what the AUC is above chance is none: what is cut away is lost to the disease too.
LEFT = 0.5
GEIRHOS = "doi:10.1038/s42256-020-00257-z"

# Shortcuts of the training cases after preprocessing with this aspect, border and shape.
Retest = Callable[[str, float, Sequence[int] | None], Sequence[Shortcut]]


def without_shortcuts(shape: Sequence[int] | None, retest: Retest | None) -> dict[str, Decision]:
    """`aspect` and `border`: off, unless something that they remove predicts the class, and does less so without it.

    shape:  to which all images are brought, so that their proportions can be seen; None for none
    retest: None where nothing tells the classes apart
    """
    made = {
        "border": Decision(0.0, "nothing at the border tells the classes apart"),
        "aspect": _stretch(shape is not None),
    }
    if retest is None:
        return made
    shortcuts = retest("stretch", 0.0, shape)
    if shape is not None and (before := _strongest(shortcuts, "aspect")):
        made["aspect"] = _tried(before, retest("crop", 0.0, shape), "crop", "stretch", "cropped to one proportion")
    if before := _strongest(shortcuts, "border"):
        after = retest(made["aspect"].value, BORDER, shape)
        made["border"] = _tried(before, after, BORDER, 0.0, f"without {100 * BORDER:.0f} % on each side")
    elif weak := max(
        (one for one in shortcuts if one.setting == "border"), key=lambda shortcut: shortcut.auc.value, default=None
    ):
        # All cases together may show what the training cases, which alone decide, do not.
        because = f"of the training cases {weak.what} by {weak.name} alone hardly: {weak.figure} {weak.auc}"
        made["border"] = Decision(0.0, because)
    return made


def _strongest(shortcuts: Sequence[Shortcut], setting: str) -> Shortcut | None:
    """What a setting could remove and tells the classes apart most."""
    standing = [one for one in shortcuts if one.standing and one.removable and one.setting == setting]
    return max(standing, key=lambda shortcut: shortcut.auc.value, default=None)


def _tried(before: Shortcut, after: Sequence[Shortcut], cure: str | float, nothing: str | float, done: str) -> Decision:
    left = next((one for one in after if (one.name, one.what) == (before.name, before.what)), None)
    value = 0.5 if left is None else left.auc.value
    because = f"of the training cases {before.what} by {before.name} alone: {before.figure} {before.auc}"
    because = f"{because}, {done} {value:.3f}"
    if left is None or not left.standing or value - 0.5 <= LEFT * (before.auc.value - 0.5):
        return Decision(cure, because, GEIRHOS)
    return Decision(nothing, f"{because}; that is no cure, so nothing is cut away, and the report says so", GEIRHOS)


def _stretch(whole: bool) -> Decision:
    if whole:
        return Decision("stretch", "the proportions of the images do not tell the classes apart, so nothing is lost")
    return Decision("stretch", "it matters only where images are brought to one shape")
