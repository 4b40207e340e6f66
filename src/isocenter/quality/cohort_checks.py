"""Findings on all cases compared; to leave out a case does not mend an error here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from isocenter.transforms import COLOUR, GREY, all_channels, placed, without_alpha
from isocenter.values import Dataset, Fingerprint, Problem


def none_left(problems: Sequence[Problem], fingerprint: Fingerprint) -> Iterator[Problem]:
    """That no case can be used, and what is wrong with the first."""
    if fingerprint.cases:
        return
    first = next((problem for problem in problems if problem.severity == "error"), Problem("error", "there is none"))
    remedy = first.remedy or "See what was found for each case"
    where = f"{', '.join(first.cases[:1])}: " if first.cases else ""
    what = f"no case can be used; the first: {where}{first.what}"
    yield Problem("error", what, (), "there is nothing to learn from", remedy)


def mixed_images(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """Images with different channels or numbers of axes."""
    yield from _channels(dataset, fingerprint)
    axes = {len(case.shape) for case in fingerprint.cases}
    if len(axes) > 1:
        yield Problem(
            "error", "some images have two axes and some three", (), "one network takes one kind", "Split the data set"
        )


def _channels(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """Cases with other channels than the rest; pictures in grey beside those in colour can be brought to one kind.

    A case that lacks an image is none of them: the names of its images say which channels it has.
    """
    kinds = [without_alpha(case.channels) for case in fingerprint.cases]
    if set(kinds) <= {GREY, COLOUR} or len(set(kinds)) == 1:
        return
    images = {case.id: set(case.images) for case in dataset}
    named = all(
        {name, name.partition(":")[0]} & images[case.id] for case in fingerprint.cases for name in case.channels
    )
    places = [placed(kind, all_channels(kinds)) for kind in kinds]
    if named and all(order is not None and list(order) == sorted(order) for order in places):
        return
    usual = max(sorted(set(kinds)), key=kinds.count)
    others = "; ".join(", ".join(kind) for kind in sorted(set(kinds) - {usual}))
    yield Problem(
        "error",
        f"some cases have other channels ({others}) than the rest ({', '.join(usual)})",
        tuple(case.id for case, kind in zip(fingerprint.cases, kinds, strict=True) if kind != usual),
        "one network takes one kind",
        "Give each case the same images, in the same order, or leave these cases out",
    )
