"""Isocenter's side of `many_cases.py`: check, or prepare, every case of a folder.

python bench/sides/many_cases.py check|cold|warm FOLDER THREADS
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import isocenter
from isocenter.files import DatasetOptions, read_dataset
from isocenter.runtime import Preprocessing
from isocenter.tasks.segmentation import Segmentation
from isocenter.training import prepare_all
from isocenter.transforms import Normalisation
from isocenter.values import Label


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=("check", "cold", "warm"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("threads", type=int)
    asked = parser.parse_args()
    began = time.perf_counter()
    if asked.work == "check":
        done = len(isocenter.check(asked.folder, threads=asked.threads).examination.fingerprint.cases)
    else:
        cases = list(read_dataset(asked.folder, DatasetOptions()))
        preprocessing = Preprocessing(3, ("0",), (Normalisation("zscore"),), spacing=(1.5, 1.5, 1.5))
        task = Segmentation((Label(1, "structure"),))
        done = len(prepare_all(cases, preprocessing, task, threads=asked.threads, memory=0))
    print(json.dumps({"cases": done, "work_seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
