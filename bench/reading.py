"""Reading a DICOM series of 500 slices: Hilum beside SimpleITK and dcm2niix.

    python bench/reading.py --record

For each kind of compression two comparisons. Into memory: the call that reads, as each program measured it, Hilum
beside SimpleITK; what was read must agree (shape, spacing, sum of all values). Into a NIfTI file: the whole command,
Hilum beside dcm2niix, nothing compressed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from beside import HILUM, PLACE, Program, arguments, failures, interleaved, markdown, peer, ratio, record, versions
from series import SYNTAXES, written_series

SIDES = Path(__file__).parent / "sides"
OURS, SITK, DCM2NIIX = "Hilum", "SimpleITK", "dcm2niix"
SOURCE = "dicom/series/ct_ge_tilt_plus18.5_variable_spacing"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--kinds", nargs="+", choices=list(SYNTAXES), default=list(SYNTAXES))
    given = parser.parse_args()
    slices, repeats = (24, 2) if given.small else (given.slices, given.repeats)
    python = peer("readers")
    parts, data = [], {"slices": slices, "peers": versions("readers"), "ratios": {}, "runs": [], "disagreements": []}
    for kind in given.kinds:
        place = PLACE / "work" / f"series-{kind.replace(' ', '')}-{slices}"
        folder = written_series(given.data / SOURCE, place, kind, slices)
        into_memory = interleaved(_readers(folder, python), repeats, given.threads)
        with tempfile.TemporaryDirectory(dir=PLACE) as out:
            into_file = interleaved(_converters(folder, python, Path(out)), repeats, given.threads)
        data["disagreements"] += [f"{kind}: {one}" for one in _disagreements(into_memory)]
        parts.append(_section(kind, slices, into_memory, into_file, data))
    words = [f"Not alike: {one}." for one in data["disagreements"]]
    text = "\n\n".join([*parts, *words])
    print(text)
    if given.record:
        record("reading", f"Reading a DICOM series of {slices} slices", text, data)


def _readers(folder: Path, python: Path) -> list[Program]:
    return [
        Program(OURS, [sys.executable, str(SIDES / "read_ours.py"), str(folder)]),
        Program(SITK, [str(python), str(SIDES / "read_sitk.py"), str(folder)]),
    ]


def _converters(folder: Path, python: Path, out: Path) -> list[Program]:
    ours = [HILUM, "convert", str(folder), "--out", str(out / "ours.nii"), "--overwrite"]
    (out / "theirs").mkdir()
    theirs = [
        _dcm2niix(python),
        "-z",
        "n",
        "-b",
        "n",
        "-w",
        "1",
        "-f",
        "theirs",
        "-o",
        str(out / "theirs"),
    ]
    return [Program(f"{OURS} convert", ours), Program(DCM2NIIX, [*theirs, str(folder)])]


def _dcm2niix(python: Path) -> str:
    """The program itself, not the script around it that starts a Python first."""
    asked = [str(python), "-c", "import dcm2niix; print(dcm2niix.bin)"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def _section(kind: str, slices: int, memory: pd.DataFrame, file: pd.DataFrame, data: dict[str, Any]) -> str:
    columns = {
        "reading": "seconds of the call",
        "seconds": "seconds of the process",
        "peak_mib": "peak memory, MiB",
    }
    of_files = {"seconds": "seconds", "cpu_seconds": "processor seconds", "peak_mib": "peak memory, MiB"}
    lines = [
        f"### {kind}, {slices} slices of 512 x 512",
        "",
        markdown(memory, columns),
        "",
        markdown(file, of_files),
        "",
    ]
    data["runs"] += [{"kind": kind, **row} for table in (memory, file) for row in table.to_dict("records")]
    for table, ours, theirs, column in (
        (memory, OURS, SITK, "reading"),
        (file, f"{OURS} convert", DCM2NIIX, "seconds"),
        (file, f"{OURS} convert", DCM2NIIX, "cpu_seconds"),
    ):
        try:
            found = ratio(table, ours, theirs, column)
        except ValueError:
            lines.append(f"No ratio of {theirs} to {ours}: {'; '.join(failures(table))}.")
            continue
        data["ratios"][f"{kind}: {theirs} / {ours}, {column}"] = vars(found)
        what = "the processor seconds of" if column == "cpu_seconds" else "as long as"
        lines.append(f"{theirs} takes {found.value:.2f} times ({found.low:.2f} to {found.high:.2f}) {what} {ours}.")
    return "\n".join(lines)


def _disagreements(table: pd.DataFrame) -> list[str]:
    """Where the two readers did not read the same."""
    output = {row["program"]: row["said"] for _, row in table.iterrows() if row["said"]}
    if len(output) < 2:
        return ["one of the readers read nothing"]
    ours, theirs = output[OURS], output[SITK]
    return [
        f"{name}: {ours[name]} and {theirs[name]}" for name in ("shape", "spacing", "sum") if ours[name] != theirs[name]
    ]


if __name__ == "__main__":
    main()
