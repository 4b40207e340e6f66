"""A MONAI bundle of 100 classes used as it is: time and peak memory of Isocenter beside `python -m monai.bundle run`.

    python bench/monai_bundle.py --record                  # all volumes: hours, as MONAI takes what memory there is
    python bench/monai_bundle.py --volume small --repeats 5
    python bench/monai_bundle.py --small

The bundle is made on the spot: a U-Net of two levels with random weights, windows of 96 voxels an axis that overlap by
a quarter, then softmax, the way back and argmax. The volumes are generated. Both sides run in one environment, with the
MONAI that is ours. It may take as much memory as the machine has free when it begins; where that is too little its row
is "failed".
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import psutil
import torch
from beside import ISOCENTER, PLACE, Program, arguments, failures, interleaved, markdown, ratio, record
from bounded_memory import SHARE, generated
from monai.networks.nets import UNet
from recorded import commit, known

import isocenter

PART, OURS, MONAI = "monai_bundle", "Isocenter", "MONAI"
CLASSES, PATCH, WIDTHS = 100, 96, (8, 16)
# Shape, mm to which the bundle brings it (None: its own grid), and the peak memory that is asked for, GiB.
VOLUMES: dict[str, tuple[tuple[int, int, int], float | None, float | None]] = {
    "small": ((160, 160, 96), 1.0, None),
    "flat": ((256, 256, 100), None, None),
    "long": ((256, 256, 600), None, 3.0),
    "tall": ((512, 512, 2000), 3.0, 3.0),
}
TRIAL = ((64, 64, 48), 1.0, None)


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--volume", choices=sorted(VOLUMES), action="append", help="one or more; by default all")
    parser.add_argument("--alone", action="store_true", help="without MONAI, which takes long where it has to swap")
    asked = parser.parse_args()
    chosen = {"trial": TRIAL} if asked.small else {name: VOLUMES[name] for name in asked.volume or VOLUMES}
    PLACE.mkdir(exist_ok=True)
    figures: dict[str, Any] = {} if asked.small else {name: one for name, one in known(PART).items() if name in VOLUMES}
    for name, (shape, spacing, most) in chosen.items():
        with tempfile.TemporaryDirectory(dir=PLACE) as place:
            folder, volume = Path(place, "bundle"), Path(place, "images", "volume.nii.gz")
            volume.parent.mkdir()
            isocenter.write(generated(shape), volume)
            write_bundle(folder, spacing, 8 if asked.small else CLASSES, Path(place))
            table = interleaved(_programs(folder, volume, asked.alone), asked.repeats, asked.threads)
            alike = _alike(Path(place))
        figures[name] = {
            "shape": shape,
            "spacing": spacing,
            "asked_gib": most,
            "same_voxels": alike,
            "threads": asked.threads,
            "commit": commit(),
            "runs": json.loads(table.to_json(orient="records")),
        }
        print(_words(figures[name]), flush=True)
        if asked.record:
            lines = [_words(figures[one]) for one in VOLUMES if one in figures]
            record(PART, "A MONAI bundle used as it is", "\n\n".join(lines), figures)


def write_bundle(folder: Path, spacing: float | None, classes: int, place: Path) -> None:
    """A bundle that `python -m monai.bundle run` runs on `place`/images, with its results in `place`/monai."""
    network = {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": classes,
        "channels": list(WIDTHS),
        "strides": [2],
    }
    resampled = {"_target_": "Spacingd", "keys": "image", "pixdim": [spacing] * 3, "mode": "bilinear"}
    before = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        *([] if spacing is None else [resampled]),
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -1000, "a_max": 1000, "b_min": 0, "b_max": 1},
    ]
    back = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
    after = [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {**back, "nearest_interp": False},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {"_target_": "SaveImaged", "keys": "pred", "output_dir": str(place / "monai"), "output_dtype": "$'uint8'"},
    ]
    seen = "@inferer(prepared['image'][None], @network)[0]"
    cases = f"map(@preprocessing, [{{'image': path}} for path in sorted(glob.glob('{place}/images/*'))])"
    config = {
        "imports": ["$import glob", "$import torch"],
        "network_def": network,
        "network": "$@network_def.eval()",
        "preprocessing": {"_target_": "Compose", "transforms": before},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [PATCH] * 3,
            "overlap": 0.25,
            "mode": "gaussian",
        },
        "postprocessing": {"_target_": "Compose", "transforms": after},
        "initialize": [
            "$torch.set_grad_enabled(False)",
            f"$@network.load_state_dict(torch.load('{folder}/models/model.pt', weights_only=True))",
        ],
        "run": [f"$[@postprocessing({{**prepared, 'pred': {seen}}}) for prepared in {cases}]"],
    }
    named = {str(n): f"structure {n}" for n in range(classes)}
    form = {"inputs": {"image": {"num_channels": 1, "channel_def": {"0": "CT"}}}}
    form |= {"outputs": {"pred": {"channel_def": named}}}  # type: ignore[dict-item]
    for part in ("configs", "models"):
        (folder / part).mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    metadata = {"version": "0.1.0", "network_data_format": form}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.manual_seed(0)
    torch.save(UNet(3, 1, classes, WIDTHS, (2,)).state_dict(), folder / "models" / "model.pt")


def _programs(folder: Path, volume: Path, alone: bool) -> list[Program]:
    out = folder.parent / "ours"
    options = ["--out", str(out), "--overwrite", "--device", "cpu"]
    ours = Program(OURS, [ISOCENTER, "predict", str(folder), str(volume), *options])
    if alone:
        return [ours]
    free = int(SHARE * psutil.virtual_memory().available) // 1024
    config = folder / "configs" / "inference.json"
    # Without a limit the system would end whichever process it likes when memory runs out.
    limited = f"ulimit -v {free}; exec {sys.executable} -m monai.bundle run --config_file {config}"
    return [ours, Program(MONAI, ["bash", "-c", limited])]


def _alike(place: Path) -> float | None:
    """Share of voxels that have the same label on both sides, where both came to an end."""
    ours, theirs = place / "ours" / "volume.nii.gz", next((place / "monai").rglob("*.nii.gz"), None)
    if not ours.is_file() or theirs is None:
        return None
    found, expected = (np.asarray(nibabel.load(file).dataobj).squeeze() for file in (ours, theirs))
    return float(np.mean(found == expected))


def _words(figure: dict[str, Any]) -> str:
    """A paragraph of a volume, from what was recorded."""
    size, table = " x ".join(map(str, figure["shape"])), pd.DataFrame(figure["runs"])
    grid = "on its own grid" if figure["spacing"] is None else f"at {figure['spacing']:g} mm"
    most = "" if figure["asked_gib"] is None else f"; asked of Isocenter: at most {figure['asked_gib']:g} GiB"
    lines = [
        f"**{size} voxels {grid}** (threads: {figure['threads']}{most}; commit {figure['commit']})",
        "",
        markdown(table),
    ]
    for column, word in (("seconds", "time"), ("peak_mib", "memory")):
        if set(table[table["problem"] == ""]["program"]) == {OURS, MONAI}:
            found = ratio(table, OURS, MONAI, column)
            lines += ["", f"MONAI takes {found.value:.2f} ({found.low:.2f} to {found.high:.2f}) times the {word}."]
    if figure["same_voxels"] is not None:
        lines += ["", f"Labels equal in {100 * figure['same_voxels']:.3f} % of voxels (our windows begin elsewhere)."]
    return "\n".join([*lines, *(f"\nFailed: {one}." for one in failures(table))])


if __name__ == "__main__":
    main()
