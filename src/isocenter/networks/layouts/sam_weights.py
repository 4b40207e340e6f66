"""The layout of SAM's checkpoints, which MedSAM and the base files of SAMed share, and SAMed's adapters.

timm's own function renames the encoder; the rest has the authors' names here too. Settings follow from shapes, but for
the heads of the decoder's attention, of which all published models have eight.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isocenter.errors import UsageError
from isocenter.lazy import torch
from isocenter.networks.layouts import weight_layout
from isocenter.networks.layouts.weight_layout import Content, WeightLayout

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

ENCODER, MASKS = "image_encoder.", "mask_decoder.mask_tokens.weight"
POSITIONS, KERNEL = "image_encoder.pos_embed", "image_encoder.patch_embed.proj.weight"
KNOWN = {POSITIONS, KERNEL, MASKS, "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"}
RELATIVE = "image_encoder.blocks.{}.attn.rel_pos_h"


def is_sam(content: Content) -> bool:
    """Whether it has SAM's encoder, prompt encoder and decoder."""
    return set(content) >= KNOWN


def sam_size(content: Content) -> dict[str, Any]:
    """The settings of the family `sam`."""
    grid, patch = int(content[POSITIONS].shape[1]), int(content[KERNEL].shape[-1])
    depth, width = weight_layout.count_parts(content, "image_encoder.blocks."), int(content[KERNEL].shape[0])
    spans = [(len(content[RELATIVE.format(n)]) + 1) // 2 for n in range(depth)]
    return {
        "image": grid * patch,
        "patch": patch,
        "width": width,
        "depth": depth,
        "heads": width // int(content[RELATIVE.format(0)].shape[1]),
        "window": min(spans),
        "global_blocks": [n for n, span in enumerate(spans) if span == grid],
        "features": int(content[MASKS].shape[1]),
        "layers": weight_layout.count_parts(content, "mask_decoder.transformer.layers."),
        "feed_forward": len(content["mask_decoder.transformer.layers.0.mlp.lin1.weight"]),
        "tokens": len(content[MASKS]),
    }


def convert_sam(content: Content, network: Module | None = None) -> dict[str, Tensor]:
    """The tensors by our names; prompts that are masks have no layers here."""
    theirs = importlib.import_module("timm.models.vision_transformer_sam")
    encoder = {f"{ENCODER}{name}": one for name, one in theirs.checkpoint_filter_fn(dict(content), network).items()}
    others = {name: one for name, one in content.items() if not name.startswith(ENCODER)}
    return {**encoder, **{name: one for name, one in others.items() if ".mask_downscaling." not in name}}


def with_adapter(content: Content, adapter: Content, side: int, where: str) -> dict[str, Tensor]:
    """A base file with SAMed's adapter: low-rank sums of queries and values, prompt encoder and decoder of the adapter.

    side: of the images in voxels; positions, and relative ones of blocks that attend globally, are interpolated
    Zhang and Liu, arXiv:2304.13785; as hitachinsk/SAMed does on loading. Raises UsageError for no adapter, and for one
    to another size.
    """
    merged, size = dict(content), sam_size(content)
    pairs = weight_layout.count_parts({f"{name}.": None for name in adapter}, "w_a_")
    own = {name: one for name, one in adapter.items() if name.startswith(("prompt_encoder.", "mask_decoder."))}
    if not pairs or MASKS not in own:
        raise UsageError("is no adapter of SAMed", where, "Give the file with w_a_000, w_b_000, ... that it wrote")
    for number in range(pairs):
        name = f"image_encoder.blocks.{number // 2}.attn.qkv.weight"
        down, up = (adapter.get(f"w_{side_of}_{number:03d}") for side_of in "ab")
        if pairs != 2 * size["depth"] or down is None or up is None or down.shape[1] != size["width"]:
            of = f"{pairs // 2} blocks of {0 if down is None else down.shape[1]}"
            problem = f"is for another size: {of}, and the base file has {size['depth']} of {size['width']}"
            raise UsageError(problem, where, "Give the base file with which it was trained")
        width, change = size["width"], up @ down
        weight = merged[name].clone()
        weight[:width] += change if number % 2 == 0 else 0
        weight[-width:] += change if number % 2 else 0
        merged[name] = weight
    if own[MASKS].shape[1] != size["features"]:
        raise UsageError("is for another size of the decoder", where, "Give the base file with which it was trained")
    kept = {name: one for name, one in merged.items() if name.startswith(ENCODER)}
    return {**_resized(kept, size, side // size["patch"]), **own}


def _resized(encoder: Mapping[str, Tensor], size: Mapping[str, Any], grid: int) -> dict[str, Tensor]:
    """The encoder for images of so many tokens along each side."""
    resized = dict(encoder)
    if grid * size["patch"] == size["image"]:
        return resized
    positions = resized[POSITIONS].permute(0, 3, 1, 2)
    resized[POSITIONS] = torch.nn.functional.interpolate(
        positions, (grid, grid), mode="bilinear", align_corners=False
    ).permute(0, 2, 3, 1)
    for block in size["global_blocks"]:
        for axis in "hw":
            name = f"image_encoder.blocks.{block}.attn.rel_pos_{axis}"
            table = resized[name][None, None]
            shape = (2 * grid - 1, table.shape[-1])
            resized[name] = torch.nn.functional.interpolate(table, shape, mode="bilinear", align_corners=False)[0, 0]
    return resized


SAM = WeightLayout(
    "sam",
    "SAM, and MedSAM, whose files look alike: masks of what is pointed at",
    is_sam,
    convert_sam,
    "sam",
    2,
    sam_size,
    "Apache-2.0",
    "Apache-2.0, of SAM and of MedSAM; MedSAM's training data have terms of their own",
    "Kirillov et al., ICCV 2023, arXiv:2304.02643; Ma et al., Nature Communications 2024, arXiv:2304.12306",
    "encoded images and masks equal those of segment-anything 1.0 with the same weights",
)
