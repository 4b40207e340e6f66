"""Coarser grids for pictures, where the minutes show each of them to training a few times only."""

from __future__ import annotations

import math
from collections.abc import Mapping

from isocenter.planning.machine import Machine, kind_of
from isocenter.tasks import COARSEST
from isocenter.values import Decision, Fingerprint

REDUCTION = "preprocessing.reduction"
# Pixels from which a core, or a GPU, learns in a second: on two cores a step of four patches of 256 x 256 took .5 s; of
# a GPU it was not measured.
PIXELS_A_SECOND = {"cpu": 2.5e5, "gpu": 2e7}
# With fewer looks at each picture a coarser grid learns more. Vessels of a retina with 9 looks: Dice .685, on a grid
# half as fine .763; with 22 looks .798 and .801 (`python bench/choices.py reductions`, one seed).
ENOUGH_LOOKS = 20


def in_haste(
    stated: Mapping[str, Decision], fingerprint: Fingerprint, machine: Machine, minutes: float | None
) -> dict[str, Decision]:
    """A task's decisions without how coarse the grid may be, and with a coarser one where the minutes are few.

    minutes: of one training; None where none were given
    """
    made = dict(stated)
    coarsest, own = made.pop(COARSEST, None), made.get(REDUCTION)
    if coarsest is None or own is None or minutes is None:
        return made
    pixels = sum(math.prod(case.shape) for case in fingerprint.cases)
    each = PIXELS_A_SECOND[kind_of(machine.device)] * (machine.threads if machine.is_processor else 1)
    looks = 60 * minutes * each / pixels
    factors = range(int(own.value), int(coarsest.value) + 1)
    factor = next((float(one) for one in factors if looks * one**2 >= ENOUGH_LOOKS), float(coarsest.value))
    if factor > own.value:
        because = (
            f"on a grid {factor / own.value:g} times as fine, {minutes:g} minutes would show the network each picture "
            f"about {looks * own.value**2:.0f} times; on this grid they show it "
            f"{looks * factor**2:.0f} times, and it learns more"
        )
        made[REDUCTION] = Decision(factor, because)
    return made
