"""Findings of a result that have no place in the image: classes, values, times to an event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from isocenter.tasks import Task, leaves, settings_of
from isocenter.values import Finding, Prediction


def has_place(prediction: Prediction) -> bool:
    """Whether the result lies somewhere in the image, and does not only speak of it."""
    every = (prediction, *prediction.frames)
    return any(one.data is not None or one.boxes is not None for one in every)


def says_something(prediction: Prediction, findings: Sequence[Finding]) -> bool:
    """Whether the result, or one of its frames, is an answer about the whole image, whatever it is, or marks something.

    A measured value of 0 and an absent finding are answers; a mask without a voxel and a search without a box are not.
    findings: of the result, or of all its frames
    """
    stills = prediction.frames or (prediction,)
    if any(not has_place(part) for still in stills for part in still.parts.values() or (still,)):
        return True
    return any(one.probability is not None or bool(one.value) for one in findings)


def placeless_findings(task: Task, prediction: Prediction, *, as_stated: bool = False) -> list[Finding]:
    """Findings without a place that a report can state, of a result or its parts; of a clip of its first frame.

    as_stated: with the probabilities of before calibration; what is called stays
    """
    still = prediction.frames[0] if prediction.frames else prediction
    made = list[Finding]()
    for name, part in leaves(task).items():
        own = still.parts[name] if name else still
        if has_place(own):
            continue
        found = part.results(own)
        if as_stated:
            plain = part.results(own.before_calibration)
            found = [
                replace(one, probability=p.probability, calibrated=False) for one, p in zip(found, plain, strict=True)
            ]
        made += [replace(one, group=name) if name and one.group else one for one in found]
    return [one for one in made if _can_be_stated(one)]


def promises(task: Task, findings: Sequence[Finding]) -> Iterator[str]:
    """What sets and intervals among the findings hold, a sentence for each coverage."""
    if any(one.possible is not None or one.low is not None or one.high is not None for one in findings):
        settings = [settings_of(part) for part in leaves(task).values()]
        for coverage in sorted({float(one["coverage"]) for one in settings if one.get("coverage")}):
            yield f"coverage of sets and intervals: {100 * coverage:.4g} % of new patients"


def _can_be_stated(finding: Finding) -> bool:
    numbers = (finding.value, finding.probability, finding.low, finding.high)
    return any(isinstance(one, int | float) for one in numbers)
