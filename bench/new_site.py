"""How often the interval of a new site holds its value, by 1,000 simulated meta-analyses of 5 and of 10 sites.

    OMP_NUM_THREADS=1 python bench/new_site.py --record

The laws are those of `bench/claims/new_sites.py`, which `bench/laws.py` and the test suite simulate too.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from claims.law import Figure
from claims.new_sites import LAWS, LEAST_ERROR, MOST_ERROR
from laws import verdict
from recorded import record

TEXT = (
    "1,000 simulated meta-analyses a row. The figure of each site has an error of {least:g} to {most:g}; the standard "
    "deviation of true figures between sites is so many mean errors. Asked: the interval holds the true figure of a "
    "further site in .93 to .97. It does so where sites differ by two errors of a figure or more, or not at all; where "
    "they differ by about one error or half of it, tau^2 is often estimated as 0 and the interval is too short."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write the figures into docs/benchmarks")
    given = parser.parse_args()
    figures = {law.cell: (law, Figure.of(law.studied(law.draws))) for law in LAWS}
    lines = ["| meta-analyses | a new site's value is within | standard error | .93 to .97 |", "|---|---|---|---|"]
    for cell, (law, figure) in figures.items():
        lines.append(f"| {cell} | {figure.mean:.3f} | {figure.error:.3f} | {verdict(law, figure)} |")
    text = "\n".join([TEXT.format(least=LEAST_ERROR, most=MOST_ERROR), "", *lines])
    print(text)
    if given.record:
        record("new_site", "A new site", text, {"cells": {cell: asdict(one) for cell, (_, one) in figures.items()}})


if __name__ == "__main__":
    main()
