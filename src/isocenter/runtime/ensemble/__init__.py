"""Models of several trainings as one: on one scale of intensities, with weights on the device in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runtime.ensemble.common_scale import converting, have_own_scales
    from isocenter.runtime.ensemble.members import MEMBERS, averaged_model, read_list, with_own_guard, write_members
    from isocenter.runtime.ensemble.weight_offload import on_device

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
