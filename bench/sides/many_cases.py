"""Hilum's side of `many_cases.py`: check, or prepare, every case of a folder.

python bench/sides/many_cases.py check|cold|warm FOLDER THREADS
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import hilum


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=("check", "cold", "warm"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("threads", type=int)
    asked = parser.parse_args()
    began = time.perf_counter()
    if asked.work == "check":
        done = len(hilum.check(asked.folder, threads=asked.threads).examination.fingerprint.cases)
    else:
        done = prepared(asked.folder, asked.threads)
    print(json.dumps({"cases": done, "work_seconds": time.perf_counter() - began}))


def prepared(folder: Path, threads: int) -> int:
    """How many cases of the folder were prepared."""
    # Training brings torch with it, which no check needs: it would be most of what a check is said to hold.
    from hilum.layouts import dataset_layouts
    from hilum.layouts.layout import DatasetOptions
    from hilum.runtime import Preprocessing
    from hilum.tasks.segmentation.question import Segmentation
    from hilum.training.data import prepared_store
    from hilum.transforms.intensity import Normalisation
    from hilum.values import Label

    cases = list(dataset_layouts.read_dataset(folder, DatasetOptions()))
    preprocessing = Preprocessing(3, ("0",), (Normalisation("zscore"),), spacing=(1.5, 1.5, 1.5))
    task = Segmentation((Label(1, "structure"),))
    return len(prepared_store.prepare_all(cases, preprocessing, task, threads=threads, memory=0))


if __name__ == "__main__":
    main()
