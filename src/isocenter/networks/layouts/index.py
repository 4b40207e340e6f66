"""The index of layouts of weights."""

from __future__ import annotations

import importlib
from functools import cache

from isocenter.networks.layouts.layout import Content, Layout

# {name: the `Layout` of a file of this folder}; the first that fits is taken.
LAYOUTS: dict[str, str] = {
    "nnssl": "isocenter.networks.layouts.nnssl:LAYOUT",
    "nnunet": "isocenter.networks.layouts.nnunet:PLAIN",
    "nnunet_residual": "isocenter.networks.layouts.nnunet:RESIDUAL",
    "radimagenet": "isocenter.networks.layouts.radimagenet:LAYOUT",
    "medclip": "isocenter.networks.layouts.medclip:LAYOUT",
    "biovil": "isocenter.networks.layouts.biovil:LAYOUT",
    "openclip": "isocenter.networks.layouts.openclip:LAYOUT",
    "dinov2": "isocenter.networks.layouts.dinov2:LAYOUT",
    "mae": "isocenter.networks.layouts.mae:LAYOUT",
}


@cache
def weight_layouts() -> tuple[Layout, ...]:
    """Every layout."""
    places = (place.partition(":") for place in LAYOUTS.values())
    return tuple(getattr(importlib.import_module(module), name) for module, _, name in places)


def layout_of(content: Content) -> Layout | None:
    """The layout of a file's content; None for plain weights by name."""
    return next((layout for layout in weight_layouts() if layout.fits(content)), None)
