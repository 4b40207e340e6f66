"""The page of a result: what it says, from what the other DICOM objects state too."""

from __future__ import annotations

from pathlib import Path

from isocenter.files.dicom import Result, read_header, text
from isocenter.report import figures
from isocenter.values import Map


def page_of(result: Result, words: str, heat: Map | None = None) -> figures.ResultPage:
    """The result on one page. words: that each object of it bears; heat: what the answer rests on, drawn as colours"""
    nothing = [f"Nothing was found of: {', '.join(result.classes)}."] if result.is_empty else []
    sets = [
        f"{one.concept}: the answer is one of {', '.join(one.possible)}." for one in result.findings if one.possible
    ]
    limits = [f"{limit[:1].upper()}{limit[1:]}." for limit in result.limits]
    return figures.ResultPage(
        result.source,
        [(mask, labels) for _, mask, labels in result.label_maps],
        result.findings,
        [f"Result of {result.algorithm}", *_of_study(result)],
        [*nothing, *sets, *limits],
        words,
        heat,
    )


def _of_study(result: Result) -> list[str]:
    """The modality and the date of the study, as the first image states them."""
    if result.source.source is None:
        return []
    head = read_header(Path(result.source.source.paths[0])).dataset
    date = text(head, "StudyDate")
    is_plain = len(date) == len("20240131") and date.isdigit()
    day = f"{date[:4]}-{date[4:6]}-{date[6:]}" if is_plain else date
    return [", ".join(filter(None, [text(head, "Modality"), f"study of {day}" if day else "study without a date"]))]
