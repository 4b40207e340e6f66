"""What smaller variants of models cost and save: 8 and 4 bits, distilled and pruned, on real data.

    python bench/smaller_variants.py --record
    python bench/smaller_variants.py hippocampus --threads 1

Each model is trained once and each cell is measured once: what lies in the folder of results is kept. Losses are those
of `isocenter compress`, on validation and calibration cases that decided nothing of a variant; times are of one core,
all backends one after the other in rounds, those of windows in one process. The student from scratch and the distilled
one are compared on test cases.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from environment import PLACE
from recorded import record

from isocenter.runtime.package import backends, package_contents

DATA = Path(os.environ.get("ISOCENTER_TEST_DATA", PLACE.parent.parent / "shared" / "data"))
# What is asked: (largest loss of the primary metric, of a label where it is Dice; ECE; size of int8 and int4).
LOST, ECE, SIZES = {"dice": 0.005, "auroc": 0.003}, 0.01, {"int8": 0.30, "int4": 0.18}
# Times as fast in a window as float32 by the same library, with 8-bit dot products and without.
FASTER = {True: 3.0, False: 1.5}
DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
FLOAT_OF = {"openvino-int8": "openvino", "onnx-int8": "onnx", "onnx-int4": "onnx"}
NARROW = '{"width": 8, "widest": 64, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]], "deep_supervision": 0}'


@dataclass(frozen=True)
class Cell:
    """A model and the methods that make it smaller; words: of its training."""

    data: str
    methods: str
    minutes: float
    words: Sequence[str] = ()


CELLS: Mapping[str, Cell] = {
    "hippocampus": Cell("hippocampus", "int8", 6),
    "resnet": Cell("medmnist/pneumoniamnist.npz", "int8,int4", 2, ["--set", "network.name=resnet"]),
    "vit": Cell("medmnist/pneumoniamnist.npz", "int8,int4", 2, ["--set", "network.name=vit"]),
}
# Times that each backend computes a window.
ROUNDS = 15
# The student at half the width by each way of training, and its minutes.
STUDENT_MINUTES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cells", nargs="*", help=f"of {', '.join([*CELLS, 'students'])}; all by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=PLACE / "work" / "compression")
    parser.add_argument("--record", action="store_true", help="write the figures of all cells that were measured")
    given = parser.parse_args()
    for name in given.cells or [*CELLS, "students"]:
        began = time.monotonic()
        measure_students(given) if name == "students" else measure(name, CELLS[name], given)
        print(f"{name}: {(time.monotonic() - began) / 60:.1f} min", file=sys.stderr)
    text, data = "\n\n".join(sections(given.out)), {"cells": dict(results(given.out))}
    print(text)
    if given.record:
        record("compression", "Smaller and faster variants", text, data)


def measure(name: str, cell: Cell, given: argparse.Namespace) -> None:
    """Train the cell's model and make its variants, where neither is there."""
    run, out = given.out / name, given.out / f"{name}-variants"
    if not (run / "report.html").is_file():
        isocenter(["train", DATA / cell.data, "--minutes", cell.minutes, "--seed", 0, *cell.words, "--out", run], given)
    if not (out / "compression.json").is_file():
        loss = LOST["auroc" if "medmnist" in cell.data else "dice"]
        words = ["--methods", cell.methods, "--loss", loss, "--out", out]
        isocenter(["compress", run, "--data", DATA / cell.data, *words], given)
    if not (out / "windows.json").is_file():
        time_windows(out / "package", out / "windows.json", given.threads)


def time_windows(package: Path, out: Path, threads: int) -> None:
    """Median ms of the networks for a window, the backends in turns in one process: other load meets all alike."""
    record = package_contents.package_record(package)
    shape = (1, int(record["network"]["channels"]), *record["inference"]["patch"])
    window = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    names = sorted({*FLOAT_OF.values(), "openvino-bf16", *record["quantised"]})
    networks = {name: backends.find_backend(name).network(package, "cpu", threads) for name in names}
    times = defaultdict(list)
    for round_number in range(ROUNDS + 1):
        for name, network in networks.items():
            began = time.perf_counter(), time.process_time()
            network(window)
            if round_number:  # the first compiles
                times[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    medians = {name: [1000 * float(median) for median in np.median(own, axis=0)] for name, own in times.items()}
    out.write_text(
        json.dumps({name: {"wall_ms": wall, "processor_ms": used} for name, (wall, used) in medians.items()})
    )


def measure_students(given: argparse.Namespace) -> None:
    """The hippocampus network at a quarter of its parameters: distilled, pruned, and from scratch, in equal minutes."""
    run, out = given.out / "hippocampus", given.out / "students-variants"
    if not (out / "compression.json").is_file():
        words = ["--methods", "distil,prune", "--loss", 0.01, "--minutes", STUDENT_MINUTES, "--out", out]
        isocenter(["compress", run, "--data", DATA / "hippocampus", *words], given)
    scratch, against = given.out / "scratch", given.out / "scratch-against-distilled"
    if not (scratch / "report.html").is_file():
        words = ["--minutes", STUDENT_MINUTES, "--seed", 0, "--set", f"network.size={NARROW}", "--out", scratch]
        isocenter(["train", run / "plan.yaml", *words], given)
    if not (against / "comparison.json").is_file():
        isocenter(["compare", scratch, out / "runs" / "distil", "--out", against], given)


def isocenter(words: Sequence[object], given: argparse.Namespace) -> None:
    own = [] if words[0] == "compare" else ["--threads", given.threads]
    command = [sys.executable, "-m", "isocenter", *map(str, [*words, *own])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def results(out: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(cell, its rows) of what was measured; the label that loses most is added, of the cases alone."""
    for name in (*CELLS, "students"):
        file = out / f"{name}-variants" / "compression.json"
        if file.is_file():
            rows = json.loads(file.read_text())["rows"]
            losses = by_label(out / f"{name}-variants" / "changed.csv")
            windows = out / f"{name}-variants" / "windows.json"
            times = json.loads(windows.read_text()) if windows.is_file() else {}
            for row in rows:
                row["interleaved"] = times.get(row["backend"])
                key = row["backend"] if row["variant"] in SIZES else row["variant"]
                row["difference_by_label"] = losses.get(key, {})
            yield name, rows


def by_label(path: Path) -> dict[str, dict[str, float]]:
    """{variant: {label: mean difference of its cases}}."""
    table = pd.read_csv(path, dtype={"label": str})
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (variant, label), own in table.groupby(["variant", "label"]):
        found[str(variant)][str(label)] = float(own["difference"].mean())
    return found


def sections(out: Path) -> Iterator[str]:
    """A table a cell, with what was asked; what was not measured is said."""
    known = dict(results(out))
    for name in (*CELLS, "students"):
        if name not in known:
            yield f"{name}: not measured."
            continue
        rows = known[name]
        plain = {row["backend"]: row for row in rows if row["variant"] == "float"}
        instructions = next((row["instructions"] for row in rows if row["instructions"]), [])
        lines = [f"{name}, on a processor with {', '.join(instructions)}:", ""]
        heads = [
            "variant",
            "MB",
            "of float",
            "ms a window",
            "processor ms",
            "times as fast",
            "ms an image",
            "loss, 95 %",
            "ECE",
            "passed",
        ]
        lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        lines += [f"| {' | '.join(cells(row, plain))} |" for row in rows]
        yield "\n".join([*lines, "", *verdicts(name, rows, plain, bool(DOT_PRODUCTS & set(instructions)))])
    file = out / "scratch-against-distilled" / "comparison.json"
    if file.is_file():
        test = next(one for one in json.loads(file.read_text())["tests"] if one["label"] == "all")
        words = f"{test['difference']:+.4f} ({test['low']:+.4f} to {test['high']:+.4f}), {test['verdict']}"
        yield f"Distilled less from scratch, {STUDENT_MINUTES} minutes each, Dice on test cases: {words}."
    yield (
        "Not measured: two seeds; BCCD detection by `Model.stream`; dsb2018 instances; a fusion with covariates; an "
        "adopted nnU-Net folder; NNCF's and ONNX Runtime's own defaults beside ours; another kind of processor."
    )


def cells(row: Mapping[str, Any], plain: Mapping[str, Mapping[str, Any]]) -> list[str]:
    twin = plain.get(FLOAT_OF.get(row["backend"], row["backend"]))
    is_plain = row["variant"] == "float" or twin is None or row["size_mb"] is None
    lost = "" if row["difference"] is None else f"{row['difference']:+.4f}"
    if row["low"] is not None:
        lost += f" ({row['low']:+.4f} to {row['high']:+.4f})"
    return [
        row["backend"] if row["variant"] in ("float", *SIZES) else f"{row['variant']}, {row['backend']}",
        number(row["size_mb"], 2),
        "" if is_plain else f"{row['size_mb'] / twin['size_mb']:.2f}",
        number((row["interleaved"] or {}).get("wall_ms"), 2),
        number((row["interleaved"] or {}).get("processor_ms"), 2),
        "" if is_plain or not row["interleaved"] else f"{times_as_fast(row, plain)[1]:.2f}",
        number(row["latency_ms"], 1),
        lost,
        "" if row["ece_difference"] is None else f"{row['ece_difference']:+.4f}",
        "yes" if row["passed"] else f"no: {row['because'].partition('; within')[0]}",
    ]


def number(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def verdicts(
    name: str, rows: Sequence[Mapping[str, Any]], plain: Mapping[str, Mapping[str, Any]], multiplies: bool
) -> Iterator[str]:
    """What was asked beside what was found, a sentence each."""
    quantised = [row for row in rows if row["variant"] in SIZES and row["size_mb"] is not None]
    if name == "students" or not quantised:
        return
    for row in quantised:
        share = row["size_mb"] / plain[FLOAT_OF[row["backend"]]]["size_mb"]
        asked = SIZES[row["variant"]]
        most = LOST.get(row["metric"], 0.005)
        worst = min([row["difference"], *(row["difference_by_label"].values() if row["metric"] == "dice" else ())])
        ece = row["ece_difference"] or 0.0
        yield (
            f"- {row['backend']}: loss {-worst:.4f} (asked: below {most}) {reached(-worst < most)}; size {share:.2f} "
            f"(asked: at most {asked}) {reached(share <= asked)}; ECE {ece:+.4f} (asked: within {ECE}) "
            f"{reached(abs(ece) < ECE)}."
        )
    fast = max(quantised, key=lambda row: times_as_fast(row, plain)[1])
    by_clock, by_processor = times_as_fast(fast, plain)
    asked_times = FASTER[multiplies]
    words = f"{by_clock:.2f} times as fast in a window by the clock, {by_processor:.2f} by processor seconds"
    yield f"- {fast['backend']}: {words} (asked of the U-Net: {asked_times:g}) {reached(by_processor >= asked_times)}."


def times_as_fast(row: Mapping[str, Any], plain: Mapping[str, Mapping[str, Any]]) -> tuple[float, float]:
    """By the clock and by processor seconds, beside float32 of the same library."""
    ours, theirs = row["interleaved"], plain[FLOAT_OF[row["backend"]]]["interleaved"]
    return theirs["wall_ms"] / ours["wall_ms"], theirs["processor_ms"] / ours["processor_ms"]


def reached(truth: bool) -> str:
    return "reached" if truth else "not reached"


if __name__ == "__main__":
    main()
