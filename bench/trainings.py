"""Many trainings for one table: the options that such benches share, and one training as a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from watched import Watched, watched

ROOT = Path(__file__).resolve().parents[1]
# Of an evaluation after a training; and the flags of `train` that `evaluate` does not have.
LOOKS = ("--explain", "--shift", "--corruptions", "noise,blur", "--severities", "3")
OF_TRAINING = ("--set",)


def add_options(
    parser: argparse.ArgumentParser,
    out: str,
    *,
    minutes: float | Sequence[float] | None,
    of: str,
    seeds: Sequence[int] = (0,),
) -> None:
    """out: the folder of this project that holds what is written; minutes: several where a bench compares budgets;
    of: what has so many minutes"""
    several = "+" if isinstance(minutes, Sequence) else None
    parser.add_argument("--minutes", type=float, nargs=several, default=minutes, help=of)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--steps", type=int, help="in place of the minutes")
    parser.add_argument("--out", type=Path, default=ROOT / out)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--core", type=int, default=0, help="the first of the cores that a training may use")
    parser.add_argument("--resume", action="store_true", help="keep what has ended well before")
    parser.add_argument("--record", action="store_true", help="write the table to docs/benchmarks")


def looked_at(run: Path, source: Path, flags: Sequence[str], given: argparse.Namespace) -> tuple[str, bool]:
    """The report of `hilum evaluate` with all looks at the answers of a run, and whether it failed.

    flags: of the training, in pairs
    The report is "" where there is none: it failed, or took more than `given.look` minutes; 0 leaves it out.
    """
    if not given.look:
        return "", False
    out = run.with_name(f"{run.name}-evaluation")
    pairs = zip(flags[::2], flags[1::2], strict=True)
    reading = [word for flag, value in pairs if flag not in OF_TRAINING for word in (flag, value)]
    ended = _hilum(["evaluate", run, source, *reading, *LOOKS, "--out", out], out.name, given, at_most=60 * given.look)
    if ended.late or ended.returncode:
        why = f"took longer than {given.look:g} minutes" if ended.late else f"failed: see {out.name}.err in logs/"
        print(f"the evaluation of {run.name} {why}", file=sys.stderr, flush=True)
        return "", not ended.late
    return str(out / "report.html"), False


def trained(name: str, words: Sequence[object], seed: int, given: argparse.Namespace, share: int = 1) -> Watched:
    """`hilum train` with these words, in a share of the minutes, into the folder `name`."""
    print(f"=== {name}", file=sys.stderr, flush=True)
    out = given.out.resolve() / name
    out.parent.mkdir(parents=True, exist_ok=True)
    length: list[object] = [] if given.minutes is None else ["--minutes", given.minutes / share]
    if given.steps is not None:
        length = ["--set", f"training.steps={max(1, given.steps // share)}"]
    return _hilum(["train", *words, *length, "--seed", seed, "--out", out], name, given)


def _hilum(words: Sequence[object], name: str, given: argparse.Namespace, at_most: float | None = None) -> Watched:
    """The program with these words, as a process of its own whose log has this name."""
    every = [*words, "--threads", given.threads, "--overwrite"]
    return watched(
        [sys.executable, "-m", "hilum", *map(str, every)],
        environment=dict(os.environ),
        folder=ROOT,
        log=given.out.resolve() / "logs" / name,
        cores=given.threads,
        at_most=at_most,
        first_core=given.core,
    )


def kept(name: str, given: argparse.Namespace) -> dict[str, Any] | None:
    """What a training of this name has shown before, where it is to be kept."""
    file = given.out / f"{name}.json"
    return json.loads(file.read_text()) if given.resume and file.is_file() else None


def keep(name: str, shown: Any, given: argparse.Namespace) -> None:
    (given.out / f"{name}.json").write_text(json.dumps(asdict(shown)))


def summary(run: Path) -> list[dict[str, Any]]:
    """The figures of a run or an ensemble, the primary one first."""
    rows: list[dict[str, Any]] = json.loads((run / "evaluation" / "summary.json").read_text())["rows"]
    return rows


def spread(values: Sequence[float], *, sign: str = "") -> str:
    """Mean and, of several, standard deviation in brackets; sign: "+" for differences."""
    deviation = f" ({statistics.stdev(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.3f}{deviation}"
