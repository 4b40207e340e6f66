"""A small MONAI bundle with random weights, and an image for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets import UNet

from hilum.values import Geometry, Image

NETWORK = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
    "norm": "$'instance'",
    "num_res_units": "@units",
}
BEFORE = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "monai.transforms.Orientationd", "keys": "@preprocessing#transforms#0#keys", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": ["image", "label"], "pixdim": [1.5, 1.5, 2.0], "mode": ["bilinear", "nearest"]},
    {
        "_target_": "ScaleIntensityRanged",
        "keys": "image",
        "a_min": 0,
        "a_max": 200,
        "b_min": 0,
        "b_max": 1,
        "clip": True,
    },
    {"_target_": "Flipd", "keys": "image", "_disabled_": True},
]
AFTER = [
    {"_target_": "Activationsd", "keys": "pred", "softmax": True},
    {
        "_target_": "Invertd",
        "keys": "pred",
        "transform": "@preprocessing",
        "orig_keys": "image",
        "nearest_interp": False,
    },
    {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    {"_target_": "SaveImaged", "keys": "pred"},
]


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return UNet(3, 1, 3, (4, 8), (2,), num_res_units=1, norm="instance").eval()


def bundle(folder: Path, after: list[dict[str, Any]] = AFTER, **changes: Any) -> Path:
    """A bundle that also says what only MONAI could run, in parts that nobody has to look at."""
    config = {
        "imports": ["$import glob"],
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "units": 1,
        "network_def": NETWORK,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": BEFORE},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "overlap": 0.5, "mode": "gaussian"},
        "postprocessing": {"_target_": "Compose", "transforms": after},
        **changes,
    }
    channels = {"0": "background", "1": "liver", "2": "tumour"}
    form = {"inputs": {"image": {"num_channels": 1, "channel_def": {"0": "CT"}}}}
    form |= {"outputs": {"pred": {"channel_def": channels}}}  # type: ignore[dict-item]
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0", "network_data_format": form}))
    torch.save(network().state_dict(), folder / "models" / "model.pt")
    return folder


def image(shape: tuple[int, ...] = (20, 22, 12)) -> Image:
    noise = np.random.default_rng(1).normal(size=(1, *(n // 2 + 1 for n in shape)))
    data = noise.repeat(2, 1).repeat(2, 2).repeat(2, 3)[:, : shape[0], : shape[1], : shape[2]] * 60 + 100
    affine = np.array([[0, -1.2, 0, 5], [1, 0, 0, 6], [0, 0, -2.5, 7], [0, 0, 0, 1]])
    return Image(data.astype(np.float32), Geometry(shape, affine))
