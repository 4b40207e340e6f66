"""Small models of segment-anything 1.0 with random weights, as its program writes them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

SIDE, PATCH, WIDTH, FEATURES = 128, 16, 48, 32


def small_sam(seed: int = 0, side: int = SIDE, masks: int = 3) -> Any:
    """Three blocks, of which the last attends globally; masks: beside the first."""
    torch.manual_seed(seed)
    encoder = ImageEncoderViT(
        depth=3,
        embed_dim=WIDTH,
        num_heads=3,
        img_size=side,
        patch_size=PATCH,
        window_size=3,
        global_attn_indexes=(2,),
        use_rel_pos=True,
        out_chans=FEATURES,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    for name, weight in encoder.named_parameters():
        if "pos" in name:  # they begin as zeros, which would show nothing
            nn.init.normal_(weight, std=0.5)
    prompts = PromptEncoder(FEATURES, (side // PATCH, side // PATCH), (side, side), 16)
    transformer = TwoWayTransformer(depth=2, embedding_dim=FEATURES, num_heads=8, mlp_dim=64)
    decoder = MaskDecoder(
        transformer_dim=FEATURES, transformer=transformer, num_multimask_outputs=masks, iou_head_hidden_dim=FEATURES
    )
    return Sam(encoder, prompts, decoder).eval()


def adapter_of(decoder: Any, seed: int = 1) -> dict[str, Tensor]:
    """SAMed's adapter for such an encoder, with another model's prompt encoder and decoder."""
    torch.manual_seed(seed)
    low_rank = {f"w_a_{n:03d}": torch.randn(4, WIDTH) * 0.3 for n in range(6)}
    low_rank |= {f"w_b_{n:03d}": torch.randn(WIDTH, 4) * 0.3 for n in range(6)}
    return {**low_rank, **{name: one for name, one in decoder.state_dict().items() if "image_encoder" not in name}}


def waves(rows: int, columns: int) -> np.ndarray:
    """(rows, columns, 3) 8 bits: waves in noise."""
    y, x = np.mgrid[:rows, :columns]
    smooth = np.stack([127 + 90 * np.sin(x / 9 + colour) * np.cos(y / 11) for colour in range(3)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 8, smooth.shape)
    return np.asarray((smooth + noise).clip(0, 255), dtype=np.uint8)


def write_waves(path: Path, rows: int = 90, columns: int = 120) -> Path:
    """Those as a picture."""
    PIL.Image.fromarray(waves(rows, columns)).save(path)
    return path
