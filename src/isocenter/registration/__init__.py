"""Registration of two images: similarity, linear and deformable transforms, on torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.registration.deformable import SMOOTHNESS, diffusion
    from isocenter.registration.engine import Registration, RegistrationSettings, TransformKind, registered
    from isocenter.registration.learnt import pair_similarity, pulled, refining_field
    from isocenter.registration.linear import Initial
    from isocenter.registration.motion import FrameTarget, angles_of, frame_transforms
    from isocenter.registration.similarity import SIMILARITIES, Similarity, SimilarityName

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
