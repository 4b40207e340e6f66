"""Preprocessing against shortcuts, so that the network cannot answer without looking at the disease."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from isocenter.errors import counted
from isocenter.values import Decision, Shortcut

# Cut away on each side where border pixels tell the classes apart: markers, frames and burned-in text lie there.
BORDER = 0.1
# A cure that leaves more of what the AUC is above chance is none: what is cut away is lost to the disease too.
LEFT = 0.5
GEIRHOS = "doi:10.1038/s42256-020-00257-z"


@dataclass(frozen=True)
class Retest:
    """The shortcuts that tell the classes apart without the disease, and a test of what preprocessing leaves.

    shortcuts: of all cases as they are; empty where too few patients were there to say
    few:      why nothing could be found, in sentences
    patients: of the training cases
    after:    shortcuts of the training cases after preprocessing with this aspect, border and shape
    """

    shortcuts: Sequence[Shortcut]
    few: Sequence[str]
    patients: int
    after: Callable[[str, float, Sequence[int] | None], Sequence[Shortcut]]


def without_shortcuts(
    shape: Sequence[int] | None, retest: Retest | None, *, dense: bool = False
) -> dict[str, Decision]:
    """`aspect` and `border`: off, unless something that they remove predicts the class, and does less so without it.

    shape:  to which all images are brought, so that their proportions can be seen; None for none
    retest: None where nothing is to be told apart
    dense:  there is an output for every voxel, so that a structure that is cut away would be lost
    """
    decisions = {
        "border": Decision(0.0, "nothing at the border tells the classes apart"),
        "aspect": _stretch(shape is not None),
    }
    if retest is None:
        return decisions
    if not retest.shortcuts and retest.few:
        because = f"{'; '.join(retest.few)}; nothing is cut away"
        return {"border": Decision(0.0, because), "aspect": replace(decisions["aspect"], because=because)}
    removable = [one for one in retest.shortcuts if one.standing and one.removable]
    if not removable:
        return decisions
    if dense:
        strongest = max(removable, key=lambda shortcut: shortcut.auc.value)
        because = (
            f"{strongest.sentence}: {strongest.figure} {strongest.auc}; but each voxel gets an answer, also at the "
            "border, so nothing is cut away, and the report says so"
        )
        return {"border": Decision(0.0, because), "aspect": replace(decisions["aspect"], because=because)}
    shortcuts = retest.after("stretch", 0.0, shape)
    if shape is not None:
        after = partial(retest.after, "crop", 0.0, shape)
        decisions["aspect"] = _decided(
            decisions["aspect"], "crop", "cropped to one proportion", shortcuts, after, retest
        )
    after = partial(retest.after, decisions["aspect"].value, BORDER, shape)
    done = f"without {100 * BORDER:.0f} % on each side"
    decisions["border"] = _decided(decisions["border"], BORDER, done, shortcuts, after, retest)
    return decisions


def _decided(
    usual: Decision,
    cure: str | float,
    done: str,
    shortcuts: Sequence[Shortcut],
    after: Callable[[], Sequence[Shortcut]],
    retest: Retest,
) -> Decision:
    """The cure, if the training cases show what it removes and that it helps; what all cases show is stated."""
    setting = "border" if cure == BORDER else "aspect"
    if before := _strongest([one for one in shortcuts if one.standing], setting):
        return _tried(before, after(), cure, usual.value, done)
    in_all_cases = _strongest([one for one in retest.shortcuts if one.standing], setting)
    if in_all_cases is None:
        return usual
    # All cases together may show what the training cases, which alone decide, do not.
    because = f"in all cases {in_all_cases.sentence}: {in_all_cases.figure} {in_all_cases.auc}; "
    if weak := _strongest(shortcuts, setting):
        because += f"in the training cases {weak.sentence} hardly: {weak.figure} {weak.auc}"
    else:
        because += f"not measurable with {counted(retest.patients, 'training patient')}"
    return Decision(usual.value, f"{because}, so nothing is cut away")


def _strongest(shortcuts: Sequence[Shortcut], setting: str) -> Shortcut | None:
    """The strongest shortcut that a setting could remove."""
    removable = [one for one in shortcuts if one.removable and one.setting == setting]
    return max(removable, key=lambda shortcut: shortcut.auc.value, default=None)


def _tried(before: Shortcut, after: Sequence[Shortcut], cure: str | float, nothing: str | float, done: str) -> Decision:
    left = next((one for one in after if (one.name, one.what) == (before.name, before.what)), None)
    value = 0.5 if left is None else left.auc.value
    because = f"in the training cases {before.sentence}: {before.figure} {before.auc}, {done} {value:.3f}"
    if left is None or not left.standing or value - 0.5 <= LEFT * (before.auc.value - 0.5):
        return Decision(cure, because, GEIRHOS)
    return Decision(
        nothing,
        f"{because}; cutting does not remove the shortcut, so nothing is cut away, and the report says so",
        GEIRHOS,
    )


def _stretch(shaped: bool) -> Decision:
    if shaped:
        return Decision("stretch", "the proportions of the images do not tell the classes apart, so nothing is lost")
    return Decision("stretch", "it matters only where images are brought to one shape")
