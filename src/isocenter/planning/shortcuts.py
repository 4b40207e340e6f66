"""What preprocessing takes away so that the network cannot answer without looking at the disease."""

from __future__ import annotations

from collections.abc import Sequence

from isocenter.values import Decision, Shortcut

# Cut away on each side where border pixels tell the classes apart: markers, frames and burned-in text lie there.
BORDER = 0.1
GEIRHOS = "doi:10.1038/s42256-020-00257-z"


def without_shortcuts(found: Sequence[Shortcut], fixed_shape: bool) -> dict[str, Decision]:
    """`aspect` and `border`: off, unless something removable predicts the class.

    found:       the strongest first
    fixed_shape: whether images are brought to one shape, so that their proportions can be seen at all
    """
    removable = {one.setting: one for one in reversed(found) if one.removable and one.setting}
    made = {"aspect": _stretch(fixed_shape), "border": Decision(0.0, "nothing at the border tells the classes apart")}
    if fixed_shape and "aspect" in removable:
        said = _said(removable["aspect"])
        made["aspect"] = Decision("crop", f"{said}: cropped to one proportion, images no longer show it", GEIRHOS)
    if "border" in removable:
        said = _said(removable["border"])
        made["border"] = Decision(BORDER, f"{said}: what lies at the edges is not shown to the network", GEIRHOS)
    return made


def _stretch(fixed_shape: bool) -> Decision:
    if fixed_shape:
        return Decision("stretch", "the proportions of the images do not tell the classes apart, so nothing is lost")
    return Decision("stretch", "it matters only where images are brought to one shape")


def _said(shortcut: Shortcut) -> str:
    return f"{shortcut.name} alone predicts the class with an AUC of {shortcut.auc} (p {shortcut.p:.2g}, after Holm)"
