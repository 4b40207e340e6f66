"""Several images of one case, each through an encoder of its own, of which some may be absent; any number of axes.

Three ways to bring them together. Intermediate: the features of each level are averaged over the images that are there,
and one decoder goes on from the means (HeMIS, Havaei et al., MICCAI 2016, arXiv:1607.05194). Attention: besides, at the
deepest level every place of every image that is there attends to all others (mmFormer, Zhang et al., MICCAI 2022,
arXiv:2206.02425). Late: a whole network for each image, whose answers are averaged. Encoders and decoders are those of
the U-Net. This file needs torch and that file alone, so that copies of both travel with a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from isocenter.networks.family import OWN, Family
from isocenter.networks.unet import UNet
from isocenter.networks.unet import size_for as size_for_unet

PAPER = "arXiv:1607.05194"
METHODS = ("intermediate", "attention", "late")
# The logarithm of no weight at all, which half precision can hold too.
NOTHING = -1e4


class Fusion(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    The last entries of `context`, (batch, context), say of each image whether it is there, by more than 0; without it
    all are. What comes before them joins the pooled features before the last layer of heads for the whole image.
    method:     "intermediate", "attention" or "late"
    modalities: images of a case; as many as there are channels if 0
    frames:     channels of each; what channels are left over every encoder sees
    means:      of a late fusion, {head: "probabilities" of classes that exclude each other, or "outputs"}
    layers:     of attention; heads: of each
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
        **size: Any,
    ) -> None:
        super().__init__()
        count = modalities or channels // frames
        beside, covariates = channels - count * frames, max(0, context - count)
        if method not in METHODS:
            raise ValueError(f"there is no method {method!r}, only {', '.join(METHODS)}")
        if beside < 0 or 0 < context < count:
            raise ValueError(f"{channels} channels and a context of {context} are not those of {count} images")
        if covariates and (method == "late" or dense):
            raise ValueError("covariates join heads for the whole image alone, and no late fusion")
        self.method, self.frames, self.count, self.beside, self.covariates = method, frames, count, beside, covariates
        self.means = dict(means or {})
        made = [
            UNet(frames + beside, spatial_dims, dense if n == 0 or method == "late" else {}, {}, **size)
            for n in range(count)
        ]
        deepest = _width(made[0].encoder[-1])
        self.encoders = nn.ModuleList(one.encoder for one in made)
        self.decoders = nn.ModuleList(
            Decoder(one, {name: nn.Linear(deepest + covariates, n) for name, n in vectors.items()}, bool(dense))
            for one in (made if method == "late" else made[:1])
        )
        self.attention = Attention(deepest, count, layers, heads) if method == "attention" else None

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        # Of the images' own batch, which an exported network does not know beforehand.
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        every = torch.ones_like(images.flatten(1)[:, : self.count])
        there = every if context is None else (context[:, -self.count :] > 0).to(images.dtype)
        told = context[:, : self.covariates] if context is not None and self.covariates else None
        each = [
            _features(encoder, seen) for encoder, seen in zip(self.encoders, self._by_modality(images), strict=True)
        ]
        if self.method == "late":
            return self._late(each, there)
        levels = [_mean(level, there) for level in zip(*each, strict=True)]
        if self.attention is not None:
            levels[-1] = levels[-1] + self.attention([one[-1] for one in each], there)
        outputs: dict[str, Tensor] = self.decoders[0](levels, told)
        return outputs

    def _by_modality(self, images: Tensor) -> list[Tensor]:
        own = self.count * self.frames
        parts = images[:, :own].split(self.frames, dim=1)
        return [torch.cat([part, images[:, own:]], dim=1) if self.beside else part for part in parts]

    def _late(self, each: Sequence[Sequence[Tensor]], there: Tensor) -> dict[str, Tensor]:
        said = [decoder(features, None) for decoder, features in zip(self.decoders, each, strict=True)]
        return {name: self._answer(name, [one[name] for one in said], there) for name in said[0]}

    def _answer(self, name: str, outputs: Sequence[Tensor], there: Tensor) -> Tensor:
        """The mean over the images that are there; of probabilities its logarithm, whose softmax is the mean again."""
        if self.means.get(name.partition("@")[0], "outputs") == "outputs":
            return _mean(outputs, there)
        logs = torch.stack([one.log_softmax(dim=1) for one in outputs])
        weights = (1 - there) * NOTHING
        whole = there.sum(dim=1).clamp(min=1).log()
        ones = [1] * (outputs[0].ndim - 1)
        return (logs + weights.transpose(0, 1).reshape(self.count, -1, *ones)).logsumexp(dim=0) - whole.reshape(
            -1, *ones
        )


class Decoder(nn.Module):
    """The features of each level of a U-Net, the finest first, to its heads."""

    def __init__(self, made: UNet, vectors: Mapping[str, nn.Module], upwards: bool) -> None:
        super().__init__()
        self.up, self.decoder = (made.up, made.decoder) if upwards else (nn.ModuleList(), nn.ModuleList())
        self.dense, self.coarse, self.vectors = made.dense, made.coarse, nn.ModuleDict(vectors)

    def forward(self, features: Sequence[Tensor], told: Tensor | None) -> dict[str, Tensor]:
        """Return the answers by head; covariates: (batch, entries) or None."""
        deepest = features[-1]
        pooled = deepest.flatten(2).mean(dim=2)
        pooled = pooled if told is None else torch.cat([pooled, told], dim=1)
        outputs = {name: layer(pooled) for name, layer in self.vectors.items()}
        images, decoded = deepest, []
        for up, block, skip in zip(self.up, self.decoder, features[-2::-1], strict=False):
            images = block(torch.cat([up(images), skip], dim=1))
            decoded.append(images)
        outputs |= {name: layer(images) for name, layer in self.dense.items()}
        if self.training:
            outputs |= {name: layer(decoded[-1 - int(name.rpartition("@")[2])]) for name, layer in self.coarse.items()}
        return outputs


class Attention(nn.Module):
    """Features of the deepest level of each image, to what they say together: every place attends to all that is there.

    Which image a place is of is told by a learnt vector; where it lies the convolutions before have told.
    """

    def __init__(self, width: int, count: int, layers: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not share {width} features evenly")
        self.images = nn.Parameter(torch.randn(count, width) * 0.02)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.last = nn.LayerNorm(width)

    def forward(self, features: Sequence[Tensor], there: Tensor) -> Tensor:
        """[(batch, width, *spatial)] and (batch, images) to (batch, width, *spatial)."""
        spatial = features[0].shape[2:]
        places = math.prod(spatial)
        tokens = torch.cat([one.flatten(2).transpose(1, 2) + self.images[n] for n, one in enumerate(features)], dim=1)
        hidden = ((1 - there) * NOTHING).repeat_interleave(places, dim=1)[:, None, None]
        for layer in self.layers:
            tokens = layer(tokens, hidden)
        said = self.last(tokens).transpose(1, 2).split(places, dim=2)
        return _mean([one.unflatten(2, spatial) for one in said], there)


class Layer(nn.Module):
    """Self-attention and two layers for each token, both beside a shortcut and normalised before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first_norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asked, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """(batch, tokens, width); hidden: (batch, 1, 1, tokens) is added to how much each is looked at."""
        asked = self.asked(self.first_norm(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = asked[0], asked[1], asked[2]  # (batch, heads, tokens, width of a head)
        weights = (query @ key.transpose(2, 3) / math.sqrt(key.shape[-1]) + hidden).softmax(dim=-1)
        tokens = tokens + self.joined((weights @ value).transpose(1, 2).flatten(2))
        inner: Tensor = self.inner(self.second_norm(tokens))
        return tokens + inner


def _features(encoder: nn.Module, images: Tensor) -> list[Tensor]:
    """Those of each level, the finest first."""
    found = []
    for block in encoder.children():
        images = block(images)
        found.append(images)
    return found


def _mean(each: Sequence[Tensor], there: Tensor) -> Tensor:
    """[(batch, ...)] of each image to their mean over those that are there, (batch, images); 0 where none is."""
    ones = [1] * (each[0].ndim - 1)
    total = torch.stack([one * there[:, n].reshape(-1, *ones) for n, one in enumerate(each)]).sum(dim=0)
    return total / there.sum(dim=1).clamp(min=1).reshape(-1, *ones)


def _width(stage: nn.Module) -> int:
    """Feature maps that a stage of an encoder makes."""
    block: Any = stage[-1] if isinstance(stage, nn.Sequential) else stage
    return int(block.second.out_channels)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """As a U-Net; how many images there are and how their answers are averaged is the plan's."""
    size, because, _ = size_for_unet(patch, strides, device)
    own = {**size, "modalities": 0, "frames": 1}
    return own, f"{because}; features of each level are averaged over the images that are there", PAPER


def size_for_late(
    patch: Sequence[int], strides: Sequence[Sequence[int]], device: str
) -> tuple[Mapping[str, Any], str, str]:
    """As a U-Net for each image, whose answers are averaged."""
    size, because, _ = size_for_unet(patch, strides, device)
    own = {**size, "modalities": 0, "frames": 1, "means": {}}
    return own, f"{because}; a whole network for each image, whose answers are averaged", FUSION_LATE.paper


FUSION = Family(Fusion, size_for, PAPER, preset={"method": "intermediate"}, takes_context=(OWN,))
FUSION_ATTENTION = replace(
    FUSION,
    paper="arXiv:2206.02425",
    preset={"method": "attention"},
    preset_reason="at the deepest level their places attend to each other",
)
FUSION_LATE = replace(FUSION, size_for=size_for_late, paper="doi:10.1109/34.667881", preset={"method": "late"})
