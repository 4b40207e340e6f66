"""Fusion of several images of a case, each with its own encoder, of which some can be missing; in any dimension.

Intermediate fusion: the features of each level are averaged over the available images, and one decoder continues from
the means (HeMIS, Havaei et al., MICCAI 2016, arXiv:1607.05194). Attention: in addition, on the coarsest grid each voxel
of each available image attends to all others (mmFormer, Zhang et al., MICCAI 2022, arXiv:2206.02425). Late fusion: a
whole network for each image, whose outputs are averaged. Encoders and decoders are those of the U-Net.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hilum.networks import common_layers, unet
from hilum.networks.context_fusion import ContextFusion
from hilum.networks.network_family import Family, Sized, Strides
from hilum.networks.unet import UNet

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings

PAPER = "arXiv:1607.05194"
METHODS = ("intermediate", "attention", "late")
# The logarithm of a weight of 0, within the range of half precision.
NOTHING = -1e4


class Fusion(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    The last entries of `context`, (batch, context), are above 0 for images that are available; without `context` all
    are. The entries before them are covariates.
    method:     "intermediate", "attention" or "late"
    modalities: images of a case; as many as there are channels if 0
    frames:     channels of each image; every encoder also gets the remaining channels
    means:      what late fusion averages, {head: "probabilities" of exclusive classes, or "outputs"}
    layers:     of attention; heads: of each
    fusion:     settings of `ContextFusion`: covariates scale and shift the coarsest maps and those of each stage of the
                decoder (film), or join the pooled features of whole-image heads (concatenate)
    `size`:     the other settings of a U-Net
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        vectors: Mapping[str, int],
        method: str = "intermediate",
        modalities: int = 0,
        frames: int = 1,
        means: Mapping[str, str] | None = None,
        layers: int = 1,
        heads: int = 4,
        context: int = 0,
        fusion: FusionSettings | None = None,
        **size: Any,
    ) -> None:
        super().__init__()
        count = modalities or channels // frames
        remaining = channels - count * frames
        covariates = max(0, context - count)
        if method not in METHODS:
            raise ValueError(f"there is no method {method!r}, only {', '.join(METHODS)}")
        if remaining < 0 or 0 < context < count:
            raise ValueError(f"{channels} channels and a context of {context} are not those of {count} images")
        joining: FusionSettings = {"method": "film" if dense else "concatenate", **(fusion or {})}
        if covariates and dense and joining["method"] == "concatenate":
            raise ValueError("concatenated covariates reach heads for the whole image only: choose film")
        self.method = method
        self.frames = frames
        self.count = count
        self.remaining = remaining
        self.covariates = covariates
        self.means = dict(means or {})
        encoders = [
            UNet(frames + remaining, spatial_dims, dense if n == 0 or method == "late" else {}, {}, **size)
            for n in range(count)
        ]
        deepest = _width(encoders[0].encoder[-1])
        self.encoders = nn.ModuleList(network.encoder for network in encoders)
        self.decoders = nn.ModuleList(
            FusionDecoder(network, deepest, vectors, bool(dense), covariates, joining)
            for network in (encoders if method == "late" else encoders[:1])
        )
        self.attention = ImageAttention(deepest, count, layers, heads) if method == "attention" else None

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; context: (batch, covariates and one entry an image), all available without it."""
        # From the images themselves, because an exported network does not fix the batch size.
        every = torch.ones_like(images.flatten(1)[:, : self.count])
        present = every if context is None else (context[:, -self.count :] > 0).to(images.dtype)
        covariates = context[:, : self.covariates] if context is not None and self.covariates else None
        modalities = self._by_modality(images)
        by_encoder = [
            common_layers.stage_maps(encoder.children(), own)
            for encoder, own in zip(self.encoders, modalities, strict=True)
        ]
        if self.method == "late":
            return self._late(by_encoder, present, covariates)
        levels = [_mean(level, present) for level in zip(*by_encoder, strict=True)]
        if self.attention is not None:
            levels[-1] = levels[-1] + self.attention([features[-1] for features in by_encoder], present)
        outputs: dict[str, Tensor] = self.decoders[0](levels, covariates)
        return outputs

    def _by_modality(self, images: Tensor) -> list[Tensor]:
        channels = self.count * self.frames
        parts = images[:, :channels].split(self.frames, dim=1)
        return [torch.cat([part, images[:, channels:]], dim=1) if self.remaining else part for part in parts]

    def _late(
        self, by_encoder: Sequence[Sequence[Tensor]], present: Tensor, covariates: Tensor | None
    ) -> dict[str, Tensor]:
        pairs = zip(self.decoders, by_encoder, strict=True)
        outputs = [decoder(features, covariates) for decoder, features in pairs]
        return {name: self._average(name, [own[name] for own in outputs], present) for name in outputs[0]}

    def _average(self, name: str, outputs: Sequence[Tensor], present: Tensor) -> Tensor:
        """The mean over the available images; for probabilities its logarithm, whose softmax is the mean again."""
        if self.means.get(name.partition("@")[0], "outputs") == "outputs":
            return _mean(outputs, present)
        logs = torch.stack([logits.log_softmax(dim=1) for logits in outputs])
        weights = (1 - present) * NOTHING
        count = present.sum(dim=1).clamp(min=1).log()
        ones = [1] * (outputs[0].ndim - 1)
        weighted = logs + weights.transpose(0, 1).reshape(self.count, -1, *ones)
        return weighted.logsumexp(dim=0) - count.reshape(-1, *ones)


class FusionDecoder(nn.Module):
    """A U-Net's decoder and heads, for the features of each level, finest first.

    deepest: feature maps of the coarsest level
    context: number of covariates; fusion: settings of `ContextFusion`
    """

    def __init__(
        self,
        options: UNet,
        deepest: int,
        vectors: Mapping[str, int],
        upwards: bool,
        context: int,
        fusion: FusionSettings,
    ) -> None:
        super().__init__()
        self.up, self.decoder = (options.up, options.decoder) if upwards else (nn.ModuleList(), nn.ModuleList())
        self.dense = options.dense
        self.coarse = options.coarse
        self.coarsest = nn.Identity()  # where others see its features
        finer: list[Any] = list(self.up)
        self.telling = ContextFusion(context, dict(enumerate([deepest, *(up.out_channels for up in finer)])), **fusion)
        features = deepest + self.telling.joining
        self.vectors = nn.ModuleDict({name: nn.Linear(features, count) for name, count in vectors.items()})

    def forward(self, features: Sequence[Tensor], covariates: Tensor | None) -> dict[str, Tensor]:
        """Return the outputs by head; covariates: (batch, entries) or None."""
        entries = self.telling(covariates)
        images = self.telling.modulate(self.coarsest(features[-1]), entries)
        decoded = []
        outputs = self.telling.answers(self.vectors, images.flatten(2).mean(dim=2), entries)
        for place, (up, block, skip) in enumerate(zip(self.up, self.decoder, features[-2::-1], strict=False), start=1):
            shaped = partial(self.telling.modulate, covariates=entries, place=place)
            images = unet.run_stage(block, torch.cat([up(images), skip], dim=1), shaped)
            decoded.append(images)
        outputs |= {name: layer(images) for name, layer in self.dense.items()}
        if self.training:
            outputs |= common_layers.coarse_outputs(self.coarse, decoded)
        return outputs


class ImageAttention(nn.Module):
    """Attention among the voxels of the coarsest maps of all available images, whose outputs are averaged over images.

    Each image has a learnt embedding; positions have none, because the convolutions before encode them.
    """

    def __init__(self, width: int, count: int, layers: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not share {width} features evenly")
        self.images = nn.Parameter(torch.randn(count, width) * 0.02)
        self.layers = nn.ModuleList(AttentionLayer(width, heads) for _ in range(layers))
        self.last = nn.LayerNorm(width)

    def forward(self, features: Sequence[Tensor], present: Tensor) -> Tensor:
        """[(batch, width, *spatial)] and (batch, images) to (batch, width, *spatial)."""
        spatial = features[0].shape[2:]
        places = math.prod(spatial)
        tokens = torch.cat([maps.flatten(2).transpose(1, 2) + self.images[n] for n, maps in enumerate(features)], dim=1)
        hidden = ((1 - present) * NOTHING).repeat_interleave(places, dim=1)[:, None, None]
        for layer in self.layers:
            tokens = layer(tokens, hidden)
        attended = self.last(tokens).transpose(1, 2).split(places, dim=2)
        return _mean([maps.unflatten(2, spatial) for maps in attended], present)


class AttentionLayer(nn.Module):
    """Self-attention and a feed-forward layer, each after layer normalisation and with a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first_norm = nn.LayerNorm(width)
        self.second_norm = nn.LayerNorm(width)
        self.asked = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Return (batch, tokens, width); hidden: (batch, 1, 1, tokens), added to the logits of the attention."""
        asked = self.asked(self.first_norm(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # (batch, heads, tokens, width of a head)
        query = asked[0]
        key = asked[1]
        value = asked[2]
        weights = (query @ key.transpose(2, 3) / math.sqrt(key.shape[-1]) + hidden).softmax(dim=-1)
        tokens = tokens + self.joined((weights @ value).transpose(1, 2).flatten(2))
        inner: Tensor = self.inner(self.second_norm(tokens))
        return tokens + inner


def _mean(tensors: Sequence[Tensor], present: Tensor) -> Tensor:
    """The mean of [(batch, ...)], one entry an image, over the available images, (batch, images); 0 where none is."""
    ones = [1] * (tensors[0].ndim - 1)
    total = torch.stack([own * present[:, n].reshape(-1, *ones) for n, own in enumerate(tensors)]).sum(dim=0)
    return total / present.sum(dim=1).clamp(min=1).reshape(-1, *ones)


def _width(stage: nn.Module) -> int:
    """Feature maps that a stage of an encoder makes."""
    block: Any = stage[-1] if isinstance(stage, nn.Sequential) else stage
    return int(block.second.out_channels)


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The settings of a U-Net; the plan adds the number of images and what is averaged."""
    size, because, _ = unet.size_for(patch, strides, device)
    settings = {**size, "modalities": 0, "frames": 1}
    return settings, f"{because}; features of each level are averaged over the available images", PAPER


def size_for_late(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The settings of a U-Net for each image; outputs are averaged."""
    size, because, _ = unet.size_for(patch, strides, device)
    settings = {**size, "modalities": 0, "frames": 1, "means": {}}
    return settings, f"{because}; a whole network for each image, whose outputs are averaged", FUSION_LATE.paper


FUSION = Family(
    Fusion,
    size_for,
    PAPER,
    preset={"method": "intermediate"},
    takes_context=("film", "concatenate"),
    features="decoders.0.coarsest",
)
FUSION_ATTENTION = FUSION.variant(
    "arXiv:2206.02425", {"method": "attention"}, "attention among the voxels of all images on the coarsest grid"
)
FUSION_LATE = FUSION.variant("doi:10.1109/34.667881", {"method": "late"}, size_for=size_for_late)
