"""Result folders as nnU-Net v2 writes them, with random weights, and its prediction written down plainly."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from hilum.networks import factory
from hilum.values import Dense

LABELS = {"background": 0, "anterior": 1, "posterior": 2}
RESAMPLING = {
    "data": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "seg": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
    "probabilities": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
}
PROPERTIES = {"percentile_00_5": 5.0, "percentile_99_5": 200.0, "mean": 90.0, "std": 40.0}


def result_folder(
    folder: Path,
    configuration: str,
    *,
    labels: Mapping[str, Any] = LABELS,
    regions_class_order: Sequence[int] | None = None,
    channels: int = 1,
    spacing: Sequence[float] = (1.5, 1.2, 1.0),
    patch: Sequence[int] = (16, 16, 16),
    transpose: Sequence[int] = (0, 1, 2),
    scheme: str = "ZScoreNormalization",
    masked: bool = False,
    residual: bool = False,
    folds: Sequence[int | str] = ("all",),
    mirror: Sequence[int] | None = (0, 1, 2),
    reader: str = "SimpleITKIO",
    previous: str | None = None,
    inputs: int | None = None,
    outputs: int | None = None,
) -> Path:
    """The folder, with one checkpoint a fold; `inputs` and `outputs` of the network where they are not one a label."""
    axes = len(patch)
    operation = f"torch.nn.modules.conv.Conv{axes}d"
    size = {"n_stages": 2, "features_per_stage": [4, 8], "kernel_sizes": [[3] * axes] * 2}
    size |= {"strides": [[1] * axes, [2] * axes], "n_conv_per_stage_decoder": [1], "conv_bias": True}
    size |= {"conv_op": operation, "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d"}
    size |= {"norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None}
    size |= {"nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}}
    size |= {"n_blocks_per_stage": [1, 2]} if residual else {"n_conv_per_stage": [2, 2]}
    kind = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    planned = {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": list(patch),
        "spacing": list(spacing),
        "normalization_schemes": [scheme] * channels,
        "use_mask_for_norm": [masked] * channels,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
            "arch_kwargs": size,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    for name, arguments in RESAMPLING.items():
        planned |= {f"resampling_fn_{name}": "resample_data_or_seg_to_shape"}
        planned |= {f"resampling_fn_{name}_kwargs": arguments}
    if previous is not None:
        planned["previous_stage"] = previous
    plans = {
        "dataset_name": "Dataset999_Random",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "transpose_forward": list(transpose),
        "transpose_backward": np.argsort(transpose).tolist(),
        # The settings are found also where they are inherited.
        "configurations": {"base": planned, configuration: {"inherits_from": "base", "batch_size": 2}},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(n): PROPERTIES for n in range(channels)},
    }
    dataset: dict[str, Any] = {"labels": dict(labels), "numTraining": 1, "file_ending": ".nii.gz"}
    dataset["channel_names"] = {str(n): f"c{n}" for n in range(channels)}
    if regions_class_order is not None:
        dataset["regions_class_order"] = list(regions_class_order)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    last = outputs or len(regions_class_order or [name for name in labels if name != "ignore"])
    for number, fold in enumerate(folds):
        torch.manual_seed(number)
        module = _network(axes, inputs or channels, last, residual)
        (folder / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": _with_repeats(module.state_dict()),
            "optimizer_state": torch.optim.SGD(module.parameters(), 0.01, momentum=0.99).state_dict(),
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "dice_per_class_or_region": [[np.float32(0.5)]]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 3,
            "init_args": {"plans": plans, "configuration": configuration, "device": torch.device("cuda", 0)},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": None if mirror is None else tuple(mirror),
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def _network(axes: int, channels: int, outputs: int, residual: bool) -> torch.nn.Module:
    name = "residual_encoder_unet" if residual else "plain_conv_unet"
    own = {"blocks": [1, 2]} if residual else {"convolutions": [2, 2]}
    stages = {"features": [4, 8], "kernels": [[3] * axes] * 2, "strides": [[1] * axes, [2] * axes]}
    module = factory.build(
        name, channels, axes, {"mask": Dense(outputs)}, {**stages, "decoder_convolutions": [1], **own}
    )
    for weight in module.parameters():
        if weight.ndim > 1:
            torch.nn.init.kaiming_normal_(weight)
    return module


def _with_repeats(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Layers have their parts a second time in a sequence, and the decoder has the encoder."""
    found = {}
    for name, tensor in weights.items():
        layer, _, part = name.rpartition(".conv.")
        other, _, normal = name.rpartition(".norm.")
        found[name] = tensor
        if layer:
            found[f"{layer}.all_modules.0.{part}"] = tensor
        elif other:
            found[f"{other}.all_modules.1.{normal}"] = tensor
    encoder = {f"decoder.{name}": tensor for name, tensor in found.items() if name.startswith("encoder.")}
    return {**found, **encoder}


def network_of(folder: Path, fold: int | str = "all") -> torch.nn.Module:
    """The network of a folder's checkpoint, made from its plans and our own builder alone."""
    checkpoint = torch.load(folder / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False)
    weights = {n: w for n, w in checkpoint["network_weights"].items() if ".all_modules." not in n}
    weights = {n: w for n, w in weights.items() if not n.startswith("decoder.encoder.")}
    residual = "encoder.stem.convs.0.conv.weight" in weights
    first = weights["encoder.stem.convs.0.conv.weight" if residual else "encoder.stages.0.0.convs.0.conv.weight"]
    module = _network(first.ndim - 2, first.shape[1], len(weights["decoder.seg_layers.0.bias"]), residual)
    module.load_state_dict(weights)
    return module.eval()


# What follows is nnU-Net's prediction in a few plain steps over whole arrays, in its order of axes (z, y, x).


def resized(image: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    """scikit-image's `resize(mode="edge", anti_aliasing=False)`, which is SciPy's zoom, clipped."""
    if image.shape == tuple(shape):
        return image
    zoom = [new / old for new, old in zip(shape, image.shape, strict=True)]
    found = ndimage.zoom(image.astype(float), zoom, order=order, mode="nearest", grid_mode=True)
    return np.clip(found, image.min(), image.max())


def resampled(image: np.ndarray, shape: Sequence[int], order: int, far: int | None) -> np.ndarray:
    """With a far axis each slice on its own, and across them the nearest."""
    if far is None or image.shape == tuple(shape):
        return resized(image, shape, order)
    plane = [n for axis, n in enumerate(shape) if axis != far]
    slices = np.stack([resized(one, plane, order) for one in np.moveaxis(image, far, 0)], axis=far)
    grid = np.mgrid[tuple(slice(0, n) for n in shape)].astype(float)
    for axis, (old, new) in enumerate(zip(slices.shape, shape, strict=True)):
        grid[axis] = old / new * (grid[axis] + 0.5) - 0.5
    return ndimage.map_coordinates(slices, grid, order=0, mode="nearest")


def starts(size: int, patch: int) -> list[int]:
    count = int(np.ceil((size - patch) / (patch * 0.5))) + 1
    step = (size - patch) / (count - 1) if count > 1 else 0
    return [int(np.round(step * n)) for n in range(count)]


def weights_of(patch: Sequence[int]) -> np.ndarray:
    """A Gaussian about the window's middle voxel, at most 10, in float16."""
    found = np.zeros(patch)
    found[tuple(n // 2 for n in patch)] = 1
    found = ndimage.gaussian_filter(found, [n / 8 for n in patch], mode="constant")
    half = (found / found.max() * 10).astype(np.float16)
    half[half == 0] = half[half > 0].min()
    return half.astype(np.float32)


def logits_of(module: torch.nn.Module, data: np.ndarray, patch: Sequence[int], mirror: Sequence[int]) -> np.ndarray:
    """(channels, z, y, x) padded with 0 about it, through windows and mirrored ones, and cut back."""
    flat = len(patch) == 2
    window = (1, *patch) if flat else tuple(patch)
    short = [max(0, need - have) for need, have in zip(window, data.shape[1:], strict=True)]
    pad = [(n // 2, n - n // 2) for n in short]
    data = np.pad(data, [(0, 0), *pad])
    views = [axes for count in range(len(mirror) + 1) for axes in itertools.combinations(mirror, count)]
    total, weight = None, weights_of(window)
    weighed = np.zeros(data.shape[1:], dtype=np.float32)
    for corner in itertools.product(*(starts(n, size) for n, size in zip(data.shape[1:], window, strict=True))):
        place = tuple(slice(low, low + n) for low, n in zip(corner, window, strict=True))
        images = torch.from_numpy(data[(slice(None), *place)].astype(np.float32))[None]
        images = images[:, :, 0] if flat else images
        with torch.inference_mode():
            seen = [
                torch.flip(module(torch.flip(images, [a + 2 for a in v]))["mask"], [a + 2 for a in v]) for v in views
            ]
        found = torch.stack(seen).mean(dim=0)[0].numpy().reshape(-1, *window)
        total = np.zeros((len(found), *data.shape[1:]), dtype=np.float32) if total is None else total
        total[(slice(None), *place)] += found * weight
        weighed[place] += weight
    inner = tuple(slice(low, size - high) for (low, high), size in zip(pad, data.shape[1:], strict=True))
    return (total / weighed)[(slice(None), *inner)]


def normalised(image: np.ndarray, scheme: str, inside: np.ndarray | None) -> np.ndarray:
    image = image.astype(np.float32)
    if scheme == "ZScoreNormalization":
        own = image if inside is None else image[inside]
        scaled = (image - own.mean()) / own.std()
        return scaled if inside is None else np.where(inside, scaled, image)
    assert scheme == "CTNormalization"
    clipped = np.clip(image, PROPERTIES["percentile_00_5"], PROPERTIES["percentile_99_5"])
    return (clipped - PROPERTIES["mean"]) / PROPERTIES["std"]


def far_axis(current: Sequence[float], new: Sequence[float]) -> int | None:
    for steps in (current, new):
        if max(steps) / min(steps) > 3:
            longest = [axis for axis, step in enumerate(steps) if step == max(steps)]
            return longest[0] if len(longest) == 1 else None
    return None


def prediction(
    folder: Path,
    images: np.ndarray,
    spacing: Sequence[float],
    *,
    folds: Sequence[int | str] = ("all",),
    mirror: Sequence[int] = (0, 1, 2),
    earlier: np.ndarray | None = None,
) -> np.ndarray:
    """(channels, z, y, x) to labels (z, y, x), as `nnUNetv2_predict` does it, but for its sums in float16."""
    plans = json.loads((folder / "plans.json").read_text())
    dataset = json.loads((folder / "dataset.json").read_text())
    planned, transpose = plans["configurations"]["base"], plans["transpose_forward"]
    turned = images.transpose(0, *(axis + 1 for axis in transpose))
    steps = [spacing[axis] for axis in transpose]
    content = ndimage.binary_fill_holes((turned != 0).any(axis=0))
    box = ndimage.find_objects(content.astype(int))[0]
    inside, data = content[box], turned[(slice(None), *box)]
    target = planned["spacing"] if len(planned["spacing"]) == 3 else [steps[0], *planned["spacing"]]
    shape = [round(a / b * n) for a, b, n in zip(steps, target, data.shape[1:], strict=True)]
    far = far_axis(steps, target)
    masked = inside if planned["use_mask_for_norm"][0] else None
    scheme = planned["normalization_schemes"][0]
    seen = [resampled(normalised(channel, scheme, masked), shape, 3, far) for channel in data]
    if earlier is not None:
        before = earlier.transpose(transpose)[box].astype(int)
        before[(before == 0) & ~inside] = -1
        moved = np.zeros(shape, dtype=int)
        for value in np.unique(before):
            moved[resampled((before == value).astype(float), shape, 1, far) >= 0.5 - 1e-9] = value
        values = sorted(value for name, value in dataset["labels"].items() if name not in ("background", "ignore"))
        seen += [(moved == value).astype(float) for value in values]
    logits = np.mean(
        [logits_of(network_of(folder, fold), np.stack(seen), planned["patch_size"], list(mirror)) for fold in folds],
        axis=0,
    )
    back = far_axis(target, steps)
    whole = np.stack([resampled(channel, data.shape[1:], 1, back) for channel in logits])
    if "regions_class_order" in dataset:
        labels = np.zeros(whole.shape[1:], dtype=int)
        for channel, value in zip(whole, dataset["regions_class_order"], strict=True):
            labels[channel > 0] = value
    else:
        labels = whole.argmax(axis=0)
    found = np.zeros(turned.shape[1:], dtype=int)
    found[box] = labels
    return found.transpose(np.argsort(transpose))
