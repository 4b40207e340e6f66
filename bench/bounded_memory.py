"""Peak memory and time of sliding windows over large volumes of many classes: Hilum beside MONAI.

python bench/bounded_memory.py                 # all volumes: about three hours on two cores
python bench/bounded_memory.py --volume tall   # one of them
python bench/bounded_memory.py --small

A light network (two convolutions), windows of 32 voxels an axis that overlap by a quarter, from a .nii.gz to a
.nii.gz. The volumes are generated. MONAI's inferer may take as much memory as the machine has free when it begins;
where that is too little it says so, and its row is "failed".
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import psutil
from beside import PLACE, PeerError, Program, arguments, interleaved, markdown, peer, record
from recorded import commit, known

import hilum
from hilum.values import Deferred, Geometry, Image

SIDES = Path(__file__).resolve().parent / "sides"
PART = "bounded_memory"
# Shape and number of classes; the figures asked for are 1, 3 and 4 GiB.
VOLUMES = {
    "long": ((128, 128, 1000), 100, 1.0),
    "tall": ((512, 512, 2000), 100, 3.0),
    "cube": ((1024, 1024, 1024), 100, 4.0),
}
SMALL = ((64, 64, 96), 12, 1.0)
PATCH, OVERLAP, BATCH = 32, 0.25, 2
OURS, MONAI, BUFFERED = "Hilum", "MONAI", "MONAI, buffered"
# Of the memory that is free a peer may take this share.
SHARE = 0.9


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--volume", choices=sorted(VOLUMES), action="append", help="one or more; by default all")
    asked = parser.parse_args()
    chosen = {"small": SMALL} if asked.small else {name: VOLUMES[name] for name in asked.volume or VOLUMES}
    try:
        python = str(peer("monai"))
    except PeerError as error:
        sys.exit(f"MONAI cannot be run beside: {error}")
    PLACE.mkdir(exist_ok=True)
    figures: dict[str, Any] = {} if asked.small else {name: one for name, one in known(PART).items() if name in VOLUMES}
    for name, (shape, classes, asked_gib) in chosen.items():
        with tempfile.TemporaryDirectory(dir=PLACE) as place:
            volume = Path(place, "volume.nii.gz")
            hilum.write(generated(shape), volume)
            runs = [
                interleaved(_programs(python, volume, Path(place, str(n)), classes), 1, asked.threads)
                for n in range(asked.repeats)
            ]
            table = pd.concat([run.assign(repeat=n) for n, run in enumerate(runs)])
            alike = _alike(Path(place, "0"))
        figures[name] = {
            "shape": shape,
            "classes": classes,
            "asked_gib": asked_gib,
            "same_voxels": alike,
            "threads": asked.threads,
            "commit": commit(),
            "runs": json.loads(table.to_json(orient="records")),
        }
        print(_words(figures[name]), flush=True)
        if asked.record:
            # After each, because the last one takes long; what was measured before stays beside it.
            lines = [_words(figures[one]) for one in VOLUMES if one in figures]
            record(PART, "Large volumes of many classes", "\n\n".join(lines), figures)


def generated(shape: tuple[int, int, int]) -> Image:
    """Soft waves in noise, in HU, that are made slice by slice: the volume is never held."""
    steps = Deferred((1, *shape), np.dtype(np.int16), partial(_slices, shape, ()), partial(_slices, shape))
    return Image(steps, Geometry(shape, np.diag([-0.7, -0.7, 0.7, 1.0])), modality="CT")


def _slices(shape: tuple[int, int, int], region: tuple[slice, ...]) -> np.ndarray:
    _, rows, columns, slices = (*region, *(slice(None) for _ in range(4 - len(region))))
    waves = [np.sin(np.arange(size)[part] / 37) for size, part in zip(shape, (rows, columns, slices), strict=True)]
    soft = 700 * waves[0][:, None, None] * waves[1][:, None] + 300 * waves[2]
    noise = [
        np.random.default_rng(int(number)).integers(-50, 50, shape[:2])[rows, columns]
        for number in np.arange(shape[2])[slices]
    ]
    return (soft + np.stack(noise, axis=-1)).astype(np.int16)[None]


def _programs(python: str, volume: Path, out: Path, classes: int) -> list[Program]:
    out.mkdir()
    how = [str(classes), str(OVERLAP), str(PATCH), str(BATCH)]
    free = str(int(SHARE * psutil.virtual_memory().available))
    monai = [python, str(SIDES / "bounded_monai.py"), str(volume)]
    return [
        Program(OURS, [sys.executable, str(SIDES / "bounded_ours.py"), str(volume), str(out / "ours"), *how]),
        Program(MONAI, [*monai, str(out / "monai.nii.gz"), *how, free, "0"]),
        Program(BUFFERED, [*monai, str(out / "buffered.nii.gz"), *how, free, "2"]),
    ]


def _alike(out: Path) -> float | None:
    """Share of voxels that have the same label on both sides, where both came to an end."""
    ours, monai = out / "ours" / "volume.nii.gz", out / "monai.nii.gz"
    if not (ours.is_file() and monai.is_file()):
        return None
    return float(np.mean(np.asarray(nibabel.load(ours).dataobj) == np.asarray(nibabel.load(monai).dataobj)))


def _words(figure: dict[str, Any]) -> str:
    """A paragraph of a volume, from what was recorded."""
    shape, classes, alike = figure["shape"], figure["classes"], figure["same_voxels"]
    size, logits = " x ".join(map(str, shape)), 4 * np.prod(shape) * (classes + 1) / 2**30
    table = pd.DataFrame(figure["runs"])
    lines = [
        f"**{size} voxels, {classes} classes** (all logits: {logits:.0f} GiB; asked of Hilum: at most "
        f"{figure['asked_gib']:g} GiB; threads: {figure['threads']}; commit {figure['commit']})",
        "",
        markdown(table, {"predicting": "seconds", "peak_mib": "peak memory, MiB"}),
        "",
    ]
    if alike is not None:
        lines.append(f"Labels equal to MONAI's in {100 * alike:.3f} % of voxels (its windows begin elsewhere).")
    return "\n".join(lines).strip()


if __name__ == "__main__":
    main()
