"""Dice against wall time: Hilum beside nnU-Net, from raw files to the finished model, on one split.

    python bench/time_to_dice.py --minutes 5 10 20 60 --seeds 0 1 2 --record
    python bench/time_to_dice.py --at-once --threads 1 --programs Hilum "nnU-Net, float32" --record

160 hippocampus volumes train, the same 40 are kept out for both. The minutes of either side count everything: starting,
reading, planning, preparing, training, the model on disk; the cache of prepared cases is empty at the start. Neither
looks at the 40 before its model is finished, and predicting them is not in the minutes. nnU-Net's polynomial rate
reaches zero at the end of its minutes, and what its stock trainer does beside training is left out (see
`bench/sides/nnunet_train.py`), so that its minutes are all used. Of the variants of nnU-Net `float32` is what it does
on a processor; `bf16`, `float32-compiled` and `bf16-compiled` are what it could do. Programs take turns, or with
--at-once run side by side, each on cores of its own.

Each training is one line of `.bench/work/time_to_dice/results.jsonl` when it is done, the failed ones too. A bench
that was interrupted goes on after the lines of the same source and options, and nnU-Net's trainings are not repeated
because ours changed; what was measured before is said, with its day. `--anew` forgets all.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import itertools
import json
import os
import shutil
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
from agreement import compared
from beside import PLACE, ROOT, arguments, record, versions
from beside_nnunet import NNUNET, OURS, SIDES, raced
from raw import LABELS, Raw, hippocampus
from recorded import code
from swayed import marked

PICTURE = ROOT / "docs" / "images" / "time_to_dice.png"


def main() -> None:
    given = _arguments()
    work = PLACE / "work" / f"time_to_dice{'-small' * given.small}"
    if given.small:
        given.minutes, given.seeds = [0.5], given.seeds[:1]
    if given.anew:
        shutil.rmtree(work, ignore_errors=True)
    done = work / "results.jsonl"
    if not given.tell:
        _measure(work, done, given)
    rows = _wanted(_results(done), given)
    how = "at the same time, each on cores of its own" if given.at_once else "one after the other"
    threads = f"{given.threads} thread{'s' * (given.threads > 1)}"
    words = f"{marked('hippocampus', 'Hippocampus.')} The programs ran {how}; each had {threads}."
    text = "\n\n".join([words, _table(rows), *_sources(rows), *_speed(rows), *_failures(rows)])
    print(text)
    if given.record:
        _plot(rows, PICTURE)
        picture = f"![Dice against minutes of wall time](../images/{PICTURE.name})"
        data = {"runs": rows, "peer": versions("nnunet")}
        record("time_to_dice", "Dice against wall time", f"{text}\n\n{picture}", data)


def _measure(work: Path, done: Path, given: argparse.Namespace) -> None:
    """Every training that is not in the results yet."""
    raw = hippocampus(given.data, work / "raw", train=12 if given.small else None, test=2 if given.small else None)
    # At once, each program has a lane of its own; else all are in one and take turns.
    lanes = [[side] for side in given.programs] if given.at_once else [given.programs]
    with ThreadPoolExecutor(len(lanes)) as pool:
        for lane in [pool.submit(_lane, sides, number, raw, done, given) for number, sides in enumerate(lanes)]:
            lane.result()


def _lane(sides: list[str], lane: int, raw: Raw, done: Path, given: argparse.Namespace) -> None:
    """The trainings of these programs one after the other, on the cores of this lane."""
    folder, first = done.parent / f"run-{lane}", lane * given.threads
    for number, (minutes, seed) in enumerate(itertools.product(sorted(given.minutes), given.seeds)):
        # Sides take turns, and every second time the other way round.
        for side in sides if number % 2 == 0 else reversed(sides):
            job = {"side": side, "minutes": minutes, "seed": seed, **_measured(side, given)}
            before = [one for one in _results(done) if job.items() <= one.items() and not one["problem"]]
            if before:
                print(f"{side}, {minutes:g} min, seed {seed}: measured before, on {before[0]['day']}", file=sys.stderr)
                continue
            found = {
                **job,
                "day": f"{datetime.datetime.now():%Y-%m-%d}",
                **_trained(side, minutes, seed, raw, folder, first, given),
            }
            with done.open("a") as file:
                file.write(json.dumps(found) + "\n")
            text = found["problem"] or f"Dice {found['dice']:.4f} after {found['seconds'] / 60:.2f} min"
            print(f"{side}, {minutes:g} min, seed {seed}: {text}", file=sys.stderr, flush=True)


def _measured(side: str, given: argparse.Namespace) -> dict[str, Any]:
    """What a figure of this side depends on."""
    machine = {"threads": given.threads, "at_once": given.at_once}
    if side == OURS:
        return {"code": code(), "options": given.ours, **machine}
    script = hashlib.sha256((SIDES / "nnunet_train.py").read_bytes()).hexdigest()[:10]
    return {"code": script, "options": [], **machine}


def _trained(
    side: str, minutes: float, seed: int, raw: Raw, folder: Path, first_core: int, given: argparse.Namespace
) -> dict[str, Any]:
    """One training, its prediction of the cases kept out, and their Dice; a failure in words."""
    found = raced(side, minutes, seed, raw, folder, threads=given.threads, first_core=first_core, options=given.ours)
    if found["problem"]:
        return {**found, "dice": None}
    scores = compared(folder / "predicted", raw.references, LABELS)
    missing = scores[scores["problem"] != ""]
    each = {name: float(scores[name].mean()) for name in LABELS}
    found |= {
        "dice": statistics.fmean(each.values()),
        **each,
        "cases": len(scores),
    }
    if len(missing):
        found["problem"] = "; ".join(f"{row['case']}: {row['problem']}" for _, row in missing.iterrows())
    return found


def _results(file: Path) -> list[dict[str, Any]]:
    """The latest result of each job."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    names = ("side", "minutes", "seed", "code", "options", "threads", "at_once")
    return list({str([one[name] for name in names]): one for one in lines}.values())


def _wanted(results: list[dict[str, Any]], given: argparse.Namespace) -> list[dict[str, Any]]:
    """Those of these programs and options; with --tell the latest of each, whatever source of ours it measured."""
    known = {side: _measured(side, given) for side in given.programs}
    if given.tell:
        known = {side: {key: one for key, one in job.items() if key != "code"} for side, job in known.items()}
    fitting = [one for one in results if one["side"] in known and known[one["side"]].items() <= one.items()]
    return list({(one["side"], one["minutes"], one["seed"]): one for one in fitting}.values())


def _sources(rows: list[dict[str, Any]]) -> list[str]:
    """What was measured on which source of ours, where that is not one."""
    table = pd.DataFrame([one for one in rows if one["side"] == OURS])
    if table.empty or table["code"].nunique() < 2:
        return []
    each = [
        f"{', '.join(f'{minutes:g}' for minutes in sorted(found['minutes'].unique()))} minutes at {code}"
        for code, found in table.groupby("code", sort=False)
    ]
    return [f"{OURS} was measured on different days and sources (git tree of `src`): {'; '.join(each)}."]


def _table(rows: list[dict[str, Any]]) -> str:
    classes = " | ".join(f"Dice {name}" for name in LABELS)
    lines = [
        f"| minutes asked | program | mean Dice | {classes} | each seed | minutes taken | steps | peak memory, MiB |",
        "|---" * (7 + len(LABELS)) + "|",
    ]
    for (minutes, side), found in pd.DataFrame(rows).groupby(["minutes", "side"], sort=True):
        good = found[found["problem"] == ""]
        if good.empty:
            lines.append(f"| {minutes:g} | {side} | not measured |" + " |" * (4 + len(LABELS)))
            continue
        each = " | ".join(f"{good[name].mean():.4f}" for name in LABELS)
        seeds, taken = (
            ", ".join(f"{one:.4f}" for one in good["dice"]),
            ", ".join(f"{s / 60:.2f}" for s in good["seconds"]),
        )
        steps = ", ".join(str((text or {}).get("steps", "")) for text in good["said"])
        cells = [
            f"{minutes:g}",
            side,
            f"{good['dice'].mean():.4f}",
            each,
            seeds,
            taken,
            steps,
            f"{good['peak_mib'].max():.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _speed(rows: list[dict[str, Any]]) -> list[str]:
    """How much sooner we reach what each variant of nnU-Net reaches with its most minutes."""
    table = pd.DataFrame([one for one in rows if not one["problem"]])
    if table.empty:
        return []
    means = table.groupby(["side", "minutes"], as_index=False)[["dice", "seconds"]].mean()
    ours, found = means[means["side"] == OURS].sort_values("minutes"), []
    for side, theirs in means[means["side"] != OURS].groupby("side"):
        longest = theirs.sort_values("minutes").iloc[-1]
        enough = ours[ours["dice"] >= longest["dice"]]
        text = f"{side} reaches a mean Dice of {longest['dice']:.4f} in {longest['seconds'] / 60:.1f} min"
        if enough.empty:
            found.append(f"{text}; {OURS} reaches it at none of the measured minutes.")
            continue
        first = enough.iloc[0]
        times = longest["seconds"] / first["seconds"]
        found.append(
            f"{text}; the shortest measured training of {OURS} that reaches it takes {first['seconds'] / 60:.1f} min "
            f"({first['dice']:.4f}): {times:.1f} times sooner."
        )
    return found


def _failures(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"Failed: {one['side']}, {one['minutes']:g} min, seed {one['seed']}: {one['problem']}."
        for one in rows
        if one["problem"]
    ]


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    """A point a training, a line through the means of each side."""
    import matplotlib.pyplot as plt

    table = pd.DataFrame([one for one in rows if not one["problem"]])
    if table.empty:
        return
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for side, found in table.groupby("side"):
        means = found.groupby("minutes")[["seconds", "dice"]].mean().sort_index()
        [line] = axes.plot(means["seconds"] / 60, means["dice"], marker="o", markersize=4, label=side)
        axes.scatter(found["seconds"] / 60, found["dice"], s=10, alpha=0.4, color=line.get_color())
    axes.set(
        xscale="log",
        xlabel="minutes of wall time, from raw files to the model",
        ylabel="mean Dice of 40 cases kept out",
    )
    ticks = sorted(table["minutes"].unique())
    axes.set_xticks(ticks, [f"{one:g}" for one in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110, pil_kwargs={"optimize": True})


def _arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0, 10.0, 20.0, 60.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--programs", nargs="+", choices=[OURS, *NNUNET], default=[OURS, *NNUNET])
    parser.add_argument("--at-once", action="store_true", help="programs side by side, each on cores of its own")
    parser.add_argument("--tell", action="store_true", help="measure nothing: say what was measured before")
    parser.add_argument("--anew", action="store_true", help="measure again what was measured before")
    parser.add_argument("--ours", nargs=argparse.REMAINDER, default=[], help="last: further options of our train")
    given = parser.parse_args()
    lanes = len(given.programs) if given.at_once else 1
    if lanes * given.threads > len(os.sched_getaffinity(0)):
        parser.error(f"{lanes} programs at once with {given.threads} threads each need as many cores")
    return given


if __name__ == "__main__":
    main()
