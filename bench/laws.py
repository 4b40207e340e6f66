"""Whether what reports state holds: every statement by simulated studies, beside what is asked of it.

    OMP_NUM_THREADS=1 python bench/laws.py --resume --record
    OMP_NUM_THREADS=1 python bench/laws.py --only correlations gaps

Each file of `bench/claims` has the laws of some statements. A law is simulated many times; its mean keeps the limits,
misses them by at most two standard errors, or does not hold. `--resume` leaves out what was simulated with as many
draws, whatever the source was then: the page names the source of each table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from claims.law import Figure, Law
from environment import PLACE
from recorded import code, record

CLAIMS = Path(__file__).parent / "claims"
KEPT = PLACE / "laws.json"


def names() -> list[str]:
    """The files of laws."""
    return sorted(file.stem for file in CLAIMS.glob("*.py") if file.stem != "law")


def laws_of(name: str) -> list[Law]:
    return list(importlib.import_module(f"claims.{name}").LAWS)


def key(law: Law, draws: int) -> str:
    return f"{law.claim}: {law.cell}: {draws}"


def simulated(laws: Iterable[Law], share: float, resume: bool, known: bool) -> dict[str, dict[str, object]]:
    """{law: its figure, seconds and the source}; each is kept as soon as it is known."""
    done = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() and (resume or known) else {}
    PLACE.mkdir(exist_ok=True)
    for law in laws:
        draws = max(2, round(share * law.draws))
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
    return "within two standard errors" if off <= 2 * figure.error else "**no**"


def asked(law: Law) -> str:
    match law.low > -np.inf, law.high < np.inf:
        case True, True:
            return f"{law.low:.4g} to {law.high:.4g}"
        case True, False:
            return f"at least {law.low:.4g}"
        case False, True:
            return f"at most {law.high:.4g}"
    return ""


def table(laws: Iterable[Law], done: dict[str, dict[str, object]], share: float) -> str:
    """One table a claim, in the order of the laws."""
    lines: list[str] = []
    claim = ""
    for law in laws:
        if law.claim != claim:
            claim = law.claim
            lines += ["", f"### {claim[0].upper()}{claim[1:]}", ""]
            lines += ["| circumstances | asked | reached | standard error | studies | holds |", "|---" * 6 + "|"]
        draws = max(2, round(share * law.draws))
        kept = done.get(key(law, draws))
        if kept is None:
            lines.append(f"| {law.cell} | {asked(law)} | not measured | | | |")
            continue
        figure = Figure(*(float(kept[name]) for name in ("mean", "error", "without")), int(kept["draws"]))
        silent = f" ({figure.without:.0%} state nothing)" if figure.without >= 0.005 else ""
        reached = f"{figure.mean:.3f}{silent} | {figure.error:.3f} | {draws}"
        lines.append(f"| {law.cell} | {asked(law)} | {reached} | {verdict(law, figure)} |")
    return "\n".join(lines).strip()


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
    text = table(laws, done, given.share)
    print(text)
    minutes = sum(float(one["seconds"]) for one in done.values()) / 60
    print(f"\n{minutes:.0f} processor minutes", flush=True)
    if given.record:
        record("laws", "What reports state", text, {"minutes": minutes, "laws": done})


if __name__ == "__main__":
    main()
