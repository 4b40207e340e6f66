"""Times to an event or to the last contact: impossible ones, too few events, mixed units."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from hilum import errors
from hilum.values import (
    Case,
    CaseReference,
    Cohort,
    Fingerprint,
    Floats,
    Problem,
    ReferenceChecks,
    ReferenceFacts,
    ReferenceKind,
    ReferenceWords,
)
from hilum.values.plain_values import PlainValue
from hilum.values.reference_kind import ReferenceStrata

KIND = "event"

# Events below which a multivariable model is hardly more than chance (events per variable; van Smeden et al., BMC Med
# Res Methodol 2016, doi:10.1186/s12874-016-0267-3, on why no such number is a law).
FEW_EVENTS = 10
# In days and months side by side times differ thirtyfold. A gap of a factor 5 within which nobody lies, with five cases
# and a tenth of all on either side, is seen in one of 3000 sets of exponential times (5^-5 of the smallest of them:
# Rényi, 1953), and times written in whole units beside times with decimals are told apart by less.
GAP, FEWEST_OF_UNIT, SHARE_OF_UNIT, WRITTEN_APART = 5.0, 5, 0.1, 10.0
ORIGIN = "Times count from the image on"


def _answers(summary: Any) -> Mapping[str, tuple[float, bool]]:
    time, happened = summary
    return {"": (float(time), bool(happened))}


def _record(summary: Any) -> Mapping[str, PlainValue]:
    time, happened = summary
    return {"time": float(time), "happened": bool(happened)}


def _count(fingerprint: Fingerprint) -> Mapping[str, int]:
    _, happened = fingerprint.events()
    return {"cases": len(happened), "events": int(happened.sum())}


def _unusable(reference: CaseReference) -> Iterator[Problem]:
    """Why a time with or without an event teaches nothing."""
    time = float(reference.value[0])
    if math.isfinite(time) and time > 0:
        return
    what = "not a number" if not math.isfinite(time) else "0" if time == 0 else "negative"
    yield Problem.error(
        f"the time to the event or to the last contact is {what}",
        (reference.case,),
        "nobody was followed for such a time",
        f"{ORIGIN}: correct it, or leave the case out",
    )


def _cohort_problems(cohort: Cohort) -> Iterator[Problem]:
    """Whether anybody had the event, whether times differ, and whether they are in one unit."""
    events = cohort.summaries(KIND)
    if not events:
        return
    ids = {case.id for case in cohort.training.cases}
    training = [event for case, event in events.items() if case in ids]
    which = "" if len(training) == len(events) else "training "
    had = sum(bool(happened) for _, happened in training)
    # A set with other references can still teach those.
    severity: Literal["error", "warning"] = "error" if cohort.dataset.kinds == {KIND} else "warning"
    if training and not had:
        yield Problem(
            severity,
            f"all {len(training)} {which}cases are censored: nobody had the event",
            (),
            "there is nothing to predict",
            "Look at which value of the column means that it happened, or follow the cases for longer",
        )
    elif had < FEW_EVENTS:
        yield Problem.warning(
            f"{had} of {errors.count_phrase(len(training), f'{which}case')} had the event",
            (),
            "so few events allow little training and testing, however many cases there are",
            "Add cases with the event, or follow them for longer",
        )
    if len(training) > 1 and len({float(time) for time, _ in training}) == 1:
        yield Problem(
            severity,
            f"all {len(training)} {which}times are {float(training[0][0]):g}",
            (),
            "no case can be ordered before another",
            "Look at what the column holds",
        )
    yield from _units({case: float(time) for case, (time, _) in events.items()})


def _units(times: Mapping[str, float]) -> Iterator[Problem]:
    """Times that seem to be written in several units, such as days and months."""
    names, values = np.array(list(times)), np.array(list(times.values()))
    signs = ((_by_writing, "the ones with decimals and the others whole"), (_by_gap, "with nothing between them"))
    for sign, how in signs:
        if (short := sign(values)) is None:
            continue
        small, large = values[short], values[~short]
        smaller = short if short.sum() <= (~short).sum() else ~short
        yield Problem.warning(
            f"times seem to be in two units: {errors.count_phrase(int(short.sum()), 'time')} with a median of "
            f"{np.median(small):g}, {len(large)} with a median of {np.median(large):g}, {how}",
            tuple(names[smaller].tolist()),
            "a month would count as a day",
            "Look at these cases, and write all times in one unit",
        )
        return


def _by_writing(values: Floats) -> np.ndarray | None:
    """(cases,) whether a time is in the larger unit, by decimals among whole numbers; None without such signs."""
    is_integer = values == np.round(values)
    if not _both(is_integer):
        return None
    apart = np.median(values[is_integer]) / np.median(values[~is_integer])
    return ~is_integer if apart >= WRITTEN_APART else is_integer if apart <= 1 / WRITTEN_APART else None


def _by_gap(values: Floats) -> np.ndarray | None:
    """(cases,) whether a time is in the larger unit, by an empty stretch between them; None where there is none."""
    ranked = np.sort(values)
    largest_gap = int(np.argmax(ranked[1:] / ranked[:-1])) if len(ranked) > 1 else 0
    short = values <= ranked[largest_gap]
    return short if _both(short) and ranked[largest_gap + 1] >= GAP * ranked[largest_gap] else None


def _both(smaller: np.ndarray) -> bool:
    fewest = min(int(smaller.sum()), int((~smaller).sum()))
    return fewest >= max(FEWEST_OF_UNIT, SHARE_OF_UNIT * len(smaller))


def _strata(cases: Sequence[Case]) -> Mapping[str, Sequence[str]]:
    events = {case.id: case.references[KIND] for case in cases if KIND in case.references}
    return {case: ["event" if happened else "censored"] for case, (_, happened) in events.items()}


def _lines(cohort: Cohort) -> Mapping[str, str]:
    times, happened = cohort.fingerprint.events()
    if not len(times):
        return {}
    cases = errors.count_phrase(len(times), "case")
    return {"events": f"{happened.sum()} of {cases}, at times from {min(times):g} to {max(times):g}"}


EVENT = ReferenceKind(
    KIND,
    ReferenceFacts(answers=_answers, is_measured=True, recorded=_record, counted=_count),
    ReferenceChecks(_unusable, cohort=_cohort_problems),
    ReferenceStrata(_strata, rank=1),
    ReferenceWords("times", "times to the event can be told", _lines),
)
