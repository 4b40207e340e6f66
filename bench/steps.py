"""Wall time and peak memory of each step of the main job, each in a process of its own.

    python bench/steps.py ../shared/data/hippocampus --labels 1=anterior,2=posterior --minutes 5

The cache of prepared cases is a fresh folder, so that preparing counts. `prepare` is the training command with one
step: reading, checking, planning and preparing, one step and the report without estimates.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from machine import described


@dataclass(frozen=True)
class Step:
    """seconds: wall; memory: GiB at the most"""

    name: str
    seconds: float
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--labels")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--inputs", type=Path, help="what to predict; the data by default")
    given = parser.parse_args()
    labels = ["--labels", given.labels] if given.labels else []
    data = str(given.data)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        os.environ["ISOCENTER_CACHE"] = str(out / "cache")
        one = ["--all", "--set", "training.steps=1", "--set", "training.validations=1"]
        commands = {
            "check": ["check", data, *labels, "--out", str(out / "check")],
            "plan": ["plan", data, *labels, "--out", str(out / "plan.yaml")],
            "prepare": ["train", data, *labels, *one, "--out", str(out / "prepared")],
            "train": ["train", data, *labels, "--minutes", str(given.minutes), "--out", str(out / "run")],
            "evaluate": ["evaluate", str(out / "run"), data, *labels, "--out", str(out / "evaluated")],
            "predict": ["predict", str(out / "run"), str(given.inputs or data), "--out", str(out / "predicted")],
            "package": ["package", str(out / "run"), "--out", str(out / "package")],
        }
        steps = [_measured(name, command) for name, command in commands.items()]
    print(f"Machine: {described()}.")
    print(f"Command: `python bench/{Path(__file__).name} {' '.join(sys.argv[1:])}`\n")
    print("| step | seconds | peak memory, GiB |\n|---|---|---|")
    for step in steps:
        print(f"| {step.name} | {step.seconds:.1f} | {step.memory:.2f} |")


def _measured(name: str, arguments: list[str]) -> Step:
    began = time.monotonic()
    command = [sys.executable, "-c", "from isocenter.cli import main; main()", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{name} failed: {' '.join(arguments)}")
    unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts bytes, Linux KiB
    return Step(name, time.monotonic() - began, usage.ru_maxrss / unit)


if __name__ == "__main__":
    main()
