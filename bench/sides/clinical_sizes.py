"""Isocenter's side of `clinical_sizes.py`: look at every case of a folder.

python bench/sides/clinical_sizes.py look FOLDER THREADS
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

import isocenter


def main() -> None:
    _, folder, threads = sys.argv[1:]
    began = os.times()
    found = isocenter.check(Path(folder), threads=int(threads))
    ended = os.times()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu = sum(ended[:4]) - sum(began[:4])
    print(json.dumps({"cases": len(found.examination.fingerprint.cases), "cpu_seconds": cpu, "rss_mib": peak}))


if __name__ == "__main__":
    main()
