"""One run of each kind of problem, on real or simulated data, with its report: `make examples MINUTES=2`.

    python bench/examples.py [NAME...] [--minutes 2] [--data ../shared/data] [--out examples]

Each leaves its run in `<out>/<name>/`, whose `report.html` says what was trained and how well it does. Trainings this
short show that the way is open from data to report, and are no measure of what can be reached. What failed, and a kind
for which no data are named, is said at the end, and the exit is then 1. A new kind is one line in `EXAMPLES`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import isocenter
from isocenter import tasks
from isocenter.values import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MM3_PER_ML = 1000
# Of the simulated times: the median of an average case and the end of the study, in days.
MEDIAN, END = 700.0, 1500.0


@dataclass(frozen=True)
class Example:
    """What a kind of problem is shown on.

    kind:  as in `--task`
    data:  of the folder of real data
    said:  what the references are, in words
    flags: of `isocenter train`
    made:  from the folder of `data` and a new folder: the table to train on; without it `data` itself
    """

    kind: str
    data: str
    said: str
    flags: tuple[str, ...] = ()
    made: Callable[[Path, Path], Path] | None = None


def volumes(data: Path, out: Path) -> Path:
    """Images of hippocampi with the volume (ml) of what is marked in them."""
    rows = [{"image": str(image), "volume_ml": ml} for image, ml in _measured(data)]
    return _table(pd.DataFrame(rows), out)


def times(data: Path, out: Path) -> Path:
    """Images of hippocampi with SIMULATED times to an event: the smaller, the sooner; all end with the study."""
    images, ml = zip(*_measured(data), strict=True)
    hazard = (np.mean(ml) - np.array(ml)) / np.std(ml)
    found = np.random.default_rng(0).exponential(MEDIAN / np.log(2) * np.exp(-hazard))
    seen = np.maximum(np.ceil(np.minimum(found, END)), 1).astype(int)
    table = {"image": [str(image) for image in images], "days": seen, "happened": (found <= END).astype(int)}
    return _table(pd.DataFrame(table), out)


def diseases(data: Path, out: Path) -> Path:
    """Radiographs and whether they show COVID-19, ARDS, or another pneumonia; two of them may be there at once."""
    table = pd.read_csv(data / "metadata.csv")
    found = table["finding"].str.split(", ")
    columns = {
        "image": [str(data / "images" / name) for name in table["filename"]],
        "patient": table["patientid"],
        "covid": found.map(lambda names: int("COVID-19" in names)),
        "ards": found.map(lambda names: int("ARDS" in names)),
        "other": found.map(lambda names: int(not {"COVID-19", "ARDS"} & set(names))),
    }
    return _table(pd.DataFrame(columns), out)


def rhythms(data: Path, out: Path) -> Path:
    """SIMULATED pulse waves of 8 s at 50 Hz, one CSV a patient: in one folder even beats, in the other uneven ones."""
    rng, time_s = np.random.default_rng(0), np.arange(400) / 50
    for number in range(240):
        uneven = number % 2
        gaps = rng.uniform(0.6, 1.1) * (1 + uneven * rng.uniform(-0.35, 0.35, 20) + rng.normal(0, 0.02, 20))
        beats = np.cumsum(gaps) - rng.uniform(0, 1)
        wave = np.exp(-((time_s[:, None] - beats) ** 2) / 0.01).sum(axis=1) + rng.normal(0, 0.1, len(time_s))
        folder = out / "cases" / ("uneven" if uneven else "even")
        folder.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"time (s)": time_s, "pulse": wave}).to_csv(folder / f"patient{number:03}.csv", index=False)
    return out / "cases"


FINDINGS = ("--column", "patient=patient,finding:covid=covid,finding:ards=ards,finding:other=other")
CORN = ("--set", "task.order=corn")
TIMES = ("--column", "time=days,event=happened", "--set", "task.unit=days", "--modality", "MR")

# One line each: a kind may be shown more than once.
EXAMPLES: Mapping[str, Example] = {
    "classification": Example("classification", "medmnist/pneumoniamnist.npz", "pneumonia or none"),
    "grades": Example("classification", "medmnist/retinamnist.npz", "grades of retinopathy", CORN),
    "detection": Example("detection", "bccd", "blood cells in boxes"),
    "instances": Example("instances", "dsb2018", "nuclei one by one"),
    "together": Example("segmentation+classification", "ultrasound", "a tumour's outline and its class at once"),
    "series": Example("classification", "", "SIMULATED pulse waves, even or uneven", (), rhythms),
    "findings": Example("findings", "multimodal", "diseases in radiographs", FINDINGS, diseases),
    "regression": Example("regression", "hippocampus", "volume in ml", ("--column", "value:volume=volume_ml"), volumes),
    "segmentation": Example("segmentation", "hippocampus", "two structures", ("--labels", "1=anterior,2=posterior")),
    "survival": Example("survival", "hippocampus", "SIMULATED times, by volume", TIMES, times),
}


@dataclass(frozen=True)
class Shown:
    """A line of the table: a figure and where its report lies, or why there is none."""

    name: str
    said: str
    figure: str
    minutes: float = 0.0
    report: str = ""
    failed: bool = False

    def __str__(self) -> str:
        return f"| {self.name} | {self.said} | {self.figure} | {self.minutes:.1f} | {self.report} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(EXAMPLES))
    parser.add_argument("--minutes", type=float, default=2.0, help="of each training")
    parser.add_argument("--steps", type=int, help="in place of the minutes: for a trial, which shows nothing")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "examples")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(EXAMPLES)):
        parser.error(f"there is no example {', '.join(unknown)}, only {', '.join(EXAMPLES)}")
    rows = [_shown(name, EXAMPLES[name], given) for name in given.names or EXAMPLES]
    if not given.names:
        rows += [Shown(kind, "", "no data are named in bench/examples.py", failed=True) for kind in unnamed()]
    print("\n| example | data | primary figure | minutes | report |\n|---|---|---|---|---|")
    print("\n".join(map(str, rows)))
    sys.exit(any(row.failed for row in rows))


def unnamed() -> list[str]:
    """The kinds of problem that have no line."""
    return sorted(set(tasks.names()) - {example.kind for example in EXAMPLES.values()})


def _shown(name: str, example: Example, given: argparse.Namespace) -> Shown:
    print(f"=== {name}", file=sys.stderr, flush=True)
    data, out = given.data.resolve() / example.data, given.out / name
    said = f"{example.data}: {example.said}"
    if not data.exists():
        return Shown(name, said, f"left out: {data} is not there")
    began = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    source = data if example.made is None else example.made(data, out.parent / f"{name}-data")
    length = ["--minutes", given.minutes] if given.steps is None else ["--set", f"training.steps={given.steps}"]
    threads = [] if given.threads is None else ["--threads", given.threads]
    words = ["train", source, "--task", example.kind, *example.flags, *length, *threads, "--out", out, "--overwrite"]
    command = [sys.executable, "-m", "isocenter", *map(str, words)]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    minutes = (time.monotonic() - began) / 60
    if done.returncode:
        return Shown(name, said, f"failed with exit code {done.returncode}", minutes, failed=True)
    return Shown(name, said, _figure(out), minutes, str(out / "report.html"))


def _figure(run: Path) -> str:
    """The first row of the summary, which is the primary metric over all labels."""
    row = json.loads((run / "evaluation" / "summary.json").read_text())["rows"][0]
    bounds = "no interval" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
    value = "undefined" if row["value"] is None else f"{row['value']:.3f}"
    return f"{row['metric']} {value} {row['unit']}".rstrip() + f" ({bounds}, n = {row['n']})"


def _measured(data: Path) -> Iterator[tuple[Path, float]]:
    """Each image, and the ml that its mask marks."""
    for path in sorted((data / "labels").glob("*.nii.gz")):
        mask: Image = isocenter.read(path)
        yield data / "images" / path.name, np.count_nonzero(mask.data) * (mask.geometry.voxel_volume or 1) / MM3_PER_ML


def _table(table: pd.DataFrame, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "cases.csv", index=False)
    return out / "cases.csv"


if __name__ == "__main__":
    main()
