"""Whether what reports state holds: every statement by simulated studies, beside what is asked of it.

    OMP_NUM_THREADS=1 python bench/laws.py --resume --record
    OMP_NUM_THREADS=1 python bench/laws.py --only correlations gaps

Each file of `bench/claims` has the laws of some statements. A law is simulated many times; its mean keeps the limits,
misses them by at most two standard errors, or does not hold. `--resume` leaves out what was simulated with as many
draws, whatever the source was then: the record names the source of each law.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from claims.law import Figure, Law
from environment import PLACE
from recorded import code, record

CLAIMS = Path(__file__).parent / "claims"
KEPT = PLACE / "laws.json"
# {law: its figure, seconds and the source}
Done = dict[str, dict[str, Any]]


def names() -> list[str]:
    """The files of laws."""
    return sorted(file.stem for file in CLAIMS.glob("*.py") if file.stem != "law")


def laws_of(name: str) -> list[Law]:
    return list(importlib.import_module(f"claims.{name}").LAWS)


def draws_of(law: Law, share: float) -> int:
    return max(2, round(share * law.draws))


def key(law: Law, draws: int) -> str:
    return f"{law.claim}: {law.cell}: {draws}"


def simulated(laws: Iterable[Law], share: float, resume: bool, known: bool) -> Done:
    """What is known of the laws; each figure is kept as soon as it is known."""
    done: Done = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() and (resume or known) else {}
    PLACE.mkdir(exist_ok=True)
    for law in laws:
        draws = draws_of(law, share)
        if known or key(law, draws) in done:
            continue
        began = time.process_time()
        figure = Figure.of(law.studied(draws))
        seconds = time.process_time() - began
        done[key(law, draws)] = {**asdict(figure), "seconds": seconds, "code": code()}
        KEPT.write_text(json.dumps(done), encoding="utf-8")
        print(f"{law.claim}: {law.cell}: {figure.mean:.4f} ({seconds:.1f} s), {verdict(law, figure)}", flush=True)
    return done


def verdict(law: Law, figure: Figure) -> str:
    """Whether the figure keeps the limits; what misses them by less than luck explains says so."""
    if law.low == -np.inf and law.high == np.inf:
        return ""
    if law.holds(figure.mean):
        return "yes"
    off = max(law.low - figure.mean, figure.mean - law.high)
    return "within luck" if off <= 2 * figure.error else "no"


def asked(law: Law) -> str:
    match law.low > -np.inf, law.high < np.inf:
        case True, True:
            return f"{law.low:.4g} to {law.high:.4g}"
        case True, False:
            return f"at least {law.low:.4g}"
        case False, True:
            return f"at most {law.high:.4g}"
    return ""


def figure_of(law: Law, done: Done, share: float) -> Figure | None:
    """The figure of a law; None where it was not measured."""
    kept = done.get(key(law, draws_of(law, share)))
    if kept is None:
        return None
    return Figure(*(float(kept[name]) for name in ("mean", "error", "without")), int(kept["draws"]))


def missed(law: Law, figure: Figure) -> str:
    """The circumstances in which a law is missed, and its figure: bold, or with a star where luck explains it."""
    marked = {"no": f"**{figure.mean:.3f}**", "within luck": f"{figure.mean:.3f}*"}.get(verdict(law, figure))
    return f"{law.cell} {marked}" if marked else ""


def table(laws: Sequence[Law], done: Done, share: float) -> str:
    """A row for each claim and what is asked of it: cells, their lowest and highest figure, and those that miss it."""
    lines = ["| statement | studies a cell | asked | cells | reached | missed by |", "|---|---|---|---|---|---|"]
    rows: dict[tuple[str, str], list[tuple[Law, Figure | None]]] = {}
    for law in laws:
        rows.setdefault((law.claim, asked(law)), []).append((law, figure_of(law, done, share)))
    before = ""
    for (claim, limits), cells in rows.items():
        stated, before = "" if claim == before else sentence(claim), claim  # once, above its further rows
        known = [(law, figure) for law, figure in cells if figure is not None]
        if not known:
            lines.append(f"| {stated} | | {limits} | {len(cells)} | not measured | |")
            continue
        means = [figure.mean for _, figure in known]
        reached = f"{min(means):.3f} to {max(means):.3f}" if len(set(means)) > 1 else f"{means[0]:.3f}"
        draws = sorted({figure.draws for _, figure in known})
        studies = " to ".join(f"{one:,}" for one in dict.fromkeys((draws[0], draws[-1])))
        short = "; ".join(filter(None, (missed(law, figure) for law, figure in known)))
        lines.append(
            f"| {sentence(claim)} | {studies} | {limits or 'for comparison'} | {len(cells)} | {reached} | {short} |"
        )
    return "\n".join(lines)


def sentence(claim: str) -> str:
    """A claim as the start of a row; "p" stays small."""
    return claim if claim.startswith("p ") else claim[0].upper() + claim[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="FILE", choices=names(), help="files of bench/claims")
    parser.add_argument("--share", type=float, default=1.0, help="of the draws of each law, for a trial")
    parser.add_argument("--resume", action="store_true", help="leave out what was simulated before")
    parser.add_argument("--known", action="store_true", help="simulate nothing more; tables of what is known")
    parser.add_argument("--record", action="store_true", help="write the tables to docs/benchmarks")
    given = parser.parse_args()
    laws = [law for name in given.only or names() for law in laws_of(name)]
    done = simulated(laws, given.share, given.resume, given.known)
    wanted = {key(law, draws_of(law, given.share)) for law in laws}
    done = {name: one for name, one in done.items() if name in wanted}
    minutes = sum(float(one["seconds"]) for one in done.values()) / 60
    about = (
        f"Means of simulated studies, {minutes:.0f} processor minutes in all. **Bold** does not hold; a star (*) "
        "misses what is asked by at most two standard errors of the simulation. Each cell, its standard error and the "
        "share of studies of which nothing is stated are in `bench/results/laws.json`."
    )
    text = f"{about}\n\n{table(laws, done, given.share)}"
    print(text)
    if given.record:
        # A line a law: the mean, its standard error, the share without a statement, studies, and the source.
        plain = {
            name: f"{one['mean']:.4f} {one['error']:.4f} {one['without']:.3f} {one['draws']} {one['code']}"
            for name, one in done.items()
        }
        record("laws", "What reports state", text, {"minutes": minutes, "laws": plain})


if __name__ == "__main__":
    main()
