"""Layouts of models of images and texts: how the text's vector is pooled from a BERT, and the image's projected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hilum.lazy import torch
from hilum.networks.layouts import resnets, vision_transformers
from hilum.networks.layouts.weight_layout import Content, WeightLayout

if TYPE_CHECKING:
    from torch import Tensor

# OpenAI's mean and deviation of each colour, of values from 0 to 1, which both programs took over.
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
SIDE = 224
SCALE = "logit_scale"


@dataclass(frozen=True)
class TextLayout:
    """How a program makes vectors of texts and images that can be compared.

    image:      layout of its image encoder
    projection: weight of the last layer from the image's features
    transformer: prefix of the BERT's weights
    layers:     weights of the layers after the BERT, with GELU between them
    pool:       hidden states of one text, (1, tokens, width) each, to (1, width)
    longest:    tokens of a text
    """

    image: WeightLayout
    projection: str
    transformer: str
    layers: tuple[str, ...]
    pool: Callable[[Sequence[Any]], Any]
    longest: int

    def fits(self, content: Content) -> bool:
        """Whether a file has both sides."""
        return self.image.fits(content) and {self.projection, SCALE, *self.layers} <= set(content)

    def vector(self, content: Mapping[str, Tensor], states: Sequence[Tensor]) -> Tensor:
        """(numbers,) of unit length of one text, from the BERT's hidden states."""
        hidden = self.pool(states)
        for place, name in enumerate(self.layers):
            hidden = (torch.nn.functional.gelu(hidden) if place else hidden) @ content[name].T
        vector: Tensor = torch.nn.functional.normalize(hidden, dim=1)[0]
        return vector


def _first_token(states: Sequence[Tensor]) -> Tensor:
    return states[-1][:, 0]


def _all_tokens(states: Sequence[Tensor]) -> Tensor:
    return torch.stack([states[1], states[2], states[-1]], dim=1).mean(dim=2).mean(dim=1)


# The first is BiomedCLIP's (arXiv:2303.00915), the second MedCLIP's (arXiv:2210.10163).
TEXT_LAYOUTS: Mapping[str, TextLayout] = {
    "openclip": TextLayout(
        vision_transformers.OPENCLIP,
        "visual.head.proj.weight",
        "text.transformer.",
        ("text.proj.0.weight", "text.proj.2.weight"),
        _first_token,
        256,
    ),
    "medclip": TextLayout(
        resnets.MEDCLIP,
        "vision_model.model.fc.weight",
        "text_model.model.",
        ("text_model.projection_head.weight",),
        _all_tokens,
        77,
    ),
}
