"""One split of the hippocampus volumes, laid out for both sides: 160 cases to train on, 40 kept out.

The cases kept out are every fifth in the order of their names, those whose predictions lie beside the nnU-Net model
of the test data; so every figure of these volumes is of the same 40.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

DATASET = "Dataset004_Hippocampus"
LABELS = {"anterior": 1, "posterior": 2}
OUR_LABELS = ",".join(f"{value}={name}" for name, value in LABELS.items())
EVERY = 5


@dataclass(frozen=True)
class Raw:
    """ours: `images/` and `labels/` to train on; nnunet: what nnU-Net calls its raw folder, with the same files

    test, test_nnunet: images kept out, under their own names and with nnU-Net's `_0000`; references: their labels
    """

    ours: Path
    nnunet: Path
    test: Path
    test_nnunet: Path
    references: Path


def hippocampus(data: Path, folder: Path, *, train: int | None = None, test: int | None = None) -> Raw:
    """The split in `folder`, made anew; `train` and `test` take only the first so many, for a trial."""
    shutil.rmtree(folder, ignore_errors=True)
    raw = Raw(
        folder / "ours",
        folder / "nnUNet_raw",
        folder / "test" / "images",
        folder / "imagesTs",
        folder / "test" / "labels",
    )
    names = sorted(file.name for file in (data / "hippocampus" / "images").glob("*.nii.gz"))
    kept_out = names[::EVERY][:test]
    shown = [name for number, name in enumerate(names) if number % EVERY][:train]
    dataset = raw.nnunet / DATASET
    for name in shown:
        _copied(data, name, raw.ours / "images", raw.ours / "labels", dataset / "imagesTr", dataset / "labelsTr")
    for name in kept_out:
        _copied(data, name, raw.test, raw.references, raw.test_nnunet, None)
    described = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, **LABELS},
        "numTraining": len(shown),
        "file_ending": ".nii.gz",
    }
    (dataset / "dataset.json").write_text(json.dumps(described))
    return raw


def _copied(data: Path, name: str, image: Path, label: Path, channel: Path, channel_label: Path | None) -> None:
    """Image and label under their own names, and with nnU-Net's number of the channel."""
    source = data / "hippocampus"
    numbered = name.replace(".nii.gz", "_0000.nii.gz")
    places = [
        (source / "images", image / name),
        (source / "labels", label / name),
        (source / "images", channel / numbered),
    ]
    if channel_label is not None:
        places.append((source / "labels", channel_label / name))
    for folder, place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, place)
