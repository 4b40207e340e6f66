"""Length, least diameter and narrowing of simulated tubes whose truth is known.

    python bench/tubes.py [--count 48] [--first 0] [--record]

Each seed draws the voxels (in 3D of equal sides, or of slices 2 to 2.4 times as thick), radius (2 to 9 voxels),
direction, bend, ends, taper, a fork, wrong voxels at the surface (5 to 20 % in every third tube) and, in the second
half, a narrowing of 20 to 70 %, short or long (`tests/simulated_tubes.py`).
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
from environment import ROOT
from recorded import record

from hilum.evaluation import vessel_diameters

sys.path.insert(0, str(ROOT / "tests"))
import simulated_tubes

# The seed itself draws the direction and the bend first; those below chose the constants.
CHOSEN_ON = "1000 to 1039, in 2D 2000 to 2039"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=48, help="tubes of each kind")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--record", action="store_true", help="write the figures into the findings")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.count)
    rows = {
        "volumes, no narrowing": _measure(seeds, narrowed=False, axes=3),
        "volumes, narrowed": _measure(seeds, narrowed=True, axes=3),
        "pictures, no narrowing": _measure(seeds, narrowed=False, axes=2),
        "pictures, narrowed": _measure(seeds, narrowed=True, axes=2),
    }
    lines = [
        "| tubes | length off by more than 2 mm; at most | above 4 %; at most | least diameter off, mean of voxels |"
        " percent off, mean; at most |",
        "|---|---|---|---|---|",
        *(f"| {given.count} {name} | {' | '.join(_cells(row))} |" for name, row in rows.items()),
    ]
    print("\n".join(lines))
    if given.record:
        record("tubes", "Simulated tubes of known diameter", "\n".join(lines), {"chosen_on": CHOSEN_ON, "rows": rows})


def _measure(seeds: range, *, narrowed: bool, axes: int) -> dict[str, Any]:
    """What was found less what is true: mm of length, voxels of the least diameter, percent."""
    lengths, diameters, percents = [], [], []
    began = time.process_time()
    for seed in seeds:
        tube = simulated_tubes.draw_tube(seed, narrowed=narrowed, axes=axes)
        found = vessel_diameters.narrowing(tube.mask, tube.spacing)
        lengths.append(found.length - tube.length)
        diameters.append((found.least_diameter - tube.least_diameter) / min(tube.spacing))
        percents.append(found.percent - tube.percent)
    return {
        "narrowed": narrowed,
        "length": lengths,
        "diameter": diameters if narrowed else [],
        "percent": percents,
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def _cells(row: dict[str, Any]) -> list[str]:
    lengths, percents = np.abs(row["length"]), np.array(row["percent"])
    off = f"{np.count_nonzero(~(lengths <= 2))}; {np.nanmax(lengths):.1f}"
    if not row["narrowed"]:
        return [off, f"{np.count_nonzero(~(percents <= 4))}; {np.nanmax(percents):.1f}", "", ""]
    return [
        off,
        "",
        f"{np.mean(np.abs(row['diameter'])):.2f}",
        f"{np.mean(abs(percents)):.1f}; {abs(percents).max():.1f}",
    ]


if __name__ == "__main__":
    main()
