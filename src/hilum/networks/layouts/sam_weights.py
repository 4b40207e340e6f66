"""The layout of SAM's checkpoints, which MedSAM and the base files of SAMed share, and SAMed's adapters.

timm's own function renames the encoder; the rest has the authors' names here too. Settings follow from shapes, but for
the heads of the decoder's attention, of which all published models have eight.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from hilum.errors import UsageError
from hilum.lazy import torch
from hilum.networks.layouts import weight_layout
from hilum.networks.layouts.weight_layout import Content, WeightLayout

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

ENCODER = "image_encoder."
MASKS = "mask_decoder.mask_tokens.weight"
POSITIONS = "image_encoder.pos_embed"
KERNEL = "image_encoder.patch_embed.proj.weight"
KNOWN = {POSITIONS, KERNEL, MASKS, "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"}
RELATIVE = "image_encoder.blocks.{}.attn.rel_pos_h"


def is_sam(content: Content) -> bool:
    """Whether it has SAM's encoder, prompt encoder and decoder."""
    return set(content) >= KNOWN


def sam_size(content: Content) -> dict[str, Any]:
    """The settings of the family `sam`."""
    grid = int(content[POSITIONS].shape[1])
    patch = int(content[KERNEL].shape[-1])
    depth = weight_layout.count_parts(content, "image_encoder.blocks.")
    width = int(content[KERNEL].shape[0])
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
    size = sam_size(content)
    own = {name: one for name, one in adapter.items() if name.startswith(("prompt_encoder.", "mask_decoder."))}
    pairs = len([name for name in adapter if name.startswith("w_a_")])
    if not pairs or MASKS not in own:
        raise UsageError("is no adapter of SAMed", where, "Give the file with w_a_000, w_b_000, ... that it wrote")
    width = adapter["w_a_000"].shape[1]
    given = own[MASKS].shape[1]
    if (pairs, width, given) != (2 * size["depth"], size["width"], size["features"]):
        problem = f"is for another size: {pairs // 2} blocks of {width}, and the base file has {size['depth']} of"
        raise UsageError(f"{problem} {size['width']}", where, "Give the base file with which it was trained")
    merged = {name: one for name, one in content.items() if name.startswith(ENCODER)}
    for number in range(pairs):
        name = f"image_encoder.blocks.{number // 2}.attn.qkv.weight"
        queries_or_values = slice(width) if number % 2 == 0 else slice(-width, None)
        merged[name] = merged[name].clone()
        merged[name][queries_or_values] += adapter[f"w_b_{number:03d}"] @ adapter[f"w_a_{number:03d}"]
    return {**_resized(merged, size, side // size["patch"]), **own}


def _resized(encoder: Mapping[str, Tensor], size: Mapping[str, Any], grid: int) -> Mapping[str, Tensor]:
    """The encoder for images of so many tokens along each side."""
    if grid * size["patch"] == size["image"]:
        return encoder
    stretch = partial(torch.nn.functional.interpolate, mode="bilinear", align_corners=False)
    positions = stretch(encoder[POSITIONS].permute(0, 3, 1, 2), (grid, grid)).permute(0, 2, 3, 1)
    tables = [f"image_encoder.blocks.{n}.attn.rel_pos_{axis}" for n in size["global_blocks"] for axis in "hw"]
    shape = (2 * grid - 1, size["width"] // size["heads"])
    relative = {name: stretch(encoder[name][None, None], shape)[0, 0] for name in tables}
    return {**encoder, POSITIONS: positions, **relative}


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
