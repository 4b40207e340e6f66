"""The findings of a result, and whether they have a place in the image or speak of it as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    return any(_says_something(one) for one in findings)


def marks_nothing(still: Prediction, findings: Mapping[str, Sequence[Finding]]) -> bool:
    """Whether the parts of a result that look for something in the image have found none of it.

    findings: of its parts, as `stated_findings` gives them
    """
    placed = {name for name in findings if has_place(still.parts[name] if name else still)}
    return bool(placed) and not any(_says_something(one) for name in placed for one in findings[name])


def _says_something(finding: Finding) -> bool:
    return finding.probability is not None or bool(finding.value)


def stated_findings(task: Task, still: Prediction, *, as_stated: bool = False) -> dict[str, list[Finding]]:
    """{part: findings} of a result that is no clip; of a task without parts its part is called "".

    as_stated: with the probabilities of before calibration; what is called stays
    """
    made = dict[str, list[Finding]]()
    for name, part in leaves(task).items():
        own = still.parts[name] if name else still
        found = part.results(own)
        if as_stated and not has_place(own):
            plain = part.results(own.before_calibration)
            found = [
                replace(one, probability=p.probability, calibrated=False) for one, p in zip(found, plain, strict=True)
            ]
        made[name] = [replace(one, group=name) if name and one.group else one for one in found]
    return made


def promises(task: Task, findings: Sequence[Finding]) -> Iterator[str]:
    """What sets and intervals among the findings hold, a sentence for each coverage."""
    if any(one.possible is not None or one.low is not None or one.high is not None for one in findings):
        settings = [settings_of(part) for part in leaves(task).values()]
        for coverage in sorted({float(one["coverage"]) for one in settings if one.get("coverage")}):
            yield f"coverage of sets and intervals: {100 * coverage:.4g} % of new patients"
