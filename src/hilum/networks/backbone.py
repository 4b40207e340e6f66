"""Two-dimensional backbones of the library timm, by name, for whole-image outputs.

Wightman, PyTorch Image Models, doi:10.5281/zenodo.4414861. Building a backbone never downloads weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import timm
from timm.models import Beit, Eva, SwinTransformer, VisionTransformer, VisionTransformerRelPos
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad

from hilum.networks import context_fusion, transformer_blocks
from hilum.networks.context_fusion import PooledHead
from hilum.networks.network_family import PublishedWeights, Sized, Strides

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings

PAPER = "doi:10.5281/zenodo.4414861"
# Voxels an axis. Backbones halve the resolution five times: of smaller images too little is left to be pooled.
SMALLEST = 96
# timm's word for maps with channels as their last axis.
CHANNELS_LAST = "NHWC"
# timm's transformers in which each patch attends to all others in every block.
AMONG_ALL = (VisionTransformer, VisionTransformerRelPos, Eva, Beit)
WITHIN_WINDOWS = "its patches attend within windows that change from layer to layer, and never among all of the image"
NOT_AMONG_ALL = "its answer is not computed by attention among all patches of the image"


class Backbone(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    model:    timm's name of the backbone (`timm.list_models()`)
    enlarge:  factor by which images are enlarged first, where they are smaller than the backbone was made for
    dropout:  before the heads
    settings: further arguments of `timm.create_model`, as `img_size` (after `enlarge`) of a model that attends
    context:  number of covariates
    fusion:   settings of `ContextFusion`; without them covariates are concatenated to the features
    """

    body: Any  # the timm model

    def __init__(
        self,
        channels: int,
        vectors: Mapping[str, int],
        model: str = "resnet18",
        enlarge: int = 1,
        dropout: float = 0.1,
        settings: Mapping[str, Any] | None = None,
        context: int = 0,
        fusion: FusionSettings | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if enlarge < 1:
            raise ValueError(f"enlarge is a whole number from 1, not {enlarge}")
        if ":" in model or not timm.is_model(model):  # a scheme such as hf_hub: would be fetched
            raise ValueError(f"timm has no model {model!r} (timm.list_models() lists them)")
        self.enlarge = enlarge
        self.body = timm.create_model(model, pretrained=False, in_chans=channels, num_classes=0, **(settings or {}))
        # where others see its features
        self.coarsest = nn.Identity()
        self.pooled = nn.Identity()
        inside = getattr(self.body, "head_hidden_size", None) or self.body.num_features
        self.end(inside, vectors, dropout, context, fusion)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return {head: (batch, size)}; context: (batch, covariates)."""
        if self.enlarge > 1:
            images = interpolate(images, scale_factor=float(self.enlarge), mode="bilinear", align_corners=False)
        try:
            features = self.pooled(self.body.forward_head(self._maps(images)))
        except AssertionError as error:  # what timm says of a size that a model was not made for
            made_for = f"settings: {{img_size: {[int(n) for n in images.shape[2:]]}}}"
            raise RuntimeError(f"{error}; a model that attends needs {made_for} in network.size") from error
        return self.answers_of(self.dropout(features), context)

    @property
    def without_rollout(self) -> str:
        """Why the attention of this model cannot be rolled out; empty where it can."""
        if isinstance(self.body, SwinTransformer):
            return ""
        if not isinstance(self.body, AMONG_ALL):
            within = any(hasattr(part, "window_size") for part in self.body.modules())
            return WITHIN_WINDOWS if within else NOT_AMONG_ALL
        if self.body.global_pool not in ("token", "avg"):
            return f"its patches are pooled by {self.body.global_pool!r}, neither by a class token nor by their mean"
        layers = [part for part in self.body.modules() if hasattr(part, "fused_attn")]
        # Differential attention is one softmax less another, so that a row does not sum to 1.
        if len(layers) != len(self.body.blocks) or any(hasattr(layer, "dual_lambda") for layer in layers):
            return "its blocks have other attention than one softmax each"
        return ""

    def spread_rollout(self, flow: Tensor, images: Tensor) -> Tensor:
        """(batch, 1, *spatial) of a rollout, (batch, tokens, tokens): each patch's share in what is pooled."""
        spatial = [int(n) * self.enlarge for n in images.shape[2:]]
        patches = self.body.patch_embed
        before = self.body.num_prefix_tokens
        by_token = slice(0, 2 if hasattr(self.body, "dist_token") else 1)
        by_mean = slice(0 if getattr(self.body, "pool_include_prefix", False) else before, None)
        pooled = flow[:, by_token if self.body.global_pool == "token" else by_mean, before:].mean(dim=1)
        grid = patches.dynamic_feat_size(spatial)
        covered = [n * step for n, step in zip(grid, patches.patch_size, strict=True)]
        shares = transformer_blocks.spread_evenly(pooled.reshape(-1, 1, *grid), patches.patch_size, covered)
        # Patches reach beyond the image where the model pads it, and not to its end where the size is no multiple.
        padded = pad(shares, (0, spatial[1] - covered[1], 0, spatial[0] - covered[0]))
        return avg_pool2d(padded, self.enlarge) * self.enlarge**2

    def _maps(self, images: Tensor) -> Tensor:
        """The maps that the backbone pools; they pass `coarsest` with their channels first."""
        maps: Tensor = self.body.forward_features(images)
        if getattr(self.body, "output_fmt", "") == CHANNELS_LAST:
            return cast("Tensor", self.coarsest(maps.movedim(-1, 1)).movedim(1, -1))
        return cast("Tensor", self.coarsest(maps))


def build(channels: int, spatial_dims: int, vectors: Mapping[str, int], **size: Any) -> Backbone:
    """A backbone for pictures."""
    del spatial_dims
    return Backbone(channels, vectors, **size)


def published(channels: int, size: Mapping[str, Any]) -> dict[str, Tensor]:
    """timm's published weights of this model, downloaded, for images of so many channels."""
    model = size.get("model", "resnet18")
    if not timm.is_model_pretrained(model):
        raise ValueError(f"there are no published weights of {model}")
    settings = {"in_chans": channels, "num_classes": 0, **(size.get("settings") or {})}
    backbone = timm.create_model(model, pretrained=True, **settings)
    return {f"body.{name}": value for name, value in backbone.state_dict().items()}


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """A small residual network; small images are enlarged, so that enough of them is left to be pooled."""
    del strides
    model = "resnet18" if device == "cpu" else "resnet50"
    enlarge = max(1, -(-SMALLEST // max(patch)))
    how = f"enlarged {enlarge} times, as the backbone halves them five times" if enlarge > 1 else "as they are"
    return {"model": model, "enlarge": enlarge}, f"{model} for the {device}; images of {tuple(patch)} {how}", PAPER


TIMM = context_fusion.pooled_family(
    build,
    size_for,
    PAPER,
    axes=(2,),
    otherwise="timm's backbones are for pictures: choose resnet or densenet for volumes",
    published=PublishedWeights(published),
    features="pooled",
    grid_features="coarsest",
    attention="body",
)
