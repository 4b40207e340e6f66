"""N-D geometry and intensity of arrays: no files, no networks, no name of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.transforms.adc import apparent_diffusion
    from isocenter.transforms.augment import Augmentation
    from isocenter.transforms.augment_following import Answers, Corners, Following, LabelMap, ObjectMap, Warp
    from isocenter.transforms.augment_spatial import rotation, sides_changed
    from isocenter.transforms.channels import (
        COLOUR,
        GREY,
        all_channels,
        images_of,
        placed,
        recoloured,
        stacked,
        without_alpha,
    )
    from isocenter.transforms.corruptions import CORRUPTIONS, SEVERITIES, corrupted, corruption_named
    from isocenter.transforms.draws import child, generator, order, some_of
    from isocenter.transforms.frames import at_steps, evenly, frames_as_channels, in_slots, looked_at, thinned
    from isocenter.transforms.intensity import CLIPPED, Normalisation, Scale
    from isocenter.transforms.label_maps import (
        OBJECTS,
        PIECES,
        SPECK_VOXELS,
        box_of_content,
        boxes_of_labels,
        boxes_of_numbers,
        boxes_of_objects,
        boxes_of_pieces,
        is_speck,
        majority,
        region_series,
        staple,
        votes,
    )
    from isocenter.transforms.labels import (
        Stretched,
        growing,
        label_taps,
        largest,
        resample_labels,
        resample_largest,
        voted,
        winners,
    )
    from isocenter.transforms.orient import check_flips, content, names_sides, padding, permuted, unpermuted
    from isocenter.transforms.phantoms import phantom
    from isocenter.transforms.resampling import Order, Taps, along, resample, resampling_matrix, slabs, taps
    from isocenter.transforms.spatial import (
        aligned,
        carried,
        carried_labels,
        carried_points,
        composed,
        determinants,
        displacements,
        folded_percent,
        inverse_errors,
        inverted,
        jacobian,
        refuse_unlike_axes,
        refuse_unreached,
        right_angled,
        sd_log_jacobian,
        whole_field,
        with_one_field,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
