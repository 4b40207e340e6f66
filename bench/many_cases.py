"""`check` and preparation over more and more cases: how time and peak memory grow.

python bench/many_cases.py            # 100 to 5000 cases
python bench/many_cases.py --small

Cases are generated pairs of image and label map, all different. Every run is a process of its own with a cache of its
own: `check`, then preparing all cases into a cold cache, then once more from the warm one.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from beside import PLACE, Program, arguments, failures, interleaved, record

COUNTS, SMALL = (100, 300, 1000, 5000), (10, 30)
SHAPE = (48, 48, 32)
SIDE = Path(__file__).resolve().parent / "sides" / "many_cases.py"
WORKS = {"check": "check", "cold": "prepare, cold cache", "warm": "prepare, warm cache"}


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    asked = parser.parse_args()
    counts = sorted(SMALL if asked.small else asked.counts)
    PLACE.mkdir(exist_ok=True)
    tables = []
    with tempfile.TemporaryDirectory(dir=PLACE) as place:
        folder = Path(place)
        for count in counts:
            _grow(folder / "data", count)
            for work in WORKS:
                if work == "cold":
                    shutil.rmtree(folder / "cache", ignore_errors=True)
                command = [sys.executable, str(SIDE), work, str(folder / "data"), str(asked.threads)]
                program = Program(f"{work} {count}", command, {"HILUM_CACHE": str(folder / "cache")})
                # A cold cache is cold once.
                table = interleaved([program], 1 if work == "cold" else asked.repeats, asked.threads)
                tables.append(table.assign(work=work, cases=count))
    table = pd.concat(tables, ignore_index=True)
    text = _words(table, asked.threads)
    print(text)
    if asked.record:
        runs = json.loads(table.to_json(orient="records"))
        record("many_cases", "check and preparation of many cases", text, {"shape": SHAPE, "runs": runs})


def _grow(data: Path, count: int) -> None:
    """As many pairs under images/ and labels/; those that are there already stay."""
    for part in ("images", "labels"):
        (data / part).mkdir(parents=True, exist_ok=True)
    grid = np.meshgrid(*[np.linspace(-1, 1, size) for size in SHAPE], indexing="ij", sparse=True)
    for number in range(len(list((data / "labels").iterdir())), count):
        rng = np.random.default_rng(number)
        centre, radius = rng.uniform(-0.4, 0.4, 3), rng.uniform(0.2, 0.5, 3)
        mask = sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radius, strict=True)) < 1
        image = (100 * mask + rng.normal(100, 10, SHAPE)).astype(np.int16)
        for part, array in (("images", image), ("labels", mask.astype(np.uint8))):
            nibabel.Nifti1Image(array, np.diag([1.0, 1, 1.5, 1])).to_filename(data / part / f"case{number:05}.nii")


def _words(table: pd.DataFrame, threads: int) -> str:
    lines = [
        f"Cases of {' x '.join(map(str, SHAPE))} voxels with one structure; threads allowed: {threads}.",
        "",
        "| work | cases | seconds | ms a case beyond the fewest | peak memory, MiB | KiB a case beyond the fewest |",
        "|---|---|---|---|---|---|",
    ]
    good = table[table["problem"] == ""].groupby(["work", "cases"])[["seconds", "peak_mib"]].median()
    for work, title in WORKS.items():
        rows = good.loc[work] if work in good.index.get_level_values(0) else good.iloc[:0]
        for number, (count, row) in enumerate(rows.iterrows()):
            more = ("–", "–")
            if number:  # what it costs to start and to import is taken away with the first
                first, others = rows.iloc[0], count - rows.index[0]
                more = (
                    f"{1000 * (row['seconds'] - first['seconds']) / others:.1f}",
                    f"{1024 * (row['peak_mib'] - first['peak_mib']) / others:.1f}",
                )
            lines.append(
                f"| {title} | {count} | {row['seconds']:.1f} | {more[0]} | {row['peak_mib']:.0f} | {more[1]} |"
            )
    return "\n".join([*lines, *(f"\nFailed: {one}." for one in failures(table))])


if __name__ == "__main__":
    main()
