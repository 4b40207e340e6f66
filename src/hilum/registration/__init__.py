"""Registration of two images: similarity, linear and deformable transforms, on torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.registration import deformable, engine, learnt_registration, linear, motion, similarity_measures

lazy_index(__name__)
