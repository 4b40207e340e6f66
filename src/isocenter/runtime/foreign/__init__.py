"""Models of other programs, read as they are and used as their makers use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runtime.foreign.detect import (
        CALIBRATED,
        is_foreign,
        load_foreign,
        refuse_activation,
        refuse_almost,
        why_unkept,
        why_unpackable,
        write_calibrated,
    )
    from isocenter.runtime.foreign.monai_network import OneHead
    from isocenter.runtime.foreign.nnunet import is_nnunet, nnunet_start, read_postprocessing
    from isocenter.runtime.foreign.nnunet_preprocessing import KIND, NNUNetPreprocessing

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
