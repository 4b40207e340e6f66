"""SAM: an image is encoded once; masks are decoded from that for each prompt, or for each channel of a dense head.

The encoder is timm's. Prompt encoder and mask decoder follow Kirillov et al., arXiv:2304.02643, and have the names of
weights of the authors' program, so that its files fit.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from timm.layers import LayerNorm2d
from timm.models.vision_transformer_sam import VisionTransformerSAM, get_decomposed_rel_pos_bias
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention

from hilum.networks import common_layers
from hilum.networks.network_family import Family, NetworkSize, Sized, SizeValue, Strides

PAPER = "arXiv:2304.02643"
COLOURS = 3
# Kinds of a point: 0 outside the object, 1 inside, 2 and 3 the first and last corner of a box; what stands in place of
# a box, and rows that only fill up a table.
NO_POINT = -1
NOTHING = -2
# Heads of the decoder's attention, in all published models.
DECODER_HEADS = 8
LINEAR = "bilinear"


class Encoded(NamedTuple):
    """Images as the encoder gives them, (batch, features, rows, columns), and their own spatial shape."""

    features: Tensor
    spatial: tuple[int, ...]


class Positions(nn.Module):
    """Fourier features at random frequencies of places in [0, 1]."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features // 2))

    def forward(self, places: Tensor) -> Tensor:
        """(..., 2) places (x, y) to (..., features)."""
        matrix = cast("Tensor", self.positional_encoding_gaussian_matrix)
        angles = 2 * math.pi * ((2 * places - 1) @ matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def of_grid(self, rows: int, columns: int) -> Tensor:
        """(rows * columns, features) of the centres of a grid's cells."""
        matrix = cast("Tensor", self.positional_encoding_gaussian_matrix)
        y, x = ((torch.arange(n, device=matrix.device, dtype=matrix.dtype) + 0.5) / n for n in (rows, columns))
        return cast("Tensor", self(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)).flatten(0, 1))


class PlacedAttention(nn.Module):
    """timm's attention of a grid of tokens with its layers; with heads as an axis torch never holds all its weights."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.qkv = attention.qkv
        self.proj = attention.proj
        self.heads = int(attention.num_heads)
        self.rel_pos_h = attention.rel_pos_h
        self.rel_pos_w = attention.rel_pos_w

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, rows, columns, width), the same shape."""
        batch, rows, columns, _ = tokens.shape
        q, k, v = self.qkv(tokens).reshape(batch, rows * columns, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = get_decomposed_rel_pos_bias(
            q.flatten(0, 1), self.rel_pos_h, self.rel_pos_w, (rows, columns), (rows, columns)
        )
        attended = scaled_dot_product_attention(q, k, v, attn_mask=bias.unflatten(0, (batch, self.heads)))
        return cast("Tensor", self.proj(attended.transpose(1, 2).reshape(tokens.shape)))


class PromptEncoder(nn.Module):
    """Points and corners of boxes to tokens. Masks as prompts are left out: their layers have no place here."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.pe_layer = Positions(features)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, features) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, features)
        self.no_mask_embed = nn.Embedding(1, features)

    def forward(self, points: Tensor, spatial: Sequence[int]) -> Tensor:
        """(points, 3) x, y and kind, where whole numbers are centres of pixels, to (points, features)."""
        extent = points.new_tensor([spatial[1], spatial[0]])
        kinds = points[:, 2].long()
        places = self.pe_layer((points[:, :2] + 0.5) / extent) * (kinds != NO_POINT)[:, None]
        embeddings = [self.not_a_point_embed, *self.point_embeddings]
        added = torch.cat([cast("nn.Embedding", one).weight for one in embeddings])
        return cast("Tensor", places + added[kinds - NO_POINT])


class Attention(nn.Module):
    """Attention among tokens of a width that is smaller within."""

    def __init__(self, features: int, inner: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(features, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, features)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(batch, queries, features) of (batch, keys, features)."""
        q, k, v = (
            layer(one).unflatten(-1, (DECODER_HEADS, -1)).transpose(1, 2)
            for layer, one in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        return cast("Tensor", self.out_proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


class TwoWayBlock(nn.Module):
    """Tokens attend to each other and to the image, then the image to the tokens."""

    def __init__(self, features: int, feed_forward: int, *, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.self_attn = Attention(features, features)
        self.cross_attn_token_to_image = Attention(features, features // 2)
        lin1 = nn.Linear(features, feed_forward)
        lin2 = nn.Linear(feed_forward, features)
        self.mlp = nn.Sequential(OrderedDict(lin1=lin1, relu=nn.ReLU(), lin2=lin2))
        self.cross_attn_image_to_token = Attention(features, features // 2)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(features) for _ in range(4))

    def forward(
        self, tokens: Tensor, image: Tensor, token_places: Tensor, image_places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens and image, (batch, count, features) each."""
        placed = tokens if self.is_first else tokens + token_places
        attended = self.self_attn(placed, placed, tokens)
        tokens = self.norm1(attended if self.is_first else tokens + attended)
        placed_image = image + image_places
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_places, placed_image, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        return tokens, self.norm4(image + self.cross_attn_image_to_token(placed_image, tokens + token_places, tokens))


class TwoWayTransformer(nn.Module):
    """The decoder's blocks, and a last look of the tokens at the image."""

    def __init__(self, features: int, layers: int, feed_forward: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(features, feed_forward, is_first=n == 0) for n in range(layers))
        self.final_attn_token_to_image = Attention(features, features // 2)
        self.norm_final_attn = nn.LayerNorm(features)

    def forward(self, tokens: Tensor, image: Tensor, image_places: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and image, (batch, count, features) each."""
        token_places = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_places, image_places)
        last = self.final_attn_token_to_image(tokens + token_places, image + image_places, image)
        return self.norm_final_attn(tokens + last), image


class Perceptron(nn.Module):
    """Three linear layers, with rectified values between them."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(features, n) for n in (features, features, outputs))

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., features) to (..., outputs)."""
        first, second, last = self.layers
        return cast("Tensor", last(torch.relu(second(torch.relu(first(tokens))))))


class MaskDecoder(nn.Module):
    """Tokens of masks and of a prompt to masks and to their expected overlaps."""

    def __init__(self, features: int, layers: int, feed_forward: int, masks: int) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(features, layers, feed_forward)
        self.iou_token = nn.Embedding(1, features)
        self.mask_tokens = nn.Embedding(masks, features)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(features, features // 4, 2, 2),
            LayerNorm2d(features // 4),
            nn.GELU(),
            nn.ConvTranspose2d(features // 4, features // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(Perceptron(features, features // 8) for _ in range(masks))
        self.iou_prediction_head = Perceptron(features, masks)

    def forward(self, image: Tensor, places: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, masks, 4 rows, 4 columns) logits, and (batch, masks) expected overlaps.

        image: (batch, features, rows, columns); places: (rows * columns, features); prompt: (tokens, features)
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight, prompt])
        tokens, seen = self.transformer(own.expand(len(image), -1, -1), image.flatten(2).transpose(1, 2), places)
        enlarged = self.output_upscaling(seen.transpose(1, 2).unflatten(2, image.shape[2:]))
        weights = [layer(tokens[:, 1 + n]) for n, layer in enumerate(self.output_hypernetworks_mlps)]
        masks = torch.einsum("bmc,bcyx->bmyx", torch.stack(weights, dim=1), enlarged)
        return masks, self.iou_prediction_head(tokens[:, 0])


class Sam(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial)}, of volumes slice by slice.

    image:         voxels along each side of the images whose positions are learnt; for others they are interpolated
    patch:         voxels of a token along each side
    width, depth, heads, window: of the encoder; window: tokens along each side among which attention is confined,
                   but in `global_blocks`
    features:      of the encoded image and of the decoder's tokens; layers, feed_forward: of the decoder
    tokens:        masks that are decoded, at least; a dense head takes as many as it has channels
    choose:        of the masks of a prompt the "first", or the "best" of the others by its expected overlap
    enlarge:       how masks of prompts, a quarter of the image along each side, reach its size: "linear" or "nearest"
    axis:          of a volume, along which its slices follow each other
    A prompt is the context, (batch, prompts, points, 3): x and y in voxels and the kind of each point. With it every
    head has a channel a prompt. One channel is repeated three times.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        image: int | Sequence[int] = 1024,
        patch: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        window: int = 14,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        features: int = 256,
        layers: int = 2,
        feed_forward: int = 2048,
        tokens: int = 1,
        choose: str = "best",
        enlarge: str = "linear",
        axis: int = 2,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.choose = choose
        self.enlarge = {"linear": LINEAR, "nearest": "nearest"}[enlarge]
        self.axis = axis if spatial_dims > 2 else None
        self.dense = dict(dense)
        self.grey = channels == 1
        self.image_encoder = VisionTransformerSAM(
            img_size=cast("Any", image),
            patch_size=patch,
            in_chans=COLOURS if self.grey else channels,
            num_classes=0,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            norm_layer=cast("Any", partial(nn.LayerNorm, eps=1e-6)),
            use_rel_pos=True,
            window_size=window,
            global_attn_indexes=tuple(global_blocks),
            neck_chans=features,
        )
        for block in self.image_encoder.blocks:
            block.attn = PlacedAttention(block.attn)
        self.prompt_encoder = PromptEncoder(features)
        self.mask_decoder = MaskDecoder(features, layers, feed_forward, max(tokens, sum(dense.values())))

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head."""
        if self.axis is None:
            return self.answer(self.encode(images), context)
        count = images.shape[self.axis + 2]
        slices = common_layers.slices_with_neighbours(images, self.axis, 0)
        outputs = self.answer(self.encode(slices), context)
        return {name: one.unflatten(0, (-1, count)).movedim(1, self.axis + 2) for name, one in outputs.items()}

    def encode(self, images: Tensor) -> Encoded:
        """The part of the answer that needs no prompt; images are continued by zeros to whole patches."""
        spatial = tuple(int(n) for n in images.shape[2:])
        missing = [-n % self.patch for n in spatial]
        images = pad(images, (0, missing[1], 0, missing[0])) if any(missing) else images
        images = images.expand(-1, COLOURS, -1, -1) if self.grey else images
        return Encoded(self.image_encoder.forward_features(images), spatial)

    def answer(self, encoded: Encoded, context: Tensor | None = None) -> dict[str, Tensor]:
        """The outputs by head, of images that are encoded."""
        image, spatial = encoded
        padded = [int(n) * self.patch for n in image.shape[2:]]
        places = self.prompt_encoder.pe_layer.of_grid(*map(int, image.shape[2:]))
        image = image + self.prompt_encoder.no_mask_embed.weight[:, :, None, None]
        if context is None:
            masks, _ = self.mask_decoder(image, places, places[:0])
            masks = enlarged_masks(masks[:, : sum(self.dense.values())], padded, spatial)
            return dict(zip(self.dense, masks.split(list(self.dense.values()), dim=1), strict=True))
        masks = torch.cat([self._one(image, places, prompt, padded) for prompt in context[0]], dim=1)
        return dict.fromkeys(self.dense, enlarged_masks(masks, padded, spatial, self.enlarge))

    def _one(self, image: Tensor, places: Tensor, prompt: Tensor, padded: Sequence[int]) -> Tensor:
        """(batch, 1, rows, columns) the mask of one prompt."""
        points = self.prompt_encoder(prompt[prompt[:, 2] > NOTHING], padded)
        masks, overlaps = self.mask_decoder(image, places, points)
        if self.choose == "first":
            return cast("Tensor", masks[:, :1])
        best = 1 + overlaps[:, 1:].argmax(dim=1)
        return cast("Tensor", masks[torch.arange(len(masks), device=masks.device), best][:, None])


def enlarged_masks(masks: Tensor, padded: Sequence[int], spatial: Sequence[int], mode: str = LINEAR) -> Tensor:
    """Masks at the size of the images, which were continued to whole patches."""
    aligned = {} if mode == "nearest" else {"align_corners": False}
    return interpolate(masks, size=list(padded), mode=mode, **aligned)[..., : spatial[0], : spatial[1]]


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """ViT-B of the image's size on a GPU; half its width and depth on a processor, where it starts from nothing."""
    factors = [math.prod(stride[axis] for stride in strides) for axis in range(len(patch))]
    axis = min(range(len(patch)), key=lambda n: (factors[n], patch[n], -n))  # of alike ones the last: axial slices
    plane = [size for n, size in enumerate(patch) if len(patch) < 3 or n != axis]
    size: dict[str, SizeValue] = {
        "image": [-(-n // 16) * 16 for n in plane],
        **({"axis": axis} if len(patch) > 2 else {}),
    }
    small: NetworkSize = {"width": 384, "depth": 6, "heads": 6, "global_blocks": [2, 5], "feed_forward": 1024}
    which, own = ("half the width and depth of ViT-B", small) if device == "cpu" else ("ViT-B", {})
    return {**size, **own}, f"images of {tuple(plane)} in tokens of 16 x 16; {which} on {device}", PAPER


SAM = Family(
    build=Sam,
    size_for=size_for,
    paper=PAPER,
    answers=frozenset({"dense"}),
    axes=(2, 3),
    otherwise="It takes pictures, or the slices of volumes: choose another",
    features="image_encoder.neck",
    blocks=None,
    prompts="coordinates",
    slicewise=True,
    without_onnx="its decoder takes any number of points, and an exported network has inputs of one size",
)
