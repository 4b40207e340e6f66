"""Splits laid out for both sides, Hilum and nnU-Net. Of the hippocampus volumes 160 cases train, 40 are kept out.

The cases kept out are every fifth in the order of their names, those whose predictions lie beside the nnU-Net model
of the test data; so every figure of these volumes is of the same 40.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATASET = "Dataset004_Hippocampus"
LABELS = {"anterior": 1, "posterior": 2}
OUR_LABELS = ",".join(f"{value}={name}" for name, value in LABELS.items())
EVERY = 5


@dataclass(frozen=True)
class Raw:
    """ours: `images/` and `labels/` to train on; nnunet: what nnU-Net calls its raw folder, with the same files

    test, test_nnunet: images kept out, under their own names and with nnU-Net's `_0000`; references: their labels
    options: of our training; dataset, configuration: what nnU-Net calls the data and the way it goes
    """

    ours: Path
    nnunet: Path
    test: Path
    test_nnunet: Path
    references: Path
    options: tuple[str, ...] = ("--labels", OUR_LABELS)
    dataset: str = DATASET
    configuration: str = "3d_fullres"


def raw_in(folder: Path, **about: Any) -> Raw:
    """The places of a split in `folder`, which is emptied; about: the fields of `Raw` that differ."""
    shutil.rmtree(folder, ignore_errors=True)
    test = folder / "test"
    return Raw(folder / "ours", folder / "nnUNet_raw", test / "images", folder / "imagesTs", test / "labels", **about)


def describe(raw: Raw, channels: Sequence[str], labels: dict[str, int], cases: int, suffix: str) -> None:
    """What nnU-Net wants to know of its raw folder."""
    described = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, **labels},
        "numTraining": cases,
        "file_ending": suffix,
    }
    (raw.nnunet / raw.dataset / "dataset.json").write_text(json.dumps(described))


def hippocampus(data: Path, folder: Path, *, train: int | None = None, test: int | None = None) -> Raw:
    """The split in `folder`, made anew; `train` and `test` take only the first so many, for a trial."""
    raw = raw_in(folder)
    names = sorted(file.name for file in (data / "hippocampus" / "images").glob("*.nii.gz"))
    kept_out = names[::EVERY][:test]
    shown = [name for number, name in enumerate(names) if number % EVERY][:train]
    dataset = raw.nnunet / DATASET
    for name in shown:
        _copied(data, name, raw.ours / "images", raw.ours / "labels", dataset / "imagesTr", dataset / "labelsTr")
    for name in kept_out:
        _copied(data, name, raw.test, raw.references, raw.test_nnunet, None)
    describe(raw, ["MRI"], LABELS, len(shown), ".nii.gz")
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
