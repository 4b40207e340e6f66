"""N-D geometry and intensity of arrays: no files, no networks, no name of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.transforms import (
        adc,
        augment,
        augment_following,
        augment_spatial,
        channel_stack,
        clip_frames,
        corruptions,
        image_filters,
        intensity,
        label_maps,
        label_outlines,
        label_resampling,
        operators,
        orient,
        painting,
        pasting,
        phantoms,
        prompt_channels,
        random_draws,
        resampling,
        spatial_transforms,
        stains,
    )
    from hilum.transforms.channel_stack import COLOUR

lazy_index(__name__)
