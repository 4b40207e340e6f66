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
import re
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
BY_SIZE = re.compile(r"(?P<what>.*), (?P<patients>\d+) patients")
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


def reached(law: Law, done: Done, share: float) -> str:
    """The figure of a law as a cell: bold where it does not hold, with a star where luck explains it."""
    kept = done.get(key(law, draws_of(law, share)))
    if kept is None:
        return "not measured"
    figure = Figure(*(float(kept[name]) for name in ("mean", "error", "without")), int(kept["draws"]))
    text = {"no": f"**{figure.mean:.3f}**", "within luck": f"{figure.mean:.3f}*"}.get(verdict(law, figure))
    silent = f" ({figure.without:.0%} without)" if figure.without >= 0.005 else ""
    return (text or f"{figure.mean:.3f}") + silent


def table(laws: Sequence[Law], done: Done, share: float) -> str:
    """One table a claim, with a column for each number of patients where its cells end so."""
    parts: list[str] = []
    for claim in dict.fromkeys(law.claim for law in laws):
        own = [law for law in laws if law.claim == claim]
        studies = sorted({draws_of(law, share) for law in own})
        counted = " to ".join(f"{one:,}" for one in (studies if len(studies) < 3 else (studies[0], studies[-1])))
        parts.append(
            f"### {claim if claim.startswith('p ') else claim[0].upper() + claim[1:]}\n\n{counted} studies a cell.\n"
        )
        sizes = [BY_SIZE.fullmatch(law.cell) for law in own]
        known = sorted({int(one["patients"]) for one in sizes if one is not None})
        if None in sizes or len(known) < 2:
            lines = ["| circumstances | asked | reached |", "|---|---|---|"]
            lines += [f"| {law.cell} | {asked(law)} | {reached(law, done, share)} |" for law in own]
        else:
            lines = [f"| circumstances | asked | {' | '.join(f'{n} patients' for n in known)} |"]
            lines.append("|---" * (2 + len(known)) + "|")
            rows: dict[tuple[str, str], dict[int, str]] = {}
            for law, size in zip(own, sizes, strict=True):
                assert size is not None
                rows.setdefault((size["what"], asked(law)), {})[int(size["patients"])] = reached(law, done, share)
            for (what, limits), cells in rows.items():
                lines.append(f"| {what} | {limits} | {' | '.join(cells.get(n, '') for n in known)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts).strip()


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
        "misses what is asked by at most two standard errors of the simulation; in brackets the share of studies "
        "of which nothing is stated."
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
