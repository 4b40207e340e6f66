"""Peers and Hilum side by side: the same data, the same threads, one after the other in turn, several times.

    python = peer("nnunet")                                     # an environment of its own, made on first use
    ours = Program("Hilum", [sys.executable, "bench/side_ours.py", "..."])
    theirs = Program("nnU-Net", [str(python), "bench/side_nnunet.py", "..."])
    table = interleaved([ours, theirs], repeats=5, threads=2)   # one row a run
    print(markdown(table)); print(ratio(table, "Hilum", "nnU-Net", "seconds"))

A program may say what it measured itself by a JSON object as its last line of standard output. Programs take turns, so
that a machine which grows slow does so for all; every second round goes backwards, so that none is always the first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from environment import PLACE, ROOT, PeerError, peer, peers, versions
from machine import described
from recorded import record
from watched import watched

from hilum.values import Estimate

__all__ = [
    "DATA",
    "HILUM",
    "PLACE",
    "ROOT",
    "PeerError",
    "Program",
    "arguments",
    "described",
    "failures",
    "interleaved",
    "markdown",
    "peer",
    "peers",
    "ratio",
    "record",
    "versions",
]

DATA = ROOT.parent / "shared" / "data"
# Our command line, as installed beside the Python that runs the bench.
HILUM = str(Path(sys.executable).with_name("hilum"))
# Every library that makes threads of its own, and the variable by which it is told how many.
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "BLOSC_NTHREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)

# Of this process, not of a user's: without compiled files a program from a checkout compiles itself at every start,
# which one that was installed does not.
NOT_HANDED_ON = ("OMP_", "GOMP_", "KMP_", "PYTHONDONTWRITEBYTECODE")

# Letters of a failure in a table; all of it is in the log.
LONGEST = 60

# What the system tells of a run; not a number where it could not be started.
MEASURED = ("seconds", "peak_mib", "peak_rss_mib", "peak_pss_mib", "processes", "cpu_seconds")


@dataclass(frozen=True)
class Program:
    """One side of a comparison: a command that is run as a process of its own.

    env: variables beside those of this process; folder: where it runs; at_most: seconds until it is ended;
    first_core: of the cores that it is held to, where others have those before it
    """

    name: str
    command: Sequence[str]
    env: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None
    at_most: float | None = None
    first_core: int = 0


def interleaved(programs: Sequence[Program], repeats: int, threads: int) -> pd.DataFrame:
    """One row a run: program, repeat, seconds, peak memory, returncode, what it said, and the problem if it failed.

    peak_mib:     peak memory of the whole process tree: exact for one process; for several, pages that they share
                  counted once, which is a little low because it is looked at now and then
    peak_rss_mib: the same with shared pages counted in each process
    peak_pss_mib: with shared pages counted once; 0 where the system does not tell
    A run that fails is a row with `problem`, never left out.
    """
    rows = []
    for repeat in range(repeats):
        for program in programs if repeat % 2 == 0 else reversed(programs):
            row = _run(program, repeat, threads)
            output = row["problem"] or f"{row['seconds']:.2f} s, {row['peak_mib']:.0f} MiB"
            print(f"{program.name}, run {repeat + 1} of {repeats}: {output}", file=sys.stderr, flush=True)
            rows.append(row)
    return pd.DataFrame(rows)


def ratio(table: pd.DataFrame, ours: str, peer: str, column: str) -> Estimate:
    """How many times more of `column` the peer takes than we do: above 1 we are better off.

    The median over the repeats of peer / ours within a round, with the lowest and the highest. A column that the
    programs said themselves is found by its name too.
    Raises ValueError where no round has both.
    """
    wide = _values(table, column).unstack("program")
    if ours not in wide or peer not in wide or wide[[ours, peer]].dropna().empty:
        raise ValueError(f"no round in which both {ours} and {peer} told {column}")
    pairs = wide[[ours, peer]].dropna()
    found = sorted((pairs[peer] / pairs[ours]).tolist())
    method = "median of the rounds; lowest and highest"
    return Estimate(statistics.median(found), found[0], found[-1], level=1.0, n=len(found), method=method)


def markdown(table: pd.DataFrame, columns: dict[str, str] | None = None) -> str:
    """One row a program: the median of each column and, in brackets, the lowest and the highest.

    columns: column to heading; seconds and peak memory unless given
    """
    columns = columns or {"seconds": "seconds", "peak_mib": "peak memory, MiB"}
    lines = [f"| program | {' | '.join(columns.values())} | runs |", "|---" * (len(columns) + 2) + "|"]
    for name, runs in table.groupby("program", sort=False):
        good = runs[runs["problem"] == ""]
        cells = [_cell(_values(good, column).tolist()) for column in columns]
        bad = runs.loc[runs["problem"] != "", "problem"].tolist()
        count = f"{len(good)}" + (f", {len(bad)} failed: {bad[0][:LONGEST]}" if bad else "")
        lines.append(f"| {name} | {' | '.join(cells)} | {count.replace('|', '/')} |")
    return "\n".join(lines)


def failures(table: pd.DataFrame) -> list[str]:
    """Each run that failed, in words."""
    bad = table[table["problem"] != ""]
    return [f"{row['program']}, run {row['repeat'] + 1}: {row['problem']}" for _, row in bad.iterrows()]


def arguments(doc: str, *, repeats: int = 5) -> argparse.ArgumentParser:
    """The options that every part has."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a trial of seconds, which measures nothing")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/benchmarks")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the test data")
    return parser


def _run(program: Program, repeat: int, threads: int) -> dict[str, Any]:
    name = re.sub(r"[^A-Za-z0-9]+", "-", program.name).strip("-")
    log = PLACE / "log" / f"{Path(sys.argv[0]).stem or 'bench'}-{name}-{repeat}.log"
    values = dict.fromkeys(THREADS, str(threads))
    clean = {key: value for key, value in os.environ.items() if not key.startswith(NOT_HANDED_ON)}
    command, folder = [str(part) for part in program.command], program.folder or ROOT
    row: dict[str, Any] = {"program": program.name, "repeat": repeat}
    try:
        found = watched(
            command,
            environment={**clean, **values, **program.env},
            folder=folder,
            log=log,
            cores=threads,
            at_most=program.at_most,
            first_core=program.first_core,
        )
    except OSError as error:
        nothing = dict.fromkeys(MEASURED, float("nan"))
        return {**row, **nothing, "returncode": -1, "said": None, "problem": f"could not be started: {error}"}
    problem = ""
    if found.late:
        problem = f"ended after {program.at_most:g} s"
    elif found.returncode:
        problem = f"ended with {found.returncode}: {_last(log.with_suffix('.err'))}"
    measured = {key: value for key, value in vars(found).items() if key != "late"}
    return {**row, **measured, "said": _output_of(log.with_suffix(".out")), "problem": problem}


def _values(table: pd.DataFrame, column: str) -> pd.Series:
    """(program, repeat) -> number, of the runs that did not fail."""
    good = table[table["problem"] == ""]
    index = pd.MultiIndex.from_frame(good[["program", "repeat"]])
    if column in good:
        return pd.Series(good[column].to_numpy(), index=index).dropna()
    values = [output.get(column) if isinstance(output, dict) else None for output in good["said"]]
    return pd.Series(pd.to_numeric(pd.Series(values, dtype=object)).to_numpy(), index=index).dropna()


def _cell(values: list[float]) -> str:
    if not values:
        return "not measured"
    if len(values) == 1:
        return _digits(values[0])
    return f"{_digits(statistics.median(values))} ({_digits(min(values))} to {_digits(max(values))})"


def _digits(value: float) -> str:
    """Three digits that count, and no powers of ten."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _output_of(out: Path) -> dict[str, Any] | None:
    for line in reversed(out.read_text(encoding="utf-8", errors="replace").splitlines()):
        if line.startswith("{"):
            try:
                return dict(json.loads(line))
            except ValueError:
                continue
    return None


def _last(err: Path) -> str:
    lines = [line for line in err.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "nothing was said"
