"""References that say when something happened, or until when it had not: of one case, and beside each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from isocenter.errors import counted
from isocenter.values import Dataset, Fingerprint, Floats, Problem

# Events below which a multivariable model is hardly more than chance (events per variable; van Smeden et al., BMC Med
# Res Methodol 2016, doi:10.1186/s12874-016-0267-3, on why no such number is a law).
FEW_EVENTS = 10
# In days and months side by side times differ thirtyfold. A gap of a factor 5 within which nobody lies, with five cases
# and a tenth of all on either side, is seen in one of 3000 sets of exponential times (5^-5 of the smallest of them:
# Rényi, 1953), and times written in whole units beside times with decimals are told apart by less.
GAP, FEWEST_BESIDE, SHARE_BESIDE, WRITTEN_APART = 5.0, 5, 0.1, 10.0
ORIGIN = "Times count from the image on"


def unusable_event(case: str, reference: tuple[Any, Any]) -> Iterator[Problem]:
    """Why a time with or without an event teaches nothing."""
    time = float(reference[0])
    if math.isfinite(time) and time > 0:
        return
    what = "no number" if not math.isfinite(time) else "0" if time == 0 else "negative"
    yield Problem(
        "error",
        f"the time to the event or to the last contact is {what}",
        (case,),
        "nobody was followed for such a time",
        f"{ORIGIN}: correct it, or leave the case out",
    )


def events(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """Whether anybody had the event, whether times differ, and whether they are in one unit."""
    found = {one.id: one.references["event"] for one in fingerprint.cases if "event" in one.references}
    if not found:
        return
    training = [found[case] for case in found if dataset.splits.get(case, "train") == "train"]
    which = "" if len(training) == len(found) else "training "
    had = sum(bool(happened) for _, happened in training)
    # A set with other references can still teach those.
    severity: Literal["error", "warning"] = "error" if dataset.kinds == {"event"} else "warning"
    if training and not had:
        yield Problem(
            severity,
            f"all {len(training)} {which}cases are censored: nobody had the event",
            (),
            "there is nothing to foretell",
            "Look at which value of the column means that it happened, or follow the cases for longer",
        )
    elif had < FEW_EVENTS:
        yield Problem(
            "warning",
            f"{had} of {counted(len(training), f'{which}case')} had the event",
            (),
            "so few teach and test little, however many cases there are",
            "Add cases with the event, or follow them for longer",
        )
    if len(training) > 1 and len({float(time) for time, _ in training}) == 1:
        yield Problem(
            severity,
            f"all {len(training)} {which}times are {float(training[0][0]):g}",
            (),
            "nobody had the event before anybody else",
            "Look at what the column holds",
        )
    yield from _units({case: float(time) for case, (time, _) in found.items()})


def _units(times: Mapping[str, float]) -> Iterator[Problem]:
    """Times that seem to be written in several units, such as days and months."""
    names, values = np.array(list(times)), np.array(list(times.values()))
    tells = ((_by_writing, "the ones with decimals and the others whole"), (_by_gap, "with nothing between them"))
    for tell, how in tells:
        if (short := tell(values)) is None:
            continue
        small, large = values[short], values[~short]
        smaller = short if short.sum() <= (~short).sum() else ~short
        yield Problem(
            "warning",
            f"times seem to be in two units: {counted(int(short.sum()), 'time')} with a median of "
            f"{np.median(small):g}, {len(large)} with a median of {np.median(large):g}, {how}",
            tuple(names[smaller].tolist()),
            "a month would count as a day",
            "Look at these cases, and write all times in one unit",
        )
        return


def _by_writing(values: Floats) -> np.ndarray | None:
    """Which times are in the larger unit, as decimals beside whole numbers tell; None where they do not."""
    whole = values == np.round(values)
    if not _both(whole):
        return None
    apart = np.median(values[whole]) / np.median(values[~whole])
    return ~whole if apart >= WRITTEN_APART else whole if apart <= 1 / WRITTEN_APART else None


def _by_gap(values: Floats) -> np.ndarray | None:
    """Which times are in the larger unit, as an empty stretch between few and many tells; None where there is none."""
    ranked = np.sort(values)
    place = int(np.argmax(ranked[1:] / ranked[:-1])) if len(ranked) > 1 else 0
    short = values <= ranked[place]
    return short if _both(short) and ranked[place + 1] >= GAP * ranked[place] else None


def _both(one: np.ndarray) -> bool:
    fewest = min(int(one.sum()), int((~one).sum()))
    return fewest >= max(FEWEST_BESIDE, SHARE_BESIDE * len(one))
