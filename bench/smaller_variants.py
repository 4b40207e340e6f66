"""What smaller variants of models cost and save: 8 and 4 bits, distilled and pruned, on real data.

    python bench/smaller_variants.py --record
    python bench/smaller_variants.py hippocampus --threads 1
    python bench/smaller_variants.py detection instances fusion adopted --out DIR --threads 1 --record

Each model is trained once and each cell is measured once: what lies in the folder of results is kept. Losses are those
of `isocenter compress`, on validation and calibration cases that decided nothing of a variant; times are of one core,
all backends one after the other in rounds, those of windows in one process. The student from scratch and the distilled
one are compared on test cases. Frames of 512 x 512 pass `Model.stream` of each network of the detection. The defaults
of NNCF and of ONNX Runtime get the same ranges, and lose what they lose on the same cases. The adopted network was
trained on all cases that there are: the price of its variants is one of cases that trained it. What an earlier record
holds of a cell stays in it until the cell is measured anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from environment import PLACE
from examples import MICROSCOPY, WITH_COVARIATES, diseases
from recorded import known, record
from skimage import io as pictures

from isocenter.reading import ReadingOptions, dataset_reading
from isocenter.runtime import model_files
from isocenter.runtime.package import backends, package_contents, quantising
from isocenter.runtime.package.backends import onnx
from isocenter.verbs.compressing import case_roles, quantised_package, variant_price

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
    """A model and the methods that make it smaller.

    words: of its training; made: the table to train on, from the data and a new folder; windows: whether its windows
    are timed in turns
    """

    data: str
    methods: str
    minutes: float
    words: Sequence[str] = ()
    made: Callable[[Path, Path], Path] | None = None
    windows: bool = True


CELLS: Mapping[str, Cell] = {
    "hippocampus": Cell("hippocampus", "int8", 6),
    "resnet": Cell("medmnist/pneumoniamnist.npz", "int8,int4", 2, ["--set", "network.name=resnet"]),
    "vit": Cell("medmnist/pneumoniamnist.npz", "int8,int4", 2, ["--set", "network.name=vit"]),
    "detection": Cell("bccd", "int8", 2, MICROSCOPY, windows=False),
    "instances": Cell("dsb2018", "int8", 2, MICROSCOPY, windows=False),
    "fusion": Cell("multimodal", "int8", 2, WITH_COVARIATES, diseases, windows=False),
}
ADOPTED, STUDENTS, AGAIN = "adopted", "students", "students, second seed"
# Cells whose ranges the defaults of the libraries get too.
BY_DEFAULTS = ("hippocampus", "resnet", "vit")
# Of a stream: frames a round, rounds, and the side of a frame.
FRAMES, STREAMS, SIDE = 10, 2, 512
# Cases of the adopted network: those that give ranges and judge, and those that decide.
ADOPTED_CASES = (16, 12)
SMALLEST_LOSS = 0.01
# Times that each backend computes a window.
ROUNDS = 15
# The student at half the width by each way of training, and its minutes.
STUDENT_MINUTES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cells", nargs="*", help=f"of {', '.join(_all_cells())}, defaults; all by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=PLACE / "work" / "compression")
    parser.add_argument("--student-minutes", type=float, default=STUDENT_MINUTES, help="of each student")
    parser.add_argument("--record", action="store_true", help="write the figures of all cells that were measured")
    given = parser.parse_args()
    special: Mapping[str, Callable[[], None]] = {
        STUDENTS: lambda: measure_students(given),
        AGAIN: lambda: measure_students(given, seed=1, methods="distil"),
        ADOPTED: lambda: measure_adopted(given),
        "defaults": lambda: measure_defaults(given),
        "stream": lambda: time_streams(given),
    }
    for name in given.cells or [*_all_cells(), "defaults", "stream"]:
        began = time.monotonic()
        special[name]() if name in special else measure(name, CELLS[name], given)
        print(f"{name}: {(time.monotonic() - began) / 60:.1f} min", file=sys.stderr)
    text, data = "\n\n".join(sections(given.out)), {"cells": dict(results(given.out)), **further(given.out)}
    print(text)
    if given.record:
        record("compression", "Smaller and faster variants", text, data)


def _all_cells() -> tuple[str, ...]:
    return (*CELLS, ADOPTED, STUDENTS, AGAIN)


def measure(name: str, cell: Cell, given: argparse.Namespace) -> None:
    """Train the cell's model and make its variants, where neither is there."""
    run, out, data = given.out / name, given.out / f"{name}-variants", data_of(name, cell, given.out)
    if not (run / "report.html").is_file():
        isocenter(["train", data, "--minutes", cell.minutes, "--seed", 0, *cell.words, "--out", run], given)
    if not (out / "compression.json").is_file():
        loss = LOST["auroc" if "medmnist" in cell.data else "dice"]
        words = ["--methods", cell.methods, "--loss", loss, "--out", out]
        isocenter(["compress", run, "--data", data, *words], given)
    if cell.windows and not (out / "windows.json").is_file():
        time_windows(out / "package", out / "windows.json", given.threads)


def data_of(name: str, cell: Cell, out: Path) -> Path:
    """The cell's data: a table of its own where it is made, once."""
    if cell.made is None:
        return DATA / cell.data
    place = out / f"{name}-data"
    if not (tables := sorted(place.glob("*.csv"))):
        place.mkdir(parents=True, exist_ok=True)
        return cell.made(DATA / cell.data, place)
    return tables[0]


def measure_adopted(given: argparse.Namespace) -> None:
    """nnU-Net's network as a package, and its variants; without a column of parts it is refused, whose words stay."""
    package, out = given.out / "adopted", given.out / f"{ADOPTED}-variants"
    if not package.is_dir():
        isocenter(["adopt", DATA / "nnunet_hippocampus", "--out", package, "--backends", "none"], given)
    if not (given.out / "adopted-refused.txt").is_file():
        asked = ["compress", package, "--data", DATA / "hippocampus", "--out", given.out / "adopted-nothing"]
        command = [sys.executable, "-m", "isocenter", *map(str, asked)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        words = lines[-1].replace(str(DATA), "shared data") if done.returncode else "not refused"
        (given.out / "adopted-refused.txt").write_text(words)
    if not (out / "compression.json").is_file():
        ranged, decided = ADOPTED_CASES
        images = sorted((DATA / "hippocampus" / "images").iterdir())[: ranged + decided]
        rows = [
            {
                "case": path.name.removesuffix(".nii.gz"),
                "image": str(path),
                "mask": str(DATA / "hippocampus" / "labels" / path.name),
                "split": "train" if number < ranged else "val",
            }
            for number, path in enumerate(images)
        ]
        table = given.out / "adopted-data.csv"
        pd.DataFrame(rows).to_csv(table, index=False)
        words = ["--methods", "int8", "--samples", ranged // 2, "--loss", LOST["dice"], "--out", out]
        isocenter(["compress", package, "--data", table, *words], given)


def measure_defaults(given: argparse.Namespace) -> None:
    """What NNCF and ONNX Runtime lose with their own settings, by the ranges and on the cases of ours."""
    for name in BY_DEFAULTS:
        out, run = given.out / f"{name}-defaults.json", given.out / name
        if out.is_file():
            continue
        model, package = model_files.load(run, "cpu", threads=given.threads), given.out / f"{name}-variants" / "package"
        dataset = dataset_reading.open_dataset(DATA / CELLS[name].data, ReadingOptions(), needs=tuple(model.task.needs))
        roles = case_roles.assign_roles(model, dataset, run, samples=32, seed=0)
        windows = quantising.record_windows(model, roles.ranges, seed=0)
        exact, _ = variant_price.score_table(model, roles.deciding)
        found = {}
        for library, make in (("NNCF", nncf_default), ("ONNX Runtime", onnx_default)):
            network, size = make(package / package_contents.ONNX, windows, given.out, onnx.output_heads(package))
            table, failed = variant_price.score_table(model.with_run(network), roles.deciding)
            if failed:
                found[library] = {"because": failed[0]}
                continue
            price = variant_price.price_of(
                exact,
                table,
                model.task,
                loss=LOST["auroc" if "medmnist" in CELLS[name].data else "dice"],
                primary=model.record.get("primary"),
                groups=None,
                seed=0,
                patients_known=roles.patients_known,
            )
            test = price.difference
            found[library] = {"metric": price.metric, "difference": test.value, "low": test.low, "high": test.high}
            found[library] |= {"ece_difference": price.ece_difference, "size_mb": size, "passed": price.passed}
        out.write_text(json.dumps(found))


def nncf_default(source: Path, windows: Sequence[Any], place: Path, heads: Sequence[str]) -> tuple[Any, float]:
    """(network, MB) by `nncf.quantize` as it stands."""
    import openvino

    nncf, core = quantising.import_nncf(), openvino.Core()
    graph = core.read_model(source)
    names = [one.any_name for one in graph.inputs]
    samples = nncf.Dataset([dict(zip(names, window, strict=True)) for window in windows])
    made, path = nncf.quantize(graph, samples), place / "default.xml"
    openvino.save_model(made, path, compress_to_fp16=False)
    size = sum(one.stat().st_size for one in (path, path.with_suffix(".bin"))) / 1e6
    return quantising._compile(core, made, heads), size


def onnx_default(source: Path, windows: Sequence[Any], place: Path, heads: Sequence[str]) -> tuple[Any, float]:
    """(network, MB) by ONNX Runtime's `quantize_static` as it stands."""
    from onnxruntime.quantization import quantize_static

    path = place / "default.onnx"
    quantize_static(source, path, quantising._reader(source, windows))
    return onnx.open_onnx(path, heads, ["CPUExecutionProvider"], 1), path.stat().st_size / 1e6


def time_streams(given: argparse.Namespace) -> None:
    """ms a frame of 512 x 512 by `Model.stream` of the detection's networks, in turns."""
    out, package = given.out / "stream.json", given.out / "detection-variants" / "package"
    if out.is_file():
        return
    files = sorted((DATA / "bccd" / "JPEGImages").iterdir())[:FRAMES]
    frames = [np.pad(np.moveaxis(pictures.imread(path), -1, 0), ((0, 0), (0, 32), (0, 0)), "reflect") for path in files]
    frames = [frame[:, :SIDE, :SIDE] for frame in frames]
    made = package_contents.package_record(package).get("quantised") or ()
    names = ["torch", "onnx", "openvino", "openvino-bf16", *made]
    models = {name: quantised_package.read_on(package, name, given.threads) for name in names}
    times = defaultdict(list)
    for model in models.values():
        next(iter(model.stream(frames[:1])))  # the first compiles
    for _ in range(STREAMS):
        for name, model in models.items():
            stream = model.stream(frames)
            count = sum(1 for _ in stream)
            latency = stream.latency
            times[name].append({"p50_ms": 1000 * latency.p50, "p99_ms": 1000 * latency.p99, "frames": count})
    out.write_text(json.dumps({"threads": given.threads, "frames": FRAMES * STREAMS, "times": times}))


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


def measure_students(given: argparse.Namespace, *, seed: int = 0, methods: str = "distil,prune") -> None:
    """The hippocampus network at a quarter of its parameters: distilled, pruned, and from scratch, in equal minutes."""
    run, out = given.out / "hippocampus", given.out / f"{AGAIN if seed else STUDENTS}-variants"
    minutes, mark = given.student_minutes, f"-seed-{seed}" if seed else ""
    if not (out / "compression.json").is_file():
        words = ["--methods", methods, "--loss", 0.01, "--minutes", minutes, "--seed", seed, "--out", out]
        isocenter(["compress", run, "--data", DATA / "hippocampus", *words], given)
    scratch, against = given.out / f"scratch{mark}", given.out / f"scratch-against-distilled{mark}"
    if not (scratch / "report.html").is_file():
        words = ["--minutes", minutes, "--seed", seed, "--set", f"network.size={NARROW}", "--out", scratch]
        isocenter(["train", run / "plan.yaml", *words], given)
    if not (against / "comparison.json").is_file():
        isocenter(["compare", scratch, out / "runs" / "distil", "--out", against], given)


def isocenter(words: Sequence[object], given: argparse.Namespace) -> None:
    own = [] if words[0] == "compare" else ["--threads", given.threads]
    command = [sys.executable, "-m", "isocenter", *map(str, [*words, *own])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def results(out: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(cell, its rows) of what was measured; the label that loses most is added, of the cases alone."""
    kept = known("compression").get("cells", {})
    for name in _all_cells():
        file = out / f"{name}-variants" / "compression.json"
        if not file.is_file() and name in kept:
            yield name, kept[name]
        elif file.is_file():
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
    measured = dict(results(out))
    for name in _all_cells():
        if name not in measured:
            yield f"{name}: not measured."
            continue
        rows = measured[name]
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
    found = further(out)
    for seed, test in found["students"].items():
        words = f"{test['difference']:+.4f} ({test['low']:+.4f} to {test['high']:+.4f}), {test['verdict']}"
        how = f"seed {seed}, {test['minutes']:g} minutes each, Dice on test cases"
        yield f"Distilled less from scratch, {how}: {words}."
    if found["stream"]:
        lines = ["| network | p50, ms (two rounds) | p99, ms |", "|---|---|---|"]
        for name, rounds in found["stream"]["times"].items():
            middle, late = (" and ".join(f"{one[key]:.0f}" for one in rounds) for key in ("p50_ms", "p99_ms"))
            lines.append(f"| {name} | {middle} | {late} |")
        cores = f"{found['stream']['threads']} core, {found['stream']['frames']} frames of {SIDE} x {SIDE}"
        yield "\n".join(
            [f"BCCD detection by `Model.stream`, {cores} (asked: p50 of int8 100 ms on two cores):", "", *lines]
        )
    if found["defaults"]:
        lines = ["| model | library | metric | difference, 95 % | ECE | MB | passed |", "|" + "---|" * 7]
        for name, libraries in found["defaults"].items():
            lines += [f"| {name} | {library} | {default_words(row)} |" for library, row in libraries.items()]
        yield "\n".join(["Defaults of NNCF and ONNX Runtime on the same ranges and cases:", "", *lines])
    if found["adopted_refused"]:
        yield f"The adopted network, its data without a column of parts: {found['adopted_refused']}"
    yield smallest(measured)
    yield "Not measured: another kind of processor."


def further(out: Path) -> dict[str, Any]:
    """What was measured beside the cells, or stands in the record."""
    kept, students = known("compression"), {}
    for seed in (0, 1):
        file = out / f"scratch-against-distilled{f'-seed-{seed}' if seed else ''}" / "comparison.json"
        if file.is_file():
            test = next(one for one in json.loads(file.read_text())["tests"] if one["label"] == "all")
            made = json.loads((out / f"scratch{f'-seed-{seed}' if seed else ''}" / "run.json").read_text())["minutes"]
            wanted = {key: test[key] for key in ("difference", "low", "high", "verdict")}
            students[str(seed)] = {**wanted, "minutes": round(made)}
    files = {name: out / f"{name}-defaults.json" for name in BY_DEFAULTS}
    defaults = {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
    stream, refused = out / "stream.json", out / "adopted-refused.txt"
    return {
        "students": {**kept.get("students", {}), **students},
        "defaults": {**kept.get("defaults", {}), **defaults},
        "stream": json.loads(stream.read_text()) if stream.is_file() else kept.get("stream"),
        "adopted_refused": refused.read_text() if refused.is_file() else kept.get("adopted_refused"),
    }


def default_words(row: Mapping[str, Any]) -> str:
    if "because" in row:
        return f" | {row['because']} | | | no"
    lost = f"{row['difference']:+.4f}"
    if row["low"] is not None:
        lost += f" ({row['low']:+.4f} to {row['high']:+.4f})"
    ece = "" if row["ece_difference"] is None else f"{row['ece_difference']:+.4f}"
    return f"{row['metric']} | {lost} | {ece} | {row['size_mb']:.2f} | {'yes' if row['passed'] else 'no'}"


def smallest(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The smallest variant of the hippocampus network that loses at most .01 Dice."""
    rows = [row for name in ("hippocampus", STUDENTS, AGAIN) for row in measured.get(name, ())]
    near = [row for row in rows if row["size_mb"] and (row["difference"] or 0.0) >= -SMALLEST_LOSS]
    if not near:
        return "The smallest hippocampus model: not measured."
    best = min(near, key=lambda row: row["size_mb"])
    return (
        f"The smallest hippocampus model within {SMALLEST_LOSS:g} of the plan's Dice: {best['backend']}, "
        f"{best['difference'] or 0.0:+.4f}; {best['parameters']:,} parameters, {best['size_mb']:.2f} MB, "
        f"{best['peak_mib']:.0f} MiB, {best['cold_ms'] / 1000:.1f} s from a cold start to the first answer."
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
    quantised = [
        row
        for row in rows
        if row["variant"] in SIZES and row["size_mb"] is not None and FLOAT_OF[row["backend"]] in plain
    ]
    if name.startswith(STUDENTS) or not quantised:
        return
    for row in quantised:
        share = row["size_mb"] / plain[FLOAT_OF[row["backend"]]]["size_mb"]
        asked = SIZES[row["variant"]]
        most = LOST.get(row["metric"], 0.005)
        worst = min([row["difference"], *(row["difference_by_label"].values() if row["metric"] == "dice" else ())])
        ece = row["ece_difference"] or 0.0
        lost = "not shown, too few cases" if row["low"] is None else reached(-worst < most)
        yield (
            f"- {row['backend']}: loss {0.0 - worst:.4f} (asked: below {most}) {lost}; size {share:.2f} "
            f"(asked: at most {asked}) {reached(share <= asked)}; ECE {ece:+.4f} (asked: within {ECE}) "
            f"{reached(abs(ece) < ECE)}."
        )
    if any(row["interleaved"] is None for row in quantised):
        return
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
