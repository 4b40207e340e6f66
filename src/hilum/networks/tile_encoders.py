"""Features of single tiles: shares of colours, a network that learns, and one that stands still.

Building one never downloads weights. Tiles have intensities of 0 to 1, or are brought back to them by `scales`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import timm
import torch
from torch import Tensor, nn

from hilum.networks.inflated_resnet import InflatedEncoder
from hilum.networks.network_family import FROZEN

if TYPE_CHECKING:
    pass

COLOUR = "colour"
TRAINED = "trained"
ENCODERS = (COLOUR, TRAINED, FROZEN)
# Levels of each channel, of which three make 216 colours; more channels have too many.
LEVELS = 6
MOST_CHANNELS = 3
# Intensities are multiples of 1/255, and rounding must not carry one across the edge of a level.
ROUNDING = 1e-3
# Of the network that learns: a tile of 256 pixels is 64 after the first convolution, and 4 at the end.
STRIDES = ((4, 4), (2, 2), (2, 2), (2, 2), (2, 2))
# Bytes of features that a network which stands still remembers.
MOST_BYTES = 2**30


class ColourShares(nn.Module):
    """(n, channels, rows, columns) to (n, 6 ** channels): the share of a tile's pixels in each colour.

    A channel of 0 to 1 has six levels of equal width; the first channel counts most in a colour's number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels > MOST_CHANNELS:
            raise ValueError(f"colours are those of at most {MOST_CHANNELS} channels, not {channels}")
        self.features = LEVELS**channels

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """Return the shares, which sum to 1."""
        levels = (tiles * LEVELS + ROUNDING).clamp(0.0, LEVELS - 0.5).long()
        colours = levels[:, 0]
        for channel in range(1, int(tiles.shape[1])):
            colours = LEVELS * colours + levels[:, channel]
        flat = colours.flatten(1)
        counts = tiles.new_zeros(1, self.features).expand(tiles.shape[0], -1)
        return counts.scatter_add(1, flat, torch.ones_like(flat, dtype=tiles.dtype)) / flat.shape[1]


class StillModel(nn.Module):
    """A model of timm as it was loaded: it never learns, and knows each tile of training that it has seen.

    model: timm's name (`timm.list_models()`); settings: further arguments of `timm.create_model`
    """

    def __init__(self, channels: int, model: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if ":" in model or not timm.is_model(model):  # a scheme such as hf_hub: would be fetched
            raise ValueError(f"timm has no model {model!r} (timm.list_models() lists them)")
        body: Any = timm.create_model(model, pretrained=False, in_chans=channels, num_classes=0, **(settings or {}))
        self.body = body.requires_grad_(False)
        self.features = int(getattr(body, "head_hidden_size", None) or body.num_features)
        known: Mapping[str, Sequence[float] | None] = body.pretrained_cfg
        mean, deviation = (known.get(name) or () for name in ("mean", "std"))
        fits = len(mean) == len(deviation) == channels
        scale = torch.tensor([mean, deviation] if fits else [[0.0] * channels, [1.0] * channels])
        self.register_buffer("scale", scale.reshape(2, 1, channels, 1, 1), persistent=False)
        self._known: dict[bytes, Tensor] = {}
        self.register_load_state_dict_post_hook(_forget_tiles)

    def train(self, mode: bool = True) -> StillModel:
        """Training changes nothing of the model."""
        super().train(mode)
        self.body.eval()
        return self

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """Return (n, features)."""
        if not self.training or tiles.is_meta:
            return self._compute(tiles)
        keys = [hashlib.blake2b(one.cpu().contiguous().numpy().data, digest_size=16).digest() for one in tiles]
        fresh = {key: place for place, key in enumerate(keys) if key not in self._known}
        if fresh:
            found = self._compute(tiles[list(fresh.values())])
            if (len(self._known) + len(fresh)) * found[0].nbytes > MOST_BYTES:
                self._known.clear()
                return self._compute(tiles)
            self._known.update(zip(fresh, found, strict=True))
        return torch.stack([self._known[key] for key in keys])

    def _compute(self, tiles: Tensor) -> Tensor:
        mean, deviation = cast("Tensor", self.scale)
        return cast("Tensor", self.body((tiles - mean) / deviation))


def _forget_tiles(module: Any, _: Any) -> None:
    """Other weights find other features."""
    module._known.clear()


class TileEncoder(nn.Module):
    """(n, channels, rows, columns) to (n, features): what each of several encoders finds in a tile, joined.

    encoder:  "colour", "trained" and "frozen", as many as wanted
    scales:   [mean, deviation] of each channel, where images come normalised by them; None for images of 0 to 1
    maps:     of the first stage of the network that learns
    model, settings: of the network that stands still
    """

    def __init__(
        self,
        channels: int,
        encoder: Sequence[str] = (COLOUR, TRAINED),
        scales: Sequence[Sequence[float]] | None = None,
        maps: int = 16,
        model: str = "resnet18",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not encoder or len(set(encoder)) < len(encoder) or not set(encoder) <= set(ENCODERS):
            raise ValueError(f"encoder {list(encoder)} is no list of {', '.join(ENCODERS)}, each at most once")
        if scales is not None and len(scales) != channels:
            raise ValueError(f"scales are of {len(scales)} channels, and the images have {channels}")
        pairs = torch.tensor(scales or [[0.0, 1.0]] * channels).T.reshape(2, 1, channels, 1, 1)
        self.register_buffer("scales", pairs, persistent=False)
        self.colour = ColourShares(channels) if COLOUR in encoder else None
        self.trained = InflatedEncoder(channels, 2, width=maps, strides=STRIDES) if TRAINED in encoder else None
        self.frozen = StillModel(channels, model, settings) if FROZEN in encoder else None
        parts = (self.colour, self.trained, self.frozen)
        self.features = sum(part.features for part in parts if part is not None)

    def forward(self, tiles: Tensor) -> Tensor:
        """Return the features; roots of shares, so that a rare colour counts."""
        mean, deviation = cast("Tensor", self.scales)
        joined = list[Tensor]()
        plain = tiles * deviation + mean
        if self.colour is not None:
            joined.append(self.colour(plain).sqrt())
        if self.trained is not None:
            joined.append(self.trained(tiles)[-1].flatten(2).mean(dim=2))
        if self.frozen is not None:
            joined.append(self.frozen(plain))
        return torch.cat(joined, dim=1)
